"""``bslfast train density``: from any table of numbers to a report, and what it refuses."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import FILES, one_line
from torch import Tensor

from bslfast import cli
from bslfast.cli import flows
from bslfast.cli.flows import FLOWS
from bslfast.cli.jobs import density
from bslfast.data import read_table
from bslfast.training import checkpoint

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which a job sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


#: Independent normal numbers of these means and scales.
MEAN, SCALE = torch.tensor([100.0, -3.0, 0.5]).double(), torch.tensor([10.0, 0.01, 2.0]).double()


def rows(n: int, features: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, features, dtype=torch.float64, generator=generator)
    return MEAN[:features] + SCALE[:features] * z


def train(folder: Path, *more: str, epochs: int = 2) -> int:
    command = ["train", "density", "--epochs", str(epochs), "--transforms", "2", "--hidden", "8"]
    return cli.main([*command, "--out", str(folder / "runs"), *more])


@pytest.mark.parametrize("flow", FLOWS)
def test_the_log_likelihood_is_that_of_the_data(
    tmp_path: Path, flow: str, capsys: pytest.CaptureFixture
) -> None:
    """In their own units: that of the law they were drawn from, in so far as a flow finds it."""
    np.save(tmp_path / "points.npy", rows(2000).numpy())
    np.save(tmp_path / "held out.npy", rows(1000, seed=1).numpy())
    files = [
        *("--data", str(tmp_path / "points.npy"), "--flow", flow, "--batch-size", "128"),
        *("--test", str(tmp_path / "held out.npy")),
    ]
    assert train(tmp_path, *files) == 0
    folder = tmp_path / "runs" / f"density-{flow}-points"
    pictures = {"marginals.png", "learning_curves.png"}
    assert set(os.listdir(folder)) == FILES | pictures
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 1700, "validation": 300, "test": 1000}
    assert report["data"]["features"] == ["x1", "x2", "x3"]
    law = torch.distributions.Normal(MEAN, SCALE)
    exact = law.log_prob(rows(1000, seed=1)).sum(1)
    found = report["test"]
    assert found["log_likelihood"] == pytest.approx(exact.mean().item(), abs=0.05)
    assert found["standard_error"] == pytest.approx(exact.std().item() / math.sqrt(1000), rel=0.1)
    assert report["training"]["steps"] == 2 * 14
    assert report["evaluation_seconds"] > 0
    assert report["sampling_seconds"] > 0
    assert f"log_likelihood {found['log_likelihood']:.4g}" in capsys.readouterr().out
    if flow == "maf":
        resumed = json.loads((folder / "metrics.json").read_text())
        assert train(tmp_path, *files, "--resume") == 0  # a finished run
        assert json.loads((folder / "metrics.json").read_text())["test"] == resumed["test"]
        assert checkpoint.load(folder / "checkpoint.safetensors").tensors


def test_a_table_is_split_and_standardised_by_its_training_rows(tmp_path: Path) -> None:
    x = rows(40, 2)
    lines = ["height,width", *(f"{a!r},{b!r}" for a, b in x.tolist())]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    assert train(tmp_path, "--data", str(tmp_path / "a.csv"), "--seed", "3") == 0
    folder = tmp_path / "runs" / "density-nsf-a"
    assert "density.png" in os.listdir(folder)
    data = json.loads((folder / "metrics.json").read_text())["data"]
    assert data["features"] == ["height", "width"]
    assert data["rows"] == {"train": 28, "validation": 6, "test": 6}
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    kept = x[order[12:]]
    assert data["input_mean"] == pytest.approx(kept.mean(0).tolist())
    assert data["input_scale"] == pytest.approx(kept.std(0, correction=0).tolist())


def test_all_files_are_given_and_plain_torch_does_as_well(tmp_path: Path) -> None:
    for seed, name in enumerate(("train", "validation", "test")):
        np.save(tmp_path / f"{name}.npy", rows(300 - 100 * seed, 1, seed).float().numpy())
    command = ["train", "density", "--epochs", "1", "--transforms", "1", "--out", str(tmp_path)]
    command += ["--data", str(tmp_path / "train.npy"), "--flow", "nsf-ar", "--bins", "4"]
    command += ["--reference"]
    command += [f"--{name}={tmp_path / name}.npy" for name in ("validation", "test")]
    assert cli.main(command) == 0
    report = json.loads((tmp_path / "density-nsf-ar-train" / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 300, "validation": 200, "test": 100}
    twin = report["reference"]["test"]
    assert twin == pytest.approx(report["test"], rel=1e-3)


@pytest.mark.parametrize(
    ("rows", "batch", "lr", "epochs", "patience"),
    [
        (300, 32, 0.001, 400, 100),
        (3000, 64, 0.001, 242, 60),
        (10_000, 128, 0.002, 145, 36),
        (10**6, 512, 0.002, 20, 10),
    ],
)
def test_defaults_by_the_number_of_rows(
    rows: int,
    batch: int,
    lr: float,
    epochs: int,
    patience: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether parts are held out of the file, or are files of their own."""
    seen: list[argparse.Namespace] = []
    monkeypatch.setattr(flows, "run", lambda options, *_: seen.append(options) or 0)
    for part in (0.7, 1.0):
        data = flows.Data(*torch.empty(3, round(part * rows), 0), ("x",), "a file")
        monkeypatch.setattr(density, "load", lambda _, data=data: data)
        assert cli.main(["train", "density", "--data", "a.npy"]) == 0
        assert cli.main(["train", "density", "--data", "a.npy", "--lr", "0.5"]) == 0
    chosen = seen[0]
    assert (chosen.batch_size, chosen.lr, chosen.epochs) == (batch, lr, epochs)
    assert (chosen.patience, chosen.hidden) == (patience, [64, 64])
    assert [options.lr for options in seen[1::2]] == [0.5, 0.5]
    # Training rows of a file of which none are held out are more by 1 / 0.7.
    assert seen[2].epochs in (20, 400) or seen[2].epochs == pytest.approx(0.7 * epochs, rel=0.02)


