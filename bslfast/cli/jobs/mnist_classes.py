"""``bslfast train mnist-classes``: a Bayesian dense network that classifies MNIST.

It reports error and calibration on the test images, and how well the epistemic part of its
predictions tells them from images unlike those of the training: digits turned by 90 degrees, and
noise.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import torch

from bslfast.cli import runner
from bslfast.cli.jobs import mnist
from bslfast.predict import predict, seeded

_INIT_SCALE = 0.01
# With 1 the divergence of half a million weights outweighs what sixty thousand images say.
_BETA = 0.02
# For values inside the network when predicting: the draws of ten thousand images take more.
_MAX_BYTES = 1 << 28


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("mnist-classes", help="a Bayesian dense network of MNIST's digits")
    runner.add_options(
        parser, epochs=15, hidden=(400, 400), batch_size=128, lr=0.002, patience=None, samples=50
    )
    parser.set_defaults(threads=torch.get_num_threads())
    parser.add_argument(
        "--beta", type=runner.not_negative, default=_BETA,
        help="weight of the KL; below 1 a tempered posterior (%(default)s)",
    )  # fmt: skip
    mnist.add_limit(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from bslfast import metrics, plots
    from bslfast.bnn import BayesianMLP

    torch.set_num_threads(options.threads)
    name = "mnist-classes"
    parts, source = mnist.load(options)
    train, validation, test = (part._replace(x=part.x.flatten(1)) for part in parts)
    with seeded(options.seed, torch.device("cpu")):
        model = BayesianMLP(
            train.x.shape[1], tuple(options.hidden), 10, likelihood="categorical",
            init_scale=_INIT_SCALE,
        )  # fmt: skip
    runner.scale_priors(model, options.prior_scale)
    initial = copy.deepcopy(model)
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    rows = {"train": len(train.x), "validation": len(validation.x), "test": len(test.x)}
    widths = "-".join(map(str, (train.x.shape[1], *options.hidden, 10)))
    runner.say("job", f"{name} on {options.device}, seed {options.seed}, threads {options.threads}")
    runner.say("data", ", ".join(f"{n} {part}" for part, n in rows.items()) + f"; from {source}")
    runner.say("model", f"Bayesian network {widths}")

    setting: dict[str, Any] = {
        "batch_size": options.batch_size, "lr": options.lr, "seed": options.seed,
        "schedule": "cosine", "beta": options.beta,
    }  # fmt: skip
    history = runner.train_model(
        model, train, validation, options, folder / "checkpoint.safetensors", setting
    )
    generator = torch.Generator().manual_seed(options.seed)
    images = {
        "test": test.x,
        "turned by 90 degrees": parts.test.x.rot90(1, (-2, -1)).flatten(1),
        "noise": torch.rand(test.x.shape, generator=generator),
    }
    started = time.perf_counter()
    predictions = {
        key: predict(
            model, x.to(options.device), options.samples, seed=options.seed, max_bytes=_MAX_BYTES
        )
        for key, x in images.items()
    }
    seconds = time.perf_counter() - started
    known, y = predictions["test"], test.y.to(options.device)
    results = {
        "error": 1 - metrics.accuracy(known.mean, y),
        "mean_log_likelihood": metrics.mean_log_likelihood(known, y),
        "expected_calibration_error": metrics.expected_calibration_error(known.mean, y),
        "brier_score": metrics.brier_score(known.mean, y),
    }
    for key, prediction in predictions.items():
        if key != "test":
            results[f"auroc, {key}"] = metrics.auroc(known.epistemic, prediction.epistemic)
    runner.say("test", ", ".join(f"{key} {value:.4g}" for key, value in results.items()))
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": source, "rows": rows},
        "model": {"layers": widths},
        "training": runner.training_report(history),
        "test": results,
        "prediction_seconds": seconds,
    }
    if not options.no_reference:
        from bslfast.cli.plain import plain

        networks = {
            "bslfast": initial,
            "plain torch": plain(initial),
            "no uncertainty (nn.Linear)": initial.deterministic_twin(),
        }
        some = [value[: 10 * options.batch_size] for value in train]
        report["reference"] = runner.compare_steps(
            networks, some, setting, options.device, runs=3, steps=10
        )
    figures = {
        "calibration": plots.calibration(known, y, f"{name}: calibration on the test images"),
        "epistemic": plots.scores(
            {key: prediction.epistemic for key, prediction in predictions.items()},
            name="epistemic part of the entropy, nats",
            title=f"{name}: what the network does not know",
        ),
        "learning_curves": plots.learning_curves(history, f"{name}: learning curves"),
    }
    runner.write_results(folder, report, figures)
    return 0
