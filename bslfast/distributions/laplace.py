"""The Laplace distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast.distributions.location_scale import LocationScale


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
