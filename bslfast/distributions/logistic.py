"""The logistic distribution, which torch has not."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast._formulas import log_scale_of
from bslfast.distributions.location_scale import LocationScale, nearer_tail


class Logistic(LocationScale, Distribution):
    """A logistic distribution whose scale may come from a raw parameter.

    Arguments and constructors are those of :class:`bslfast.distributions.Normal`.

    >>> import torch
    >>> q = Logistic(torch.zeros(3), torch.ones(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(3)), q.cdf(torch.zeros(3))
    (torch.Size([5, 3]), tensor([-1.3863, -1.3863, -1.3863]), tensor([0.5000, 0.5000, 0.5000]))
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    _rsample = staticmethod(BF.logistic_rsample)
    _log_prob = staticmethod(BF.logistic_log_prob)

    @property
    def mean(self) -> Tensor:
        """The means."""
        loc: Tensor = self.loc
        return loc

    @property
    def mode(self) -> Tensor:
        """The modes, which are the means."""
        return self.mean

    @property
    def variance(self) -> Tensor:
        """The variances, (pi scale)^2 / 3."""
        return (math.pi * self.scale).square() / 3

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``."""
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        below = z < 0
        # Each side comes from its tail, so that its slope is the density there.
        tail = torch.sigmoid(torch.where(below, z, -z))
        return torch.where(below, tail, 1 - tail)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        below, tail = nearer_tail(value)
        # Next to the median the difference of logarithms has no digits, next to 0 the quotient
        # overflows. where() twice: the branch not taken must not send NaN into the gradient.
        central = tail > 0.25
        middle = torch.where(central, tail, 0.5)
        near = torch.log1p((1 - 2 * middle) / middle)
        odds = torch.where(central, near, torch.log1p(-tail) - torch.log(tail))
        quantile: Tensor = self.loc + self.scale * torch.where(below, -odds, odds)
        return quantile

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return 2 + self.log_scale


#: Distance and number, on either side of 0, of the nodes of the divergence's quadrature.
_STEP, _NODES = 0.4, 100


@register_kl(Logistic, Logistic)  # type: ignore[untyped-decorator]
def _kl_logistic_logistic(p: Logistic, q: Logistic) -> Tensor:
    """(r - 1 - log r) + 2 max(1, r) E[B(z, d + c z)], r the ratio of the scales.

    z is logistic, d the distance of the locations in units of the larger scale, c = min(r, 1 / r)
    and B(a, b) the divergence between Bernoulli distributions with logits a and b: all of it is
    positive. As the singularities next to the real line are pi away, the trapezoidal rule is off
    by a multiple of exp(-2 pi^2 / step) = 4e-22. In float64, so that logits next to each other
    differ by what they should.
    """
    log_scale = log_scale_of(p.raw_scale.double(), p.parametrization)
    other = log_scale_of(q.raw_scale.double(), q.parametrization)
    log_ratio = log_scale - other
    larger = torch.maximum(log_scale, other).exp()
    distance = (p.loc.double() - q.loc.double()) / larger
    z = _STEP * torch.arange(-_NODES, _NODES + 1, dtype=torch.float64, device=distance.device)
    weights = _STEP * torch.sigmoid(z) * torch.sigmoid(-z)
    z = z.reshape(-1, *[1] * distance.dim())
    b = BF.bernoulli_kl(z, distance + torch.exp(-log_ratio.abs()) * z, reduction="none")
    mean = torch.tensordot(weights, b, 1)
    excess = BF.generalized_kl(torch.zeros_like(log_ratio), log_ratio, reduction="none")
    kl: Tensor = excess + 2 * log_ratio.clamp(min=0).exp() * mean
    return kl.to(p.raw_scale.dtype)
