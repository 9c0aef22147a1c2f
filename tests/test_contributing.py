"""What CONTRIBUTING.md asks for: complete lists of files, and sources that can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STACK = ("CMakeLists.txt", "csrc", "bslfast/_native", "bslfast/functional", "bslfast/reference")
#: For each list its example's name, a pattern, and where files that name it have to be on the list.
LISTS = {
    "A pointwise op": ("relaxed_bernoulli", (*STACK, "tests/ops")),
    "A row op": ("radial", (*STACK, "tests/ops")),
    "An op of rows of parameters": ("bernstein", (*STACK, "tests/ops")),
    "A softmax": ("gumbel_softmax", (*STACK, "tests/ops")),
    "A Bayesian layer": (
        "BayesEmbedding",
        ("bslfast/nn", "tests/nn", "tests/test_module_state.py", "tools/bayesian_layers.py"),
    ),
    "A map of flows": (
        "DeepSigmoidal(?:Coupling)?",
        (
            "bslfast/flows",
            "tests/flows",
            "tests/flow_programs.py",
            "tests/fuzz/modules.py",
            "tests/test_module_state.py",
            "tools/catalogue.py",
        ),
    ),
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
            if file.suffix not in (".h", ".cpp", ".cu", ".py", ".pyi", ".txt"):
                continue
            code = re.sub(r'(?s)""".*?"""|//[^\n]*|#[^\n]*', "", file.read_text())
            if word.search(code) or file.stem == name:
                found.add(file.relative_to(ROOT).as_posix())
    return found


@pytest.mark.parametrize("title", LISTS)
def test_lists_are_complete(title: str) -> None:
    name, places = LISTS[title]
    files = listed(title)
    assert {f for f in files | listed("A step of programs") if not (ROOT / f).is_file()} == set()
    found = naming(name, places)
    if title in ("A row op", "An op of rows of parameters"):
        found -= listed("A step of programs")  # it may do without one
    assert files == found


def test_all_ops_cost_five_new_files_and_five_lines() -> None:
    for title in ("A pointwise op", "A row op", "An op of rows of parameters", "A softmax"):
        section = TEXT[TEXT.index(f"## {title}\n") :].split("\n## ")[0]
        new, edited = section.split("A line in each of:")
        assert new.count("\n- ") == edited.count("\n- ") == 5, title


def sources() -> list[str]:
    """Every ``Source:`` of the package's docstrings, each up to an empty line."""
    texts = [path.read_text() for path in (ROOT / "bslfast").rglob("*.py")]
    found = [m for t in texts for m in re.findall(r'(?s)Source:(.*?)(?:\n\s*\n|""")', t)]
    return [" ".join(source.split()) for source in found]


def test_sources_can_be_found() -> None:
    """Each work by its number at arXiv, its DOI, its ISBN or its page."""
    assert len(sources()) > 100
    for source in sources():
        works = re.findall(r'"[^"]+"(?: \(| |,)', source) or [source]
        links = re.findall(
            r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/\S+|ISBN 97\S+|https?://|``\w+", source
        )
        assert len(links) >= len(works), source
