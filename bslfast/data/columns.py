"""Tables whose columns hold numbers, text, or nothing in some rows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bslfast import _checks
from bslfast.data.files import (
    decimal_comma,
    finite_number,
    named_rows,
    numbered,
    read_npy,
    whole_rows,
)

#: Endings of the names of files that :func:`read_columns` reads.
SUFFIXES = (".csv", ".npy", ".npz", ".parquet")
# What programs write where a table has nothing.
_NOTHING = ("", "na", "n/a", "#n/a", "nan", "null", "none", "?")
# In a column of labels, most of these may be labels.
_NO_LABEL = ("", "nan")
_TRUTH = {"true": 1.0, "false": 0.0}


@dataclass(frozen=True)
class Columns:
    """The columns of a file, as :func:`read_columns` returns them.

    Attributes:
        path: the file.
        values: by the names of the columns, float64 [rows], NaN where there is nothing, or texts.
        groups: by the names of matrices in a .npz file, the names of their columns.
        lines: of a .csv file, the numbers of the rows' first lines.
    """

    path: str
    values: dict[str, Tensor | list[str]]
    groups: dict[str, tuple[str, ...]]
    lines: list[int] | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.values.values())))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the file's order."""
        return tuple(self.values)

    def place(self, row: int, column: str) -> str:
        """Return where a value is, for an error."""
        where = f"row {row}" if self.lines is None else f"line {self.lines[row]}"
        return f"{self.path}, {where}, column {column!r}"

    def expand(self, option: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return the columns that an option names, by their names or those of matrices.

        Raises:
            ValueError: naming ``option`` and a name that is no column's, or comes twice.
        """
        found: list[str] = []
        for name in names:
            if name not in self.values and name not in self.groups:
                raise ValueError(
                    f"{option}: expected columns of {self.path}, {_listed(self.names, 12)}, got "
                    f"{name!r}"
                )
            found += [name] if name in self.values else self.groups[name]
        twice = next((name for name in found if found.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{option}: expected each column once, got {twice!r} more often")
        return tuple(found)

    def without(self, names: Sequence[str]) -> Columns:
        """Return the table without some columns."""
        values = {k: v for k, v in self.values.items() if k not in names}
        groups = {k: tuple(n for n in v if n in values) for k, v in self.groups.items()}
        return replace(self, values=values, groups={k: v for k, v in groups.items() if v})

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Return columns as float64 [rows, columns], NaN where there is nothing.

        A column of truth values, True and False, is one of 1 and 0.

        Raises:
            ValueError: naming the columns that hold text, and for each the first row; or the place
                of an infinity.
        """
        parts, wrong = [], []
        for name in names:
            column = self.values[name]
            part, bad = (column, None) if isinstance(column, Tensor) else _parsed(column)
            parts.append(part)
            if bad is not None:
                wrong.append((name, bad, str(column[bad])))
            elif bool(part.isinf().any()):
                row = int(part.isinf().nonzero()[0])
                raise ValueError(f"{self.place(row, name)}: expected a finite number, got infinity")
        if wrong:
            name, row, value = wrong[0]
            others = [other for other, _, _ in wrong[1:]]
            more = f"; likewise in {_listed(others, 12)}" if others else ""
            hint = decimal_comma(value) or ". Columns of text can be left out (--ignore)"
            raise ValueError(
                f"{self.place(row, name)}: expected a finite number, got {value!r}{more}{hint}"
            )
        return torch.stack(parts, dim=1)

    def labels(self, name: str) -> tuple[Tensor, tuple[str, ...]]:
        """Return a column as labels: int64 [rows], -1 where there is nothing, and their names.

        Numbers are sorted as numbers, everything else as text. Equal numbers are one label, by the
        shortest of their texts: 1 and 1.0 are 1.
        """
        column = self.values[name]
        if isinstance(column, Tensor):
            texts = [None if math.isnan(value) else _label(value) for value in column.tolist()]
        else:
            texts = [None if t.strip().lower() in _NO_LABEL else t.strip() for t in column]
        # The shortest text of a number comes first and gives the name.
        found = sorted({text for text in texts if text is not None}, key=lambda t: (len(t), t))
        known: dict[Decimal | str, list[str]] = {}
        for text in found:
            # Exact numbers: floats do not tell long ones apart.
            key = text if finite_number(text) is None else Decimal(text)
            known.setdefault(key, []).append(text)
        numbers = sorted(key for key in known if isinstance(key, Decimal))
        if len(numbers) == len(known):
            groups = [known[number] for number in numbers]
        else:
            groups = sorted(known.values(), key=lambda group: group[0])
        names = [group[0] for group in groups]
        index = {text: i for i, group in enumerate(groups) for text in group}
        y = [-1 if text is None else index[text] for text in texts]
        return torch.tensor(y, dtype=torch.int64), tuple(names)


def read_columns(
    path: str | os.PathLike[str], *, header: bool = True, delimiter: str = ","
) -> Columns:
    """Read a table of numbers and texts, in which values may be missing.

    Args:
        path: a file whose name ends in .csv (as :func:`bslfast.data.read_csv` takes it), .npy (a
            matrix of numbers), .npz (arrays [rows] are columns of their names, matrices [rows, k]
            columns with a number after the name) or .parquet (read by pandas).
        header: whether the first line of a .csv file has the names of its columns. Otherwise, and
            in a .npy file, they are x1, x2 and so on.
        delimiter: of a .csv file, one character.

    A value is missing where an array has NaN, a .parquet file none, and a .csv file an empty field,
    "NA", "N/A", "#N/A", "NaN", "null", "None" or "?". Among labels only the first and "NaN" are.

    Raises:
        FileNotFoundError: if ``path`` is not a file.
        ValueError: naming the file and its fault.
        TypeError, ValueError: naming ``header`` or ``delimiter``.
        ModuleNotFoundError: for a .parquet file without pandas and a library for it.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "people.csv"
        ...     _ = path.write_text("height,name\\n1.7,Ann\\n,Bob\\n1.8,Ann\\n")
        ...     table = read_columns(path)
        >>> table.numbers(["height"]).flatten()
        tensor([1.7000,    nan, 1.8000], dtype=torch.float64)
        >>> table.labels("name")
        (tensor([0, 1, 0]), ('Ann', 'Bob'))
    """
    path = Path(path)
    _checks.flag("header", header)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(f"{path}: expected a file whose name ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a {kind} file, found none")
    if kind == ".csv":
        return _read_csv(path, header, delimiter)
    if kind == ".parquet":
        return _read_parquet(path)
    if kind == ".npy":
        matrix = read_npy(path)
        return Columns(str(path), dict(zip(numbered(matrix.shape[1]), matrix.T, strict=True)), {})
    return of_arrays(path, read_arrays(path))


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a .npz file by name, or that of a .npy file as "x".

    Raises:
        ValueError: naming the file, if numpy cannot read it or it holds Python objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"x": found}
        with found:
            return {name: found[name] for name in found.files}
    # A damaged archive raises errors of zipfile and zlib, which have no common base.
    except Exception as error:
        raise ValueError(
            f"{path}: expected a whole file of arrays of numbers or text, got one that numpy "
            f"cannot read: {error}"
        ) from None


