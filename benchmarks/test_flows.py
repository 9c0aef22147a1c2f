"""Flows beside zuko's and nflows', with conditioners of equal size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast

BATCH = 512
HIDDEN = (64, 64)
BINS = 8
#: Features and transforms.
SIZES = {"D=2, 8 transforms": (2, 8), "D=43, 10 transforms": (43, 10)}
KINDS = ("RealNVP", "NSF")
MODES = ("log_prob", "train step", "sample")


class Built:
    """A flow of any library: its module, and the functions that call it."""

    def __init__(
        self,
        module: nn.Module,
        log_prob: Callable[[Tensor], Tensor],
        sample: Callable[[int], Tensor],
    ) -> None:
        self.module, self.log_prob, self.sample = module, log_prob, sample

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.module.parameters())


def ours(kind: str, features: int, transforms: int) -> Built:
    options: dict[str, Any] = {"bins": BINS} if kind == "NSF" else {}
    flow = getattr(bslfast.flows, kind)(features, transforms=transforms, hidden=HIDDEN, **options)
    return Built(flow, flow.log_prob, flow.sample)


def of_nflows(kind: str, features: int, transforms: int) -> Built:
    pytest.importorskip("nflows")
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import (
        AffineCouplingTransform,
        CompositeTransform,
        PiecewiseRationalQuadraticCouplingTransform,
    )

    class Network(nn.Sequential):
        def forward(self, x: Tensor, context: None = None) -> Tensor:
            return super().forward(x)

    def network(inputs: int, outputs: int) -> nn.Module:
        # nflows' own ResidualNet would be three times as expensive.
        first, second = HIDDEN
        return Network(
            nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, outputs),
        )  # fmt: skip

    steps = []
    for index in range(transforms):
        mask = (torch.arange(features) >= features // 2).float()
        mask = 1 - mask if index % 2 else mask
        if kind == "NSF":
            step = PiecewiseRationalQuadraticCouplingTransform(
                mask, network, num_bins=BINS, tails="linear", tail_bound=3.0
            )
        else:
            step = AffineCouplingTransform(mask, network)
        steps.append(step)
    flow = Flow(CompositeTransform(steps), StandardNormal([features]))
    return Built(flow, flow.log_prob, flow.sample)


def of_zuko(kind: str, features: int, transforms: int) -> Built:
    zuko = pytest.importorskip("zuko")
    # `passes=2` makes couplings. Masked layers have full width, and so more parameters.
    options: dict[str, Any] = {
        "transforms": transforms, "hidden_features": HIDDEN, "passes": 2,
    }  # fmt: skip
    flow = (
        zuko.flows.NSF(features, bins=BINS, **options)
        if kind == "NSF"
        else zuko.flows.MAF(features, **options)
    )
    return Built(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def compiled(kind: str, features: int, transforms: int) -> Built:
    """A flow of bslfast under torch.compile."""
    built = ours(kind, features, transforms)
    torch._dynamo.reset()
    return Built(built.module, torch.compile(built.module, fullgraph=True), built.sample)


IMPLEMENTATIONS = {"bslfast": ours, "bslfast compiled": compiled, "nflows": of_nflows,
                   "zuko": of_zuko}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_flow(
    benchmark: Any, implementation: str, kind: str, size: str, mode: str, threads: int
) -> None:
    if implementation == "bslfast compiled" and mode == "sample":
        pytest.skip("log_prob is what compiles")
    features, transforms = SIZES[size]
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        built = IMPLEMENTATIONS[implementation](kind, features, transforms)
        x = torch.randn(BATCH, features)
        _check(built, implementation, kind, features, transforms, x)
        timed = _timed(built, mode, x)
        for _ in range(5):
            timed()
        benchmark.group = f"{kind} {size} {mode} {threads} threads"
        benchmark.extra_info.update(
            case=kind,
            size=size,
            mode=mode,
            threads=threads,
            implementation=implementation,
            elements=BATCH * features,
            parameters=built.parameters,
        )
        benchmark(timed)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _check(
    built: Built, implementation: str, kind: str, features: int, transforms: int, x: Tensor
) -> None:
    log_prob = built.log_prob(x)
    assert log_prob.shape == (BATCH,)
    assert log_prob.isfinite().all()
    samples = built.sample(BATCH)
    assert samples.shape == (BATCH, features)
    assert samples.isfinite().all()
    wanted = ours(kind, features, transforms).parameters
    # zuko has more parameters, which its masks hide.
    assert built.parameters >= wanted if implementation == "zuko" else built.parameters == wanted


def _timed(built: Built, mode: str, x: Tensor) -> Callable[[], Any]:
    if mode == "train step":
        optimizer = torch.optim.Adam(built.module.parameters(), 1e-3, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            (-built.log_prob(x).mean()).backward()
            optimizer.step()

        return step

    def without_gradients() -> Tensor:
        with torch.no_grad():
            return built.log_prob(x) if mode == "log_prob" else built.sample(BATCH)

    return without_gradients
