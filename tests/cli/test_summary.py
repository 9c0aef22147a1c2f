"""The table that ends `make quickstart`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bslfast.cli import main, summary


def write(folder: Path, job: str, reference: dict[str, object] | None) -> None:
    (folder / job).mkdir(parents=True)
    report = {
        "job": job,
        "training": {"seconds": 2.0},
        "test": {"accuracy": 0.9615, "other": 1.0},
        "reference": reference,
    }
    (folder / job / "metrics.json").write_text(json.dumps(report))


def test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = {"bslfast": 0.5, "plain torch": 0.75}
    write(tmp_path, "wine", {"seconds": 3.0, "ratio": 1.5, "milliseconds_per_step": steps})
    write(tmp_path, "moons", None)
    assert main(["summary", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "job",
        "test",
        "metric",
        "training",
        "plain",
        "torch",
        "ratio",
        "per",
        "step",
    ]
    found = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert found["wine"] == ["accuracy", "0.9615", "2.0", "s", "3.0", "s", "1.50", "1.50"]
    assert found["moons"] == ["accuracy", "0.9615", "2.0", "s", "-", "-", "-"]


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(tmp_path)]) == 1
    assert "expected jobs' metrics.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"test": {}}',
        '{"test": []}',
        "1",
        '"text"',
        "\xff",
        "[" * 100_000,
        "9" * 5000,
    ],
)
def test_not_a_jobs_metrics(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "metrics.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="expected the metrics of a job"):
        summary.table(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"job": 3},
        {"test": {"accuracy": "high"}},
        {"test": {"accuracy": 10**400}},
        {"training": {"seconds": None}},
        {"training": [1]},
        {"reference": [1]},
        {"reference": {"seconds": "3"}},
        {"reference": {"milliseconds_per_step": [1]}},
        {"reference": {"milliseconds_per_step": {"bslfast": "1", "plain torch": 2}}},
    ],
)
def test_metrics_of_wrong_types(wrong: dict[str, object], tmp_path: Path) -> None:
    write(tmp_path, "x", None)
    path = tmp_path / "x" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(ValueError, match=r"metrics.json: expected the metrics of a job"):
        summary.table(tmp_path)
