"""Numbers between 0 and 1 with an exponential density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast._precision import log_dtype, wide
from bslfast.likelihoods.base import Continuous, check_range

# Coefficients of coth(x) - 1 / x by odd powers of x: 2^2n B_2n / (2n)!.
_COTH = (
    0.3333333333333333,
    -0.022222222222222223,
    0.0021164021164021165,
    -0.00021164021164021165,
    2.1377799155576935e-05,
    -2.1644042808063972e-06,
    2.1925947851873778e-07,
    -2.2214608789979678e-08,
    2.2507846516808994e-09,
    -2.2805151204592183e-10,
    2.3106432599002624e-11,
    -2.3411706819824882e-12,
)
# Up to here the series: its first term left out is below 1e-17, and beyond the closed forms lose
# two digits at most.
_NEAR = 0.25


class ContinuousBernoulli(Continuous):
    r"""Numbers in [0, 1]; the network outputs the slopes l of their log densities.

    .. math:: \log p(y) = y\,l - \log(1 + e^l) + \log C(l), \quad C(l) = \frac{l}{\tanh(l / 2)}

    :class:`Bernoulli` is this without C, the constant that makes it a density of grey values. The
    constant is right for any l, also next to 0, where C is 2.

    Args:
        targets: number of targets; None for targets of any shape.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Loaiza-Ganem and Cunningham, "The continuous Bernoulli: fixing a pervasive error in
    variational autoencoders" (2019, arXiv:1907.06845).

    Example:
        >>> import torch
        >>> head = ContinuousBernoulli(1)
        >>> head.log_prob(torch.zeros(1, 1), torch.tensor([[0.3]]))  # uniform
        tensor([0.])
        >>> head.mean(torch.tensor([[0.0, 100.0]]))
        tensor([[0.5000, 0.9900]])
    """

    parts = ("logits",)

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` has values outside [0, 1] (in eager mode on the CPU)."""
        check_range(name, y, "continuous_bernoulli", 1.0)

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the means, 1 / (1 - exp(-l)) - 1 / l."""
        return _Law(wide(output)).mean.to(output.dtype)

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return targets drawn from the distribution, with a gradient by the outputs."""
        uniform = BF.standard_uniform(
            output.shape, dtype=log_dtype(output.dtype), device=output.device, seed=seed
        )
        return _Law(wide(output)).icdf(uniform).to(output.dtype)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Any:
        """Return what has the mean, variance, cdf and icdf of each target."""
        return _Law(output)

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        (logits,) = parameters
        constant = _log_constant(wide(logits))
        if reduction == "row":
            constant = constant.sum(-1)
        return BF.bernoulli_log_prob(y, logits, reduction=reduction) + constant

    def _mirrored(self, each: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
        return _Law(-each.logits), lambda y: 1 - y


class _Law:
    """The distribution function of continuous Bernoulli targets, its inverse and moments."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.batch_shape = logits.shape

    @property
    def mean(self) -> Tensor:
        is_near, near, x = _near(self.logits)
        series = _series(_COTH, near) * near
        far = 1 / torch.tanh(x) - 1 / x
        return 0.5 + 0.5 * torch.where(is_near, series, far)

    @property
    def variance(self) -> Tensor:
        is_near, near, x = _near(self.logits)
        series = _series([(2 * n + 1) * c for n, c in enumerate(_COTH)], near)
        far = x.square().reciprocal() - torch.sinh(x).square().reciprocal()
        return 0.25 * torch.where(is_near, series, far)

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        log_prob = BF.bernoulli_log_prob(y, self.logits, reduction="none")
        return log_prob + _log_constant(self.logits)

    def cdf(self, y: Tensor) -> Tensor:
        slope, falls = self._slope()
        share = torch.expm1(-slope * y) / torch.expm1(-slope)
        return torch.where(falls, share, share * torch.exp(slope * (y - 1)))

    def icdf(self, p: Tensor) -> Tensor:
        """From the end where the density is larger, with the chances on either side."""
        slope, falls = self._slope()
        near, far = torch.where(falls, p, 1 - p), torch.where(falls, 1 - p, p)
        # The logarithm of 1 - u, u = near (1 - exp(-slope)), from u where it is small. The branch
        # not taken must not send NaN into the gradient.
        u = near * -torch.expm1(-slope)
        small = u < 0.5
        large = torch.logaddexp(far.log(), near.log() - slope)
        log_rest = torch.where(small, torch.log1p(-torch.where(small, u, 0.0)), large)
        distance = (-log_rest / slope).clamp(0, 1)
        return torch.where(falls, distance, 1 - distance)

    def _slope(self) -> tuple[Tensor, Tensor]:
        """Its size, not 0, so that quotients have a limit; whether the density falls."""
        return self.logits.abs().clamp_min(1e-20), self.logits < 0


def _log_constant(logits: Tensor) -> Tensor:
    """log C: log 2 + log(x coth(x)) with x = l / 2."""
    is_near, near, x = _near(logits)
    coefficients = [(4.0 ** (n + 1) - 2) / (2 * n + 2) * c for n, c in enumerate(_COTH)]
    series = _series(coefficients, near) * near * near
    size = x.abs()
    decay = torch.exp(-2 * size)
    far = torch.log(size) + torch.log1p(decay) - torch.log1p(-decay)
    return math.log(2) + torch.where(is_near, series, far)


def _near(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which are for the series, and half of the logits, for it and for the closed forms.

    Neither gets what would make NaN of it, and of the gradient of the other.
    """
    x = 0.5 * logits
    is_near = x.abs() < _NEAR
    return is_near, torch.where(is_near, x, 0.0), torch.where(is_near, 1.0, x)


def _series(coefficients: Any, x: Tensor) -> Tensor:
    square = x * x
    total = torch.zeros_like(x)
    for c in reversed(coefficients):
        total = total * square + c
    return total
