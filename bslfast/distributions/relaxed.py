"""Relaxations of Bernoulli and one-hot categorical distributions, given by logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, TransformedDistribution, constraints
from torch.distributions import relaxed_bernoulli as torch_bernoulli
from torch.distributions import relaxed_categorical as torch_categorical
from torch.distributions.kl import kl_divergence, register_kl
from torch.distributions.transforms import ExpTransform, SigmoidTransform
from typing_extensions import Self

import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import wide
from bslfast.distributions.discrete import Categorical
from bslfast.distributions.location_scale import Number, instance
from bslfast.functional._pointwise import parameter


class _LogitRelaxedBernoulli(torch_bernoulli.LogitRelaxedBernoulli):
    """What a relaxed Bernoulli distribution is the sigmoid of: a logistic distribution."""

    arg_constraints = {  # noqa: RUF012
        "temperature": constraints.positive,
        "logits": constraints.real,
    }
    has_rsample = True

    def __init__(
        self, temperature: Tensor | Number, *, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        logits = _checks.operand("logits", logits)
        temperature = parameter("temperature", temperature, logits, above=0.0)
        temperature = _checks.operand("temperature", temperature)
        _checks.alike("temperature", temperature, "logits", logits)
        shape = _checks.broadcast(logits=logits, temperature=temperature)
        super().__init__(temperature, logits=logits.expand(shape), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, _LogitRelaxedBernoulli, _instance)
        expand: Callable[..., Self] = super().expand
        return expand(batch_shape, _instance=new)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples by the fused op."""
        return BF.logistic_rsample(
            self.logits / self.temperature,
            1 / self.temperature,
            parametrization="scale",
            sample_shape=_checks.sample_shape(sample_shape),
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities by the fused op."""
        if self._validate_args:
            self._validate_sample(value)
        value, logits, temperature = map(wide, (value, self.logits, self.temperature))
        return BF.logistic_log_prob(
            value,
            logits / temperature,
            1 / temperature,
            parametrization="scale",
            reduction="none",
        )


class RelaxedBernoulli(torch.distributions.RelaxedBernoulli):
    """A relaxed Bernoulli (binary concrete) distribution given by its logits, by the fused ops.

    Args:
        temperature: > 0, a number or a tensor that broadcasts with ``logits``; gradients reach it.
        logits: log odds of 1 of what is relaxed.
        validate_args: as in torch.

    As in torch, log densities at 0 and 1, which samples are rounded to, are those next to them.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> q = RelaxedBernoulli(0.5, logits=torch.zeros(3))
    >>> q.rsample((5,)).shape, q.log_prob(torch.full((3,), 0.5))
    (torch.Size([5, 3]), tensor([-0.6931, -0.6931, -0.6931]))
    """

    arg_constraints = _LogitRelaxedBernoulli.arg_constraints

    def __init__(
        self, temperature: Tensor | Number, *, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        base = _LogitRelaxedBernoulli(temperature, logits=logits, validate_args=validate_args)
        TransformedDistribution.__init__(self, base, SigmoidTransform(), validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, RelaxedBernoulli, _instance)
        expand: Callable[..., Self] = super().expand
        return expand(batch_shape, _instance=new)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, *batch_shape]``, by the fused op."""
        return BF.relaxed_bernoulli_rsample(
            self.logits, self.temperature, sample_shape=_checks.sample_shape(sample_shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities."""
        log_prob: Callable[..., Tensor] = super().log_prob
        return log_prob(wide(value))

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


class _ExpRelaxedCategorical(torch_categorical.ExpRelaxedCategorical):
    """What a relaxed one-hot distribution is the exponential of, over the library's Categorical."""

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012

    def __init__(
        self, temperature: Number, *, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.number = _checks.number("temperature", temperature, above=0.0)
        self._categorical = Categorical(logits, validate_args)
        self.temperature = logits.new_full((), self.number)
        shapes = self._categorical.batch_shape, self._categorical.param_shape[-1:]
        Distribution.__init__(self, *shapes, validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, _ExpRelaxedCategorical, _instance)
        new.number = self.number
        expand: Callable[..., Self] = super().expand
        return expand(batch_shape, _instance=new)


class RelaxedOneHotCategorical(torch.distributions.RelaxedOneHotCategorical):
    """A relaxed one-hot categorical (concrete, Gumbel-softmax) distribution given by its logits.

    Samples are those of the fused op, log densities are computed by torch.

    Args:
        temperature: > 0, a number.
        logits: unnormalised log probabilities of what is relaxed, [..., classes]. -inf excludes a
            class; log densities are -inf then, as nothing is spread over the whole simplex.
        validate_args: as in torch.

    Log densities at 0, which samples are rounded to at low temperatures, are those at the smallest
    normal number (torch's are NaN).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> q = RelaxedOneHotCategorical(0.5, logits=torch.zeros(2, 4))
    >>> q.rsample((5,)).shape, q.log_prob(torch.full((4,), 0.25))
    (torch.Size([5, 2, 4]), tensor([-0.2877, -0.2877]))
    """

    arg_constraints = _ExpRelaxedCategorical.arg_constraints
    base_dist: Any

    def __init__(
        self, temperature: Number, *, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        base = _ExpRelaxedCategorical(temperature, logits=logits, validate_args=validate_args)
        TransformedDistribution.__init__(self, base, ExpTransform(), validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, RelaxedOneHotCategorical, _instance)
        expand: Callable[..., Self] = super().expand
        return expand(batch_shape, _instance=new)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, ..., classes]``, by the fused op."""
        return _gumbel_softmax(self.base_dist, sample_shape, hard=False)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities."""
        if self._validate_args:
            self._validate_sample(value)
        classes = self.event_shape[-1]
        value, logits = wide(value), wide(self.logits)
        log = value.clamp(min=torch.finfo(value.dtype).tiny).log()
        scores = (logits - self.base_dist.number * log).log_softmax(-1)
        scale = math.lgamma(classes) + (classes - 1) * math.log(self.base_dist.number)
        log_prob: Tensor = (scores - log).sum(-1) + scale
        return log_prob


class OneHotCategoricalStraightThrough(torch.distributions.OneHotCategoricalStraightThrough):
    """A one-hot categorical distribution whose samples have the gradients of relaxed ones.

    Samples are exactly 0 and 1. Their gradient, which torch's class takes from the probabilities,
    is that of the Gumbel-softmax sample that was rounded; both are biased.

    Args:
        temperature: > 0, a number: that of the relaxation. It has no part in samples and log
            probabilities.
        logits: unnormalised log probabilities, [..., classes]. -inf excludes a class.
        validate_args: as in torch.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> logits = torch.zeros(4, requires_grad=True)
    >>> sample = OneHotCategoricalStraightThrough(0.5, logits=logits).rsample()
    >>> sample[0].backward()
    >>> sample.sort().values.detach(), bool(logits.grad[0] > 0)
    (tensor([0., 0., 0., 1.]), True)
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012

    def __init__(
        self, temperature: Number, *, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self._relaxed = _ExpRelaxedCategorical(
            temperature, logits=logits, validate_args=validate_args
        )
        self._categorical = self._relaxed._categorical
        shapes = self._relaxed.batch_shape, self._relaxed.event_shape
        Distribution.__init__(self, *shapes, validate_args=validate_args)

    @property
    def temperature(self) -> Tensor:
        """The temperature of the relaxation."""
        temperature: Tensor = self._relaxed.temperature
        return temperature

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, OneHotCategoricalStraightThrough, _instance)
        new._relaxed = self._relaxed.expand(batch_shape)
        expand: Callable[..., Self] = super().expand
        return expand(batch_shape, _instance=new)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples, ``[*sample_shape, ..., classes]``, by the fused op."""
        return _gumbel_softmax(self._relaxed, sample_shape, hard=True)

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)


@register_kl(  # type: ignore[untyped-decorator]
    OneHotCategoricalStraightThrough, OneHotCategoricalStraightThrough
)
def _kl_one_hot_one_hot(
    p: OneHotCategoricalStraightThrough, q: OneHotCategoricalStraightThrough
) -> Tensor:
    kl: Tensor = kl_divergence(p._categorical, q._categorical)
    return kl


def _gumbel_softmax(base: Any, sample_shape: Sequence[int], *, hard: bool) -> Tensor:
    shape = _checks.sample_shape(sample_shape)
    return BF.gumbel_softmax_rsample(
        base._categorical._raw, base.number, hard=hard, sample_shape=shape
    )
