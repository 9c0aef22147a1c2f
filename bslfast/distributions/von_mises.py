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

    Neither part is large where the density is not small. Samples, in [-pi, pi), are drawn by Best
    and Fisher's rejection method in float64, for all concentrations; they are NaN where those are.
    Their gradient by the concentration is the implicit one, -dF(x; k)/dk / p(x), by quadrature, to
    1e-10 of itself.

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
        return self.seeded_rsample(sample_shape, None)

    def seeded_rsample(self, sample_shape: Sequence[int], seed: int | Tensor | None) -> Tensor:
        """Samples of a seed, as in :func:`bslfast.functional.normal_rsample`."""
        shape = (*_checks.sample_shape(sample_shape), *self.batch_shape)
        k = self.concentration.double()
        with torch.no_grad():
            angle = _around_zero(k.expand(shape), _checks.seed(seed, k.device))
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
        # The output: as a function of k, on which the second derivative depends.
        ctx.save_for_backward(output, inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad * _implicit(*ctx.saved_tensors)


def _around_zero(k: Tensor, seed: int | Tensor) -> Tensor:
    """Angles around 0 for concentrations k of float64, by rejection from wrapped Cauchy ones.

    The density of these at a cosine f is as 1 / (r - f). Next to it the von Mises density is as
    c exp(-c), c = k (r - f), which is at most exp(-1). r - 1 and 1 - f are computed by themselves,
    as both are small for large k.
    """
    # Beyond these bounds angles are uniform, and normal with a standard deviation of 1 / sqrt(k).
    safe = torch.where(k >= 0, k, 1.0).clamp(1e-38, 1e15)
    tau = 1 + (1 + 4 * safe * safe).sqrt()
    # Without digits for small k, where any value of this size does.
    rho = torch.where(safe < 1e-4, safe / 2, (tau - (2 * tau).sqrt()) / (2 * safe))
    rest = (1 - rho).square() / (2 * rho)  # r - 1
    angle = torch.zeros(k.numel(), dtype=k.dtype, device=k.device)
    left = torch.arange(k.numel(), device=k.device)
    safe_left, rest = safe.flatten(), rest.flatten()
    for turn in range(_TURNS):
        first, second, third = (
            BF.standard_uniform(
                left.shape, seed=seed, stream=3 * turn + i, dtype=k.dtype, device=k.device
            )
            for i in range(3)
        )
        sine, cosine = (0.5 * math.pi * first).sin(), (0.5 * math.pi * first).cos()
        away = 2 * rest * sine.square() / (rest + 2 * cosine.square())  # 1 - f
        c = safe_left * (rest + away)
        found = (c / second).log() + 1 - c >= 0
        drawn = 2 * (0.5 * away).clamp(max=1.0).sqrt().asin()
        angle[left[found]] = torch.where(third < 0.5, -drawn, drawn)[found]
        left, safe_left, rest = left[~found], safe_left[~found], rest[~found]
        if not len(left):
            break
    angle = angle.view(k.shape)
    angle = angle * torch.where(k > safe, safe / k, 1.0).sqrt()
    return torch.where(k >= 0, angle, torch.nan)


# More than two of three proposals are taken: after so many there is none left.
_TURNS = 200


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
