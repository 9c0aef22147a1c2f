"""What steps of a program a VAE stands for: (builder, vae) adds its evidence lower bound."""

from __future__ import annotations

from bslfast import programs
from bslfast.programs import Builder, CannotLower, Lanes, lowers
from bslfast.vae.autoencoder import Autoencoder
from bslfast.vae.decoding import looked_at
from bslfast.vae.model import VAE
from bslfast.vae.posteriors import DiagonalNormal


@lowers(VAE)
def _vae(builder: Builder, vae: VAE) -> None:
    looked_at(builder, vae, "latent", "beta", "free_bits", "capacity")
    if vae.prior is not None:
        raise CannotLower(f"{type(vae.prior).__name__} has no steps")
    posterior = vae.posterior
    if type(posterior) is not DiagonalNormal or posterior.log_var_range is not None:
        raise CannotLower(f"{posterior} has no steps")
    builder.looked_at(posterior, "log_var_range", methods=("split", "rsample_and_kl", "latent"))
    if vae.capacity is not None:
        raise CannotLower("capacity has no steps")
    if vae.free_bits > 0:
        raise CannotLower("free_bits depends on all examples of a batch")
    if not isinstance(vae.beta, int | float):
        raise CannotLower("beta is no number")
    outputs: Lanes = programs.lower(builder, vae.encoder, builder.x)
    latent, odd = divmod(len(outputs), 2)
    if odd or vae.latent not in (None, latent):
        raise CannotLower("the encoder's outputs are of another number of latent dimensions")
    drawn = builder.step(
        "normal_sample",
        outputs,
        len(outputs),
        options=[builder.noises],
        numbers=[float(vae.beta)],
    )
    builder.noises += 1
    outputs = programs.lower(builder, vae.decoder, drawn[:latent])
    programs.lower(builder, vae.likelihood, outputs, builder.x)


@lowers(Autoencoder)
def _autoencoder(builder: Builder, autoencoder: Autoencoder) -> None:
    looked_at(builder, autoencoder, "latent")
    codes: Lanes = programs.lower(builder, autoencoder.encoder, builder.x)
    if autoencoder.latent not in (None, len(codes)):
        raise CannotLower("the encoder's outputs are of another number of latent dimensions")
    outputs: Lanes = programs.lower(builder, autoencoder.decoder, codes)
    programs.lower(builder, autoencoder.likelihood, outputs, builder.x)
