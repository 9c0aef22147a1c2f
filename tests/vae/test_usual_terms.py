"""The bound of a usual VAE, which is made in one function, is the one of its methods."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast.functional.normal import rsample_kl_of_halves
from bslfast.vae import VAE, DiagonalNormal, mlp_decoder, mlp_encoder
from bslfast.vae import model as module


@pytest.fixture(autouse=True)
def by_ops() -> Iterator[None]:
    with bslfast.whole_networks(False):
        yield


def vae(**options: Any) -> Any:
    torch.manual_seed(0)
    found = VAE(mlp_encoder((2, 3), 2, (5,)), mlp_decoder(2, (2, 3), (5,)), **options).double()
    found.elbo(data())
    return found


def data(n: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 2, 3, generator=generator, dtype=torch.float64)


class Negative(VAE):
    def terms(self, *args: Any, **options: Any) -> Any:
        log_likelihood, kl = super().terms(*args, **options)
        return -log_likelihood, kl


class Wide(DiagonalNormal):
    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        mu, log_var = super().split(outputs)
        return mu, log_var + 1


#: What may happen to a model whose usual methods are known.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda found: None,
    "beta": lambda found: setattr(found, "beta", 0.3),
    "free bits": lambda found: setattr(found, "free_bits", 0.5),
    "capacity": lambda found: setattr(found, "capacity", 1.0),
    "a buffer": lambda found: (
        delattr(found, "capacity"),
        found.register_buffer("capacity", torch.tensor(1.0).double()),
    ),
    "prior": lambda found: setattr(found, "prior", bslfast.flows.NormalMixtureBase(2, 3).double()),
    "posterior": lambda found: setattr(found, "posterior", Wide()),
    "range": lambda found: setattr(found, "posterior", DiagonalNormal((-0.1, 0.1))),
    "own range": lambda found: setattr(found.posterior, "log_var_range", (3.0, 4.0)),
    "own split": lambda found: setattr(found.posterior, "split", lambda y: y.chunk(2, 1)[::-1]),
    "class": lambda found: setattr(found, "__class__", Negative),
    "own terms": lambda found: setattr(
        found,
        "_terms",
        lambda x, *args, each: (found.encoder[1].weight.sum() * x.sum((1, 2)), x.sum((1, 2))),
    ),
    "hook": lambda found: found.encoder.register_forward_hook(lambda m, args, y: y * 2),
    "encoder": lambda found: setattr(found, "encoder", mlp_encoder((2, 3), 2, ()).double()),
    "decoder": lambda found: setattr(found, "decoder", mlp_decoder(2, (2, 3), ()).double()),
    "likelihood": lambda found: setattr(
        found, "likelihood", bslfast.likelihoods.ContinuousBernoulli(None)
    ),
    "weights": lambda found: nn.init.ones_(found.encoder[1].weight),
}


@pytest.mark.parametrize("name", CHANGES)
def test_elbo_is_made_by_the_methods_that_there_are(name: str) -> None:
    used = vae()
    before = used.elbo(data(), seed=3)
    CHANGES[name](used)
    found, (expected, _) = used.elbo(data(), seed=3), used.elbo_and_kl(data(), seed=3)
    assert torch.equal(found, expected)
    assert torch.equal(found, before) == (name == "nothing")
    parameters = list(used.parameters())
    options: Any = {"allow_unused": True, "materialize_grads": True}
    grads = [torch.autograd.grad(y.mean(), parameters, **options) for y in (found, expected)]
    assert all(map(torch.equal, *grads))


def test_most_go_this_way(monkeypatch: pytest.MonkeyPatch) -> None:
    used = vae()

    def other(*args: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(module.VAE, "_elbo_and_kl", other)
    used.elbo(data())
    used(data(3))
    with pytest.raises(AssertionError):
        used.elbo(data(), 2)


def test_copies() -> None:
    used = vae()
    used.elbo(data())
    for made in (copy.copy(used), copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        made.capacity = 1.0
        found, (expected, _) = made.elbo(data(), seed=3), made.elbo_and_kl(data(), seed=3)
        assert torch.equal(found, expected)
    assert torch.equal(used.elbo(data(), seed=3), used.elbo_and_kl(data(), seed=3)[0])


def test_seeds_and_the_generator() -> None:
    used = vae()
    torch.manual_seed(4)
    found, state = used.elbo(data()), torch.get_rng_state()
    torch.manual_seed(4)
    assert torch.equal(used.elbo_and_kl(data())[0], found)
    assert torch.equal(torch.get_rng_state(), state)
    for seed in (torch.tensor(5), -1, 2**63):
        assert torch.equal(used.elbo(data(), seed=seed), used.elbo_and_kl(data(), seed=seed)[0])


def test_other_ways_of_torch() -> None:
    used, x = vae(), data()
    expected = used.elbo_and_kl(x, seed=3)[0]
    with torch.inference_mode():
        torch.testing.assert_close(used.elbo(x, seed=3), expected)
    vmapped = torch.func.vmap(lambda x: used.elbo(x, seed=3), randomness="same")(x.unsqueeze(0))
    torch.testing.assert_close(vmapped[0], expected)
    leaf = x.requires_grad_()
    [grad] = torch.autograd.grad(used.elbo(leaf, seed=3).sum(), leaf, create_graph=True)
    again = torch.autograd.grad(grad.square().sum(), list(used.parameters())[:2])
    [grad] = torch.autograd.grad(used.elbo_and_kl(leaf, seed=3)[0].sum(), leaf, create_graph=True)
    torch.testing.assert_close(
        again, torch.autograd.grad(grad.square().sum(), list(used.parameters())[:2])
    )
    assert used.elbo(data(0)).shape == (0,)
    used.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = used.elbo(data().float(), seed=3)
        torch.testing.assert_close(found, used.elbo_and_kl(data().float(), seed=3)[0])


def test_errors() -> None:
    used = vae()
    used.encoder = mlp_encoder((2, 3), 3, ()).double()
    with pytest.raises(ValueError, match="encoder: expected an output for 2 latent dimensions"):
        used.elbo(data())
    used = vae()
    used.decoder = mlp_decoder(2, (3, 2), ()).double()
    with pytest.raises(ValueError, match="decoder: expected outputs of shape"):
        used.elbo(data())
    used.decoder = nn.LSTM(2, 6).double()
    with pytest.raises(TypeError, match="decoder: expected a tensor"):
        used.elbo(data())
    with pytest.raises(ValueError, match=r"x: expected values in \[0, 1\]"):
        vae().elbo(data() * 2)


def test_one_row_and_one_number() -> None:
    """A half of one row is contiguous, as the whole is."""
    found = vae()
    expected = found.elbo(data(2), seed=3)[:1]
    torch.testing.assert_close(found.elbo(data(2)[:1], seed=3), expected)
    for outputs in (torch.randn(1, 6), torch.randn(2, 2).t().contiguous().t()):
        sample, kl = rsample_kl_of_halves(outputs, 5)
        own = bslfast.functional.normal_rsample_kl(
            *outputs.chunk(2, 1), parametrization="log_var", reduction="row", seed=5
        )
        assert torch.equal(sample, own[0])
        assert torch.equal(kl, own[1])
