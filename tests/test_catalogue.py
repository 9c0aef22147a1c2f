"""docs/catalogue.md: its table of flows is that of the classes, and no op is missing."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from ops import RECORDS

from bslfast import flows

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "catalogue.md").read_text()


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script that writes the page."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which the script adds folders
    spec = importlib.util.spec_from_file_location("catalogue", ROOT / "tools" / "catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_flows_is_up_to_date(catalogue: Any) -> None:
    """Else: python tools/catalogue.py."""
    table = catalogue.flow_table()
    assert table + catalogue.TRANSFORMS.split("{")[0] in PAGE
    for name in flows.__all__:
        kind = getattr(flows, name)
        if issubclass(kind, flows.Flow) and kind is not flows.Flow:
            assert f"| `{name}`" in table
        if issubclass(kind, flows.Map) and kind is not flows.Map:
            assert f"| `{name}` |" in table


def test_every_tail_of_splines_has_its_rows(catalogue: Any) -> None:
    table = catalogue.flow_table()
    for tails in catalogue.TAILS:
        cell = {"linear": "`Spline`", None: "`Spline`, no tails"}.get(
            tails, f"`Spline`, {tails} tails"
        )
        assert f"| {cell} | coupling |" in table
        assert f"| {cell} | autoregressive |" in table


def test_the_tables_of_transforms_and_bases_are_up_to_date(catalogue: Any) -> None:
    """Each class is in one of the tables. Else: python tools/catalogue.py."""
    table = catalogue.transform_table() + catalogue.base_table()
    assert PAGE.endswith(table)
    for name in flows.__all__:
        kind = getattr(flows, name)
        steps = issubclass(kind, flows.Transform | flows.ImageTransform)
        if not steps or kind in (flows.Transform, flows.ImageTransform):
            if issubclass(kind, flows.Base) and kind is not flows.Base:
                assert f"\n| `{name}` |" in table
        elif name != "Elementwise" and not issubclass(kind, catalogue.Mapped):
            assert f"`{name}`" in table


def test_every_op_has_its_row_with_what_its_docstring_says(catalogue: Any) -> None:
    """Errors and times may be of another machine. Else: python tools/catalogue.py."""
    rows = re.findall(r"^\| `\w+` \|.*$", PAGE.split("\n## ")[0], re.MULTILINE)
    for row, record in zip(rows, sorted(RECORDS, key=lambda r: r.name), strict=True):
        assert row == catalogue._line(record, catalogue.cells(row)[2:5])
