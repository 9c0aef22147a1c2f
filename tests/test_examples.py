"""The scripts of examples/, each in a short form: they run, and their results make sense."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def _main(name: str) -> Callable[..., Any]:
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


def test_own_layer() -> None:
    loc = _main("own_layer")(steps=500)
    assert loc.tolist() == pytest.approx([2.0, -1.0, 0.0, 0.0], abs=0.1)


def test_regression(tmp_path: Path) -> None:
    assert _main("regression")(epochs=150, out=tmp_path) > 0.7
    assert (tmp_path / "regression.png").stat().st_size > 10_000


def test_digits(tmp_path: Path) -> None:
    assert _main("digits")(epochs=3, out=tmp_path) > -35
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_density(tmp_path: Path) -> None:
    # Twice log(2 pi e) / 2 is what a normal distribution would have: -2.84.
    assert _main("density")(epochs=3, out=tmp_path) > -2.4
    assert (tmp_path / "density.png").stat().st_size > 10_000


def test_posterior() -> None:
    median, spread = _main("posterior")(steps=200)
    assert median == pytest.approx(16 / 17, abs=0.1)
    assert spread == pytest.approx(17**-0.5, rel=0.3)


def test_all_are_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested
