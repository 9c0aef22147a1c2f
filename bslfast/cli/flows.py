"""The common part of the jobs with flows: a density of points, its report and pictures."""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from bslfast import flows
from bslfast.cli import runner
from bslfast.predict import evaluating, seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Standardizer
    from bslfast.training import History

#: The choices of --flow.
FLOWS: dict[str, Callable[..., flows.Flow]] = {
    "nsf": flows.NSF,
    "nsf-ar": lambda *args, **more: flows.NSF(*args, autoregressive=True, **more),
    "realnvp": flows.RealNVP,
    "maf": flows.MAF,
}
_SPLINES = ("nsf", "nsf-ar")
_SAMPLES = 3000  # drawn for the pictures
_EVALUATED = 4096  # points at a time


class Data(NamedTuple):
    """Points [rows, features] in their own units."""

    train: Tensor
    validation: Tensor
    test: Tensor
    features: tuple[str, ...]
    source: str


class Trained(NamedTuple):
    """A flow of standardised points, and what it was trained on."""

    model: flows.Flow
    scaler: Standardizer
    history: History
    data: Data
    samples: Tensor  # of the flow, in the data's units
    options: argparse.Namespace

    @torch.no_grad()
    def log_prob(self, points: Tensor) -> Tensor:
        """The log density of points in the data's units."""
        return _log_prob(self.model, self.scaler, points, self.options.device)


def add_options(
    parser: argparse.ArgumentParser,
    *,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    patience: int | None,
    hidden: tuple[int, ...],
    by_rows: bool = False,
) -> None:
    """Add the options of a job with a flow, with the job's own defaults.

    ``by_rows`` is that of :func:`runner.add_training_options`.
    """
    runner.add_training_options(
        parser, epochs=epochs, batch_size=batch_size, lr=lr, patience=patience, by_rows=by_rows
    )
    add = parser.add_argument
    add("--flow", choices=tuple(FLOWS), default="nsf", help="which flow (%(default)s)")
    add(
        "--transforms", type=runner.positive_int, default=5,
        help="number of couplings or autoregressive transforms (%(default)s)",
    )  # fmt: skip
    add(
        "--hidden", type=runner.positive_int, nargs="+", default=list(hidden), metavar="WIDTH",
        help="widths of the hidden layers of each transform's network (%(default)s)",
    )  # fmt: skip
    add("--bins", type=_bins, default=8, help="of each spline of an nsf (%(default)s)")


def run(
    options: argparse.Namespace,
    name: str,
    data: Data,
    pictures: Callable[[Trained, str], dict[str, Figure]],
) -> int:
    """Train a flow, report on held-out points, time it, write the files.

    Args:
        options: from a parser that :func:`add_options` filled.
        name: name of the job and of its folder below ``options.out``.
        data: the points.
        pictures: returns figures of the trained flow, by file name.
    """
    from bslfast.data import Standardizer
    from bslfast.plots import densities

    torch.set_num_threads(options.threads)
    # Fitted on the training part alone: held-out rows must not influence the model's inputs.
    scaler = Standardizer.fit(data.train)
    train, validation = ((scaler.transform(x).float(),) for x in (data.train, data.validation))
    model = _build(options, len(data.features))
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    weights = sum(parameter.numel() for parameter in model.parameters())
    layers = (
        f"{options.flow} of {options.transforms} transforms with hidden layers "
        f"{'-'.join(map(str, options.hidden))}"
    )
    rows = {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)}
    runner.say("job", f"{name} on {options.device}, seed {options.seed}, threads {options.threads}")
    runner.say(
        "data",
        f"{sum(rows.values())} points of {len(data.features)} features: {rows['train']} training, "
        f"{rows['validation']} validation, {rows['test']} test; from {data.source}",
    )
    runner.say("model", f"{layers}, {weights} parameters")

    checkpoint = folder / "checkpoint.safetensors"
    setting: dict[str, Any] = {
        "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed,
        "schedule": "cosine", "objective": flows.Flow.log_prob,
    }  # fmt: skip
    initial = copy.deepcopy(model)
    # Only some of the examples, as an epoch of a large file takes long.
    some = (train[0][: options.batch_size * runner.TIMED_STEPS],)
    runner.warm_up(initial, some, setting, options.device)
    history = runner.train_model(model, train, validation, options, checkpoint, setting)
    results, evaluation = _timed(lambda: evaluate(model, data.test, scaler, options))
    samples, sampling = _timed(lambda: _samples(model, scaler, options))
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    runner.say(
        "time",
        f"{evaluation:.2f} s for the density of {rows['test']} test points, {sampling:.2f} s for "
        f"{len(samples)} samples",
    )
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {
            "source": data.source, "features": data.features, "rows": rows,
            "input_mean": scaler.mean.tolist(), "input_scale": scaler.scale.tolist(),
        },
        "model": {"parameters": weights, "layers": layers},
        "training": runner.training_report(history),
        "test": results,
        "evaluation_seconds": evaluation,
        "sampling_seconds": sampling,
    }  # fmt: skip
    if not options.no_reference:
        report["reference"] = _reference(
            options, initial, history, (train, validation, some), data.test, scaler, setting
        )
    trained = Trained(model, scaler, history, data, samples, options)
    figures = pictures(trained, name)
    figures["learning_curves"] = densities.learning_curves(
        history, f"{name}: learning curves", offset=scaler.log_scale
    )
    runner.write_results(folder, report, figures)
    return 0


