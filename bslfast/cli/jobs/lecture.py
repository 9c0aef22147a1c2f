"""``bslfast train wine-quality --lecture``: the experiments of a lecture with white wines.

A deterministic network, Bayesian ones of 30 % and of all training rows, and a Bayesian one with a
distribution as its output; sizes, steps and optimiser as there. Inputs and targets are standardised
by the training rows in the place of batch normalisation, the output layer is Bayesian like the
others, and the posterior is diagonal.

Source: Salama, "Probabilistic Bayesian neural networks" (2021,
https://keras.io/examples/keras_recipes/bayesian_neural_networks/).
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from bslfast.cli import runner
from bslfast.predict import Prediction, predict, seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Examples
    from bslfast.likelihoods import Likelihood
    from bslfast.training import History

#: Epochs of the longest training.
EPOCHS = 1000
_TRAIN = 0.85
_HIDDEN = (8, 8)
_BATCH_SIZE = 256
_LR = 0.001
_INIT_SCALE = 0.05
# Mean squared errors as a loss are a normal distribution of this variance.
_MSE_VARIANCE = 0.5


class Experiment(NamedTuple):
    """One of the trainings.

    Attributes:
        bayesian: whether the weights have a distribution.
        noise: whether the network has the noise as an output.
        rows: the part of the training rows.
        epochs: the part of the longest training's.
    """

    bayesian: bool
    noise: bool
    rows: float
    epochs: float


EXPERIMENTS = {
    "deterministic": Experiment(False, False, 1.0, 0.1),
    "bayesian, 30 %": Experiment(True, False, 0.3, 0.5),
    "bayesian, 100 %": Experiment(True, False, 1.0, 0.5),
    "probabilistic": Experiment(True, True, 1.0, 1.0),
}
_LAST = "probabilistic"


class Trained(NamedTuple):
    """What came out of an experiment; metrics and prediction are of the test rows."""

    metrics: dict[str, float]
    prediction: Prediction
    history: History


def run(options: argparse.Namespace) -> int:
    """Run the experiments, print a table of them, write the files."""
    from bslfast import plots
    from bslfast.data import Examples, load_wine_quality

    torch.set_num_threads(options.threads)
    data = load_wine_quality("white")
    name = "wine-quality-lecture"
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(options.seed))
    rows = int(_TRAIN * len(order))
    train, test = (Examples(data.x[part], data.y[part]) for part in (order[:rows], order[rows:]))
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)  # if that fails, better now than after training
    runner.say("job", f"{name} on {options.device}, seed {options.seed}, threads {options.threads}")
    runner.say("data", f"{len(train.x)} training, {len(test.x)} test; from {data.source}")
    found: dict[str, Trained] = {}
    for title, experiment in EXPERIMENTS.items():
        trained = _train(experiment, train, test, options)
        found[title] = trained
        shown = ", ".join(f"{key} {value:.4g}" for key, value in trained.metrics.items())
        runner.say(
            "test",
            f"{title}: {shown}; {trained.history.steps} steps {trained.history.seconds:.1f} s",
        )
    report: dict[str, Any] = {
        "job": name,
        "options": runner.plain_options(options),
        "versions": runner.versions(),
        "data": {"source": data.source, "rows": {"train": len(train.x), "test": len(test.x)}},
        "model": {"layers": f"11-{'-'.join(map(str, _HIDDEN))}-1, sigmoid, prior N(0, 1)"},
        "training": runner.training_report(found[_LAST].history),
        "test": found[_LAST].metrics,
        "experiments": {
            title: {"test": trained.metrics, "training": runner.training_report(trained.history)}
            for title, trained in found.items()
        },
    }
    held_out = Examples(*(value.to(options.device) for value in test))
    figures = pictures({title: trained.prediction for title, trained in found.items()}, held_out)
    figures["learning_curves"] = plots.learning_curves(
        found[_LAST].history, "wine quality, probabilistic network: learning curves"
    )
    runner.write_results(folder, report, figures)
    return 0


def pictures(predictions: dict[str, Prediction], test: Examples) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    some = {key: value for key, value in predictions.items() if key.startswith("bayesian")}
    return {
        "predictions": plots.predictions(
            predictions[_LAST], test.y, name="grade",
            title="wine quality: predictions of the probabilistic network",
        ),
        "calibration": plots.calibration(
            predictions[_LAST], test.y, "wine quality: calibration of the probabilistic network"
        ),
        "epistemic": plots.spreads(
            some, test.y, name="grade", title="wine quality: what more data does to the weights"
        ),
    }  # fmt: skip


def _train(
    experiment: Experiment, train: Examples, test: Examples, options: argparse.Namespace
) -> Trained:
    from bslfast import metrics
    from bslfast.data import Examples, Standardizer
    from bslfast.training import fit

    rows = int(experiment.rows * len(train.x))
    x, y = train.x[:rows], train.y[:rows]
    inputs, targets = Standardizer.fit(x), Standardizer.fit(y)
    model = _network(experiment, x.shape[1], targets.scale.item(), options.seed)
    history = fit(
        model, Examples(inputs.transform(x), targets.transform(y)),
        epochs=math.ceil(experiment.epochs * options.epochs), batch_size=_BATCH_SIZE, lr=_LR,
        optimizer="rmsprop", seed=options.seed, device=options.device, progress=True,
    )  # fmt: skip
    fitted, prediction = (
        predict(
            model, inputs.transform(part).to(options.device), options.samples, seed=options.seed,
            target_scaler=targets,
        )
        for part in (x, test.x)
    )  # fmt: skip
    truth = test.y.to(options.device)
    return Trained(
        {
            "rmse": metrics.rmse(prediction.mean, truth),
            "train_rmse": metrics.rmse(fitted.mean, y.to(options.device)),
            "mean_negative_log_likelihood": -metrics.mean_log_likelihood(prediction, truth),
            "coverage_95": metrics.coverage(prediction, truth),
            "mean_aleatoric": prediction.aleatoric.mean().item(),
            "mean_epistemic": prediction.epistemic.mean().item(),
        },
        prediction,
        history,
    )


def _network(experiment: Experiment, features: int, target_scale: float, seed: int) -> nn.Module:
    from bslfast.bnn import BayesianMLP
    from bslfast.likelihoods import HeteroscedasticNormal, Normal
    from bslfast.nn import posteriors

    fixed = Normal(1, scale=math.sqrt(_MSE_VARIANCE) / target_scale)
    likelihood: Likelihood = HeteroscedasticNormal(1) if experiment.noise else fixed
    with seeded(seed, torch.device("cpu")):
        model = BayesianMLP(
            features, _HIDDEN, 1, activation="sigmoid", likelihood=likelihood,
            posterior=posteriors.Normal(init_scale=_INIT_SCALE),
        )  # fmt: skip
        return model if experiment.bayesian else model.deterministic_twin()
