"""The training loop."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast.elbo import negative_elbo
from bslfast.likelihoods import Likelihood
from bslfast.nn import BayesianModule, kl
from bslfast.predict import evaluating, likelihood_of, predict, seeded
from bslfast.training import checkpoint as ckpt

# Weight samples of one validation score. The seed is fixed, so they are the same in every epoch:
# scores of two epochs differ by the weights' posterior and not by luck.
VALIDATION_SAMPLES = 16
# Small networks finish an epoch in less time than a file takes to reach the disk.
SECONDS_BETWEEN_CHECKPOINTS = 1.0
# Validation examples that an objective scores at a time.
_SCORED = 1024
SCHEDULES = ("constant", "cosine")
# Adam's state of each parameter.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

# Takes the model and the tensors of a mini-batch; see :func:`fit`.
Objective = Callable[..., "Tensor | tuple[Tensor, Tensor]"]


@dataclass
class History:
    """The course of a training run, with one number per epoch in each list.

    Attributes:
        loss: negative ELBO per training example, nats, averaged over the epoch's mini-batches.
        kl: KL divergence of the whole model at the end of the epoch, nats (not per example). For
            an objective that returns a divergence, it is that divergence's average per example
            over the epoch.
        validation_log_likelihood: mean log predictive density of the validation examples, nats.
            With an objective it is the objective's mean. Empty without validation data.
        best_epoch: the epoch (from 1) whose weights the model holds after training.
        stopped_early: whether the patience ran out before the last epoch.
        steps: optimiser steps done.
        seconds: wall-clock time of training, checkpoints and validation included; a resumed run
            counts the parts before it.
    """

    loss: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    validation_log_likelihood: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False
    steps: int = 0
    seconds: float = 0.0


def fit(
    model: nn.Module,
    train: Sequence[Tensor],
    validation: Sequence[Tensor] | None = None,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-2,
    schedule: str = "constant",
    patience: int | None = None,
    beta: float = 1.0,
    seed: int = 0,
    device: torch.device | str | None = None,
    likelihood: Likelihood | None = None,
    objective: Objective | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
) -> History:
    """Train ``model`` in place by Adam on the negative ELBO of shuffled mini-batches.

    The loss of a mini-batch is
    ``negative_elbo(likelihood.log_prob(model(x), y), kl(model), dataset_size=len(train), beta)``.
    A model without Bayesian layers has no KL and trains by maximum likelihood. After each epoch
    the validation examples are scored by their mean log predictive density. The model ends with
    the weights of the epoch that scored best, or of the last one without validation data.

    A run is repeatable: ``seed`` sets the order of the examples and the noise, and torch's global
    generators are left as they were. Resuming gives bit for bit the weights that an uninterrupted
    run would have given, on the same machine.

    Args:
        model: any module; its parameters are trained, and those of ``likelihood``.
        train: inputs [rows, ...] and targets [rows, ...]; for an objective any number of tensors.
        validation: held-out tensors like ``train``; ``None`` scores nothing.
        epochs: total number of passes over the training data, including those before a resume.
        batch_size: examples per step; the last batch of an epoch may be smaller.
        lr: Adam's learning rate.
        schedule: course of the learning rate. "constant" keeps ``lr``. "cosine" lowers it at every
            step along half a cosine, to 0 at the end of ``epochs``.
        patience: stop after this many epochs without a better validation score; ``None`` never.
        beta: weight of the KL, see :func:`bslfast.negative_elbo`.
        seed: a non-negative integer.
        device: where to train, such as "cpu" or "cuda". The model is moved there, and the data are
            copied once. ``None`` takes the model's device.
        likelihood: law of the targets given the outputs; ``None`` takes ``model.likelihood``.
        objective: function for models of x alone, called as ``objective(model, *batch)``. It
            returns the log likelihood of each example [batch], or a lower bound of it, instead of
            ``likelihood.log_prob(model(x), y)``. It may return a pair: the bound, and a divergence
            [batch] that the bound contains, for the record. Its mean scores validation examples.
        checkpoint: a safetensors file, written between epochs, at most once a second, and at the
            end. The file is always whole, whatever interrupts the run.
        resume: go on from ``checkpoint``. It must come from the same model, data and settings
            (``patience`` may differ, and ``epochs`` if the schedule is constant).
        progress: show a progress bar on standard error.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came, also for NaN or
            infinity in the data. ValueError names the file if a checkpoint cannot be read, is of
            another run, or holds values that this run could not have written.
        FileNotFoundError: if there is no checkpoint to resume from.
        FloatingPointError: if the loss, the validation score or a weight becomes NaN or infinite;
            the last checkpoint stays.
        KeyboardInterrupt: passed on; the last checkpoint stays.

    Example:
        >>> from bslfast.likelihoods import Normal
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(1)
        >>> model = torch.nn.Linear(1, 1)
        >>> history = fit(model, (x, 2 * x), epochs=300, lr=0.05, likelihood=Normal(1))
        >>> round(model.weight.item(), 1)
        2.0
    """
    run = _Run(model, train, validation, batch_size, lr, beta, seed, device, likelihood, objective)
    run.schedule(schedule, _checks.integer("epochs", epochs))
    if patience is not None:
        _checks.integer("patience", patience)
        if validation is None:
            raise ValueError("patience: expected None without validation data, got a number")
    if resume and checkpoint is None:
        raise ValueError("checkpoint: expected a file to resume from, got None")

    with seeded(seed, run.device):
        if resume and checkpoint is not None:
            run.load(checkpoint)
        started = saved = time.perf_counter() - run.history.seconds
        with _bar(epochs, len(run.history.loss), progress) as bar:
            while len(run.history.loss) < epochs and not run.out_of_patience(patience):
                run.epoch()
                now = time.perf_counter()
                run.history.seconds = now - started
                if checkpoint is not None and now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    run.save(checkpoint)
                    saved = time.perf_counter()
                if bar is not None:
                    bar.set_postfix(run.latest(), refresh=False)
                    bar.update()
        run.history.stopped_early = run.out_of_patience(patience)
        run.check_finite()
        if checkpoint is not None:
            run.save(checkpoint)
    run.restore_best()
    return run.history


class _Run:
    """The state of one training run; everything a checkpoint must hold is in here."""

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[Tensor],
        validation: Sequence[Tensor] | None,
        batch_size: int,
        lr: float,
        beta: float,
        seed: int,
        device: torch.device | str | None,
        likelihood: Likelihood | None,
        objective: Objective | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
        self.batch_size = _checks.integer("batch_size", batch_size)
        self.beta = _checks.number("beta", beta, minimum=0.0)
        # The bits of another number: with the seed itself validation would draw the noise of the
        # first training steps.
        self.validation_seed = _checks.generator_seed(seed) ^ 0x9E3779B97F4A7C15
        _checks.number("lr", lr, above=0.0)
        if device is None:
            parameter = next(model.parameters(), None)
            device = torch.device("cpu") if parameter is None else parameter.device
        self.device = _checks.device("device", device)
        self.objective = objective
        self.likelihood: Likelihood | None = None
        if objective is None:
            self.likelihood = likelihood_of(model, likelihood).to(self.device)
        elif likelihood is not None:
            raise ValueError("likelihood: expected None with an objective, got both")
        self.model = model.to(self.device)
        self.bayesian = any(isinstance(m, BayesianModule) for m in model.modules())
        self.train = _examples("train", train, self.device, objective is None)
        self.validation = None
        if validation is not None:
            self.validation = _examples("validation", validation, self.device, objective is None)
        # A likelihood outside the model is trained and saved together with it.
        self.trained = model
        if self.likelihood is not None and self.likelihood not in set(model.modules()):
            self.trained = nn.ModuleList([model, self.likelihood])
        self.parameters = {k: p for k, p in self.trained.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError("model: expected parameters that require gradients, got none")
        # fused: one kernel for all parameters, 5 to 10 times cheaper than the loop on small nets.
        fused = all(p.is_floating_point() for p in self.parameters.values())
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=lr, fused=fused)
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.last_step: int | None = None  # where a falling learning rate reaches 0
        self.setting: dict[str, Any] = {
            "batch_size": batch_size,
            "lr": lr,
            "beta": beta,
            "seed": seed,
            "device": self.device.type,
        }

    def schedule(self, name: str, epochs: int) -> None:
        """Set the course of the learning rate."""
        _checks.choice("schedule", name, SCHEDULES)
        self.setting["schedule"] = name
        if name == "cosine":
            self.setting["schedule"] = f"cosine over {epochs} epochs"
            self.last_step = epochs * math.ceil(len(self.train[0]) / self.batch_size)

    def epoch(self) -> None:
        """One pass over the training data, then the validation score."""
        self.model.train()
        rows = self.train[0].shape[0]
        order = torch.randperm(rows).to(self.device)
        shuffled = [value[order] for value in self.train]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        contained = torch.zeros_like(total)
        divergence: Tensor | float = 0.0
        for start in range(0, rows, self.batch_size):
            batch = [value[start : start + self.batch_size] for value in shuffled]
            self.optimizer.zero_grad()
            if self.last_step is not None:
                turn = math.pi * self.history.steps / self.last_step
                self.optimizer.param_groups[0]["lr"] = self.setting["lr"] * (1 + math.cos(turn)) / 2
            log_likelihood, part = self.score(batch)
            if self.bayesian:
                divergence = kl(self.model)
            loss = negative_elbo(log_likelihood, divergence, dataset_size=rows, beta=self.beta)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * log_likelihood.shape[0]
            if part is not None:
                contained += part.detach().sum()
            self.history.steps += 1
        if not self.bayesian and self.objective is not None:
            divergence = contained / rows
        loss_value = total.item() / rows
        epoch = len(self.history.loss) + 1
        if not math.isfinite(loss_value):
            raise FloatingPointError(
                f"fit: the loss became {loss_value} in epoch {epoch}; a smaller lr than "
                f"{self.setting['lr']} may help, or scaled inputs and targets"
            )
        self.history.loss.append(loss_value)
        self.history.kl.append(divergence.item() if isinstance(divergence, Tensor) else divergence)
        if self.validation is None:
            self.history.best_epoch = epoch
            return
        scores = self.history.validation_log_likelihood
        score = self.validation_score(self.validation)
        if not math.isfinite(score):
            raise FloatingPointError(
                f"fit: the validation score became {score} in epoch {epoch}, which no other can be "
                f"compared with; a smaller lr than {self.setting['lr']} may help, or scaled inputs "
                "and targets"
            )
        scores.append(score)
        if len(scores) == 1 or scores[-1] > scores[self.history.best_epoch - 1]:
            self.history.best_epoch = epoch
            self.best = {k: v.detach().clone() for k, v in self.trained.state_dict().items()}

    def score(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The log likelihood of each example, and a divergence that it contains, if any."""
        if self.objective is not None:
            scored = self.objective(self.model, *batch)
            return (scored, None) if isinstance(scored, Tensor) else scored
        assert self.likelihood is not None
        x, y = batch
        return self.likelihood.log_prob(self.model(x), y), None

    def validation_score(self, examples: Sequence[Tensor]) -> float:
        """The mean log predictive density, or the mean of the objective."""
        if self.objective is None:
            x, y = examples
            prediction = predict(
                self.model,
                x,
                VALIDATION_SAMPLES,
                seed=self.validation_seed,
                likelihood=self.likelihood,
            )
            return prediction.log_prob(y).mean().item()
        with torch.no_grad(), evaluating(self.model), seeded(self.validation_seed, self.device):
            scored = [
                self.score([value[start : start + _SCORED] for value in examples])[0]
                for start in range(0, len(examples[0]), _SCORED)
            ]
        return torch.cat(scored).double().mean().item()

    def out_of_patience(self, patience: int | None) -> bool:
        epochs = len(self.history.loss)
        return patience is not None and epochs - self.history.best_epoch >= patience

    def restore_best(self) -> None:
        if self.best:
            self.trained.load_state_dict(self.best)

    def latest(self) -> dict[str, str]:
        history = self.history
        shown = {"loss": f"{history.loss[-1]:.4f}"}
        if history.validation_log_likelihood:
            shown["validation"] = f"{history.validation_log_likelihood[-1]:.4f}"
        return shown

    def check_finite(self) -> None:
        """Raise FloatingPointError if the last step left NaN or infinity in weights or moments.

        No loss has been computed from them yet.
        """
        for name, value in self._tensors().items():
            if name.startswith("adam.") or name.partition(".")[2] in self.parameters:
                try:
                    _checks.finite(name, value)
                except ValueError as error:
                    epoch = len(self.history.loss)
                    raise FloatingPointError(f"fit: after epoch {epoch}, {error}") from None

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, by name."""
        model = self.trained.state_dict()
        tensors = {f"model.{k}": v for k, v in model.items()}
        if self.validation is not None:
            tensors |= {f"best.{k}": v for k, v in (self.best or model).items()}
        for name, parameter in self.parameters.items():
            # Adam has no state of a parameter that had no gradient: take its initial state.
            state = self.optimizer.state.get(parameter) or _begin(self.optimizer, parameter)
            tensors |= {f"adam.{key}.{name}": state[key] for key in _MOMENTS}
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def save(self, path: str | os.PathLike[str]) -> None:
        self.check_finite()  # a broken state must not replace one that can be resumed
        content = ckpt.Checkpoint(self._tensors(), self._full_setting(), asdict(self.history))
        ckpt.save(path, content)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take everything from a checkpoint, or raise ValueError and take nothing."""
        tensors, setting, reached = ckpt.load(path)
        ckpt.check_same(path, setting, self._full_setting())
        ckpt.check_tensors(path, tensors, self._tensors())
        steps = math.ceil(len(self.train[0]) / self.batch_size)
        history = _history(path, reached, steps, self.validation is not None)
        for name in self.parameters:
            ckpt.check_range(path, tensors, f"adam.step.{name}", history.steps)
            ckpt.check_range(path, tensors, f"adam.exp_avg_sq.{name}", math.inf)
        ckpt.check_generator(path, tensors, "rng.cpu", torch.device("cpu"))
        if self.device.type == "cuda":
            ckpt.check_generator(path, tensors, "rng.cuda", self.device)
        self.trained.load_state_dict(_with_prefix(tensors, "model."))
        self.best = {k: v.to(self.device) for k, v in _with_prefix(tensors, "best.").items()}
        for name, parameter in self.parameters.items():
            step, *moments = (tensors[f"adam.{key}.{name}"].to(self.device) for key in _MOMENTS)
            # The fused kernel needs moments with the parameter's memory layout.
            moments = [torch.empty_like(parameter).copy_(moment) for moment in moments]
            state = dict(zip(_MOMENTS, (step, *moments), strict=True))
            self.optimizer.state[parameter] = state
        self.history = history
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)

    @functools.cached_property
    def _checksums(self) -> list[int]:
        """Checksums of the training data; each takes a pass over them, and a copy from a device."""
        return [_checksum(value) for value in self.train]

    def _full_setting(self) -> dict[str, Any]:
        """The setting, with entries that identify model and data."""
        shapes = {
            name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for name, value in self.trained.state_dict().items()
        }
        return {
            "the model": str(self.trained),
            "the table of weights": shapes,
            **self.setting,
            "whether there is validation data": self.validation is not None,
            "the shape of the training data": [list(value.shape) for value in self.train],
            "the checksum of the training data": self._checksums,
        }


