"""Code of the pages in docs runs, from first line to last; the files that texts name are there."""

from __future__ import annotations

import operator
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import bslfast

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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


#: Folders that paths in texts begin at.
STARTS = (ROOT, ROOT / "csrc", ROOT / "bslfast", ROOT / "tests")
#: Folders that commands make.
MADE = ("build", "dist", "runs", "wheelhouse")
#: A path with a suffix anywhere, or any path in backticks. Neither has <placeholders>, {braces}, *.
NAMED = re.compile(
    r"(?<![\w./<>{}*@:-])((?:\w[\w.-]*/)+\w[\w.-]*\.(?:h|cpp|cu|pyi?|md|cmake|ipynb|txt))(?![\w/{<*])"
    r"|`((?:\w[\w.-]*/)+[\w.-]*)`"
)


def texts() -> Iterator[tuple[Path, str]]:
    """Pages without their blocks of code; comments and docstrings of sources."""
    for page in (*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        yield page, re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text())
    for folder in ("csrc", "bslfast", "tests"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".h", ".cpp", ".cu"):
                yield path, "\n".join(re.findall(r"//.*", path.read_text()))
            elif path.suffix in (".py", ".pyi"):
                found = re.findall(r'(?s)""".*?"""|#[^\n]*', path.read_text())
                yield path, "\n".join(found)


def test_files_that_are_named_are_there() -> None:
    """The name `foo` stands for any."""
    missing = [
        f"{path.relative_to(ROOT)}: {named}"
        for path, text in texts()
        for named in map("".join, NAMED.findall(text))
        if named.split("/")[0] not in MADE
        if any((start / named.split("/")[0]).is_dir() for start in STARTS)
        if not any((start / named).exists() for start in (*STARTS, path.parent))
        if "/foo." not in named
    ]
    assert missing == []


def test_names_of_files_are_found() -> None:
    text = "see core/a.h, `nn/b.py`, cpu/<op>.cpp, `c/d/` and `tests/e_{f,g}.py` (docs/h.md)."
    found = ["".join(groups) for groups in NAMED.findall(text)]
    assert found == ["core/a.h", "nn/b.py", "c/d/", "docs/h.md"]
