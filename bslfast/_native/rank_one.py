"""Kernels of planar and radial maps: rank_one in csrc/cpu and csrc/cuda."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    address,
    empty,
    grad_operand,
    operand,
    row_operand,
    unbroadcast,
)


class Kernels:
    """One of the two maps.

    Args:
        radial: which.
        n_rows: how many of its tensors are rows [..., D]; the others have one number for each row.
    """

    def __init__(self, *, radial: bool, n_rows: int) -> None:
        self._radial = radial
        self._n_rows = n_rows

    def allocate(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Room for (y, log_det)."""
        z, shape = tensors[0], self._shape(tensors)
        return empty((*shape, z.shape[-1]), z), z.new_empty(shape)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """(y, log_det)."""
        y, log_det = self.allocate(*tensors)
        shape = log_det.shape
        if 0 not in shape:
            call = (*self._call(tensors, shape), y.data_ptr(), log_det.data_ptr())
            if cuda.holds(y):
                with cuda.launching(y) as handle:
                    cuda.module().rank_one_forward(*call, handle)
            else:
                _cpu.rank_one_forward(*call)
        return y, log_det

    def backward(
        self,
        grad_y: Tensor | None,
        grad_log_det: Tensor | None,
        *arguments: Tensor | Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the tensors; None where not needed. ``arguments`` end with ``needs``."""
        *given, needs = arguments
        tensors: tuple[Tensor, ...] = tuple(t for t in given if isinstance(t, Tensor))
        shape, z = self._shape(tensors), tensors[0]
        width = z.shape[-1]
        # What is broadcast from one row is added up by the kernel, in float64.
        shared = [
            0 < i < self._n_rows and t.numel() == width and len(shape) > 0
            for i, t in enumerate(tensors)
        ]
        on_cuda = cuda.holds(z)
        n = math.prod(shape)
        chunks = cuda.module().rank_one_chunks(n) if on_cuda else _cpu.rank_one_chunks(n, width)
        room_for_sums = z.new_empty if on_cuda else z.new_zeros
        grads = [
            None
            if not need
            else room_for_sums((chunks, width), dtype=torch.float64)
            if one
            else z.new_empty((*shape, width) if i < self._n_rows else shape)
            for i, (one, need) in enumerate(zip(shared, needs, strict=True))
        ]
        if 0 not in shape:
            if grad_y is None:
                grad_y = z.new_zeros(width).expand(*shape, width)
            missing = [0] * (3 - self._n_rows)
            whole = [0 if one else address(g) for g, one in zip(grads, shared, strict=True)]
            sums = [address(g) if one else 0 for g, one in zip(grads, shared, strict=True)]
            call = (
                *self._call(tensors, shape),
                row_operand(grad_y, shape),
                grad_operand(grad_log_det, shape),
                [*whole[: self._n_rows], *missing, *whole[self._n_rows :], 0][:5],
                [*sums[: self._n_rows], *missing],
            )
            if on_cuda:
                kernels = cuda.module()
                room = z.new_empty(n, kernels.RANK_ONE_COEFFICIENTS) if any(sums) else None
                with cuda.launching(z) as handle:
                    kernels.rank_one_backward(*call, address(room), handle)
            else:
                _cpu.rank_one_backward(*call)
        return tuple(
            unbroadcast(g, t.reshape(width)).view(t.shape)  # type: ignore[union-attr]
            if one and g is not None
            else unbroadcast(g, t)
            for g, t, one in zip(grads, tensors, shared, strict=True)
        )

    def _call(self, tensors: Sequence[Tensor], shape: torch.Size) -> Any:
        """What all kernels begin with."""
        rows = [row_operand(t, shape) for t in tensors[: self._n_rows]]
        scalars = [operand(t, shape) for t in tensors[self._n_rows :]]
        z = tensors[0]
        # An operand that is not there is read like any other.
        operands = [*rows, *rows][:3], [*scalars, 0.0][:2]
        return self._radial, z.dtype == torch.float64, shape, z.shape[-1], *operands

    def _shape(self, tensors: Sequence[Tensor]) -> torch.Size:
        """Of the rows, broadcast."""
        shapes = [t.shape[:-1] if i < self._n_rows else t.shape for i, t in enumerate(tensors)]
        if all(s == shapes[0] for s in shapes):
            return shapes[0]
        return torch.Size(torch.broadcast_shapes(*shapes))


planar = Kernels(radial=False, n_rows=3)
radial = Kernels(radial=True, n_rows=2)
