"""``bslfast train classification``: a Bayesian network that predicts labels of a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bslfast.cli import runner, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Dataset, Examples
    from bslfast.predict import Prediction

# Rows for each class on average: a column with more classes holds numbers, or names of the rows.
_ROWS = 5


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("classification", help="predict labels of a table of your own")
    tables.add_options(parser)
    parser.add_argument(
        "--target", nargs="+", metavar="COL", help="column of the labels (the last one)"
    )
    runner.add_options(
        parser, epochs=None, hidden=None, batch_size=None, lr=None, patience=None, samples=200,
        by_rows=True,
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    name = tables.name(options, "classification")
    data = load(options)
    tables.fill(options, len(data.x))
    counts = data.y.bincount().tolist()
    shares = [f"{k} {n / len(data.y):.0%}" for k, n in zip(data.target_names, counts, strict=True)]
    runner.say("classes", tables.listed(shares))
    return runner.run(
        options,
        name=name,
        load=lambda: data,
        likelihood="categorical",
        evaluate=evaluate,
        pictures=pictures,
    )


def load(options: argparse.Namespace) -> Dataset:
    """Return inputs and labels of the file.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: naming the file or the
            option, and the fault.
    """
    from bslfast.data import Dataset, split

    table = tables.read(options)
    targets = tables.targets(options, table)
    if len(targets) > 1:
        raise ValueError(f"--target: expected one column of labels, got {', '.join(targets)}")
    (target,) = targets
    features = tuple(name for name in table.names if name != target)
    x, (y, classes) = table.numbers(features), table.labels(target)
    missing = dict(zip(features, x.isnan().T, strict=True)) | {target: y < 0}
    rows = tables.complete(options, table, missing)
    # A class may have been left out with its rows.
    present, y = y[rows].unique(return_inverse=True)
    x, classes = x[rows], tuple(classes[k] for k in present.tolist())
    if not 2 <= len(classes) <= len(y) // _ROWS:
        raise ValueError(
            f"{table.path}, column {target!r}: expected from 2 to {len(y) // _ROWS} labels in "
            f"{len(y)} rows, got {len(classes)}: {tables.listed(classes)}"
        )
    train = split(x, y, seed=options.seed).train
    for name, count in zip(classes, train.y.bincount(minlength=len(classes)).tolist(), strict=True):
        if not count:
            raise ValueError(
                f"{table.path}, column {target!r}: expected each label in the rows for training, "
                f"got {name!r} in held-out rows alone; it needs more rows, or another --seed"
            )
    tables.moderate(table.path, features, train.x, x)
    return Dataset(x, y, features, classes, table.path)


def evaluate(prediction: Prediction, test: Examples) -> dict[str, float]:
    """Return the metrics on held-out examples."""
    from bslfast import metrics

    return metrics.summary(prediction, test.y)


def pictures(prediction: Prediction, test: Examples, data: Dataset) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    return plots.diagnostics(prediction, test.y, data.target_names, title="Classes, held out")
