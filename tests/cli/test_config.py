"""``--config FILE``: options of a job from TOML, and what is refused."""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path

import pytest
import torch

from bslfast import cli


@pytest.fixture(autouse=True)
def _toml() -> None:
    if not any(importlib.util.find_spec(name) for name in ("tomllib", "tomli")):
        pytest.skip("Python 3.10 without tomli")


def parse(*argv: str) -> argparse.Namespace:
    return cli._parser().parse_args(argv)


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "job.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_values_of_every_kind(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'data = "points.npy"\nepochs = 3\nlr = 1\nbatch_size = 7\nhidden = [5, 6]\nout = "there"\n'
        'resume = true\nno-reference = false\nflow = "maf"\ndevice = "cpu"\n',
    )
    options = parse("train", "density", "--config", path)
    assert options.data == Path("points.npy")  # which is required
    assert (options.epochs, options.lr, options.batch_size) == (3, 1.0, 7)
    assert isinstance(options.lr, float)
    assert (options.hidden, options.out) == ([5, 6], Path("there"))
    assert (options.resume, options.no_reference) == (True, False)
    assert (options.flow, options.device) == ("maf", torch.device("cpu"))
    assert options.transforms == parse("train", "density", "--data", "a").transforms
    # What is typed wins, wherever it stands.
    options = parse("train", "density", "--lr", "0.5", f"--config={path}", "--hidden", "9")
    assert (options.lr, options.hidden, options.epochs) == (0.5, [9], 3)
    assert parse("train", "mnist", "--config", written(tmp_path, "lecture = true")).lecture
    for text, without in (
        ("", True),
        ("reference = true", False),
        ("reference = false", True),
        ("no-reference = true", True),
        ("no_reference = false", False),
    ):
        path = written(tmp_path, f"data = 'a.csv'\n{text}\n")
        for job in ("regression", "classification", "density", "vae"):
            assert parse("train", job, "--config", path).no_reference == without
            assert parse("train", job, "--config", path, "--no-reference").no_reference
            assert not parse("train", job, "--config", path, "--reference").no_reference
    assert not parse("train", "wine").no_reference
    options = parse("train", "mnist", "--config", written(tmp_path, 'lecture = "normal"'))
    assert options.lecture == "normal"
    options = parse("train", "wine", "--config", written(tmp_path, "hidden = 4"))
    assert options.hidden == [4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3\nwidth = 2\n", r"job.toml: expected names of options \(.*'epoch', 'width'"),
        ("config = 'a'", "got 'config'"),
        ("help = true", "got 'help'"),
        ("batch-size = 1\nbatch_size = 2", "expected each option once, got batch-size, batch_size"),
        ("epochs = 0", "job.toml, 'epochs': expected an integer of at least 1, got '0'"),
        ("epochs = 1.5", "job.toml, 'epochs': expected an integer of at least 1, got '1.5'"),
        ("epochs = 'many'", "'epochs': expected an integer of at least 1, got 'many'"),
        ("epochs = true", "'epochs': expected a number or text, got True"),
        ("epochs = [1]", r"'epochs': expected a number or text, got \[1\]"),
        ("lr = nan", "'lr': expected a finite number above 0, got 'nan'"),
        ("hidden = []", "'hidden': expected at least one value"),
        ("hidden = [5, [6]]", r"'hidden': expected a number or text, got \[6\]"),
        ("[hidden]\na = 1", "'hidden': expected a number or text, got {'a': 1}"),
        ("seed = 2020-01-01", "'seed': expected a number or text, got datetime.date"),
        ("resume = 1", "'resume': expected true or false, got 1"),
        ("device = 'abacus'", "'device': device: expected"),
        ("color = 'rose'", "'color': expected one of white, red, got 'rose'"),
        ("epochs = ", "job.toml: expected a TOML file, got one with a fault"),
        (b"out = '\xff'", "job.toml: expected a TOML file, got one with a fault"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, text: str | bytes, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("train", "wine-quality", "--config", written(tmp_path, text))
    assert caught.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_other_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            parse("train", *argv)
        assert caught.value.code == 2
        return capsys.readouterr().err

    path = written(tmp_path, "epochs = 2")
    assert "expected a TOML file, found none at" in fails("wine", "--config", str(tmp_path / "no"))
    assert "argument --config: expected one argument" in fails("wine", "--config")
    assert "expected its whole name" in fails("wine", "--conf", path)
    assert "required: --data" in fails("density", "--config", path)

    def none(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    assert "expected Python 3.11 or later, or the package tomli" in fails("wine", "--config", path)
