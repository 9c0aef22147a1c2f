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
    locs, raw_scale, lower = _contiguous(locs, raw_scale, lower)
    n_samples = 1
    if sample_shape:
        samples = raw_scale.new_empty((*sample_shape, *raw_scale.shape))
        n_samples = math.prod(sample_shape)
    else:
        samples = torch.empty_like(raw_scale)
    kl = raw_scale.new_empty(())
    call = _call(
        *(locs, raw_scale, lower, parametrization, n_samples, prior_loc, prior_scale, seed, stream)
    )
    to = kl.data_ptr() if has_value else 0
    if not _cpu.multivariate_normal_forward(call, samples.data_ptr(), to):
        raise _negative(raw_scale)
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
    locs, raw_scale, lower = _contiguous(locs, raw_scale, lower)
    call = _call(locs, raw_scale, lower, parametrization, 0, prior_loc, prior_scale, None, 0)
    if not _cpu.multivariate_normal_forward(call, 0, kl.data_ptr()):
        raise _negative(raw_scale)


def backward(
    grad_samples: Sequence[Tensor],
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
    """Gradients of all locs, of the raw scale and of ``lower``; None where ``needs`` says so.

    ``grad_samples`` is one tensor, or of a single sample one for each loc; none if none arrived.
    """
    locs, raw_scale, lower = _contiguous(locs, raw_scale, lower)
    grad_samples = [grad.contiguous() for grad in grad_samples]
    grads = [
        torch.empty_like(t) if need else None
        for t, need in zip((*locs, raw_scale, lower), needs, strict=True)
    ]
    *of_locs, of_raw_scale, of_lower = map(address, grads)
    n_samples = math.prod(sample_shape) if sample_shape else 1
    call = _call(
        *(locs, raw_scale, lower, parametrization, n_samples, prior_loc, prior_scale, seed, stream)
    )
    by_samples = [grad.data_ptr() for grad in grad_samples]
    _cpu.multivariate_normal_backward(
        *(call, by_samples, address(grad_kl), of_locs, of_raw_scale, of_lower)
    )
    return grads


def _contiguous(
    locs: Sequence[Tensor], raw_scale: Tensor, lower: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    return [loc.contiguous() for loc in locs], raw_scale.contiguous(), lower.contiguous()


def _call(
    locs: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    parametrization: str,
    n_samples: int,
    prior_loc: float,
    prior_scale: float,
    seed: Tensor | None,
    stream: int,
) -> tuple[Any, ...]:
    """What forward and backward take alike, of contiguous tensors."""
    return (
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


def _negative(raw_scale: Tensor) -> ValueError:
    return ValueError(f"raw_scale: expected scales >= 0, got {raw_scale.min().item():g}")
