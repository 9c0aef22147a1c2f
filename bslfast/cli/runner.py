"""The common part of all training jobs: options, order of events, report and files."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from bslfast import _checks, likelihoods
from bslfast._files import atomic, write_json
from bslfast.cli.page import page
from bslfast.predict import Prediction, predict, seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.bnn import BayesianMLP
    from bslfast.data import Dataset, Examples, Standardizer
    from bslfast.training import History

# The time of a training step is taken from the fastest of TIMED_RUNS runs of about TIMED_STEPS
# steps each, as other programs can only slow a run down. The networks take turns, after one run to
# warm up.
TIMED_RUNS = 10
TIMED_STEPS = 100
_N = TypeVar("_N", int, float)
_METRICS = "metrics.json"
_PICTURES = "pictures"  # its entry with the names of the pictures beside it
# Posterior scales of small tables end up near this. Scales that start far below would still rise
# when the validation score stops improving, and the best epoch would be far too certain of its
# weights.
_INIT_SCALE = 0.1


def add_options(
    parser: argparse.ArgumentParser,
    *,
    epochs: int | None,
    hidden: tuple[int, ...] | None,
    batch_size: int | None,
    lr: float | None,
    patience: int | None,
    samples: int,
    by_rows: bool = False,
) -> None:
    """Add the options of a job with a Bayesian network, with the job's own defaults.

    ``by_rows`` says that the number of rows decides about those that are None.
    """
    add = parser.add_argument
    add_training_options(
        parser, epochs=epochs, batch_size=batch_size, lr=lr, patience=patience, by_rows=by_rows
    )
    add(
        "--hidden", type=positive_int, nargs="+", metavar="WIDTH",
        default=None if hidden is None else list(hidden),
        help=f"widths of the hidden layers ({_usual(hidden, by_rows)})",
    )  # fmt: skip
    add("--prior-scale", type=positive, default=1.0, help="of every weight (%(default)s)")
    add(
        "--samples", type=positive_int, default=samples,
        help="weight samples for the predictions (%(default)s)",
    )  # fmt: skip


def add_training_options(
    parser: argparse.ArgumentParser,
    *,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    patience: int | None,
    threads: int = 1,
    by_rows: bool = False,
) -> None:
    """Add the options that every job has, with the job's own defaults; see :func:`add_options`.

    Jobs on data of one's own, those whose defaults are chosen ``by_rows``, train no network in
    plain torch unless ``--reference`` asks for it.
    """
    add = parser.add_argument
    usual = "by the job" if epochs is None and not by_rows else _usual(epochs, by_rows)
    add("--epochs", type=positive_int, default=epochs, help=f"at most ({usual})")
    add(
        "--batch-size", type=positive_int, default=batch_size,
        help=f"examples ({_usual(batch_size, by_rows)})",
    )  # fmt: skip
    add(
        "--lr", type=positive, default=lr,
        help=f"Adam's learning rate ({_usual(lr, by_rows)})",
    )  # fmt: skip
    add(
        "--patience", type=positive_int, default=patience, metavar="EPOCHS",
        help="stop after so many epochs without a better validation score "
        f"({_usual(patience, by_rows)})",
    )  # fmt: skip
    add("--seed", type=seed, default=0, help="of split, weights and noise (%(default)s)")
    add("--device", type=_device, default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    # One thread by default: more gain nothing on small networks, and lose much on a busy machine.
    add("--threads", type=positive_int, default=threads, help="of torch on the CPU (%(default)s)")
    add("--out", type=Path, default=Path("runs"), help="folder for the results (%(default)s)")
    add("--resume", action="store_true", help="go on from the checkpoint in the results' folder")
    # Own data are trained for what they say, jobs that come along to be compared.
    add(
        "--no-reference", action="store_true", default=by_rows,
        help="do not train and time the same network in plain torch"
        + (" (the default)" if by_rows else ""),
    )  # fmt: skip
    if by_rows:
        add(
            "--reference", action="store_false", dest="no_reference", default=True,
            help="train and time the same network in plain torch as well, which takes a multiple "
            "of the time",
        )  # fmt: skip


def _usual(default: object, by_rows: bool) -> str:
    return "by the number of rows" if default is None and by_rows else "%(default)s"


def run(
    options: argparse.Namespace,
    *,
    name: str,
    load: Callable[[], Dataset],
    likelihood: str,
    evaluate: Callable[[Prediction, Examples], dict[str, float]],
    pictures: Callable[[Prediction, Examples, Dataset], dict[str, Figure]],
) -> int:
    """Train a Bayesian network on a table, report on held-out data, time it, write the files.

    Args:
        options: from a parser that :func:`add_options` filled.
        name: name of the job and of its folder below ``options.out``.
        load: returns the data.
        likelihood: name of the likelihood, see :func:`bslfast.likelihoods.get`.
        evaluate: returns metrics of predictions on held-out examples, in the targets' unit.
        pictures: returns figures of these predictions, by file name.
    """
    from bslfast import plots
    from bslfast.data import Examples, Standardizer, split

    torch.set_num_threads(options.threads)
    data = load()
    parts = split(data.x, data.y, seed=options.seed)
    # Fitted on the training part alone: held-out rows must not influence the model's inputs.
    inputs = Standardizer.fit(parts.train.x)
    # Counts stay as they are.
    scaled = likelihoods.get(likelihood, max(2, len(data.target_names))).continuous
    targets = Standardizer.fit(parts.train.y) if scaled else None
    train, validation, test = (_scaled(part, inputs, targets) for part in parts)
    model = _build(options, data, likelihood)
    if model.likelihood.kind == "counts":
        _start_at_means(model, train.y)
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    weights = sum(parameter.numel() for parameter in model.parameters())
    say(
        "job",
        f"{name} on {options.device}, seed {options.seed}, threads {options.threads}",
    )
    say(
        "data",
        f"{len(data.x)} examples, {data.x.shape[1]} features: {len(train.x)} training, "
        f"{len(validation.x)} validation, {len(test.x)} test; from {data.source}",
    )
    say("model", f"{_layers(options, data)}, {weights} parameters, {likelihood} likelihood")

    checkpoint = folder / "checkpoint.safetensors"
    setting = {"batch_size": options.batch_size, "lr": options.lr, "seed": options.seed}
    initial = copy.deepcopy(model)
    warm_up(initial, train, setting, options.device)
    history = train_model(model, train, validation, options, checkpoint, setting)
    started = time.perf_counter()
    prediction = predict(
        model, test.x.to(options.device), options.samples, seed=options.seed, target_scaler=targets
    )
    if options.device.type == "cuda":
        torch.cuda.synchronize(options.device)
    prediction_seconds = time.perf_counter() - started
    held_out = Examples(*(value.to(options.device) for value in parts.test))
    results = evaluate(prediction, held_out)
    say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    report: dict[str, Any] = {
        "job": name,
        "options": plain_options(options),
        "versions": versions(),
        "data": {
            "source": data.source, "features": data.feature_names,
            "rows": {"train": len(train.x), "validation": len(validation.x), "test": len(test.x)},
            "input_mean": inputs.mean.tolist(), "input_scale": inputs.scale.tolist(),
        },
        "model": {"parameters": weights, "layers": _layers(options, data),
                  "likelihood": likelihood},
        "training": training_report(history),
        "test": results,
        "prediction_seconds": prediction_seconds,
    }  # fmt: skip
    if targets is not None:
        report["data"] |= {
            "target_mean": targets.mean.tolist(),
            "target_scale": targets.scale.tolist(),
        }
    if not options.no_reference:
        report["reference"] = _reference(
            options,
            initial,
            history,
            (train, validation, test),
            held_out,
            targets,
            setting,
            evaluate,
        )

    figures = pictures(prediction, held_out, data)
    figures["learning_curves"] = plots.learning_curves(history, f"{name}: learning curves")
    figures["weights"] = plots.weight_posterior(model, f"{name}: posterior of the weights")
    write_results(folder, report, figures)
    return 0


def _reference(
    options: argparse.Namespace,
    initial: BayesianMLP,
    history: History,
    parts: tuple[Examples, Examples, Examples],
    held_out: Examples,
    targets: Standardizer | None,
    setting: dict[str, Any],
    evaluate: Callable[[Prediction, Examples], dict[str, float]],
) -> dict[str, Any]:
    """Train the same network in plain torch, time both and return the results."""
    from bslfast.cli.plain import plain
    from bslfast.training import fit

    train, validation, test = parts
    epochs = len(history.loss)
    twin = plain(initial)
    warm_up(twin, train, setting, options.device)
    print("the same training in plain torch (torch.randn, softplus, ...):", flush=True)
    other = fit(
        twin, train, validation, epochs=epochs, **setting, device=options.device, progress=True
    )
    results = evaluate(
        predict(
            twin, test.x.to(options.device), options.samples, seed=options.seed,
            target_scaler=targets,
        ),
        held_out,
    )  # fmt: skip
    networks = {
        "bslfast": initial,
        "plain torch": plain(initial),
        "no uncertainty (nn.Linear)": initial.deterministic_twin(),
    }
    return compare_times(history, other, results) | compare_steps(
        networks, train, setting, options.device
    )


def train_model(
    model: nn.Module,
    train: Sequence[Tensor],
    validation: Sequence[Tensor],
    options: argparse.Namespace,
    checkpoint: Path,
    setting: Mapping[str, Any],
) -> History:
    """Train with a progress bar and checkpoints, and print a line about it."""
    from bslfast.training import fit

    if not options.resume:
        clear(checkpoint.parent)
        checkpoint.unlink(missing_ok=True)
    try:
        history = fit(
            model, train, validation, epochs=options.epochs, patience=options.patience, **setting,
            device=options.device, checkpoint=checkpoint, resume=options.resume, progress=True,
        )  # fmt: skip
    except KeyboardInterrupt:
        if checkpoint.is_file():
            print(f"\n{checkpoint} is whole: go on from it with --resume", file=sys.stderr)
        raise
    say(
        "training",
        f"{history.seconds:.2f} s for {len(history.loss)} epochs, {history.steps} steps"
        + (", stopped early" if history.stopped_early else "")
        + f"; best epoch {history.best_epoch}",
    )
    return history


def training_report(history: History) -> dict[str, Any]:
    """Return the report's entries about training."""
    return {
        "seconds": history.seconds, "epochs": len(history.loss), "steps": history.steps,
        "best_epoch": history.best_epoch, "stopped_early": history.stopped_early,
    }  # fmt: skip


