"""The normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast.distributions.location_scale import LocationScale


class Normal(LocationScale, torch.distributions.Normal):
    """A normal distribution whose scale may come from a raw parameter.

    ``Normal(loc, scale)`` is torch's; :meth:`from_softplus`, :meth:`from_log_scale` and
    :meth:`from_log_var` keep the raw parameter, from which samples, log densities and divergences
    are computed in one pass, accurate also where the scale underflows.

    Args:
        loc: means, a tensor or a number.
        scale: standard deviations, or the raw parameter of ``parametrization``.
        validate_args: as in torch.
        parametrization: of ``scale``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> q = Normal.from_log_var(torch.zeros(2, 3), torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(3)).shape, q.scale
    (torch.Size([5, 2, 3]), torch.Size([2, 3]), tensor([[1., 1., 1.],
            [1., 1., 1.]]))
    """

    _rsample = staticmethod(BF.normal_rsample)
    _log_prob = staticmethod(BF.normal_log_prob)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``, with their digits below ``loc``."""
        if self._validate_args:
            self._validate_sample(value)
        return normal_cdf((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        quantile: Tensor = self.loc + self.scale * torch.special.ndtri(value)
        return quantile

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.log_scale


def normal_cdf(z: Tensor) -> Tensor:
    """That of the standard normal distribution. ``torch.special.ndtr`` is 0 where it is small."""
    return 0.5 * torch.erfc(z * -math.sqrt(0.5))


@register_kl(Normal, Normal)  # type: ignore[untyped-decorator]
def _kl_normal_normal(p: Normal, q: Normal) -> Tensor:
    return BF.normal_kl(
        p.loc,
        p.raw_scale,
        q.loc,
        q.scale,
        parametrization=p.parametrization,
        reduction="none",
    )
