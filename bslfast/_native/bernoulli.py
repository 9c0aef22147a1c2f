"""Kernels of the Bernoulli family: csrc/cpu/bernoulli.cpp."""

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


def allocate(logits: Tensor, x: Tensor, reduction: str) -> Tensor:
    """Room for the log probabilities."""
    shape = reduced_shape(_shape(logits, x), reduction)
    return torch.empty(shape, dtype=logits.dtype, device=logits.device)


def forward(logits: Tensor, x: Tensor, reduction: str) -> Tensor:
    """The log probabilities."""
    shape = _shape(logits, x)
    log_prob = allocate(logits, x, reduction)
    if 0 in shape:
        return log_prob.zero_()
    _cpu.bernoulli_forward(
        logits.dtype == torch.float64,
        shape,
        operand(logits, shape),
        operand(x, shape),
        REDUCTIONS[reduction],
        log_prob.data_ptr(),
    )
    return log_prob


def backward(
    grad: Tensor | None, logits: Tensor, x: Tensor, reduction: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of logits and x; None where not needed."""
    shape = _shape(logits, x)
    if grad is None:
        return None, None
    grad_logits, grad_x = (
        torch.empty(shape, dtype=logits.dtype, device=logits.device) if need else None
        for need in needs
    )
    if reduction == "row":
        grad = grad.unsqueeze(-1)
    if 0 not in shape:
        _cpu.bernoulli_backward(
            logits.dtype == torch.float64,
            shape,
            operand(logits, shape),
            operand(x, shape),
            operand(grad, shape),
            address(grad_logits),
            address(grad_x),
        )
    return unbroadcast(grad_logits, logits), unbroadcast(grad_x, x)


def _shape(logits: Tensor, x: Tensor) -> torch.Size:
    if logits.shape == x.shape:
        return logits.shape
    return torch.Size(torch.broadcast_shapes(logits.shape, x.shape))
