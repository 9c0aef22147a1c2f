"""Predictions with their uncertainty, by averaging over the posterior of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bslfast import _checks
from bslfast.likelihoods import Likelihood
from bslfast.nn import BayesianModule
from bslfast.nn import sample_outputs as draw_outputs

if TYPE_CHECKING:
    from bslfast.data import Standardizer

__all__ = ["Prediction", "predict"]

# Modules of torch that hold the model as ``module``.
_WRAPPERS = (AveragedModel, nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution at a batch of inputs, as :func:`predict` returns it.

    Regression (normal likelihoods): a mixture of normals, one for each sample of the weights.
    Classification: the class probabilities averaged over the samples. Where [batch, ...] is said,
    here and below, the network's outputs may have any leading dimensions in the place of the batch.

    Attributes:
        mean: regression: predictive mean [batch, targets]; classification: class probabilities
            [batch, classes].
        aleatoric: regression: square root of the mean noise variance [batch, targets], in the
            unit of the targets; classification: expected entropy [batch], nats.
        epistemic: regression: standard deviation of the sampled means [batch, targets];
            classification: mutual information between label and weights [batch], nats.
        samples: the outputs of the network, [samples, batch, outputs], as it gave them (not
            rescaled by ``target_scaler``).
        likelihood: what the outputs mean.
        target_scaler: the scaling of the targets that has been undone, if any.
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor
    samples: Tensor
    likelihood: Likelihood
    target_scaler: Standardizer | None = None

    @torch.no_grad()
    def log_prob(self, y: Tensor) -> Tensor:
        """Return the log predictive probability (density) of ``y``, [batch], in nats.

        .. math:: \\log \\frac{1}{S} \\sum_{s=1}^{S} p(y | x, w_s)

        Args:
            y: the targets, shaped and typed as in training, in their original unit.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        log_scale: Tensor | float = 0.0
        y = self._rows(y)
        if self.target_scaler is not None:
            y = self.target_scaler.transform(y)
            log_scale = self.target_scaler.scale.log().sum().to(y.device)
        log_prob = self.likelihood.log_prob(_rows_of(self.samples), y)
        return _shaped_like(
            self.samples, log_prob.logsumexp(0) - (math.log(len(self.samples)) + log_scale)
        )

    @torch.no_grad()
    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Return the lower and the upper end of the central interval at ``level``.

        Regression: exact quantiles of the predictive mixture, each [batch, targets]: the interval
        a new target falls into with probability ``level``. Classification: quantiles of the class
        probabilities over the samples of the weights, each [batch, classes]: how well the
        probabilities are known.

        Args:
            level: a number in (0, 1).

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        lower, upper = self.likelihood.interval(_rows_of(self.samples), level)
        if self.target_scaler is not None:
            lower, upper = self.target_scaler.inverse(lower), self.target_scaler.inverse(upper)
        return _shaped_like(self.samples, lower), _shaped_like(self.samples, upper)

    @torch.no_grad()
    def cdf(self, y: Tensor) -> Tensor:
        """Return P(target <= y), [batch, targets], in float64; regression only.

        At the observed targets these are uniform numbers if the predictions are calibrated.

        Raises:
            TypeError, ValueError: for a classification, or naming what is wrong with ``y``.
        """
        y = self._rows(y)
        if self.target_scaler is not None:
            y = self.target_scaler.transform(y)
        return _shaped_like(self.samples, self.likelihood.cdf(_rows_of(self.samples), y))

    def _rows(self, y: Tensor) -> Tensor:
        """``y`` with the leading dimensions of the outputs as one; the likelihood checks it."""
        leading = self.samples.shape[1:-1]
        if len(leading) == 1:
            return y
        _checks.tensor("y", y)
        if y.shape[: len(leading)] != leading:
            raise ValueError(
                f"y: expected the leading dimensions of the predictions, {tuple(leading)}, got "
                f"{_checks.describe(y)}"
            )
        return y.reshape(math.prod(leading), *y.shape[len(leading) :])


def _rows_of(samples: Tensor) -> Tensor:
    """Outputs [samples, ..., outputs] as [samples, rows, outputs]."""
    if samples.ndim < 2 or samples.ndim == 3:
        return samples
    return samples.reshape(len(samples), math.prod(samples.shape[1:-1]), samples.shape[-1])


def _shaped_like(samples: Tensor, result: Tensor) -> Tensor:
    """What has been computed from :func:`_rows_of` samples, with their own dimensions."""
    return result.reshape((*samples.shape[1:-1], *result.shape[1:]))