def _read_csv(path: Path, header: bool, delimiter: str) -> Columns:
    names, rows = named_rows(path, header=header, delimiter=delimiter)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"{path}, line 1: expected each name once, got {names.count(twice)} columns {twice!r}"
        )
    lines, columns = [], [[] for _ in names]  # type: tuple[list[int], list[list[str]]]
    for line, row in whole_rows(path, names, rows):
        lines.append(line)
        for column, field in zip(columns, row, strict=True):
            column.append(field)
    if not lines:
        raise ValueError(f"{path}: expected rows below the header, got none")
    return Columns(str(path), dict(zip(names, columns, strict=True)), {}, lines)


def of_arrays(
    path: Path, arrays: dict[str, np.ndarray[Any, Any]], rows: int | None = None
) -> Columns:
    """Return the columns of arrays [rows] and [rows, columns]; None rows for any number.

    Raises:
        ValueError: naming the file and the array.
    """
    values: dict[str, Tensor | list[str]] = {}
    groups = {}
    for name, array in arrays.items():
        wanted = f"{path}, array {name!r}: expected numbers or text, [rows] or [rows, columns]"
        if array.dtype.kind not in "fiubU" or array.ndim not in (1, 2) or array.size == 0:
            raise ValueError(f"{wanted}, got shape {list(array.shape)} and dtype {array.dtype}")
        if array.ndim == 1:
            parts = {name: array}
        else:
            parts = dict(zip(numbered(array.shape[1], name), array.T, strict=True))
            groups[name] = tuple(parts)
        for key, part in parts.items():
            if key in values:
                raise ValueError(f"{path}: expected each column once, got {key!r} more often")
            values[key] = _column(part)
    sizes = {name: len(array) for name, array in arrays.items()}
    if set(sizes.values()) != {next(iter(sizes.values()), 0) if rows is None else rows}:
        listed = ", ".join(f"{size} in {name!r}" for name, size in sizes.items())
        many = "as many" if rows is None else str(rows)
        raise ValueError(f"{path}: expected arrays of {many} rows, got {listed or 'none'}")
    return Columns(str(path), values, groups)


