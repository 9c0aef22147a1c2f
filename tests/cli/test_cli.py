"""The command line: jobs from data to files, resume, exit codes and messages."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import wine_file
from command_line import FILES, one_line

from bslfast import cli

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

QUICK = ["--epochs", "6", "--samples", "20"]
AUTOENCODER_PICTURES = {
    f"{stem}.png"
    for stem in (
        *("reconstructions", "samples", "interpolation", "latent_space", "latent_grid"),
        *("kl_per_dimension", "learning_curves"),
    )
}
PICTURES = {"predictions.png", "calibration.png", "learning_curves.png", "weights.png"}


@pytest.fixture
def grades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up wine quality file of 600 rows in the folder that BSLFAST_DATA names."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "winequality-red.csv"
    wine_file.write(path)
    monkeypatch.setenv("BSLFAST_DATA", str(folder))
    return path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which a job sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_wine_learns_and_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["train", "wine", "--no-reference", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "wine"
    assert set(os.listdir(folder)) == FILES | PICTURES
    report = json.loads((folder / "metrics.json").read_text())
    assert report["test"]["accuracy"] >= 0.95
    assert report["test"]["mean_log_likelihood"] > -0.2
    assert report["test"]["expected_calibration_error"] < 0.15
    assert report["data"]["rows"] == {"train": 125, "validation": 27, "test": 26}
    assert report["training"]["steps"] == 4 * report["training"]["epochs"]
    printed = capsys.readouterr()
    shown = re.search(r"accuracy ([\d.]+)", printed.out)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(report["test"]["accuracy"], abs=1e-3)
    assert "training: 100%" in printed.err  # the progress bar


def test_wine_with_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["train", "wine", *QUICK, "--out", str(tmp_path)]) == 0
    reference = json.loads((tmp_path / "wine" / "metrics.json").read_text())["reference"]
    assert reference["seconds"] > 0
    assert set(reference["milliseconds_per_step"]) >= {"bslfast", "plain torch"}
    assert all(value > 0 for value in reference["milliseconds_per_step"].values())
    out = capsys.readouterr().out
    assert f"ratio {reference['ratio']:.2f}" in out
    assert "per step" in out


def test_wine_quality(tmp_path: Path, grades: Path) -> None:
    command = ["train", "wine-quality", "--color", "red", "--no-reference", "--out", str(tmp_path)]
    assert cli.main([*command, "--epochs", "60", "--lr", "0.02"]) == 0
    folder = tmp_path / "wine-quality-red"
    assert set(os.listdir(folder)) == FILES | PICTURES
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["source"] == str(grades)
    assert 0.4 < report["test"]["rmse"] < 0.85  # the noise is 0.5 and rounding; spread is 1.0
    assert report["test"]["coverage_95"] > 0.8


def test_the_lecture(tmp_path: Path, grades: Path, capsys: pytest.CaptureFixture) -> None:
    grades.rename(grades.with_name("winequality-white.csv"))
    command = ["train", "wine-quality", "--lecture", "--epochs", "60", "--samples", "20"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    folder = tmp_path / "wine-quality-lecture"
    pictures = {"predictions.png", "calibration.png", "epistemic.png", "learning_curves.png"}
    assert set(os.listdir(folder)) == FILES - {"checkpoint.safetensors"} | pictures
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 510, "test": 90}
    found = report["experiments"]
    assert {key: value["training"]["steps"] for key, value in found.items()} == {
        "deterministic": 6 * 2,
        "bayesian, 30 %": 30 * 1,
        "bayesian, 100 %": 30 * 2,
        "probabilistic": 60 * 2,
    }
    assert found["deterministic"]["test"]["mean_epistemic"] == 0
    # The loss there is that of noise with the variance 1/2.
    assert found["bayesian, 30 %"]["test"]["mean_aleatoric"] == pytest.approx(0.5**0.5, abs=1e-4)
    assert report["test"] == found["probabilistic"]["test"]
    assert 0.8 < report["test"]["coverage_95"] <= 1
    assert "probabilistic: rmse" in capsys.readouterr().out


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", "digits", "--epochs", "8", "--hidden", "32", "--samples", "20"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    folder = tmp_path / "digits"
    expected = AUTOENCODER_PICTURES | FILES
    assert set(os.listdir(folder)) == expected
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 1258, "validation": 270, "test": 269}
    test, reference = report["test"], report["reference"]
    assert -40 < test["elbo"] < test["log_likelihood"] < 0
    assert test["elbo"] == pytest.approx(test["expected_log_likelihood"] - test["kl"])
    assert 0 < test["reconstruction_mse"] < 0.1
    assert test["bits_per_dim"] == pytest.approx(-test["log_likelihood"] / (64 * math.log(2)))
    # The standard deviation of single images is a few nats.
    assert 1 < test["log_likelihood_standard_error"] * 269**0.5 < 6
    assert sum(report["latent"]["kl_per_dimension"]) == pytest.approx(test["kl"], rel=1e-5)
    assert report["latent"]["active_units"] == 2
    assert reference["ratio"] > 0
    assert abs(reference["test"]["elbo"] - test["elbo"]) < 1.5
    assert set(reference["milliseconds_per_step"]) >= {"bslfast", "plain torch"}
    out = capsys.readouterr().out
    assert f"ratio {reference['ratio']:.2f}" in out
    assert f"log_likelihood {test['log_likelihood']:.4g} ± " in out
    assert f"(269 images, 20 samples), bits_per_dim {test['bits_per_dim']:.4g}\n" in out
    assert "2 of 2 dimensions active; KL " in out


@pytest.fixture
def digits_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up files in the format of MNIST's: 60 images for training, 30 for the test."""
    generator = torch.Generator().manual_seed(0)
    for stem, n in (("train", 60), ("t10k", 30)):
        pixels = torch.randint(256, (n, 784), dtype=torch.uint8, generator=generator)
        header = bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28])
        images = header + pixels.numpy().tobytes()
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(i % 10 for i in range(n))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setenv("BSLFAST_DATA", str(tmp_path))
    return tmp_path


