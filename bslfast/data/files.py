"""Finding and reading data files."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

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
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter: expected a str, got {_checks.describe(delimiter)}")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(
            "delimiter: expected one character, neither a quote nor the end of a line, "
            f"got {delimiter!r}"
        )
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a CSV file, found none")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad = error.object  # without a byte order mark
        line = len(bad[: error.start + 1].splitlines())
        raise ValueError(
            f"{path}, line {line}: expected UTF-8 text, got the byte 0x{bad[error.start]:02x}: "
            f"{error.reason}"
        ) from None
    return _parse(path, _rows(path, text, delimiter), columns, delimiter)


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
    path: Path, lines: Iterator[tuple[int, list[str]]], columns: Sequence[str], delimiter: str
) -> Tensor:
    _, header = next(lines, (1, []))
    if not header:
        raise ValueError(f"{path}, line 1: expected a header, got an empty file or line")
    header = [name.strip() for name in header]
    for column in columns:
        if header.count(column) != 1:
            raise ValueError(
                f"{path}, line 1: expected one column {column!r} (separated by {delimiter!r}), "
                f"got {header.count(column)} among {header}"
            )
    positions = [header.index(column) for column in columns]
    rows: list[list[float]] = []
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
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise ValueError(
                f"{where}: expected {len(header)} fields as in the header, got {len(row)}"
            )
        values = []
        for position in positions:
            try:
                # float() would take 1_000 and digits of other scripts, which other readers refuse.
                plain = row[position].isascii() and "_" not in row[position]
                value = float(row[position]) if plain else math.nan
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(
                    f"{where}, column {header[position]!r}: expected a finite number, "
                    f"got {row[position]!r}"
                )
            values.append(value)
        rows.append(values)
    if not rows:
        raise ValueError(f"{path}: expected rows below the header, got none")
    return torch.tensor(rows, dtype=torch.float64)


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
