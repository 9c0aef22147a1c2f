"""Targets of which there is a probability: binary ones, class labels, counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import log_dtype, wide
from bslfast._torch import standard_gamma
from bslfast.distributions.negative_binomial_cdf import at_most_and_more
from bslfast.likelihoods.base import (
    Likelihood,
    Predictive,
    _check_targets,
    check_outputs,
    check_range,
    check_samples,
    observed,
)


class Bernoulli(Likelihood):
    r"""Binary targets; the network outputs the log odds l of 1.

    .. math:: \log p(y) = y\,l - \log(1 + e^l)

    Targets between 0 and 1 (grey pixels) are taken too: this is the expected log probability of
    binary ones drawn with these chances. :class:`ContinuousBernoulli` has a density for them.

    Args:
        targets: number of targets; None for targets of any shape.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 4.3.2.

    Example:
        >>> import torch
        >>> Bernoulli(2).log_prob(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]))  # -2 log 2
        tensor([-1.3863])
    """

    parts = ("log odds",)
    kind = "binary"

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` has values outside [0, 1] (in eager mode on the CPU)."""
        check_range(name, y, "bernoulli", 1.0)

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the probabilities of 1."""
        return torch.sigmoid(output)

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return zeros and ones, see :meth:`Likelihood.sample`."""
        uniform = BF.standard_uniform(
            output.shape, dtype=log_dtype(output.dtype), device=output.device, seed=seed
        )
        return (uniform < torch.sigmoid(wide(output))).to(output.dtype)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of each target, of :mod:`bslfast.distributions`."""
        return bd.Bernoulli(output, validate_args=False)

    def predictive(self, samples: Tensor) -> Predictive:
        """Probabilities of 1 and the two parts of their entropy, in nats, each [batch, targets].

        ``mean`` are the probabilities averaged over the samples, ``aleatoric`` is the expected
        entropy and ``epistemic`` the mutual information between target and weights; their sum is
        the entropy of ``mean``.
        """
        self._check_samples(samples)
        mean, other = torch.sigmoid(samples).mean(0), torch.sigmoid(-samples).mean(0)
        aleatoric = bd.Bernoulli(samples, validate_args=False).entropy().mean(0)
        total = torch.special.entr(mean) + torch.special.entr(other)
        return Predictive(mean, aleatoric, (total - aleatoric).clamp_min(0))

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return empirical quantiles of the probabilities of 1, each [batch, targets].

        They run over the samples of the weights: the interval says how well the probabilities are
        known (epistemic), not where the target will fall.
        """
        return _quantiles(torch.sigmoid(self._check_samples(samples)), tail)

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        return BF.bernoulli_log_prob(y, parameters[0], reduction=reduction)


