"""Importance-weighted bounds as one node, and likelihoods of many codes: the same as by ops."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import programs
from bslfast.vae import VAE, DiagonalNormal, mlp_decoder, mlp_encoder

SHAPE = (2, 3)
MODELS: dict[str, dict[str, Any]] = {
    "bernoulli": {},
    "learned scale": {"likelihood": "normal"},
    "scales of the decoder": {"likelihood": "normal", "scale": "decoder"},
    "prior by flow": {"prior": bslfast.flows.RealNVP(2, transforms=2, hidden=(4,))},
    "full covariance": {"posterior": bslfast.vae.FullCovarianceNormal()},
}


def model(name: str = "bernoulli") -> VAE:
    torch.manual_seed(0)
    options = copy.deepcopy(MODELS[name])
    parts = 2 if options.get("scale") == "decoder" else 1
    outputs = 5 if "posterior" in options else 4
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, outputs))
    decoder = mlp_decoder(2, (parts * SHAPE[0], SHAPE[1]), (9,))
    return VAE(encoder, decoder, **options).double()


def wide(hidden: int) -> VAE:
    """From 65,536 weights a layer on, tiles go through layers together."""
    vae = model()
    vae.decoder = nn.Sequential(
        *(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 256), nn.ReLU(), nn.Linear(256, 6)),
        nn.Unflatten(1, SHAPE),
    ).double()
    return vae


def data(n: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each bound had that was one node."""
    found: list[int] = []
    bound = programs.bound

    def counted(*args: Any) -> Any:
        found.append(len(args[2]))
        return bound(*args)

    monkeypatch.setattr(programs, "bound", counted)
    return found


def bounds_and_gradients(
    vae: VAE, x: Tensor, upstream: Tensor | None = None, *, calls: int = 1, **options: Any
) -> list[Tensor]:
    found = []
    for seed in range(calls):
        bound = vae.iwae(x, seed=seed, **options)
        grad = torch.full_like(bound, 1 / len(x)) if upstream is None else upstream.to(bound)
        found += [bound.detach(), *torch.autograd.grad(bound, list(vae.parameters()), grad)]
    return found


