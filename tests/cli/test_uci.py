"""``bslfast benchmark uci``: what is chosen and reported, and that no test part is seen."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import FILES, one_line

from bslfast import cli
from bslfast.bnn import BayesianMLP
from bslfast.cli import uci
from bslfast.predict import predict

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

QUICK = ["--epochs", "1", "--members", "2", "--samples", "40", "--hidden", "5"]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which the benchmark sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write(
    folder: Path, rows: int = 40, targets: int = 1, change: Any = None, header: str = ""
) -> Path:
    """A table of y = sin x0 + noise with two splits, or what ``change`` makes of x and y."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    y = x[:, :1].sin() + 0.1 * torch.randn(rows, targets, generator=generator)
    x, y = change(x, y) if change else (x, y)
    folder.mkdir(parents=True)
    lines = [" ".join(map(repr, row)) for row in torch.cat([x, y], 1).tolist()]
    (folder / "data.txt").write_text(header + "\n".join(lines) + "\n")
    files: dict[str, Any] = {"features": range(3), "target": range(3, 3 + targets)}
    for k in range(2):
        order = torch.randperm(rows, generator=generator).tolist()
        files |= {f"train_{k}": order[rows // 10 :], f"test_{k}": order[: rows // 10]}
    for name, numbers in files.items():
        (folder / f"index_{name}.txt").write_text("\n".join(map(str, numbers)) + "\n")
    (folder / "n_splits.txt").write_text("2\n")
    return folder


def call(data: Path, out: Path, *more: str) -> dict[str, Any]:
    assert cli.main(["benchmark", "uci", "--data", str(data), "--out", str(out), *more]) == 0
    [file] = out.glob("*/metrics.json")
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def test_a_table_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uci, "_GRID", uci._GRID[::3])
    monkeypatch.setattr(uci, "_CHANGES", ())
    data = write(tmp_path / "waves" / "data", rows=120)
    report = call(data.parent, tmp_path / "runs", *QUICK, "--epochs", "15", "--hidden", "20")
    folder = tmp_path / "runs" / "uci-waves"
    pictures = {"splits.png", "calibration.png", "predictions.png"}
    assert set(os.listdir(folder)) == FILES - {"checkpoint.safetensors"} | pictures
    each = report["splits"]
    assert len(each) == 2
    for name in ("rmse", "log_likelihood"):
        first, second = (split[name] for split in each)
        assert report["test"][name] == pytest.approx((first + second) / 2)
        # The standard error of two is half their distance.
        error = report["test"][f"{name}_standard_error"]
        assert error == pytest.approx(abs(first - second) / 2)
    assert report["test"]["rmse"] < 0.4  # the spread of the targets is 0.7
    printed = capsys.readouterr()
    assert f"rmse {report['test']['rmse']:.4g} ± " in printed.out
    assert [len(split["choices"]) for split in each] == [2, 2]
    assert each[0]["choices"][0]["likelihood"] in printed.out
    assert "uci-waves: 100%" in printed.err
    assert cli.main(["summary", str(tmp_path / "runs")]) == 0
    assert "uci-waves" in capsys.readouterr().out


def test_results_are_repeatable_and_have_the_unit_of_the_targets(tmp_path: Path) -> None:
    """Units far from float32: a millionth around a million."""
    first = call(write(tmp_path / "a"), tmp_path / "runs a", *QUICK)
    again = call(tmp_path / "a", tmp_path / "runs b", *QUICK, "--splits", "1")
    assert again["splits"][0]["rmse"] == first["splits"][0]["rmse"]
    assert again["splits"][0]["log_likelihood"] == first["splits"][0]["log_likelihood"]
    assert again["test"]["rmse_standard_error"] is None
    other = write(tmp_path / "c", change=lambda x, y: (1e3 * x - 5, 1e-6 * y + 1e3))
    scaled = call(other, tmp_path / "runs c", *QUICK)
    for one, two in zip(first["splits"], scaled["splits"], strict=True):
        assert two["choices"] == one["choices"]
        assert two["rmse"] == pytest.approx(1e-6 * one["rmse"], rel=1e-4)
        expected = one["log_likelihood"] + 6 * math.log(10)
        assert two["log_likelihood"] == pytest.approx(expected, abs=1e-3)


def test_targets_of_the_test_part_change_no_choice_and_no_prediction(tmp_path: Path) -> None:
    data = write(tmp_path / "a")
    before = call(data, tmp_path / "runs a", *QUICK, "--splits", "1")
    test = [int(row) for row in (data / "index_test_0.txt").read_text().split()]

    def change(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y[test] += 1e3
        return x, y

    after = call(write(tmp_path / "b", change=change), tmp_path / "runs b", *QUICK, "--splits", "1")
    assert after["splits"][0]["choices"] == before["splits"][0]["choices"]
    # Predictions stay, so that all errors grow by what the targets did.
    assert after["test"]["rmse"] == pytest.approx(1e3, abs=3)


def test_a_member_that_diverges_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its number of rows: training on all of them fails for the first, or for all."""
    right, calls, broken = uci.train_network, [], 1

    def train(part: uci.Part, *others: Any) -> BayesianMLP:
        if len(part.x) == 36:
            calls.append(1)
            if len(calls) <= broken:
                raise FloatingPointError("fit: the loss became nan")
        return right(part, *others)

    monkeypatch.setattr(uci, "train_network", train)
    monkeypatch.setattr(uci, "_GRID", uci._GRID[:1])
    monkeypatch.setattr(uci, "_CHANGES", ())
    data = write(tmp_path / "a")
    report = call(data, tmp_path / "runs", *QUICK, "--splits", "1")
    assert len(calls) == 2
    assert math.isfinite(report["test"]["rmse"])
    broken = 10
    command = ["benchmark", "uci", "--data", str(data), "--out", str(tmp_path / "b"), *QUICK]
    assert cli.main(command) == 1


def test_two_targets(tmp_path: Path) -> None:
    report = call(write(tmp_path / "two", targets=2), tmp_path / "runs", *QUICK, "--splits", "1")
    assert math.isfinite(report["test"]["rmse"])
    assert not (tmp_path / "runs" / "uci-two" / "predictions.png").exists()


def test_search_mixes_what_predicts_best_together() -> None:
    """Two choices, each right about one half of the rows, are better than a third that is fair."""
    rows = {
        "normal": torch.tensor([0.0, 0.0, -9.0, -9.0]),
        "heteroscedastic normal": torch.tensor([-3.0] * 4),
        "heteroscedastic t": torch.tensor([-9.0, -9.0, 0.0, 0.0]),
    }
    asked = []

    def score(choice: uci.Choice) -> uci.HeldOut | None:
        asked.append(choice)
        density, error = rows[choice.likelihood].double(), torch.ones(4, 1).double()
        if choice.beta < 0.3:
            return None  # it fails, as the next do
        if choice.beta != 1 or choice.length != 1:
            return uci.HeldOut(torch.full_like(density, torch.nan), error)
        return uci.HeldOut(density - abs(choice.prior_scale - 1), error)

    chosen = uci.search(score, 5)
    assert len(asked) == len(set(asked)) == 3 * 3 + 3
    assert {choice.beta for choice in chosen} == {choice.prior_scale for choice in chosen} == {1.0}
    assert chosen[0].likelihood == "heteroscedastic normal"  # the best alone
    assert {choice.likelihood for choice in chosen[1:3]} == {"normal", "heteroscedastic t"}
    with pytest.raises(FloatingPointError, match="every choice"):
        uci.search(lambda choice: None, 1)


def test_merit_of_a_mixture() -> None:
    torch.manual_seed(0)
    means, scale, y = torch.randn(3, 50, 2).double(), 0.5, torch.randn(50, 2).double()
    each = torch.distributions.Normal(means, scale).log_prob(y).sum(-1)
    members = [uci.HeldOut(d, mean - y) for d, mean in zip(each, means, strict=True)]
    mixture = each.exp().mean(0).log().mean()
    mean_squares = (means.mean(0) - y).square().mean(0)
    expected = mixture - 0.5 * mean_squares.log().sum()
    assert uci.merit(members) == pytest.approx(expected.item())
    # Targets in another unit change it by a constant.
    scaled = [uci.HeldOut(d - 2 * math.log(7), 7 * e) for d, e in members]
    constant = uci.merit(scaled[:1]) - uci.merit(members[:1])
    assert uci.merit(scaled) - uci.merit(members) == pytest.approx(constant)
    assert math.isfinite(uci.merit([uci.HeldOut(each[0], 0 * members[0].error)]))


@pytest.mark.parametrize("rows", [10, 300, 1439, 60_000])
def test_folds_do_not_overlap(rows: int) -> None:
    seen: list[int] = []
    for train, held_out in uci.folds(rows, seed=1):
        assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(rows))
        seen += held_out.tolist()
    assert len(seen) == len(set(seen))
    assert len(seen) >= 0.2 * rows - 1


def test_a_mixture_has_the_mean_density_of_its_members() -> None:
    """Also members of different laws, as all are mixtures of normals."""
    torch.manual_seed(0)
    members = [
        BayesianMLP(3, (5,), 2, likelihood=uci._likelihood(name, 2), init_scale=1e-6)
        for name in uci.LIKELIHOODS
    ]
    torch.nn.init.constant_(members[0].likelihood.raw_scale, 0.7)
    x, y = torch.randn(7, 3), 2 * torch.randn(7, 2)
    mixture = predict(uci.Mixture(members), x, 6000)
    each = [predict(member, x, 1) for member in members]
    mean = torch.stack([prediction.mean for prediction in each]).mean(0)
    torch.testing.assert_close(mixture.mean, mean, atol=1e-4, rtol=1e-4)
    for k, member in enumerate(members):
        alone, exact = predict(uci.Mixture([member]), x, 4000), each[k]
        torch.testing.assert_close(alone.cdf(y), exact.cdf(y), atol=1e-3, rtol=0)
        torch.testing.assert_close(alone.aleatoric, exact.aleatoric, rtol=0.02, atol=0)
    expected = torch.stack([prediction.cdf(y) for prediction in each]).mean(0)
    torch.testing.assert_close(mixture.cdf(y), expected, atol=1e-3, rtol=0)
    # A number of draws that members cannot share evenly, and fewer than members.
    assert uci.Mixture(members).sample_outputs(x, 2).shape == (2, 7, 4)
    assert uci.Mixture(members).sample_outputs(x, 5).shape == (5, 7, 4)


@pytest.mark.parametrize("a", [0.5, 2.0, 30.0])
def test_gamma_quantiles(a: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.gamma.ppf([0.1, 0.3, 0.5, 0.7, 0.9], a, scale=1 / a)
    assert uci._gamma_quantiles(a, 5).tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_faults_end_with_1_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def text(data: Path, *more: str) -> str:
        command = ["benchmark", "uci", "--data", str(data), "--out", str(tmp_path / "runs"), *more]
        assert cli.main(command) == 1
        assert not (tmp_path / "runs").exists()
        return one_line(capsys)

    assert "expected a folder with data.txt" in text(tmp_path / "none")
    data = write(tmp_path / "few", rows=10)
    assert "expected at least 10 training rows in each split, got 9 in split 0" in text(data)
    data = write(tmp_path / "good")
    assert "--splits: expected at most 2" in text(data, "--splits", "3")
    (data / "index_test_1.txt").unlink()
    assert "index_test_1.txt: expected a text file" in text(data)


@pytest.mark.parametrize("options", [[], ["uci"], ["uci", "--data", "x", "--splits", "0"]])
def test_wrong_options_end_with_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["benchmark", *options])
    assert caught.value.code == 2
