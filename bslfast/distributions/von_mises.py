"""The von Mises distribution: angles around a mean direction."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.kl import register_kl
from typing_extensions import Self

from bslfast import _checks
from bslfast import functional as BF
from bslfast._bessel import bessel_ratio, bessel_spread, log_bessel, slope_of_bessel_ratio
from bslfast.distributions.location_scale import Number, _as_tensors, instance


class VonMises(torch.distributions.VonMises):
    r"""A von Mises distribution, differentiable by both parameters, samples included.

    .. math:: \log p(x) = -2 k \sin^2((x - m) / 2) - \log(2 \pi e^{-k} I_0(k))

    Neither part is large where the density is not small. Samples, in [-pi, pi), are drawn by
    torch's generator and Best and Fisher's rejection method in float64, for concentrations from
    1e-6 to 1e6 and beyond. Their gradient by the concentration is the implicit one,
    -dF(x; k)/dk / p(x), by quadrature, to 1e-10 of itself; it has no second derivative by the
    concentration.

    Args:
        loc: mean directions, in radians; a tensor or a number.
        concentration: k > 0; a tensor or a number.
        validate_args: as in torch.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Mardia and Jupp, "Directional statistics" (2000, doi:10.1002/9780470316979), section
    3.5.4; Best and Fisher, "Efficient simulation of the von Mises distribution" (1979,
    doi:10.2307/2346732); Figurnov, Mohamed and Mnih, "Implicit reparameterization gradients" (2018,
    arXiv:1805.08498).

    >>> import torch
    >>> q = VonMises(torch.zeros(3), torch.tensor([1e-3, 1.0, 1e6]))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(3)), q.entropy()
    (torch.Size([5, 3]), tensor([-1.8369, -1.0738,  5.9888]), tensor([ 1.8379,  1.6274, -5.4888]))
    """

    has_rsample = True

    def __init__(
        self,
        loc: Tensor | Number,
        concentration: Tensor | Number,
        validate_args: bool | None = None,
    ) -> None:
        given = _as_tensors({"loc": loc, "concentration": concentration})
        shape = _checks.broadcast(**given)
        self.loc, self.concentration = (value.expand(shape) for value in given.values())
        Distribution.__init__(self, shape, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, VonMises, _instance)
        shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(shape)
        new.concentration = self.concentration.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, *batch_shape]``."""
        sample_shape = _checks.sample_shape(sample_shape)
        k = self.concentration.double()
        with torch.no_grad():
            centred = torch.distributions.VonMises(torch.zeros_like(k), k, validate_args=False)
            angle = centred.sample(torch.Size(sample_shape))
        moving: Tensor = _Angle.apply(angle, k.expand(angle.shape))  # type: ignore[no-untyped-call]
        wrapped = torch.remainder(self.loc.double() + moving + math.pi, 2 * math.pi) - math.pi
        return wrapped.to(self.loc.dtype)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities."""
        if self._validate_args:
            self._validate_sample(value)
        return BF.von_mises_log_prob(value, self.loc, self.concentration, reduction="none")

    def entropy(self) -> Tensor:
        """Return the entropies, in nats."""
        k = self.concentration.double()
        entropy = math.log(2 * math.pi) + log_bessel(k) + k * bessel_spread(k)
        return entropy.to(self.concentration.dtype)

    @property
    def variance(self) -> Tensor:
        """The circular variances, 1 - I1(k) / I0(k)."""
        return bessel_spread(self.concentration.double()).to(self.concentration.dtype)


@register_kl(VonMises, VonMises)  # type: ignore[untyped-decorator]
def _kl_von_mises_von_mises(p: VonMises, q: VonMises) -> Tensor:
    """B(k, k0) + 2 k0 A(k) sin^2((m - m0) / 2), A = I1 / I0.

    B is the Bregman divergence log I0(k0) - log I0(k) - A(k) (k0 - k), next to k the integral of
    (k0 - t) A'(t): the difference would have no digits there.
    """
    k, other = torch.broadcast_tensors(p.concentration.double(), q.concentration.double())
    d = other - k
    near = d.abs() < 0.25 * (k + 1)
    nodes, weights = _gauss(8, k)
    small = torch.where(near, d, 0.0).unsqueeze(-1)
    curve = slope_of_bessel_ratio(k.unsqueeze(-1) + nodes * small)
    close = ((1 - nodes) * weights * curve * small.square()).sum(-1)
    far = (log_bessel(other) - log_bessel(k)) + bessel_spread(k) * d
    away = torch.sin(0.5 * (p.loc.double() - q.loc.double())).square()
    kl: Tensor = torch.where(near, close, far) + 2 * other * bessel_ratio(k) * away
    return kl.to(p.concentration.dtype)


class _Angle(torch.autograd.Function):
    """An angle that was drawn around 0, as a function of the concentration."""

    generate_vmap_rule = True

    @staticmethod
    def forward(angle: Tensor, k: Tensor) -> Tensor:
        return angle.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad * _implicit(*ctx.saved_tensors)


def _implicit(angle: Tensor, k: Tensor) -> Tensor:
    """-dF(x; k)/dk / p(x) for angles x around 0, F being 1/2 there.

    Minus the integral of (cos t - A) exp(k (cos t - cos x)) from 0 to x, or its integral from x to
    pi. The first is taken where cos x > A, the other elsewhere: no sign changes inside.
    """
    x = angle.abs().unsqueeze(-1)
    k = k.unsqueeze(-1)
    spread = bessel_spread(k)
    inner = 2 * torch.sin(0.5 * x).square() < spread
    # Beyond nine standard deviations nothing is left of the outer integral.
    end = torch.minimum(x + 9 / k.sqrt(), torch.full_like(x, math.pi))
    width = torch.where(inner, -x, end - x)
    nodes, weights = _gauss(32, k)
    step = nodes * width
    t = x + step
    height = torch.exp(-2 * k * torch.sin(0.5 * (x + t)) * torch.sin(0.5 * step))
    change = spread - 2 * torch.sin(0.5 * t).square()
    return (height * change * weights).sum(-1) * width.squeeze(-1) * angle.sign()


def _gauss(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss's quadrature over [0, 1]."""
    nodes, weights = (like.new_tensor(v) for v in _legendre(n))
    return 0.5 * (nodes + 1), 0.5 * weights


@functools.cache
def _legendre(n: int) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes.tolist(), weights.tolist()
