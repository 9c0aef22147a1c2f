"""Posteriors: what weights are drawn from, and which parameters they have for it.

Each is a value that says how; the parameters themselves are the layer's. In
:mod:`bslfast.nn.weight` is how each diverges from each prior.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF
from bslfast.functional.normal import PARAMETRIZATIONS

__all__ = ["Deterministic", "Laplace", "Normal", "Posterior"]


class Posterior:
    """A distribution of a tensor of weights, by parameters that it names.

    A subclass is a frozen dataclass. It gives :attr:`names`, :meth:`rsample` and :meth:`stddev`,
    and :meth:`allocate` and :meth:`reset` if it has more parameters than the mean.
    """

    #: The parameters, as they are called after the weight's own name: ``weight_loc``. The first is
    #: the mean, of the shape of the weight.
    names: ClassVar[tuple[str, ...]] = ("loc",)

    def allocate(self, loc: Tensor) -> tuple[Tensor, ...]:
        """The parameters after ``loc``, with any values: here each of its shape."""
        return tuple(torch.empty_like(loc) for _ in self.names[1:])

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Put all parameters after the mean to their start, in place."""

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the weight], whose gradients reach the parameters."""
        raise NotImplementedError

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Scaled(Posterior):
    """A location and a scale for each weight."""

    names: ClassVar[tuple[str, ...]] = ("loc", "raw_scale")
    #: The op that draws.
    _drawn: ClassVar[Callable[..., Tensor]]
    parametrization: str = "softplus"
    init_scale: float = 0.02

    def __post_init__(self) -> None:
        _checks.choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        init_scale = _checks.number("init_scale", self.init_scale, above=0.0)
        object.__setattr__(self, "init_scale", init_scale)

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Set all scales to ``init_scale``."""
        parameters[1].fill_(raw_scale_of(self.init_scale, self.parametrization))

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the weight], whose gradients reach the parameters."""
        loc, raw_scale = parameters
        return type(self)._drawn(
            loc,
            raw_scale,
            parametrization=self.parametrization,
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
        )

    def scale(self, parameters: Sequence[Tensor]) -> Tensor:
        """The scale of each weight, of its shape."""
        raw_scale = parameters[1]
        if self.parametrization == "softplus":
            return F.softplus(raw_scale)
        if self.parametrization == "scale":
            return raw_scale
        return torch.exp(raw_scale if self.parametrization == "log_scale" else raw_scale / 2)


@dataclasses.dataclass(frozen=True)
class Normal(_Scaled):
    """N(loc, scale) for each weight by itself: the mean-field posterior.

    Args:
        parametrization: of the scale, as in :func:`bslfast.functional.normal_rsample`.
        init_scale: the standard deviation at the start, > 0.

    Parameters: ``loc`` and ``raw_scale``, of the shape of the weight.

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import bslfast
    >>> posterior = bslfast.nn.posteriors.Normal(init_scale=0.1)
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=posterior)
    >>> layer.weights()[0].stddev().max().item()
    0.10000000149011612
    """

    _drawn = staticmethod(BF.normal_rsample)

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        return self.scale(parameters)


@dataclasses.dataclass(frozen=True)
class Laplace(_Scaled):
    """Laplace(loc, scale) for each weight by itself.

    Args:
        parametrization: of the scale, as in :func:`bslfast.functional.laplace_rsample`.
        init_scale: the scale at the start, > 0: the standard deviation over the root of 2.

    Parameters: ``loc`` and ``raw_scale``, of the shape of the weight.

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import torch, bslfast
    >>> from bslfast.nn import posteriors, priors
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=posteriors.Laplace(), prior=priors.Laplace())
    >>> layer(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    _drawn = staticmethod(BF.laplace_rsample)

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        return math.sqrt(2.0) * self.scale(parameters)


@dataclasses.dataclass(frozen=True)
class Deterministic(Posterior):
    """The mean alone: every sample is that.

    What stands in the place of the divergence is -log p(mean) of the prior, so that the mean
    becomes its mode given the data (MAP).

    Parameters: ``loc``, of the shape of the weight.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 3.3.

    >>> import bslfast
    >>> posterior = {"bias": bslfast.nn.posteriors.Deterministic()}  # for the weight the usual one
    >>> [name for name, _ in bslfast.nn.BayesLinear(3, 2, posterior=posterior).named_parameters()]
    ['weight_loc', 'weight_raw_scale', 'bias_loc']
    """

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """The mean, [*sample_shape, *shape of the weight]."""
        loc = parameters[0]
        return loc.expand(*sample_shape, *loc.shape) if sample_shape else loc

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """Zeros of the shape of the weight."""
        return torch.zeros_like(parameters[0])


def raw_scale_of(scale: float, parametrization: str) -> float:
    """The raw parameter that stands for a scale > 0."""
    if parametrization == "softplus":
        return scale + math.log(-math.expm1(-scale))
    if parametrization == "scale":
        return scale
    return math.log(scale) * (2.0 if parametrization == "log_var" else 1.0)