def assert_both_ways(vae: VAE, x: Tensor, *args: Any, **options: Any) -> None:
    # Lowered once, so that what it has learned about gradients does not meet the next test.
    whole = bounds_and_gradients(copy.deepcopy(vae), x, *args, **options)
    with bslfast.whole_networks(False):
        ops = bounds_and_gradients(copy.deepcopy(vae), x, *args, **options)
    for a, b in zip(whole, ops, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_ops(name: str, estimator: str, nodes: list[int]) -> None:
    """Also from the third call on, which expects the gradient that the ones before it had."""
    assert_both_ways(model(name), data(), calls=4, samples=5, estimator=estimator)
    assert nodes == [5] * 4


@pytest.mark.parametrize("samples", [1, 2, 33, 50, 128, 129, programs.MOST_SAMPLES])
@pytest.mark.parametrize("hidden", [9, 800])
def test_numbers_of_samples(samples: int, hidden: int, nodes: list[int]) -> None:
    """A group of tiles has all samples of some examples: none, one or many of them are full."""
    vae = wide(hidden)
    assert_both_ways(vae, data(9), calls=3, samples=samples)
    assert nodes == [samples] * 3


@pytest.mark.parametrize("upstream", ["of each its own", "zeros"])
def test_gradients_of_examples(upstream: str, nodes: list[int]) -> None:
    given = torch.rand(7) if upstream == "of each its own" else torch.zeros(7)
    assert_both_ways(model(), data(), given, calls=3, samples=6)
    assert nodes == [6] * 3


def test_a_gradient_that_was_not_expected() -> None:
    vae, x = model(), data()
    parameters = list(vae.parameters())
    for _ in range(3):
        torch.autograd.grad(vae.iwae(x, 5).mean(), parameters)
    found = torch.autograd.grad(3 * vae.iwae(x, 5, seed=1).sum(), parameters)
    with bslfast.whole_networks(False):
        expected = torch.autograd.grad(3 * vae.iwae(x, 5, seed=1).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hidden", [9, 800])
def test_bits_do_not_depend_on_threads(hidden: int) -> None:
    vae, x = wide(hidden).float(), data(40).float()
    z, added = torch.randn(50, 40, 2), torch.randn(50, 40)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            at_once = vae._bound(x, z, added)
            assert at_once is not None
            grads = torch.autograd.grad(at_once[0].mean(), list(vae.decoder.parameters()))
            found.append([*at_once, *grads])
    finally:
        torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_second_derivatives(nodes: list[int]) -> None:
    def run(vae: VAE) -> list[Tensor]:
        parameters = list(vae.parameters())
        grads = torch.autograd.grad(
            vae.iwae(data(3), 4, seed=2).sum(), parameters, create_graph=True
        )
        penalty = sum(grad.square().sum() for grad in grads)
        assert isinstance(penalty, Tensor)
        return list(torch.autograd.grad(penalty, parameters))

    vae = model()
    whole = run(vae)
    assert nodes == [4]
    with bslfast.whole_networks(False):
        ops = run(vae)
    for a, b in zip(whole, ops, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_gradcheck() -> None:
    vae, x = model(), data(3)
    decoder = [p for p in vae.parameters() if p.shape][:2]

    def bound(*_: Tensor) -> Tensor:
        return vae.iwae(x, 3, seed=4)

    assert torch.autograd.gradcheck(bound, decoder)


def test_where_ops_run(nodes: list[int]) -> None:
    """Without gradients, for gradients of x, for more samples, masks, and decoders of all kinds."""
    vae, x = model(), data()
    with torch.no_grad():
        vae.iwae(x, 5)
    vae.iwae(x.clone().requires_grad_(), 5).sum().backward()
    vae.iwae(x, programs.MOST_SAMPLES + 1)
    vae.iwae(x, 5, mask=torch.ones(7, *SHAPE, dtype=torch.bool))
    handle = vae.decoder.register_forward_hook(lambda *_: None)
    vae.iwae(x, 5)
    handle.remove()
    vae.decoder = nn.Sequential(nn.Linear(2, 6), nn.Softsign(), nn.Unflatten(1, SHAPE)).double()
    vae.iwae(x, 5)
    assert nodes == []


def test_bayesian_decoders(nodes: list[int]) -> None:
    """All samples of an example have one draw of the weights, as by ops."""
    vae, x = model(), data()
    vae.decoder = bslfast.nn.to_bayesian(vae.decoder, init_scale=0.5)
    found = []
    for at_once in (True, False):
        with bslfast.whole_networks(at_once):
            torch.manual_seed(1)
            bound = vae.iwae(x, 5, seed=2)
            with torch.no_grad():
                marginal = vae.log_marginal(x, 6, seed=2)
            found.append((bound, marginal))
            assert len(torch.autograd.grad(bound.sum(), [*vae.decoder.parameters()])) == 8
    assert nodes == []
    for one, its in zip(*found, strict=True):
        torch.testing.assert_close(one, its)


def test_infinite_weights(nodes: list[int]) -> None:
    """Data without density is as improbable by one node as by ops."""
    vae = VAE(nn.Linear(2, 2), nn.Linear(1, 2), likelihood="normal", scale=1e-3)
    x = torch.full((3, 2), 1e25)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    bound = vae.iwae(x, 4)
    assert nodes == [4]
    assert torch.equal(bound, torch.full((3,), -math.inf))
    for _ in range(3):
        bound = vae.iwae(x, 4)
        bound.sum().backward()
        assert torch.equal(bound, torch.full((3,), -math.inf))


class Repeated(DiagonalNormal):
    """Codes of more examples than there are."""

    def rsample_and_log_prob(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        z, log_q = super().rsample_and_log_prob(*args, **options)
        return z.repeat_interleave(3, dim=-2), log_q.repeat_interleave(3, dim=-1)


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("bound", ["iwae", "log_marginal"])
def test_codes_of_another_number_of_examples_are_refused(bound: str, with_gradients: bool) -> None:
    vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6), posterior=Repeated())
    x = data().float().flatten(1)
    refused = pytest.raises(ValueError, match=r"^x: expected a shape that broadcasts")
    for on in (True, False):
        with bslfast.whole_networks(on), torch.set_grad_enabled(with_gradients), refused:
            getattr(vae, bound)(x, 4)


class Unweighted(DiagonalNormal):
    """Codes whose log probability is one number."""

    def rsample_and_log_prob(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        z, log_q = super().rsample_and_log_prob(*args, **options)
        return z, log_q.mean()


class Flat(bslfast.flows.Base):
    """A prior with one number for all codes."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return -z.square().mean()


def test_densities_that_broadcast(nodes: list[int]) -> None:
    torch.manual_seed(0)
    vae = VAE(nn.Linear(6, 4), nn.Linear(2, 6), posterior=Unweighted(), prior=Flat(2)).double()
    assert_both_ways(vae, data().flatten(1), samples=4)
    assert nodes == []


class Tempered(VAE):
    """Its likelihood counts half."""

    def _log_likelihood(self, *args: Any) -> Tensor:
        return 0.5 * super()._log_likelihood(*args)


class Shifted(VAE):
    """The same for outputs that the decoder does not give."""

    def _likelihood_of(self, outputs: Tensor, *args: Any) -> Tensor:
        return super()._likelihood_of(outputs + 1, *args)


@pytest.mark.parametrize("kind", [Tempered, Shifted])
def test_a_likelihood_of_a_subclass(kind: type[VAE], nodes: list[int]) -> None:
    torch.manual_seed(0)
    vae = kind(nn.Linear(6, 4), nn.Linear(2, 6)).double()
    x = data().flatten(1)
    assert_both_ways(vae, x, samples=4)
    with torch.no_grad():
        found = vae.log_marginal(x, 4, seed=0)
        with bslfast.whole_networks(False):
            torch.testing.assert_close(found, vae.log_marginal(x, 4, seed=0))
    assert nodes == []


@pytest.mark.parametrize("shape", [(2,), (5, 2), (4, 5, 2)])
def test_likelihoods_of_codes(shape: tuple[int, ...]) -> None:
    """A program takes codes of the samples of all examples, as log_marginal has them."""
    vae = model()
    z = torch.randn(*shape[:-1], 7, 2, dtype=torch.float64)
    with torch.no_grad():
        found = vae._log_likelihood(data(), z, None)
        with bslfast.whole_networks(False):
            expected = vae._log_likelihood(data(), z, None)
    assert found.shape == z.shape[:-1]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_log_marginal_is_the_same_both_ways() -> None:
    vae, x = model(), data()
    with torch.no_grad():
        found = vae.log_marginal(x, 300, seed=0, max_bytes=20_000)
        with bslfast.whole_networks(False):
            expected = vae.log_marginal(x, 300, seed=0, max_bytes=20_000)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_decoder_of_another_shape_is_refused() -> None:
    vae = VAE(mlp_encoder((6,), 2), mlp_decoder(2, (6,)))
    with pytest.raises(ValueError, match=r"^decoder: .* of shape \(7, .* \(7, "):
        vae.iwae(data().float(), 5)
