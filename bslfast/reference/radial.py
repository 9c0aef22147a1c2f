"""Radial maps in plain torch: what csrc/core/bijectors/radial.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._formulas import log_near_one
from bslfast._precision import in_float32


@in_float32(values=1)
def radial(z: Tensor, z0: Tensor, raw_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.radial`."""
    shape = torch.broadcast_shapes(z.shape[:-1], z0.shape[:-1], raw_alpha.shape, raw_beta.shape)
    zero = z.new_zeros(())
    alpha, total = torch.logaddexp(raw_alpha, zero), torch.logaddexp(raw_beta, zero)
    distance = torch.linalg.vector_norm(z - z0, dim=-1)
    h = 1 / (alpha + distance)
    c = (total - alpha) * h
    det = (total + distance) * h  # 1 + c, whose digits c has lost where it is close to -1
    close = (c < -0.5).unsqueeze(-1)
    y = torch.where(close, z0, z) + torch.where(close, det.unsqueeze(-1), c.unsqueeze(-1)) * (
        z - z0
    )
    log_det = log_near_one(
        c * (alpha * h), (distance * h) * ((distance + 2 * alpha) * h) + (alpha * h) * (total * h)
    )
    if z.shape[-1] != 1:
        log_det = log_det + (z.shape[-1] - 1) * log_near_one(c, det)
    return y, log_det.expand(shape).clone(memory_format=torch.contiguous_format)