def data_of(folder: Path) -> str | None:
    """Return the path of the file that the results in a folder are of; None if they say none."""
    try:
        found = json.loads((folder / _METRICS).read_text(encoding="utf-8"))["options"]["data"]
    except (OSError, ValueError, LookupError, TypeError):  # none, or those of another program
        return None
    return os.path.abspath(found) if isinstance(found, str) else None


def clear(folder: Path) -> None:
    """Remove the report and the pictures that an earlier run left: runs must not be mixed.

    Whatever interrupts this, metrics.json is there as long as a picture that it names.
    """
    metrics = folder / _METRICS
    if not metrics.is_file():
        return
    try:
        pictures = [*json.loads(metrics.read_text(encoding="utf-8"))[_PICTURES]]
    except (ValueError, LookupError, TypeError):  # of another program
        pictures = []
    for picture in folder.glob("*.png"):
        if picture.stem in pictures:
            picture.unlink()
    (folder / "report.html").unlink(missing_ok=True)
    metrics.unlink()


def write_results(folder: Path, report: Mapping[str, Any], figures: Mapping[str, Figure]) -> None:
    """Write metrics.json, pictures and a page with all of it, and print their names."""
    from bslfast import plots

    clear(folder)
    # Numbers first: they took the time, and say which pictures there are.
    write_json(folder / _METRICS, {**report, _PICTURES: [*figures]})
    for stem, figure in figures.items():
        _literal(figure)
        plots.save(figure, folder / f"{stem}.png")
    pictures = {stem: (folder / f"{stem}.png").read_bytes() for stem in figures}
    with atomic(folder / "report.html") as temporary:
        temporary.write_text(page(report, pictures), encoding="utf-8")
    written = [_METRICS, *(f"{stem}.png" for stem in figures)]
    if (folder / "checkpoint.safetensors").is_file():
        written.insert(0, "checkpoint.safetensors")
    say("files", f"{folder}/: report.html, {', '.join(written)}")


