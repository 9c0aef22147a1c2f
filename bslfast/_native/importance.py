"""Kernels of importance-weighted bounds: csrc/cpu/importance.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu


def allocate(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    """Room for the bounds."""
    shape = log_weights.shape
    return log_weights.new_empty((*shape[:dim], *shape[dim + 1 :]))


def forward(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    """The bounds. ``dim`` is not negative and not empty."""
    bound = allocate(log_weights, dim, estimator)
    if bound.numel():
        weights = log_weights.contiguous()
        _cpu.importance_forward(
            weights.dtype == torch.float64,
            *_sizes(weights, dim),
            weights.data_ptr(),
            bound.data_ptr(),
        )
    return bound


def backward(
    grad: Tensor | None, log_weights: Tensor, dim: int, estimator: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradient of the log weights; None if it is not needed."""
    if grad is None or not needs[0]:
        return (None,)
    grad_weights = log_weights.new_empty(log_weights.shape)
    if grad_weights.numel():
        weights, grad = log_weights.contiguous(), grad.contiguous()
        _cpu.importance_backward(
            weights.dtype == torch.float64,
            *_sizes(weights, dim),
            weights.data_ptr(),
            grad.data_ptr(),
            estimator == "dreg",
            grad_weights.data_ptr(),
        )
    return (grad_weights,)


def _sizes(log_weights: Tensor, dim: int) -> tuple[int, int, int]:
    shape = log_weights.shape
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])
