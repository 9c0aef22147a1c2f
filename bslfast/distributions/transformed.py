"""Families that torch makes by transforming another: log-normal, Gumbel, half-Cauchy.

Here nothing is transformed: samples and log densities are those of the fused ops. The base
distribution and the transforms are made when something, such as a divergence, asks for them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions.kl import register_kl
from torch.distributions.transforms import ExpTransform, Transform
from torch.distributions.utils import euler_constant, lazy_property

import bslfast.functional as BF
from bslfast.distributions.location_scale import LocationScale, Number, RawScale, nearer_tail
from bslfast.distributions.normal import Normal, normal_cdf


class LogNormal(LocationScale, torch.distributions.LogNormal):
    """A log-normal distribution; the scale of its logarithm may come from a raw parameter.

    Arguments and constructors are those of :class:`bslfast.distributions.Normal`. Divergences are
    those of the normal distributions of the logarithms.

    >>> import torch
    >>> q = LogNormal.from_log_scale(torch.zeros(3), torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.ones(3))
    (torch.Size([5, 3]), tensor([-0.9189, -0.9189, -0.9189]))
    """

    _rsample = staticmethod(BF.lognormal_rsample)
    _log_prob = staticmethod(BF.lognormal_log_prob)

    # In front of torch's property, which asks the base distribution: here loc is an attribute.
    loc: Any = None

    @lazy_property
    def base_dist(self) -> Any:
        """The distribution of the logarithm."""
        return Normal(
            self.loc, self.raw_scale, validate_args=False, parametrization=self.parametrization
        )

    @lazy_property
    def transforms(self) -> list[Transform]:
        """What makes this one of it."""
        return [ExpTransform()]

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``, with their digits."""
        if self._validate_args:  # of 0 too there is a probability
            self._validate_sample(torch.where(value == 0, 1.0, value))
        outside = value <= 0
        log = torch.where(outside, 1.0, value).log()
        return torch.where(outside, 0.0, normal_cdf((log - self.loc) / self.scale))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        return torch.exp(self.loc + self.scale * torch.special.ndtri(value))


class Gumbel(LocationScale, torch.distributions.Gumbel):
    """A Gumbel distribution whose scale may come from a raw parameter.

    Arguments and constructors are those of :class:`bslfast.distributions.Normal`.

    >>> import torch
    >>> q = Gumbel.from_log_scale(torch.zeros(3), torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(3))
    (torch.Size([5, 3]), tensor([-1., -1., -1.]))
    """

    has_rsample = True

    _rsample = staticmethod(BF.gumbel_rsample)
    _log_prob = staticmethod(BF.gumbel_log_prob)

    @lazy_property
    def _torchs(self) -> torch.distributions.Gumbel:
        return torch.distributions.Gumbel(self.loc, self.scale, validate_args=False)

    @lazy_property
    def base_dist(self) -> Any:
        """The uniform distribution that torch starts from."""
        return self._torchs.base_dist

    @lazy_property
    def transforms(self) -> list[Transform]:
        """What makes this one of it."""
        return self._torchs.transforms

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.exp(-torch.exp((self.loc - value) / self.scale))

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        quantile: Tensor = self.loc - self.scale * torch.log(-torch.log(value))
        return quantile

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return 1 + euler_constant + self.log_scale


class HalfCauchy(RawScale, torch.distributions.HalfCauchy):
    """A half-Cauchy distribution whose scale may come from a raw parameter.

    Args:
        scale: medians, a tensor or a number, or the raw parameter of ``parametrization``.
        validate_args: as in torch.
        parametrization: of ``scale``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> q = HalfCauchy.from_log_scale(torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.ones(3)), q.cdf(torch.ones(3))
    (torch.Size([5, 3]), tensor([-1.1447, -1.1447, -1.1447]), tensor([0.5000, 0.5000, 0.5000]))
    """

    _rsample = staticmethod(BF.half_cauchy_rsample)
    _log_prob = staticmethod(BF.half_cauchy_log_prob)

    def __init__(
        self,
        scale: Tensor | Number,
        validate_args: bool | None = None,
        *,
        parametrization: str = "scale",
    ) -> None:
        self._set(parametrization, validate_args, scale=scale)

    @lazy_property
    def _torchs(self) -> torch.distributions.HalfCauchy:
        return torch.distributions.HalfCauchy(self.scale, validate_args=False)

    @lazy_property
    def base_dist(self) -> Any:
        """The Cauchy distribution of which this is the absolute value."""
        return self._torchs.base_dist

    @lazy_property
    def transforms(self) -> list[Transform]:
        """What makes this one of it."""
        return self._torchs.transforms

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        # Not as twice that of the Cauchy distribution less 1, which has no digits next to 0.
        return 2 / math.pi * torch.atan(value.clamp(min=0) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        below, tail = nearer_tail(value)
        tangent = torch.tan(0.5 * math.pi * torch.where(tail < 0, math.nan, tail))
        # where() twice: 1 / 0 must not send NaN into the gradient of p = 0.
        ratio = torch.where(below, tangent, 1 / torch.where(below, 1.0, tangent))
        return self.scale * ratio

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return math.log(2 * math.pi) + self.log_scale


@register_kl(HalfCauchy, HalfCauchy)  # type: ignore[untyped-decorator]
def _kl_half_cauchy_half_cauchy(p: HalfCauchy, q: HalfCauchy) -> Tensor:
    return BF.half_cauchy_kl(
        p.raw_scale, q.scale, parametrization=p.parametrization, reduction="none"
    )
