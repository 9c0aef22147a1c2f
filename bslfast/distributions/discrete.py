"""Distributions over classes and counts, given by logits or log rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property
from typing_extensions import Self

import bslfast.functional as BF
from bslfast import _checks
from bslfast.distributions.location_scale import initialize, instance


class Bernoulli(torch.distributions.Bernoulli):
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
        return BF.bernoulli_log_prob(self.logits, value.to(self.logits), reduction="none")


class Categorical(torch.distributions.Categorical):
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
        return BF.categorical_log_prob(self._raw, value.long())


class Poisson(torch.distributions.Poisson):
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
        return BF.poisson_log_prob(self.log_rate, value.to(self.log_rate), reduction="none")
