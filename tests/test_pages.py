"""The Python code of the pages in docs runs, each page's from its first line to its last."""

from __future__ import annotations

import operator
import re
import textwrap
from pathlib import Path

import pytest
import torch

import bslfast

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {page.name: page.read_text() for page in sorted(DOCS.glob("*.md"))}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]


def code(text: str) -> str:
    """The Python blocks of a page, on the lines that they have there."""
    lines = [""] * len(text.splitlines())
    for block in re.finditer(r"(?ms)^ *```python\n(.*?)^ *```$", text):
        first = text[: block.start(1)].count("\n")
        inside = textwrap.dedent(block[1]).splitlines()
        lines[first : first + len(inside)] = inside
    return "\n".join(lines)


@pytest.mark.parametrize("name", WITH_CODE)
def test_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(code(PAGES[name]), str(DOCS / name), "exec"), {})


@pytest.mark.parametrize("name", WITH_CODE)
def test_names_are_there(name: str) -> None:
    """Those in tables and sentences, too."""
    whole = re.findall(r"\bbslfast\.([\w.]*\w)", PAGES[name])
    parts = re.findall(r"`((?:likelihoods|training)\.[\w.]*\w)", PAGES[name])
    parts += [f"nn.{n}" for n in re.findall(r"[`=(]((?:posteriors|priors)\.\w+)", PAGES[name])]
    assert whole
    assert parts
    for dotted in (*whole, *parts):
        operator.attrgetter(dotted)(bslfast)


def test_there_is_code() -> None:
    assert {"bayesian_layers.md", "migration.md"} <= set(WITH_CODE)
    found = code("text\n```python\nx = 1\n```\n* item\n\n  ```python\n  y = x\n  ```\n")
    assert found.split("\n") == ["", "", "x = 1", "", "", "", "", "y = x", ""]
