"""What is in examples/, each in a short form: it runs, and its results make sense."""

from __future__ import annotations

import importlib
import json
import math
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wine_file

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NOTEBOOK = runpy.run_path(str(ROOT / "tools" / "run_notebook.py"))


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which a notebook sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _main(name: str) -> Callable[..., Any]:
    main: Callable[..., Any] = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
    return main


def _notebook(name: str) -> dict[str, Any]:
    """A notebook; an archive of sources, which holds PKG-INFO, has none."""
    if (ROOT / "PKG-INFO").is_file():
        pytest.skip("an archive of sources has no notebooks")
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    return found


def test_own_layer() -> None:
    loc = _main("own_layer")(steps=500)
    assert loc.tolist() == pytest.approx([2.0, -1.0, 0.0, 0.0], abs=0.1)


def test_regression(tmp_path: Path) -> None:
    assert _main("regression")(epochs=150, out=tmp_path) > 0.7
    assert (tmp_path / "regression.png").stat().st_size > 10_000


def test_digits(tmp_path: Path) -> None:
    assert _main("digits")(epochs=3, out=tmp_path) > -35
    assert (tmp_path / "digits.png").stat().st_size > 10_000


def test_lightning_vae(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("tensorboard")
    assert _main("lightning_vae")(epochs=3, out=tmp_path) > -35
    (file,) = (tmp_path / "lightning" / "version_0").glob("events.out.tfevents.*")
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(file)).Reload()
    elbo = [event.value for event in events.Scalars("validation/elbo")]
    assert len(elbo) == 3
    assert elbo[-1] > elbo[0] + 1
    assert events.Images("reconstructions")[0].encoded_image_string.startswith(b"\x89PNG")


def test_density(tmp_path: Path) -> None:
    # Twice log(2 pi e) / 2 is what a normal distribution would have: -2.84.
    assert _main("density")(epochs=3, out=tmp_path) > -2.4
    assert (tmp_path / "density.png").stat().st_size > 10_000


def test_densities_2d(tmp_path: Path) -> None:
    losses = _main("densities_2d")(n=2000, epochs=8, out=tmp_path)
    assert len(losses) == 6
    for name, found in losses.items():
        # A uniform distribution over the frame has 3.71.
        assert 1 < found["NSF"] < 3.0, name
        assert 1 < found["RealNVP"] < 3.6, name
    assert (tmp_path / "densities_2d.png").stat().st_size > 50_000


def test_posterior() -> None:
    median, spread = _main("posterior")(steps=200)
    assert median == pytest.approx(16 / 17, abs=0.1)
    assert spread == pytest.approx(17**-0.5, rel=0.3)


def test_bayesian_neural_networks_wine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wine_file.write(tmp_path / "winequality-white.csv", rows=2000)
    monkeypatch.setenv("BSLFAST_DATA", str(tmp_path))
    notebook = _notebook("bayesian_neural_networks_wine")
    names = NOTEBOOK["run"](notebook, EPOCHS=40, SAMPLES=20, LECTURE_EPOCHS=40)
    results = names["results"]
    error, _, covered, _, epistemic = (
        dict(zip(results, column, strict=True)) for column in zip(*results.values(), strict=True)
    )
    # The noise, and that of rounding, are 0.58; the mean grade is off by 1.04.
    for name in ("deterministic", "Bayesian, 100 %", "probabilistic", "converted"):
        assert error[name] < 0.7
    assert min(covered.values()) > 0.85
    spreads = [epistemic[f"Bayesian, {part} %"] for part in (5, 10, 30, 100)]
    assert spreads == sorted(spreads, reverse=True)
    assert epistemic["deterministic"] == epistemic["converted, at its means"] == 0
    # The probabilistic networks have hardly begun after so few epochs.
    assert len(names["lecture"]) == 5
    assert all(math.isfinite(nll) and error < 1.5 for error, nll in names["lecture"].values())


def test_vae_mod() -> None:
    notebook = _notebook("vae_mod")
    torch.set_num_threads(1)
    results = NOTEBOOK["run"](notebook, DATA="digits", EPOCHS=10)["results"]
    for bound, log_p, kl in results.values():
        assert bound < log_p < bound + 2
        assert kl > 0
    log_p = {name: result[1] for name, result in results.items()}
    # A coin for each pixel, the same for all images, has -24.4 nats.
    assert log_p["VAE"] > -24
    # What the label says need not be paid for; more numbers say more.
    assert min(log_p["conditional"], log_p["dense, 20 numbers"]) > log_p["VAE"] + 1


def test_flows_moons() -> None:
    notebook = _notebook("flows_moons")
    names = NOTEBOOK["run"](notebook, EPOCHS=4, POINTS=4000)
    error = {name: result[0] for name, result in names["results"].items()}
    # The density of the points' source has 0.30 nats, a normal distribution 1.88.
    assert names["best"].item() == pytest.approx(0.3, abs=0.02)
    assert min(error.values()) > names["best"]
    assert max(error.values()) < 1.5
    assert error["NSF, cosine"] < 0.6
    # The determinants of Jacobian matrices by torch.func.
    assert names["error"] < 1e-4


def test_sbi_posterior() -> None:
    notebook = _notebook("sbi_posterior")
    names = NOTEBOOK["run"](notebook, SIMULATIONS=5000, EPOCHS=10, CHECKS=300)
    # The divergence between two distributions; a flow that knows nothing of x has 2.8.
    assert names["divergence"] + 3 * names["error"] > 0
    assert names["divergence"] < 0.3
    assert names["density"] > 1  # the prior's is -1.4
    # The standard deviation of a share of 300 is at most 0.03.
    off = (names["covered"]["linear"] - names["levels"]).abs().max()
    assert off < 0.15


def test_converting_a_cnn() -> None:
    notebook = _notebook("converting_a_cnn")
    names = NOTEBOOK["run"](notebook, EPOCHS=25, SAMPLES=5)
    for error, nll, _, auroc in names["results"].values():
        assert error < 0.2
        assert nll < 0.7
        assert auroc > 0.7
    assert names["found"]["plain"].epistemic.abs().max() == 0
    assert names["found"]["converted"].epistemic.mean() > 0.01
    assert names["spread"]() > names["before"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_have_the_outputs_of_their_code(path: Path) -> None:
    """Else: python tools/run_notebook.py FILE, and a look at the pictures."""
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["outputs_of"] == NOTEBOOK["digest"](notebook)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in o.get("data", {}) for c in cells for o in c["outputs"]) > 5
    assert path.stat().st_size < 600_000


def test_all_are_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    tested.add("ddp")  # by tests/test_distributed.py
    assert {path.stem for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")} <= tested
