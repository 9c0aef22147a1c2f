"""Finding and reading data files."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bslfast import _checks


def read_csv(path: str | os.PathLike[str], columns: Sequence[str], delimiter: str = ",") -> Tensor:
    """Read the named columns of a CSV file with a header as a float64 tensor [rows, columns].

    Args:
        path: the file, UTF-8; fields may be quoted. Blank lines are skipped. In a file of one
            column they are skipped only at the end, as elsewhere they are rows without a number.
        columns: the names to read, in the order wanted; further columns in the file are ignored.
        delimiter: one character, neither a quote nor the end of a line.

    Raises:
        FileNotFoundError: if ``path`` is not a file.
        ValueError: naming the file, the first line of the row and the column. The faults are: an
            empty file, a missing or repeated column, no rows, a row of another length than the
            header, text (or nothing, NaN, infinity, digits grouped by underscores) where a number
            should be, a quote that is not closed, bytes that are not UTF-8.
        TypeError, ValueError: naming ``columns`` or ``delimiter``.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "points.csv"
        ...     _ = path.write_text("a;b;c\\n1;2;3\\n4;5;6\\n")
        ...     read_csv(path, ["c", "a"], delimiter=";")
        tensor([[3., 1.],
                [6., 4.]], dtype=torch.float64)
    """
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise TypeError(f"columns: expected a sequence of names, got {columns!r}")
    if not columns:
        raise ValueError("columns: expected at least one name, got none")
    path = Path(path)
    lines = _csv_rows(path, delimiter)
    return _parse(path, _header(path, lines), lines, columns, delimiter)


def read_table(
    path: str | os.PathLike[str], *, header: bool = True, delimiter: str = ","
) -> tuple[Tensor, tuple[str, ...]]:
    """Read all columns of a .npy or .csv file: (float64 [rows, columns], names of the columns).

    Args:
        path: a file whose name ends in .npy or .csv. A .npy file holds a matrix of real numbers, a
            .csv file is as :func:`read_csv` takes it.
        header: whether the first line of a .csv file has the names of its columns. Otherwise, and
            in a .npy file, they are x1, x2 and so on.
        delimiter: of a .csv file, one character.

    Raises:
        FileNotFoundError: if ``path`` is not a file.
        ValueError: naming the file and its fault: another name, a .npy file that is damaged or
            holds anything but a matrix of finite real numbers, a header of numbers or with a column
            without a name, and the faults that :func:`read_csv` finds.
        TypeError, ValueError: naming ``header`` or ``delimiter``.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "points.csv"
        ...     _ = path.write_text("a,b\\n1,2\\n3,4\\n")
        ...     read_table(path)
        (tensor([[1., 2.],
                [3., 4.]], dtype=torch.float64), ('a', 'b'))
    """
    path = Path(path)
    _checks.flag("header", header)
    kind = path.suffix.lower()
    if kind not in (".npy", ".csv"):
        raise ValueError(f"{path}: expected a file whose name ends in .npy or .csv")
    if kind == ".npy":
        values = _checks.finite(str(path), read_npy(path))
        return values, numbered(values.shape[1])
    names, lines = named_rows(path, header=header, delimiter=delimiter)
    return _parse(path, names, lines, names, delimiter), tuple(names)


def named_rows(
    path: Path, *, header: bool, delimiter: str
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the names of a CSV file's columns, and its rows, each with its first line's number."""
    lines = _csv_rows(path, delimiter)
    if header:
        names = _header(path, lines)
        if all(finite_number(name) is not None for name in names):
            raise ValueError(
                f"{path}, line 1: expected the names of the columns, got numbers; a file without "
                f"a header is read with header=False (--no-header)"
            )
        if "" in names:
            raise ValueError(
                f"{path}, line 1: expected a name for each column, got none for column "
                f"{names.index('') + 1} of {len(names)}"
            )
        return names, _separated(path, delimiter, names, lines)
    first = next(lines, None)
    if first is None:
        raise ValueError(f"{path}, line 1: expected numbers, got an empty file")
    lines = _separated(path, delimiter, first[1], lines)
    return list(numbered(len(first[1]))), itertools.chain([first], lines)


def _separated(
    path: Path, delimiter: str, fields: Sequence[str], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    """Return the rows; ValueError if the first two lines seem to have another separator."""
    following = next(lines, None)
    if following is None:
        return lines
    text = delimiter.join(following[1])
    # A field of its own may have one, in quotes.
    other = next((c for c in ";\t|," if len(fields) == 1 and c in fields[0] and c in text), None)
    if other is not None and other != delimiter:
        raise ValueError(
            f"{path}, line 1: expected fields separated by {delimiter!r}, got one, {fields[0]!r}; "
            f"another separator is given by delimiter={other!r} (--delimiter {other!r})"
        )
    return itertools.chain([following], lines)


def numbered(columns: int, stem: str = "x") -> tuple[str, ...]:
    """Return the names of columns that have none."""
    return tuple(f"{stem}{i + 1}" for i in range(columns))


def read_npy(path: Path) -> Tensor:
    """Return the matrix in a .npy file as float64; ValueError names the file and its fault."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a .npy file, found none")
    try:
        values = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a whole .npy file of numbers, got one that numpy cannot read: "
            f"{error}"
        ) from None
    wanted = f"{path}: expected a matrix [rows, columns] of real numbers, at least one"
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{wanted}, got an archive of several arrays")
    if values.dtype.kind not in "fiu" or values.ndim != 2 or values.size == 0:
        raise ValueError(f"{wanted}, got shape {list(values.shape)} and dtype {values.dtype}")
    return torch.from_numpy(values.astype(np.float64))


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file, each with the number of its first line."""
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter: expected a str, got {_checks.describe(delimiter)}")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(
            "delimiter: expected one character, neither a quote nor the end of a line, "
            f"got {delimiter!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a CSV file, found none")
    return _rows(path, read_text(path), delimiter)


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8; ValueError names the line that is not."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object  # without a byte order mark
        line = len(bad[: error.start + 1].splitlines())
        raise ValueError(
            f"{path}, line {line}: expected UTF-8 text, got the byte 0x{bad[error.start]:02x}: "
            f"{error.reason}"
        ) from None


