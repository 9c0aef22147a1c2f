"""Help and parsers of every command, protocol and job."""

from __future__ import annotations

import argparse
import importlib.machinery
import sys
import types
from pathlib import Path

import pytest
from command_line import one_line, parsers

import bslfast
from bslfast import cli

PARSERS = dict(parsers(cli._parser()))


def test_all_commands_are_found() -> None:
    jobs = {name.removeprefix("bslfast train ") for name in PARSERS if " train " in name}
    assert {"wine", "moons", "mnist-labels", "regression", "density", "vae"} <= jobs
    assert {"bslfast", "bslfast bench", "bslfast info", "bslfast benchmark uci"} <= PARSERS.keys()


@pytest.mark.parametrize("name", PARSERS)
def test_help_can_be_written(name: str) -> None:
    """Each text by itself as well, as argparse of CPython 3.14 expands it when it is added."""
    parser = PARSERS[name]
    text = " ".join(parser.format_help().split())
    assert text.startswith(f"usage: {name}")
    assert "%" not in text.replace("15% of the rows", "")
    for action in parser._actions:
        inner = [*getattr(action, "_choices_actions", ())]
        for each in (action, *inner):
            if each.help:
                assert parser._get_formatter()._expand_help(each)


def test_help_says_how_many_rows_are_held_out() -> None:
    text = " ".join(PARSERS["bslfast train density"].format_help().split())
    assert "rows to stop by; by default 15% of the rows of --data, at random" in text


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"bslfast {bslfast.__version__}\n"


@pytest.mark.parametrize("command", [["train", "wine"], ["benchmark", "iwae"]])
@pytest.mark.parametrize("names", [("matplotlib",), ("tqdm",), ("matplotlib", "tqdm")])
def test_packages_of_jobs_are_there_before_training(
    command: list[str],
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    for name in ("matplotlib", "tqdm"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, None if name in names else module)
    assert cli.main([*command, "--out", str(tmp_path / "runs")]) == 1
    expected = (
        f"bslfast: {command[0]}: expected matplotlib and tqdm to be installed, got Python without "
        f"{' and '.join(names)}: pip install 'bslfast[jobs]'"
    )
    assert one_line(capsys) == expected
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["wine", "--lr", "x"], "--lr: expected a finite number above 0, got 'x'"),
        (["wine", "--lr", "nan"], "--lr: expected a finite number above 0, got 'nan'"),
        (["wine", "--epochs", "2.5"], "--epochs: expected an integer of at least 1, got '2.5'"),
        (["wine", "--seed", "x"], "--seed: expected an integer from 0 to 2^63 - 1, got 'x'"),
        (["digits", "--beta", "x"], "--beta: expected a finite number of at least 0, got 'x'"),
        (["moons", "--bins", "x"], "--bins: expected an integer, got 'x'"),
        (["mnist-labels", "--lr", "0"], "--lr: expected a finite number above 0, got '0'"),
        (
            ["mnist-labels", "--share", "x"],
            "--share: expected a number above 0 and below 1, got 'x'",
        ),
        (
            ["density", "--delimiter", "::"],
            r"--delimiter: expected one character, neither a quote nor the end of a line, or \t "
            "for a tab, got '::'",
        ),
    ],
)
def test_a_value_that_is_refused(
    options: list[str], text: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", *options])
    assert ended.value.code == 2
    assert f"error: argument {text}\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", PARSERS)
def test_every_option_says_what_it_expects(name: str) -> None:
    for action in PARSERS[name]._actions:
        if callable(action.type) and action.type is not Path:
            with pytest.raises(argparse.ArgumentTypeError, match=r"expected .* got 'x y'"):
                action.type("x y")
