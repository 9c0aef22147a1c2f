"""What torch's tools do with our models: export, sharding, Lightning; see docs/torch_world.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils.data import DataLoader, TensorDataset

import bslfast
from bslfast import flows, vae
from bslfast.functional import use_reference

PAGE = (Path(__file__).parents[1] / "docs" / "torch_world.md").read_text()


@pytest.mark.parametrize("plain", [False, True], ids=["kernels", "plain"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: flows.NSF(3, transforms=1, hidden=(8,)),
        lambda: flows.NICE(3, transforms=2, hidden=(8,)),
        lambda: flows.MAF(3, context=2, transforms=1, hidden=(8,)),
    ],
    ids=["nsf", "nice", "conditional"],
)
def test_exported_flows(make: Callable[[], flows.Flow], plain: bool, tmp_path: Path) -> None:
    """Saved and loaded, and for another number of rows."""
    torch.manual_seed(0)
    flow = make().double().eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=0.3)
    sizes = [3, flow.context] if flow.context else [3]
    rows = tuple({0: Dim.DYNAMIC} for _ in sizes)
    example = tuple(torch.randn(4, n).double() for n in sizes)
    if plain:
        with use_reference():
            exported = torch.export.export(flow, example, dynamic_shapes=rows)
    else:
        exported = torch.export.export(flow, example, dynamic_shapes=rows)
    ours = [n for n in exported.graph.nodes if "bslfast" in str(n.target)]
    assert bool(ours) != plain
    torch.export.save(exported, tmp_path / "flow.pt2")
    loaded = torch.export.load(tmp_path / "flow.pt2").module()
    given = tuple(2 * torch.randn(50, n).double() for n in sizes)
    torch.testing.assert_close(loaded(*given), flow.log_prob(*given), rtol=1e-9, atol=1e-9)


class _Coding(nn.Module):
    """Both directions of an autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        shape = (1, 4, 4)
        self.vae = vae.VAE(vae.mlp_encoder(shape, 2, (8,)), vae.mlp_decoder(2, shape, (8,)))

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return *self.vae.encode(x), self.vae.decode(z)


@pytest.mark.parametrize(
    ("make", "shapes"),
    [
        (lambda: flows.RealNVP(3, transforms=2, hidden=(8,)), [(3,)]),
        (lambda: flows.NSF(3, context=2, transforms=1, hidden=(8,), bins=4), [(3,), (2,)]),
        (_Coding, [(1, 4, 4), (2,)]),
        (lambda: bslfast.nn.deterministic_twin(bslfast.bnn.BayesianMLP(3, (8,), 2)), [(3,)]),
    ],
    ids=["realnvp", "nsf", "vae", "twin"],
)
def test_onnx(make: Callable[[], nn.Module], shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    """Another program computes the same from the file, for any number of rows."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    file, rows = tmp_path / "model.onnx", tuple({0: Dim.DYNAMIC} for _ in shapes)
    with use_reference(), torch.no_grad():
        example = tuple(torch.rand(4, *shape) for shape in shapes)
        program = torch.onnx.export(
            model, example, dynamic_shapes=rows, dynamo=True, optimize=True, verbose=False
        )
    assert program is not None
    program.save(str(file))
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    given = tuple(torch.rand(50, *shape) for shape in shapes)
    names = [entry.name for entry in session.get_inputs()]
    found = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
    with torch.no_grad():
        wanted = model(*given)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(torch.from_numpy(value), other, rtol=1e-5, atol=1e-5)


def test_lightning() -> None:
    lightning = pytest.importorskip("lightning")
    found = re.search(r"(?ms)^```py\n(import lightning\n.*?)^```$", PAGE)
    assert found
    names: dict[str, Any] = {"torch": torch, "bslfast": bslfast}
    exec(found[1], names)
    lightning.seed_everything(0)
    x = torch.randn(64, 3)
    data = TensorDataset(x, x[:, :1] - x[:, 1:2])
    module, loader = names["Regression"](len(data)), DataLoader(data, batch_size=16)
    before = module.model.negative_elbo(*data.tensors, dataset_size=len(data)).item()
    trainer = lightning.Trainer(
        max_epochs=50,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, loader)
    assert trainer.callback_metrics["negative_elbo"] < before - 0.5
    mean = torch.cat(trainer.predict(module, loader))
    assert (mean - data.tensors[1]).square().mean().sqrt() < 0.5
