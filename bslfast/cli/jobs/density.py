"""``bslfast train density``: a normalizing flow of the rows of any table of numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bslfast.cli import flows, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The part of the rows that is held out for validation, and for the test, if there is no file.
_HELD_OUT = 0.15
_TRAINED = 1 - 2 * _HELD_OUT
# Rows of each part: a standard error needs two.
_LEAST = 2


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("density", help="the density of the rows of a table of your own")
    tables.add_options(parser)
    add = parser.add_argument
    what = f"; by default {_HELD_OUT:.0%}% of the rows of --data, at random"
    add("--validation", type=Path, metavar="FILE", help=f"rows to stop by{what}")
    add("--test", type=Path, metavar="FILE", help=f"rows to report on{what}")
    flows.add_options(
        parser, epochs=None, batch_size=None, lr=None, patience=None, hidden=(64, 64), by_rows=True
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    name = tables.name(options, "density", options.flow)
    data = load(options)
    # Those of a file of which none are held out count as the training rows of a larger one.
    rows = len(data.train) / _TRAINED
    tables.fill(options, rows, tables.FLOW_SIZES, tables.FLOW_STEPS)
    return flows.run(options, name, data, pictures)


def load(options: argparse.Namespace) -> flows.Data:
    """Read the files, and hold rows out where there is none for it.

    Raises:
        FileNotFoundError, TypeError, ValueError: naming the file or the option and its fault.
    """

    def read(path: Path) -> tuple[Tensor, tuple[str, ...]]:
        table = tables.read(options, path)
        return tables.numbers(options, table, least=1), table.names

    rows, features = read(options.data)
    parts = {"train": rows}
    for name, path in (("validation", options.validation), ("test", options.test)):
        if path is None:
            continue
        parts[name], found = read(path)
        if found != features:
            raise ValueError(
                f"{path}: expected the columns of {options.data}, {_listed(features)}, got "
                f"{_listed(found)}"
            )
    # The permutation depends on the seed and the number of rows alone.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(options.seed))
    for name in ("test", "validation"):
        if name not in parts:
            held_out, order = order.tensor_split([round(_HELD_OUT * len(rows))])
            parts[name] = rows[held_out]
    parts["train"] = rows[order]
    sources = {"train": options.data, "validation": options.validation, "test": options.test}
    for name, part in parts.items():
        if len(part) < _LEAST:
            path = sources[name] or options.data
            raise ValueError(
                f"{path}: expected at least {_LEAST} rows for the {name} part, got {len(part)}"
                + ("" if sources[name] and name != "train" else f" of the file's {len(rows)}")
            )
    tables.differ(options.data, features, parts["train"], "as others have no density")
    for name, part in parts.items():
        tables.moderate(sources[name] or options.data, features, parts["train"], part)
    source = ", ".join(str(path) for path in sources.values() if path is not None)
    return flows.Data(parts["train"], parts["validation"], parts["test"], features, source)


def _listed(names: tuple[str, ...], most: int = 6) -> str:
    shown = ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
    return f"{len(names)} ({shown})"


def pictures(trained: flows.Trained, name: str) -> dict[str, Figure]:
    """Return the pictures of a trained flow, by file name."""
    from bslfast.plots import densities

    test, samples, names = trained.data.test, trained.samples, trained.data.features
    if len(names) == 2:
        title = f"{name}: data, samples, density"
        return {"density": densities.density(test, samples, trained.log_prob, title, names=names)}
    title = f"{name}: data and samples"
    return {"marginals": densities.marginals(test, samples, names, title)}
