"""The normal distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast import _checks
from bslfast._native import READS_TENSORS
from bslfast._native.noise import normals_for
from bslfast.distributions.location_scale import ONE, LocationScale
from bslfast.functional._op import ONE_SHAPE, in_common, unwatched


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

    def rsample(self, sample_shape: Sequence[int] = ONE) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, *batch_shape]``, by the fused op.

        Up to 4096 numbers with a plain scale are made by torch's ops from the same noise.
        """
        if READS_TENSORS and self.parametrization == "scale" and unwatched():
            few = _few(self.loc, self.raw_scale, sample_shape)
            if few is not None:
                return few
        return super().rsample(sample_shape)

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


def _few(loc: Tensor, scale: Tensor, sample_shape: Sequence[int]) -> Tensor | None:
    """Few samples; None where the op does better, or has to say what is wrong.

    Nodes of torch's in the graph take less time than one written in Python.
    """
    if in_common((loc, scale)) != ONE_SHAPE:
        return None
    shape = loc.shape
    if sample_shape is not ONE:
        shape = torch.Size((*_checks.sample_shape(sample_shape), *shape))
    if not 0 < shape.numel() <= 4096 or not (loc.is_contiguous() and scale.is_contiguous()):
        return None
    noise = normals_for(scale, shape, _checks.seed(None, loc.device))
    return None if noise is None else loc + noise * scale


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
