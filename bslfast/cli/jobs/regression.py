"""``bslfast train regression``: a Bayesian network that predicts numbers of a table."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bslfast.cli import runner, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bslfast.data import Dataset, Examples
    from bslfast.predict import Prediction

_COUNTS = ("poisson", "negative_binomial")
_LIKELIHOODS = ("heteroscedastic_normal", "normal", "laplace", "student_t", *_COUNTS)
# Targets are float32 in training: what rounding may change, in standard deviations.
_ROUNDING = 1e-3


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("regression", help="predict numbers of a table of your own")
    tables.add_options(parser)
    parser.add_argument(
        "--target", nargs="+", metavar="COL", help="what to predict (the last column)"
    )
    parser.add_argument(
        "--likelihood", choices=_LIKELIHOODS, default=_LIKELIHOODS[0],
        help="law of the noise (%(default)s); poisson and negative_binomial are for counts",
    )  # fmt: skip
    runner.add_options(
        parser, epochs=None, hidden=None, batch_size=None, lr=None, patience=None, samples=200,
        by_rows=True,
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    name = tables.name(options, "regression")
    data = load(options)
    tables.fill(options, len(data.x))
    return runner.run(
        options,
        name=name,
        load=lambda: data,
        likelihood=options.likelihood,
        evaluate=partial(evaluate, names=data.target_names),
        pictures=pictures,
    )


def load(options: argparse.Namespace) -> Dataset:
    """Return inputs and targets of the file.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: naming the file or the
            option, and the fault.
    """
    from bslfast.data import Dataset, split

    table = tables.read(options)
    targets = tables.targets(options, table)
    features = tuple(name for name in table.names if name not in targets)
    values = dict(zip(table.names, tables.numbers(options, table).T, strict=True))
    x, y = (torch.stack([values[name] for name in names], 1) for names in (features, targets))
    train = split(x, y, seed=options.seed).train
    tables.differ(table.path, targets, train.y, "as there is nothing to predict in others")
    tables.moderate(table.path, features, train.x, x)
    if options.likelihood in _COUNTS:
        _check_counts(options.likelihood, table.path, targets, y)
    errors = (y.float().double() - y).abs().amax(dim=0)
    for name, error, spread, mean in zip(targets, errors, y.std(0), y.mean(0), strict=True):
        if not error <= _ROUNDING * spread:
            raise ValueError(
                f"{table.path}, column {name!r}: expected numbers that float32 tells apart, got a "
                f"standard deviation of {spread:.4g} around {mean:.10g}; take that away from them"
            )
    return Dataset(x, y.float(), features, targets, table.path)


def _check_counts(likelihood: str, path: Path | str, names: Sequence[str], y: Tensor) -> None:
    """Raise ValueError naming the first target, [rows, targets], that is no count."""
    whole = (y >= 0) & (y == y.floor())
    if not bool(whole.all()):
        row, column = (~whole).nonzero()[0].tolist()
        raise ValueError(
            f"{path}, column {names[column]!r}: expected whole numbers of at least 0 for "
            f"--likelihood {likelihood}, got {y[row, column].item():.10g}"
        )


def evaluate(
    prediction: Prediction, test: Examples, names: tuple[str, ...] = ("",)
) -> dict[str, float]:
    """Return the metrics on held-out examples, in the unit of the targets.

    Several targets have several units, so that errors are those of each.
    """
    from bslfast import metrics

    if len(names) > 1:
        each = zip(names, parts(prediction, test), strict=True)
        by_target = {name: evaluate(*part) for name, part in each}
        return {
            "mean_log_likelihood": metrics.mean_log_likelihood(prediction, test.y),
            "coverage_95": metrics.coverage(prediction, test.y, 0.95),
            **{f"{key}, {n}": value for n, own in by_target.items() for key, value in own.items()},
        }
    return metrics.summary(prediction, test.y)


def parts(prediction: Prediction, test: Examples) -> list[tuple[Prediction, Examples]]:
    """Return predictions and examples of each target."""
    from bslfast.data import Standardizer
    from bslfast.predict import Prediction

    found = []
    for j in range(test.y.shape[1]):
        part = slice(j, j + 1)
        likelihood = copy.deepcopy(prediction.likelihood)
        likelihood.targets = 1
        for name, parameter in [*likelihood.named_parameters(recurse=False)]:
            setattr(likelihood, name, nn.Parameter(parameter[part]))  # a learned scale of each
        scaler = prediction.target_scaler
        own = Prediction(
            prediction.mean[:, part],
            prediction.aleatoric[:, part],
            prediction.epistemic[:, part],
            torch.cat([p[..., part] for p in prediction.likelihood.split(prediction.samples)], -1),
            likelihood,
            None if scaler is None else Standardizer(scaler.mean[part], scaler.scale[part]),
        )
        found.append((own, test._replace(y=test.y[:, part])))
    return found


def pictures(prediction: Prediction, test: Examples, data: Dataset) -> dict[str, Figure]:
    """Return the pictures of the predictions, by file name."""
    from bslfast import plots

    names = data.target_names
    if len(names) == 1:
        return plots.diagnostics(prediction, test.y, names, title=f"{names[0]}, held out")
    figures: dict[str, Figure] = {}
    for name, (own, examples) in zip(names, parts(prediction, test), strict=True):
        title = f"{name}, held out: predictions"
        figures[f"predictions_{len(figures) + 1}"] = plots.predictions(
            own, examples.y, name=name, title=title
        )
    return figures | plots.diagnostics(prediction, test.y, names, title="All targets, held out")
