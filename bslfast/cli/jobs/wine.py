"""``bslfast train wine``: classification of 178 wines by their cultivar, one of three."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bslfast.cli import runner
from bslfast.cli.jobs import classification

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
        evaluate=classification.evaluate,
        pictures=pictures,
    )


def pictures(prediction: Prediction, test: Examples, data: Dataset) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    return plots.diagnostics(prediction, test.y, data.target_names, title="Wines, held out")
