"""Missing values in the methods that show what a model makes of x, and in models beside the VAE."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bslfast.training import fit
from bslfast.vae import VAE, Autoencoder, SemiSupervisedVAE, mlp_decoder, mlp_encoder
from bslfast.vae.decoding import Decoding

WIDTH, CLASSES = 5, 3


def vae(likelihood: str = "normal", **options: Any) -> VAE:
    networks = mlp_encoder((WIDTH,), 2, (8,), **options), mlp_decoder(2, (WIDTH,), (8,), **options)
    return VAE(*networks, likelihood=likelihood, latent=2).double()


def autoencoder(likelihood: str = "normal") -> Autoencoder:
    encoder = mlp_encoder((WIDTH,), 2, (8,), deterministic=True)
    return Autoencoder(encoder, mlp_decoder(2, (WIDTH,), (8,)), likelihood=likelihood).double()


def semi_supervised(likelihood: str = "normal") -> SemiSupervisedVAE:
    classifier = mlp_encoder((WIDTH,), 2, (8,), outputs=CLASSES)
    model = vae(likelihood, context=CLASSES)
    return SemiSupervisedVAE(model, classifier, classes=CLASSES, labelled=0.5).double()


def data() -> tuple[Tensor, Tensor, Tensor]:
    """x with NaN where it is missing, x with 0 there, and the mask."""
    x, mask = torch.rand(6, WIDTH, dtype=torch.float64), torch.rand(6, WIDTH) > 0.4
    mask[0, 0] = False
    return x.masked_fill(~mask, math.nan), x * mask, mask


SEEN: dict[str, Callable[..., Tensor | tuple[Tensor, ...]]] = {
    "encode": lambda m, x, **given: m.encode(x, **given),
    "codes": lambda m, x, **given: m.codes(x, **given),
    "reconstruct": lambda m, x, **given: m.reconstruct(x, **given),
    "from": lambda m, x, **given: m.interpolate(x, x.nan_to_num().flip(0), 3, **given),
    "to": lambda m, x, **given: m.interpolate(
        x.nan_to_num().flip(0), x, 3, **{f"to_{name}": value for name, value in given.items()}
    ),
}


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
@pytest.mark.parametrize("make", [vae, autoencoder])
@pytest.mark.parametrize("name", SEEN)
def test_the_encoder_sees_the_filler(
    name: str, make: Callable[[str], Decoding], likelihood: str
) -> None:
    model, (x, filled, mask) = make(likelihood), data()
    torch.testing.assert_close(SEEN[name](model, x, mask=mask), SEEN[name](model, filled))
    which = "to_mask" if name == "to" else "mask"
    with pytest.raises(ValueError, match=rf"^{which}: expected the shape of .* \(6, 5\)"):
        SEEN[name](model, x, mask=mask[:3])
    with pytest.raises(TypeError, match=rf"^{which}: expected a bool tensor"):
        SEEN[name](model, x, mask=mask.double())


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli", "laplace"])
@pytest.mark.parametrize("make", [vae, autoencoder])
def test_nan_without_a_mask(make: Callable[[str], Decoding], likelihood: str) -> None:
    model, (x, filled, mask) = make(likelihood), data()
    count = int(x.isnan().sum())
    for call in (model.codes, model.reconstruct):
        with pytest.raises(ValueError, match=rf"^x: expected no NaN, .* got {count} of 30 values"):
            call(x)
        mask[0, 0] = True
        with pytest.raises(ValueError, match=r"^x: expected no NaN, .* got 1 of 30 values"):
            call(x, mask=mask)
        mask[0, 0] = False
    with pytest.raises(ValueError, match=r"^x: expected no NaN"):
        model.interpolate(x, filled)
    with pytest.raises(ValueError, match=r"^to: expected no NaN"):
        model.interpolate(filled, x)


def test_the_log_likelihood_of_an_autoencoder() -> None:
    model, (x, filled, mask) = autoencoder(), data()
    found = model.log_likelihood(x, mask=mask)
    each = torch.distributions.Normal(model.reconstruct(filled), 1.0).log_prob(filled)
    expected = (each * mask).sum(1)
    torch.testing.assert_close(found, expected)
    parameters = [*model.encoder.parameters(), *model.decoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
    )
    whole = torch.ones_like(mask)
    torch.testing.assert_close(model.log_likelihood(filled, mask=whole), model(filled))


LABELLED: dict[str, Callable[..., Tensor]] = {
    "elbo": lambda m, x, y, **given: m.elbo(x, y.clamp(min=0), 2, seed=1, **given),
    "objective": lambda m, x, y, **given: m.objective(x, y, 2, seed=1, **given),
    "unlabelled": lambda m, x, y, **given: m.unlabelled_elbo(x, 2, seed=1, **given),
    "log_marginal": lambda m, x, y, **given: m.log_marginal(x, 5, seed=1, **given),
    "classify": lambda m, x, y, **given: m.classify(x, **given),
}


@pytest.mark.parametrize("name", LABELLED)
def test_semi_supervised_models(name: str) -> None:
    """What is missing does not count: its values may be any, also NaN."""
    model, (x, filled, mask) = semi_supervised(), data()
    y = torch.tensor([0, 1, 2, -1, -1, -1])
    found = LABELLED[name](model, x, y, mask=mask)
    assert found.isfinite().all()
    assert torch.equal(found, LABELLED[name](model, filled + ~mask * 7.0, y, mask=mask))
    whole = torch.ones_like(mask)
    full = LABELLED[name](model, filled, y, mask=whole)
    torch.testing.assert_close(full, LABELLED[name](model, filled, y))
    found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"^mask: expected the shape of x, \(6, 5\)"):
        LABELLED[name](model, x, y, mask=mask[:3])


def test_the_bounds_of_a_class_are_those_of_the_conditional_vae() -> None:
    model, (x, _, mask) = semi_supervised(), data()
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    context = torch.nn.functional.one_hot(y, CLASSES).double()
    expected = model.vae.elbo(x, 2, context=context, mask=mask, seed=1) - math.log(CLASSES)
    torch.testing.assert_close(model.elbo(x, y, 2, mask=mask, seed=1), expected)


def test_training_with_missing_values() -> None:
    x, _, mask = data()
    x, mask = x.float().repeat(20, 1), mask.repeat(20, 1)
    y = torch.tensor([0, 1, 2, -1, -1, -1]).repeat(20)
    # fit refuses NaN in its data: what is missing has any other value.
    x = x.nan_to_num(nan=9.0)
    model = semi_supervised().float()
    history = fit(
        model, (x, y, mask), epochs=5,
        objective=lambda m, x, y, mask: m.objective(x, y, mask=mask),
    )  # fmt: skip
    assert history.loss[-1] < history.loss[0]