class _Counts(Likelihood):
    """Targets 0, 1, 2, ..."""

    kind = "counts"

    def pit(self, samples: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return P(target < y) and P(target <= y), see :meth:`Likelihood.pit`."""
        self.check(_checks.tensor("y", y))
        at_most = self.cdf(samples, y)
        return self.cdf(samples, y - 1), at_most


class Poisson(_Counts):
    r"""Counts; the network outputs the logarithms l of their rates.

    .. math:: \log p(y) = y\,l - e^l - \log y!

    Args:
        targets: number of targets; None for targets of any shape.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: McCullagh and Nelder, "Generalized linear models" (1989, doi:10.1007/978-1-4899-3242-6),
    chapter 6.

    Example:
        >>> import torch
        >>> Poisson(1).log_prob(torch.zeros(1, 1), torch.tensor([[3.0]]))  # -1 - log 6
        tensor([-2.7918])
    """

    parts = ("log rates",)

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` holds other than whole numbers >= 0 (eager, on the CPU)."""
        _check_counts(name, y, "poisson")

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the rates."""
        return output.exp()

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return counts, see :meth:`Likelihood.sample`."""
        seed = int(_checks.seed(seed, output.device).item())
        generator = torch.Generator(output.device).manual_seed(seed)
        return torch.poisson(wide(output.detach()).exp(), generator).to(output.dtype)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of each target, of :mod:`bslfast.distributions`."""
        return bd.Poisson(output, validate_args=False)

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64."""
        rate = self._check_samples(samples).double().exp()
        self._check_shapes(samples[0], y)
        return _at_most(rate, y.double())

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return the central interval of the mixture, each end [batch, targets].

        The ends are whole numbers: the smallest with P(target <= lower) >= tail, and the smallest
        with P(target > upper) <= tail. So at least 1 - 2 tail is inside.
        """
        rate = self._check_samples(samples).double().exp()
        lower = _least_count(rate, lambda n: _at_most(rate, n) >= tail)
        # From the tail itself, not one less the rest, which near 1 has no digits.
        upper = _least_count(rate, lambda n: _more_than(rate, n) <= tail)
        return lower.to(samples.dtype), upper.to(samples.dtype)

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        return BF.poisson_log_prob(y, parameters[0], reduction=reduction)


class NegativeBinomial(_Counts):
    r"""Counts that vary more than Poisson ones; the network outputs the logarithms of their means.

    .. math:: \log p(y) = \log \frac{\Gamma(y + r)}{\Gamma(r)\, y!} + r \log \frac{r}{r + \mu}
              + y \log \frac{\mu}{r + \mu}

    Their variance is mu + mu^2 / r with the total count r; for r -> infinity they are Poisson.

    Args:
        targets: number of targets; None for targets of any shape, which share one learned r.
        total_count: "learned" (the parameter ``log_total_count``, [targets]), a number (fixed), or
            "outputs": the network gives log rates and log total counts.
        init_total_count: the learned total count at the start.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Hilbe, "Negative binomial regression" (2011, doi:10.1017/CBO9780511973420), chapter 5.

    Example:
        >>> import torch
        >>> head = NegativeBinomial(1, total_count=1.0)  # geometric
        >>> head.log_prob(torch.zeros(1, 1), torch.tensor([[3.0]]))  # -4 log 2
        tensor([-2.7726])
    """

    def __init__(
        self,
        targets: int | None = 1,
        *,
        total_count: float | str = "learned",
        init_total_count: float = 1.0,
    ) -> None:
        super().__init__(targets)
        self.parts = ("log rates",)
        self.total_count_from: float | str
        if isinstance(total_count, str):
            choices = ("learned", "outputs")
            self.total_count_from = _checks.choice("total_count", total_count, choices)
        else:
            self.total_count_from = _checks.number("total_count", total_count, above=0.0)
        self.init_total_count = _checks.number("init_total_count", init_total_count, above=0.0)
        if total_count == "outputs":
            self.parts = ("log rates", "log total counts")
        if total_count == "learned":
            shape = () if self.targets is None else (self.targets,)
            self.log_total_count = nn.Parameter(torch.empty(shape))
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set learned total counts to ``init_total_count``."""
        if self.total_count_from == "learned":
            self.log_total_count.fill_(math.log(self.init_total_count))

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` holds other than whole numbers >= 0 (eager, on the CPU)."""
        _check_counts(name, y, "negative_binomial")

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the means."""
        return self.split(output, dim)[0].exp()

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return counts, see :meth:`Likelihood.sample`: Poisson ones with rates of a gamma law."""
        seed = int(_checks.seed(seed, output.device).item())
        generator = torch.Generator(output.device).manual_seed(seed)
        log_rate, log_total_count = self._parameters_of(wide(output.detach()), dim)
        total = log_total_count.detach().expand(log_rate.shape).exp()
        gamma = standard_gamma(total, generator=generator)
        rate = gamma * (log_rate - log_total_count.detach()).exp()
        return torch.poisson(rate, generator).to(output.dtype)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of each target, of :mod:`bslfast.distributions`."""
        return bd.NegativeBinomial(*self._parameters_of(output, dim), validate_args=False)

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64."""
        parameters = self._parameters_of(self._check_samples(samples), -1)
        _check_targets(y, (samples.shape[1], parameters[0].shape[2]))
        return at_most_and_more(*parameters, y)[0].mean(0)

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return quantiles of the mixture: whole numbers, as :class:`Poisson` has them."""
        parameters = self._parameters_of(self._check_samples(samples), -1)
        rate = parameters[0].detach().double().exp()
        lower = _least_count(rate, lambda n: at_most_and_more(*parameters, n)[0].mean(0) >= tail)
        upper = _least_count(rate, lambda n: at_most_and_more(*parameters, n)[1].mean(0) <= tail)
        return lower.to(samples.dtype), upper.to(samples.dtype)

    def extra_repr(self) -> str:
        """Show the number of targets and where the total count comes from."""
        return f"targets={self.targets}, total_count={self.total_count_from!r}"

    def _parameters_of(self, output: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Log rates, and log total counts that broadcast with them."""
        log_rate, *others = self.split(output, dim)
        return log_rate, others[0] if others else self._own(log_rate)

    def _widened(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # A total count of its own has more digits than 16 bits hold.
        return wide(output), wide(y)

    def _own(self, log_rate: Tensor) -> Tensor:
        if self.total_count_from == "learned":
            return self.log_total_count.to(log_rate.dtype)
        return log_rate.new_full((), math.log(float(self.total_count_from)))

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        log_rate, *others = parameters
        total = others[0] if others else self._own(log_rate)
        return BF.negative_binomial_log_prob(y, log_rate, total, reduction=reduction)


class Categorical(Likelihood):
    """Class labels; the network outputs one logit per class.

    In an autoencoder the labels of an example may have any shape, see :class:`bslfast.vae.VAE`.

    Args:
        classes: number of classes, at least 2.

    Example:
        >>> import torch
        >>> Categorical(2).log_prob(torch.zeros(1, 2), torch.tensor([0]))  # -log 2
        tensor([-0.6931])
    """

    parts = ("logits",)
    kind = "classes"

    def __init__(self, classes: int = 2) -> None:
        super().__init__(_checks.integer("classes", classes, 2))
        self.classes = int(classes)

    def n_outputs(self, targets: int) -> int:
        """Return ``targets``, here the number of classes."""
        return _checks.integer("targets", targets, 2)

    def log_prob(self, output: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the log probability of the true classes, shape [..., batch].

        Args:
            output: logits, [..., batch, classes].
            y: class indices, int64, [batch]. An index outside [0, classes) raises on the CPU and
                gives NaN elsewhere, where looking would wait for the device.
            mask: bool, [batch]: False where the label is missing, whatever index stands there; its
                log probability is 0.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        check_outputs(output, self.classes)
        if mask is None:
            _checks.class_indices("y", y, self.classes, output.shape[-2])
            return BF.categorical_log_prob(y, output)
        y = observed("y", _checks.tensor("y", y), mask, 0)
        _checks.class_indices("y", y, self.classes, output.shape[-2])
        output = torch.where(mask.unsqueeze(-1), output, 0.0)
        return torch.where(mask, BF.categorical_log_prob(y, output), 0.0)

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise TypeError or ValueError unless ``y`` has class indices (looked at on the CPU)."""
        _checks.class_indices(name, y, self.classes)

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the class probabilities."""
        return output.softmax(dim)

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return class indices, int64, without the dimension of the classes."""
        output = output.detach()
        zero = output.new_zeros(())
        # The largest of logits with Gumbel's noise is that of a class with its probability.
        noisy = BF.gumbel_rsample(output, zero, parametrization="log_scale", seed=seed)
        return noisy.argmax(dim)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of the labels, of :mod:`bslfast.distributions`."""
        return bd.Categorical(output.movedim(dim, -1), validate_args=False)

    def predictive(self, samples: Tensor) -> Predictive:
        """Class probabilities and the two parts of their entropy, in nats.

        ``mean`` [batch, classes] are the probabilities averaged over the samples, ``aleatoric``
        [batch] is the expected entropy and ``epistemic`` [batch] the mutual information between
        label and weights; their sum is the entropy of ``mean``.
        """
        probabilities = self.probabilities(samples)
        mean = probabilities.mean(0)
        aleatoric = torch.special.entr(probabilities).sum(-1).mean(0)
        total = torch.special.entr(mean).sum(-1)
        return Predictive(mean, aleatoric, (total - aleatoric).clamp_min(0))

    def probabilities(self, samples: Tensor) -> Tensor:
        """Return the class probabilities of each sample, [samples, batch, classes]."""
        check_outputs(check_samples(samples), self.classes)
        return samples.softmax(-1)

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return empirical quantiles of the class probabilities, each [batch, classes].

        They run over the samples of the weights: the interval says how well the probabilities are
        known (epistemic), not where the label will fall.
        """
        return _quantiles(self.probabilities(samples), tail)

    def extra_repr(self) -> str:
        """Show the number of classes."""
        return f"classes={self.classes}"


def _quantiles(probabilities: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """The quantiles at ``tail`` and 1 - ``tail`` over the samples."""
    wide_ones = probabilities.double()
    lower, upper = wide_ones.quantile(tail, dim=0), wide_ones.quantile(1 - tail, dim=0)
    return lower.to(probabilities.dtype), upper.to(probabilities.dtype)


def _check_counts(name: str, y: Tensor, law: str) -> None:
    """Raise ValueError for other than whole numbers >= 0, where they can be read."""
    if check_range(name, y, law) and not torch.equal(y, y.floor()):
        first = y[y != y.floor()][0].item()
        raise ValueError(
            f"{name}: expected whole numbers for likelihood {law!r}, "
            f"got {_checks.shown(first, round(first))}"
        )


def _at_most(rate: Tensor, n: Tensor) -> Tensor:
    """P(count <= n) under the mixture of Poisson distributions."""
    n = n.floor()
    chance = torch.special.gammaincc(n.clamp_min(0) + 1, rate).mean(0)
    return torch.where(n < 0, 0.0, chance)


def _more_than(rate: Tensor, n: Tensor) -> Tensor:
    """P(count > n) under the mixture of Poisson distributions."""
    chance = torch.special.gammainc(n.clamp_min(0) + 1, rate).mean(0)
    return torch.where(n < 0, 1.0, chance)


def _least_count(rate: Tensor, reached: Callable[[Tensor], Tensor]) -> Tensor:
    """The smallest count that has ``reached`` what larger ones have too; NaN beyond 2^53."""
    low = rate.new_full(rate.shape[1:], -1.0)
    high = rate.amax(0).ceil().clamp(1.0, 2.0**53)
    for _ in range(54):
        short = ~reached(high) & (high < 2.0**53)
        if not bool(short.any()):
            break
        low, high = torch.where(short, high, low), torch.where(short, 2 * high, high)
    for _ in range(55):
        if bool((high - low <= 1).all()):
            break
        middle = torch.floor(0.5 * (low + high))
        enough = reached(middle)
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.where(reached(high), high, math.nan)
