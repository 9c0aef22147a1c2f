"""Kernels of all ops with a softmax: csrc/core/softmax_call.h says what these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import REDUCTIONS, address, operand, reduced_shape
from bslfast._native.pointwise import sums

_OPS = _cpu.softmax_ops()


class Call(NamedTuple):
    """What forward and backward take alike, and kernels in the order of SoftmaxCallOf.

    Tensors are contiguous. ``sizes`` is the shape of the rows. Their numbers lie between its first
    and its last dimension if ``inner`` is above 1, else behind it.
    """

    x: Tensor
    sizes: Sequence[int]
    columns: int
    inner: int = 1
    x_rows: int = 0
    indices: Tensor | None = None
    seed: Tensor | None = None
    stream: int = 0
    number: float = 0.0
    option: bool = False


class Kernels:
    """An op of the table of softmaxes in csrc/rows/ops.h, by its name there."""

    def __init__(self, name: str) -> None:
        self._op = _OPS[name]

    def _on_addresses(self, call: Call) -> tuple[Any, ...]:
        x, sizes, columns, inner, x_rows, indices, seed, stream, number, option = call
        return (
            *(self._op, x.dtype == torch.float64, sizes, columns, inner, x_rows),
            *(x.data_ptr(), address(indices), address(seed), stream, number, option),
        )

    def forward(
        self, call: Call, shape: Sequence[int], reduction: str = "none"
    ) -> tuple[Tensor, bool]:
        """The result, of this shape before it is reduced, and whether all indices are columns.

        On CUDA devices nothing looks at indices.
        """
        x, given = call.x, self._on_addresses(call)
        if cuda.holds(x):
            result = x.new_empty(shape)
            with cuda.launching(x) as handle:
                cuda.module().softmax_forward(given, REDUCTIONS["none"], result.data_ptr(), handle)
            return sums(result, reduction), True
        result = x.new_empty(shape if reduction == "none" else reduced_shape(shape, reduction))
        # Without columns no index is one.
        valid = call.columns > 0 and _cpu.softmax_forward(
            given, REDUCTIONS[reduction], result.data_ptr()
        )
        return result, valid

    def backward(self, grad: Tensor, call: Call, shape: Sequence[int]) -> Tensor:
        """The gradient of x, a row for each row of the call, of this shape.

        ``grad`` is a contiguous tensor of this shape, too, or has numbers that broadcast to the
        rows.
        """
        grad_x, given = call.x.new_empty(shape), self._on_addresses(call)
        by_result = grad.data_ptr() if grad.shape == grad_x.shape else operand(grad, call.sizes)
        if cuda.holds(call.x):
            with cuda.launching(call.x) as handle:
                cuda.module().softmax_backward(given, by_result, grad_x.data_ptr(), handle)
        else:
            _cpu.softmax_backward(given, by_result, grad_x.data_ptr())
        return grad_x