def test_mnist_classes(digits_files: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["train", "mnist-classes", "--epochs", "1", "--limit", "48", "--samples", "3"]
    command += ["--hidden", "16", "--threads", "1"]
    assert cli.main([*command, "--out", str(digits_files / "runs")]) == 0
    folder = digits_files / "runs" / "mnist-classes"
    pictures = {"calibration.png", "epistemic.png", "learning_curves.png"}
    assert set(os.listdir(folder)) == FILES | pictures
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 44, "validation": 4, "test": 30}
    for key in ("error", "expected_calibration_error", "auroc, turned by 90 degrees"):
        assert 0 <= report["test"][key] <= 1
    assert report["reference"]["ratio_per_step"] > 0
    assert f"error {report['test']['error']:.4g}" in capsys.readouterr().out


@pytest.mark.parametrize("latent", [1, 3])
def test_mnist_with_other_latent_dimensions(digits_files: Path, latent: int) -> None:
    command = ["train", "mnist", "--epochs", "1", "--limit", "48", "--samples", "2"]
    command += ["--latent", str(latent), "--network", "mlp", "--hidden", "16", "--no-reference"]
    command += ["--threads", "1", "--out", str(digits_files / "runs")]
    assert cli.main(command) == 0
    folder = digits_files / "runs" / "mnist"
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 44, "validation": 4, "test": 30}
    assert len(report["latent"]["kl_per_dimension"]) == latent
    pictures = {name for name in os.listdir(folder) if name.endswith(".png")}
    assert pictures == AUTOENCODER_PICTURES - ({"latent_grid.png"} if latent == 1 else set())
    (digits_files / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    assert cli.main(command) == 1


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_the_lecture_on_autoencoders(
    digits_files: Path, likelihood: str, capsys: pytest.CaptureFixture
) -> None:
    command = ["train", "mnist", "--epochs", "2", "--limit", "33", "--samples", "2"]
    command += ["--threads", "1", "--out", str(digits_files / "runs"), "--lecture"]
    command += ["normal"] * (likelihood == "normal")
    assert cli.main(command) == 0
    name = {"bernoulli": "mnist-lecture", "normal": "mnist-lecture-normal"}[likelihood]
    folder = digits_files / "runs" / name
    files = FILES | {"epochs", "epochs.safetensors", "epochs.png"}
    assert set(os.listdir(folder)) == AUTOENCODER_PICTURES | files
    assert sorted(os.listdir(folder / "epochs")) == ["01.png", "02.png"]
    report = json.loads((folder / "metrics.json").read_text())
    assert report["data"]["rows"] == {"train": 33, "test": 30}
    training, test = report["training"], report["test"]
    assert training["steps"] == 2 * 2  # batches of 32
    assert training["seconds_per_epoch"] == pytest.approx(training["seconds"] / 2)
    # Pixels of noise: one half is the best guess.
    assert -600 < test["elbo"] < -784 * math.log(2) + 10
    assert test["bits_per_dim"] == pytest.approx(-test["log_likelihood"] / (784 * math.log(2)))
    assert 250 < test["lecture_loss"] - test["kl"] < 280
    out = capsys.readouterr().out
    assert f"1000 mse + KL: {test['lecture_loss']:.4g} of test images" in out
    assert out.count("\nepoch ") == 2


LABELS = ["train", "mnist-labels", "--epochs", "2", "--hidden", "16", "--threads", "1"]


def test_mnist_labels(digits_files: Path, capsys: pytest.CaptureFixture) -> None:
    command = [*LABELS, "--model", "m2", "--labels", "10", "--latent", "3"]
    command += ["--out", str(digits_files / "runs")]
    assert cli.main(command) == 0
    folder = digits_files / "runs" / "mnist-labels-m2"
    pictures = {"styles.png", "analogies.png", "learning_curves.png"}
    assert set(os.listdir(folder)) == FILES - {"checkpoint.safetensors"} | pictures
    report = json.loads((folder / "metrics.json").read_text())
    rows = {"train": 55, "labelled": 10, "validation": 5, "test": 30}
    assert report["data"]["rows"] == rows
    assert len(report["validation_error"]) == 2
    assert set(report["test"]) == {"error", "elbo", "error, labelled images alone"}
    assert report["published_error"] is None  # of 100 labels
    assert cli.main(command) == 0
    assert json.loads((folder / "metrics.json").read_text())["test"] == report["test"]
    assert cli.main([*command, "--labels", "70"]) == 1
    assert "--labels: expected at most" in one_line(capsys)
    assert cli.main([*command, "--labels", "15"]) == 1
    assert "--labels: expected a multiple of 10, got 15" in one_line(capsys)


def test_digits_labels(tmp_path: Path) -> None:
    command = [*LABELS, "--data", "digits", "--model", "m1+m2", "--m1-epochs", "1"]
    command += ["--out", str(tmp_path)]
    assert cli.main(command) == 0
    report = json.loads((tmp_path / "digits-labels-m1+m2" / "metrics.json").read_text())
    assert report["data"]["rows"]["labelled"] == 100
    test = report["test"]
    assert -60 < test["elbo"] < -20
    assert test["error, labelled images alone"] < 0.2
    assert 0 <= test["error, labelled codes alone"] < 1


MOONS = ["train", "moons", "--epochs", "2", "--transforms", "3", "--hidden", "16"]


@pytest.mark.parametrize("flow", ["nsf", "realnvp"])
def test_moons(tmp_path: Path, flow: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*MOONS, "--flow", flow, "--no-reference", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "moons"
    pictures = {"density.png", "steps.png", "learning_curves.png"}
    assert set(os.listdir(folder)) == FILES | pictures
    report = json.loads((folder / "metrics.json").read_text())
    # A normal distribution reaches -1.9, a trained NSF -0.3.
    assert -1.8 < report["test"]["log_likelihood"] < -0.25
    assert report["data"]["rows"] == {"train": 7000, "validation": 1500, "test": 1500}
    assert report["training"]["steps"] == 2 * 28
    assert f"log_likelihood {report['test']['log_likelihood']:.4g}" in capsys.readouterr().out
    command = [*MOONS, "--flow", flow, "--resume", "--no-reference", "--out", str(tmp_path)]
    assert cli.main(command) == 0  # a finished run
    again = json.loads((folder / "metrics.json").read_text())
    assert again["test"] == report["test"]
    command[command.index("--epochs") + 1] = "3"
    assert cli.main(command) == 1
    assert "schedule is 'cosine over 2 epochs' there" in one_line(capsys)


def test_moons_with_the_reference(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([*MOONS, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "moons" / "metrics.json").read_text())
    # Both trainings have the same network, initial weights and batches.
    assert report["reference"]["test"] == pytest.approx(report["test"], abs=0.01)
    assert f"ratio {report['reference']['ratio']:.2f}" in capsys.readouterr().out
    assert set(report["reference"]["milliseconds_per_step"]) == {"bslfast", "plain torch"}


def test_resume_goes_on(tmp_path: Path) -> None:
    def run(out: Path, epochs: int, *more: str) -> dict:
        command = ["train", "wine", "--no-reference", "--epochs", str(epochs), "--samples", "20"]
        assert cli.main([*command, "--out", str(out), *more]) == 0
        return json.loads((out / "wine" / "metrics.json").read_text())

    straight = run(tmp_path / "a", 10)
    run(tmp_path / "b", 4)
    resumed = run(tmp_path / "b", 10, "--resume")
    assert resumed["test"] == straight["test"]
    assert resumed["training"]["steps"] == straight["training"]["steps"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["train"],
        ["train", "beer"],
        ["train", "wine", "--epochs", "0"],
        ["train", "wine", "--epochs", "many"],
        ["train", "wine", "--hidden", "-3"],
        ["train", "wine", "--lr", "nan"],
        ["train", "wine", "--prior-scale", "0"],
        ["train", "wine", "--seed", "-1"],
        ["train", "wine", "--device", "abacus"],
        ["train", "wine", "--device", "cuda:99"],
        ["train", "wine-quality", "--color", "rose"],
        ["train", "moons", "--flow", "glow"],
        ["train", "moons", "--transforms", "0"],
        ["train", "moons", "--bins", "129"],
        ["train", "density"],
        ["train", "density", "--data", "a.npy", "--flow", "glow"],
        ["train", "digits", "--latent", "0"],
        ["train", "digits", "--beta", "-1"],
        ["train", "digits", "--network", "transformer"],
        ["train", "mnist", "--limit", "0"],
        ["train", "mnist", "--lecture", "poisson"],
        ["train", "mnist-classes", "--samples", "0"],
        ["train", "mnist-labels", "--share", "1"],
        ["train", "mnist-labels", "--model", "m3"],
        ["train", "wine-quality", "--lecture", "--epochs", "0"],
        ["--frobnicate"],
    ],
)
def test_wrong_options_end_with_2(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(options)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not os.listdir(tmp_path)


def test_bad_data_ends_with_1_and_one_line(
    grades: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["train", "wine-quality", "--color", "red", "--out", str(tmp_path / "runs")]
    grades.write_text(grades.read_text().replace("alcohol", "spirit"))
    assert cli.main(command) == 1
    text = one_line(capsys)
    assert str(grades) in text
    assert "'alcohol'" in text
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert cli.main(["train", "wine", "--out", str(tmp_path / "taken")]) == 1
    assert "taken" in one_line(capsys)


def test_a_checkpoint_of_other_options_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["train", "wine", "--no-reference", *QUICK, "--out", str(tmp_path)]
    assert cli.main([*command, "--resume"]) == 1
    assert "checkpoint.safetensors: expected a file to resume from" in one_line(capsys)
    assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main([*command, "--resume", "--lr", "0.5"]) == 1
    assert "lr is 0.01 there and 0.5 here" in one_line(capsys)


def test_ctrl_c_ends_with_130_and_can_be_resumed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bslfast", "train", "wine", "--no-reference"]
    command += ["--epochs", "1000000", "--samples", "10", "--out", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=tmp_path,  # not the clone's root, whose sources would hide the installed package
        # A shell's job in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    file = tmp_path / "wine" / "checkpoint.safetensors"
    deadline = time.monotonic() + 90
    while not file.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    errors = ""
    for _ in range(3):
        # Python drops an interrupt that arrives inside a destructor: a person would press again.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, errors = process.communicate(timeout=30)
            break
    else:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"{file} is whole" in errors
    assert os.listdir(file.parent) == ["checkpoint.safetensors"]

    from bslfast.training import checkpoint

    done = len(checkpoint.load(file).state["loss"])
    command = ["train", "wine", "--no-reference", "--resume", "--samples", "10"]
    assert cli.main([*command, "--epochs", str(done + 2), "--out", str(tmp_path)]) == 0


def test_info_prints_what_describe_says(capsys: pytest.CaptureFixture) -> None:
    info = pytest.importorskip("bslfast.info")
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for key in info.describe():
        assert str(key) in out


@pytest.fixture
def comparing(tmp_path: Path) -> list[str]:
    """A command with benchmarks that do nothing; torchbnn is installed, no other peer."""
    from bslfast.cli import compare

    for found in compare.COMPARISONS.values():
        folder = tmp_path / found.folder
        folder.mkdir(exist_ok=True)
        (folder / "__main__.py").touch()
        (folder / f"{found.package}.txt").write_text(f"{found.package}==1\n")
    installed = tmp_path / "peers" / "torchbnn"
    installed.mkdir(parents=True)
    (installed / ".installed").write_text(f"{sys.version}torchbnn==1\n")
    return ["bench", "--folder", str(tmp_path), "--installed", str(tmp_path / "peers")]


def test_bench_beside_peers(
    comparing: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bslfast.cli import compare

    assert cli.main([*comparing, "--compare", "nflows", "torch", "torchbnn"]) == 1
    text = one_line(capsys)
    assert "--compare: expected nflows to be installed in" in text
    assert "apart from the environment: bslfast bench --compare nflows torch torchbnn" in text
    commands: list[list[str]] = []
    codes = iter([0, 0, 0, 1, -9, 0])
    monkeypatch.setattr(
        compare.subprocess, "call", lambda given: commands.append(given) or next(codes)
    )
    everything = [*comparing, "--install", "--compare", *compare.COMPARISONS]
    assert cli.main(everything) == 0
    folders = ["bnn_peers", "flow_peers", "vae_peers"]
    assert [Path(command[1]).name for command in commands] == folders
    assert commands[1][commands[1].index("--peers") + 1 :][:3] == ["flowjax", "nflows", "zuko"]
    assert commands[1][commands[1].index("--threads") + 1] == "2"
    # All run, though the first one fails.
    assert cli.main(everything) == 128 + 9
    assert len(commands) == 6
    failed = "bslfast: failed: bnn_peers (exit code 1), flow_peers (exit code -9)\n"
    assert capsys.readouterr().err == failed


def test_bench_does_not_install_unasked(
    comparing: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Nor runs what would: another version of a peer is as none."""
    assert cli.main([*comparing, "--compare", "torchbnn"]) == 0
    (tmp_path / "bnn_peers" / "torchbnn.txt").write_text("torchbnn==2\n")
    assert cli.main([*comparing, "--compare", "torchbnn"]) == 1
    assert "--compare: expected torchbnn to be installed in" in one_line(capsys)
    (tmp_path / "bnn_peers" / "__main__.py").unlink()
    assert cli.main([*comparing, "--compare", "torchbnn"]) == 1
    assert "--folder: expected the benchmarks of a clone" in one_line(capsys)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--compare", "flax"], "argument --compare: invalid choice: 'flax'"),
        (["--compare", "torch", "--threads", "0"], "--threads: expected an integer of at least 1"),
        (["--compare", "torch", "--", "-k", "x"], "--compare: expected no arguments for pytest"),
        (["--install", "--threads", "2"], "--install, --threads: expected --compare beside it"),
        (["--out", "runs"], "--out: expected --compare beside it"),
    ],
)
def test_options_of_bench_without_an_effect_are_refused(
    options: list[str], text: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *options])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_comparisons_name_what_the_benchmarks_have() -> None:
    """The peers and the options are those of the benchmarks' own parsers."""
    from bslfast.cli import compare

    benchmarks = Path(__file__).parents[2] / "benchmarks"
    for name in {found.folder for found in compare.COMPARISONS.values()}:
        chosen = [found for found in compare.COMPARISONS.values() if found.folder == name]
        for found in chosen:
            assert found.options == chosen[0].options
            assert not found.package or (benchmarks / name / f"{found.package}.txt").is_file()
        command = [sys.executable, str(benchmarks / name), "--out", "none"]
        command += [] if name == "flow_peers" else ["--results", "none"]
        command += ["--peers", *(peer for found in chosen for peer in found.peers)]
        # What comes last is wrong: all before it was right.
        command += [*chosen[0].options, "--threads", "many"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "argument --threads: invalid int value" in done.stderr, done.stderr


def test_bench_runs_pytest_on_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bench", "--folder", str(tmp_path / "none")]) == 1
    assert "--folder: expected the benchmarks" in one_line(capsys)
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    assert cli.main(["bench", "--folder", str(tmp_path), "--", "-q", "-p", "no:cacheprovider"]) == 0
