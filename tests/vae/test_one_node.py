"""elbo and log_likelihood of small dense networks as one node: the same as by ops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

import bslfast
from bslfast.vae import VAE, Autoencoder, mlp_decoder, mlp_encoder

SHAPE = (2, 3)
OPTIONS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "normal": {"likelihood": "normal"},
    "scales of the decoder": {"likelihood": "normal", "scale": "decoder"},
    "beta": {"beta": 0.5},
}


def model(kind: type = VAE, **options: Any) -> Any:
    """A small one in float64."""
    torch.manual_seed(0)
    parts = 2 if options.get("scale") == "decoder" else 1
    return kind(
        mlp_encoder(SHAPE, 2, (9,), deterministic=kind is Autoencoder, activation="tanh"),
        mlp_decoder(2, (parts * SHAPE[0], SHAPE[1]), (9,)),
        **options,
    ).double()


def data(n: int = 70) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of a program had."""
    found: list[int] = []
    call = bslfast.programs.call

    def counted(*args: Any, **settings: Any) -> Any:
        found.append(len(args[2]))
        return call(*args, **settings)

    monkeypatch.setattr(bslfast.programs, "call", counted)
    return found


def both(
    vae: Any, run: Callable[[Any], list[Tensor]], calls: list[int], n: int = 1
) -> list[tuple[Tensor, Tensor]]:
    """What a model gives by programs and by ops, from the same state of the generator."""
    calls.clear()
    torch.manual_seed(5)
    whole = run(copy.deepcopy(vae))
    state = torch.get_rng_state()
    assert len(calls) == n
    with bslfast.whole_networks(False):
        torch.manual_seed(5)
        ops = run(copy.deepcopy(vae))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(calls) == n
    return list(zip(whole, ops, strict=True))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("upstream", ["a mean", "weights", "zeros"])
def test_bounds_and_gradients_are_those_of_ops(name: str, upstream: str, calls: list[int]) -> None:
    """For any seed, and more than once, as a call after equal gradients takes another way."""
    vae = model(**OPTIONS[name])
    weights = {"a mean": torch.ones(70), "weights": torch.rand(70), "zeros": torch.zeros(70)}

    def run(vae: VAE) -> list[Tensor]:
        found = []
        for seed in (None, 7, torch.tensor(2**63 - 1), -1):
            x = data().requires_grad_()
            elbo = vae.elbo(x, seed=seed)
            tensors = [x, *vae.parameters()]
            grads = torch.autograd.grad(elbo, tensors, weights[upstream].double() / 70)
            found += [elbo.detach(), *grads]
        return found

    for a, b in both(vae, run, calls, 4):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_autoencoders(calls: list[int]) -> None:
    autoencoder = model(Autoencoder)

    def run(autoencoder: Autoencoder) -> list[Tensor]:
        x = data().requires_grad_()
        log_likelihood = autoencoder.log_likelihood(x)
        grads = torch.autograd.grad(log_likelihood.mean(), [x, *autoencoder.parameters()])
        return [log_likelihood.detach(), *grads]

    for a, b in both(autoencoder, run, calls):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_second_derivatives(kind: type, calls: list[int]) -> None:
    """They go by ops, with the noise of the call."""

    def run(vae: Any) -> list[Tensor]:
        x = data(3).requires_grad_()
        [grad] = torch.autograd.grad(vae(x).sum(), [x], create_graph=True)
        return list(torch.autograd.grad(grad.square().sum(), [x, *vae.parameters()][:3]))

    for a, b in both(model(kind), run, calls):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_weights_of_examples(calls: list[int]) -> None:
    def run(vae: VAE) -> list[Tensor]:
        elbo = vae.elbo(data(), weights=torch.arange(70.0, dtype=torch.float64))
        return [elbo.detach(), *torch.autograd.grad(elbo.sum(), list(vae.parameters()))]

    for a, b in both(model(), run, calls):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_without_a_graph(calls: list[int]) -> None:
    with torch.no_grad():
        [(a, b)] = both(model(), lambda vae: [vae(data())], calls)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert not a.requires_grad


