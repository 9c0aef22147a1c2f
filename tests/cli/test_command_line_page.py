"""docs/command_line.md: its commands run as they stand, but for their epochs."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import parsers

from bslfast import cli

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()


def blocks(language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", PAGE)


COMMANDS = [shlex.split(line)[1:] for block in blocks("sh") for line in block.splitlines()]
JOBS = {"regression", "classification", "density", "vae"}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Restore torch's number of threads, which a job sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    if sys.version_info < (3, 11):
        pytest.importorskip("tomli")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks("python")), {})
    (file,) = blocks("toml")
    name = re.match(r"# (\S+)\n", file)
    assert name is not None
    Path(name[1]).write_text(file)
    for command in COMMANDS:
        quick = ["--epochs", "2"] if command[0] == "train" else []
        assert cli.main([*command, *quick]) == 0
    printed = capsys.readouterr().out
    folders = {path.name: path for path in Path("runs").iterdir()}
    assert len(folders) == 5
    for folder in folders.values():
        assert folder.name == "regression-matrix" or f"`{folder.name}`" in PAGE
        assert f"{folder.name} " in printed
        assert {f"`{path.name}`" in PAGE for path in folder.iterdir()} == {True}
    assert [path.name for path in Path("again").iterdir()] == ["regression-houses"]


def test_options_are_there() -> None:
    assert {command[1] for command in COMMANDS if command[0] == "train"} == JOBS
    known = {"--no-reference", "--help"}
    for name, parser in parsers(cli._parser()):
        if name.removeprefix("bslfast train ") in JOBS:
            known |= {option for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE))
    assert {"--data", "--config", "--delimiter", "--reference"} <= named <= known
