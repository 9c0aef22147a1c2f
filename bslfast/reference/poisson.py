"""The Poisson log probability in plain torch: what csrc/core/distributions/poisson.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32

# Coefficients of Stirling's series for log Gamma: B_2k / (2k (2k - 1)).
_STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
)
# From here on the formula for many events.
_MANY = 10.0


@in_float32(values=0)
def poisson_log_prob(x: Tensor, log_rate: Tensor, *, reduction: str = "row") -> Tensor:
    """See :func:`bslfast.functional.poisson_log_prob`."""
    x = torch.where(x < 0, torch.nan, x)
    rate = torch.exp(log_rate)
    # Where the rate is infinite, what is less than infinity does not count, and must be less.
    most = torch.finfo(rate.dtype).max / 1024 / (1 + x.detach())
    bounded = torch.where(rate.isinf() & (log_rate > most), most, log_rate)
    few = x < _MANY
    # where() twice: the branch not taken must not send NaN into the gradient.
    n = torch.where(few, x, 1.0)
    impossible = (n == 0) & log_rate.isinf()
    linear = n * torch.where(impossible, torch.zeros_like(bounded), bounded)
    direct = linear - rate - torch.lgamma(n + 1)

    many = torch.where(few, _MANY, x)
    d = bounded - torch.log(many)
    near = d.abs() < 0.7
    small = torch.where(near, d, 0.0)
    series = torch.zeros_like(small)
    for k in range(20, 1, -1):  # of exp(d) - 1 - d
        series = series * small + 1 / math.factorial(k)
    deviance = torch.where(near, many * small * small * series, rate - many * (1 + d))
    inverse = 1 / many
    remainder = torch.zeros_like(inverse)
    for coefficient in reversed(_STIRLING):
        remainder = remainder * inverse * inverse + coefficient
    large = deviance + 0.5 * torch.log(2 * math.pi * many) + remainder * inverse
    log_prob = torch.where(few, direct, -large)
    if reduction == "none":
        return log_prob
    return log_prob.sum(dim=-1) if reduction == "row" else log_prob.sum()
