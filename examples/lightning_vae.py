"""A variational autoencoder trained by Lightning, with its course in TensorBoard.

pip install lightning tensorboard
python examples/lightning_vae.py     # writes runs/examples/lightning
tensorboard --logdir runs/examples/lightning
"""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bslfast.data import load_digits, split
from bslfast.plots.images import reconstructions
from bslfast.vae import VAE, mlp_decoder, mlp_encoder


class Digits(lightning.LightningModule):
    """A VAE of images, and what Lightning has to know of its training."""

    def __init__(self, shape: tuple[int, ...], latent: int = 8) -> None:
        super().__init__()
        self.vae = VAE(mlp_encoder(shape, latent), mlp_decoder(latent, shape))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the negative bound."""
        elbo, kl = self.vae.elbo_and_kl(batch[0])
        self.log_dict({"train/elbo": elbo.mean(), "train/kl": kl.mean()}, on_epoch=True)
        return -elbo.mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Note the bound, and show some reconstructions."""
        self.log("validation/elbo", self.vae(batch[0]).mean())
        if batch_idx == 0 and isinstance(self.logger, TensorBoardLogger):
            some = batch[0][:10].cpu()
            figure = reconstructions(some, self.vae.reconstruct(batch[0][:10]).cpu())
            self.logger.experiment.add_figure("reconstructions", figure, self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main(epochs: int = 30, out: Path = Path("runs/examples")) -> float:
    """Return the test data's mean log p(x) per image, in nats."""
    lightning.seed_everything(0)
    digits = load_digits()
    train, validation, test = (TensorDataset(part.x) for part in split(digits.x, digits.y, seed=0))
    model = Digits(tuple(digits.x.shape[1:]))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(out, name="lightning"),
        enable_checkpointing=False,
        enable_progress_bar=False,
        log_every_n_steps=5,
    )
    loaders = DataLoader(train, batch_size=128, shuffle=True), DataLoader(validation, 256)
    trainer.fit(model, *loaders)
    model.eval()
    with torch.no_grad():
        log_p = model.vae.log_marginal(test.tensors[0], n_samples=100).mean().item()
    print(f"log p(x) = {log_p:.1f} nats per test image, by 100 importance samples")
    return log_p


if __name__ == "__main__":
    main()