def _literal(figure: Figure) -> None:
    """Take dollar signs for themselves: those of columns and classes enclose no formulas."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # Labels of ticks on a logarithmic axis are formulas, made when they are drawn.
        if "$" in text.get_text():
            text.set_parse_math(False)


def compare_times(ours: History, other: History, results: Mapping[str, float]) -> dict[str, Any]:
    """Print and return the results of the same training in plain torch, and the times of both."""
    ratio = other.seconds / ours.seconds
    say("test", "plain torch: " + ", ".join(f"{k} {v:.4g}" for k, v in results.items()))
    say(
        "time",
        f"bslfast {ours.seconds:.2f} s, plain torch {other.seconds:.2f} s, ratio {ratio:.2f} "
        "(one run each)",
    )
    return {"seconds": other.seconds, "ratio": ratio, "test": dict(results)}


def compare_steps(
    networks: Mapping[str, nn.Module],
    train: Sequence[Tensor],
    setting: dict[str, Any],
    device: torch.device,
    *,
    runs: int = TIMED_RUNS,
    steps: int = TIMED_STEPS,
    own: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Print and return the times of a training step: "bslfast", "plain torch" and others."""
    found = milliseconds_per_step(networks, train, setting, device, runs=runs, steps=steps, own=own)
    ours = found["bslfast"]
    say(
        "per step",
        "; ".join(f"{k} {v:.3f} ms ({v / ours:.2f})" for k, v in found.items())
        + f"; fastest of {runs} runs in turn, Adam included",
    )
    return {"ratio_per_step": found["plain torch"] / ours, "milliseconds_per_step": found}


