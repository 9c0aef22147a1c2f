"""Kernels of ops with rows of parameters for each element.

csrc/cpu/mixture_logistic.cpp, csrc/cpu/discretized_logistic_mixture.cpp, csrc/cpu/bernstein.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu
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

MAX_COMPONENTS = _cpu.MAX_COMPONENTS
#: As csrc/bindings/register_mixture.cpp numbers them.
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
    shape = _shape(x, logits, loc, log_scale)
    return x.new_empty(shape), x.new_empty(reduced_shape(shape, reduction))


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
    y, log_det = allocate_transform(x, logits, loc, log_scale, inverse, reduction)
    op = f"{family} inverse" if inverse else family
    _forward(op, (x, logits, loc, log_scale), y.shape, (), y, reduction, log_det)
    return y, log_det


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
    tensors = (x, logits, loc, raw_log_scale)
    log_prob = allocate_discretized(*tensors, reduction)
    _forward("discretized", tensors, _shape(*tensors), constants, None, reduction, log_prob)
    return log_prob


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
    shape = _shape(x, raw_coefficients)
    return x.new_empty(shape), x.new_empty(reduced_shape(shape, reduction))


def bernstein(
    x: Tensor, raw_coefficients: Tensor, bound: float, inverse: bool, reduction: str
) -> tuple[Tensor, Tensor]:
    """(y, log_det)."""
    y, log_det = allocate_bernstein(x, raw_coefficients, bound, inverse, reduction)
    op = "bernstein inverse" if inverse else "bernstein"
    _forward(op, (x, raw_coefficients), y.shape, (bound,), y, reduction, log_det)
    return y, log_det


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


def _forward(
    op: str,
    tensors: tuple[Tensor, ...],
    shape: torch.Size,
    constants: Sequence[float],
    y: Tensor | None,
    reduction: str,
    log: Tensor,
) -> None:
    if 0 in shape:
        log.zero_()
        return
    x, *parameters = tensors
    logits, loc, log_scale = _rows(parameters, shape)
    _cpu.mixture_forward(
        OPS[op],
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        logits,
        loc,
        log_scale,
        parameters[0].shape[-1],
        _padded(constants),
        address(y),
        REDUCTIONS[reduction],
        log.data_ptr(),
    )


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
        logits, loc, log_scale = _rows(parameters, shape)
        grad_rows = [*map(address, grads[1:]), *(0,) * (_ROWS - len(parameters))]
        _cpu.mixture_backward(
            OPS[op],
            x.dtype == torch.float64,
            shape,
            operand(x, shape),
            logits,
            loc,
            log_scale,
            components,
            _padded(constants),
            grad_operand(grad_y, shape),
            grad_operand(grad_log, shape, reduction),
            address(grads[0]),
            grad_rows[0],
            grad_rows[1],
            grad_rows[2],
        )
    return tuple(unbroadcast(grad, t) for grad, t in zip(grads, tensors, strict=True))


def _rows(parameters: Sequence[Tensor], shape: Sequence[int]) -> list[Operand]:
    """All rows of a call; None for those that an op does not have."""
    absent: list[Operand] = [None] * (_ROWS - len(parameters))
    return [*(row_operand(p, shape) for p in parameters), *absent]


def _padded(constants: Sequence[float]) -> Sequence[float]:
    return (*constants, *(0.0,) * (_NUMBERS - len(constants)))


def _shape(x: Tensor, *parameters: Tensor) -> torch.Size:
    """That of the results before any sum."""
    shapes = [p.shape[:-1] for p in parameters]
    if all(shape == x.shape for shape in shapes):
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, *shapes))
