"""The Bernoulli family in plain torch: what csrc/core/distributions/bernoulli.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.generalized_kl import NEAR, excess


@in_float32(values=0)
def bernoulli_log_prob(x: Tensor, logits: Tensor, *, reduction: str = "row") -> Tensor:
    """See :func:`bslfast.functional.bernoulli_log_prob`."""
    z = torch.where(logits > 0, x - 1, x)
    # The outcome that infinite logits are certain of: 0 times infinity is 0 here.
    certain = (z == 0) & logits.isinf()
    linear = z * torch.where(certain, torch.zeros_like(logits), logits)
    # |l|, but for the derivative at 0, which that of z must fit.
    magnitude = torch.where(logits > 0, logits, -logits)
    log_prob = linear - torch.logaddexp(-magnitude, logits.new_zeros(()))
    if reduction == "none":
        return log_prob
    return log_prob.sum(dim=-1) if reduction == "row" else log_prob.sum()


@in_float32(values=0)
def bernoulli_kl(logits: Tensor, prior_logits: Tensor, *, reduction: str = "sum") -> Tensor:
    """See :func:`bslfast.functional.bernoulli_kl`."""
    a = torch.where(logits > 0, -logits, logits)
    b = torch.where(logits > 0, -prior_logits, prior_logits)
    # where() twice: the branch not taken must not send NaN into the gradient.
    same = (a == b) & a.isinf()
    d = torch.where(same, 0.0, b) - torch.where(same, 0.0, a)
    p = torch.sigmoid(a)
    near = d.abs() < NEAR
    small = torch.where(near, d, 0.0)
    square = excess(small)
    u = p * (small + square)
    # log(1 + u) - u by s = u / (2 + u): log(1 + u) = 2 (s + s^3 / 3 + ...), and u - 2 s = s u.
    s = u / (2 + u)
    series = torch.zeros_like(s)
    for k in range(33, 1, -2):
        series = series * s * s + 1 / k
    close = p * square + 2 * s * s * s * series - s * u
    large = torch.where(near, 1.0, d)
    certain = (p == 0) & (large > -math.inf)
    product = p * torch.where(certain | (large == math.inf), 0.0, large)
    zero = logits.new_zeros(())
    far = torch.logaddexp(b, zero) - torch.logaddexp(a, zero) - product
    return reduced(torch.where(near, close, far), reduction)
