"""Priors: what weights are expected to be before any data.

Each is a value: numbers that stay as they are. Another prior is another object. In
:mod:`bslfast.nn.weight` is how each diverges from each posterior.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF

__all__ = ["Horseshoe", "Laplace", "LogUniform", "Normal", "Prior", "ScaleMixture", "StudentT"]


class Prior:
    """The same distribution for each of a tensor's weights, independently.

    A subclass is a frozen dataclass. It implements :meth:`log_prob`, :meth:`estimated`, or what
    its divergence in :data:`bslfast.nn.weight.DIVERGENCES` is made of.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        raise NotImplementedError

    def estimated(self) -> dict[str, Any]:
        """What :func:`bslfast.functional.normal_rsample_mc_kl` calls this prior, and its numbers.

        For priors without a closed form of the divergence from a normal posterior.
        """
        raise NotImplementedError

    def _is_positive(self, *names: str) -> None:
        for name in names:
            self._set(name, _checks.number(name, getattr(self, name), above=0.0))

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)


@dataclasses.dataclass(frozen=True)
class Normal(Prior):
    r"""N(loc, scale), with the divergence from a normal posterior in closed form.

    Args:
        loc: the mean.
        scale: the standard deviation, > 0.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import bslfast
    >>> bslfast.nn.BayesLinear(3, 2, prior=bslfast.nn.priors.Normal(scale=0.5)).priors["bias"]
    Normal(loc=0.0, scale=0.5)
    """

    loc: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._set("loc", _checks.number("loc", self.loc))
        self._is_positive("scale")

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        loc, scale = _like(value, self.loc), _like(value, self.scale)
        return BF.normal_log_prob(value, loc, scale, parametrization="scale", reduction="sum")


@dataclasses.dataclass(frozen=True)
class ScaleMixture(Prior):
    r"""pi N(0, sigma1) + (1 - pi) N(0, sigma2): most weights near 0, some far from it.

    Its divergence from a normal posterior is estimated from the sample that the layer uses.

    Args:
        pi: share of the first component, in (0, 1).
        sigma1, sigma2: standard deviations of the components, > 0.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424),
    section 3.3.

    >>> import bslfast
    >>> bslfast.nn.priors.ScaleMixture(pi=0.25, sigma2=0.01)
    ScaleMixture(pi=0.25, sigma1=1.0, sigma2=0.01)
    """

    pi: float = 0.5
    sigma1: float = 1.0
    sigma2: float = 0.1

    def __post_init__(self) -> None:
        self._set("pi", _checks.number("pi", self.pi, above=0.0, below=1.0))
        self._is_positive("sigma1", "sigma2")

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "scale_mixture", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Laplace(Prior):
    r"""exp(-\|w\| / scale) / (2 scale).

    Its divergence from a normal posterior is estimated from the sample that the layer uses; from a
    Laplace posterior it has a closed form.

    Args:
        scale: > 0.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import bslfast
    >>> bslfast.nn.BayesLinear(3, 2, prior=bslfast.nn.priors.Laplace(0.3)).priors["weight"]
    Laplace(scale=0.3)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        self._is_positive("scale")

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        loc, scale = _like(value, 0.0), _like(value, self.scale)
        return BF.laplace_log_prob(value, loc, scale, parametrization="scale", reduction="sum")

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "laplace", "prior_scale": self.scale}


@dataclasses.dataclass(frozen=True)
class StudentT(Prior):
    r"""Student's t distribution around 0.

    Its divergence from a normal posterior is estimated from the sample that the layer uses.

    Args:
        df: degrees of freedom, > 0.
        scale: > 0.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Fortuin et al., "Bayesian neural network priors revisited" (2022, arXiv:2102.06571).

    >>> import bslfast
    >>> bslfast.nn.priors.StudentT(df=4)
    StudentT(df=4.0, scale=1.0)
    """

    df: float = 3.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._is_positive("df", "scale")

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        df, loc, scale = _like(value, self.df), _like(value, 0.0), _like(value, self.scale)
        return BF.student_t_log_prob(
            value, df, loc, scale, parametrization="scale", reduction="sum"
        )

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "student_t", "prior_df": self.df, "prior_scale": self.scale}


@dataclasses.dataclass(frozen=True)
class Horseshoe(Prior):
    r"""N(0, scale l) with l half-Cauchy, integrated over l: infinite at 0, with heavy tails.

    Its divergence from a normal posterior is estimated from the sample that the layer uses.

    Args:
        scale: > 0.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Carvalho, Polson and Scott, "The horseshoe estimator for sparse signals" (2010,
    doi:10.1093/biomet/asq017).

    >>> import bslfast
    >>> bslfast.nn.priors.Horseshoe()
    Horseshoe(scale=1.0)
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        self._is_positive("scale")

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "horseshoe", "prior_scale": self.scale}


@dataclasses.dataclass(frozen=True)
class LogUniform(Prior):
    r"""p(w) = 1 / \|w\|, the same for every order of magnitude.

    It has no integral, so that the divergence is one up to a constant, and may be negative. It is
    estimated from the sample that the layer uses.

    Source: Kingma, Salimans and Welling, "Variational dropout and the local reparameterization
    trick" (2015, arXiv:1506.02557).

    >>> import bslfast
    >>> bslfast.nn.priors.LogUniform()
    LogUniform()
    """

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "log_uniform"}


def _like(value: Tensor, number: float) -> Tensor:
    return torch.full((), number, dtype=value.dtype, device=value.device)
