"""The generalised KL divergence in plain torch: csrc/core/distributions/generalized_kl.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced

#: Where |d| is less, exp(d) - 1 - d is summed up.
NEAR = 0.7


@in_float32(values=0)
def generalized_kl(
    log_p: Tensor,
    log_q: Tensor,
    log_p_total: Tensor | float = 0.0,
    log_q_total: Tensor | float = 0.0,
    *,
    reduction: str = "sum",
) -> Tensor:
    """See :func:`bslfast.functional.generalized_kl`."""
    p, q = log_p - log_p_total, log_q - log_q_total
    d = (log_q - log_p) - (log_q_total - log_p_total)
    nothing = p == -math.inf
    # where() twice: the branch not taken must not send NaN into the gradient.
    p, d = torch.where(nothing, 0.0, p), torch.where(nothing, 0.0, d)
    near = d.abs() < NEAR
    # From the larger of both, as their difference may be one of infinities.
    up = d > 0
    t = torch.where(near, 1.0, torch.where(up, d, -d))
    e = torch.exp(-t)
    rest = torch.where(up, 1 - e * (1 + t.clamp(max=800)), e - 1 + t)
    far = torch.exp(torch.where(up, q, p)) * rest
    kl = torch.where(near, torch.exp(p) * excess(torch.where(near, d, 0.0)), far)
    return reduced(torch.where(nothing, torch.exp(q), kl), reduction)


def excess(d: Tensor) -> Tensor:
    """``exp(d) - 1 - d`` for ``|d| <= NEAR``, by its series."""
    series = torch.zeros_like(d)
    for k in range(20, 1, -1):
        series = series * d + 1 / math.factorial(k)
    return d * d * series
