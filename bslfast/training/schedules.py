r"""Weights of the KL divergence that change during training: ``fit(..., beta=LinearWarmup(10))``.

Each is a value that gives the weight at a step. Another course is a subclass of :class:`Schedule`.
An attribute of a model, such as a VAE's beta or capacity, follows one too:
``fit(..., courses={"beta": LinearWarmup(10)})``.
"""

from __future__ import annotations

import dataclasses
import math

from bslfast import _checks

__all__ = ["Cyclic", "LinearWarmup", "MinibatchWeights", "Schedule"]


class Schedule:
    """The weight of the KL at each step. A subclass is a frozen dataclass with ``__call__``.

    A run that is resumed compares its ``repr``, which has to show all that the weights depend on.
    """

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight, at least 0.

        Args:
            step: the number of steps before this one.
            steps_per_epoch: the number of mini-batches.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LinearWarmup(Schedule):
    r"""From 0 up to ``beta`` along a line, and ``beta`` after that.

    .. math:: \beta_t = \beta \min(1, t / T)

    with T the steps of ``epochs``. The likelihood is learned first; otherwise the KL may push
    weights or latent variables to the prior before they have learned anything.

    Args:
        epochs: how long it rises, > 0.
        beta: where it ends, >= 0.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Bowman et al., "Generating sentences from a continuous space" (2016, arXiv:1511.06349),
    section 3.1; Sonderby et al., "Ladder variational autoencoders" (2016, arXiv:1602.02282).

    >>> [LinearWarmup(2)(step, steps_per_epoch=2) for step in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    epochs: float
    beta: float = 1.0

    def __post_init__(self) -> None:
        _checks.number("epochs", self.epochs, above=0.0)
        _checks.number("beta", self.beta, minimum=0.0)

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight of a step."""
        return self.beta * min(1.0, step / (self.epochs * steps_per_epoch))


@dataclasses.dataclass(frozen=True)
class Cyclic(Schedule):
    r"""Cycles, in each of which the weight rises from 0 to ``beta`` and then stays there.

    .. math:: \beta_t = \beta \min(1, \tau / R), \quad \tau = (t \bmod C) / C

    with C the steps of ``epochs / cycles``. After the last cycle it stays at ``beta``.

    Args:
        epochs: of all cycles together, > 0.
        cycles: their number, >= 1.
        ramp: R, the part of a cycle in which it rises, in (0, 1].
        beta: where each cycle ends, >= 0.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Fu et al., "Cyclical annealing schedule: a simple approach to mitigating KL vanishing"
    (2019, arXiv:1903.10145), equations 6 and 7, with the defaults of its experiments.

    >>> [Cyclic(epochs=4, cycles=2)(step, steps_per_epoch=2) for step in range(9)]
    [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0]
    """

    epochs: float
    cycles: int = 4
    ramp: float = 0.5
    beta: float = 1.0

    def __post_init__(self) -> None:
        _checks.number("epochs", self.epochs, above=0.0)
        _checks.integer("cycles", self.cycles)
        if _checks.number("ramp", self.ramp, above=0.0) > 1:
            raise ValueError(f"ramp: expected a number above 0 and at most 1, got {self.ramp!r}")
        _checks.number("beta", self.beta, minimum=0.0)

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight of a step."""
        passed = step / (self.epochs * steps_per_epoch)
        if passed >= 1:
            return self.beta
        return self.beta * min(1.0, (passed * self.cycles) % 1.0 / self.ramp)


@dataclasses.dataclass(frozen=True)
class MinibatchWeights(Schedule):
    r"""Most of the KL in an epoch's first mini-batches, where the data have not been seen yet.

    .. math:: \beta_i = M \frac{2^{M - i}}{2^M - 1}, \quad i = 1, \dots, M

    for the i-th of M mini-batches. Over an epoch their average is 1: the sum of the epoch's losses
    is the same as with equal weights.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424),
    section 3.4.

    >>> [MinibatchWeights()(step, steps_per_epoch=2) for step in range(3)]
    [1.3333333333333333, 0.6666666666666666, 1.3333333333333333]
    """

    def __call__(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight of a step."""
        batch = step % steps_per_epoch + 1
        return steps_per_epoch * 2.0**-batch / -math.expm1(-steps_per_epoch * math.log(2))
