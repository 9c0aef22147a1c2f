"""Kernels of importance-weighted bounds: iwae_bound in csrc/cpu and csrc/cuda."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda


def allocate(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    """Room for the bounds."""
    shape = log_weights.shape
    return log_weights.new_empty((*shape[:dim], *shape[dim + 1 :]))


def forward(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    """The bounds. ``dim`` is not negative and not empty."""
    bound = allocate(log_weights, dim, estimator)
    if bound.numel():
        weights = log_weights.contiguous()
        call = (*_call(weights, dim), bound.data_ptr())
        if cuda.holds(weights):
            with cuda.launching(weights) as handle:
                cuda.module().iwae_bound_forward(*call, handle)
        else:
            _cpu.iwae_bound_forward(*call)
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
        given = (grad.data_ptr(), estimator == "dreg", grad_weights.data_ptr())
        call = (*_call(weights, dim), *given)
        if cuda.holds(weights):
            with cuda.launching(weights) as handle:
                cuda.module().iwae_bound_backward(*call, handle)
        else:
            _cpu.iwae_bound_backward(*call)
    return (grad_weights,)


def _call(weights: Tensor, dim: int) -> tuple[bool, int, int, int, int]:
    """What all kernels begin with."""
    shape = weights.shape
    return (
        weights.dtype == torch.float64,
        math.prod(shape[:dim]),
        shape[dim],
        math.prod(shape[dim + 1 :]),
        weights.data_ptr(),
    )
