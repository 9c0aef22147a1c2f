"""benchmarks/flow_peers: what is compared and timed, training loops above all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_peers import __main__ as program
from flow_peers import cases, peers, report
from flow_peers.cases import EPOCHS, NONE, Case, Network, ours
from flow_peers.peers import ADAM, LOOP, PASSES, FlowPeer, Ours, Torch
from torch import Tensor

import bslfast
from bslfast.flows import Flow

SMALL = Case("affine", 2)
BATCH = 8


@pytest.fixture(autouse=True)
def short_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Case, "steps", lambda self, batch: 3)


class _Twin(FlowPeer):
    """bslfast's flow as a peer whose loop is its steps."""

    def __init__(self) -> None:
        super().__init__("twin", None)

    def constant(self, case: Case) -> slice:
        return NONE

    def flow(self, case: Case, weights: list[Network]) -> Flow:
        flow = ours(case)
        with torch.no_grad():
            for conditioner, network in zip(cases._conditioners(flow), weights, strict=True):
                *first, last = conditioner.layers
                for layer, (w, b) in zip(first, network, strict=False):
                    layer.weight.copy_(w)
                    layer.bias.copy_(b)
                for parameter, value in zip((last.weight, last.bias), network[-1], strict=True):
                    cases._by_feature(case, parameter).copy_(value)
        return flow

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Torch:
        flow = self.flow(case, weights)
        return Torch(flow, flow.log_prob, flow.sample, x)


class _OtherRate(Ours):
    def losses_of_loop(self, batch: int, count: int) -> list[float]:
        x = self.x[:1].expand(batch, -1)
        options: dict[str, Any] = {"epochs": count, "batch_size": batch, "lr": 2 * peers.RATE}
        return bslfast.training.fit(self.flow, (x,), objective=Flow.log_prob, **options).loss


class _OtherLosses(Ours):
    def losses_of_loop(self, batch: int, count: int) -> list[float]:
        return [1.001 * loss for loss in super().losses_of_loop(batch, count)]


class _WithLoop(_Twin):
    """bslfast's flow as a peer with a loop of its own."""

    def __init__(self, implementation: type[Ours]) -> None:
        super().__init__()
        self.implementation = implementation

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Torch:
        return self.implementation(case, self.flow(case, weights), x)


@pytest.mark.parametrize("kind", ["affine", "NSF-C"])
@pytest.mark.parametrize("peer", [_Twin(), _WithLoop(Ours)], ids=["steps", "loop"])
def test_equal_flows_are_equal(kind: str, peer: FlowPeer) -> None:
    case = Case(kind, 2)
    own, other = program.built(case, peer, [BATCH], list(PASSES))
    assert [one.steps(ADAM, BATCH) for one in (own, other)] == [1, 1]
    assert own.steps(LOOP, BATCH) == EPOCHS * 3


@pytest.mark.parametrize("wrong", [_OtherRate, _OtherLosses])
def test_wrong_loops_are_noticed(wrong: type[Ours]) -> None:
    with pytest.raises(AssertionError, match="not close"):
        program.built(SMALL, _WithLoop(wrong), [BATCH], [LOOP])
    program.built(SMALL, _WithLoop(wrong), [BATCH], [ADAM])  # there is no loop to compare


def test_only_first_losses_of_autoregressive_peers_are_compared() -> None:
    torch.manual_seed(0)
    case = Case("MAF", 4)
    flow, x = ours(case), torch.randn(BATCH, 4)
    own = Ours(case, flow, x)
    program.compare_loops(own, _OtherRate(case, flow, x), BATCH)
    with pytest.raises(AssertionError, match="not close"):
        program.compare_loops(own, _OtherLosses(case, flow, x), BATCH)


def test_loops_by_ops_are_noticed() -> None:
    flow, x = ours(SMALL), torch.randn(3 * BATCH, 2)
    own = Ours(SMALL, flow, x)
    assert own.seconds(LOOP, BATCH, 1) > 0
    flow.register_forward_hook(lambda *_: None)
    hooked = Ours(SMALL, flow, x)
    with bslfast.whole_networks(False):
        for found in (lambda: own.seconds(LOOP, BATCH, 1), lambda: own.losses_of_loop(BATCH, 1)):
            with pytest.raises(AssertionError, match=r"^training.fit: expected steps in one call"):
                found()
    with pytest.raises(AssertionError, match=r"^training.fit: expected steps in one call"):
        hooked.seconds(LOOP, BATCH, 1)


def test_a_loop_takes_the_steps_that_its_time_is_divided_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    fit = bslfast.training.fit

    def counted(*given: Any, **options: Any) -> bslfast.training.History:
        found = fit(*given, **options)
        taken.append(found.steps)
        return found

    monkeypatch.setattr(bslfast.training, "fit", counted)
    own = Ours(SMALL, ours(SMALL), torch.randn(3 * BATCH, 2))
    own.seconds(LOOP, BATCH, 2)
    assert taken == [own.steps(LOOP, BATCH)] * 2


def test_all_passes_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_program: Any
) -> None:
    """The whole program with a small flow, as far as nothing is installed."""
    monkeypatch.setattr(program, "NAMES", {"affine-2": SMALL})
    monkeypatch.setattr(program, "PEERS", [_Twin()])
    monkeypatch.setattr(report, "goal", lambda row: None)
    options = {"--out": tmp_path, "--seconds": 0, "--batches": BATCH, "--threads": 1}
    run_program(program, options)
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["pass"] for row in rows] == list(PASSES)
    by_pass = {row["pass"]: row for row in rows}
    # Both are of a step.
    assert by_pass[LOOP]["flop"] == by_pass[ADAM]["flop"]
    assert f"| affine D=2 | {BATCH} | {LOOP} |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "ratios.png").is_file()
