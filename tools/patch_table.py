"""Writes the table of docs/migration.md that says which class of a peer becomes what.

Usage: python tools/patch_table.py
"""

from __future__ import annotations

from pathlib import Path

from bslfast.patch import CONVERTERS

PAGE = Path(__file__).parents[1] / "docs" / "migration.md"
HEADER = ("| peer | class there | bslfast |", "|---|---|---|")


def table() -> str:
    """The rows, one for each function that converts."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, converter in CONVERTERS.items():
        peer, kind = name.split(".")[0], name.rsplit(".", 1)[-1]
        rows.setdefault((peer, converter.becomes), []).append(f"`{kind}`")
    lines = [
        f"| {peer.replace('_', '-')} | {', '.join(sorted(kinds))} | {becomes} |"
        for (peer, becomes), kinds in rows.items()
    ]
    return "\n".join([*HEADER, *sorted(lines)])


def page(text: str) -> str:
    """The page with the table as it should be."""
    begin = text.index(HEADER[0])
    return text[:begin] + table() + text[text.index("\n\n", begin) :]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
