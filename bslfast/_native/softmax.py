"""Kernels of all ops with a softmax: csrc/core/softmax_call.h says what these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import REDUCTIONS, address, operand, reduced_shape
from bslfast._native.pointwise import sums

_OPS = _cpu.softmax_ops()


class Kernels:
    """An op of the table of softmaxes in csrc/rows/ops.h, by its name there.

    Both functions take what a call of the kernels has. Of tensors they take contiguous ones.

    Args:
        sizes: the shape of the rows. Their numbers lie between its first and its last dimension if
            ``inner`` is above 1, else behind it.
        columns, inner, x_rows, index, seed, stream, number, option: as in SoftmaxCallOf.
    """

    def __init__(self, name: str) -> None:
        self._op = _OPS[name]

    def _call(
        self,
        x: Tensor,
        sizes: Sequence[int],
        columns: int,
        inner: int,
        x_rows: int,
        index: Tensor | None,
        seed: Tensor | None,
        stream: int,
        number: float,
        option: bool,
    ) -> tuple[Any, ...]:
        """What forward and backward take alike."""
        return (
            *(self._op, x.dtype == torch.float64, sizes, columns, inner, x_rows),
            *(x.data_ptr(), address(index), address(seed), stream, number, option),
        )

    def forward(
        self,
        x: Tensor,
        shape: Sequence[int],
        sizes: Sequence[int],
        columns: int,
        inner: int = 1,
        x_rows: int = 0,
        index: Tensor | None = None,
        seed: Tensor | None = None,
        stream: int = 0,
        number: float = 0.0,
        option: bool = False,
        reduction: str = "none",
    ) -> tuple[Tensor, bool]:
        """The result, of this shape before it is reduced, and whether all indices are columns.

        On CUDA devices nothing looks at indices.
        """
        call = self._call(*(x, sizes, columns, inner, x_rows, index, seed, stream, number, option))
        if cuda.holds(x):
            result = x.new_empty(shape)
            with cuda.launching(x) as handle:
                cuda.module().softmax_forward(call, result.data_ptr(), handle)
            return sums(result, reduction), True
        result = x.new_empty(shape if reduction == "none" else reduced_shape(shape, reduction))
        # Without columns no index is one.
        valid = columns > 0 and _cpu.softmax_forward(call, REDUCTIONS[reduction], result.data_ptr())
        return result, valid

    def backward(
        self,
        grad: Tensor,
        x: Tensor,
        shape: Sequence[int],
        sizes: Sequence[int],
        columns: int,
        inner: int = 1,
        x_rows: int = 0,
        index: Tensor | None = None,
        seed: Tensor | None = None,
        stream: int = 0,
        number: float = 0.0,
        option: bool = False,
    ) -> Tensor:
        """The gradient of x, a row for each row of the call, of this shape.

        ``grad`` is a contiguous tensor of this shape, too, or has numbers that broadcast to the
        rows.
        """
        grad_x = x.new_empty(shape)
        call = self._call(*(x, sizes, columns, inner, x_rows, index, seed, stream, number, option))
        by_result = grad.data_ptr() if grad.shape == grad_x.shape else operand(grad, sizes)
        if cuda.holds(x):
            with cuda.launching(x) as handle:
                cuda.module().softmax_backward(call, by_result, grad_x.data_ptr(), handle)
        else:
            _cpu.softmax_backward(call, by_result, grad_x.data_ptr())
        return grad_x
