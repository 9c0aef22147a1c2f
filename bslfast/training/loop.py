"""The training loop."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks, programs
from bslfast._progress import bar
from bslfast._torch import has_hooks, optimizer_hooks
from bslfast.elbo import negative_elbo
from bslfast.flows import Flow
from bslfast.functional._op import unwatched
from bslfast.likelihoods import Likelihood
from bslfast.likelihoods.base import observed
from bslfast.likelihoods.lowering import in_rows
from bslfast.nn import BayesianModule, kl, one_draw, parameter_groups
from bslfast.nn.module import share_weights
from bslfast.predict import evaluating, likelihood_of, predict, seeded
from bslfast.training import checkpoint as ckpt
from bslfast.training.optimizers import Optimizer
from bslfast.training.schedules import Schedule
from bslfast.vae import VAE, Autoencoder
from bslfast.vae.decoding import Decoding, objective_steps

# Weight samples of one validation score. The seed is fixed, so they are the same in every epoch:
# scores of two epochs differ by the weights' posterior and not by luck.
VALIDATION_SAMPLES = 16
# Small networks finish an epoch in less time than a file takes to reach the disk.
SECONDS_BETWEEN_CHECKPOINTS = 1.0
# Validation examples that are scored at a time.
_SCORED = 1024
SCHEDULES = ("constant", "cosine")
# About how long one call of a program may take: an interrupt waits for it.
_SECONDS_PER_CALL = 0.25

# Objectives that have programs, and the classes whose they are.
_DECODING: tuple[tuple[Any, type[Decoding]], ...] = (
    (VAE.elbo_and_kl, VAE),
    (Autoencoder.log_likelihood, Autoencoder),
)

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
    optimizer: str = "adam",
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    clip: float | None = None,
    patience: int | None = None,
    beta: float | Schedule = 1.0,
    courses: Mapping[str, Schedule] | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    likelihood: Likelihood | None = None,
    objective: Objective | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    log: Callable[[History], object] | None = None,
) -> History:
    """Train ``model`` in place on the negative ELBO of shuffled mini-batches, by Adam or others.

    The loss of a mini-batch is
    ``negative_elbo(likelihood.log_prob(model(x), y), kl(model), dataset_size=len(train), beta)``.
    A model without Bayesian layers has no KL and trains by maximum likelihood. After each epoch
    the validation examples are scored by their mean log predictive density. The model ends with
    the weights of the epoch that scored best, or of the last one without validation data.

    On the CPU the steps of an epoch are one call without Python in between, the same up to
    rounding, if the model and its likelihood have steps of a program: small networks of dense
    layers, Bayesian or not (``BayesianMLP``, ``nn.Sequential``), flows with
    ``objective=Flow.log_prob``, and VAEs with ``objective=VAE.elbo_and_kl``. It leaves no
    ``.grad``. :class:`bslfast.whole_networks` switches it off.

    A run is repeatable: ``seed`` sets the order of the examples and the noise, and torch's global
    generators are left as they were. Resuming gives bit for bit the weights that an uninterrupted
    run would have given, on the same machine.

    Args:
        model: any module; its parameters are trained, and those of ``likelihood``.
        train: inputs [rows, ...], targets [rows, ...] and, if some are missing, a mask of their
            shape, bool, False for those: they may have any values, also NaN, and add 0 to the log
            likelihood. For an objective any number of tensors.
        validation: held-out tensors like ``train``; ``None`` scores nothing.
        epochs: total number of passes over the training data, including those before a resume.
        batch_size: examples per step; the last batch of an epoch may be smaller.
        lr: the learning rate.
        schedule: course of the learning rate. "constant" keeps ``lr``. "cosine" lowers it at every
            step along half a cosine, to 0 at the end of ``epochs``.
        optimizer: "adam", "adamw", "sgd" or "rmsprop", with the defaults of ``torch.optim`` but for
            the arguments here.
        weight_decay: how far each step pulls the weights to 0: with "adamw" by this times the
            learning rate; with the others the gradient of half their squared norm times this is
            added to that of the loss. In a model with Bayesian layers it is for what
            :func:`bslfast.nn.parameter_groups` says, weights and means of weights; in others for
            all parameters, as torch has it.
        momentum: how much of the last step's direction "sgd" keeps.
        clip: what the norm of all gradients together is scaled down to if it is greater, as
            ``torch.nn.utils.clip_grad_norm_`` does; ``None`` leaves them.
        patience: stop after this many epochs without a better validation score; ``None`` never.
        beta: weight of the KL, see :func:`bslfast.negative_elbo`: a number, or its course, such as
            :class:`bslfast.training.schedules.LinearWarmup`. With an objective it weighs the KL of
            Bayesian layers, and without such layers has to be 1: a VAE has a beta of its own.
        courses: what attributes of the model are at each step, such as ``{"beta":
            LinearWarmup(10)}`` of a VAE, or ``{"capacity": LinearWarmup(50, 25.0)}``; those of
            modules in it have a path, as ``{"vae.beta": ...}`` of a SemiSupervisedVAE. Validation
            examples are scored with what they are at the end of training. They keep what they were
            last, also after an exception. Such a model is trained by ops.
        seed: a non-negative integer.
        device: where to train, such as "cpu" or "cuda". The model is moved there, and the data are
            copied once. ``None`` takes the model's device.
        likelihood: law of the targets given the outputs; ``None`` takes ``model.likelihood``.
        objective: function for models of x alone, called as ``objective(model, *batch)``. It
            returns the log likelihood of each example [batch], or a lower bound of it, instead of
            ``likelihood.log_prob(model(x), y)``. It may return a pair: the bound, and a divergence
            [batch] that the bound contains, for the record. Its mean scores validation examples.
            For flows: ``bslfast.flows.Flow.log_prob``, with a batch of x, or of x and the context.
            For a VAE: ``bslfast.vae.VAE.elbo_and_kl``, with a batch of x; its beta is the model's.
        checkpoint: a safetensors file, written between epochs, at most once a second, and at the
            end. The file is always whole, whatever interrupts the run.
        resume: go on from ``checkpoint``. It must come from the same model, data and settings
            (``patience`` may differ, and ``epochs`` if the schedule is constant).
        progress: show a progress bar on standard error, with the time that is left.
        log: called after each epoch with the history so far, to write it to TensorBoard, say. It
            may use the model; what it draws does not change the run.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came, also for NaN or
            infinity in the data. ValueError names the file if a checkpoint cannot be read, is of
            another run, or holds values that this run could not have written.
        FileNotFoundError: if there is no checkpoint to resume from.
        FloatingPointError: if the loss, the validation score or a weight becomes NaN or infinite;
            the last checkpoint stays.
        KeyboardInterrupt: passed on; the last checkpoint stays.

    Source: Kingma and Ba (2015, arXiv:1412.6980) for Adam; Loshchilov and Hutter (2019,
    arXiv:1711.05101) for AdamW; Pascanu et al. (2013, arXiv:1211.5063), algorithm 1, for ``clip``.

    Example:
        >>> from bslfast.likelihoods import Normal
        >>> x = torch.linspace(-1, 1, 64).unsqueeze(1)
        >>> model = torch.nn.Linear(1, 1)
        >>> history = fit(model, (x, 2 * x), epochs=300, lr=0.05, likelihood=Normal(1))
        >>> round(model.weight.item(), 1)
        2.0
    """
    _checks.flag("progress", progress)
    run = _Run(
        model, train, validation, batch_size, lr, beta, courses, seed, device, likelihood,
        objective, optimizer, weight_decay, momentum, clip,
    )  # fmt: skip
    run.schedule(schedule, _checks.integer("epochs", epochs))
    if patience is not None:
        _checks.integer("patience", patience)
        if validation is None:
            raise ValueError("patience: expected None without validation data, got a number")
    if resume and checkpoint is None:
        raise ValueError("checkpoint: expected a file to resume from, got None")
    if log is not None and not callable(log):
        raise TypeError(f"log: expected None or a function, got {_checks.describe(log)}")

    with seeded(seed, run.device):
        if resume and checkpoint is not None:
            run.load(checkpoint)
        started = saved = time.perf_counter() - run.history.seconds
        with bar(
            epochs, progress, desc="training", unit="epoch", initial=len(run.history.loss)
        ) as shown:
            while len(run.history.loss) < epochs and not run.out_of_patience(patience):
                run.epoch()
                now = time.perf_counter()
                run.history.seconds = now - started
                if checkpoint is not None and now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    run.save(checkpoint)
                    saved = time.perf_counter()
                if shown is not None:
                    shown.set_postfix(run.latest(), refresh=False)
                    shown.update()
                if log is not None:
                    with seeded(seed, run.device):
                        log(run.history)
        run.follow(run.steps_in_all)
        run.history.stopped_early = run.out_of_patience(patience)
        run.check_finite()
        if checkpoint is not None:
            run.save(checkpoint)
    run.restore_best()
    return run.history


def _courses(model: nn.Module, courses: Mapping[str, Schedule] | None) -> dict[str, Schedule]:
    """Check the courses of a model's attributes."""
    if courses is None:
        return {}
    if not isinstance(courses, Mapping):
        raise TypeError(
            "courses: expected a mapping of attributes to schedules, got "
            f"{_checks.describe(courses)}"
        )
    for name, course in courses.items():
        if not isinstance(course, Schedule):
            raise TypeError(
                f"courses: expected a bslfast.training.schedules.Schedule for {name!r}, got "
                f"{_checks.describe(course)}"
            )
        owner, attribute = _owner(model, name)
        value = vars(owner).get(attribute, "") if owner is not None else ""
        # A size is no number that changes. A capacity may not have been set.
        known = isinstance(value, float) or (value is None and attribute == "capacity")
        if not known or attribute.startswith("_"):
            raise ValueError(
                f"courses: expected numbers that are attributes of a {type(model).__name__} or, as "
                f"'vae.beta', of a module in it, got {name!r}"
            )
    return dict(courses)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module | None, str]:
    """The module that an attribute belongs to, and the attribute's name there."""
    path, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    try:
        return model.get_submodule(path), attribute
    except AttributeError:
        return None, attribute


