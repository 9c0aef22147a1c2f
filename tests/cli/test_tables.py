"""``bslfast train regression | classification | vae`` on own files, and what is refused."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import FILES, one_line

from bslfast import cli
from bslfast.cli import tables
from bslfast.cli.jobs import regression, vae
from bslfast.data import Examples, split
from bslfast.likelihoods import get
from bslfast.predict import Prediction

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

RNG = np.random.default_rng(0)
N = 120
A, B = 1e9 + RNG.normal(size=N), RNG.uniform(size=N)
Y = 2 * (A - 1e9) + 0.1 * RNG.normal(size=N)
Z = B + 50
ROWS = torch.arange(30)
K = np.where(B > 0.5, "red", "blue, dark")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which a job sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    columns = (column.tolist() for column in (A, B, Y, Z, K))
    rows = [f'{a!r},{b!r},{y!r},{z!r},"{k}"' for a, b, y, z, k in zip(*columns, strict=True)]
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["a,b,y,z,k", *rows]))
    return path


def train(job: str, path: Path, *more: str, epochs: int = 2) -> int:
    command = ["train", job, "--data", str(path), "--epochs", str(epochs), "--samples", "5"]
    return cli.main([*command, "--out", str(path.parent / "runs"), *more])


def report_of(path: Path, job: str) -> dict:
    folder = path.parent / "runs" / f"{job}-{path.stem}"
    return json.loads((folder / "metrics.json").read_text())


def test_regression(own: Path, capsys: pytest.CaptureFixture) -> None:
    """Inputs such as dates, large numbers that differ little, keep their digits."""
    assert train("regression", own, "--target", "y", "--ignore", "k", "z", epochs=100) == 0
    folder = own.parent / "runs" / "regression-own"
    names = ("predictions", "calibration", "pit", "learning_curves", "weights")
    pictures = {f"{x}.png" for x in names}
    assert set(os.listdir(folder)) == FILES | pictures
    report = report_of(own, "regression")
    assert report["data"]["rows"] == {"train": 84, "validation": 18, "test": 18}
    assert report["data"]["features"] == ["a", "b"]
    assert next(iter(report["test"])) == "rmse"
    assert "reference" not in report  # unless it is asked for
    assert report["test"]["rmse"] < 0.8  # the spread is 2
    kept = split(torch.from_numpy(A).unsqueeze(1), torch.zeros(N), seed=0).train.x
    assert report["data"]["input_mean"][0] == pytest.approx(kept.mean().item(), rel=1e-15)
    # By the number of rows.
    assert (report["options"]["batch_size"], report["options"]["hidden"]) == (32, [16])
    assert "<h1>regression-own</h1>" in (folder / "report.html").read_text()
    assert "from " + str(own) in capsys.readouterr().out


@pytest.mark.parametrize("likelihood", ["normal", "student_t"])
def test_several_targets(own: Path, likelihood: str) -> None:
    more = ["--ignore", "k", "--target", "z", "y", "--likelihood", likelihood]
    assert train("regression", own, *more) == 0
    report = report_of(own, "regression")
    assert report["data"]["features"] == ["a", "b"]
    assert {key for key in report["test"] if key.startswith("rmse")} == {"rmse, z", "rmse, y"}
    assert "predictions_2.png" in os.listdir(own.parent / "runs" / "regression-own")
    assert report["data"]["target_mean"] == pytest.approx([50.5, 0], abs=0.4)


@pytest.mark.parametrize(
    "name",
    [
        *("heteroscedastic_normal", "normal", "laplace", "student_t"),
        *("poisson", "negative_binomial"),
    ],
)
def test_predictions_of_each_target(name: str) -> None:
    """With one draw of the weights, the log likelihood is the sum over independent targets."""
    likelihood = get(name, 3)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    samples = torch.randn(1, 7, likelihood.n_outputs(3))
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    y = torch.randn(7, 3)
    if not likelihood.continuous:
        y = y.abs().round()
    found = regression.parts(prediction, Examples(y, y))
    assert [tuple(examples.y.shape) for _, examples in found] == [(7, 1)] * 3
    total = torch.stack([own.log_prob(examples.y) for own, examples in found]).sum(0)
    torch.testing.assert_close(total, prediction.log_prob(y))
    for j, (own, _) in enumerate(found):
        torch.testing.assert_close(own.interval(0.9)[1][:, 0], prediction.interval(0.9)[1][:, j])
        assert torch.equal(own.mean[:, 0], prediction.mean[:, j])


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_counts(own: Path, likelihood: str) -> None:
    """They are not rescaled. Training starts at their mean, which is far from a rate of 1."""
    rates = np.exp(5 + 0.5 * (A - 1e9))
    counts = np.random.default_rng(1).poisson(rates)
    rows = [f"{a!r},{b!r},{y}" for a, b, y in zip(A.tolist(), B.tolist(), counts, strict=True)]
    own.write_text("\n".join(["a,b,visits", *rows]))
    assert train("regression", own, "--likelihood", likelihood, epochs=40) == 0
    folder = own.parent / "runs" / "regression-own"
    assert {"pit.png", "rootogram.png", "predictions.png"} <= set(os.listdir(folder))
    report = report_of(own, "regression")
    assert "target_mean" not in report["data"]
    assert report["test"]["rmse"] < 0.9 * counts.std()
    two = ["--likelihood", likelihood, "--target", "visits", "more"]
    lines = own.read_text().splitlines()
    own.write_text("\n".join([lines[0] + ",more", *(f"{line},{i % 3}" for i, line in
                                                     enumerate(lines[1:]))]))  # fmt: skip
    assert train("regression", own, *two) == 0
    assert {"predictions_1.png", "predictions_2.png", "rootogram.png"} <= set(os.listdir(folder))
    assert "calibration_error, more" in report_of(own, "regression")["test"]


def test_classification(own: Path, capsys: pytest.CaptureFixture) -> None:
    assert train("classification", own, "--ignore", "y", "z", epochs=100) == 0
    report = report_of(own, "classification")
    assert report["test"]["accuracy"] > 0.8
    assert 0 < report["test"]["brier_score"] < 0.4
    assert report["data"]["features"] == ["a", "b"]
    share = (K == "red").mean()
    assert f"blue, dark {1 - share:.0%}, red {share:.0%}" in capsys.readouterr().out


def test_parquet(own: Path, capsys: pytest.CaptureFixture) -> None:
    """The same rows and numbers as in a .csv file give the same network."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": A, "b": B, "y": Y, "z": Z, "k": K})
    path = own.parent / "parquet" / "own.parquet"
    path.parent.mkdir()
    frame.to_parquet(path)
    options = ["--target", "y", "--ignore", "k"]
    found = []
    for file in (own, path):
        assert train("regression", file, *options) == 0
        found.append(report_of(file, "regression"))
    assert found[0]["test"] == found[1]["test"]
    assert train("classification", path, "--ignore", "y", "z") == 0
    capsys.readouterr()
    frame.loc[7, "a"] = math.nan
    frame.to_parquet(path)
    assert train("regression", path, *options) == 1
    assert "own.parquet, row 7, column 'a': expected a value, got none" in one_line(capsys)
    assert train("regression", path, "--target", "y") == 1
    assert "row 0, column 'k': expected a finite number, got" in one_line(capsys)


