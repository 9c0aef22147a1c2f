"""Many normal tensors at once: csrc/cuda/normal_many.cu, and csrc/cpu/normal.cpp for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import cuda, normal
from bslfast._native._operands import DTYPES, address


def forward(
    locs: Sequence[Tensor],
    raw_scales: Sequence[Tensor],
    prior_locs: Sequence[float],
    prior_scales: Sequence[float],
    seed: Tensor,
    stream: int,
    parametrization: str,
) -> tuple[list[Tensor], Tensor]:
    """(samples, the sum of all divergences). Raises ValueError if a scale is negative."""
    first = locs[0]
    if not cuda.holds(first):
        drawn = [
            normal.forward(
                *(loc, raw_scale, None, None, seed, stream + i),
                *(prior_locs[i], prior_scales[i], parametrization, (), "sum"),
            )
            for i, (loc, raw_scale) in enumerate(zip(locs, raw_scales, strict=True))
        ]
        return [sample for sample, _ in drawn], total([kl for _, kl in drawn])
    locs, raw_scales = _contiguous(locs), _contiguous(raw_scales)
    sizes = [loc.numel() for loc in locs]
    samples = [torch.empty_like(loc) for loc in locs]
    kernels = cuda.module()
    with cuda.launching(first) as handle:
        kl = first.new_empty(())
        n = kernels.normal_many_partials(sizes)
        partials = torch.empty(n, dtype=torch.float64, device=first.device)
        kernels.normal_many_forward(
            *(DTYPES[first.dtype], normal.PARAMETRIZATIONS[parametrization], sizes),
            *(_addresses(locs), _addresses(raw_scales), prior_locs, prior_scales),
            *(seed.data_ptr(), stream, _addresses(samples)),
            *(partials.data_ptr(), kl.data_ptr(), handle),
        )
    return samples, kl


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
) -> list[Tensor | None]:
    """Gradients of all locs, then of all raw scales; None where ``needs`` says so."""
    first, n = locs[0], len(locs)
    if not cuda.holds(first):
        grads = [
            normal.backward(
                *(grad_samples[i], grad_kl, locs[i], raw_scales[i], None, None, seed, stream + i),
                *(prior_locs[i], prior_scales[i], parametrization, (), "sum"),
                (needs[i], needs[n + i], False, False),
            )
            if needs[i] or needs[n + i]
            else (None, None)
            for i in range(n)
        ]
        return [g[0] for g in grads] + [g[1] for g in grads]
    locs, raw_scales = _contiguous(locs), _contiguous(raw_scales)
    held = [None if g is None else g.contiguous() for g in grad_samples]
    found = [
        torch.empty_like(t) if need else None
        for t, need in zip((*locs, *raw_scales), needs, strict=True)
    ]
    with cuda.launching(first) as handle:
        cuda.module().normal_many_backward(
            *(DTYPES[first.dtype], normal.PARAMETRIZATIONS[parametrization]),
            [loc.numel() for loc in locs],
            *(_addresses(locs), _addresses(raw_scales), prior_locs, prior_scales),
            *(seed.data_ptr(), stream, _addresses(held), address(grad_kl)),
            *(_addresses(found[:n]), _addresses(found[n:]), handle),
        )
    return found


def total(divergences: Sequence[Tensor]) -> Tensor:
    """Their sum, rounded once."""
    return torch.stack(list(divergences)).sum(dtype=torch.float64).to(divergences[0].dtype)


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    return [address(t) for t in tensors]
