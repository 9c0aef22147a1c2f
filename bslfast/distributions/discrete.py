"""Distributions over classes and counts, given by logits or log rates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import register_kl
from torch.distributions.utils import lazy_property
from torch.nn import functional as F
from typing_extensions import Self

import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import wide
from bslfast.distributions.location_scale import initialize, instance
from bslfast.distributions.negative_binomial_cdf import at_most_and_more


class _Sampled(Distribution):
    """Mixin in front of a distribution of torch that draws by itself."""

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples, ``[*sample_shape, *batch_shape]``."""
        sample: Callable[..., Tensor] = super().sample
        return sample(torch.Size(_checks.sample_shape(sample_shape)))


class Bernoulli(_Sampled, torch.distributions.Bernoulli):
    """A Bernoulli distribution given by its logits; log probabilities by the fused op.

    Args:
        logits: log odds of 1.
        validate_args: as in torch.

    >>> import torch
    >>> Bernoulli(torch.tensor([0.0, 20.0])).log_prob(torch.tensor([1.0, 1.0]))
    tensor([-6.9315e-01, -2.0612e-09])
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = self._param = _checks.operand("logits", logits)
        initialize(self, logits.shape, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, Bernoulli, _instance)
        shape = torch.Size(batch_shape)
        new.logits = new._param = self.logits.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log probabilities."""
        if self._validate_args:
            self._validate_sample(value)
        return BF.bernoulli_log_prob(value.to(self.logits), self.logits, reduction="none")

    def entropy(self) -> Tensor:
        """Return the entropies, in nats: log(1 + exp(-|l|)) + |l| sigmoid(-|l|), both positive."""
        logits = (-self.logits.abs()).clamp(min=-1000.0)  # not infinite: infinity times 0
        return F.softplus(logits) - F.silu(logits)


class Categorical(_Sampled, torch.distributions.Categorical):
    """A categorical distribution given by its logits; log probabilities by the fused op.

    Args:
        logits: unnormalised log probabilities, [..., classes]; kept as they came, where torch
            normalises them, which costs as much as a log probability.
        validate_args: as in torch.

    >>> import torch
    >>> Categorical(torch.zeros(2, 4)).log_prob(torch.tensor([0, 3]))
    tensor([-1.3863, -1.3863])
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self._raw = _checks.operand("logits", logits)
        if logits.dim() == 0:
            raise ValueError("logits: expected shape [..., classes], got []")
        self._param = self._raw
        self._num_events = logits.shape[-1]
        Distribution.__init__(self, logits.shape[:-1], validate_args=validate_args)
        if self._validate_args and not constraints.real_vector.check(logits).all():
            raise ValueError("logits: expected real numbers, got NaN")

    @lazy_property
    def logits(self) -> Tensor:
        """The normalised logits: log probabilities."""
        return self._raw.log_softmax(-1)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return self._raw.softmax(-1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, Categorical, _instance)
        shape = torch.Size(batch_shape)
        new._raw = new._param = self._raw.expand(*shape, self._num_events)
        new._num_events = self._num_events
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log probabilities of class indices."""
        if self._validate_args:
            self._validate_sample(value)
        return BF.categorical_log_prob(value.long(), self._raw)

    def entropy(self) -> Tensor:
        """Return the entropies, in nats: log(sum) + sum of p |l - max|, of exp(l - max).

        The logarithm is that of 1 and the other classes: it has its digits where they are rare.
        """
        top = self._raw.max(-1, keepdim=True)
        # exp() of the smallest number is 0, and 0 times it is not NaN.
        below = (self._raw - top.values).clamp(min=torch.finfo(self._raw.dtype).min)
        others = below.exp().scatter(-1, top.indices, 0.0)
        rest = others.sum(-1)
        return torch.log1p(rest) - (others * below).sum(-1) / (1 + rest)


