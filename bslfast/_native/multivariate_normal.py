"""Kernels of normal vectors with a full covariance: csrc/cpu/multivariate_normal.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu
from bslfast._native._operands import PARAMETRIZATIONS, address


def allocate(like: Tensor, n: int, sample_shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Room for samples and for their divergence."""
    return like.new_empty((*sample_shape, n)), like.new_empty(())


def forward(
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    seed: Tensor,
    stream: int,
    sample_shape: Sequence[int],
    parametrization: str,
    prior_loc: float,
    prior_scale: float,
    *,
    has_value: bool = True,
) -> tuple[Tensor, Tensor]:
    """(samples, the divergence). Raises ValueError if a scale is negative.

    If not ``has_value``, the second is room for the divergence: :func:`write_kl` fills it.
    """
    samples, kl = allocate(raw_scale, len(raw_scale), sample_shape)
    given = locs, raw_scale, lower, parametrization, prior_loc, prior_scale
    n_samples = math.prod(sample_shape)
    _forward(*given, seed, stream, n_samples, samples, kl if has_value else None)
    return samples, kl


def write_kl(
    kl: Tensor,
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    parametrization: str,
    prior_loc: float,
    prior_scale: float,
) -> None:
    """Write the divergence into ``kl``. Raises ValueError if a scale is negative."""
    given = locs, raw_scale, lower, parametrization, prior_loc, prior_scale
    _forward(*given, None, 0, 0, None, kl)


def _forward(
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    parametrization: str,
    prior_loc: float,
    prior_scale: float,
    seed: Tensor | None,
    stream: int,
    n_samples: int,
    samples: Tensor | None,
    kl: Tensor | None,
) -> None:
    call, _held = _call(
        locs, raw_scale, lower, parametrization, prior_loc, prior_scale, seed, stream, n_samples
    )
    if not _cpu.multivariate_normal_forward(*call, address(samples), address(kl)):
        raise ValueError(f"raw_scale: expected scales >= 0, got {raw_scale.min().item():g}")


def backward(
    grad_samples: Tensor | None,
    grad_kl: Tensor | None,
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    seed: Tensor,
    stream: int,
    sample_shape: Sequence[int],
    parametrization: str,
    prior_loc: float,
    prior_scale: float,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of all locs, of the raw scale and of ``lower``; None where ``needs`` says so."""
    tensors = (*locs, raw_scale, lower)
    grads = [
        torch.empty_like(t, memory_format=torch.contiguous_format) if need else None
        for t, need in zip(tensors, needs, strict=True)
    ]
    call, _held = _call(
        *(locs, raw_scale, lower, parametrization, prior_loc, prior_scale, seed, stream),
        math.prod(sample_shape),
    )
    if grad_samples is not None:
        grad_samples = grad_samples.contiguous()
    *of_locs, of_raw_scale, of_lower = map(address, grads)
    _cpu.multivariate_normal_backward(
        *call, address(grad_samples), address(grad_kl), of_locs, of_raw_scale, of_lower
    )
    return grads


def _call(
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    parametrization: str,
    prior_loc: float,
    prior_scale: float,
    seed: Tensor | None,
    stream: int,
    n_samples: int,
) -> tuple[Any, Any]:
    """What forward and backward take alike, and the tensors that must live until then."""
    locs = [loc.contiguous() for loc in locs]
    raw_scale, lower = raw_scale.contiguous(), lower.contiguous()
    call = (
        raw_scale.dtype == torch.float64,
        PARAMETRIZATIONS[parametrization],
        n_samples,
        [loc.numel() for loc in locs],
        [loc.data_ptr() for loc in locs],
        raw_scale.data_ptr(),
        lower.data_ptr(),
        prior_loc,
        prior_scale,
        address(seed),
        stream,
    )
    return call, (locs, raw_scale, lower)
