"""Splitting, scaling, CSV reading and finding of data."""

from __future__ import annotations

import functools
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bslfast.data import (
    Standardizer,
    files,
    load_wine,
    load_wine_quality,
    read_csv,
    split,
    wine,
)

HEADER = ";".join(f'"{name}"' for name in (*wine.QUALITY_FEATURES, "quality"))
ROW = "7;0.27;0.36;20.7;0.045;45;170;1.001;3;0.45;8.8;6"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no BSLFAST_DATA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BSLFAST_DATA", raising=False)
    return tmp_path / "cache" / "bslfast"


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A folder that BSLFAST_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("BSLFAST_DATA", str(folder))
    return folder


def write_white(folder: Path, text: str) -> Path:
    path = folder / "winequality-white.csv"
    path.write_text(text)
    return path


# --- split ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 10, 178, 4898])
def test_split_puts_every_row_in_exactly_one_part(rows: int) -> None:
    x = torch.arange(rows).float().unsqueeze(1)
    parts = split(x, x.squeeze(1), (0.6, 0.2, 0.2))
    together = torch.cat([part.x for part in parts]).flatten()
    assert torch.equal(together.sort().values, torch.arange(rows).float())
    assert [len(part.x) for part in parts[:2]] == [round(0.6 * rows), round(0.2 * rows)]
    for part in parts:
        assert torch.equal(part.x.squeeze(1), part.y)  # inputs and targets stay together


def test_split_depends_on_the_seed_alone() -> None:
    x, y = torch.randn(50, 2), torch.randn(50, 1)
    first = split(x, y, seed=3)
    torch.manual_seed(99)
    again, other = split(x, y, seed=3), split(x, y, seed=4)
    assert torch.equal(first.test.x, again.test.x)
    assert not torch.equal(first.test.x, other.test.x)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([[1.0]], torch.zeros(1)), TypeError, r"x: expected a tensor, got a list"),
        ((torch.zeros(4, 1), torch.zeros(3)), ValueError, r"y: expected as many rows as x"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.5, 0.5)), ValueError, r"fractions: .*\(0.5, 0.5\)"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.5, 0.5, 0.5)), ValueError, "fractions: .*add up"),
        ((torch.zeros(9, 1), torch.zeros(9), (1.2, -0.1, -0.1)), ValueError, "fractions: .*1.2"),
        ((torch.zeros(2, 1), torch.zeros(2)), ValueError, r"x: expected enough rows .*got 2"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.6, 0.2, 0.2), -1), ValueError, "seed: .*got -1"),
        ((torch.zeros(9, 1), torch.zeros(9), (0.6, 0.2, 0.2), 2**64), ValueError, r"seed: .*2\^64"),
    ],
)
def test_split_refuses(arguments: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        split(*arguments)


# --- Standardizer ---------------------------------------------------------------------------------


def test_standardizer_gives_zero_mean_and_unit_scale_and_inverts() -> None:
    x = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e4])
    x += torch.tensor([1.0, -5.0, 1e3])
    scaler = Standardizer.fit(x)
    z = scaler.transform(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3).double(), atol=1e-11, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3).double())
    torch.testing.assert_close(scaler.inverse(z), x, rtol=1e-12, atol=1e-10)


def test_standardizer_knows_the_training_part_alone() -> None:
    data = load_wine()
    parts = split(data.x, data.y)
    scaler = Standardizer.fit(parts.train.x)
    torch.testing.assert_close(scaler.mean, parts.train.x.double().mean(0).float())
    # Whatever happens to the held-out rows leaves the scaler as it was.
    held_out = set(map(tuple, torch.cat([parts.validation.x, parts.test.x]).tolist()))
    spoiled = torch.tensor([[1e6] * 13 if tuple(r) in held_out else r for r in data.x.tolist()])
    again = Standardizer.fit(split(spoiled, data.y).train.x)
    assert torch.equal(again.mean, scaler.mean)
    assert torch.equal(again.scale, scaler.scale)


def test_standardizer_sets_a_constant_column_to_zero() -> None:
    x = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    scaler = Standardizer.fit(x)
    assert scaler.scale[0] == 1
    assert torch.equal(scaler.transform(x)[:, 0], torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 12345.678, -1e-7, 1e30, 1e300])
def test_standardizer_of_a_constant_column_whatever_its_sum_rounds_to(
    value: float, dtype: torch.dtype
) -> None:
    if abs(value) > torch.finfo(dtype).max:
        return
    for rows in (1, 3, 7, 1000, 12345):
        x = torch.full((rows, 1), value, dtype=dtype)
        scaler = Standardizer.fit(x)
        assert scaler.scale.item() == 1
        assert not scaler.transform(x).any()


