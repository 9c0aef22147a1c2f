"""The wines: what is read, found and refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bslfast.data import load_wine, load_wine_quality, wine

HEADER = ";".join(f'"{name}"' for name in (*wine.QUALITY_FEATURES, "quality"))
ROW = "7;0.27;0.36;20.7;0.045;45;170;1.001;3;0.45;8.8;6"


def write_white(folder: Path, text: str) -> Path:
    path = folder / "winequality-white.csv"
    path.write_text(text)
    return path


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


def test_load_wine_quality_refuses_an_unknown_color() -> None:
    with pytest.raises(ValueError, match="color: expected one of 'white', 'red', got 'rose'"):
        load_wine_quality("rose")


def test_a_data_folder_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BSLFAST_DATA", "/nowhere")
    with pytest.raises(FileNotFoundError, match=r"BSLFAST_DATA: .*'/nowhere'"):
        load_wine_quality()


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
