"""Variational autoencoders, and the deterministic autoencoder to compare them with."""

from bslfast.vae import lowering as lowering  # registers what becomes a program
from bslfast.vae.autoencoder import Autoencoder
from bslfast.vae.diagonal_gaussian import DiagonalGaussianDistribution
from bslfast.vae.model import VAE
from bslfast.vae.networks import (
    WithContext,
    conv_decoder,
    conv_encoder,
    mlp_decoder,
    mlp_encoder,
)
from bslfast.vae.posteriors import (
    DiagonalNormal,
    FlowPosterior,
    FullCovarianceNormal,
    GumbelSoftmax,
    Posterior,
)
from bslfast.vae.priors import VampPrior
from bslfast.vae.semi_supervised import SemiSupervisedVAE

__all__ = [
    "VAE",
    "Autoencoder",
    "DiagonalGaussianDistribution",
    "DiagonalNormal",
    "FlowPosterior",
    "FullCovarianceNormal",
    "GumbelSoftmax",
    "Posterior",
    "SemiSupervisedVAE",
    "VampPrior",
    "WithContext",
    "conv_decoder",
    "conv_encoder",
    "mlp_decoder",
    "mlp_encoder",
]
