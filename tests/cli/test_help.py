"""Help and parsers of every command, protocol and job."""

from __future__ import annotations

import argparse
import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import one_line

import bslfast
from bslfast import cli


def parsers(
    parser: argparse.ArgumentParser, name: str = "bslfast"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and those of its commands, each with what is typed to reach it."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(inner, f"{name} {word}")


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
