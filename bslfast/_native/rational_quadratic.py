"""Kernels of the rational-quadratic spline: csrc/cpu/rational_quadratic.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu
from bslfast._native._operands import (
    REDUCTIONS,
    address,
    grad_operand,
    operand,
    reduced_shape,
    row_operand,
    unbroadcast,
)

TAILS: dict[str | None, int] = {"linear": 0, "circular": 1, None: 2, "affine": 3}
#: How many more slopes than bins.
EXTRA_SLOPES: dict[str | None, int] = {"linear": -1, "circular": 0, None: 1, "affine": 1}
MAX_BINS = _cpu.MAX_BINS


def allocate(
    x: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, reduction: str
) -> tuple[Tensor, Tensor]:
    """Room for (y, log_det)."""
    shape = _shape(x, widths, heights, derivatives)
    return (
        torch.empty(shape, dtype=x.dtype, device=x.device),
        torch.empty(reduced_shape(shape, reduction), dtype=x.dtype, device=x.device),
    )


def forward(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    derivatives: Tensor,
    inverse: bool,
    tails: str | None,
    bound: float,
    min_bin_width: float,
    min_bin_height: float,
    min_derivative: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """(y, log_det). Raises ValueError if there are no tails and an x lies outside."""
    y, log_det = allocate(x, widths, heights, derivatives, reduction)
    shape = y.shape
    if 0 in shape:
        return y, log_det.zero_()
    inside = _cpu.rational_quadratic_forward(
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        row_operand(widths, shape),
        row_operand(heights, shape),
        row_operand(derivatives, shape),
        widths.shape[-1],
        TAILS[tails],
        inverse,
        bound,
        min_bin_width,
        min_bin_height,
        min_derivative,
        y.data_ptr(),
        REDUCTIONS[reduction],
        log_det.data_ptr(),
    )
    if not inside:
        worst = x.flatten()[x.abs().nan_to_num(0.0, torch.inf).argmax()].item()
        raise ValueError(
            f"x: expected values in [{-bound:g}, {bound:g}], the domain of a spline without tails, "
            f"got {worst:g}"
        )
    return y, log_det


def backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    derivatives: Tensor,
    inverse: bool,
    tails: str | None,
    bound: float,
    min_bin_width: float,
    min_bin_height: float,
    min_derivative: float,
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of x, widths, heights and derivatives; None where not needed."""
    shape = _shape(x, widths, heights, derivatives)
    parameters = (widths, heights, derivatives)
    grad_x, *grads = (
        torch.empty((*shape, *last), dtype=x.dtype, device=x.device) if need else None
        for last, need in zip(((), *(p.shape[-1:] for p in parameters)), needs, strict=True)
    )
    if 0 not in shape:
        _cpu.rational_quadratic_backward(
            x.dtype == torch.float64,
            shape,
            operand(x, shape),
            row_operand(widths, shape),
            row_operand(heights, shape),
            row_operand(derivatives, shape),
            widths.shape[-1],
            TAILS[tails],
            inverse,
            bound,
            min_bin_width,
            min_bin_height,
            min_derivative,
            grad_operand(grad_y, shape),
            grad_operand(grad_log_det, shape, reduction),
            address(grad_x),
            address(grads[0]),
            address(grads[1]),
            address(grads[2]),
        )
    return (
        unbroadcast(grad_x, x),
        *(unbroadcast(grad, p) for grad, p in zip(grads, parameters, strict=True)),
    )


def _shape(x: Tensor, *parameters: Tensor) -> torch.Size:
    shapes = [p.shape[:-1] for p in parameters]
    if all(shape == x.shape for shape in shapes):
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, *shapes))
