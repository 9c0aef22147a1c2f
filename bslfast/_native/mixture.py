"""Kernels of ops with rows of parameters for each element.

mixture_logistic, discretized_logistic_mixture and bernstein in csrc/cpu and in csrc/cuda.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    REDUCTIONS,
    Operand,
    address,
    grad_operand,
    operand,
    reduced_shape,
    row_operand,
    unbroadcast,
)
from bslfast._native.pointwise import sums

MAX_COMPONENTS = _cpu.MAX_COMPONENTS
#: As the bindings number them.
OPS = {
    "mixture_logistic": 0,
    "mixture_logistic inverse": 1,
    "discretized": 2,
    "deep_sigmoidal": 3,
    "deep_sigmoidal inverse": 4,
    "bernstein": 5,
    "bernstein inverse": 6,
}
_NUMBERS = 5  # kMaxNumbers of csrc/core/pointwise.h
_ROWS = 3  # what a MixtureCall of csrc/cpu/mixture.h has


def allocate_transform(
    x: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor, inverse: bool, reduction: str
) -> tuple[Tensor, Tensor]:
    """Room for (y, log_det)."""
    return _allocate((x, logits, loc, log_scale), reduction)


def transform(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    inverse: bool,
    reduction: str,
    *,
    family: str = "mixture_logistic",
) -> tuple[Tensor, Tensor]:
    """(y, log_det)."""
    tensors = (x, logits, loc, log_scale)
    y = x.new_empty(_shape(*tensors))
    return y, _forward(f"{family} inverse" if inverse else family, tensors, (), y, reduction)


def transform_backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    inverse: bool,
    reduction: str,
    needs: Sequence[bool],
    *,
    family: str = "mixture_logistic",
) -> tuple[Tensor | None, ...]:
    """Gradients of x, logits, loc and log_scale; None where not needed."""
    op = f"{family} inverse" if inverse else family
    return _backward(op, grad_y, grad_log_det, (x, logits, loc, log_scale), (), reduction, needs)


def allocate_discretized(
    x: Tensor, logits: Tensor, loc: Tensor, raw_log_scale: Tensor, reduction: str
) -> Tensor:
    """Room for the log probabilities."""
    return x.new_empty(reduced_shape(_shape(x, logits, loc, raw_log_scale), reduction))


def discretized(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    constants: Sequence[float],
    reduction: str,
) -> Tensor:
    """The log probabilities."""
    return _forward("discretized", (x, logits, loc, raw_log_scale), constants, None, reduction)


def discretized_backward(
    grad: Tensor | None,
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    constants: Sequence[float],
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of x, logits, loc and raw_log_scale; None where not needed."""
    tensors = (x, logits, loc, raw_log_scale)
    return _backward("discretized", None, grad, tensors, constants, reduction, needs)


def allocate_bernstein(
    x: Tensor, raw_coefficients: Tensor, bound: float, inverse: bool, reduction: str
) -> tuple[Tensor, Tensor]:
    """Room for (y, log_det)."""
    return _allocate((x, raw_coefficients), reduction)


def bernstein(
    x: Tensor, raw_coefficients: Tensor, bound: float, inverse: bool, reduction: str
) -> tuple[Tensor, Tensor]:
    """(y, log_det)."""
    tensors = (x, raw_coefficients)
    y = x.new_empty(_shape(*tensors))
    op = "bernstein inverse" if inverse else "bernstein"
    return y, _forward(op, tensors, (bound,), y, reduction)


def bernstein_backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    raw_coefficients: Tensor,
    bound: float,
    inverse: bool,
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of x and raw_coefficients; None where not needed."""
    op = "bernstein inverse" if inverse else "bernstein"
    tensors = (x, raw_coefficients)
    return _backward(op, grad_y, grad_log_det, tensors, (bound,), reduction, needs)


def _allocate(tensors: tuple[Tensor, ...], reduction: str) -> tuple[Tensor, Tensor]:
    shape = _shape(*tensors)
    return tensors[0].new_empty(shape), tensors[0].new_empty(reduced_shape(shape, reduction))


def _forward(
    op: str,
    tensors: tuple[Tensor, ...],
    constants: Sequence[float],
    y: Tensor | None,
    reduction: str,
) -> Tensor:
    """The logarithms, reduced; ``y`` takes the values."""
    x = tensors[0]
    shape = _shape(*tensors)
    if 0 in shape:
        return x.new_zeros(reduced_shape(shape, reduction))
    call = _call(op, tensors, shape, constants)
    if cuda.holds(x):
        each = x.new_empty(shape)
        with cuda.launching(x) as handle:
            cuda.module().mixture_forward(*call, address(y), each.data_ptr(), handle)
        return sums(each, reduction)
    log = x.new_empty(reduced_shape(shape, reduction))
    _cpu.mixture_forward(*(*call, address(y), REDUCTIONS[reduction], log.data_ptr()))
    return log


def _backward(
    op: str,
    grad_y: Tensor | None,
    grad_log: Tensor | None,
    tensors: tuple[Tensor, ...],
    constants: Sequence[float],
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    shape = _shape(*tensors)
    x, *parameters = tensors
    components = parameters[0].shape[-1]
    grads = [
        x.new_empty((*shape, *last)) if need else None
        for last, need in zip(((), *((components,),) * len(parameters)), needs, strict=True)
    ]
    if 0 not in shape:
        call = (
            *_call(op, tensors, shape, constants),
            grad_operand(grad_y, shape),
            grad_operand(grad_log, shape, reduction),
            *map(address, grads),
            *(0,) * (_ROWS - len(parameters)),
        )
        if cuda.holds(x):
            with cuda.launching(x) as handle:
                cuda.module().mixture_backward(*call, handle)
        else:
            _cpu.mixture_backward(*call)
    return tuple(unbroadcast(grad, t) for grad, t in zip(grads, tensors, strict=True))


def _call(
    op: str, tensors: tuple[Tensor, ...], shape: torch.Size, constants: Sequence[float]
) -> Any:
    """What all kernels begin with. Rows that an op does not have are None."""
    x, *parameters = tensors
    absent: list[Operand] = [None] * (_ROWS - len(parameters))
    return (
        OPS[op],
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        *(row_operand(p, shape) for p in parameters),
        *absent,
        parameters[0].shape[-1],
        (*constants, *(0.0,) * (_NUMBERS - len(constants))),
    )


def _shape(x: Tensor, *parameters: Tensor) -> torch.Size:
    """That of the results before any sum."""
    shapes = [p.shape[:-1] for p in parameters]
    if all(shape == x.shape for shape in shapes):
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, *shapes))
