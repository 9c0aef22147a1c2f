"""Writes the tables of docs/migration.md: which class of a peer becomes what, and which does not.

Usage: python tools/patch_table.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bslfast.patch import CONVERTERS
from bslfast.patch.registry import REFUSED

PAGE = Path(__file__).parents[1] / "docs" / "migration.md"
HEADER = ("| peer | class there | bslfast |", "|---|---|---|")
REFUSED_HEADER = ("| peer | class there | why it cannot be converted |", "|---|---|---|")


def rows(header: tuple[str, ...], classes: Iterable[tuple[str, str]]) -> str:
    """A table with a row for each peer and text.

    Args:
        header: its first lines.
        classes: names of classes with their modules, and the text of each.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for name, text in classes:
        peer, kind = name.split(".")[0], name.rsplit(".", 1)[-1]
        found.setdefault((peer, text), []).append(f"`{kind}`")
    lines = [
        f"| {peer.replace('_', '-')} | {', '.join(sorted(kinds))} | {text} |"
        for (peer, text), kinds in found.items()
    ]
    return "\n".join([*header, *sorted(lines)])


def table() -> str:
    """What becomes what: a row for each function that converts."""
    return rows(HEADER, ((name, converter.becomes) for name, converter in CONVERTERS.items()))


def refused() -> str:
    """What has no conversion: a row for each reason."""
    return rows(REFUSED_HEADER, REFUSED.items())


def page(text: str) -> str:
    """The page with the tables as they should be."""
    for made in (table(), refused()):
        begin = text.index(made.partition("\n")[0])
        text = text[:begin] + made + text[text.index("\n\n", begin) :]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
