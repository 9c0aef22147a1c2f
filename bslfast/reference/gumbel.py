"""The Gumbel family in plain torch: what csrc/core/distributions/gumbel.h computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast.reference.location_scale import located, log_prob_at, standardised, uniforms


def gumbel_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.gumbel_rsample`."""
    u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
    return located(_quantile(u), loc, raw_scale, parametrization)


def gumbel_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.gumbel_rsample_log_prob`."""
    u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
    z = _quantile(u)
    log_prob = log_prob_at(_log_density(z), raw_scale, parametrization, reduction)
    return located(z, loc, raw_scale, parametrization), log_prob


def gumbel_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.gumbel_log_prob`."""
    z = standardised(x, loc, raw_scale, parametrization)
    return log_prob_at(_log_density(z), raw_scale, parametrization, reduction)


def _quantile(u: Tensor) -> Tensor:
    """The number that a share ``u`` of standard Gumbel numbers lies below."""
    return -torch.log(-torch.log(u))


def _log_density(z: Tensor) -> Tensor:
    """Of the standard Gumbel distribution."""
    # At -infinity the exponential wins.
    return -(z.clamp(min=-800) + torch.exp(-z))