class _Run:
    """The state of one training run; everything a checkpoint must hold is in here."""

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[Tensor],
        validation: Sequence[Tensor] | None,
        batch_size: int,
        lr: float,
        beta: float | Schedule,
        courses: Mapping[str, Schedule] | None,
        seed: int,
        device: torch.device | str | None,
        likelihood: Likelihood | None,
        objective: Objective | None,
        optimizer: str,
        weight_decay: float,
        momentum: float,
        clip: float | None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
        self.batch_size = _checks.integer("batch_size", batch_size)
        if not isinstance(beta, Schedule):
            beta = _checks.number("beta", beta, minimum=0.0)
        self.beta = beta
        self.courses = _courses(model, courses)
        # The bits of another number: with the seed itself validation would draw the noise of the
        # first training steps.
        self.validation_seed = _checks.generator_seed(seed) ^ 0x9E3779B97F4A7C15
        self.clip = None if clip is None else _checks.number("clip", clip, above=0.0)
        if device is None:
            parameter = next(model.parameters(), None)
            device = torch.device("cpu") if parameter is None else parameter.device
        self.device = _checks.device("device", device)
        if objective is not None and not callable(objective):
            raise TypeError(
                f"objective: expected None or a function, got {_checks.describe(objective)}"
            )
        self.objective = objective
        self.likelihood: Likelihood | None = None
        if objective is None:
            self.likelihood = likelihood_of(model, likelihood).to(self.device)
        elif likelihood is not None:
            raise ValueError("likelihood: expected None with an objective, got both")
        self.model = model.to(self.device)
        self.bayesian = any(isinstance(m, BayesianModule) for m in model.modules())
        if objective is not None and not self.bayesian and beta != 1.0:
            raise ValueError(
                "beta: expected 1 with an objective, which a divergence is a part of; use the beta "
                f"of the model, such as VAE(beta=4.0), or courses={{'beta': ...}}, got {beta!r}"
            )
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
        # Weight decay would pull the scales of posteriors to those of raw scales of 0.
        undecayed = parameter_groups(self.trained, weight_decay=0.0)[1] if self.bayesian else {}
        self.optimizer = Optimizer(
            optimizer,
            self.parameters.values(),
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            undecayed=undecayed.get("params", ()),
        )
        self.history = History()
        self.best: dict[str, Tensor] = {}
        self.steps_per_epoch = math.ceil(len(self.train[0]) / self.batch_size)
        self.steps_in_all = 0
        self.last_step: int | None = None  # where a falling learning rate reaches 0
        self.steps_per_call = 1
        self.lowered: programs.Lowered | None = None
        self.checked = False  # whether the data are what the program takes them for
        self.setting: dict[str, Any] = {
            "batch_size": batch_size,
            "lr": lr,
            "beta": repr(beta) if isinstance(beta, Schedule) else beta,
            "seed": seed,
            "device": self.device.type,
            "optimizer": optimizer,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "clip": clip,
        }
        if self.courses:
            self.setting["courses"] = repr(sorted(self.courses.items()))
            self.follow(0)
        # Before training, which may change what it shows, such as attributes that have a course.
        self.described = str(self.trained)

    def schedule(self, name: str, epochs: int) -> None:
        """Set the course of the learning rate."""
        _checks.choice("schedule", name, SCHEDULES)
        self.setting["schedule"] = name
        self.steps_in_all = epochs * self.steps_per_epoch
        if self.courses and self.validation is not None:
            # Scores are those of the end, which is then another one for another number of epochs.
            self.setting["courses"] += f" over {epochs} epochs"
        if name == "cosine":
            self.setting["schedule"] = f"cosine over {epochs} epochs"
            self.last_step = self.steps_in_all

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        lr: float = self.setting["lr"]
        if self.last_step is None:
            return lr
        return lr * (1 + math.cos(math.pi * step / self.last_step)) / 2

    def kl_weight(self, step: int) -> float:
        """The weight of the KL at a step."""
        if not isinstance(self.beta, Schedule):
            return self.beta
        return self.beta(step, self.steps_per_epoch)

    def follow(self, step: int) -> None:
        """Give the attributes that have a course what they are at a step."""
        for name, course in self.courses.items():
            owner, attribute = _owner(self.model, name)
            setattr(owner, attribute, course(step, self.steps_per_epoch))

    def epoch(self) -> None:
        """One pass over the training data, then the validation score."""
        self.model.train()
        rows = self.train[0].shape[0]
        order = torch.randperm(rows)
        found = self.program()
        if found is None:
            total, divergence = self.steps_by_ops(order.to(self.device))
        else:
            total, divergence = self.steps_at_once(found, order.cpu())
        loss_value = total / rows
        epoch = len(self.history.loss) + 1
        if not math.isfinite(loss_value):
            raise FloatingPointError(
                f"fit: the loss became {loss_value} in epoch {epoch}; a smaller lr than "
                f"{self.setting['lr']} may help, or scaled inputs and targets"
            )
        self.history.loss.append(loss_value)
        self.history.kl.append(divergence)
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

    def steps_by_ops(self, order: Tensor) -> tuple[float, float]:
        """The steps of an epoch; returns the sum of its examples' losses, and the divergence."""
        rows = order.shape[0]
        shuffled = [value[order] for value in self.train]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        contained = torch.zeros_like(total)
        divergence: Tensor | float = 0.0
        optimizer = self.optimizer.torch
        for start in range(0, rows, self.batch_size):
            batch = [value[start : start + self.batch_size] for value in shuffled]
            optimizer.zero_grad()
            self.follow(self.history.steps)
            self.optimizer.set_rate(self.rate(self.history.steps))
            log_likelihood, part = self.score(batch)
            if self.bayesian:
                divergence = kl(self.model)
            beta = self.kl_weight(self.history.steps)
            loss = negative_elbo(log_likelihood, divergence, dataset_size=rows, beta=beta)
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.parameters.values(), self.clip)
            optimizer.step()
            total += loss.detach() * log_likelihood.shape[0]
            if part is not None:
                contained += part.detach().sum()
            self.history.steps += 1
        if not self.bayesian and self.objective is not None:
            divergence = contained / rows
        if isinstance(divergence, Tensor):
            divergence = divergence.item()
        return total.item(), divergence

    def program(self) -> programs.Lowered | None:
        """What takes the steps of an epoch at once, if the model has a program for it."""
        if not programs.are_on() or not unwatched() or self.courses:
            return None
        found = self.supervised() if self.objective is None else self.density() or self.decoding()
        if found is None:
            return None
        trained = self.in_program(found)
        addresses = [address for address in found.addresses() if address]
        if (
            # Steps by ops would call hooks, or raise.
            any(map(has_hooks, trained))
            or any(optimizer_hooks())
            or not torch.is_grad_enabled()
            or torch.is_anomaly_enabled()
            or any(value.requires_grad for value in self.train)
            # Parameters must not share memory, and have as many steps behind them.
            or len(set(addresses)) < len(addresses)
            or len(self.optimizer.steps(trained)) != 1
        ):
            return None
        return found

    def density(self) -> programs.Lowered | None:
        """The program of a flow's log densities."""
        model = self.model
        if self.objective is not Flow.log_prob or not isinstance(model, Flow) or self.bayesian:
            return None
        widths = [model.features, *([model.context] if model.context else [])]
        if [value.shape[1:] for value in self.train] != [(width,) for width in widths]:
            return None
        return model._program(*self.train)

    def decoding(self) -> programs.Lowered | None:
        """The program of the bounds of a VAE, or of the log likelihoods of an autoencoder."""
        model, x = self.model, self.train[0]
        own = next((known for known in _DECODING if known[0] is self.objective), None)
        if own is None or not isinstance(model, own[1]) or self.bayesian:
            return None
        if len(self.train) > 1 or x.ndim < 2:
            return None
        found = self.made(objective_steps, x.flatten(1), None)
        if found is None:
            return None
        if not self.checked:
            # Raises what ops raise for x, or for the shapes of what the networks return.
            model._check_x(x)
            with torch.no_grad(), seeded(0, self.device):
                own[0](model, x[:1])
            self.checked = True
        return found

    def supervised(self) -> programs.Lowered | None:
        """The program of a network and the log likelihood of its outputs."""
        if self.in_rows is None:
            return None
        x, y = self.in_rows
        found = self.made(self.supervised_steps, x, y) if x.ndim == 2 else None
        if found is None:
            return None
        if not self.checked:
            self.check_targets(found.results)
            self.checked = True
        if found.program.n_parameters > programs.MOST_TRAINED:
            return None
        layers = [m for m in self.model.modules() if isinstance(m, BayesianModule)]
        # Layers that the network has but does not use diverge from their priors, too.
        if found.draws.count != sum(len(layer.weights()) or 1 for layer in layers):
            return None
        return found if all(layer.drawn is None for layer in layers) else None

    def made(
        self, steps: Callable[..., programs.Lanes], x: Tensor, context: Tensor | None
    ) -> programs.Lowered | None:
        """The program of the model if it can run on these rows, made anew if the model changed."""
        if self.lowered is None or not self.lowered.holds():
            widths = (x.shape[1], 0 if context is None else context.shape[1])
            self.lowered, self.checked = programs.Lowered(self.model, steps, *widths), False
        return None if self.lowered.obstacle(x, context) is not None else self.lowered

    def check_targets(self, width: int) -> None:
        """Raise what the likelihood raises for targets that it does not have."""
        assert self.likelihood is not None
        x, y = self.train  # a mask goes by ops
        with torch.no_grad():
            self.likelihood.log_prob(x.new_zeros(len(x), width), y)

    def supervised_steps(self, builder: programs.Builder, model: nn.Module) -> programs.Lanes:
        outputs: programs.Lanes = programs.lower(builder, model, builder.x)
        programs.lower(builder, self.likelihood, outputs, builder.context)
        return outputs

    def in_program(self, found: programs.Lowered) -> list[Tensor]:
        """The trained ones of a program's parameters."""
        return [p for p in found.parameters if p in self.optimizer.torch.state]

    def steps_at_once(self, found: programs.Lowered, order: Tensor) -> tuple[float, float]:
        """The steps of an epoch by few calls; returns what :meth:`steps_by_ops` does."""
        optimizer = self.optimizer
        optimizer.torch.zero_grad()
        trained = self.in_program(found)
        [before] = optimizer.steps(trained)
        states = [
            optimizer.means(p) if p in optimizer.torch.state else None for p in found.parameters
        ]
        assert self.in_rows is not None
        x, *context = (value.contiguous() for value in self.in_rows)
        losses: list[float] = []
        divergences: list[float] = []
        kl_weights: list[float] = []
        steps = math.ceil(len(order) / self.batch_size)
        while len(losses) < steps:
            started = time.perf_counter()
            first = len(losses)
            end = min(steps, first + self.steps_per_call)
            done = self.history.steps
            weights = [self.kl_weight(done + step) / len(order) for step in range(end - first)]
            found_losses, found_divergences = programs.train(
                found,
                x,
                context[0] if context else None,
                order[first * self.batch_size : end * self.batch_size],
                self.batch_size,
                states,
                optimizer.name,
                optimizer.numbers,
                optimizer.weight_decays(found.parameters),
                self.clip,
                [self.rate(done + step) for step in range(end - first)],
                before + first,
                weights,
            )
            losses += found_losses
            divergences += found_divergences
            kl_weights += weights
            optimizer.count(trained, end - first)
            self.history.steps += end - first
            each = (time.perf_counter() - started) / (end - first)
            self.steps_per_call = max(1, int(_SECONDS_PER_CALL / each))
        if not found.draws.count:
            return sum(losses), sum(divergences) / len(order)
        sizes = map(len, order.split(self.batch_size))
        terms = zip(kl_weights, divergences, sizes, strict=True)
        return sum(losses) + sum(w * d * size for w, d, size in terms), divergences[-1]

    @functools.cached_property
    def in_rows(self) -> tuple[Tensor, ...] | None:
        """The training data as a program has them; None if it cannot."""
        if self.likelihood is None:
            return tuple(value.flatten(1) for value in self.train)
        x, y, *mask = self.train
        context = None if mask else in_rows(self.likelihood, y, x.dtype)
        return None if context is None else (x, context)

    def score(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The log likelihood of each example, and a divergence that it contains, if any."""
        with one_draw(self.model) if self.shares_weights else contextlib.nullcontext():
            if self.objective is not None:
                return _scored(self.objective(self.model, *batch), len(batch[0]))
            assert self.likelihood is not None
            x, *targets = batch
            return self.likelihood.log_prob(self.model(x), *targets), None

    @functools.cached_property
    def shares_weights(self) -> bool:
        """Whether layers have to draw together, as a weight of one is that of another."""
        return share_weights(m for m in self.model.modules() if isinstance(m, BayesianModule))

    def validation_score(self, examples: Sequence[Tensor]) -> float:
        """The mean log predictive density, or the mean of the objective."""
        self.follow(self.steps_in_all)
        blocks = [
            [value[start : start + _SCORED] for value in examples]
            for start in range(0, len(examples[0]), _SCORED)
        ]
        if self.objective is None:
            scored = [self.predicted(*block) for block in blocks]
        else:
            with torch.no_grad(), evaluating(self.model), seeded(self.validation_seed, self.device):
                scored = [self.score(block)[0] for block in blocks]
        return torch.cat(scored).double().mean().item()

    def predicted(self, x: Tensor, *targets: Tensor) -> Tensor:
        """The log predictive density of each example, from the same draws wherever it is."""
        prediction = predict(
            self.model,
            x,
            VALIDATION_SAMPLES,
            seed=self.validation_seed,
            likelihood=self.likelihood,
        )
        return prediction.log_prob(*targets)

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
            if (
                name.startswith(f"{self.optimizer.name}.")
                or name.partition(".")[2] in self.parameters
            ):
                try:
                    _checks.finite(name, value)
                except ValueError as error:
                    epoch = len(self.history.loss)
                    raise FloatingPointError(
                        f"fit: after epoch {epoch}, {error}; a smaller lr than "
                        f"{self.setting['lr']} may help, or scaled inputs and targets"
                    ) from None

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, by name."""
        model = self.trained.state_dict()
        tensors = {f"model.{k}": v for k, v in model.items()}
        if self.validation is not None:
            tensors |= {f"best.{k}": v for k, v in (self.best or model).items()}
        for name, parameter in self.parameters.items():
            state = self.optimizer.torch.state[parameter]
            tensors |= {
                f"{self.optimizer.name}.{key}.{name}": state[key] for key in self.optimizer.keys
            }
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
        optimizer = self.optimizer
        for name in self.parameters:
            for key in optimizer.keys:
                if key != optimizer.mean:
                    most = history.steps if key == "step" else math.inf
                    ckpt.check_range(path, tensors, f"{optimizer.name}.{key}.{name}", most)
        ckpt.check_generator(path, tensors, "rng.cpu", torch.device("cpu"))
        if self.device.type == "cuda":
            ckpt.check_generator(path, tensors, "rng.cuda", self.device)
        self.trained.load_state_dict(_with_prefix(tensors, "model."))
        self.best = {k: v.to(self.device) for k, v in _with_prefix(tensors, "best.").items()}
        for name, parameter in self.parameters.items():
            saved = {key: tensors[f"{optimizer.name}.{key}.{name}"] for key in optimizer.keys}
            optimizer.load(parameter, saved)
        self.history = history
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)

    @functools.cached_property
    def _data(self) -> dict[str, Any]:
        """Shapes and checksums of the data: a pass over them, and a copy from a device."""
        parts = {"training": self.train, "validation": self.validation or ()}
        shapes = {
            f"the shape of the {name} data": [list(value.shape) for value in values]
            for name, values in parts.items()
        }
        return shapes | {
            f"the checksum of the {name} data": [_checksum(value) for value in values]
            for name, values in parts.items()
        }

    def _full_setting(self) -> dict[str, Any]:
        """The setting, with entries that identify model and data."""
        shapes = {
            name: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            for name, value in self.trained.state_dict().items()
        }
        return {
            "the model": self.described,
            "the table of weights": shapes,
            **self.setting,
            "whether there is validation data": self.validation is not None,
            **self._data,
        }


