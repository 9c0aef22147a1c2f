"""Tables with their own splits: what is read, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bslfast.data import read_splits

FILES = {
    "data": "1 2 3 10\n4 5 6 20\n7 8 9 30\n0 1 2 40\n",
    "index_features": "0\n2\n",
    "index_target": "3\n",
    "index_train_0": "2\n0\n3\n",
    "index_test_0": "1\n",
    "index_train_1": "1.000000000000000000e+00\n2.0e+00\n",
    "index_test_1": "0\n3\n",
    "n_splits": "2\n",
    "n_hidden": "50\n",
}


def write(folder: Path, **changed: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (FILES | changed).items():
        if text is not None:
            (folder / f"{name}.txt").write_text(text)
    return folder


def test_tables_and_splits(tmp_path: Path) -> None:
    splits = read_splits(write(tmp_path))
    assert splits.data.x.tolist() == [[1, 3], [4, 6], [7, 9], [0, 2]]
    assert splits.data.y.tolist() == [[10], [20], [30], [40]]
    assert splits.data.x.dtype == torch.float64
    assert splits.data.feature_names == ("column 0", "column 2")
    assert [[rows.tolist() for rows in part] for part in splits.parts] == [
        [[2, 0, 3], [1]],
        [[1, 2], [0, 3]],
    ]
    assert splits.hidden == 50


@pytest.mark.parametrize(
    "data",
    [
        "1,2,3,10\n4,5,6,20\n7,8,9,30\n0,1,2,40",
        "# a comment\n1, 2, 3, 10\r\n\r\n4; 5;6 ;20\r\n 7\t8\t9\t30  # the third\n0 1 2 4e1\n\n",
        "\ufeff1 2 3 10\n4 5 6 20\n7 8 9 30\n-0 1. 2 +40\n",
    ],
)
def test_ways_to_write_numbers(tmp_path: Path, data: str) -> None:
    expected = read_splits(write(tmp_path / "plain")).data
    found = read_splits(write(tmp_path / "other", data=data)).data
    assert torch.equal(found.x, expected.x)
    assert torch.equal(found.y, expected.y)


def test_files_that_may_be_missing(tmp_path: Path) -> None:
    missing = dict.fromkeys(("index_features", "index_target", "n_splits", "n_hidden"))
    splits = read_splits(write(tmp_path, **missing))
    assert splits.data.x.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [0, 1, 2]]
    assert splits.data.y.tolist() == [[10], [20], [30], [40]]
    assert len(splits.parts) == 2
    assert splits.hidden is None


def test_fewer_splits_and_the_folder_around(tmp_path: Path) -> None:
    write(tmp_path / "data", n_splits="1")
    splits = read_splits(tmp_path)
    assert len(splits.parts) == 1
    assert splits.data.source == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"data": None}, FileNotFoundError, "data.txt: expected a text file of numbers, found"),
        ({"index_test_1": None}, FileNotFoundError, "index_test_1.txt: expected a text file"),
        ({"n_splits": "3"}, FileNotFoundError, "index_train_2.txt: expected a text file"),
        ({"data": ""}, ValueError, "data.txt: expected numbers, got an empty file"),
        ({"index_test_0": "\n \n"}, ValueError, "index_test_0.txt: expected numbers, got an empty"),
        ({"data": "1 2 3 4\n\n1 2 3\n"}, ValueError, "line 3: expected 4 numbers .*, got 3"),
        (
            {"data": "1 2 3 4\n1 2 nan 4\n"},
            ValueError,
            "line 2, column 2: expected a finite.*'nan'",
        ),
        ({"data": "a b c y\n1 2 3 4\n"}, ValueError, "line 1, column 0: expected a finite .*'a'"),
        ({"index_features": "0\n4\n"}, ValueError, "features.txt: .* 4 columns, .* 0 to 3, got 4"),
        ({"index_features": "0\n3\n"}, ValueError, "features.txt: expected no column of targets"),
        ({"index_features": "0\n0\n"}, ValueError, "each of the columns once, got 0 more often"),
        ({"index_target": "-1\n"}, ValueError, "index_target.txt: .* 4 columns, .*got -1"),
        ({"index_target": "1.5\n"}, ValueError, "index_target.txt: .* integers .*got 1.5"),
        (
            {"index_target": "0\n1\n2\n3\n", "index_features": None},
            ValueError,
            "index_target.txt: expected a column that is left for the inputs",
        ),
        ({"index_train_1": "4\n"}, ValueError, "index_train_1.txt: .* 4 rows, .* 0 to 3, got 4"),
        ({"index_test_1": "0\n2\n"}, ValueError, "test_1.txt: expected no row of .*, got 2"),
        ({"n_splits": "0"}, ValueError, r"n_splits.txt: expected one positive integer, got \[0.0"),
        ({"n_hidden": "50 50"}, ValueError, "n_hidden.txt: expected one positive integer"),
    ],
)
def test_faults_are_named(
    tmp_path: Path, change: dict[str, str | None], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        read_splits(write(tmp_path, **change))


def test_a_folder_without_splits_or_none(tmp_path: Path) -> None:
    missing = dict.fromkeys(("index_train_0", "index_train_1", "n_splits"))
    with pytest.raises(FileNotFoundError, match=r"index_train_0\.txt: expected a text file"):
        read_splits(write(tmp_path, **missing))
    with pytest.raises(FileNotFoundError, match=r"nowhere: expected a folder with data\.txt"):
        read_splits(tmp_path / "nowhere")


def test_text_that_is_none(tmp_path: Path) -> None:
    (write(tmp_path) / "data.txt").write_bytes(b"1 2\n\xff 3\n")
    with pytest.raises(ValueError, match="line 2: expected UTF-8 text, got the byte 0xff"):
        read_splits(tmp_path)