def test_what_raises_by_ops_raises(calls: list[int]) -> None:
    """Also after calls that were right."""
    vae = model()
    vae(data())
    assert calls
    calls.clear()
    for x, message in (
        (data() * 2, r"^x: expected values in \[0, 1\]"),
        (data().flatten(1), r"^decoder: expected .* \(70, \d+\) for x of shape \(70, "),
        (data()[..., :2], "."),
        (data() * torch.nan, "^x: expected values"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            vae(x)
    vae.decoder = mlp_decoder(2, (3, 2), (9,)).double()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^decoder: expected outputs of shape"):
            vae(data())
    assert not calls


@pytest.mark.parametrize(
    "changed",
    [
        lambda vae: vae.encoder.register_forward_hook(lambda *_: None),
        lambda vae: setattr(vae, "free_bits", 0.1),
        lambda vae: setattr(vae, "capacity", 1.0),
        lambda vae: setattr(vae, "encoder", nn.Sequential(vae.encoder, nn.Mish())),
        lambda vae: setattr(vae, "posterior", bslfast.vae.DiagonalNormal((-30, 20))),
        lambda vae: setattr(vae.posterior, "log_var_range", (3.0, 4.0)),
        lambda vae: setattr(vae.posterior, "split", lambda outputs: outputs.chunk(2, 1)[::-1]),
        lambda vae: setattr(vae.likelihood, "_log_prob", lambda *_: torch.zeros(70)),
        lambda vae: (delattr(vae, "beta"), setattr(vae, "beta", nn.Buffer(torch.tensor(2.0)))),
    ],
)
def test_by_ops_where_there_are_no_steps(changed: Callable[[VAE], Any], calls: list[int]) -> None:
    vae = model()
    vae(data())
    assert calls
    calls.clear()
    changed(vae)
    vae(data())
    vae(data())
    assert not calls


def test_large_networks_go_by_ops(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    vae, n = model(), 40
    most = n * sum(p.numel() for p in vae.parameters())
    monkeypatch.setattr("bslfast.vae.decoding._ONE_NODE", most)
    vae(data(n + 1))
    assert not calls
    vae(data(n))
    assert calls == [n]


def test_a_shallow_copy_has_a_program_of_its_own() -> None:
    vae = model()
    vae(data())
    other = copy.copy(vae)
    other.beta = 10.0
    for _ in range(3):
        torch.testing.assert_close(other.elbo(data(), seed=0), other.elbo_and_kl(data(), seed=0)[0])
    torch.testing.assert_close(vae.elbo(data(), seed=0), vae.elbo_and_kl(data(), seed=0)[0])


def test_the_same_bits_from_the_first_call_on() -> None:
    vae = model(latent=None)
    found = [vae.elbo(data(), seed=0) for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    again = torch.utils.checkpoint.checkpoint(model().elbo, data(), seed=0, use_reentrant=False)
    assert torch.equal(again, found[0])
    [grad] = torch.autograd.grad(again.sum(), [next(iter(vae.parameters()))], allow_unused=True)
    assert grad is None


def test_a_beta_that_changes_goes_by_ops(calls: list[int]) -> None:
    """A program would be made for each call. One that stays has a program again."""
    vae = model()
    for beta in (0.1, 0.2, 0.3):
        vae.beta = beta
        torch.testing.assert_close(vae.elbo(data(), seed=0), vae.elbo_and_kl(data(), seed=0)[0])
    assert not calls
    vae.elbo(data())
    assert calls


def test_second_derivatives_are_those_of_the_call() -> None:
    vae = model()
    elbo = vae.elbo(data(3), seed=0).sum()
    parameter = next(iter(vae.parameters()))
    [first] = torch.autograd.grad(elbo, [parameter], retain_graph=True)
    vae.beta = 7.0
    [second] = torch.autograd.grad(elbo, [parameter], create_graph=True)
    torch.testing.assert_close(second, first)


def test_no_examples(calls: list[int]) -> None:
    for kind in (VAE, Autoencoder):
        found = model(kind)
        found(data())
        assert found(data(0)).shape == (0,)
    assert calls == [70, 70]


def test_layers_that_do_not_know_their_size_yet(calls: list[int]) -> None:
    vae = VAE(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), mlp_decoder(2, SHAPE, (9,)))
    assert vae(data().float()).shape == (70,)
    assert not calls
    vae(data().float())
    assert calls == [70]


def test_any_number_of_examples_is_one_graph() -> None:
    """What is one node in eager mode is no branch of a compiled one."""
    vae = model()
    exported = torch.export.export(
        vae, (data(),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},)
    )
    assert exported.module()(data(5)).shape == (5,)