def test_rows_that_lack_values(own: Path, capsys: pytest.CaptureFixture) -> None:
    lines = own.read_text().splitlines()
    lines[3] = re.sub("^[^,]*", "", lines[3])
    lines[5] = re.sub(",[^,]*$", ",", lines[5].replace("blue, dark", "blue"))
    own.write_text("\n".join(lines))
    for job, more in (
        ("classification", []),
        ("regression", ["--target", "a", "--ignore", "k"]),
        ("density", ["--ignore", "k"]),
        ("vae", ["--labels", "k"]),
    ):
        command = ["train", job, "--data", str(own), *more, "--out", str(own.parent / "runs")]
        assert cli.main(command) == 1
        count = 1 if "--ignore" in more else 2
        text = f"own.csv, line 4, column 'a': expected a value, got none; {count} of 120 rows"
        assert text in one_line(capsys)
    assert not (own.parent / "runs").exists()
    assert train("classification", own, "--missing", "drop", "--target", "k") == 0
    assert sum(report_of(own, "classification")["data"]["rows"].values()) == 118
    assert "2 of 120 rows left out, as they lack values; first" in capsys.readouterr().out


def test_vae_of_a_table(own: Path) -> None:
    """Bounds are in the units of the data: columns times 1024 lose log(1024) each, exactly."""
    x = np.stack([A - 1e9, B, Y], axis=1)
    found = []
    for factor in (1, 1024):
        path = own.parent / f"own{factor}.npz"
        np.savez(path, x=factor * x, k=K)
        assert train("vae", path, "--labels", "k", "--hidden", "8", epochs=5) == 0
        found.append(report_of(path, "vae")["test"])
        pictures = ("marginals", "kl_per_dimension", "latent_space", "learning_curves")
        files = set(os.listdir(own.parent / "runs" / f"vae-own{factor}"))
        assert files == FILES | {f"{picture}.png" for picture in pictures}
    for key in ("elbo", "expected_log_likelihood", "log_likelihood"):
        assert found[0][key] - found[1][key] == pytest.approx(3 * math.log(1024), rel=1e-6)
    for key in ("kl", "reconstruction_mse", "log_likelihood_standard_error"):
        assert found[0][key] == found[1][key]
    assert found[0]["elbo"] <= found[0]["log_likelihood"] + 0.1
    assert found[0]["log_likelihood_rows"] == 18


