"""Noise alone, in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast.reference import noise


def standard_normal(
    shape: Sequence[int],
    *,
    seed: int | Tensor | None = None,
    stream: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """See :func:`bslfast.functional.standard_normal`."""
    return noise.normal(shape, *_drawn(seed, stream, dtype, device))


def standard_uniform(
    shape: Sequence[int],
    *,
    seed: int | Tensor | None = None,
    stream: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """See :func:`bslfast.functional.standard_uniform`."""
    return noise.uniform(shape, *_drawn(seed, stream, dtype, device))


def _drawn(
    seed: int | Tensor | None,
    stream: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[int | Tensor, int, torch.dtype, torch.device | str | None]:
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=device)
    return seed, stream, dtype or torch.get_default_dtype(), device