@torch.no_grad()
def predict(
    model: nn.Module,
    x: Tensor,
    n_samples: int = 100,
    *,
    seed: int | None = None,
    likelihood: Likelihood | None = None,
    target_scaler: Standardizer | None = None,
) -> Prediction:
    """Predict at ``x`` with ``n_samples`` draws of the weights.

    The model runs in evaluation mode and without gradients; its mode is put back afterwards.
    Every draw of the weights serves the whole batch. A deterministic model works too: its
    epistemic part is 0, and one sample is enough.

    Args:
        model: a network, also inside AveragedModel, DataParallel, DistributedDataParallel or
            ``torch.compile``; if it has a method ``sample_outputs(x, n_samples)`` that returns
            [samples, batch, outputs] it is used, for others with Bayesian layers
            :func:`bslfast.nn.sample_outputs`; else the model is called ``n_samples`` times.
        x: inputs, as the model takes them: predictions have all dimensions of its outputs.
        n_samples: number of draws, at least 1. The error of the mean from the finite number is
            ``epistemic / sqrt(n_samples)``.
        seed: makes the draws repeatable and leaves torch's generators as they were; ``None`` draws
            from them.
        likelihood: what the outputs mean; ``None`` takes ``model.likelihood``.
        target_scaler: the Standardizer applied to the targets in training. Then mean, aleatoric,
            epistemic, ``log_prob`` and ``interval`` are in the original unit of the targets.
            Regression only.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> import torch
        >>> from bslfast.likelihoods import Normal
        >>> prediction = predict(torch.nn.Identity(), torch.zeros(3, 1), 5, likelihood=Normal(1))
        >>> prediction.mean.shape, prediction.epistemic.max().item()
        (torch.Size([3, 1]), 0.0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    _checks.tensor("x", x)
    _checks.integer("n_samples", n_samples)
    if seed is not None:
        _checks.generator_seed(seed)
    likelihood = likelihood_of(model, likelihood)
    if target_scaler is not None and not likelihood.continuous:
        raise ValueError(
            "target_scaler: expected None for class labels, counts and numbers in [0, 1], "
            "got a Standardizer"
        )

    with evaluating(model), seeded(seed, x.device):
        sample_outputs = _inside(model, "sample_outputs")
        if sample_outputs is not None:
            samples = _checks.tensor("model.sample_outputs", sample_outputs(x, n_samples))
            if samples.ndim < 2 or len(samples) != n_samples:
                raise ValueError(
                    f"model.sample_outputs: expected a tensor of shape [{n_samples}, ..., "
                    f"outputs], got {_checks.describe(samples)}"
                )
        elif _takes_draws(model):
            samples = draw_outputs(model, x, n_samples=n_samples)
        else:
            outputs = (
                _checks.tensor("model", model(x), "a module that returns a tensor")
                for _ in range(n_samples)
            )
            samples = torch.stack(list(outputs))
    mean, aleatoric, epistemic = likelihood.predictive(_rows_of(samples))
    if target_scaler is not None:
        scale = target_scaler.scale.to(mean.device)
        mean = target_scaler.inverse(mean)
        aleatoric, epistemic = aleatoric * scale, epistemic * scale
    parts = (mean, aleatoric, epistemic)
    mean, aleatoric, epistemic = (_shaped_like(samples, part) for part in parts)
    return Prediction(mean, aleatoric, epistemic, samples, likelihood, target_scaler)


def _inside(model: nn.Module, name: str) -> Any:
    """The attribute ``name`` of a model, or of what torch has wrapped; None if there is none."""
    held: nn.Module | None = model
    while held is not None and not hasattr(held, name):
        wraps = isinstance(held, _WRAPPERS)
        # What torch.compile returns has a type whose import takes seconds.
        held = held.module if wraps else held._modules.get("_orig_mod")  # type: ignore[assignment]
    return getattr(held, name, None)


def _takes_draws(model: nn.Module) -> bool:
    """Whether draws of the weights can be put into a model: not into copies, or compiled code."""
    modules = list(model.modules())
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return any(isinstance(m, BayesianModule) for m in modules) and not any(
        isinstance(m, parallel) or "_orig_mod" in m._modules for m in modules
    )


def likelihood_of(model: nn.Module, likelihood: Likelihood | None) -> Likelihood:
    """Return ``likelihood``, or else the model's own; raise if neither is a Likelihood."""
    found = _inside(model, "likelihood") if likelihood is None else likelihood
    if not isinstance(found, Likelihood):
        raise TypeError(
            "likelihood: expected a bslfast.likelihoods.Likelihood, as the argument or as "
            f"model.likelihood, got {_checks.describe(found)}"
        )
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` into evaluation mode inside the block, and back after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the block and put them back after it; None does nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
