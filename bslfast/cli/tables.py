"""The common part of the jobs on a table of one's own: its options, and what is taken from it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bslfast.cli import runner

if TYPE_CHECKING:
    from bslfast.data import Columns

#: Fewer rows say nothing about a network: three would be left for the test.
LEAST = 20
# For up to so many rows: batch size, learning rate, hidden widths. About those of the jobs on 178
# and on 4898 wines.
_SIZES: tuple[tuple[float, dict[str, Any]], ...] = (
    (500, {"batch_size": 32, "lr": 0.01, "hidden": [16]}),
    (2_000, {"batch_size": 32, "lr": 0.01, "hidden": [50]}),
    (20_000, {"batch_size": 128, "lr": 0.005, "hidden": [50]}),
    (float("inf"), {"batch_size": 512, "lr": 0.002, "hidden": [100, 100]}),
)
#: Likewise for flows. A flow of few rows goes on learning after a network for them has stopped.
FLOW_SIZES: tuple[tuple[float, dict[str, Any]], ...] = (
    (2_000, {"batch_size": 32, "lr": 0.001}),
    (5_000, {"batch_size": 64, "lr": 0.001}),
    (20_000, {"batch_size": 128, "lr": 0.002}),
    (float("inf"), {"batch_size": 512, "lr": 0.002}),
)
# About so many steps are taken at most, in a number of epochs between these.
_STEPS, _EPOCHS = 6000, (20, 400)
FLOW_STEPS = 8000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of reading a table."""
    add = parser.add_argument
    add(
        "--data", type=Path, required=True, metavar="FILE",
        help="the table: .csv, .npy, .npz or .parquet (by pandas)",
    )  # fmt: skip
    add("--ignore", nargs="+", default=[], metavar="COL", help="columns to leave out")
    add(
        "--delimiter", type=_delimiter, default=",", metavar="CHARACTER",
        help=r"between the fields of a .csv file, \t for a tab (%(default)s)",
    )  # fmt: skip
    add("--no-header", action="store_true", help="a .csv file's first line is data")
    add(
        "--missing", choices=("refuse", "drop"), default="refuse",
        help="what to do with rows that lack values: an error, or leave them out (%(default)s)",
    )  # fmt: skip


def _delimiter(text: str) -> str:
    """Return an option's value; argparse turns the error into a message."""
    found = "\t" if text == r"\t" else text  # as a shell passes it on
    if len(found) != 1 or found in '"\r\n':
        raise argparse.ArgumentTypeError(
            r"expected one character, neither a quote nor the end of a line, or \t for a tab, "
            f"got {text!r}"
        )
    return found


def read(options: argparse.Namespace, path: Path | None = None) -> Columns:
    """Return the columns of the file, or of another one, but for those to leave out.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: naming the file or the
            option, and the fault.
    """
    from bslfast.data import read_columns

    table = read_columns(
        path or options.data, header=not options.no_header, delimiter=options.delimiter
    )
    kept = table.without(table.expand("--ignore", options.ignore))
    if not kept.values:
        raise ValueError(f"--ignore: expected some of the columns of {table.path}, got all of them")
    return kept


def targets(options: argparse.Namespace, table: Columns) -> tuple[str, ...]:
    """Return the names of the targets: by default the last column."""
    names = table.expand("--target", options.target or table.names[-1:])
    if len(names) == len(table.names):
        raise ValueError(
            f"--target: expected other columns in {table.path}, for the inputs, got all "
            f"{len(names)}"
        )
    return names


def labels(options: argparse.Namespace, table: Columns) -> str:
    """Return the name of the column that ``--labels`` names, perhaps by a matrix's name."""
    column, *others = table.expand("--labels", [options.labels])
    if others:
        raise ValueError(f"--labels: expected one column, got {len(others) + 1}")
    return column


def name(options: argparse.Namespace, *parts: str) -> str:
    """Return the name of a job's folder: what is trained, and the data's name.

    Raises:
        ValueError: if the results of another file, which has the same name, are there.
    """
    found = "-".join((*parts, options.data.stem))
    there, here = runner.data_of(options.out / found), os.path.abspath(options.data)
    if there not in (None, here):
        raise ValueError(
            "--out: expected a folder without results of another table, got "
            f"{str(options.out)!r}, where {found} is of {there} and would become that of {here}"
        )
    return found


