"""The Bernoulli family in plain torch: what csrc/core/distributions/bernoulli.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._precision import in_float32


@in_float32(values=0)
def bernoulli_log_prob(logits: Tensor, x: Tensor, *, reduction: str = "row") -> Tensor:
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