def _examples(
    name: str, values: Sequence[Tensor], device: torch.device, paired: bool
) -> tuple[Tensor, ...]:
    what = "a pair (x, y)" if paired else "a tuple"
    what += " of tensors with the same number of rows, at least one"
    if not isinstance(values, tuple | list) or (len(values) != 2 if paired else not values):
        raise TypeError(f"{name}: expected {what}, got {_checks.describe(values)}")
    parts = "xy" if paired else range(len(values))
    for part, value in zip(parts, values, strict=True):
        _checks.tensor(f"{name} {part}", value)
    if any(v.ndim == 0 or len(v) != len(values[0]) for v in values) or len(values[0]) == 0:
        got = " and ".join(_checks.describe(value) for value in values)
        raise ValueError(f"{name}: expected {what}, got {got}")
    moved = tuple(value.to(device) for value in values)
    for part, value in zip("xy" if paired else range(len(values)), moved, strict=True):
        _checks.finite(f"{name} {part}", value)
    return moved


def _begin(optimizer: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """The state with which Adam begins."""
    fused = bool(optimizer.param_groups[0]["fused"])
    dtype = torch.float32 if fused else torch.get_default_dtype()
    step = torch.zeros((), dtype=dtype, device=parameter.device if fused else None)
    zeros = parameter.new_zeros(()).expand_as(parameter)
    return dict(zip(_MOMENTS, (step, zeros, zeros), strict=True))


def _history(
    path: str | os.PathLike[str], state: dict[str, Any], steps: int, validated: bool
) -> History:
    """The history in a checkpoint; each of its epochs must have had ``steps`` steps."""

    def expect(good: bool, entry: str, wanted: str) -> None:
        if not good:
            got = repr(state[entry]) if entry in state else "nothing"
            raise ValueError(
                f"checkpoint {path}, {entry}: expected {wanted}, got "
                f"{got if len(got) <= 80 else got[:80] + '...'}"
            )

    known = [f.name for f in fields(History)]
    for entry in known:
        expect(entry in state, entry, "an entry")
    for entry in state:
        expect(entry in known, entry, "no such entry")
    epochs = len(state["loss"]) if isinstance(state["loss"], list) else 0
    expect(epochs > 0, "loss", "a list of numbers")
    for entry in ("loss", "kl", "validation_log_likelihood"):
        n = epochs if validated or entry != "validation_log_likelihood" else 0
        numbers = state[entry]
        good = isinstance(numbers, list) and len(numbers) == n and all(map(_is_number, numbers))
        with_what = "with" if validated else "without"
        expect(good, entry, f"{n} finite numbers for {epochs} epochs {with_what} validation data")
    scores = state["validation_log_likelihood"]
    best = 1 + scores.index(max(scores)) if validated else epochs
    for entry, right in (("steps", epochs * steps), ("best_epoch", best)):
        expect(type(state[entry]) is int and state[entry] == right, entry, f"{right}")
    expect(type(state["stopped_early"]) is bool, "stopped_early", "true or false")
    seconds = state["seconds"]
    expect(_is_number(seconds) and seconds >= 0, "seconds", "a finite number of at least 0")
    return History(**state)


def _is_number(value: Any) -> bool:
    """Whether a value from JSON is a number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _checksum(value: Tensor) -> int:
    return zlib.crc32(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _bar(epochs: int, done: int, show: bool) -> Any:
    """Return a context manager whose value is a tqdm bar, or None."""
    if not show:
        import contextlib

        return contextlib.nullcontext()
    try:
        from tqdm import tqdm
    except ImportError:
        raise ModuleNotFoundError(
            "progress: expected tqdm to be installed for the progress bar: pip install tqdm"
        ) from None
    return tqdm(total=epochs, initial=done, desc="training", unit="epoch", mininterval=0.5)