def test_labels_are_no_features(tmp_path: Path) -> None:
    """Those of a matrix of one column, by its own name."""
    labels = np.where(np.arange(N) == 3, math.nan, np.arange(N) % 2)
    path = tmp_path / "own.npz"
    np.savez(path, x=np.stack([B, Y], axis=1), k=labels[:, None])
    options = argparse.Namespace(
        data=path, labels="k", ignore=[], delimiter=",", no_header=False, missing="drop", seed=0
    )
    x, y, features, names = vae.load_table(options)
    assert (features, names) == (("x1", "x2"), ("0", "1"))
    assert len(x) == len(y) == N - 1
    np.savez(path, x=np.zeros((N, 4, 4)), k=labels[:, None])
    with pytest.raises(ValueError, match="row 3, column 'k1': expected a label, got none"):
        vae.load_images(options)


def test_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    path = tmp_path / "a$_$b.csv"
    rows = [f"{a - 1e9},{b},{'$^$' if b > 0.5 else '$'}" for a, b in zip(A, B, strict=True)]
    path.write_text("\n".join(["US$^$,$x,$_$", *rows]))
    assert train("classification", path) == 0
    assert train("vae", path, "--labels", "$_$", "--latent", "1", "--hidden", "4") == 0
    assert train("regression", path, "--ignore", "$_$", "--target", "US$^$") == 0


