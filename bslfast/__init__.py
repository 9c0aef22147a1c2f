"""Bayesian layers, variational autoencoders and normalizing flows with fused kernels."""

from __future__ import annotations

from importlib.metadata import version as _version

from bslfast import bnn, distributions, flows, functional, likelihoods, nn, reference, vae
from bslfast.elbo import free_bits, negative_elbo
from bslfast.predict import Prediction, predict

__version__ = _version("bslfast")
__all__ = [
    "Prediction",
    "bnn",
    "distributions",
    "flows",
    "free_bits",
    "functional",
    "likelihoods",
    "negative_elbo",
    "nn",
    "predict",
    "reference",
    "vae",
]
