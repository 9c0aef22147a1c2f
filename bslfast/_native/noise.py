"""Kernels that fill tensors with noise: csrc/cpu/noise.cpp and csrc/cuda/noise.cu."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import DTYPES
from bslfast._precision import log_dtype

_FILL = {"normal": _cpu.noise_normal, "uniform": _cpu.noise_uniform}


def forward(
    seed: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype, kind: str
) -> Tensor:
    """Standard normals or uniforms in (0, 1)."""
    if cuda.holds(seed):
        out = allocate(seed, shape, stream, dtype, kind)
        if out.numel() > 0:
            call = (kind == "normal", DTYPES[dtype], out.shape, seed.data_ptr(), stream)
            with cuda.launching(out) as handle:
                cuda.module().noise(*call, out.data_ptr(), handle)
        return out
    computed = log_dtype(dtype)
    out = allocate(seed, shape, stream, computed, kind)
    if out.numel() > 0:
        _FILL[kind](
            out.data_ptr(),
            out.numel(),
            computed == torch.float64,
            int(seed) % 2**64,
            stream,
            0,
        )
    return out if computed == dtype else out.to(dtype)


def normals_for(scale: Tensor, shape: torch.Size, seed: Tensor) -> Tensor | None:
    """Few standard normals for samples with this scale; None if some of it is negative.

    ``scale`` is a plain contiguous tensor of float32 or float64 numbers. Needs READS_TENSORS.
    """
    out = torch.empty_like(scale) if scale.shape == shape else scale.new_empty(shape)
    return out if _cpu.draw_few_normals(out, scale, seed.data_ptr(), 0) else None


def allocate(
    seed: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype, kind: str
) -> Tensor:
    """Room for them."""
    return torch.empty(tuple(shape), dtype=dtype, device=seed.device)
