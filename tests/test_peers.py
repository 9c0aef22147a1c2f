"""The parts of benchmarks/beside.py and benchmarks/bnn_peers that could be wrong without notice."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import beside
import pytest
import torch
from beside import Aim, Peer, alternate, close_on_average, ratio
from bnn_peers import memory, report
from bnn_peers.cases import CASES, STEPS, Case, Exact, certain, draw, ours
from bnn_peers.peers import ADAM, LOOP, PASSES, PEERS, STEP, Eager, Plain, TorchPeer, all_ours

SMALL = [Case((5, 8, 8, 1), batch=16, samples=30, rows=20), Case((5, 8, 10), 16, 30, 20)]


def test_ratio_is_the_median_over_rounds() -> None:
    # Rounds of 3, 2 and 1 times ours; in the last one other work was on the machine.
    assert ratio([1, 1, 2, 2, 10, 30], [2, 4, 4, 4, 20, 20]) == 2


def test_implementations_take_turns() -> None:
    turns: list[tuple[str, int]] = []

    def timer(name: str, each: float) -> Callable[[int], float]:
        def seconds(calls: int) -> float:
            turns.append((name, calls))
            return each * calls

        return seconds

    times = alternate([timer("a", 0.001), timer("b", 0.01), timer("c", 5)], seconds=0, rounds=2)
    assert turns[:8] == [("a", 1)] * 3 + [("b", 1)] * 3 + [("c", 1)] * 2
    one = [("a", 20), ("b", 2), ("c", 1)]
    assert turns[8:] == (one + one[::-1]) * 2
    assert [pytest.approx(own) for own in times] == [[each] * 4 for each in (0.001, 0.01, 5)]


def test_peers_that_cannot_be_used_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"absent": None, "empty": tmp_path}
    monkeypatch.setattr(sys, "path", list(sys.path))  # which start() adds to
    monkeypatch.setattr(beside, "_installed", lambda file, root, own: places[file.stem])
    peers = [Peer("a", Path("absent.txt")), Peer("b", Path("empty.txt")), Peer("torch", None)]
    assert [peer.name for peer in beside.start(peers, tmp_path, 1)] == ["torch"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a is left out: its installation failed"
    assert lines[1] == "b is left out: No module named 'empty'"
    chosen = beside.parser("", [], peers, 1).parse_args(["--out", "o", "--peers", "b", "torch"])
    with pytest.raises(SystemExit, match=r"left out b$"):
        beside.end(chosen, beside.begin(chosen, [peers[1], peers[2]])[1])
    chosen.peers = None  # those that can be used
    beside.end(chosen, beside.begin(chosen, peers)[1])


@pytest.mark.parametrize(
    ("text", "ratio", "shown"),
    [
        ("at most 1.7", 1 / 1.69, "**1.69** [≤ 1.7]"),
        ("at most 1.7", 1 / 1.71, "1.71 [≤ 1.7]"),
        ("at least 3", 3.01, "**3.01** [≥ 3]"),
        ("at least 3", 2.99, "2.99 [≥ 3]"),
    ],
)
def test_aims_are_read(text: str, ratio: float, shown: str) -> None:
    assert Aim.parse(text).shown(ratio) == shown


def test_other_texts_are_no_aims() -> None:
    with pytest.raises(ValueError, match=r"^text: expected"):
        Aim.parse("about 3")


def test_aims_are_of_networks_passes_and_peers_that_there_are() -> None:
    names = {peer.name.split(" (")[0] for peer in PEERS}
    for (network, what), aims in report.AIMS.items():
        assert network in {case.name for case in CASES}
        assert what in PASSES
        assert aims.keys() <= names
        for text in aims.values():
            Aim.parse(text)


def _row(peer: str, ours: float, theirs: float, what: str = STEP, **others: Any) -> dict[str, Any]:
    row = {
        "network": "784-1200-1200-10", "pass": what, "of": ", batch 128", "way": "way",
        "peer": peer, "ours": [ours] * 3, "theirs": [theirs] * 3, "ratio": theirs / ours,
    }  # fmt: skip
    return row | others


def test_table_has_ratios_in_the_direction_of_their_aims() -> None:
    peers = ["nn.Linear", "nn.Linear (MSE)", "blitz", "bayesian-torch (flipout)"]
    about = {
        "bslfast": "1", "isa": "avx2", "torch": "2", "peers": dict.fromkeys(peers, ""),
        "threads": 2, "peak": 1.0, "load": 0.0, "device": "a CPU", "date": "today",
    }  # fmt: skip
    rows = [
        _row("nn.Linear", 0.015, 0.010),
        _row("blitz", 0.015, 0.030),
        _row("bayesian-torch (flipout)", 0.015, 0.030),
        _row("nn.Linear", 0.001, 0.012, LOOP, network="11-50-1", of=", batch 100"),
        _row("nn.Linear (MSE)", 0.001, 0.009, LOOP, network="11-50-1", of=", batch 100"),
        _row("nn.Linear", 0.001, 0.004, LOOP, network="100-100-100-1"),
    ]
    text = report.table(about, rows, {"bslfast": 0.9, "blitz": 12.3})
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    first = "| 784-1200-1200-10 | forward + backward, batch 128 | way | 15 (15 to 15) | "
    assert lines[0] == first + "**1.5** [≤ 1.7] 10 |  | 2 30 | 2 [≥ 3] 30 |"
    assert lines[1].endswith("| **12** [≥ 10] 12 | 9 [≥ 10] 9 |  |  |")
    assert lines[2].endswith("| 0.25 4 |  |  |  |")
    assert "Aims reached: 3 of 5" in text
    assert "bslfast **0.90** [≤ 1], blitz 12.30" in text


@pytest.mark.parametrize("case", SMALL, ids=[case.name for case in SMALL])
def test_implementations_compute_the_same(case: Case) -> None:
    torch.manual_seed(0)
    data = case.data(case.dataset_size)
    exact = Exact(case, draw(case), data)
    found = all_ours(case, exact, data)
    for peer in PEERS:
        if isinstance(peer, TorchPeer) and peer.requirements is None and not peer.compiled:
            peer.build(case, exact, data)
    assert [len(found[what]) for what in PASSES] == [3, 3, 1, 1]
    [loop] = found[LOOP].values()
    assert loop.steps(LOOP) % STEPS == 0
    assert loop.steps(ADAM) == 1


class _NoDivergenceOfBiases(Eager):
    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, kl = super().both(x)
        return y, kl - sum(layer._kl(layer.bias_loc, layer.bias_rho) for layer in self.layers)


class _DoubleScale(Eager):
    raw = staticmethod(lambda scale: (2 * scale).expm1().log())


class _OtherMeans(Eager):
    def outputs(self, x: torch.Tensor) -> torch.Tensor:
        return super().outputs(x) + 0.01


class _OtherLoss(Eager):
    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().loss(x, y) + 0.3


class _OtherGradient(Eager):
    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss = super().loss(x, y)
        return loss.detach() + 1.1 * (loss - loss.detach())


class _OtherPlainLoss(Plain):
    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().loss(x, y) + 0.001


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_NoDivergenceOfBiases, "divergence"),
        (_DoubleScale, "standard deviation"),
        (_OtherMeans, "Tensor-likes are not close"),
        (_OtherLoss, "negative log likelihood"),
        (_OtherGradient, "gradient"),
        (_OtherPlainLoss, "negative log likelihood"),
    ],
)
def test_wrong_implementations_are_noticed(network: type, message: str) -> None:
    torch.manual_seed(0)
    case = SMALL[1]
    data = case.data(case.dataset_size)
    exact = Exact(case, draw(case), data)
    with pytest.raises(AssertionError, match=message):
        TorchPeer("wrong", "", network).build(case, exact, data)


def test_means_must_agree_within_their_errors() -> None:
    torch.manual_seed(0)
    draws = torch.randn(10_000)
    close_on_average(draws, torch.zeros(1), "mean", relative=0)
    with pytest.raises(AssertionError, match=r"^mean: expected"):
        close_on_average(draws + 0.1, torch.zeros(1), "mean", relative=0)
    with pytest.raises(AssertionError, match=r"^mean: expected"):
        close_on_average(torch.tensor([torch.nan]), torch.zeros(1), "mean", relative=0)


def test_memory_that_a_step_keeps_is_counted_once() -> None:
    case = dataclasses.replace(SMALL[1], widths=(5, 8, 10))
    parameters = sum(p.numel() for p in ours(case).parameters())
    for name, each in (("nn.Linear", parameters // 2), ("bslfast", parameters)):
        found = memory.built(case, name)
        assert memory.kept(found) == 4 * each
        found.seconds(ADAM, 1)
        steps = len(list(found.module.parameters()))
        # Parameters, gradients and two averages, and a count of steps for each tensor.
        assert memory.kept(found) == 4 * (4 * each + steps)


def test_certain_weights_have_the_same_means() -> None:
    weights = draw(SMALL[0])
    for (w, w_scale, b, b_scale), own in zip(certain(weights), weights, strict=True):
        assert torch.equal(w, own[0])
        assert torch.equal(b, own[2])
        assert w_scale.max() <= 1e-6 < own[1].min()
        assert b_scale.max() <= 1e-6 < own[3].min()
