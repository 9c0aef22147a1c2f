"""Tables of numbers, texts and missing values: what is read, and what is refused."""

from __future__ import annotations

import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from bslfast.data import read_columns

NAN = math.nan


def saved(folder: Path, content: object, name: str = "a.csv") -> Path:
    path = folder / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, str | bytes):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        np.save(path, content)
    return path


def same(found: torch.Tensor, expected: list[list[float]]) -> bool:
    wanted = torch.tensor(expected, dtype=torch.float64)
    return found.dtype == wanted.dtype and torch.equal(
        found.nan_to_num(7e9), wanted.nan_to_num(7e9)
    )


def test_csv(tmp_path: Path) -> None:
    nothing = ["", " ", "NA", "n/a", "#N/A", "nan", "NULL", "None", "?"]
    lines = [f"{value};{i};k" for i, value in enumerate(nothing)]
    table = read_columns(saved(tmp_path, "a;b;c\n1.5;-1;k\n\n" + "\n".join(lines)), delimiter=";")
    assert table.names == ("a", "b", "c")
    assert len(table) == 10
    assert same(table.numbers(["b", "a"]), [[-1, 1.5], *([i, NAN] for i in range(9))])
    assert table.place(1, "a") == f"{tmp_path / 'a.csv'}, line 4, column 'a'"
    assert table.without(["b"]).names == ("a", "c")
    headless = read_columns(saved(tmp_path, "1,2\n3,4\n", "b.CSV"), header=False)
    assert headless.names == ("x1", "x2")
    assert same(headless.numbers(["x2"]), [[2], [4]])


@pytest.mark.parametrize(
    ("fields", "y", "names"),
    [
        (["b", " a", "", "b ", "NaN", "NA"], [2, 1, -1, 2, -1, 0], ("NA", "a", "b")),
        (["10", "9", "-1", "?", "9.0"], [1, 2, 0, 3, 2], ("-1", "10", "9", "?")),
        (["10", "9", "-1", ""], [2, 1, 0, -1], ("-1", "9", "10")),  # all are numbers
        (["1.0", "01", "+1", "1", "0"], [1, 1, 1, 1, 0], ("0", "1")),  # equal ones are one label
        (
            ["9007199254740993", "9007199254740992"],
            [1, 0],
            ("9007199254740992", "9007199254740993"),
        ),
    ],
)
def test_labels_of_text(
    tmp_path: Path, fields: list[str], y: list[int], names: tuple[str, ...]
) -> None:
    lines = [f"1,{field}" for field in fields]
    found, found_names = read_columns(saved(tmp_path, "a,b\n" + "\n".join(lines))).labels("b")
    assert found_names == names
    assert found.tolist() == y
    assert found.dtype == torch.int64