def evaluate(
    model: flows.Flow, x: Tensor, scaler: Standardizer, options: argparse.Namespace
) -> dict[str, float]:
    """Return the mean log density of points and its standard error, in nats.

    Args:
        model: a flow of standardised points.
        x: at least two points in their own units, to which the density belongs.
        scaler: the Standardizer of the points.
        options: options of the job.
    """
    with evaluating(model), torch.no_grad():
        each = _log_prob(model, scaler, x, options.device)
    return {
        "log_likelihood": each.mean().item(),
        "standard_error": each.std().item() / math.sqrt(len(each)),
    }


def _log_prob(model: flows.Flow, scaler: Standardizer, x: Tensor, device: torch.device) -> Tensor:
    """Log densities [rows] of points in their own units, float64 on the CPU."""
    scaled = scaler.transform(x.to(scaler.mean.dtype)).float()
    found = [model.log_prob(part.to(device)).double().cpu() for part in scaled.split(_EVALUATED)]
    return torch.cat(found) - scaler.log_scale


def _samples(model: flows.Flow, scaler: Standardizer, options: argparse.Namespace) -> Tensor:
    with evaluating(model):
        drawn = model.sample(_SAMPLES, seed=options.seed).cpu()
    return scaler.inverse(drawn.to(scaler.mean.dtype))


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and the seconds that it takes; its results are on the CPU."""
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def _reference(
    options: argparse.Namespace,
    initial: flows.Flow,
    history: History,
    parts: tuple[tuple[Tensor], ...],
    test: Tensor,
    scaler: Standardizer,
    setting: dict[str, Any],
) -> dict[str, Any]:
    """Train the same flow in plain torch, time both and return the results."""
    from bslfast.cli.plain import plain
    from bslfast.training import fit

    train, validation, some = parts
    twin = plain(initial)
    assert isinstance(twin, flows.Flow)
    runner.warm_up(twin, some, setting, options.device)
    print("the same training in plain torch (softmax, cumsum, gather, ...):", flush=True)
    other = fit(
        twin, train, validation, epochs=len(history.loss), **setting, device=options.device,
        progress=True,
    )  # fmt: skip
    results = evaluate(twin, test, scaler, options)
    networks = {"bslfast": initial, "plain torch": plain(initial)}
    return runner.compare_times(history, other, results) | runner.compare_steps(
        networks, some, setting, options.device
    )


def _build(options: argparse.Namespace, features: int) -> flows.Flow:
    more: dict[str, Any] = {}
    if options.flow in _SPLINES:
        # A bound that hardly any standardised numbers and noise reach.
        more = {"bins": options.bins, "bound": 5.0}
    with seeded(options.seed, torch.device("cpu")):
        return FLOWS[options.flow](
            features, transforms=options.transforms, hidden=tuple(options.hidden), **more
        )


def _bins(text: str) -> int:
    value = runner.number(text, int, "an integer", lambda _: True)
    try:
        flows.Spline(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value
