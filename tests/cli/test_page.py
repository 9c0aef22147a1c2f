"""The page that a job leaves: well-formed, whole in itself, readable on a phone."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bslfast.cli import runner
from bslfast.cli.page import page

REPORT = {
    "job": "wine & <more>",
    "options": {"lr": 0.005, "out": "runs", "resume": False, "patience": None, "hidden": [16, 8]},
    "versions": {"bslfast": "1", "threads": 2},
    "data": {"source": "a<b.csv", "rows": {"train": 70, "test": 15}, "input_mean": [0.5] * 40},
    "test": {"accuracy": 0.961538, "mean_log_likelihood": -1234.5678},
    "training": {"seconds": 2.0, "epochs": 400},
    "reference": {"seconds": 4.0, "ratio": 2.0, "test": {"accuracy": 0.95}},
    "experiments": {"first": {"test": {"rmse": 0.25}}},
    "splits": [{"rmse": 0.5, "choices": [{"beta": 1}]}, {"rmse": 0.25, "choices": []}],
    "prediction_seconds": 0.125,
}
PNG = b"\x89PNG and more"


def parsed(text: str) -> ElementTree.Element:
    """The tree of a page, which is well-formed XML as well, so that a strict parser reads it."""
    assert text.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(text)


def rows(tree: ElementTree.Element) -> dict[str, list[str]]:
    found = {}
    for row in tree.iter("tr"):
        name, *values = ("".join(cell.itertext()) for cell in row)
        found[name] = values
    return found


def test_content() -> None:
    tree = parsed(page(REPORT, {"learning_curves": PNG, "a_b": b"\x00\xff"}))
    assert [h.text for h in tree.iter("h1")] == ["wine & <more>"]
    assert [h.text for h in tree.iter("h2")] == [
        *("Metrics on held-out data", "Experiments", "Splits", "Training"),
        *("The same network in plain torch", "Data", "Settings", "Versions", "More"),
    ]
    found = rows(tree)
    assert [cell.text for cell in tree.iter("th")][:3] == [None, "bslfast", "plain torch"]
    assert found[""] == ["rmse"]  # of the splits
    assert (found["0"], found["1"]) == (["0.5"], ["0.25"])
    assert found["accuracy"] == ["0.9615", "0.95"]
    assert found["mean log likelihood"] == ["-1235", "-"]
    assert found["first, test, rmse"] == ["0.25"]
    assert found["source"] == ["a<b.csv"]
    assert found["rows, train"] == ["70"]
    assert found["input mean"] == [", ".join(["0.5"] * 12) + ", ... (40 in all)"]
    assert found["ratio"] == ["2"]
    assert (found["resume"], found["patience"], found["hidden"]) == (["no"], ["-"], ["16, 8"])
    assert found["prediction seconds"] == ["0.125"]
    assert [c.text for c in tree.iter("figcaption")] == ["Learning curves", "A b"]
    # A job without tests or a reference has no heading for them.
    assert [h.text for h in parsed(page({"job": "x", "models": {}}, {})).iter("h2")] == ["Models"]


def test_it_needs_nothing_else_and_fits_a_phone() -> None:
    text = page(REPORT, {"learning_curves": PNG})
    tree = parsed(text)
    assert {element.tag for element in tree.iter()}.isdisjoint({"script", "link", "iframe"})
    assert not re.search(r"@import|url\(|https?:", text)
    (image,) = tree.iter("img")
    assert image.attrib["alt"] == "Learning curves"
    kind, content = image.attrib["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content, validate=True) == PNG
    metas = {meta.get("name"): meta.get("content") for meta in tree.iter("meta")}
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert re.search(r"img \{ max-width: 100%", text)
    assert "max-width: 60rem" in text
    assert "table-layout: fixed" in text
    assert [table.get("class") for table in tree.iter("table")].count("grid") == 1  # the splits
    assert tree.attrib["lang"] == "en"


def test_it_holds_the_pictures_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    figure.subplots().plot([1, 2])
    runner.write_results(tmp_path, REPORT, {"line": figure})
    (image,) = parsed((tmp_path / "report.html").read_text(encoding="utf-8")).iter("img")
    content = base64.b64decode(image.attrib["src"].split(",")[1])
    assert content == (tmp_path / "line.png").read_bytes()
    assert capsys.readouterr().out.endswith("report.html, metrics.json, line.png\n")
