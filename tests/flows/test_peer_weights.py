"""What benchmarks/flow_peers gives to peers: the weights of bslfast's conditioners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from flow_peers.cases import CASES, SCALE, SLOPES, Case, draw, networks, ours


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_networks_compute_what_the_conditioners_do(case: Case) -> None:
    torch.manual_seed(0)
    flow = ours(case)
    constant = SLOPES if case.spline else SCALE
    draw(flow, case, constant)
    steps: Any = flow.transform.transforms
    for index, (step, network) in enumerate(zip(steps, networks(flow, case), strict=True)):
        x = torch.randn(5, case.features)
        moves = torch.tensor(case.moves(index))
        seen = x if case.autoregressive else x[:, ~moves]
        found = seen
        for layer, (weight, bias) in enumerate(network):
            found = (found.relu() if layer else found) @ weight.flatten(0, -2).T + bias.flatten()
        found = found.unflatten(-1, (-1, step.map.size))
        wanted = step.conditioner(seen)
        if not case.spline:
            wanted = torch.stack(wanted.chunk(2, dim=-1), dim=-1).flatten(-2)
        torch.testing.assert_close(found.flatten(-2), wanted, rtol=1e-5, atol=1e-5)
        assert (found[:, :, constant].std(dim=0) < 1e-6).all()
        assert found[:, :, 0].std(dim=0).max() > 1e-3
