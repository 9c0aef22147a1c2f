"""The logistic distribution, which torch has not."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

import bslfast.functional as BF
from bslfast.distributions.location_scale import LocationScale


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
        return torch.sigmoid((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``."""
        quantile: Tensor = self.loc + self.scale * torch.logit(value)
        return quantile

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return 2 + self.log_scale
