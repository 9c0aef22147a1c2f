"""What tests of the command line share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

#: What a job leaves beside its pictures.
FILES = {"metrics.json", "report.html", "checkpoint.safetensors"}


def one_line(capsys: pytest.CaptureFixture) -> str:
    """Return the one line of bslfast on standard error; a failed command must print no other."""
    errors = [line for line in capsys.readouterr().err.splitlines() if "bslfast:" in line]
    assert len(errors) == 1
    return errors[0]


def parsers(
    parser: argparse.ArgumentParser, name: str = "bslfast"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A parser and those of its commands, each with what is typed to reach it."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(inner, f"{name} {word}")
