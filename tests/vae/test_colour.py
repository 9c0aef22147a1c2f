"""Colour images under a discretised logistic mixture: training, bounds, bits, samples, pictures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bslfast import metrics
from bslfast.data import load_digits
from bslfast.likelihoods import DiscretizedLogisticMixture
from bslfast.training import fit
from bslfast.vae import VAE, conv_decoder, conv_encoder

LEVELS = 32


def coloured(n: int) -> Tensor:
    """Digits in a colour of their label, [n, 3, 8, 8], of 32 levels in [0, 1]."""
    digits = load_digits()
    hue = digits.y[:n, None] / 10 + torch.tensor([0.0, 1 / 3, 2 / 3])
    colours = 0.5 + 0.5 * torch.cos(2 * math.pi * hue)
    images = digits.x[:n] * colours[:, :, None, None]
    return (images * (LEVELS - 1)).round() / (LEVELS - 1)


def made() -> VAE:
    torch.manual_seed(0)
    likelihood = DiscretizedLogisticMixture(None, components=3, bins=LEVELS, low=0.0, high=1.0)
    outputs = 3 * len(likelihood.parts)
    return VAE(
        conv_encoder((3, 8, 8), 4, channels=(16, 32), strides=(2, 2)),
        conv_decoder(4, (outputs, 8, 8), channels=(32, 16), strides=(2, 2)),
        latent=4,
        likelihood=likelihood,
    )


def test_a_step_has_the_density_of_every_pixel() -> None:
    """Against the logistic distribution functions in torch, with gradients."""
    model, x = made().double(), coloured(3).double()
    z = torch.randn(3, 4, dtype=torch.float64)
    outputs = model.decoder(z)
    found = model.likelihood.log_prob(outputs, x)
    # Parts lie side by side on the channels: a logit, loc and log scale for each component.
    logits, loc, log_scale = outputs.unflatten(1, (3, 3, 3)).unbind(1)
    half, at = 0.5 / (LEVELS - 1), x.unsqueeze(1)
    upper = torch.sigmoid((at + half - loc) / log_scale.exp())
    lower = torch.sigmoid((at - half - loc) / log_scale.exp())
    mass = torch.where(at > 1 - half, 1.0, upper) - torch.where(at < half, 0.0, lower)
    expected = (logits.log_softmax(1) + mass.log()).logsumexp(1).sum((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    own = [*model.decoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), own, retain_graph=True),
        torch.autograd.grad(expected.sum(), own),
        rtol=1e-6,
        atol=1e-6,
    )


def test_training() -> None:
    x = coloured(600)
    model, train, test = made(), x[:500], x[500:]
    history = fit(
        model, (train,), (test,), epochs=12, batch_size=50, lr=3e-3, objective=VAE.elbo_and_kl
    )
    assert history.loss[-1] < 0.7 * history.loss[0]
    with torch.no_grad():
        bound = torch.stack([model.elbo(test, seed=seed) for seed in range(10)]).mean()
        likelihood = model.log_marginal(test, 200, seed=0)
    assert bound < likelihood.mean()
    bits = metrics.bits_per_dim(likelihood, 3 * 64)
    assert 0 < bits < 0.6 * math.log2(LEVELS)  # what equal chances of all levels cost
    with torch.no_grad():
        samples = model.sample(8, seed=1)
        made_again = model.reconstruct(test)
    assert samples.shape == (8, 3, 8, 8)
    assert bool(((made_again > -1e-6) & (made_again < 1 + 1e-6)).all())
    # Colours are those of the digits: the mean of each channel follows that of the image.
    means, its = (t.mean((2, 3)).flatten() for t in (made_again, test))
    assert torch.corrcoef(torch.stack([means, its]))[0, 1] > 0.9


def test_pictures() -> None:
    pytest.importorskip("matplotlib")
    from bslfast.plots import images

    model, x = made(), coloured(6)
    with torch.no_grad():
        figure = images.reconstructions(x, model.reconstruct(x), columns=6)
    assert figure.axes[0].images[0].get_array().shape[-1] == 4
    images.latent_grid(model, points=4, dims=(1, 3))
    images.interpolation(model, x[:2], x[2:4], steps=3)
