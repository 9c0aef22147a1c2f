"""The lecture's autoencoder: its loss, and training that goes on from an epoch."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bslfast.cli.jobs import vae_lecture
from bslfast.data import Examples
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

pytest.importorskip("matplotlib")

SHAPE = (1, 4, 4)


class _Certain(nn.Module):
    """Codes without noise, but for a millionth."""

    def forward(self, x: Tensor) -> Tensor:
        mu = x.flatten(1)[:, :2]
        return torch.cat([mu, torch.full_like(mu, -28.0)], dim=1)


def test_the_loss_is_the_bound_of_a_normal_likelihood() -> None:
    """Its variance is D / 2000. The logarithm of its normalisation is left out."""
    x = torch.rand(5, *SHAPE)
    decoder = mlp_decoder(2, SHAPE, (8,))
    variance = 16 / 2000
    normal = VAE(
        _Certain(), nn.Sequential(decoder, nn.Sigmoid()), likelihood="normal",
        scale=math.sqrt(variance),
    )  # fmt: skip
    bound, kl = vae_lecture.squared_error_bound(VAE(_Certain(), decoder), x)
    constant = -0.5 * 16 * math.log(2 * math.pi * variance)
    assert torch.allclose(bound + constant, normal.elbo(x), atol=1e-3)
    assert torch.allclose(kl, normal.terms(x)[1])


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    train, test = (Examples(torch.rand(40, *SHAPE).round(), torch.zeros(40)) for _ in range(2))

    def run(folder: Path, epochs: int, resume: bool = False) -> tuple[VAE, dict[str, Tensor]]:
        torch.manual_seed(0)
        model = VAE(mlp_encoder(SHAPE, 2, (8,)), mlp_decoder(2, SHAPE, (8,)), latent=2)
        options = argparse.Namespace(
            lecture="normal", device=torch.device("cpu"), epochs=epochs, seed=1, resume=resume
        )
        history, strips = vae_lecture._train(model, train, test, options, folder)
        assert len(history.loss) == epochs
        return model, strips

    straight, expected = run(tmp_path / "a", 3)
    run(tmp_path / "b", 2)
    resumed, strips = run(tmp_path / "b", 3, resume=True)
    assert [*strips] == ["original", "epoch 1", "epoch 2", "epoch 3"]
    assert all(torch.equal(strips[key], expected[key]) for key in expected)
    assert not torch.equal(strips["epoch 1"], strips["epoch 3"])
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert sorted(os.listdir(tmp_path / "b" / "epochs")) == ["01.png", "02.png", "03.png"]