def test_results_are_those_of_one_run(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever interrupts it: in training, or among the pictures."""
    folder = own.parent / "runs" / "regression-own"

    def run(*more: str) -> int:
        return train("regression", own, "--ignore", "k", *more, epochs=1)

    assert run("--target", "y", "z") == 0
    assert "predictions_2.png" in os.listdir(folder)
    (folder / "mine.png").write_bytes(b"kept")
    assert run("--target", "y", "--resume") == 1  # refused, and nothing is lost
    assert {*FILES, "predictions_2.png"} <= set(os.listdir(folder))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bslfast.plots.save", stop)
        assert run("--target", "y") == 130
    assert set(os.listdir(folder)) == {"checkpoint.safetensors", "metrics.json", "mine.png"}
    assert run("--target", "y", "z") == 0
    with monkeypatch.context() as patch:
        patch.setattr("bslfast.training.loop._Run.epoch", stop)
        patch.setattr("bslfast.cli.runner.warm_up", lambda *_: None)
        assert run("--target", "y") == 130
    assert os.listdir(folder) == ["mine.png"]


@pytest.mark.parametrize("scale", ["learned", "decoder"])
def test_plain_torch_does_as_well(own: Path, scale: str) -> None:
    command = ["train", "vae", "--data", str(own), "--ignore", "k", "--scale", scale, "--hidden"]
    command += ["8", "--epochs", "3", "--samples", "2", "--out", str(own.parent / "runs")]
    command += ["--reference"]
    assert cli.main(command) == 0
    report = report_of(own, "vae")
    # Both trainings have the same initial weights and batches, and other noise.
    assert report["reference"]["test"]["elbo"] == pytest.approx(report["test"]["elbo"], abs=0.3)
    assert set(report["reference"]["milliseconds_per_step"]) == {"bslfast", "plain torch"}


@pytest.mark.parametrize("kind", ["bytes", "numbers"])
def test_vae_of_images(tmp_path: Path, kind: str) -> None:
    pixels = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    path = tmp_path / "own.npz"
    images = pixels if kind == "bytes" else (pixels[:, None] / 255)
    np.savez(path, images=images, k=np.arange(40) % 3)
    more = ["--labels", "k"] if kind == "bytes" else []
    assert train("vae", path, *more, "--hidden", "8") == 0
    report = report_of(path, "vae")
    assert report["data"]["shape"] == [1, 6, 5]
    assert report["data"]["rows"] == {"train": 28, "validation": 6, "test": 6}
    options = argparse.Namespace(data=path, labels=more[1] if more else None)
    x, y, names = vae.load_images(options) or pytest.fail("no images")
    assert torch.equal(x, torch.from_numpy(pixels[:, None] / 255).float())
    assert names == (("0", "1", "2") if more else ("held-out images",))
    assert y.unique().tolist() == list(range(len(names)))


def test_vae_of_colour_images(tmp_path: Path) -> None:
    path = tmp_path / "own.npy"
    np.save(path, RNG.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8))
    assert train("vae", path, "--hidden", "8") == 0
    report = report_of(path, "vae")
    assert report["data"]["shape"] == [3, 6, 5]
    assert report["model"]["layers"] == "VAE 90-8-2-8-90"
    pictures = {"reconstructions.png", "samples.png", "interpolation.png", "latent_grid.png"}
    assert pictures <= set(os.listdir(tmp_path / "runs" / "vae-own"))


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "patience"),
    [(100, 32, 400, 100), (1000, 32, 273, 68), (10_000, 128, 109, 27), (10**6, 512, 20, 10)],
)
def test_defaults_by_the_number_of_rows(rows: int, batch: int, epochs: int, patience: int) -> None:
    names = ("epochs", "batch_size", "lr", "patience", "hidden")
    options = argparse.Namespace(**dict.fromkeys(names))
    tables.fill(options, rows)
    assert (options.batch_size, options.epochs, options.patience) == (batch, epochs, patience)
    given = argparse.Namespace(epochs=7, batch_size=5, lr=0.5, patience=3, hidden=[2])
    tables.fill(given, rows)
    assert vars(given) == {"epochs": 7, "batch_size": 5, "lr": 0.5, "patience": 3, "hidden": [2]}


def test_a_table_separated_by_tabs(own: Path, capsys: pytest.CaptureFixture) -> None:
    """The error's own words, as a shell passes them on, make it readable."""
    lines = [f"{b}\t{y}" for b, y in zip(B, Y, strict=True)]
    own.write_text("\n".join(["b\ty", *lines]))
    assert train("regression", own) == 1
    found = re.search(r"\((--delimiter) '(.*)'\)", one_line(capsys))
    assert found is not None
    assert train("regression", own, *found.groups(), epochs=1) == 0
    assert report_of(own, "regression")["data"]["features"] == ["b"]


def test_a_run_that_diverges(own: Path, capsys: pytest.CaptureFixture) -> None:
    """It says what may help, and leaves no folder of its own."""
    runs = own.parent / "runs"
    command = ["--target", "y", "--ignore", "k", "--lr", "1e30"]
    for there in ([], ["mine"]):
        for name in there:
            (runs / name).mkdir(parents=True)
        assert train("regression", own, *command) == 1
        assert "a smaller lr than 1e+30 may help" in one_line(capsys)
        assert [path.name for path in runs.glob("*")] == there
    assert train("regression", own, *command, "--out", str(own.parent / "new" / "runs")) == 1
    assert not (own.parent / "new").exists()


def test_results_of_another_table_are_kept(
    own: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same name in another folder, or with another ending."""
    arrays = own.with_suffix(".npz")
    np.savez(arrays, b=B, y=Y)
    elsewhere = own.parent / "elsewhere" / own.name
    elsewhere.parent.mkdir()
    elsewhere.write_text(own.read_text())
    assert train("regression", own, "--ignore", "k", epochs=1) == 0
    before = report_of(own, "regression")
    assert before["options"]["data"] == str(own)
    out = str(own.parent / "runs")
    for path in (arrays, elsewhere):
        for more in ([], ["--resume"]):
            assert train("regression", path, "--out", out, *more) == 1
            text = one_line(capsys)
            assert text.startswith("bslfast: --out: expected a folder without results of another")
            assert f"where regression-own is of {own} and would become that of {path}" in text
    assert report_of(own, "regression") == before
    assert train("regression", elsewhere, "--ignore", "k", epochs=1) == 0  # there
    # The same file by a shorter path, and results of none that is known.
    monkeypatch.chdir(own.parent)
    assert train("regression", Path("own.csv"), "--ignore", "k", epochs=1) == 0
    (own.parent / "runs" / "regression-own" / "metrics.json").write_text("[]")
    assert train("regression", arrays, epochs=1) == 0
    assert report_of(own, "regression")["options"]["data"] == str(arrays)


# --- what is wrong with a table -------------------------------------------------------------------

LINES = "a,b,k\n" + "".join(f"{i},{i % 7},{'xyz'[i % 3]}\n" for i in range(30))
HUGE = "a,b\n" + "".join(f"{'1e300' if i == 3 else i},{i % 2}\n" for i in range(30))
#: A seed by which the last of 30 rows is held out.
ABSENT = next(s for s in range(99) if 29 not in split(ROWS, ROWS, seed=s).train.x)
DEEP = np.zeros((30, 4, 4))


@pytest.mark.parametrize(
    ("job", "content", "more", "text"),
    [
        ("regression", LINES, [], "line 2, column 'k': expected a finite number, got 'x'"),
        ("regression", LINES, ["--ignore", "k", "--target", "c"], "--target: .*'a', 'b', got 'c'"),
        ("regression", LINES, ["--ignore", "c"], "--ignore: expected columns of .*got 'c'"),
        ("regression", LINES, ["--ignore", "a", "b", "k"], "--ignore: expected some of the col"),
        ("regression", LINES, ["--ignore", "a", "k"], "--target: expected other columns .*all 1"),
        ("regression", LINES[:60], ["--ignore", "k"], "expected at least 20 rows .*got 9"),
        ("regression", "a,b\n" + 30 * "1,2\n", [], "column 'b': .*nothing to predict"),
        ("regression", LINES.replace("29,", "inf,"), ["--ignore", "k"], "column 'a': .*'inf'"),
        (
            "regression",
            "a,b\n" + "".join(f"{i},{1e9 + i}\n" for i in range(30)),
            [],
            "column 'b': expected numbers that float32 tells apart, .* 8.803 around 1000000014;",
        ),
        ("classification", LINES, ["--target", "k", "b"], "--target: expected one column .*k, b"),
        ("classification", LINES, ["--target", "b", "--ignore", "k"], "from 2 to 6 labels .*got 7"),
        ("classification", "a,b\n" + 30 * "1,2\n", [], "column 'b': .*got 1: 2"),
        ("classification", LINES, ["--target", "a"], "column 'k': expected a finite number"),
        (
            "classification",
            LINES.replace("29,1,z", "29,1,one"),
            ["--seed", str(ABSENT)],
            "column 'k': expected each label in the rows for training, got 'one' in held-out rows",
        ),
        ("regression", LINES.replace(",", ";"), [], "line 1: .* one, 'a;b;k'; .*--delimiter"),
        (
            "regression",
            "a;b\n" + "".join(f"{i},5;{i},25\n" for i in range(30)),
            ["--delimiter", ";"],
            "line 2, column 'a': .*got '0,5'; likewise in 'b'; a decimal comma has to .* point$",
        ),
        (
            "regression",
            LINES.replace("29,1,", "29,1.5,"),
            ["--target", "b", "--ignore", "k", "--likelihood", "poisson"],
            "own.csv, column 'b': expected whole numbers of at least 0 .* poisson, got 1.5",
        ),
        ("regression", HUGE, [], "own.csv, column 'a': expected numbers that float32 .*1e[+]300"),
        ("vae", HUGE, [], "own.csv, column 'a': expected numbers that float32 holds .*1e[+]300"),
        (
            "classification",
            HUGE.replace("a,b", "a,k"),
            [],
            "own.csv, column 'a': expected numbers that float32 .*1e[+]300",
        ),
        ("vae", LINES, [], "column 'k': expected a finite number"),
        ("vae", LINES, ["--labels", "c"], "--labels: expected columns of .*got 'c'"),
        ("vae", LINES, ["--ignore", "a", "b", "--labels", "k"], "--labels: expected other columns"),
        ("vae", LINES, ["--labels", "k", "--network", "conv"], "--network: expected mlp"),
        ("vae", "a,b\n" + "".join(f"{i},2\n" for i in range(30)), [], "column 'b': .*no density"),
        ("vae", DEEP - 0.5, [], r"array 'x': expected grey images .*got -0.5 to -0.5 in row 0"),
        ("vae", DEEP + math.nan, [], "expected grey images .*in row 0"),
        ("vae", DEEP[:9], [], "expected at least 20 images, got 9"),
        ("vae", DEEP[:, None, None], [], r"got shape \[30, 1, 1, 4, 4\]"),
        ("vae", np.zeros((30, 4, 4, 3)), [], r"got shape \[30, 4, 4, 3\]"),
        ("vae", DEEP + 1j, [], "got dtype complex128"),
        ("vae", DEEP, ["--labels", "k"], "expected arrays of 30 rows, got none"),
        ("vae", {"x": DEEP, "z": DEEP}, [], r"and others of more than two dimensions: \['z'\]"),
        ("vae", {"x": DEEP, "k": np.ones(3)}, ["--labels", "k"], "of 30 rows, got 3 in 'k'"),
        ("vae", {"x": DEEP, "k": np.ones((30, 2))}, ["--labels", "k"], "--labels: .*one column"),
        ("vae", {"x": DEEP, "k": [math.nan] * 30}, ["--labels", "k"], "row 0, column 'k': .*label"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    job: str,
    content: object,
    more: list[str],
    text: str,
    capsys: pytest.CaptureFixture,
) -> None:
    if isinstance(content, str):
        path = tmp_path / "own.csv"
        path.write_text(content)
    elif isinstance(content, dict):
        path = tmp_path / "own.npz"
        np.savez(path, **content)
    else:
        path = tmp_path / "own.npy"
        np.save(path, content)
    assert train(job, path, *more) == 1
    assert re.search(text, one_line(capsys))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["regression"],
        ["regression", "--data", "a.csv", "--likelihood", "cauchy"],
        ["classification", "--data", "a.csv", "--missing", "guess"],
        ["vae", "--data", "a.csv", "--scale", "fixed"],
        ["vae", "--data", "a.csv", "--hidden", "0"],
    ],
)
def test_wrong_options_end_with_2(options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *options])
    assert caught.value.code == 2


def test_a_config_file_is_enough(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    monkeypatch.chdir(own.parent)
    text = 'data = "own.csv"\nignore = ["k"]\ntarget = "y"\nepochs = 1\nsamples = 2\n'
    Path("job.toml").write_text(text + "no-reference = true\nhidden = [4]\n")
    assert cli.main(["train", "regression", "--config", "job.toml", "--hidden", "3"]) == 0
    report = json.loads(Path("runs/regression-own/metrics.json").read_text())
    assert report["options"]["hidden"] == [3]
    assert report["data"]["features"] == ["a", "b", "z"]
