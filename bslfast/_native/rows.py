"""Kernels of all ops over rows: csrc/core/rows.h says what these are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    REDUCTIONS,
    Operand,
    address,
    empty,
    grad_operand,
    operand,
    reduced_shape,
    row_operand,
    unbroadcast,
)
from bslfast._native.pointwise import sums

#: What kernels know by what an element has of a tensor.
NOTHING, NUMBER, ROW = map(_cpu.PER.index, ("nothing", "number", "row"))
_OPS = _cpu.row_ops()


class Kernels:
    """An op of the table in csrc/rows/ops.h, by its name there.

    Attributes:
        index: its place in the table.
        inputs: how many tensors it takes.
        kinds: for each, whether an element has a NUMBER or a ROW of it.
        value: whether an element's value is a NUMBER or a ROW, or NOTHING if it has none.
        has_value, has_log: what it returns.
        reduces: whether its logarithms are summed.
        adds_up: whether it sums the gradient of a row that serves all elements, in float64.
        is_random: whether it draws, so that it takes a seed.
        longest: the longest rows; 0 if they may have any length.
        n_variants: how many variants its options make.
    """

    def __init__(self, name: str) -> None:
        (
            self.index,
            self.kinds,
            self.value,
            self.has_log,
            self.reduces,
            self.adds_up,
            self.longest,
            self.n_variants,
        ) = _OPS[name]
        self.inputs = len(self.kinds)
        self.has_value = self.value != NOTHING
        self.is_random = False

    def shape(self, tensors: Sequence[Tensor], sample_shape: Sequence[int] = ()) -> torch.Size:
        """That of the elements."""
        shapes = [self._leading(i, t) for i, t in enumerate(tensors)]
        shape = shapes[0]
        for other in shapes:
            if other != shape:
                shape = torch.Size(torch.broadcast_shapes(*shapes))
                break
        return torch.Size((*sample_shape, *shape)) if sample_shape else shape

    def allocate(
        self, tensors: Sequence[Tensor], reduction: str, sample_shape: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Room for what the op returns: the value, the logarithm, or both."""
        return self._allocate(self.shape(tensors, sample_shape), tensors, reduction)

    def _allocate(
        self, shape: torch.Size, tensors: Sequence[Tensor], reduction: str
    ) -> tuple[Tensor, ...]:
        first = tensors[0]
        results: tuple[Tensor, ...] = ()
        if self.has_value:
            results = (empty(self._full(shape, 0, tensors[0], self.value), first),)
        if self.has_log:
            results = (*results, first.new_empty(reduced_shape(shape, reduction)))
        return results

    def forward(
        self,
        tensors: Sequence[Tensor],
        variant: int,
        numbers: tuple[float, ...],
        reduction: str,
        seed: Tensor | None,
        stream: int,
        sample_shape: Sequence[int],
        shape: torch.Size | None = None,
    ) -> tuple[tuple[Tensor, ...], int]:
        """The results, and a bit for each tensor with elements outside its domain.

        ``shape``: that of the elements, with samples in front, if it is known.
        """
        if shape is None:
            shape = self.shape(tensors, sample_shape)
        first = tensors[0]
        on_cuda = cuda.holds(first)
        kept = "none" if on_cuda else reduction  # CUDA kernels leave sums to others
        results = self._allocate(shape, tensors, kept)
        value = results[0] if self.has_value else None
        log = results[-1] if self.has_log else None
        invalid = 0
        if 0 not in shape:
            call = (
                *self._call(tensors, variant, numbers, shape),
                *(address(value), REDUCTIONS[kept], address(log)),
            )
            if on_cuda:
                with cuda.launching(first) as handle:
                    cuda.module().row_forward(*call, handle)
            else:
                invalid = _cpu.row_forward(*call)
        elif log is not None:
            log.zero_()
        if on_cuda and log is not None and reduction != "none":
            results = (*results[:-1], sums(log, reduction))
        return results, invalid

    def backward(
        self,
        grads: tuple[Tensor | None, ...],
        tensors: Sequence[Tensor],
        variant: int,
        numbers: tuple[float, ...],
        reduction: str,
        seed: Tensor | None,
        stream: int,
        sample_shape: Sequence[int],
        shape: torch.Size | None = None,
        *,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the tensors, None where not needed, from those of the results."""
        if grads[0] is None and grads[-1] is None:
            return (None,) * len(tensors)
        if shape is None:
            shape = self.shape(tensors, sample_shape)
        first = tensors[0]
        width = first.shape[-1] if self.kinds[0] == ROW else 1
        on_cuda = cuda.holds(first)
        # Gradients of a row that serves all elements are added up by the kernel, in float64.
        shared = [
            self.adds_up and i > 0 and self._is_shared(i, t, shape) for i, t in enumerate(tensors)
        ]
        chunks = 0
        if self.adds_up and any(shared):
            count = cuda.module().row_chunks if on_cuda else _cpu.row_chunks
            chunks = count(self.index, math.prod(shape), width)
        found: list[Tensor | None] = []
        for i, (t, need) in enumerate(zip(tensors, needs, strict=True)):
            if not need:
                found.append(None)
            elif shared[i]:
                room = first.new_empty if on_cuda else first.new_zeros
                found.append(room((chunks, width), dtype=torch.float64))
            else:
                found.append(first.new_empty(self._full(shape, i, t, self.kinds[i])))
        if 0 not in shape:
            grad_value: Operand = 0.0  # also of an op that has none
            if self.value == NUMBER:
                grad_value = grad_operand(grads[0], shape)
            elif self.value == ROW:
                by_value = grads[0]
                if by_value is None:
                    by_value = first.new_zeros(width).expand(*shape, width)
                grad_value = row_operand(by_value, shape)
            sums_of = [
                g.data_ptr() if s and g is not None else 0
                for g, s in zip(found, shared, strict=True)
            ]
            held = None
            if on_cuda and any(sums_of):
                held = first.new_empty(math.prod(shape), _cpu.ROW_COEFFICIENTS)
            call = (
                *self._call(tensors, variant, numbers, shape),
                grad_value,
                grad_operand(grads[-1], shape, reduction) if self.has_log else 0.0,
                [0 if s else address(g) for g, s in zip(found, shared, strict=True)],
                sums_of,
                0 if held is None else held.data_ptr(),
            )
            if on_cuda:
                with cuda.launching(first) as handle:
                    cuda.module().row_backward(*call, handle)
            else:
                _cpu.row_backward(*call)
        return tuple(
            unbroadcast(g, t.reshape(width)).view(t.shape)  # type: ignore[union-attr]
            if s and g is not None
            else unbroadcast(g, t)
            for g, t, s in zip(found, tensors, shared, strict=True)
        )

    def _leading(self, i: int, tensor: Tensor) -> torch.Size:
        return tensor.shape[:-1] if self.kinds[i] == ROW else tensor.shape

    def _is_shared(self, i: int, tensor: Tensor, shape: torch.Size) -> bool:
        return self.kinds[i] == ROW and tensor.numel() == tensor.shape[-1] and len(shape) > 0

    def _full(self, shape: torch.Size, i: int, tensor: Tensor, kind: int) -> Sequence[int]:
        """That of a tensor of this kind with a number or a row for each element."""
        return (*shape, tensor.shape[-1]) if kind == ROW else shape

    def _call(
        self, tensors: Sequence[Tensor], variant: int, numbers: tuple[float, ...], shape: torch.Size
    ) -> tuple[Any, ...]:
        """What all kernels begin with."""
        operands, widths = [], []
        for kind, t in zip(self.kinds, tensors, strict=True):
            if kind == ROW:
                operands.append(row_operand(t, shape))
                widths.append(t.shape[-1])
            else:
                operands.append(operand(t, shape))
                widths.append(1)
        is_double = tensors[0].dtype == torch.float64
        return self.index, variant, is_double, shape, operands, widths, numbers
