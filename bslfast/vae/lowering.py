"""What steps of a program a VAE stands for: (builder, vae) adds its evidence lower bound."""

from __future__ import annotations

from bslfast import programs
from bslfast.programs import Builder, CannotLower, Lanes, lowers
from bslfast.vae.autoencoder import Autoencoder
from bslfast.vae.model import VAE
from bslfast.vae.posteriors import DiagonalNormal

# What the bound calls, and an object may come to have instead of its class.
_METHODS = (
    "terms",
    "encode",
    "log_likelihood",
    "_by_ops",
    "_elbo_and_kl",
    "_terms",
    "_parameters_of",
    "_check_x",
    "_encoded",
    "_decoded",
    "_log_likelihood",
)


@lowers(VAE)
def _vae(builder: Builder, vae: VAE) -> None:
    builder.looked_at(vae, "beta", "free_bits", "latent", "capacity")
    builder.looked_at(vae.posterior)
    own = vars(vae)
    builder.entries += [(own, name, own.get(name)) for name in _METHODS]
    if vae.prior is not None:
        raise CannotLower(f"{type(vae.prior).__name__} has no steps")
    if type(vae.posterior) is not DiagonalNormal or vae.posterior.log_var_range is not None:
        raise CannotLower(f"{vae.posterior} has no steps")
    if vae.capacity is not None:
        raise CannotLower("capacity has no steps")
    if vae.free_bits > 0:
        raise CannotLower("free_bits depends on all examples of a batch")
    if not isinstance(vae.beta, int | float):
        raise CannotLower("beta is no number")
    builder.any_shape = True
    posterior: Lanes = programs.lower(builder, vae.encoder, builder.x)
    latent, odd = divmod(len(posterior), 2)
    if odd or vae.latent not in (None, latent):
        raise CannotLower("the encoder's outputs are of another number of latent dimensions")
    drawn = builder.step(
        "normal_sample",
        posterior,
        len(posterior),
        options=[builder.noises],
        numbers=[float(vae.beta)],
    )
    builder.noises += 1
    outputs: Lanes = programs.lower(builder, vae.decoder, drawn[:latent])
    programs.lower(builder, vae.likelihood, outputs, builder.x)


@lowers(Autoencoder)
def _autoencoder(builder: Builder, autoencoder: Autoencoder) -> None:
    builder.looked_at(autoencoder, "latent")
    own = vars(autoencoder)
    builder.entries += [(own, name, own.get(name)) for name in _METHODS]
    builder.any_shape = True
    codes: Lanes = programs.lower(builder, autoencoder.encoder, builder.x)
    if autoencoder.latent not in (None, len(codes)):
        raise CannotLower("the encoder's outputs are of another number of latent dimensions")
    outputs: Lanes = programs.lower(builder, autoencoder.decoder, codes)
    programs.lower(builder, autoencoder.likelihood, outputs, builder.x)
