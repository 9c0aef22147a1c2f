"""Kernels of the affine coupling family: csrc/cpu/affine_coupling.cpp."""

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
    unbroadcast,
)

SCALE_FNS = {"tanh": 0, "exp": 1, "sigmoid": 2}


def allocate(x: Tensor, shift: Tensor, raw_scale: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """Room for (y, log_det)."""
    shape = _shape(x, shift, raw_scale)
    return (
        torch.empty(shape, dtype=x.dtype, device=x.device),
        torch.empty(reduced_shape(shape, reduction), dtype=x.dtype, device=x.device),
    )


def forward(
    x: Tensor, shift: Tensor, raw_scale: Tensor, scale_fn: str, inverse: bool, reduction: str
) -> tuple[Tensor, Tensor]:
    """(y, log_det)."""
    y, log_det = allocate(x, shift, raw_scale, reduction)
    shape = y.shape
    if 0 in shape:
        return y, log_det.zero_()
    _cpu.affine_coupling_forward(
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        operand(shift, shape),
        operand(raw_scale, shape),
        SCALE_FNS[scale_fn],
        inverse,
        y.data_ptr(),
        REDUCTIONS[reduction],
        log_det.data_ptr(),
    )
    return y, log_det


def backward(
    grad_y: Tensor | None,
    grad_log_det: Tensor | None,
    x: Tensor,
    shift: Tensor,
    raw_scale: Tensor,
    scale_fn: str,
    inverse: bool,
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of x, shift and raw_scale; None where not needed.

    That of the shift may be ``grad_y`` itself.
    """
    shape = _shape(x, shift, raw_scale)
    passed_on = not inverse and grad_y is not None and shift.shape == shape
    grad_x, grad_shift, grad_raw_scale = (
        torch.empty(shape, dtype=x.dtype, device=x.device) if need else None
        for need in (needs[0], needs[1] and not passed_on, needs[2])
    )
    if 0 not in shape:
        _cpu.affine_coupling_backward(
            x.dtype == torch.float64,
            shape,
            operand(x, shape),
            operand(shift, shape),
            operand(raw_scale, shape),
            SCALE_FNS[scale_fn],
            inverse,
            grad_operand(grad_y, shape),
            grad_operand(grad_log_det, shape, reduction),
            address(grad_x),
            address(grad_shift),
            address(grad_raw_scale),
        )
    if passed_on and needs[1]:
        grad_shift = grad_y
    return (
        unbroadcast(grad_x, x),
        unbroadcast(grad_shift, shift),
        unbroadcast(grad_raw_scale, raw_scale),
    )


def _shape(x: Tensor, shift: Tensor, raw_scale: Tensor) -> torch.Size:
    if x.shape == shift.shape == raw_scale.shape:
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, shift.shape, raw_scale.shape))