def _read_parquet(path: Path) -> Columns:
    try:
        import pandas
    except ImportError:
        raise ModuleNotFoundError(
            f"{path}: expected pandas, which reads .parquet files, to be installed: "
            "pip install pandas pyarrow"
        ) from None
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{path}: expected a library by which pandas reads .parquet files to be installed: "
            f"pip install pyarrow ({str(error).splitlines()[0]})"
        ) from None
    except Exception as error:  # the library's own, which need not be pyarrow
        raise ValueError(
            f"{path}: expected a whole .parquet file, got one that pandas cannot read: {error}"
        ) from None
    names = [str(name) for name in frame.columns]
    if not len(frame) or not names or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: expected rows, and columns of different names, got {len(frame)} rows of "
            f"{_listed(names, 12)}"
        )
    values: dict[str, Tensor | list[str]] = {}
    for name, (_, column) in zip(names, frame.items(), strict=True):
        if pandas.api.types.is_numeric_dtype(column) and not pandas.api.types.is_bool_dtype(column):
            values[name] = _column(column.to_numpy(dtype="float64", na_value=math.nan))
        else:
            texts = zip(column, column.isna(), strict=True)
            values[name] = ["" if missing else str(value) for value, missing in texts]
    return Columns(str(path), values, {})


def _column(array: np.ndarray[Any, Any]) -> Tensor | list[str]:
    if array.dtype.kind in "bU":
        return [str(value) for value in array.tolist()]
    return torch.from_numpy(array.astype(np.float64))


def _parsed(column: list[str]) -> tuple[Tensor, int | None]:
    """The numbers of a column of texts, and the first row that holds something else, or None."""
    found = []
    words = (field.strip().lower() for field in column)
    first = next((word for word in words if word not in _NOTHING), "")
    truth = first in _TRUTH and all(word in _TRUTH or word in _NOTHING for word in words)
    number = _truth if truth else finite_number
    for row, field in enumerate(column):
        value = number(field)
        if value is None:
            if field.strip().lower() not in _NOTHING:
                return torch.empty(0), row
            value = math.nan
        found.append(value)
    return torch.tensor(found, dtype=torch.float64), None


def _truth(field: str) -> float | None:
    return _TRUTH.get(field.strip().lower())


def _label(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
