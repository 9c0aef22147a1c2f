"""The discretised logistic in plain torch: csrc/core/distributions/discretized_logistic.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32


@in_float32(values=0)
def discretized_logistic_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    *,
    bins: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.discretized_logistic_log_prob`."""
    h = 0.5 * (high - low) / (bins - 1)
    inverse = torch.exp(-raw_log_scale)
    a, b = (x - loc + h) * inverse, (x - loc - h) * inverse
    width = 2 * h * inverse
    first, last = x < low + h, x > high - h
    zero = a.new_zeros(())
    above = torch.where(last, zero, torch.logaddexp(-a, zero))  # -log sigmoid(a)
    below = torch.where(first, zero, torch.logaddexp(b, zero))
    inside = torch.where(first | last, zero, _log1mexp(width, math.log(2 * h) - raw_log_scale))
    log_prob = inside - (above + below)
    if reduction == "none":
        return log_prob
    return log_prob.sum(dim=-1) if reduction == "row" else log_prob.sum()


def _log1mexp(width: Tensor, log_width: Tensor) -> Tensor:
    """log(1 - exp(-width)), given its logarithm too, which may say more."""
    narrow, wide = width < 1e-9, width > 1
    # where() twice: the branch not taken must not send NaN into the gradient.
    middle = torch.log(-torch.expm1(-torch.where(narrow | wide, 1.0, width)))
    far = torch.log1p(-torch.exp(-torch.where(wide, width, 1.0)))
    tiny = log_width - 0.5 * torch.where(narrow, width, 0.0)
    return torch.where(narrow, tiny, torch.where(wide, far, middle))
