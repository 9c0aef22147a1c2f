"""The negative binomial in plain torch: csrc/core/distributions/negative_binomial.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.poisson import _STIRLING, poisson_log_prob

# From here on Stirling's series.
_MANY = 10


@in_float32(values=0)
def negative_binomial_log_prob(
    x: Tensor, log_rate: Tensor, log_total_count: Tensor, *, reduction: str = "row"
) -> Tensor:
    """See :func:`bslfast.functional.negative_binomial_log_prob`."""
    x = torch.where(x < 0, torch.nan, x)
    # A total count whose root overflows is as good as infinite; the smallest ones underflow.
    total = torch.exp(log_total_count.clamp(max=math.log(torch.finfo(x.dtype).max) - 1))
    below = x <= total
    # where() throughout: the branch not taken must not send NaN into the gradient.
    log_x = torch.where(below, 0.0, torch.where(below, 1.0, x).log())
    rest = torch.log1p(
        torch.where(below, x, total)
        / torch.where(below, torch.where(total > 0, total, 1.0), torch.where(below, 1.0, x))
    )
    log_n = torch.where(below, log_total_count, log_x) + rest
    log_ratio = torch.where(below, rest, log_x - log_total_count + rest)
    log_odds = log_rate - log_total_count
    few = log_odds < 0
    w = F.softplus(-log_odds.abs(), threshold=1e6)
    d = torch.where(few, log_ratio - w, log_n - w - log_rate)
    rate = torch.where(few, log_rate + d, log_n - w)
    log_np = torch.where(few, log_n - w, log_n - log_odds - w)
    near = d.abs() < 0.7
    small = torch.where(near, d, 0.0)
    series = torch.zeros_like(small)
    for k in range(20, 1, -1):  # of exp(d) - 1 - d
        series = series * small + 1 / math.factorial(k)
    far = torch.exp(log_np) - total * (1 + torch.where(near, 0.0, d))
    excess = torch.where(near, total * small * small * series, far)
    gamma = _remainder(x + total, log_n) - _remainder(total, log_total_count) - 0.5 * log_ratio
    return reduced(poisson_log_prob(x, rate, reduction="none") - excess + gamma, reduction)


def _remainder(y: Tensor, log_y: Tensor) -> Tensor:
    """``log y!`` less ``y log y - y + log(2 pi y) / 2``."""
    few = y < _MANY
    # where() twice: the branch not taken must not send NaN into the gradient.
    low = torch.where(few, y, 1.0)
    steps = (low + 0.5) * (torch.log1p(low) - log_y) - 1
    for k in range(1, _MANY):
        steps = steps + ((low + (k + 0.5)) * torch.log1p(1 / (low + k)) - 1)
    inverse = 1 / torch.where(few, low + _MANY, y)
    remainder = torch.zeros_like(inverse)
    for coefficient in reversed(_STIRLING):
        remainder = remainder * inverse * inverse + coefficient
    return remainder * inverse + torch.where(few, steps, 0.0)
