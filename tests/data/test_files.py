"""Reading of CSV files, and files that are downloaded."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bslfast.data import files, read_csv


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