def _examples(
    name: str, values: Sequence[Tensor], device: torch.device, paired: bool
) -> tuple[Tensor, ...]:
    what = "a pair (x, y), or (x, y, mask)," if paired else "a tuple"
    what += " of tensors with the same number of rows, at least one"
    if not isinstance(values, tuple | list) or (
        len(values) not in (2, 3) if paired else not values
    ):
        raise TypeError(f"{name}: expected {what}, got {_checks.describe(values)}")
    parts = ("x", "y", "mask")[: len(values)] if paired else range(len(values))
    for part, value in zip(parts, values, strict=True):
        _checks.tensor(f"{name} {part}", value)
    if any(v.ndim == 0 or len(v) != len(values[0]) for v in values) or len(values[0]) == 0:
        got = " and ".join(_checks.describe(value) for value in values)
        raise ValueError(f"{name}: expected {what}, got {got}")
    moved = tuple(value.to(device) for value in values)
    if paired and len(moved) == 3:
        x, y, mask = moved
        moved = (x, observed(f"{name} y", y, mask, 0), mask)
    for part, value in zip(parts, moved, strict=True):
        _checks.finite(f"{name} {part}", value)
    return moved


def _scored(found: Any, rows: int) -> tuple[Tensor, Tensor | None]:
    """What an objective has returned: a bound for each example, and perhaps a divergence."""
    pair = isinstance(found, tuple | list) and len(found) == 2
    parts: tuple[Any, Any] = (found[0], found[1]) if pair else (found, None)
    for i, part in enumerate(parts):
        good = isinstance(part, Tensor) and part.is_floating_point() and part.shape == (rows,)
        if not good and (i == 0 or part is not None):
            got = " and ".join(map(_checks.describe, parts if parts[1] is not None else parts[:1]))
            raise (ValueError if isinstance(part, Tensor) else TypeError)(
                "objective: expected a function that returns a floating-point tensor "
                f"[{rows}], one number for each example, or two of them, got {got}"
            )
    return parts


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