@pytest.mark.parametrize(
    ("first", "dtype"),
    [(0.3, torch.float64), (1e8, torch.float32), (-12345.678, torch.float64)],
)
def test_standardizer_of_a_column_that_is_nearly_constant(first: float, dtype: torch.dtype) -> None:
    """Neighbouring numbers, such as 0.3 and 0.1 + 0.2, are a constant; further ones are not."""
    low = torch.tensor(first, dtype=dtype)
    high = torch.nextafter(low, torch.tensor(torch.inf, dtype=dtype))
    x = torch.stack([low, high] * 500).unsqueeze(1)
    scaler = Standardizer.fit(x)
    assert scaler.scale.item() == 1
    assert scaler.transform(x).abs().max() <= high - low
    far = low + 8 * (high - low)
    scale = Standardizer.fit(torch.stack([low, far] * 500).unsqueeze(1)).scale
    assert scale.item() == ((far - low) / 2).item()


@pytest.mark.parametrize(
    ("column", "dtype"),
    [([0.0, 0.0, 0.0, 1e-45], torch.float32), ([-1e308, 1e308], torch.float64)],
)
def test_standardizer_refuses_spreads_that_the_dtype_does_not_hold(
    column: list[float], dtype: torch.dtype
) -> None:
    x = torch.tensor(column, dtype=dtype)
    x = torch.stack([torch.arange(len(x)).to(x), x], 1)
    with pytest.raises(ValueError, match=r"x: expected columns whose .* in columns \[1\]"):
        Standardizer.fit(x)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        ([[1.0]], TypeError, r"x: expected a floating-point tensor of shape \[rows, columns\]"),
        (torch.ones(2, 2, dtype=torch.int64), TypeError, r"x: .*got a tensor .*int64"),
        (torch.ones(2), ValueError, r"x: .*shape \(2,\)"),
        (torch.ones(0, 2), ValueError, "x: expected at least one row"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, r"x: .*NaN or infinity in columns \[1\]"),
    ],
)
def test_standardizer_refuses_to_fit(x: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Standardizer.fit(x)


def test_standardizer_refuses_other_columns_and_dtypes() -> None:
    scaler = Standardizer.fit(torch.randn(5, 3))
    with pytest.raises(
        ValueError, match=r"x: expected a torch.float32 tensor of shape \[rows, 3\]"
    ):
        scaler.transform(torch.randn(5, 2))
    with pytest.raises(ValueError, match=r"z: .*got a tensor .*float64"):
        scaler.inverse(torch.randn(5, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="scale: expected positive"):
        Standardizer(torch.zeros(1), torch.zeros(1))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale: expected finite values, got"):
            Standardizer(torch.zeros(1), torch.tensor([bad]))
        with pytest.raises(ValueError, match="mean: expected finite values, got"):
            Standardizer(torch.tensor([bad]), torch.ones(1))


# --- the data sets --------------------------------------------------------------------------------


def test_load_wine() -> None:
    data = load_wine()
    assert data.x.shape == (178, 13)
    assert data.x.dtype == torch.float32
    assert data.y.bincount().tolist() == [59, 71, 48]
    assert len(data.feature_names) == 13
    assert len(data.target_names) == 3


def test_load_wine_quality_from_the_data_folder(data_folder: Path) -> None:
    path = write_white(data_folder, f"{HEADER}\n{ROW}\n{ROW[:-1]}9\n")
    data = load_wine_quality("white")
    assert data.x.dtype == data.y.dtype == torch.float32
    torch.testing.assert_close(data.x[0], torch.tensor([float(v) for v in ROW.split(";")][:-1]))
    assert data.y.tolist() == [[6.0], [9.0]]
    assert data.source == str(path)


def test_columns_are_found_by_name(data_folder: Path) -> None:
    names = (*wine.QUALITY_FEATURES, "quality")
    values = ROW.split(";")
    text = ";".join(reversed(names)) + "\n" + ";".join(reversed(values)) + "\n"
    write_white(data_folder, text)
    data = load_wine_quality()
    torch.testing.assert_close(data.x[0], torch.tensor([float(v) for v in values[:-1]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected a header, got an empty file"),
        (HEADER + "\n", r"winequality-white.csv: expected rows below the header, got none"),
        (
            HEADER.replace('"alcohol";', "") + "\n" + ROW + "\n",
            r"line 1: expected one column 'alcohol' .*got 0",
        ),
        (HEADER.replace(";", ",") + "\n", r"line 1: .*separated by ';'"),
        (
            f"{HEADER}\n{ROW}\n{ROW.replace('170', 'many')}\n",
            r"line 3, column 'total sulfur dioxide': expected a finite number, got 'many'",
        ),
        (f"{HEADER}\n{ROW.replace('8.8', '')}\n", r"line 2, column 'alcohol': .*got ''"),
        (f"{HEADER}\n{ROW.replace('8.8', 'inf')}\n", r"line 2, column 'alcohol': .*got 'inf'"),
        (f"{HEADER}\n{ROW}\n{ROW};1\n", r"line 3: expected 12 fields as in the header, got 13"),
        (f"{HEADER}\n{ROW[:20]}\n", r"line 2: expected 12 fields as in the header, got"),
    ],
)
def test_load_wine_quality_refuses(data_folder: Path, text: str, message: str) -> None:
    path = write_white(data_folder, text)
    with pytest.raises(ValueError, match=message) as caught:
        load_wine_quality("white")
    assert str(path) in str(caught.value)


def test_read_csv_refuses_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"a.csv, line 2: expected UTF-8 text, got the byte 0xff"):
        read_csv(path, ["a"])
    with pytest.raises(FileNotFoundError, match=r"none.csv: expected a CSV file, found none"):
        read_csv(tmp_path / "none.csv", ["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1_000,2\n", r"line 3, column 'a': expected a finite number, got '1_000'"),
        ("a,b\n\u0661,2\n".encode(), r"line 2, column 'a': expected a finite number, got"),
        (b'a,b\n1,2\n"3,4\n5,6\n', r"line 3: expected fields .* each quote closed, got: unexp"),
        (b'a,b\n"1"x,2\n', r"line 2: expected fields .*',' expected after"),
        (b'a,b\n1,2\n"3\n",4\n5,x\n', r"line 5, column 'b': expected a finite number, got 'x'"),
        (b"a,b\r1,2\r\r3,\xe9\r", r"line 4: expected UTF-8 text, got the byte 0xe9"),
        (b"\xef\xbb\xbfa,b\n1,\xff\n", r"line 2: expected UTF-8 text, got the byte 0xff"),
        ("a,b\n1,2\n".encode("utf-16"), r"line 1: expected UTF-8 text, got the byte 0xff"),
        (b"a\n1\n\n3\n", r"line 3, column 'a': expected a finite number, got an empty line"),
        (b"a\n\n1\n", r"line 2, column 'a': expected a finite number, got an empty line"),
        (b"a\n1\n  \n3\n", r"line 3, column 'a': expected a finite number, got '  '"),
    ],
)
def test_read_csv_refuses(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_csv(path, ["a", "b"] if b"b" in content or b"\0" in content else ["a"])
    assert str(path) in str(caught.value)


def test_read_csv_skips_blank_lines_where_they_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n1\n2\n\n\n")
    assert read_csv(path, ["a"]).tolist() == [[1.0], [2.0]]
    path.write_bytes(b'a,b\r\n"1", 2\r\n\r\n+3e0,.4\r\n')
    assert read_csv(path, ["b", "a"]).tolist() == [[2.0, 1.0], [0.4, 3.0]]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((["a"], ";;"), ValueError, "delimiter: expected one character.* got ';;'"),
        ((["a"], ""), ValueError, "delimiter: expected one character.* got ''"),
        ((["a"], '"'), ValueError, "delimiter: expected one character"),
        ((["a"], "\n"), ValueError, "delimiter: expected one character"),
        ((["a"], None), TypeError, "delimiter: expected a str, got None"),
        (("ab",), TypeError, "columns: expected a sequence of names, got 'ab'"),
        (([1],), TypeError, "columns: expected a sequence of names"),
        (([],), ValueError, "columns: expected at least one name, got none"),
    ],
)
def test_read_csv_refuses_arguments(
    tmp_path: Path, arguments: tuple, error: type[Exception], text: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    with pytest.raises(error, match=text):
        read_csv(path, *arguments)


def test_load_wine_quality_refuses_an_unknown_color() -> None:
    with pytest.raises(ValueError, match="color: expected one of 'white', 'red', got 'rose'"):
        load_wine_quality("rose")


def test_a_data_folder_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSLFAST_DATA", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"BSLFAST_DATA: .*'/nowhere'"):
        load_wine_quality()


class _Server:
    """Serves a folder on a local port and counts the requests."""

    def __init__(self, folder: Path) -> None:
        self.requests = 0
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "points.csv").write_text("a\n1\n")
    server = _Server(tmp_path / "www")
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_download_is_checked_and_cached(cache: Path, server: _Server) -> None:
    pytest.importorskip("pooch")
    sha256 = hashlib.sha256(b"a\n1\n").hexdigest()
    for _ in range(2):
        path = files.find("points.csv", server.url + "points.csv", sha256)
        assert path == cache / "points.csv"
        assert path.read_text() == "a\n1\n"
    assert server.requests == 1
    path.write_text("a\n2\n")  # a spoiled cache is replaced
    files.find("points.csv", server.url + "points.csv", sha256)
    assert path.read_text() == "a\n1\n"


def test_download_with_a_wrong_checksum_leaves_nothing(cache: Path, server: _Server) -> None:
    pytest.importorskip("pooch")
    with pytest.raises(
        FileNotFoundError, match=r"points.csv was not found and the download failed"
    ):
        files.find("points.csv", server.url + "points.csv", "0" * 64)
    assert not list(cache.glob("*"))


def test_without_any_way_the_three_ways_are_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(FileNotFoundError) as caught:
        load_wine_quality("red")
    text = str(caught.value)
    for part in (
        "BSLFAST_DATA",
        str(cache / "winequality-red.csv"),
        "pip install pooch",
        "uci.edu",
    ):
        assert part in text
    assert "\n" not in text
