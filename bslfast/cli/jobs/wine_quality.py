"""``bslfast train wine-quality``: regression of a wine's grade on 11 measurements."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from bslfast.cli import runner
from bslfast.cli.jobs import lecture, regression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Dataset, Examples
    from bslfast.predict import Prediction

_EPOCHS = 200


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("wine-quality", help="predict the grade of wines, with uncertainty")
    parser.add_argument(
        "--color", choices=("white", "red"), default="white", help="which wines (%(default)s)"
    )
    parser.add_argument(
        "--lecture", action="store_true",
        help="train four white wine networks of a lecture instead, with settings of their own "
        "(but for --epochs, --samples, --seed, --device, --threads and --out)",
    )  # fmt: skip
    runner.add_options(
        parser, epochs=None, hidden=(50,), batch_size=128, lr=0.005, patience=50, samples=200
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from bslfast.data import load_wine_quality

    if options.lecture:
        options.epochs = options.epochs or lecture.EPOCHS
        return lecture.run(options)
    options.epochs = options.epochs or _EPOCHS
    return runner.run(
        options,
        name=f"wine-quality-{options.color}",
        load=partial(load_wine_quality, options.color),
        likelihood="heteroscedastic_normal",
        evaluate=regression.evaluate,
        pictures=pictures,
    )


def pictures(prediction: Prediction, test: Examples, data: Dataset) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    return {
        "predictions": plots.predictions(
            prediction, test.y, name="grade", title="wine quality: held-out predictions"
        ),
        "calibration": plots.calibration(
            prediction, test.y, "wine quality: calibration on held-out data"
        ),
    }
