"""Likelihoods: what the outputs of a network mean.

A likelihood turns network outputs ``[..., batch, outputs]`` into log probabilities of the observed
targets, and a set of outputs (one for each sample of the weights) into a prediction with its
uncertainty. Each is a small ``nn.Module``; :class:`Normal` has a parameter of its own, which trains
with the network when the likelihood is a submodule of the model.

Log probabilities of 16-bit outputs are computed in float32, and are float32. Under autocast, as
with torch's losses, targets may be float32 where outputs have 16 bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bslfast import _checks
from bslfast._precision import log_dtype, wide

__all__ = ["Categorical", "HeteroscedasticNormal", "Likelihood", "Normal", "Predictive", "get"]

_LOG_2PI = math.log(2 * math.pi)
# Added to softplus(raw): keeps 1 / scale finite in float32 for targets of order one, and is far
# below any noise that standardised data can show.
MIN_SCALE = 1e-4


class Predictive(NamedTuple):
    """What samples of the weights say about new inputs; see :meth:`Likelihood.predictive`."""

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor


class Likelihood(nn.Module):
    """Base class; the subclasses say which distribution the outputs parametrise."""

    def n_outputs(self, targets: int) -> int:
        """Return how many outputs the network needs for ``targets`` targets (or classes)."""
        raise NotImplementedError

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        """Return log p(y | output), shape [..., batch], in nats."""
        raise NotImplementedError

    def predictive(self, samples: Tensor) -> Predictive:
        """Return mean, aleatoric and epistemic parts for outputs [samples, batch, outputs]."""
        raise NotImplementedError

    def interval(self, samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the lower and upper end of the central interval at ``level``."""
        raise NotImplementedError