class Poisson(_Sampled, torch.distributions.Poisson):
    """A Poisson distribution given by the logarithm of its rate; log probabilities by the fused op.

    Args:
        log_rate: logarithms of the rates.
        validate_args: as in torch.

    >>> import torch
    >>> Poisson(torch.tensor(0.0)).log_prob(torch.tensor([0.0, 3.0]))
    tensor([-1.0000, -2.7918])
    """

    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = _checks.operand("log_rate", log_rate)
        initialize(self, log_rate.shape, validate_args)

    @lazy_property
    def rate(self) -> Tensor:
        """The rates."""
        return self.log_rate.exp()

    @property
    def _natural_params(self) -> tuple[Tensor]:
        return (self.log_rate,)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, Poisson, _instance)
        shape = torch.Size(batch_shape)
        new.log_rate = self.log_rate.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log probabilities of counts."""
        if self._validate_args:
            self._validate_sample(value)
        return BF.poisson_log_prob(value.to(self.log_rate), self.log_rate, reduction="none")

    def entropy(self) -> Tensor:
        """Return the entropies, in nats, computed in float64.

        A sum over the counts up to rate 40; beyond, log(2 pi e r) / 2 and a series in 1 / r, of
        which less than 1e-16 is left out. Source: Evans, Boersma, Blachman and Jagers, "The entropy
        of a Poisson distribution" (1988, doi:10.1137/1030059).
        """
        log_rate = self.log_rate.double()
        few = log_rate < math.log(_MANY)
        counts = torch.arange(_COUNTS, dtype=torch.float64, device=log_rate.device)
        given = torch.where(few, log_rate, 0.0).unsqueeze(-1)
        # exp(-800) is 0, and 0 times it is not NaN.
        log_prob = BF.poisson_log_prob(counts, given, reduction="none").clamp(min=-800.0)
        small = (log_prob.exp() * -log_prob).sum(-1)
        # where() twice: the branch not taken must not send NaN into the gradient.
        log_rate = torch.where(few, 4.0, log_rate)
        inverse = (-log_rate).exp()
        series = torch.zeros_like(log_rate)
        for c in _gregory():
            series = (series + c) * inverse
        large = 0.5 * (math.log(2 * math.pi) + 1 + log_rate) - series
        return torch.where(few, small, large).to(self.log_rate.dtype)


class NegativeBinomial(_Sampled, torch.distributions.NegativeBinomial):
    """Counts of mean mu and variance mu + mu^2 / r, given by the logarithms of mu and r.

    Log probabilities by the fused op. As r grows this becomes the Poisson distribution.

    Args:
        log_rate: logarithms of the means.
        log_total_count: logarithms of the total counts; broadcasts with ``log_rate``.
        validate_args: as in torch.

    >>> import torch
    >>> law = NegativeBinomial(torch.tensor(0.0), torch.tensor(0.0))  # geometric
    >>> law.log_prob(torch.tensor([0.0, 3.0])), law.variance
    (tensor([-0.6931, -2.7726]), tensor(2.))
    """

    arg_constraints = {  # noqa: RUF012
        "log_rate": constraints.real,
        "log_total_count": constraints.real,
    }

    def __init__(
        self, log_rate: Tensor, log_total_count: Tensor, validate_args: bool | None = None
    ) -> None:
        _checks.operand("log_rate", log_rate)
        _checks.operand("log_total_count", log_total_count)
        _checks.alike("log_total_count", log_total_count, "log_rate", log_rate)
        shape = _checks.broadcast(log_rate=log_rate, log_total_count=log_total_count)
        self.log_rate = self._param = log_rate.expand(shape)
        self.log_total_count = log_total_count.expand(shape)
        initialize(self, shape, validate_args)

    @lazy_property
    def total_count(self) -> Tensor:
        """The total counts r."""
        return self.log_total_count.exp()

    @lazy_property
    def logits(self) -> Tensor:
        """Log odds of a success, of which counts are the number: log(mu / r)."""
        return self.log_rate - self.log_total_count

    @lazy_property
    def probs(self) -> Tensor:
        """Chances of a success."""
        return torch.sigmoid(self.logits)

    @property
    def mean(self) -> Tensor:
        """The means."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The variances."""
        return self.mean + (2 * self.log_rate - self.log_total_count).exp()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, NegativeBinomial, _instance)
        shape = torch.Size(batch_shape)
        new.log_rate = new._param = self.log_rate.expand(shape)
        new.log_total_count = self.log_total_count.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log probabilities of counts."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.log_rate)
        return BF.negative_binomial_log_prob(
            value, self.log_rate, self.log_total_count, reduction="none"
        )

    @lazy_property
    def _gamma(self) -> torch.distributions.Gamma:
        """The distribution of the counts' rates. torch draws none in 16 bits."""
        total, logits = wide(self.total_count), wide(self.logits)
        return torch.distributions.Gamma(total, (-logits).exp(), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples, ``[*sample_shape, *batch_shape]``."""
        return super().sample(sample_shape).to(self.log_rate.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the chances of counts up to ``value``, computed in float64; without gradients."""
        at_most, _ = at_most_and_more(self.log_rate, self.log_total_count, value)
        return at_most.to(self.log_rate.dtype)


#: The rate from which on the entropy is a series in its inverse.
_MANY = 40.0
#: How many counts matter up to there: the chance of more is less than 1e-22.
_COUNTS = 121


@functools.cache
def _gregory() -> list[float]:
    """(j - 1)! |G(j + 1)| for j = 20, ..., 1, with Gregory's coefficients: 1/12, 1/24, 19/360."""
    g = [Fraction(1)]
    for n in range(1, 22):
        g.append(-sum((g[k] / (n + 1 - k) for k in range(n)), Fraction(0)))
    return [float(math.factorial(j - 1) * abs(g[j + 1])) for j in range(20, 0, -1)]


@register_kl(Bernoulli, Bernoulli)  # type: ignore[untyped-decorator]
def _kl_bernoulli_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    return BF.bernoulli_kl(p.logits, q.logits, reduction="none")


@register_kl(Categorical, Categorical)  # type: ignore[untyped-decorator]
def _kl_categorical_categorical(p: Categorical, q: Categorical) -> Tensor:
    if p._num_events != q._num_events:
        raise ValueError(
            "kl_divergence: expected distributions over the same classes, got "
            f"{p._num_events} and {q._num_events}"
        )
    totals = (logits.logsumexp(-1, keepdim=True) for logits in (p._raw, q._raw))
    return BF.generalized_kl(p._raw, q._raw, *totals, reduction="row")


@register_kl(Poisson, Poisson)  # type: ignore[untyped-decorator]
def _kl_poisson_poisson(p: Poisson, q: Poisson) -> Tensor:
    return BF.generalized_kl(p.log_rate, q.log_rate, reduction="none")
