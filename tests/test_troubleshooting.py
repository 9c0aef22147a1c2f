"""docs/troubleshooting.md: each message that it quotes is still the one that users get."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

import bslfast
import bslfast.functional as BF
from bslfast import _native, data, info, patch
from bslfast.bnn import BayesianMLP
from bslfast.nn import BayesLinear, BayesLSTM, priors, to_bayesian
from bslfast.training import fit
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"(?ms)^```text\n(.*?)\n```$", PAGE)


def pattern(quoted: str) -> str:
    """What is searched for in a message: in the quoted one ``...`` stands for anything."""
    return "(?s)" + re.escape(quoted).replace(r"\.\.\.", ".*")


def inputs() -> torch.Tensor:
    return torch.arange(60.0).view(20, 3) / 60


def network(**options: object) -> BayesianMLP:
    return BayesianMLP(3, (8,), options.pop("outputs", 1), **options)  # type: ignore[arg-type]


def loss(y: torch.Tensor, **options: object) -> None:
    network(**options).negative_elbo(inputs(), y, dataset_size=20)


def shared() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    to_bayesian(nn.Sequential(first, second), "1")


def unknown_part() -> None:
    part = type("Odd", (nn.Module,), {"__module__": "torchbnn.modules.odd"})()
    patch.convert(nn.Sequential(part))


def diverges() -> None:
    fit(network(), (inputs() * 1e20, inputs()[:, :1] * 1e30), epochs=2, batch_size=10, lr=1e10)


def missing() -> None:
    x = inputs()
    x[2, 1] = torch.nan
    fit(network(), (x, x[:, :1]), epochs=1, batch_size=10)


def resumes() -> None:
    pair = inputs(), inputs()[:, :1]
    for lr, again in ((0.01, False), (0.5, True)):
        fit(
            network(),
            pair,
            epochs=1,
            batch_size=10,
            lr=lr,
            checkpoint="run.safetensors",
            resume=again,
        )


def backward_twice() -> None:
    model = network()
    with bslfast.nn.one_draw(model):
        model(inputs()).sum().backward()
        model(inputs()).sum().backward()


def wrong_isa() -> None:
    with mock.patch.dict(os.environ, BSLFAST_ISA="avx999"):
        _native._choose_isa()  # as at the import


def table() -> None:
    Path("table.csv").write_text("a,b\n1,2\n3,x\n")
    data.read_table(Path("table.csv"))


def not_built() -> None:
    built = info._cuda()
    if not built.startswith("not built"):
        pytest.skip("this build has the module")
    raise RuntimeError(built)


def encoder() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x[:, :2], x[:, 2:4]

    VAE(Pair(), nn.Linear(2, 4))(torch.rand(5, 4))


def pixels() -> None:
    x = torch.linspace(0, 255, 64).view(1, 1, 8, 8)
    VAE(mlp_encoder((1, 8, 8), 2, (8,)), mlp_decoder(2, (1, 8, 8), (8,)))(x)


ZEROS = torch.zeros(3)
# For each message the start that tells it from the others, and what causes it.
CAUSES: dict[str, Callable[[], object]] = {
    "not built": not_built,
    "device: expected": lambda: fit(
        network(), (inputs(), inputs()[:, :1]), epochs=1, device="cuda:99"
    ),
    "BSLFAST_ISA": wrong_isa,
    "x: expected the dtype": lambda: network()(inputs().double()),
    "x: expected dtype": lambda: network()(inputs().long()),
    "raw_scale: expected the device": lambda: BF.normal_rsample(ZEROS, ZEROS.to("meta")),
    "y: expected a floating-point": lambda: loss(torch.zeros(20)),
    "y: expected an int64": lambda: loss(torch.zeros(20), outputs=4, likelihood="categorical"),
    "y: expected class indices": lambda: loss(
        torch.arange(20) % 3 + 1, outputs=3, likelihood="categorical"
    ),
    "x: expected values in [0, 1]": pixels,
    "raw_scale: expected scales": lambda: BF.normal_rsample(
        ZEROS, ZEROS - 1, parametrization="scale"
    ),
    "kl: expected": lambda: bslfast.negative_elbo(ZEROS, ZEROS, dataset_size=3),
    "log_likelihood: expected": lambda: bslfast.negative_elbo(ZEROS.sum(), 0.0, dataset_size=3),
    "reduction: expected": lambda: BF.normal_kl(ZEROS, ZEROS, reduction="mean"),
    "Missing key(s)": lambda: nn.Sequential(BayesLinear(3, 2)).load_state_dict(
        nn.Sequential(nn.Linear(3, 2)).state_dict()
    ),
    "'BayesLinear' object": lambda: BayesLinear(3, 2).weight,
    "model: expected a weight in": shared,
    "model: expected a module with one": lambda: to_bayesian(nn.Sequential(nn.BatchNorm1d(3))),
    "model: expected a module with Bayesian": lambda: bslfast.nn.kl(nn.Linear(3, 2)),
    "estimator: expected": lambda: BayesLSTM(3, 4, estimator="flipout"),
    "model: expected one all": unknown_part,
    "likelihood: expected": lambda: bslfast.predict(nn.Sequential(BayesLinear(3, 2)), inputs(), 2),
    "encoder: expected": encoder,
    "train x: expected": missing,
    "fit: the loss": diverges,
    "Trying to backward": backward_twice,
    "checkpoint run": resumes,
    "vmap: called": lambda: torch.func.vmap(lambda a: BF.normal_rsample(a, a))(inputs()),
    "table.csv": table,
}


def test_every_message_has_a_cause() -> None:
    for start in CAUSES:
        assert len([quoted for quoted in QUOTED if quoted.startswith(start)]) == 1, start
    assert len(QUOTED) == len(CAUSES)


@pytest.mark.parametrize("start", CAUSES)
def test_messages(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quoted = next(quoted for quoted in QUOTED if quoted.startswith(start))
    with pytest.raises(Exception, match=pattern(quoted)):
        CAUSES[start]()


def test_a_message_that_changed_is_found() -> None:
    assert re.search(pattern("expected ... of 3, got 4"), "x: expected one\nor two of 3, got 4")
    assert not re.search(pattern("expected 3, got 4"), "x: expected three, got 4")


def reasons() -> dict[str, Callable[[], str]]:
    """What ``explain()`` says in the page's table, and a model that it says so of."""
    hooked = network()
    hooked.layers[0].register_forward_hook(lambda *_: None)
    strided = network()
    first = strided.layers[0].weight_loc
    first.data = first.data.t().contiguous().t()

    def off() -> str:
        with bslfast.whole_networks(False):
            return network().explain()

    def traced() -> str:
        with torch.autocast("cpu"):
            return network().explain()

    conditioner = nn.Sequential(nn.Linear(1, 8), nn.Mish(), nn.Linear(8, 2))
    coupling = bslfast.flows.Coupling(
        bslfast.flows.maps.Affine(), torch.tensor([True, False]), conditioner
    )
    unusual = bslfast.flows.Flow(coupling)
    act_norm = bslfast.flows.Flow(bslfast.flows.Composite([bslfast.flows.ActNorm(3)]))
    return {
        "Mish has no steps": unusual.explain,
        "Normal(...) has no steps beside Laplace(scale=1.0)": lambda: network(
            prior=priors.Laplace()
        ).explain(),
        "Flipout has no steps": lambda: network(estimator="flipout").explain(),
        "x is torch.bfloat16": lambda: network().to(torch.bfloat16).explain(),
        "a module has hooks": hooked.explain,
        "an ActNorm has not seen its first batch": act_norm.explain,
        "2392800 weights, more than 65536": BayesianMLP(784, (1200, 1200), 10).explain,
        "parameters are no contiguous tensors on the CPU of the dtype of x": strided.explain,
        "torch traces or transforms the call, or x is no plain tensor on the CPU": traced,
        "bslfast.whole_networks(False)": off,
    }


def test_reasons() -> None:
    table = PAGE.split("| `explain()` says |")[1].split("\n\n")[0]
    known = reasons()
    assert re.findall(r"(?m)^\| `(.*?)` \|", table) == list(known)
    for quoted, explain in known.items():
        assert re.search(pattern(f"op by op: {quoted}"), explain()), quoted