class _NormalLikelihood(Likelihood):
    """Independent normal targets; a subclass says where the noise scale comes from."""

    def loc_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Split ``output`` [..., batch, outputs] into loc and scale [..., batch, targets]."""
        raise NotImplementedError

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        """Return log N(y; loc, scale), summed over the targets, shape [..., batch].

        Args:
            output: network outputs, [..., batch, n_outputs(targets)], of a floating dtype.
            y: targets, [batch, targets], of the same dtype, or under autocast of float32. A [batch]
                tensor is refused: against [batch, 1] outputs it would broadcast to [batch, batch].

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        loc, scale = self.loc_scale(wide(output))
        _check_targets(y, loc, output.dtype)
        z = (wide(y) - loc) / scale
        terms = z * z + 2 * scale.log() + _LOG_2PI
        log_prob: Tensor = -0.5 * terms.expand(loc.shape).sum(-1)
        return log_prob

    def predictive(self, samples: Tensor) -> Predictive:
        """Moments of the mixture of normals, each [batch, targets].

        ``mean`` is the mean of the sampled locs, ``aleatoric`` the square root of the mean noise
        variance and ``epistemic`` the standard deviation of the sampled locs (over the samples, no
        Bessel correction), so that aleatoric^2 + epistemic^2 is the variance of the mixture. All
        have the unit of the targets.
        """
        loc, scale = self.loc_scale(_check_samples(samples))
        noise = scale.square().expand(loc.shape).mean(0).sqrt()
        return Predictive(loc.mean(0), noise, loc.std(0, correction=0))

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64."""
        loc, scale = self._components(samples)
        _check_targets(y, loc)
        probability: Tensor = torch.special.ndtr((y.double() - loc) / scale).mean(0)
        return probability

    def interval(self, samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the exact central interval of the mixture of normals, each [batch, targets].

        The ends are the quantiles at (1 - level) / 2 and (1 + level) / 2, found on the mixture's
        distribution function by Newton steps that fall back to bisection, in float64.

        Raises:
            TypeError, ValueError: if ``level`` is not a number in (0, 1).
        """
        tail = 0.5 * (1 - _checks.number("level", level, above=0.0, below=1.0))
        loc, scale = self._components(samples)
        # The upper end is the mirrored lower end: near 1 a distribution function has no digits.
        lower, upper = _mixture_quantile(loc, scale, tail), -_mixture_quantile(-loc, scale, tail)
        return lower.to(samples.dtype), upper.to(samples.dtype)

    def _components(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale = self.loc_scale(_check_samples(samples))
        return loc.double(), scale.double().expand(loc.shape)


class Normal(_NormalLikelihood):
    """Normal targets whose noise is learned, one standard deviation per target for all inputs.

    ``scale = softplus(raw_scale) + 1e-4``; the network outputs the locs.

    Args:
        targets: number of targets.
        init_scale: noise standard deviation at the start, in the unit of the targets.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> import torch
        >>> head = Normal(1, init_scale=1.0)
        >>> head.log_prob(torch.zeros(2, 1), torch.zeros(2, 1))
        tensor([-0.9189, -0.9189], grad_fn=<MulBackward0>)
    """

    def __init__(self, targets: int = 1, *, init_scale: float = 1.0) -> None:
        super().__init__()
        self.targets = _checks.integer("targets", targets)
        self.init_scale = _checks.number("init_scale", init_scale, above=MIN_SCALE)
        self.raw_scale = nn.Parameter(torch.empty(targets))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the scale to ``init_scale``."""
        softplus = self.init_scale - MIN_SCALE
        # Inverse softplus: log(exp(s) - 1), written so that neither end overflows or cancels.
        self.raw_scale.fill_(softplus + math.log(-math.expm1(-softplus)))

    @property
    def scale(self) -> Tensor:
        """The noise standard deviation, [targets]."""
        return F.softplus(self.raw_scale) + MIN_SCALE

    def n_outputs(self, targets: int) -> int:
        """Return ``targets``."""
        return _checks.integer("targets", targets)

    def loc_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs and the learned scale [targets]."""
        _check_outputs(output, self.targets)
        return output, self.scale.to(output.dtype)

    def extra_repr(self) -> str:
        """Show the number of targets."""
        return f"targets={self.targets}"


class HeteroscedasticNormal(_NormalLikelihood):
    """Normal targets whose noise depends on the input.

    The network has two outputs for each target: the locs first, then the raw scales, with
    ``scale = softplus(raw) + 1e-4``.

    Args:
        targets: number of targets.

    Example:
        >>> import torch
        >>> head = HeteroscedasticNormal(1)
        >>> head.log_prob(torch.tensor([[0.0, 0.5413]]), torch.zeros(1, 1))  # softplus(.5413) = 1
        tensor([-0.9190])
    """

    def __init__(self, targets: int = 1) -> None:
        super().__init__()
        self.targets = _checks.integer("targets", targets)

    def n_outputs(self, targets: int) -> int:
        """Return ``2 * targets``."""
        return 2 * _checks.integer("targets", targets)

    def loc_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two halves of the outputs as loc and scale."""
        _check_outputs(output, 2 * self.targets)
        loc, raw = output.chunk(2, dim=-1)
        return loc, F.softplus(raw) + MIN_SCALE

    def extra_repr(self) -> str:
        """Show the number of targets."""
        return f"targets={self.targets}"


class Categorical(Likelihood):
    """Class labels; the network outputs one logit per class.

    Args:
        classes: number of classes, at least 2.

    Example:
        >>> import torch
        >>> Categorical(2).log_prob(torch.zeros(1, 2), torch.tensor([0]))  # -log 2
        tensor([-0.6931])
    """

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.classes = _checks.integer("classes", classes, 2)

    def n_outputs(self, targets: int) -> int:
        """Return ``targets``, here the number of classes."""
        return _checks.integer("targets", targets, 2)

    def log_prob(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the log probability of the true classes, shape [..., batch].

        Args:
            output: logits, [..., batch, classes].
            y: class indices, int64, [batch]. An index outside [0, classes) raises on the CPU and
                gives NaN elsewhere, where looking would wait for the device.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        _check_outputs(output, self.classes)
        _checks.class_indices("y", y, self.classes, output.shape[-2])
        log_p: Tensor = wide(output).log_softmax(-1)
        if y.device.type == "cpu":
            index = y.expand(output.shape[:-1]).unsqueeze(-1)
            return log_p.gather(-1, index).squeeze(-1)
        valid = (y >= 0) & (y < self.classes)
        index = torch.where(valid, y, 0).expand(output.shape[:-1]).unsqueeze(-1)
        return torch.where(valid, log_p.gather(-1, index).squeeze(-1), math.nan)

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
        _check_outputs(_check_samples(samples), self.classes)
        return samples.softmax(-1)

    def interval(self, samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return empirical quantiles of the class probabilities, each [batch, classes].

        They run over the samples of the weights: the interval says how well the probabilities are
        known (epistemic), not where the label will fall.

        Raises:
            TypeError, ValueError: if ``level`` is not a number in (0, 1).
        """
        tail = 0.5 * (1 - _checks.number("level", level, above=0.0, below=1.0))
        probabilities = self.probabilities(samples).double()
        lower = probabilities.quantile(tail, dim=0)
        upper = probabilities.quantile(1 - tail, dim=0)
        return lower.to(samples.dtype), upper.to(samples.dtype)

    def extra_repr(self) -> str:
        """Show the number of classes."""
        return f"classes={self.classes}"


NAMES = ("normal", "heteroscedastic_normal", "categorical")


def get(name: str, targets: int) -> Likelihood:
    """Return the likelihood called ``name`` for ``targets`` targets (or classes).

    Args:
        name: "normal", "heteroscedastic_normal" or "categorical".
        targets: number of targets, or of classes for "categorical".

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> get("heteroscedastic_normal", 3).n_outputs(3)
        6
    """
    _checks.choice("likelihood", name, NAMES)
    if name == "normal":
        return Normal(targets)
    if name == "heteroscedastic_normal":
        return HeteroscedasticNormal(targets)
    return Categorical(targets)


def _check_outputs(output: Tensor, width: int) -> None:
    _checks.floating("output", output, None, f"[..., batch, {width}]")
    if output.ndim < 2 or output.shape[-1] != width:
        raise ValueError(
            f"output: expected a floating-point tensor of shape [..., batch, {width}], "
            f"got {_checks.describe(output)}"
        )


def _check_samples(samples: Tensor) -> Tensor:
    _checks.floating("samples", samples, 3, "[samples, batch, outputs]")
    if samples.shape[0] == 0:
        raise ValueError(f"samples: expected at least one, got {_checks.describe(samples)}")
    return samples


def _check_targets(y: Tensor, loc: Tensor, dtype: torch.dtype | None = None) -> None:
    what = f"[batch, targets] = {tuple(loc.shape[-2:])}"
    _checks.floating("y", y, 2, what)
    if y.shape != loc.shape[-2:]:
        raise ValueError(f"y: expected a tensor of shape {what}, got {_checks.describe(y)}")
    if dtype is None or y.dtype == dtype:
        return
    # Under autocast networks return 16 bits for float32 inputs.
    if torch.is_autocast_enabled(y.device.type) and log_dtype(y.dtype) == log_dtype(dtype):
        return
    raise TypeError(f"y: expected the dtype of output, {dtype}, got {_checks.describe(y)}")


def _mixture_quantile(loc: Tensor, scale: Tensor, p: float) -> Tensor:
    """Return the ``p`` quantile of equal-weight mixtures of normals along the first dimension."""
    quantiles = loc + scale * torch.special.ndtri(loc.new_tensor(p))
    # The mixture's quantile lies between the smallest and the largest of its components'.
    low, high = quantiles.amin(0), quantiles.amax(0)
    x: Tensor = quantiles.mean(0)
    tolerance = 1e-12 * scale.amin(0) + 1e-15 * quantiles.abs().amax(0)
    for _ in range(200):  # bisection alone needs about 60; NaN ends the loop through `converged`
        z = (x - loc) / scale
        excess = torch.special.ndtr(z).mean(0) - p
        density = ((-0.5 * z * z).exp() / scale).mean(0) / math.sqrt(2 * math.pi)
        low, high = torch.where(excess < 0, x, low), torch.where(excess < 0, high, x)
        step = x - excess / density
        safe = (step > low) & (step < high)  # also False where the step is NaN or infinite
        following = torch.where(safe, step, 0.5 * (low + high))
        converged = ~((following - x).abs() > tolerance)
        x = following
        if bool(converged.all()):
            break
    return x
