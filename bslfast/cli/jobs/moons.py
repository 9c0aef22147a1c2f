"""``bslfast train moons``: a normalizing flow of points on two half circles."""

from __future__ import annotations

import argparse
import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast import flows
from bslfast.cli import runner
from bslfast.predict import seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Standardizer
    from bslfast.training import History

_SAMPLES = 3000  # drawn for the pictures


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("moons", help="the density of two half circles (generated)")
    runner.add_training_options(parser, epochs=25, batch_size=256, lr=0.005, patience=None)
    add = parser.add_argument
    add("--flow", choices=("nsf", "realnvp"), default="nsf", help="which flow (%(default)s)")
    add(
        "--transforms", type=runner.positive_int, default=5,
        help="number of coupling transforms (%(default)s)",
    )  # fmt: skip
    add(
        "--hidden", type=runner.positive_int, nargs="+", default=[32, 32], metavar="WIDTH",
        help="widths of the hidden layers of each transform's network (%(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from bslfast.data import Standardizer, load_moons, split

    torch.set_num_threads(options.threads)
    data = load_moons(seed=options.seed % 2**32)
    parts = split(data.x, data.y, seed=options.seed)
    # Fitted on the training part alone: held-out rows must not influence the model's inputs.
    scaler = Standardizer.fit(parts.train.x)
    train, validation, test = ((scaler.transform(part.x),) for part in parts)
    model = _build(options)
    folder = options.out / "moons"
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    weights = sum(parameter.numel() for parameter in model.parameters())
    layers = (
        f"{type(model).__name__} of {options.transforms} couplings with hidden layers "
        f"{'-'.join(map(str, options.hidden))}"
    )
    runner.say("job", f"moons on {options.device}, seed {options.seed}, threads {options.threads}")
    rows = {"train": len(train[0]), "validation": len(validation[0]), "test": len(test[0])}
    runner.say(
        "data",
        f"{len(data.x)} points: {rows['train']} training, {rows['validation']} validation, "
        f"{rows['test']} test; from {data.source}",
    )
    runner.say("model", f"{layers}, {weights} parameters")

    checkpoint = folder / "checkpoint.safetensors"
    setting: dict[str, Any] = {
        "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed,
        "schedule": "cosine", "objective": flows.Flow.log_prob,
    }  # fmt: skip
    initial = copy.deepcopy(model)
    runner.warm_up(initial, train, setting, options.device)
    history = runner.train_model(model, train, validation, options, checkpoint, setting)
    results = evaluate(model, test[0].to(options.device), scaler)
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    report: dict[str, Any] = {
        "job": "moons",
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {
            "source": data.source, "features": data.feature_names, "rows": rows,
            "input_mean": scaler.mean.tolist(), "input_scale": scaler.scale.tolist(),
        },
        "model": {"parameters": weights, "layers": layers},
        "training": runner.training_report(history),
        "test": results,
    }  # fmt: skip
    if not options.no_reference:
        report["reference"] = _reference(
            options, initial, history, (train, validation, test), scaler, setting
        )

    figures = pictures(model, history, scaler, parts.test.x, options)
    runner.write_results(folder, report, figures)
    return 0


@torch.no_grad()
def evaluate(model: flows.Flow, x: Tensor, scaler: Standardizer) -> dict[str, float]:
    """Return the mean negative log density of held-out points, in nats, in their original unit.

    Args:
        model: a flow of standardised points.
        x: standardised points.
        scaler: the Standardizer that standardised them.
    """
    return {"nll": _offset(scaler) - model.log_prob(x).double().mean().item()}


def pictures(
    model: flows.Flow,
    history: History,
    scaler: Standardizer,
    x: Tensor,
    options: argparse.Namespace,
) -> dict[str, Figure]:
    """Return the pictures of a trained flow, by file name.

    Args:
        model: a flow of standardised points.
        history: history of its training.
        scaler: the Standardizer that standardised the points.
        x: held-out points in their original unit.
        options: options of the job.
    """
    from bslfast.plots import densities

    def log_prob(points: Tensor) -> Tensor:
        scaled = scaler.transform(points).to(options.device)
        return model.log_prob(scaled) - _offset(scaler)

    samples = scaler.inverse(model.sample(_SAMPLES, seed=options.seed)).cpu()
    return {
        "density": densities.density(x, samples, log_prob, "moons: data, samples, density"),
        "steps": densities.steps(
            model, scaler.transform(x).to(options.device), "moons: from data to noise and back",
            seed=options.seed,
        ),
        "learning_curves": densities.learning_curves(
            history, "moons: learning curves", offset=_offset(scaler)
        ),
    }  # fmt: skip


def _offset(scaler: Standardizer) -> float:
    """The log-determinant of the scaling's inverse, which it adds to a negative log density."""
    return scaler.scale.double().log().sum().item()


def _reference(
    options: argparse.Namespace,
    initial: flows.Flow,
    history: History,
    parts: tuple[tuple[Tensor], ...],
    scaler: Standardizer,
    setting: dict[str, Any],
) -> dict[str, Any]:
    """Train the same flow in plain torch, time both and return the results."""
    from bslfast.cli.plain import plain
    from bslfast.training import fit

    train, validation, test = parts
    twin = plain(initial)
    assert isinstance(twin, flows.Flow)
    runner.warm_up(twin, train, setting, options.device)
    print("the same training in plain torch (softmax, cumsum, gather, ...):", flush=True)
    other = fit(
        twin, train, validation, epochs=len(history.loss), **setting, device=options.device,
        progress=True,
    )  # fmt: skip
    results = evaluate(twin, test[0].to(options.device), scaler)
    networks = {"bslfast": initial, "plain torch": plain(initial)}
    return runner.compare_times(history, other, results) | runner.compare_steps(
        networks, train, setting, options.device
    )


def _build(options: argparse.Namespace) -> flows.Flow:
    shape: Any = {"transforms": options.transforms, "hidden": tuple(options.hidden)}
    with seeded(options.seed, torch.device("cpu")):
        if options.flow == "realnvp":
            return flows.RealNVP(2, **shape)
        # A bound that neither standardised data nor noise reaches.
        return flows.NSF(2, bound=5.0, **shape)
