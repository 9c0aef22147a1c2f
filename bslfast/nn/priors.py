"""Priors: what weights are expected to be before any data.

Most are values: numbers that stay as they are, and another prior is another object. Those that have
tensors (:class:`CentredNormal`, :class:`LearnedNormal`) are modules, which a layer registers. In
:mod:`bslfast.nn.weight` is how each diverges from each posterior.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast._formulas import log_exp_e1
from bslfast._precision import wide

__all__ = [
    "CentredNormal",
    "Horseshoe",
    "Laplace",
    "LearnedNormal",
    "LogUniform",
    "Normal",
    "Prior",
    "ScaleMixture",
    "StudentT",
]
_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Prior:
    """A distribution for each of a tensor's weights, independently.

    A subclass is a frozen dataclass, or a module if it has tensors. It implements :meth:`log_prob`,
    :meth:`estimated`, or what its divergence in :data:`bslfast.nn.weight.DIVERGENCES` is made of.
    """

    def of_layer(self) -> Prior:
        """The prior that a layer has which is given this one: this one, or a copy of its own."""
        return self

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

    def moments(self, like: Tensor) -> tuple[float, float]:
        """The mean and the standard deviation of weights such as these."""
        return self.loc, self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        loc, scale = _like(value, self.loc), _like(value, self.scale)
        return BF.normal_log_prob(value, loc, scale, parametrization="scale", reduction="sum")


class NormalModule(Prior, nn.Module):
    """A normal prior that has tensors."""

    def moments(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The mean and the standard deviation of weights such as these."""
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        value = wide(value)  # before moments are made from parameters
        loc, scale = (t if isinstance(t, Tensor) else _like(value, t) for t in self.moments(value))
        return BF.normal_log_prob(value, loc, scale, parametrization="scale", reduction="sum")

    def reset_parameters(self) -> None:
        """Put what is learned to its start, in place."""


class LearnedNormal(NormalModule):
    r"""N(loc, scale) with a scale that is learned along with the posterior: empirical Bayes.

    The divergence reaches the scale. Alone it is least where scale^2 is the average of
    (m - loc)^2 + s^2 over the means m and standard deviations s of all weights that have it.

    Args:
        scale: the standard deviation at the start, > 0.
        loc: the mean, which is not learned.
        shared: False: every layer that is given this prior has a copy of its own, for weight and
            bias together. True: all have this one, whose scale is in ``model.parameters()`` once.

    Parameters: ``log_scale``, a scalar; in a layer ``weight_prior.log_scale`` and
    ``bias_prior.log_scale``, the same one, or ``joint_prior.log_scale``. It moves to the device and
    the dtype of the layer.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range.

    Source: Wu et al., "Deterministic variational inference for robust Bayesian neural networks"
    (2019, arXiv:1810.03958), section 4.

    >>> import torch, bslfast
    >>> prior = bslfast.nn.priors.LearnedNormal(0.5, shared=True)
    >>> model = bslfast.bnn.BayesianMLP(3, (8,), 1, prior=prior)
    >>> bslfast.nn.kl(model).backward()
    >>> prior.scale.item(), prior.log_scale.grad is not None
    (0.5, True)
    """

    def __init__(self, scale: float = 1.0, *, loc: float = 0.0, shared: bool = False) -> None:
        super().__init__()
        self.init_scale = _checks.number("scale", scale, above=0.0)
        self.loc = _checks.number("loc", loc)
        self.shared = _checks.flag("shared", shared)
        self.log_scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    @property
    def scale(self) -> Tensor:
        """The standard deviation, a scalar tensor."""
        return self.log_scale.exp()

    def of_layer(self) -> Prior:
        """This prior if it is shared, else a copy as it is now."""
        return self if self.shared else copy.deepcopy(self)

    def moments(self, like: Tensor) -> tuple[float, Tensor]:
        """The mean and the standard deviation of weights such as these."""
        return self.loc, self.log_scale.to(like).exp()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Put the scale to its start."""
        self.log_scale.fill_(math.log(self.init_scale))

    def extra_repr(self) -> str:
        return f"scale={self.init_scale}, loc={self.loc}, shared={self.shared}"


class CentredNormal(NormalModule):
    r"""N(loc, scale) with a mean for each weight, such as that of a network trained before.

    Args:
        loc: the means, of the shape of the weights: of a joint posterior, all elements of the
            layer's tensors in their order.
        scale: the standard deviation of all, > 0.

    Buffers: ``loc``; in a layer ``weight_prior.loc``, ``bias_prior.loc`` or ``joint_prior.loc``.

    Raises:
        TypeError, ValueError: not a tensor of floating point; a number that is none, or not
            positive; with the divergence, weights of another shape.

    Source: Krishnan, Subedar and Tickoo, "Specifying weight priors in Bayesian deep neural networks
    with empirical Bayes" (2020, arXiv:1906.05323).

    >>> import torch, bslfast
    >>> prior = {"weight": bslfast.nn.priors.CentredNormal(torch.ones(2, 3), scale=0.1)}
    >>> layer = bslfast.nn.BayesLinear(3, 2, prior=prior)
    >>> [name for name, _ in layer.named_buffers()], bool(bslfast.nn.kl(layer) > 0)
    (['weight_prior.loc'], True)
    """

    loc: Tensor

    def __init__(self, loc: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("loc", _checks.operand("loc", loc).detach().clone())
        self.scale = _checks.number("scale", scale, above=0.0)

    def of_layer(self) -> Prior:
        """A copy."""
        return copy.deepcopy(self)

    def moments(self, like: Tensor) -> tuple[Tensor, float]:
        """The mean and the standard deviation of weights such as these."""
        if self.loc.shape != like.shape:
            raise ValueError(
                f"prior: expected loc to have the shape of the weights, {list(like.shape)}, got "
                f"{list(self.loc.shape)}"
            )
        return self.loc.to(like), self.scale

    def extra_repr(self) -> str:
        return f"loc of shape {list(self.loc.shape)}, scale={self.scale}"


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

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        first, second = (
            math.log(share / sigma) - _HALF_LOG_2_PI - 0.5 * (value / sigma).square()
            for share, sigma in ((self.pi, self.sigma1), (1 - self.pi, self.sigma2))
        )
        return torch.logaddexp(first, second).sum()

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "scale_mixture", **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Laplace(Prior):
    r"""exp(-\|w\| / scale) / (2 scale).

    The divergence from it has a closed form for normal posteriors, independent or joint, and for a
    Laplace posterior.

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

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, in nats: a scalar tensor."""
        constant = math.log(math.pi * self.scale) + _HALF_LOG_2_PI
        return (log_exp_e1((value / self.scale).abs()) - constant).sum()

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

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of all weights together, up to a constant: a scalar tensor."""
        return -value.abs().log().sum()

    def estimated(self) -> dict[str, Any]:
        """What the op calls this prior, and its numbers."""
        return {"prior": "log_uniform"}


def _like(value: Tensor, number: float) -> Tensor:
    return torch.full((), number, dtype=value.dtype, device=value.device)
