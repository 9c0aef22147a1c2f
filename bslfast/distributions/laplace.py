"""The Laplace distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast._formulas import laplace_normal_kl, normal_laplace_kl
from bslfast._precision import in_float32
from bslfast.distributions.location_scale import LocationScale, nearer_tail
from bslfast.distributions.normal import Normal


class Laplace(LocationScale, torch.distributions.Laplace):
    """A Laplace distribution whose scale may come from a raw parameter.

    Arguments and constructors are those of :class:`bslfast.distributions.Normal`.

    >>> import torch
    >>> q = Laplace.from_log_scale(torch.zeros(3), torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(3))
    (torch.Size([5, 3]), tensor([-0.6931, -0.6931, -0.6931]))
    """

    _rsample = staticmethod(BF.laplace_rsample)
    _log_prob = staticmethod(BF.laplace_log_prob)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``, with their digits below ``loc``."""
        if self._validate_args:
            self._validate_sample(value)
        z = (value - self.loc) / self.scale
        below = z < 0
        tail = 0.5 * torch.exp(torch.where(below, z, -z))  # not -|z|, which has no slope at 0
        return torch.where(below, tail, 1 - tail)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        below, tail = nearer_tail(value)
        log = torch.log(2 * tail)
        quantile: Tensor = self.loc + self.scale * torch.where(below, log, -log)
        return quantile

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return 1 + math.log(2) + self.log_scale


@register_kl(Laplace, Laplace)  # type: ignore[untyped-decorator]
def _kl_laplace_laplace(p: Laplace, q: Laplace) -> Tensor:
    return BF.laplace_kl(
        p.loc,
        p.raw_scale,
        q.loc,
        q.scale,
        parametrization=p.parametrization,
        reduction="none",
    )


@register_kl(Normal, Laplace)  # type: ignore[untyped-decorator]
def _kl_normal_laplace(p: Normal, q: Laplace) -> Tensor:
    return _normal_laplace(p.loc, p.raw_scale, p.parametrization, q.loc, q.scale)


@register_kl(Laplace, Normal)  # type: ignore[untyped-decorator]
def _kl_laplace_normal(p: Laplace, q: Normal) -> Tensor:
    return _laplace_normal(p.loc, p.raw_scale, p.parametrization, q.loc, q.scale)


_normal_laplace = in_float32(values=0)(normal_laplace_kl)
_laplace_normal = in_float32(values=0)(laplace_normal_kl)