def test_arrays(tmp_path: Path) -> None:
    content = {
        "x": np.array([[1, 2], [3, 4]], np.int32),
        "y": np.array([0.5, NAN], np.float32),
        "k": np.array(["red", "blue wine"]),
        "flag": np.array([True, False]),
        "n": np.array([10.0, 2.5]),
    }
    table = read_columns(saved(tmp_path, content, "a.npz"))
    assert table.names == ("x1", "x2", "y", "k", "flag", "n")
    assert same(table.numbers(["x1", "x2", "y"]), [[1, 2, 0.5], [3, 4, NAN]])
    assert same(table.numbers(["flag"]), [[1], [0]])
    assert table.expand("--target", ["y", "x"]) == ("y", "x1", "x2")
    assert table.without(["x1"]).expand("--target", ["x"]) == ("x2",)
    for name, names, y in (
        ("k", ("blue wine", "red"), [1, 0]),
        ("flag", ("False", "True"), [1, 0]),
        ("n", ("2.5", "10"), [1, 0]),
        ("y", ("0.5",), [0, -1]),
    ):
        labels, found = table.labels(name)
        assert (found, labels.tolist()) == (names, y)
    assert table.place(1, "y").endswith("a.npz, row 1, column 'y'")
    matrix = read_columns(saved(tmp_path, np.array([[1.0, NAN]]), "a.npy"))
    assert same(matrix.numbers(matrix.names), [[1, NAN]])
    for option, names, text in (
        ("--target", ["z"], "--target: expected columns of .*'x1', 'x2', 'y', .*, got 'z'"),
        ("--ignore", ["y", "x2", "x"], "--ignore: expected each column once, got 'x2'"),
    ):
        with pytest.raises(ValueError, match=text):
            table.expand(option, names)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.txt", "a\n1\n", "a.txt: expected a file whose name ends in .csv, .npy, .npz, .parquet"),
        ("a.csv", "a,a\n1,2\n", "a.csv, line 1: expected each name once, got 2 columns 'a'"),
        ("a.csv", "a,b\n", "a.csv: expected rows below the header"),
        ("a.csv", "a,b\n1,2\n1\n", "a.csv, line 3: expected 2 fields .* got 1"),
        ("a.csv", "1,2\n3,4\n", "line 1: expected the names .* got numbers"),
        ("a.csv", b"a,b\n1,\xff\n", "a.csv, line 2: expected UTF-8"),
        ("a.npy", np.ones(3), r"a.npy: expected a matrix .*\[3\]"),
        ("a.npy", b"", "a.npy: expected a whole .npy file"),
        ("a.npz", b"PK and so on", "a.npz: expected a whole file of arrays"),
        ("a.npz", {"x": np.ones(2), "y": np.ones(3)}, "as many rows, got 2 in 'x', 3 in 'y'"),
        ("a.npz", {"x": np.ones((2, 2, 2))}, r"array 'x': expected .*got shape \[2, 2, 2\]"),
        ("a.npz", {"x": np.ones(2) + 1j}, "array 'x': expected numbers or text, .*complex128"),
        ("a.npz", {"x": np.ones(0)}, r"array 'x': expected .*got shape \[0\]"),
        ("a.npz", {"x": np.array([1, None])}, "a.npz: expected a whole file of arrays"),
        ("a.npz", {"x": np.ones((2, 1)), "x1": np.ones(2)}, "each column once, got 'x1'"),
        ("a.npz", {}, "a.npz: expected arrays of as many rows, got none"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_columns(saved(tmp_path, content, name))


def test_text_and_infinity_are_no_numbers(tmp_path: Path) -> None:
    flags = read_columns(saved(tmp_path, "a,b\nTrue,true\n?,1\nfalse,2\n"))
    assert same(flags.numbers(["a"]), [[1], [NAN], [0]])
    with pytest.raises(ValueError, match=r"line 2, column 'b': .*got 'true'"):
        flags.numbers(["b"])
    table = read_columns(saved(tmp_path, "a,b,c,d\n1,,2,x\n3,red,4,y\n5,blue,1_0,z\n"))
    with pytest.raises(ValueError, match=r"line 3, column 'b': .*got 'red'; likewise in 'c', 'd'"):
        table.numbers(table.names)
    with pytest.raises(ValueError, match=r"line 4, column 'c': .*'1_0'\. Columns of text can be"):
        table.numbers(["a", "c"])
    matrix = read_columns(saved(tmp_path, np.array([[1.0, 2], [3, math.inf]]), "a.npy"))
    with pytest.raises(ValueError, match=r"a.npy, row 1, column 'x2': .*got infinity"):
        matrix.numbers(matrix.names)


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"b.npz: expected a .npz file, found none"):
        read_columns(tmp_path / "b.npz")
    path = saved(tmp_path, "a\n1\n")
    with pytest.raises(TypeError, match="header: expected a bool"):
        read_columns(path, header=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="delimiter: expected one character"):
        read_columns(path, delimiter=";;")


def test_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "a": [1, 2, 3],
            "b": pandas.array([1, None, 3], dtype="Int64"),
            "k": pandas.Categorical(["red", None, "blue"]),
            "flag": [True, False, True],
            "when": pandas.to_datetime(["2020-01-01"] * 3),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_columns(tmp_path / "a.parquet")
    assert same(table.numbers(["a", "b"]), [[1, 1], [2, NAN], [3, 3]])
    labels, names = table.labels("k")
    assert (labels.tolist(), names) == ([1, -1, 0], ("blue", "red"))
    assert table.labels("flag")[1] == ("False", "True")
    assert same(table.numbers(["flag"]), [[1], [0], [1]])
    with pytest.raises(ValueError, match=r"row 0, column 'when': .*'2020-01-01"):
        table.numbers(["when"])


@pytest.mark.parametrize("fault", ["no pandas", "no engine", "damaged", "empty", "names"])
def test_parquet_files_that_cannot_be_read(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for pandas, which need not be installed."""

    def read_parquet(path: Path) -> object:
        if fault in ("no engine", "damaged"):
            raise (ImportError if fault == "no engine" else OSError)("no\nparquet")
        columns = ["a", "a"] if fault == "names" else ["a"]
        return type("Frame", (), {"columns": columns, "__len__": lambda _: int(fault == "names")})()

    pandas = types.SimpleNamespace(read_parquet=read_parquet)
    monkeypatch.setitem(sys.modules, "pandas", None if fault == "no pandas" else pandas)
    text = {
        "no pandas": "a.parquet: expected pandas, .*pip install pandas pyarrow",
        "no engine": r"a.parquet: expected a library .*pip install pyarrow \(no\)",
        "damaged": "a.parquet: expected a whole .parquet file",
        "empty": "a.parquet: expected rows, .* got 0 rows of 'a'",
        "names": "a.parquet: expected rows, and columns of different names, got 1 rows of 'a', 'a'",
    }[fault]
    kind = ModuleNotFoundError if fault.startswith("no ") else ValueError
    with pytest.raises(kind, match=text):
        read_columns(saved(tmp_path, b"PAR1", "a.parquet"))
