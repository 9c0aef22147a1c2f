"""``bslfast benchmark iwae`` on the digits that come with scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bslfast.cli import main

SMALL = "--hidden 40 40 --latent 8 --samples 300 --threads 1 --limit 600 --batch-size 50"


def run(folder: Path, options: str) -> dict[str, Any]:
    arguments = f"benchmark iwae --data digits {SMALL} {options} --out {folder}"
    assert main(arguments.split()) == 0
    found: dict[str, Any] = json.loads((folder / "iwae-digits" / "metrics.json").read_text())
    return found


def test_bounds_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained with more samples it is likelier, and its bound by one is wider; all is written."""
    found = run(tmp_path, "--importance-samples 1 20 --epochs 40")
    vae, iwae = found["models"]["1"], found["models"]["20"]
    for model in (vae, iwae):
        assert -28 < model["elbo"] < model["log_likelihood"] < -20
        assert 0 < model["standard_error"] < 0.5
        assert model["published"] is None
        assert model["training"]["epochs"] == 40
    assert iwae["log_likelihood"] > vae["log_likelihood"] + 0.5
    assert vae["log_likelihood"] - vae["elbo"] < iwae["log_likelihood"] - iwae["elbo"]
    written = {path.name for path in (tmp_path / "iwae-digits").iterdir()}
    assert {"samples_1.png", "samples_20.png", "learning_curves_1.png", "metrics.json"} <= written
    shown = capsys.readouterr().out
    assert "K = 1 " in shown
    assert "K = 20 " in shown


def test_a_run_goes_on(tmp_path: Path) -> None:
    """With the same weights, and only for the same estimator."""
    settings = "--importance-samples 3 --epochs 2 --samples 20"
    whole = run(tmp_path / "a", settings)["models"]["3"]
    again = run(tmp_path / "a", f"{settings} --resume")["models"]["3"]
    assert again["log_likelihood"] == whole["log_likelihood"]
    assert again["training"]["steps"] == whole["training"]["steps"]
    other = run(tmp_path / "a", f"{settings} --resume --estimator dreg")["models"]["3"]
    assert other["log_likelihood"] != whole["log_likelihood"]


def test_too_few_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = f"benchmark iwae --data digits --limit 1 --out {tmp_path}"
    assert main(arguments.split()) == 1
    assert "--limit: expected at least 2 images, got 1" in capsys.readouterr().err