def milliseconds_per_step(
    networks: Mapping[str, nn.Module],
    train: Sequence[Tensor],
    setting: dict[str, Any],
    device: torch.device,
    *,
    runs: int = TIMED_RUNS,
    steps: int = TIMED_STEPS,
    own: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, float]:
    """Time training steps of each network, taking turns so that a busy machine slows all alike.

    ``own`` has what is different in the setting of a network.
    """
    from bslfast.training import fit

    epochs = math.ceil(steps / math.ceil(len(train[0]) / setting["batch_size"]))
    seen: dict[str, list[float]] = {key: [] for key in networks}
    for _ in range(1 + runs):
        for key, network in networks.items():
            its = setting | (own or {}).get(key, {})
            history = fit(copy.deepcopy(network), train, epochs=epochs, **its, device=device)
            seen[key].append(1e3 * history.seconds / history.steps)
    return {key: min(values[1:]) for key, values in seen.items()}


def warm_up(
    model: nn.Module, train: Sequence[Tensor], setting: dict[str, Any], device: torch.device
) -> None:
    """Train a copy for one epoch: torch's one-time work is no part of the training time."""
    from bslfast.training import fit

    fit(copy.deepcopy(model), train, train, epochs=1, **setting, device=device)


def _build(options: argparse.Namespace, data: Dataset, likelihood: str) -> BayesianMLP:
    from bslfast.bnn import BayesianMLP

    targets = data.y.shape[1] if data.y.is_floating_point() else len(data.target_names)
    with seeded(options.seed, torch.device("cpu")):
        return BayesianMLP(
            data.x.shape[1], tuple(options.hidden), targets, likelihood=likelihood,
            prior_scale=options.prior_scale, init_scale=_INIT_SCALE,
        )  # fmt: skip


