"""Many normal tensors at once: csrc/cuda/normal_many.cu; one after the other on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import READS_TENSORS, _cpu, cuda
from bslfast._native._operands import DTYPES, PARAMETRIZATIONS, address, empty_log


def forward(
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    prior_locs: Sequence[float],
    prior_scales: Sequence[float],
    seed: Tensor,
    stream: int,
    parametrization: str,
    has_value: bool,
) -> tuple[list[Tensor], Tensor]:
    """(samples, the sum of all divergences). Raises ValueError if a scale is negative.

    If not ``has_value``, the second is room for the sum: :func:`write_kl` fills it.
    """
    if READS_TENSORS and not cuda.holds(locs[0]):
        code = PARAMETRIZATIONS[parametrization]
        found = _cpu.normal_many_results(
            *(code, (*locs, *raw_scales), prior_locs, prior_scales, seed, stream, has_value)
        )
        if found is not None:
            return [*found[:-1]], found[-1]
    locs, raw_scales = _contiguous(locs), _contiguous(raw_scales)
    samples = [torch.empty_like(loc) for loc in locs]
    kl = empty_log((), locs[0])
    call = _call(locs, raw_scales, prior_locs, prior_scales, seed, stream, parametrization)
    _forward(call, locs, raw_scales, _addresses(samples), kl.data_ptr() if has_value else 0)
    return samples, kl


def write_kl(
    kl: Tensor,
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    prior_locs: Sequence[float],
    prior_scales: Sequence[float],
    parametrization: str,
) -> None:
    """Write the sum of all divergences into ``kl``. Raises ValueError if a scale is negative."""
    if READS_TENSORS and not cuda.holds(locs[0]):
        code, tensors = PARAMETRIZATIONS[parametrization], (*locs, *raw_scales)
        if _cpu.normal_many_kl(code, tensors, prior_locs, prior_scales, kl):
            return
    locs, raw_scales = _contiguous(locs), _contiguous(raw_scales)
    call = _call(locs, raw_scales, prior_locs, prior_scales, None, 0, parametrization)
    _forward(call, locs, raw_scales, [0] * len(locs), kl.data_ptr())


def _forward(
    call: tuple[Any, ...],
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    samples: Sequence[int],
    kl: int,
) -> None:
    """``samples`` and ``kl`` are addresses, 0 where not wanted."""
    if cuda.holds(locs[0]):
        kernels = cuda.module()
        with cuda.launching(locs[0]) as handle:
            n = kernels.normal_many_partials([loc.numel() for loc in locs])
            partials = torch.empty(n, dtype=torch.float64, device=locs[0].device)
            kernels.normal_many_forward(*call, samples, partials.data_ptr(), kl, handle)
        return
    bad = _cpu.normal_many_forward(*(*call, samples, kl))
    if bad >= 0:
        least = raw_scales[bad].min().item()
        raise ValueError(f"raw_scale[{bad}]: expected scales >= 0, got {least:g}")


def backward(
    grad_samples: Sequence[Tensor | None],
    grad_kl: Tensor | None,
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    prior_locs: Sequence[float],
    prior_scales: Sequence[float],
    seed: Tensor,
    stream: int,
    parametrization: str,
    needs: Sequence[bool],
    into: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """Gradients of all locs, then of all raw scales; None where ``needs`` says so.

    ``into`` has memory to be used for them, or None where there is none; for the gradient of a loc,
    it may be that of the sample's. One may be the gradient of the sample itself.
    """
    if into is None and READS_TENSORS and not cuda.holds(locs[0]):
        code, given = PARAMETRIZATIONS[parametrization], (*locs, *raw_scales)
        gradients = _cpu.normal_many_gradients(
            *(code, given, prior_locs, prior_scales, seed, stream, grad_samples, grad_kl, needs)
        )
        if gradients is not None:
            return [*gradients]
    n = len(locs)
    locs, raw_scales = _contiguous(locs), _contiguous(raw_scales)
    held = [None if g is None else g.contiguous() for g in grad_samples]
    # Without a divergence, the gradient of a loc is that of its sample.
    passed = [
        grad if need and grad_kl is None else None for grad, need in zip(held, needs, strict=False)
    ]
    found: list[Tensor | None] = []
    for i, t in enumerate((*locs, *raw_scales)):
        room = None if into is None else into[i]
        if not needs[i] or (i < n and passed[i] is not None):
            found.append(None)
        elif room is not None and room.is_contiguous():
            found.append(room)
        else:
            found.append(torch.empty_like(t))
    call: tuple[Any, ...] = (
        *_call(locs, raw_scales, prior_locs, prior_scales, seed, stream, parametrization),
        *(_addresses(held), address(grad_kl), _addresses(found[:n]), _addresses(found[n:])),
    )
    if cuda.holds(locs[0]):
        with cuda.launching(locs[0]) as handle:
            cuda.module().normal_many_backward(*call, handle)
    else:
        _cpu.normal_many_backward(*call)
    found[:n] = [one if grad is None else grad for one, grad in zip(found, passed, strict=False)]
    return found


def _call(
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    prior_locs: Sequence[float],
    prior_scales: Sequence[float],
    seed: Tensor | None,
    stream: int,
    parametrization: str,
) -> Any:
    """What forward and backward take alike."""
    return (
        *(DTYPES[locs[0].dtype], PARAMETRIZATIONS[parametrization]),
        *([loc.numel() for loc in locs], _addresses(locs), _addresses(raw_scales)),
        *(prior_locs, prior_scales, address(seed), stream),
    )


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    return [address(t) for t in tensors]
