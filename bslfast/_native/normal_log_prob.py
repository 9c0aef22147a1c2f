"""Kernels of the normal log density: csrc/cpu/normal_log_prob.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu
from bslfast._native._operands import (
    REDUCTIONS,
    address,
    operand,
    reduced_shape,
    unbroadcast,
)
from bslfast._native.normal import PARAMETRIZATIONS


def allocate(
    x: Tensor, loc: Tensor, raw_scale: Tensor, parametrization: str, reduction: str
) -> Tensor:
    """Room for the log densities."""
    shape = reduced_shape(_shape(x, loc, raw_scale), reduction)
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def forward(
    x: Tensor, loc: Tensor, raw_scale: Tensor, parametrization: str, reduction: str
) -> Tensor:
    """The log densities. Raises ValueError if a scale is negative."""
    shape = _shape(x, loc, raw_scale)
    log_prob = allocate(x, loc, raw_scale, parametrization, reduction)
    if 0 in shape:
        return log_prob.zero_()
    valid = _cpu.normal_log_prob_forward(
        x.dtype == torch.float64,
        shape,
        operand(x, shape),
        operand(loc, shape),
        operand(raw_scale, shape),
        PARAMETRIZATIONS[parametrization],
        REDUCTIONS[reduction],
        log_prob.data_ptr(),
    )
    if not valid:
        raise ValueError(f"raw_scale: expected scales >= 0, got {raw_scale.min().item():g}")
    return log_prob


def backward(
    grad: Tensor | None,
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    parametrization: str,
    reduction: str,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Gradients of x, loc and raw_scale; None where not needed."""
    if grad is None:
        return None, None, None
    shape = _shape(x, loc, raw_scale)
    grad_x, grad_loc, grad_raw_scale = (
        torch.empty(shape, dtype=x.dtype, device=x.device) if need else None for need in needs
    )
    if reduction == "row":
        grad = grad.unsqueeze(-1)
    if 0 not in shape:
        _cpu.normal_log_prob_backward(
            x.dtype == torch.float64,
            shape,
            operand(x, shape),
            operand(loc, shape),
            operand(raw_scale, shape),
            PARAMETRIZATIONS[parametrization],
            operand(grad, shape),
            address(grad_x),
            address(grad_loc),
            address(grad_raw_scale),
        )
    return (
        unbroadcast(grad_x, x),
        unbroadcast(grad_loc, loc),
        unbroadcast(grad_raw_scale, raw_scale),
    )


def _shape(x: Tensor, loc: Tensor, raw_scale: Tensor) -> torch.Size:
    if x.shape == loc.shape == raw_scale.shape:
        return x.shape
    return torch.Size(torch.broadcast_shapes(x.shape, loc.shape, raw_scale.shape))
