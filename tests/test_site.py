"""The site: its navigation, its pages of modules, and figures that are quoted from other files.

`make docs` builds it, and checks the links.
"""

from __future__ import annotations

import operator
import pkgutil
import re
import runpy
from pathlib import Path
from types import ModuleType

import pytest

import bslfast

ROOT = Path(__file__).parents[1]
CONFIGURATION = (ROOT / "mkdocs.yml").read_text()
NAVIGATION = re.findall(r"(?m)^ *- (?:[^:\n]+: )?(\S+\.md)$", CONFIGURATION.split("\nnav:\n")[1])
DOCS = ROOT / "docs"


def public(module: ModuleType) -> set[str]:
    """A module, and those that its ``__all__`` names."""
    values = (getattr(module, name) for name in getattr(module, "__all__", ()))
    inside = (public(value) for value in values if isinstance(value, ModuleType))
    return {module.__name__}.union(*inside)


def test_every_public_module_has_a_page() -> None:
    pages = {p.removeprefix("api/").removesuffix(".md") for p in NAVIGATION if p.startswith("api/")}
    packages = {
        f"bslfast.{module.name}"
        for module in pkgutil.iter_modules(bslfast.__path__)
        if module.ispkg and not module.name.startswith("_")
    }
    assert pages >= public(bslfast) | packages | {"bslfast.sklearn"}
    for page in pages - {"bslfast"}:
        assert isinstance(operator.attrgetter(page.removeprefix("bslfast."))(bslfast), ModuleType)


def test_every_page_is_in_the_navigation() -> None:
    assert {path.name for path in DOCS.glob("*.md")} <= set(NAVIGATION)
    examples = {f"examples/{path.stem}.md" for path in (ROOT / "examples").iterdir()}
    assert examples <= {*NAVIGATION, "examples/__pycache__.md"}
    assert len(NAVIGATION) == len(set(NAVIGATION))


def test_links_lead_to_files() -> None:
    """Also to those that are no pages, such as examples: links work on GitHub, too."""
    count = 0
    archive = (ROOT / "PKG-INFO").is_file()
    left_out = runpy.run_path(str(ROOT / "tools" / "check_sdist.py"))["left_out"]
    for page in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"(?ms)^ *```.*?^ *```$|`[^`]*`", "", page.read_text())
        for target in re.findall(r"\]\(([^()\s]+)\)", text):
            if "://" not in target:
                path = (page.parent / target.partition("#")[0]).resolve()
                name = f"{path.relative_to(ROOT)}{'' if path.suffix else '/'}"
                assert path.exists() or (archive and left_out(name)), (page.name, target)
                count += 1
    assert count > 20


def figures() -> list[tuple[str, str, list[str]]]:
    """The sections of the page with figures, and the files that they come from."""
    text = (DOCS / "choosing.md").read_text()
    found = []
    for section in text.split("\n## ")[1:]:
        body, mark, sources = section.partition("\nFigures: ")
        if mark:
            files = re.findall(r"\[([\w./-]+)\]\(", sources.split("\n\n")[0])
            found.append((section.split("\n")[0], body, files))
    return found


@pytest.mark.parametrize(("title", "body", "files"), figures())
def test_figures_are_those_of_their_files(title: str, body: str, files: list[str]) -> None:
    number = r"-?\d+\.\d+"
    known = {n for file in files for n in re.findall(number, (ROOT / file).read_text())}
    quoted = set(re.findall(number, re.sub(r"(?ms)^```.*?^```$|\w+=[\d.]+", "", body)))
    assert len(quoted) > 3
    assert quoted <= known
    # A file that does not have them would be noticed.
    assert not quoted <= set(re.findall(number, (ROOT / "docs" / "testing.md").read_text()))
