"""Planar maps in plain torch: what csrc/core/bijectors/planar.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._formulas import log_near_one, planar_direction
from bslfast._precision import in_float32


@in_float32(values=1)
def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.planar`."""
    shape = torch.broadcast_shapes(z.shape[:-1], u.shape[:-1], w.shape[:-1], b.shape)
    direction, m, det = planar_direction(u, w)
    t = torch.tanh((w * z).sum(dim=-1) + b)
    y = z + t.unsqueeze(-1) * direction
    slope = 1 - t * t
    log_det = log_near_one(m * slope, t * t + det * slope)
    return y, log_det.expand(shape).clone(memory_format=torch.contiguous_format)
