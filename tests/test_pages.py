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
#: What blocks of a page may import, by the names of modules; such blocks are scripts of their own.
PEERS = sorted({*bslfast.patch.PEERS, "diffusers", "pyro"})
PAGES = {page.name: page.read_text() for page in sorted(DOCS.glob("*.md"))}
WITH_CODE = [name for name, text in PAGES.items() if "```python" in text]


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """The Python blocks of a page, and on which lines they begin, from 0."""
    for block in re.finditer(r"(?ms)^ *```python\n(.*?)^ *```$", text):
        yield text[: block.start(1)].count("\n"), textwrap.dedent(block[1])


def peer_of(block: str) -> str | None:
    """The other library that a block imports."""
    found = re.search(rf"(?m)^(?:import|from) ({'|'.join(PEERS)})\b", block)
    return found and found[1]


def code(text: str) -> str:
    """The Python blocks of a page, on the lines that they have there, but for those with a peer."""
    lines = [""] * len(text.splitlines())
    for first, block in blocks(text):
        if peer_of(block) is None:
            inside = block.splitlines()
            lines[first : first + len(inside)] = inside
    return "\n".join(lines)


def run(text: str, name: str) -> None:
    """Run the code of a page, with the numbers of its lines in errors."""
    torch.manual_seed(0)
    exec(compile(text, str(DOCS / name), "exec"), {})


@pytest.mark.filterwarnings("error:Exporting a model while it is in training mode")
@pytest.mark.parametrize("name", WITH_CODE)
def test_code(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(code(PAGES[name]), name)


#: The page, the peer, the line and the block.
WITH_PEERS = [
    pytest.param(name, peer, first, block, id=f"{name}-{first + 1}-{peer}")
    for name, text in PAGES.items()
    for first, block in blocks(text)
    if (peer := peer_of(block))
]


@pytest.mark.filterwarnings("ignore:torchbnn")
@pytest.mark.parametrize(("name", "peer", "first", "block"), WITH_PEERS)
def test_code_of_peers(
    name: str, peer: str, first: int, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block is a script: it runs by itself."""
    pytest.importorskip(peer)
    monkeypatch.chdir(tmp_path)
    run("\n" * first + block, name)


def test_every_peer_has_a_script() -> None:
    """But for blitz, which is under the GPL. Versions are those of the other tests."""
    text = PAGES["migration.md"]
    with_script = {peer_of(block) for _, block in blocks(text)} - {None}
    assert with_script == {*PEERS} - {"blitz", "diffusers"}
    named = re.findall(r"\bpip\s+install\s+--no-deps\s+([^`]*)`", text)
    wanted = re.findall(r"(?m)^[\w-]+==.*$", (ROOT / "tests/patch/peers.txt").read_text())
    assert {word for line in named for word in line.split() if "==" in word} == set(wanted)


#: Names in code, and what has to be installed for them. nflows imports matplotlib.
PACKAGES = {
    "diffusers": "diffusers",
    "lightning": "lightning",
    "load_digits": "scikit-learn",
    "nflows": "matplotlib",
    "onnx": "onnx onnxscript",
    "onnxruntime": "onnxruntime",
    "plots": "matplotlib",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
}


@pytest.mark.parametrize("name", WITH_CODE)
def test_packages_are_named(name: str) -> None:
    """A page says what to install before its code runs in a fresh environment."""
    told = re.findall(r"\bpip\s+install\s+([^`]*)`", PAGES[name])
    installed = {word.split("==")[0] for line in told for word in line.split()}
    code = "\n".join(re.findall(r"(?ms)^ *```py\w*\n(.*?)^ *```$", PAGES[name]))
    used = set(re.findall(r"\w+", code))
    assert used & PACKAGES.keys() <= {
        word for word, packages in PACKAGES.items() if installed.issuperset(packages.split())
    }


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
