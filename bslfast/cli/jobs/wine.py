"""``bslfast train wine``: classification of 178 wines by their cultivar, one of three."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bslfast.cli import runner

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Dataset, Examples
    from bslfast.predict import Prediction


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("wine", help="classify 178 wines by 13 measurements (no network)")
    runner.add_options(
        parser, epochs=400, hidden=(16,), batch_size=32, lr=0.01, patience=None, samples=500
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from bslfast.data import load_wine

    return runner.run(
        options,
        name="wine",
        load=load_wine,
        likelihood="categorical",
        evaluate=evaluate,
        pictures=pictures,
    )


def evaluate(prediction: Prediction, test: Examples) -> dict[str, float]:
    """Return the metrics on held-out examples."""
    from bslfast import metrics

    return {
        "accuracy": metrics.accuracy(prediction.mean, test.y),
        "mean_log_likelihood": metrics.mean_log_likelihood(prediction, test.y),
        "expected_calibration_error": metrics.expected_calibration_error(
            prediction.mean, test.y, bins=10
        ),
        "mean_aleatoric_entropy": prediction.aleatoric.mean().item(),
        "mean_epistemic_entropy": prediction.epistemic.mean().item(),
    }


def pictures(prediction: Prediction, test: Examples, data: Dataset) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    return {
        "predictions": plots.class_probabilities(
            prediction, test.y, data.target_names, title="wine: held-out predictions"
        ),
        "calibration": plots.calibration(prediction, test.y, "wine: calibration on held-out data"),
    }
