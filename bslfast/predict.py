"""Predictions with their uncertainty, by averaging over the posterior of the weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bslfast import _checks
from bslfast._networks import evaluating as evaluating
from bslfast._networks import most_bytes, set_states, states
from bslfast._progress import bar
from bslfast._torch import COMPILED_FROM, own_modules
from bslfast.likelihoods import Likelihood
from bslfast.nn import BayesianModule
from bslfast.nn.module import bayesian_layers
from bslfast.nn.samples import outputs_of

if TYPE_CHECKING:
    from bslfast.data import Standardizer

__all__ = ["Prediction", "predict"]

# Modules of torch that hold the model as ``module``.
_WRAPPERS = (AveragedModel, nn.DataParallel, nn.parallel.DistributedDataParallel)
# What is used of a Standardizer, a class that is not to be imported here.
_SCALER = ("mean", "scale", "transform", "inverse")


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
    def log_prob(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the log predictive probability (density) of ``y``, [batch], in nats.

        .. math:: \\log \\frac{1}{S} \\sum_{s=1}^{S} p(y | x, w_s)

        Args:
            y: the targets, shaped and typed as in training, in their original unit.
            mask: bool, shaped like ``y``: False where a target is missing and adds nothing.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        log_scale: Tensor | float = 0.0
        y = self._rows(y)
        mask = None if mask is None else self._rows(mask, "mask")
        if self.target_scaler is not None:
            y = self._scaled(y, self.target_scaler)
            each = self.target_scaler.scale.log().to(y.device)
            log_scale = each.sum() if mask is None else torch.where(mask, each, 0.0).sum(-1)
        log_prob = self.likelihood.log_prob(_rows_of(self.samples), y, mask)
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
        return self._placed(lower), self._placed(upper)

    @torch.no_grad()
    def quantile(self, q: float) -> Tensor:
        """Return the quantile at ``q``: an end of an :meth:`interval`, of the same shape.

        .. math:: \\min \\{ y : P(target \\le y) \\ge q \\}

        Regression: the quantile of the predictive mixture. Classification: that of each class
        probability over the samples of the weights.

        Args:
            q: a number in (0, 1); 0.5 is the median.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        Example:
            >>> from bslfast.likelihoods import Normal
            >>> model, likelihood = torch.nn.Identity(), Normal(1, scale=2.0)
            >>> prediction = predict(model, torch.ones(1, 1), 1, likelihood=likelihood)
            >>> prediction.quantile(0.5), prediction.quantile(0.975)  # 1 + 2 * 1.96
            (tensor([[1.]]), tensor([[4.9199]]))
        """
        q = _checks.number("q", q, above=0.0, below=1.0)
        lower, upper = self.likelihood.ends(_rows_of(self.samples), min(q, 1 - q))
        return self._placed(lower if q <= 0.5 else upper)

    def _placed(self, y: Tensor) -> Tensor:
        """Targets from the likelihood in their own unit, with the leading dimensions of outputs."""
        if self.target_scaler is not None:
            y = self.target_scaler.inverse(y.to(self.target_scaler.mean.dtype))
        return _shaped_like(self.samples, y)

    def _scaled(self, y: Tensor, scaler: Standardizer) -> Tensor:
        """Targets as the network has them: the scaling may have more digits."""
        return scaler.transform(y).to(self.samples.dtype)

    @torch.no_grad()
    def cdf(self, y: Tensor) -> Tensor:
        """Return P(target <= y), [batch, targets], in float64; regression only.

        At the observed targets these are uniform numbers if the predictions are calibrated and the
        targets have a density; of others see :meth:`pit`.

        Raises:
            TypeError, ValueError: for a classification, or naming what is wrong with ``y``.
        """
        y = self._in_training(y)
        return _shaped_like(self.samples, self.likelihood.cdf(_rows_of(self.samples), y))

    @torch.no_grad()
    def pit(self, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return P(target < y) and P(target <= y), each [batch, targets], in float64.

        .. math:: u = P(target < y) + v\, P(target = y), \quad v \sim U(0, 1)

        is uniform in [0, 1] if the predictions are calibrated, whether targets have a density, so
        that both ends are the same, or are counts.

        Args:
            y: observed targets, in their original unit.

        Raises:
            TypeError, ValueError: for binary targets and classes, or naming what is wrong with
                ``y``.

        Source: Czado, Gneiting and Held, "Predictive model assessment for count data" (2009,
        doi:10.1111/j.1541-0420.2009.01191.x), section 2.

        Example:
            >>> from bslfast.likelihoods import Poisson
            >>> model, likelihood = torch.nn.Identity(), Poisson(1)
            >>> prediction = predict(model, torch.zeros(1, 1), 1, likelihood=likelihood)
            >>> below, at_most = prediction.pit(torch.ones(1, 1))  # 1 / e and 2 / e
            >>> round(below.item(), 4), round(at_most.item(), 4)
            (0.3679, 0.7358)
        """
        below, at_most = self.likelihood.pit(_rows_of(self.samples), self._in_training(y))
        return _shaped_like(self.samples, below), _shaped_like(self.samples, at_most)

    def _in_training(self, y: Tensor) -> Tensor:
        """Targets as rows, and as the network has them."""
        y = self._rows(y)
        return y if self.target_scaler is None else self._scaled(y, self.target_scaler)

    def _rows(self, y: Tensor, name: str = "y") -> Tensor:
        """``y`` with the leading dimensions of the outputs as one; the likelihood checks it."""
        leading = self.samples.shape[1:-1]
        if len(leading) == 1:
            return y
        _checks.tensor(name, y)
        if y.shape[: len(leading)] != leading:
            raise ValueError(
                f"{name}: expected the leading dimensions of the predictions, {tuple(leading)}, "
                f"got {_checks.describe(y)}"
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
    max_bytes: int | None = None,
    progress: bool = False,
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
            epistemic, ``log_prob`` and ``interval`` are in the original unit of the targets, and in
            the scaler's dtype: float64 keeps the digits of large targets that differ little.
            Regression only.
        max_bytes: most memory for the values inside the network, in bytes; ``None`` sets no limit.
            The rows of x, along its first dimension, then go through the network in blocks, of at
            least one row. Every block has the same draws: results differ by rounding alone. (Noise
            for each row, that a model draws, repeats from block to block.) The sizes of the values
            are taken from a pass of one row. The weights that are drawn, the outputs for all rows
            and draws, and about as much again for their moments come on top. Sequences are cut only
            if the batch is their first dimension: ``batch_first=True`` in recurrent layers and
            attention.
        progress: show a progress bar on standard error.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; a model for
            which x has to be cut though its first dimension is the length of sequences.
        ModuleNotFoundError: for a progress bar without tqdm.

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
    if max_bytes is not None:
        _checks.integer("max_bytes", max_bytes)
    _checks.flag("progress", progress)
    if not (target_scaler is None or all(hasattr(target_scaler, name) for name in _SCALER)):
        raise TypeError(
            "target_scaler: expected None or a bslfast.data.Standardizer, got "
            f"{_checks.describe(target_scaler)}"
        )
    likelihood = likelihood_of(model, likelihood)
    if target_scaler is not None and not likelihood.continuous:
        raise ValueError(
            "target_scaler: expected None for class labels, counts and numbers in [0, 1], "
            "got a Standardizer"
        )

    with evaluating(model), seeded(seed, x.device):
        samples = _sample(model, x, n_samples, max_bytes, progress)
    mean, aleatoric, epistemic = likelihood.predictive(_rows_of(samples))
    if target_scaler is not None:
        scale = target_scaler.scale.to(mean.device)
        mean = target_scaler.inverse(mean.to(scale.dtype))
        aleatoric, epistemic = aleatoric * scale, epistemic * scale
    parts = (mean, aleatoric, epistemic)
    mean, aleatoric, epistemic = (_shaped_like(samples, part) for part in parts)
    return Prediction(mean, aleatoric, epistemic, samples, likelihood, target_scaler)


def _sample(
    model: nn.Module, x: Tensor, n_samples: int, max_bytes: int | None, progress: bool
) -> Tensor:
    """Outputs [n_samples, batch, ...], for the same draws at all rows of x."""
    sample_outputs = _inside(model, "sample_outputs")
    if sample_outputs is None and _takes_draws(model):
        sample_outputs = functools.partial(_draws, model, x)
    passes = n_samples if sample_outputs is None else 1
    blocks: Sequence[Tensor] = (x,)
    if max_bytes is not None and x.ndim and len(x):
        bytes_of_a_row, sequential = _of_a_row(model, x)
        rows = max_bytes // max(1, n_samples // passes * bytes_of_a_row)
        blocks = x.split(max(1, rows))
        if len(blocks) > 1 and sequential is not None:
            raise ValueError(
                "max_bytes: expected a model whose x has the batch first, as it would be cut into "
                f"{len(blocks)} blocks of rows, got one with a {sequential}: batch_first=True, or "
                "calls with a part of the batch each, or None, which does not cut"
            )
    start = states(x.device) if len(blocks) > 1 else ()
    outputs = []
    with bar(len(blocks) * passes, progress, desc="predicting", unit="pass") as shown:
        for block in blocks:
            set_states(x.device, start)
            drawn = []
            for _ in range(passes):
                if sample_outputs is None:
                    output = _checks.tensor("model", model(block), "a module that returns a tensor")
                    drawn.append(output)
                else:
                    drawn.append(_checked(sample_outputs(block, n_samples), n_samples))
                if shown is not None:
                    shown.update()
            outputs.append(torch.stack(drawn) if sample_outputs is None else drawn[0])
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _draws(model: nn.Module, whole: Tensor, x: Tensor, n_samples: int) -> Tensor:
    """Outputs for the rows x of the ``whole`` ones, of the same draws for all of them."""
    return outputs_of(model, bayesian_layers(model), (x,), {}, n_samples, (whole,))


def _checked(samples: Any, n_samples: int) -> Tensor:
    """What a model's own ``sample_outputs`` has returned."""
    _checks.tensor("model.sample_outputs", samples)
    if samples.ndim < 2 or len(samples) != n_samples:
        raise ValueError(
            f"model.sample_outputs: expected a tensor of shape [{n_samples}, ..., outputs], got "
            f"{_checks.describe(samples)}"
        )
    checked: Tensor = samples
    return checked


def _of_a_row(model: nn.Module, x: Tensor) -> tuple[int, str | None]:
    """The most bytes that go into and come out of one of the model's modules for a row of x.

    And which of them has the length of sequences before the batch, or has no batch, if one has.
    """
    *_, inner = _wrapped(model)  # hooks inside what torch.compile returns may not be called
    batch_first = {m: getattr(m, "batch_first", None) for m in inner.modules()}
    kinds = [type(m).__name__ for m, first in batch_first.items() if first is False]
    sequential = f"{kinds[0]} with batch_first=False" if kinds else None

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal sequential
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 2:
            sequential = sequential or f"{type(module).__name__} for one sequence without a batch"

    hooks = [
        module.register_forward_pre_hook(look)
        for module, first in batch_first.items()
        if first is not None
    ]
    try:
        most, _ = most_bytes(inner, lambda: inner(x[:1]), x.device)
    finally:
        for hook in hooks:
            hook.remove()
    return most, sequential


def _wrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The model, then what is inside it if torch has wrapped it."""
    held: nn.Module | None = model
    while held is not None:
        yield held
        wraps = isinstance(held, _WRAPPERS)
        # What torch.compile returns has a type whose import takes seconds.
        held = held.module if wraps else own_modules(held).get(COMPILED_FROM)  # type: ignore[assignment]


def _inside(model: nn.Module, name: str) -> Any:
    """The attribute ``name`` of a model, or of what torch has wrapped; None if there is none."""
    return next((getattr(held, name) for held in _wrapped(model) if hasattr(held, name)), None)


def _takes_draws(model: nn.Module) -> bool:
    """Whether draws of the weights can be put into a model: not into copies, or compiled code."""
    modules = list(model.modules())
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return any(isinstance(m, BayesianModule) for m in modules) and not any(
        isinstance(m, parallel) or COMPILED_FROM in own_modules(m) for m in modules
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
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the block and put them back after it; None does nothing."""
    if seed is None:
        yield
        return
    if device.type == "cpu":
        # torch.manual_seed() takes 1 ms to note, with a traceback, what is left to do for CUDA.
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(state)
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
