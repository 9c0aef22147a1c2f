"""What becomes what, as the page says it; and models that have nothing of a peer."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bslfast import patch
from bslfast.patch import registry

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


#: What classes without a conversion are made of, by the peer.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "bayesian_torch": (3, 4),
    "blitz": (3, 4),
    "torchbnn": (0.0, 1.0, 3),
    "zuko": (3,),
}


@pytest.mark.parametrize("name", registry.REFUSED)
def test_reasons(name: str) -> None:
    """Errors give the reason that the page has."""
    module, kind = name.rsplit(".", 1)
    package = name.split(".")[0]
    pytest.importorskip(package)
    model = getattr(importlib.import_module(module), kind)(*ARGUMENTS[package])
    assert registry.class_name(model) == name
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(model)
    because = registry.REFUSED[name]
    assert found.value.reasons == {"": f"there is no conversion of {name}: {because}"}
    page = (ROOT / "docs" / "migration.md").read_text()
    (row,) = [line for line in page.splitlines() if line.endswith(f" | {because} |")]
    assert f"`{kind}`" in row


def test_models_without_peers() -> None:
    with pytest.raises(ValueError, match=r"expected one with parts of .*nflows.*, got a Linear"):
        patch.convert(nn.Linear(2, 3))
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got"):
        patch.convert(torch.ones(2))  # type: ignore[arg-type]


#: Modules that have no counterpart, of each peer.
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "bayesian_torch.layers": lambda: peer("bayesian_torch.layers").LSTMReparameterization(3, 4),
    "blitz.modules": lambda: peer("blitz.modules").BayesianGRU(3, 4),
    "nflows.transforms": lambda: peer("nflows.transforms").SVDLinear(3, 2),
    "normflows.flows": lambda: peer("normflows.flows").InvertibleAffine(3),
    "torchbnn": lambda: peer("torchbnn").BayesBatchNorm2d(0.0, 1.0, 3),
    "zuko.flows": lambda: peer("zuko.flows").NAF(3, 0, transforms=1),
}


def peer(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_model_is_as_it_was(name: str) -> None:
    pytest.importorskip(name.split(".")[0])
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "second": REFUSED[name]()}).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules = [(key, id(module), type(module)) for key, module in model.named_modules()]
    parameters = list(map(id, model.parameters()))
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(model)
    assert found.value.reasons
    assert all(key.startswith("second") and why for key, why in found.value.reasons.items())
    assert all(f"\n  {key}: {why}" in str(found.value) for key, why in found.value.reasons.items())
    assert [(key, id(module), type(module)) for key, module in model.named_modules()] == modules
    assert list(map(id, model.parameters())) == parameters
    assert not any(module.training for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_every_peer_has_a_refused_model() -> None:
    assert {name.split(".")[0] for name in REFUSED} == patch.PEERS
