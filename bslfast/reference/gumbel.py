"""The Gumbel family in plain torch: what csrc/core/distributions/gumbel.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast.reference.location_scale import family


def _quantile(u: Tensor) -> Tensor:
    """The number that a share ``u`` of standard Gumbel numbers lies below."""
    return -torch.log(-torch.log(u))


def _log_density(z: Tensor) -> Tensor:
    """The log density of the standard Gumbel distribution."""
    # At -infinity the exponential wins.
    return -(z.clamp(min=-800) + torch.exp(-z))


gumbel_rsample, gumbel_rsample_log_prob, gumbel_log_prob = family(_quantile, _log_density)
