"""Forward and backward of Bayesian MLPs beside the deterministic network's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bslfast

NETWORKS = {
    "11-50-1, batch 100": ((11, 50, 1), 100),
    "784-400-10, batch 128": ((784, 400, 10), 128),
    "784-1200-1200-10, batch 128": ((784, 1200, 1200, 10), 128),
}


class EagerBayesLinear(nn.Module):
    """The usual hand-written layer."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight_loc = nn.Parameter(torch.randn(n_out, n_in) / n_in**0.5)
        self.weight_rho = nn.Parameter(torch.full((n_out, n_in), -4.0))
        self.bias_loc = nn.Parameter(torch.zeros(n_out))
        self.bias_rho = nn.Parameter(torch.full((n_out,), -4.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight, weight_kl = self._sample(self.weight_loc, self.weight_rho)
        bias, bias_kl = self._sample(self.bias_loc, self.bias_rho)
        return F.linear(x, weight, bias), weight_kl + bias_kl

    @staticmethod
    def _sample(loc: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
        scale = F.softplus(rho)
        kl = (0.5 * (scale * scale + loc * loc - 1) - scale.log()).sum()
        return loc + scale * torch.randn_like(loc), kl


class EagerBayesianMLP(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EagerBayesLinear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kl = x.new_zeros(())
        for index, layer in enumerate(self.layers):
            x, layer_kl = layer(torch.relu(x) if index else x)
            kl = kl + layer_kl
        return x, kl


def build(implementation: str, widths: tuple[int, ...]) -> tuple[nn.Module, Callable[..., Any]]:
    """A model, and a function of x that returns (outputs, kl)."""
    if implementation in ("torch eager", "torch.compile"):
        eager = EagerBayesianMLP(widths)
        return eager, torch.compile(eager) if implementation == "torch.compile" else eager
    bayesian = bslfast.bnn.BayesianMLP(
        widths[0],
        widths[1:-1],
        widths[-1],
        likelihood="categorical" if widths[-1] > 1 else "normal",
    )
    if implementation == "bslfast":
        return bayesian, lambda x: (bayesian(x), bslfast.nn.kl(bayesian))
    twin = bayesian.deterministic_twin()
    return twin, lambda x: (twin(x), x.new_zeros(()))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("implementation", ["nn.Linear", "bslfast", "torch eager", "torch.compile"])
def test_bayesian_mlp(benchmark: Any, implementation: str, network: str, threads: int) -> None:
    widths, batch = NETWORKS[network]
    torch.manual_seed(0)
    torch._dynamo.reset()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, call = build(implementation, widths)
        parameters = [p for name, p in model.named_parameters() if "likelihood" not in name]
        x = torch.randn(batch, widths[0])
        if implementation != "nn.Linear":
            # torch.compile's sum in float32 is 2e-5 off.
            _check_kl(model, call(x)[1], 1e-5 if implementation == "bslfast" else 1e-4)

        def step() -> None:
            y, kl = call(x)
            (y.square().mean() + kl / 1000).backward()
            for parameter in parameters:
                parameter.grad = None

        for _ in range(5):
            step()
        benchmark.group = f"BayesianMLP {network} both {threads} threads"
        benchmark.extra_info.update(
            case="BayesianMLP",
            size=network,
            mode="both",
            threads=threads,
            implementation=implementation,
            elements=sum(p.numel() for p in parameters),
        )
        benchmark(step)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _check_kl(model: nn.Module, kl: Tensor, tolerance: float) -> None:
    """Compare a model's divergence with that of its parameters by torch.distributions."""
    expected = 0.0
    parameters = dict(model.named_parameters())
    for name, loc in parameters.items():
        if not name.endswith("_loc"):
            continue
        rho = parameters.get(name.replace("_loc", "_rho"))
        raw = parameters[name.replace("_loc", "_raw_scale")] if rho is None else rho
        posterior = torch.distributions.Normal(loc.double(), F.softplus(raw.double()))
        prior = torch.distributions.Normal(torch.zeros_like(loc).double(), 1.0)
        expected += torch.distributions.kl_divergence(posterior, prior).sum().item()
    assert kl.item() == pytest.approx(expected, rel=tolerance)
