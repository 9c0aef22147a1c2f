"""Affine coupling in plain torch: what csrc/core/bijectors/affine_coupling.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32


@in_float32(values=1)
def affine_coupling(
    x: Tensor,
    shift: Tensor,
    raw_scale: Tensor,
    *,
    scale_fn: str = "tanh",
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.affine_coupling`."""
    shape = torch.broadcast_shapes(x.shape, shift.shape, raw_scale.shape)
    log_scale = log_scale_of(raw_scale, scale_fn)
    if inverse:
        y, log_det = (x - shift) * torch.exp(-log_scale), -log_scale
    else:
        y, log_det = x * torch.exp(log_scale) + shift, log_scale
    return y, reduced(log_det.expand(shape), reduction)


def log_scale_of(raw_scale: Tensor, scale_fn: str) -> Tensor:
    """The logarithm of the scale that a raw parameter stands for; 0 at 0."""
    if scale_fn == "exp":
        return raw_scale.clone()  # results of ops are never their arguments
    if scale_fn == "tanh":
        return 2 * torch.tanh(0.5 * raw_scale)
    # log(2 sigmoid) = log 2 - softplus(-raw)
    return math.log(2) - torch.logaddexp(-raw_scale, raw_scale.new_zeros(()))


def reduced(log_det: Tensor, reduction: str) -> Tensor:
    """A log-determinant from its elements."""
    if reduction == "none":
        return log_det.clone(memory_format=torch.contiguous_format)
    return log_det.sum(dim=-1) if reduction == "row" else log_det.sum()
