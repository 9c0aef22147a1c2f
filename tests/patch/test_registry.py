"""What becomes what, as the page says it; and models that have nothing of a peer."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from bslfast import patch

ROOT = Path(__file__).parents[2]


def test_the_table_is_up_to_date() -> None:
    """Else: python tools/patch_table.py."""
    path = ROOT / "tools" / "patch_table.py"
    spec = importlib.util.spec_from_file_location("patch_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "migration.md").read_text()
    assert module.page(text) == text
    for name in patch.CONVERTERS:
        assert f"`{name.rsplit('.', 1)[-1]}`" in module.table()


@pytest.mark.parametrize("name", patch.CONVERTERS)
def test_the_classes_are_there(name: str) -> None:
    module, kind = name.rsplit(".", 1)
    pytest.importorskip(name.split(".")[0])
    found = getattr(importlib.import_module(module), kind)
    assert inspect.isclass(found)
    assert (found.__module__, found.__qualname__) == (module, kind)
    assert issubclass(found, nn.Module)


def test_models_without_peers() -> None:
    with pytest.raises(ValueError, match=r"expected one with parts of .*nflows.*, got a Linear"):
        patch.convert(nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got"):
        patch.convert(torch.ones(2))  # type: ignore[arg-type]
