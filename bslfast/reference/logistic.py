"""The logistic family in plain torch: what csrc/core/distributions/logistic.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast.reference.location_scale import family


def logistic_of_uniform(u: Tensor) -> Tensor:
    """The number that a share ``u`` of standard logistic numbers lies below."""
    above = u - 0.5  # exact, as are both terms of the quotient
    return torch.copysign(torch.log1p(2 * above.abs() / (0.5 - above.abs())), above)


def _log_density(z: Tensor) -> Tensor:
    """The log density of the standard logistic distribution."""
    zero = z.new_zeros(())
    return -torch.logaddexp(z, zero) - torch.logaddexp(-z, zero)


logistic_rsample, logistic_rsample_log_prob, logistic_log_prob = family(
    logistic_of_uniform, _log_density
)
