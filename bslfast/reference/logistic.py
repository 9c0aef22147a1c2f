"""The logistic family in plain torch: what csrc/core/distributions/logistic.h computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast.reference.location_scale import located, log_prob_at, standardised, uniforms


def logistic_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.logistic_rsample`."""
    u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
    return located(logistic_of_uniform(u), loc, raw_scale, parametrization)


def logistic_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.logistic_rsample_log_prob`."""
    u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
    z = logistic_of_uniform(u)
    log_prob = log_prob_at(_log_density(z), raw_scale, parametrization, reduction)
    return located(z, loc, raw_scale, parametrization), log_prob


def logistic_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.logistic_log_prob`."""
    z = standardised(x, loc, raw_scale, parametrization)
    return log_prob_at(_log_density(z), raw_scale, parametrization, reduction)


def logistic_of_uniform(u: Tensor) -> Tensor:
    """The number that a share ``u`` of standard logistic numbers lies below."""
    above = u - 0.5  # exact, as are both terms of the quotient
    return torch.copysign(torch.log1p(2 * above.abs() / (0.5 - above.abs())), above)


def _log_density(z: Tensor) -> Tensor:
    """Of the standard logistic distribution."""
    zero = z.new_zeros(())
    return -torch.logaddexp(z, zero) - torch.logaddexp(-z, zero)
