"""A variational autoencoder of small handwritten digits, without labels.

python examples/digits.py            # writes runs/examples/digits.png
"""

from __future__ import annotations

from pathlib import Path

import torch

import bslfast
from bslfast.data import load_digits, split
from bslfast.plots.images import reconstructions
from bslfast.training import fit
from bslfast.vae import VAE, mlp_decoder, mlp_encoder


def main(epochs: int = 30, out: Path = Path("runs/examples")) -> float:
    """Return the test data's mean log p(x) per image, in nats."""
    torch.manual_seed(0)
    digits = load_digits()
    parts = split(digits.x, digits.y, seed=0)
    shape = tuple(digits.x.shape[1:])
    vae = VAE(mlp_encoder(shape, 8), mlp_decoder(8, shape))
    fit(
        vae,
        (parts.train.x,),
        (parts.validation.x,),
        objective=VAE.elbo_and_kl,
        epochs=epochs,
        batch_size=128,
        lr=2e-3,
    )
    with torch.no_grad():
        log_p = vae.log_marginal(parts.test.x, n_samples=100).mean().item()
        figure = reconstructions(parts.test.x[:10], vae.reconstruct(parts.test.x[:10]))
    print(f"log p(x) = {log_p:.1f} nats per test image, by 100 importance samples")
    out.mkdir(parents=True, exist_ok=True)
    bslfast.plots.save(figure, out / "digits.png")
    return log_p


if __name__ == "__main__":
    main()