def test_few_rows_are_learned(tmp_path: Path) -> None:
    """The density that the points come from has -0.3, a normal distribution -1.9."""
    for name, n in (("train", 300), ("test", 3000)):
        angle = math.pi * torch.linspace(0, 1, n // 2, dtype=torch.float64)
        upper = torch.stack([angle.cos(), angle.sin()], dim=1)
        lower = torch.tensor([1.0, 0.5]).double() - upper
        noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(n)).double()
        np.save(tmp_path / f"{name}.npy", (torch.cat([upper, lower]) + 0.05 * noise).numpy())
    command = ["train", "density", "--out", str(tmp_path), "--data", str(tmp_path / "train.npy")]
    command += ["--test", str(tmp_path / "test.npy")]
    assert cli.main(command) == 0
    report = json.loads((tmp_path / "density-nsf-train" / "metrics.json").read_text())
    assert report["test"]["log_likelihood"] > -0.6


# --- what is wrong with a table -------------------------------------------------------------------


def saved(folder: Path, values: object, name: str = "a.npy") -> Path:
    path = folder / name
    if isinstance(values, str | bytes):
        path.write_bytes(values.encode() if isinstance(values, str) else values)
    else:
        np.save(path, values, allow_pickle=True)
    return path


NAN = rows(5).numpy().copy()
NAN[3, 1] = math.nan


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("a.npy", np.ones(5), r"a.npy: expected a matrix .* got shape \[5\]"),
        ("a.npy", np.ones((2, 2, 2)), r"expected a matrix .*\[2, 2, 2\]"),
        ("a.npy", np.ones((0, 3)), r"expected a matrix .*at least one, got shape \[0, 3\]"),
        ("a.npy", np.array([["a", "b"]]), "real numbers, .*dtype <U1"),
        ("a.npy", np.ones((2, 2)) + 1j, "real numbers, .*dtype complex128"),
        ("a.npy", np.array([[1, None]]), "a.npy: expected a whole .npy file of numbers"),
        ("a.npy", NAN, r"a.npy: .*got NaN: 1 of 15 .*index \(3, 1\)"),
        ("a.npy", b"", "a.npy: expected a whole .npy file"),
        ("a.npy", b"\x93NUMPY and so on", "a.npy: expected a whole .npy file"),
        ("a.npy", b"PK\x05\x06" + 18 * b"\0", "a.npy: expected a matrix .*archive"),
        ("a.txt", "1,2\n", "a.txt: expected a file whose name ends in .npy or .csv"),
        ("a.csv", "", "a.csv, line 1: expected a header"),
        ("a.csv", "a,b\n", "a.csv: expected rows below the header"),
        ("a.csv", "a,b\n1,2\n3,four\n", "a.csv, line 3, column 'b': .*'four'"),
        ("a.csv", "a,b\n1,inf\n", "a.csv, line 2, column 'b': .*'inf'"),
        ("a.csv", "a,b\n1,2,3\n", "a.csv, line 2: expected 2 fields .* got 3"),
        (
            "a.csv",
            "a;b\n1;2\n",
            "a.csv, line 1: .*','.* one, 'a;b'; .*delimiter=';' .--delimiter ';'[)]",
        ),
        (
            "a.csv",
            "a\tb\n1,5\t2\n",
            r"a.csv, line 1: .* another .* delimiter='\\t' .--delimiter '\\t'[)]",
        ),
        (
            "a.csv",
            'a,b\n2,"0,12"\n',
            "column 'b': .*got '0,12'; a decimal comma has to become a point$",
        ),
        ("a.csv", 'a,b\n2,"0,1,2"\n', "column 'b': .*got '0,1,2'$"),
        ("a.csv", "1,2\n3,4\n", "a.csv, line 1: expected the names .*got numbers; .*--no-header"),
        ("a.csv", ",b\n0,4\n", "a.csv, line 1: expected a name .*column 1 of 2"),
        ("a.csv", "b,b\n0,4\n", "a.csv, line 1: expected one column 'b' .*got 2"),
    ],
)
def test_read_table_refuses(tmp_path: Path, name: str, values: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_table(saved(tmp_path, values, name))


def test_read_table(tmp_path: Path) -> None:
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.5]], dtype=torch.float64)
    for dtype in (np.float32, np.float64, ">f4"):
        values, names = read_table(saved(tmp_path, expected.numpy().astype(dtype)))
        assert torch.equal(values, expected)
        assert names == ("x1", "x2")
    whole, _ = read_table(saved(tmp_path, np.array([[1, 2], [3, 4]], np.uint8, order="F")))
    assert torch.equal(whole, expected.floor())
    values, names = read_table(saved(tmp_path, "left;2nd\n1;2\n3;4.5\n", "a.CSV"), delimiter=";")
    assert torch.equal(values, expected)
    assert names == ("left", "2nd")
    values, names = read_table(saved(tmp_path, "1,2\n3,4.5", "b.csv"), header=False)
    assert torch.equal(values, expected)
    assert names == ("x1", "x2")
    for name in ("none.npy", "none.csv"):
        with pytest.raises(FileNotFoundError, match=name):
            read_table(tmp_path / name)
    with pytest.raises(ValueError, match="line 1: expected numbers, got an empty file"):
        read_table(saved(tmp_path, "", "c.csv"), header=False)
    with pytest.raises(TypeError, match="header: expected a bool"):
        read_table(tmp_path / "b.csv", header=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="delimiter: expected one character"):
        read_table(tmp_path / "b.csv", delimiter="::")