def _header(path: Path, lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, header = next(lines, (1, []))
    if not header:
        raise ValueError(f"{path}, line 1: expected a header, got an empty file or line")
    return [name.strip() for name in header]


def finite_number(field: str) -> float | None:
    """Return the number in a field, if it is a finite one."""
    try:
        # float() would take 1_000 and digits of other scripts, which other readers refuse.
        value = float(field) if field.isascii() and "_" not in field else math.nan
    except ValueError:
        value = math.nan
    return value if math.isfinite(value) else None


def decimal_comma(field: str) -> str:
    """Return the end of an error about a field that is no number: a hint, or nothing."""
    number = field.count(",") == 1 and finite_number(field.replace(",", ".")) is not None
    return "; a decimal comma has to become a point" if number else ""


def _rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {line}: expected fields separated by {delimiter!r}, each quote "
                f"closed, got: {error}"
            ) from None
        if row is None:
            return
        yield line, row


def _parse(
    path: Path,
    header: Sequence[str],
    lines: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    delimiter: str,
) -> Tensor:
    for column in columns:
        if header.count(column) != 1:
            raise ValueError(
                f"{path}, line 1: expected one column {column!r} (separated by {delimiter!r}), "
                f"got {header.count(column)} among {header}"
            )
    positions = [header.index(column) for column in columns]
    rows: list[list[float]] = []
    for line, row in whole_rows(path, header, lines):
        values = []
        for position in positions:
            value = finite_number(row[position])
            if value is None:
                raise ValueError(
                    f"{path}, line {line}, column {header[position]!r}: expected a finite number, "
                    f"got {row[position]!r}{decimal_comma(row[position])}"
                )
            values.append(value)
        rows.append(values)
    if not rows:
        raise ValueError(f"{path}: expected rows below the header, got none")
    return torch.tensor(rows, dtype=torch.float64)


def whole_rows(
    path: Path, header: Sequence[str], lines: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank; ValueError names the line of one of another length."""
    blank = 0
    for line, row in lines:
        if not row:
            blank = blank or line
            continue
        if blank and len(header) == 1:
            raise ValueError(
                f"{path}, line {blank}, column {header[0]!r}: expected a finite number, got an "
                "empty line"
            )
        if len(row) != len(header):
            raise ValueError(
                f"{path}, line {line}: expected {len(header)} fields as in the header, got "
                f"{len(row)}"
            )
        yield line, row


def cache_folder() -> Path:
    """Return the folder for downloads, ``$XDG_CACHE_HOME/bslfast`` or ``~/.cache/bslfast``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bslfast"


def find(name: str, url: str, sha256: str, subfolder: str = "") -> Path:
    """Return the path of the data file ``name``, downloading it if need be.

    The first place is the folder that the environment variable ``BSLFAST_DATA`` names, and its
    ``subfolder``. The second is :func:`cache_folder`, where the checksum must agree. Otherwise
    pooch downloads the file from ``url`` to the cache folder and checks it against ``sha256``.
    Nothing is ever written to the folder that ``BSLFAST_DATA`` names.

    Raises:
        FileNotFoundError: if all three fail, saying why and naming the three ways.
    """
    folder = os.environ.get("BSLFAST_DATA")
    if folder:
        if not Path(folder).is_dir():
            raise FileNotFoundError(
                f"BSLFAST_DATA: expected the name of a folder, got {folder!r}, which is none"
            )
        for path in (Path(folder) / name, Path(folder) / subfolder / name):
            if path.is_file():
                return path
    cached = cache_folder() / name
    if cached.is_file() and hashlib.sha256(cached.read_bytes()).hexdigest() == sha256:
        return cached
    try:
        import pooch
    except ImportError:
        reason = "pooch, which downloads it, is not installed"
    else:
        try:
            return Path(pooch.retrieve(url, f"sha256:{sha256}", name, cache_folder()))
        # requests' exceptions are OSErrors; pooch raises ValueError for a wrong checksum.
        except (OSError, ValueError) as error:
            reason = f"the download failed: {str(error).splitlines()[0]}"
    raise FileNotFoundError(
        f"{name} was not found and {reason}. Any one of these helps: set BSLFAST_DATA to a folder "
        f"that holds {name}; put the file at {cached} (sha256 {sha256}); or, with a network and "
        f"`pip install pooch`, let it be downloaded from {url}"
    )
