"""Planar maps in plain torch: what csrc/core/bijectors/planar.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

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


def planar_direction(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The direction u + k w of an invertible map, its product m > -1 with w, and 1 + m."""
    wu, ww = (w * u).sum(dim=-1), (w * w).sum(dim=-1)
    none = ww == 0
    soft = torch.logaddexp(wu, wu.new_zeros(()))
    m, det = torch.where(none, wu, soft - 1), torch.where(none, 1 + wu, soft)
    k = (m - wu) / torch.where(none, 1.0, ww)
    return u + k.unsqueeze(-1) * w, m, det


def log_near_one(less_one: Tensor, whole: Tensor) -> Tensor:
    """The logarithm of ``whole`` = 1 + ``less_one``: each where it is accurate."""
    near = ~(less_one < -0.5)
    # where() twice: the branch not taken must not send NaN into the gradient.
    close = torch.log1p(torch.where(near, less_one, 0.0))
    return torch.where(near, close, torch.log(torch.where(near, 1.0, whole)))