@pytest.mark.parametrize(
    ("data", "test", "text"),
    [
        (rows(5), None, "a.npy: expected at least 2 rows for the test part, got 1 of the file's 5"),
        (
            rows(1),
            rows(9),
            "a.npy: expected at least 2 rows for the train part, got 1 of the file's 1",
        ),
        (rows(20), rows(1), "b.npy: expected at least 2 rows for the test part, got 1"),
        (rows(20), rows(20, 2), r"b.npy: expected the columns of .*3 \('x1', .*got 2"),
        (torch.ones(20, 2), None, "a.npy, column 'x1': expected numbers that differ"),
        (
            0.3 + 4e-17 * rows(20)[:, 2:].sign(),
            None,
            "a.npy, column 'x1': expected numbers that differ",
        ),
        (rows(20), 1e60 * rows(20, 3), "b.npy, column 'x1': .* standardised, got .*e[+]6"),
    ],
)
def test_parts_that_cannot_be(
    tmp_path: Path, data: Tensor, test: Tensor | None, text: str, capsys: pytest.CaptureFixture
) -> None:
    files = ["--data", str(saved(tmp_path, data.numpy()))]
    if test is not None:
        files += ["--test", str(saved(tmp_path, test.numpy(), "b.npy"))]
    assert train(tmp_path, *files) == 1
    assert re.search(text, one_line(capsys))
    assert not (tmp_path / "runs").exists()
