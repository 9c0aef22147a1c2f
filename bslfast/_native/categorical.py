"""Kernels of the categorical family: categorical in csrc/cpu and csrc/cuda."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    REDUCTIONS,
    operand,
    reduced_shape,
    unbroadcast,
)
from bslfast._native.pointwise import sums


def allocate(logits: Tensor, index: Tensor, reduction: str) -> Tensor:
    """Room for the log probabilities."""
    shape = reduced_shape(_rows(logits, index), reduction)
    return torch.empty(shape, dtype=logits.dtype, device=logits.device)


def forward(logits: Tensor, index: Tensor, reduction: str) -> Tensor:
    """The log probabilities.

    Raises ValueError if an index is not a class. On CUDA devices the result is NaN: to look at the
    indices would wait for the device.
    """
    shape, classes = _rows(logits, index), logits.shape[-1]
    if 0 in shape:
        return allocate(logits, index, reduction).zero_()
    # Rows are read whole, class by class: anything but contiguous ones are copied.
    rows, wanted = logits.expand(*shape, classes).contiguous(), index.expand(shape).contiguous()
    if cuda.holds(logits):
        each = allocate(logits, index, "none")
        given = (math.prod(shape), classes, rows.data_ptr(), wanted.data_ptr(), each.data_ptr())
        with cuda.launching(logits) as handle:
            cuda.module().categorical_forward(logits.dtype == torch.float64, *given, handle)
        return sums(each, reduction)
    log_prob = allocate(logits, index, reduction)
    valid = classes > 0 and _cpu.categorical_forward(
        logits.dtype == torch.float64,
        math.prod(shape),
        classes,
        rows.data_ptr(),
        wanted.data_ptr(),
        REDUCTIONS[reduction],
        log_prob.data_ptr(),
    )
    if not valid:
        low, high = (int(v) for v in index.aminmax())
        raise ValueError(
            f"index: expected class indices from 0 to {classes - 1}, got {low} to {high}"
        )
    return log_prob


def backward(
    grad: Tensor | None, logits: Tensor, index: Tensor, reduction: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradient of logits; None if it is not needed."""
    if grad is None or not needs[0]:
        return (None,)
    shape, classes = _rows(logits, index), logits.shape[-1]
    grad_logits = torch.empty((*shape, classes), dtype=logits.dtype, device=logits.device)
    if 0 not in shape:
        rows, wanted = logits.expand(*shape, classes).contiguous(), index.expand(shape).contiguous()
        call: Any = (
            logits.dtype == torch.float64,
            shape,
            classes,
            rows.data_ptr(),
            wanted.data_ptr(),
            operand(grad, shape),
            grad_logits.data_ptr(),
        )
        if cuda.holds(logits):
            with cuda.launching(logits) as handle:
                cuda.module().categorical_backward(*call, handle)
        else:
            _cpu.categorical_backward(*call)
    return (unbroadcast(grad_logits, logits),)


def _rows(logits: Tensor, index: Tensor) -> torch.Size:
    """The shape of the results before any sum."""
    if logits.shape[:-1] == index.shape:
        return index.shape
    return torch.Size(torch.broadcast_shapes(logits.shape[:-1], index.shape))
