"""The lists of CONTRIBUTING.md: each file is there, and no file is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STACK = ("CMakeLists.txt", "csrc", "bslfast/_native", "bslfast/functional", "bslfast/reference")
#: For each list its example's name, and where files that name it have to be on the list.
LISTS = {
    "A pointwise op": ("relaxed_bernoulli", (*STACK, "tests/ops")),
    "A row op": ("radial", (*STACK, "tests/ops")),
    "A Bayesian layer": (
        "BayesEmbedding",
        ("bslfast/nn", "tests/nn", "tests/test_module_state.py"),
    ),
    "A map of flows": ("DeepSigmoidal", ("bslfast/flows", "tests/flows")),
}
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def listed(title: str) -> set[str]:
    """The files of the list below a title."""
    section = TEXT[TEXT.index(f"## {title}\n") :].split("\n## ")[0]
    items = [line for line in section.splitlines() if line.startswith("- ")]
    return {
        f for line in items for f in re.findall(r"`([\w./]+/[\w.]+\.\w+|CMakeLists\.txt)`", line)
    }


def naming(name: str, places: tuple[str, ...]) -> set[str]:
    """The files that have the name, but for examples in docstrings and uses by other ops."""
    word = re.compile(rf"(?<!\w){name}(?=\W|_\w)")
    found = set()
    for place in places:
        path = ROOT / place
        files = path.rglob("*") if path.is_dir() else [path]
        for file in files:
            if file.suffix not in (".h", ".cpp", ".cu", ".py", ".txt"):
                continue
            code = re.sub(r'(?s)""".*?"""|//[^\n]*|#[^\n]*', "", file.read_text())
            if word.search(code) or file.stem == name:
                found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("title", LISTS)
def test_lists_are_complete(title: str) -> None:
    name, places = LISTS[title]
    files = listed(title)
    assert {f for f in files if not (ROOT / f).is_file()} == set()
    assert files == naming(name, places)


def test_a_row_op_costs_no_more_than_a_pointwise_op() -> None:
    assert len(listed("A row op")) == len(listed("A pointwise op")) == 10
