"""Kernels of Gumbel-softmax samples: gumbel_softmax in csrc/cpu and csrc/cuda."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda


def allocate(
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
) -> Tensor:
    """Room for the samples."""
    return logits.new_empty((*sample_shape, *logits.shape))


def forward(
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
) -> Tensor:
    """The samples."""
    sample = allocate(logits, seed, stream, temperature, hard, sample_shape)
    if sample.numel():
        held = logits.contiguous()
        call = (*_call(held, seed, stream, temperature, sample_shape), hard, sample.data_ptr())
        if cuda.holds(logits):
            with cuda.launching(logits) as handle:
                cuda.module().gumbel_softmax_forward(*call, handle)
        else:
            _cpu.gumbel_softmax_forward(*call)
    return sample


def backward(
    grad: Tensor | None,
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradient of the logits; None if it is not needed."""
    if grad is None or not needs[0]:
        return (None,)
    each = logits.new_empty((math.prod(sample_shape), *logits.shape))
    if each.numel():
        held, grad = logits.contiguous(), grad.contiguous()
        begin = _call(held, seed, stream, temperature, sample_shape)
        call = (*begin, grad.data_ptr(), each.data_ptr())
        if cuda.holds(logits):
            with cuda.launching(logits) as handle:
                cuda.module().gumbel_softmax_backward(*call, handle)
        else:
            _cpu.gumbel_softmax_backward(*call)
    return (each.sum(dim=0) if len(each) != 1 else each[0],)


_Call = tuple[bool, int, int, int, int, float, int, int]


def _call(
    logits: Tensor, seed: Tensor, stream: int, temperature: float, sample_shape: Sequence[int]
) -> _Call:
    """What both kernels begin with. The samples' rows read those of the logits again."""
    rows = logits.shape[:-1].numel()
    return (
        logits.dtype == torch.float64,
        math.prod(sample_shape) * rows,
        rows,
        logits.shape[-1],
        logits.data_ptr(),
        temperature,
        seed.data_ptr(),
        stream,
    )
