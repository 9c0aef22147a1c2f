"""benchmarks/vae_peers: implementations are compared, wrong ones are noticed, and it runs."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from beside import Aim
from torch import Tensor
from vae_peers import __main__ as program
from vae_peers import cases, parts, peers, report
from vae_peers.cases import CASES, Case, Exact, draw
from vae_peers.parts import PARTS
from vae_peers.peers import PASSES, PEERS, Eager, Estimates, Ours

SMALL = Case(12, (16,), 2, batch=64, samples=10)


@pytest.fixture(scope="module")
def exact() -> Exact:
    torch.manual_seed(0)
    return Exact(SMALL, draw(SMALL), SMALL.data(SMALL.batch))


def test_aims_are_of_cases_passes_and_peers_that_there_are() -> None:
    for (network, what), aims in report.AIMS.items():
        assert network in program.NAMES
        assert what in PASSES
        assert aims.keys() <= {peer.name for peer in PEERS}
        for text in aims.values():
            Aim.parse(text)


def test_codes_are_next_to_certain(exact: Exact) -> None:
    mu, scale = exact._posterior(exact.weights, exact.x)
    same, small = exact._posterior(cases.certain(exact.weights), exact.x)
    assert torch.equal(same, mu)
    torch.testing.assert_close(small, torch.full_like(small, cases.CERTAIN))
    assert scale.min() > 1000 * cases.CERTAIN


class _NoDivergence(Eager):
    def loss(self, x: Tensor) -> Tensor:
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return super().loss(x) + 0.5 * (1 + log_var - mu.pow(2) - log_var.exp()).sum() / len(x)


class _OtherGradient(Eager):
    def loss(self, x: Tensor) -> Tensor:
        loss = super().loss(x)
        return loss.detach() + 1.1 * (loss - loss.detach())


class _OtherGradientOfBound(Eager):
    def bound(self, x: Tensor) -> Tensor:
        bound = super().bound(x)
        return bound.detach() + 1.1 * (bound - bound.detach())


class _NoNoise(Eager):
    def loss(self, x: Tensor) -> Tensor:
        state = torch.get_rng_state()
        loss = super().loss(x)
        torch.set_rng_state(state)
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        noisy = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        likelihoods = [cases.log_likelihood(self.decoder(z), x).sum() / len(x) for z in (mu, noisy)]
        return loss - likelihoods[0] + likelihoods[1]


class _Elbo(Eager):
    def bound(self, x: Tensor) -> Tensor:
        return torch.stack([self.loss(x) for _ in range(50)]).mean()


class _OtherMarginal(Ours):
    def marginal(self, x: Tensor, estimates: Estimates) -> Tensor:
        return torch.stack([-self.loss(x) for _ in range(estimates.samples)]).mean()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (_NoDivergence, "loss"),
        (_OtherGradient, "gradient"),
        (_OtherGradientOfBound, "gradient"),
        (_NoNoise, "loss"),
        (_Elbo, "importance-weighted bound"),
        (_OtherMarginal, "marginal likelihood"),
    ],
)
def test_wrong_implementations_are_noticed(
    exact: Exact, network: type[peers.Network], message: str
) -> None:
    with pytest.raises(AssertionError, match=f"^{message}: expected"):
        network(SMALL).check(exact)


def test_wrong_outputs_are_noticed(exact: Exact) -> None:
    network = peers.Alone(SMALL)
    network.check(exact)
    other = copy.copy(exact)
    other.weights = draw(SMALL)
    with pytest.raises(AssertionError, match="not close"):
        network.check(other)


def _scaled(outputs: Tensor) -> Sequence[Tensor]:
    z, kl = parts.sample_and_kl(outputs)
    mu = outputs.chunk(2, dim=1)[0]
    return mu + 1.5 * (z - mu), kl


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_wrong_parts_are_noticed(part: parts.Part) -> None:
    small = dataclasses.replace(part, shape=(64, 20))
    tensors = small.tensors()
    for name in ("bslfast", "torch eager"):
        assert small.build(tensors, name).seconds("", 2) > 0

    def other(*given: Tensor) -> Sequence[Tensor]:
        *first, last = small.ours(*given)
        return (*first, 1.01 * last)

    wrong = [other] if part.binary else [other, _scaled]
    for function in wrong:
        with pytest.raises(AssertionError):
            dataclasses.replace(small, ours=function).build(tensors, "bslfast")


def test_all_passes_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_program: Any
) -> None:
    """The whole program with small networks, as far as nothing is installed or compiled."""
    small = {part.name: dataclasses.replace(part, shape=(8, 6)) for part in PARTS}
    monkeypatch.setattr(program, "NAMES", {SMALL.name: SMALL} | small)
    monkeypatch.setattr(program, "PEERS", [*PEERS[:2], peers.VaePeer("twin", Ours)])
    monkeypatch.setattr(Exact, "draws", 10)
    for module in (cases, peers):
        monkeypatch.setattr(module, "STEPS", 3)
    options = {
        "--results": tmp_path / "tables", "--out": tmp_path / "out", "--seconds": 0, "--rounds": 1,
        "--images": 5, "--samples": 20, "--threads": 1,
    }  # fmt: skip
    run_program(program, options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    found: dict[str, set[Any]] = {}
    for row in results["rows"]:
        found.setdefault(row["pass"], set()).add((row["network"], row["way"], row["peer"]))
    ways = {
        "forward + backward": 2 * 3 + 2,
        "step with Adam": 2 * 3,
        "training loop": 3,
        "importance-weighted bound": 3,
        "log_marginal": 1,
    }
    assert {what: len(rows) for what, rows in found.items()} == ways
    assert found["log_marginal"] == {(SMALL.name, "log_marginal", "twin")}
    [text] = (p.read_text() for p in (tmp_path / "tables").glob("*.md"))
    assert "| Bernoulli | forward + backward, 8 x 6 | bernoulli |" in text
    assert f"| {SMALL.name} | log_marginal, 20 samples of 5 rows | log_marginal |" in text
    assert len(list((tmp_path / "tables").glob("*.png"))) == 1


def test_cases_are_the_networks_of_the_targets() -> None:
    names = "784-400-400-20", "784-400-400-20 apart", "784-400-20", "64-64-2"
    assert tuple(case.name for case in CASES) == names