def complete(
    options: argparse.Namespace, table: Columns, missing: dict[str, Tensor], least: int = LEAST
) -> Tensor:
    """Return the indices of the rows without a missing value.

    Args:
        options: of the job.
        table: the columns.
        missing: by the names of columns, bool [rows].
        least: how many such rows there have to be.

    Raises:
        ValueError: naming the file, row and column of the first missing value, unless such rows are
            to be left out; or if hardly any rows remain.
    """
    lacking = torch.stack([*missing.values()], dim=1)
    rows = lacking.any(dim=1)
    count, total = int(rows.sum()), len(rows)
    if count:
        row, column = lacking.nonzero()[0].tolist()
        where = table.place(row, [*missing][column])
        if options.missing == "refuse":
            raise ValueError(
                f"{where}: expected a value, got none; {count} of {total} rows lack values, and "
                "--missing drop leaves them out"
            )
        runner.say("data", f"{count} of {total} rows left out, as they lack values; first {where}")
    if total - count < least:
        raise ValueError(
            f"{table.path}: expected at least {least} rows with all values, got {total - count}"
        )
    return (~rows).nonzero().flatten()


def numbers(options: argparse.Namespace, table: Columns, least: int = LEAST) -> Tensor:
    """Return the rows without a missing value of a table of numbers, float64 [rows, columns].

    Raises:
        ValueError: naming the columns of text, or what :func:`complete` refuses.
    """
    values = table.numbers(table.names)
    missing = dict(zip(table.names, values.isnan().T, strict=True))
    return values[complete(options, table, missing, least)]


def differ(path: Path | str, names: Sequence[str], x: Tensor, why: str) -> None:
    """Raise ValueError naming a column of x [rows, columns] whose numbers are all the same."""
    from bslfast.data.tabular import moments

    for column, spread in zip(names, moments(x)[1].tolist(), strict=True):
        if spread == 0:
            raise ValueError(
                f"{path}, column {column!r}: expected numbers that differ, {why}, got the same in "
                f"all {len(x)} rows for training"
            )


def moderate(path: Path | str, names: Sequence[str], train: Tensor, x: Tensor) -> None:
    """Raise ValueError naming a column of x that is too large for float32 once standardised.

    Args:
        path: the file.
        names: of the columns.
        train: the rows for training, float64 [rows, columns], by which columns are standardised.
        x: all rows.
    """
    from bslfast.data.tabular import moments

    mean, spread = moments(train)
    far = torch.maximum(x.amax(0) - mean, mean - x.amin(0)) / torch.where(spread == 0, 1.0, spread)
    # Not a number if the spread is infinite, too.
    bad = ~((far <= torch.finfo(torch.float32).max) & spread.isfinite())
    if bool(bad.any()):
        j = int(bad.nonzero()[0])
        row = int(x[:, j].abs().argmax())
        raise ValueError(
            f"{path}, column {names[j]!r}: expected numbers that float32 holds once they are "
            f"standardised, got {x[row, j].item():g} among numbers whose mean is {mean[j]:g} and "
            f"standard deviation {spread[j]:g} in the training rows"
        )


def fill(
    options: argparse.Namespace,
    rows: float,
    sizes: Sequence[tuple[float, dict[str, Any]]] = _SIZES,
    most_steps: int = _STEPS,
) -> None:
    """Choose the options of training that are not given, by the number of rows."""
    chosen = next(dict(values) for most, values in sizes if rows <= most)
    if options.batch_size is None:
        options.batch_size = chosen["batch_size"]
    steps = max(1, round(0.7 * rows / options.batch_size))
    fewest, most = _EPOCHS
    chosen["epochs"] = options.epochs or min(most, max(fewest, round(most_steps / steps)))
    chosen["patience"] = max(10, chosen["epochs"] // 4)
    for name, value in chosen.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return the first of some names as a text."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
