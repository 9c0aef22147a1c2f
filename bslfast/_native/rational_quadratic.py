"""Kernels of the rational-quadratic spline: rational_quadratic in csrc/cpu and csrc/cuda."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._checks import shown
from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    REDUCTIONS,
    address,
    grad_operand,
    operand,
    reduced_shape,
    row_operand,
    unbroadcast,
)
from bslfast._native.pointwise import sums

TAILS: dict[str | None, int] = {"linear": 0, "circular": 1, None: 2, "affine": 3}
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
    """(y, log_det).

    Raises ValueError if there are no tails and an x lies outside. On CUDA devices its results are
    NaN: to look at x would wait for the device.
    """
    tensors = (x, widths, heights, derivatives)
    options = (inverse, bound, min_bin_width, min_bin_height, min_derivative)
    shape = _shape(*tensors)
    if cuda.holds(x):
        y, each = allocate(*tensors, "none")
        if 0 not in shape:
            call = (*_call(tensors, shape, tails, *options), y.data_ptr(), each.data_ptr())
            with cuda.launching(x) as handle:
                cuda.module().rational_quadratic_forward(*call, handle)
        return y, sums(each, reduction)
    y, log_det = allocate(*tensors, reduction)
    if 0 in shape:
        return y, log_det.zero_()
    begin = _call(tensors, shape, tails, *options)
    call = (*begin, y.data_ptr(), REDUCTIONS[reduction], log_det.data_ptr())
    inside = _cpu.rational_quadratic_forward(*call)
    if not inside:
        worst = x.flatten()[x.abs().nan_to_num(0.0, torch.inf).argmax()].item()
        raise ValueError(
            f"x: expected values in [{-bound:g}, {bound:g}], the domain of a spline without tails, "
            f"got {shown(worst, -bound, bound)}"
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
        options = (inverse, bound, min_bin_width, min_bin_height, min_derivative)
        call = (
            *_call((x, *parameters), shape, tails, *options),
            grad_operand(grad_y, shape),
            grad_operand(grad_log_det, shape, reduction),
            *map(address, (grad_x, *grads)),
        )
        if cuda.holds(x):
            with cuda.launching(x) as handle:
                cuda.module().rational_quadratic_backward(*call, handle)
        else:
            _cpu.rational_quadratic_backward(*call)
    return (
        unbroadcast(grad_x, x),
        *(unbroadcast(grad, p) for grad, p in zip(grads, parameters, strict=True)),
    )


def _call(
    tensors: tuple[Tensor, ...], shape: torch.Size, tails: str | None, *options: float
) -> Any:
    """What all kernels begin with."""
    x, widths, heights, derivatives = tensors
    return (
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        row_operand(widths, shape),
        row_operand(heights, shape),
        row_operand(derivatives, shape),
        widths.shape[-1],
        TAILS[tails],
        *options,
    )


def _shape(x: Tensor, *parameters: Tensor) -> torch.Size:
    shapes = [p.shape[:-1] for p in parameters]
    if all(shape == x.shape for shape in shapes):
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, *shapes))