@torch.no_grad()
def _start_at_means(model: BayesianMLP, y: Tensor) -> None:
    """Set the last biases to the logarithms of mean counts: rates of 1 may be far from them."""
    bias: Any = model.layers[-1].bias_loc
    bias[: y.shape[1]] = y.double().mean(0).clamp_min(1e-3).log()


def _scaled(part: Examples, inputs: Standardizer, targets: Standardizer | None) -> Examples:
    y = part.y if targets is None else targets.transform(part.y)
    # float64 until here, for columns such as dates: large numbers that differ little.
    return part._replace(x=inputs.transform(part.x).float(), y=y)


def _layers(options: argparse.Namespace, data: Dataset) -> str:
    widths = [data.x.shape[1], *options.hidden]
    return (
        f"Bayesian network {'-'.join(map(str, widths))}-{len(data.target_names)}, "
        f"prior N(0, {options.prior_scale:g}²)"
    )


def scale_priors(model: BayesianMLP, scale: float) -> None:
    """Give biases the prior N(0, scale^2), and weights that over the root of a layer's inputs.

    Outputs of a layer then vary alike under the prior, whatever the number of its inputs.
    """
    from bslfast.nn import priors

    layers: Any = model.layers
    for layer in layers:
        layer.priors |= {
            "weight": priors.Normal(0.0, scale / math.sqrt(layer.in_features)),
            "bias": priors.Normal(0.0, scale),
        }


def versions() -> dict[str, Any]:
    """Return the versions and the threads that a run depends on, for its report."""
    from importlib.metadata import version

    return {
        "bslfast": version("bslfast"),
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "threads": torch.get_num_threads(),
    }


def plain_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as JSON values, the path of the data as it is from anywhere."""
    found = {
        key: str(value) if isinstance(value, Path | torch.device) else value
        for key, value in vars(options).items()
        if key != "run"
    }
    if isinstance(getattr(options, "data", None), Path):
        found["data"] = os.path.abspath(options.data)
    return found


@contextlib.contextmanager
def no_empty_folders(out: Path) -> Iterator[None]:
    """Remove the folders that a job has made in ``out`` and left empty, if it fails."""
    known = {*out.glob("*")}
    absent = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in (*(path for path in out.glob("*") if path not in known), *absent):
            with contextlib.suppress(OSError):  # a file, or not empty
                folder.rmdir()
        raise


def say(topic: str, text: str) -> None:
    """Print one line of a job's report."""
    print(f"{topic:<9} {text}", flush=True)


def positive_int(text: str) -> int:
    """Return an option's value; argparse turns the error into a message."""
    return number(text, int, "an integer of at least 1", lambda value: value >= 1)


def seed(text: str) -> int:
    """Return an option's value; argparse turns the error into a message."""
    return number(text, int, "an integer from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)


def positive(text: str) -> float:
    """Return an option's value; argparse turns the error into a message."""
    return number(
        text, float, "a finite number above 0", lambda value: math.isfinite(value) and value > 0
    )


def not_negative(text: str) -> float:
    """Return an option's value; argparse turns the error into a message."""
    return number(
        text, float, "a finite number of at least 0",
        lambda value: math.isfinite(value) and value >= 0,
    )  # fmt: skip


def number(text: str, kind: Callable[[str], _N], wanted: str, holds: Callable[[_N], bool]) -> _N:
    """Return the number that an option's text is; ArgumentTypeError says what was ``wanted``."""
    value: _N | None = None
    with contextlib.suppress(ValueError):
        value = kind(text)
    if value is None or not holds(value):
        raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}")
    return value


def _device(text: str) -> torch.device:
    try:
        return _checks.device("device", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
