"""How tensors are handed to the kernels (the other side is csrc/bindings/operands.h)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import torch
from torch import Tensor

from bslfast._native import _cpu
from bslfast._precision import SIXTEEN_BITS

#: None, a number, the address of a contiguous tensor of the call's shape, or (address, strides).
Operand = Union[None, float, int, tuple[int, tuple[int, ...]]]  # noqa: UP007 (Python 3.10)

#: What kernels know these by.
REDUCTIONS = {name: code for code, name in enumerate(_cpu.REDUCTIONS)}
PARAMETRIZATIONS = {name: code for code, name in enumerate(_cpu.PARAMETRIZATIONS)}
DTYPES = {getattr(torch, name): code for code, name in enumerate(_cpu.DTYPES)}
MAX_DIMS = _cpu.MAX_DIMS


def operand(tensor: Tensor | None, shape: Sequence[int]) -> Operand:
    """``tensor`` as an operand of a call over ``shape``; broadcast to it without a copy."""
    if tensor is None:
        return None
    if tensor.shape == shape:
        if tensor.is_contiguous():
            return tensor.data_ptr()
        if len(shape) <= MAX_DIMS:
            return tensor.data_ptr(), tensor.stride()
    if tensor.numel() == 1:
        return tensor.data_ptr(), (0,) * len(shape)
    expanded = tensor.expand(shape)
    if len(shape) > MAX_DIMS:
        copy = expanded.contiguous()
        return _held(copy, copy.stride())
    return expanded.data_ptr(), expanded.stride()


def operands(tensors: Sequence[Tensor], shape: Sequence[int]) -> list[Operand]:
    """All of them, those of the call's shape without a call each."""
    return [
        t.data_ptr() if t.shape == shape and t.is_contiguous() else operand(t, shape)
        for t in tensors
    ]


def row_operand(tensor: Tensor, shape: Sequence[int]) -> Operand:
    """``tensor`` as one row of contiguous numbers, its last dimension, per element of ``shape``."""
    expanded = tensor if tensor.shape[:-1] == shape else tensor.expand(*shape, tensor.shape[-1])
    strides = expanded.stride()
    if (strides[-1] == 1 or tensor.shape[-1] <= 1) and len(shape) <= MAX_DIMS:
        return tensor.data_ptr(), strides[:-1]
    copy = expanded.contiguous()
    return _held(copy, copy.stride()[:-1])


def grad_operand(grad: Tensor | None, shape: Sequence[int], reduction: str = "none") -> Operand:
    """The gradient of a result, reduced from ``shape``, for all elements; 0 if none arrived."""
    if grad is None:
        return 0.0
    if reduction != "row":
        return operand(grad, shape)
    if len(shape) <= MAX_DIMS:  # without a torch op for each of unsqueeze and expand
        return grad.data_ptr(), (*grad.stride(), 0)
    return operand(grad.unsqueeze(-1), shape)


def _held(copy: Tensor, strides: tuple[int, ...]) -> Operand:
    held = _OfCopy((copy.data_ptr(), strides))
    held.tensor = copy
    return held


class _OfCopy(tuple[int, tuple[int, ...]]):
    """(address, strides) of a copy that must live as long as they are used."""

    tensor: Tensor


def reduced_shape(shape: Sequence[int], reduction: str) -> Sequence[int]:
    """What is left of ``shape`` after ``reduction``."""
    if reduction == "none":
        return shape
    return shape[:-1] if reduction == "row" else ()


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Contiguous room of a shape, with the dtype and device of ``like``, as fast as torch can."""
    if like.shape == shape and like.is_contiguous():
        return torch.empty_like(like)
    return like.new_empty(shape)


def empty_log(shape: Sequence[int], like: Tensor) -> Tensor:
    """Room for the logarithms of a call on tensors such as ``like``."""
    if like.dtype in SIXTEEN_BITS:
        return torch.empty(shape, dtype=torch.float32, device=like.device)
    return empty(shape, like)


def empty_grad(shape: Sequence[int], like: Tensor) -> Tensor:
    """Room for the gradient of ``like``, which a call broadcasts to ``shape``."""
    if like.shape == shape:
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return empty_log(shape, like)  # to be summed before it is rounded


def address(tensor: Tensor | None) -> int:
    """Where the elements of a contiguous tensor lie; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def unbroadcast(grad: Tensor | None, like: Tensor | None) -> Tensor | None:
    """Sum a gradient over the dimensions that ``like`` was broadcast along."""
    if grad is None or like is None or grad.shape == like.shape:
        return grad
    if like.numel() == 1:
        total = _total(grad)
        if like.dim():
            total = total.view(like.shape)
    else:
        total = grad.sum_to_size(like.shape)
    return total if total.dtype == like.dtype else total.to(like.dtype)


def _total(grad: Tensor) -> Tensor:
    # torch splits a sum to a scalar by the number of threads, which would show in the last digit;
    # sums to several results it does not.
    row = 4096
    if grad.numel() <= row or not grad.is_cpu:
        return grad.sum()
    flat = grad.reshape(-1)
    whole = flat.numel() // row * row
    return _total(torch.cat([flat[:whole].reshape(-1, row).sum(dim=1), flat[whole:]]))
