"""Bayesian layers, variational autoencoders and normalizing flows with fused kernels."""

from __future__ import annotations

import gc as _gc
from importlib.metadata import version as _version

_collecting = _gc.isenabled()
# Nothing made here is garbage, yet making it would have Python search through all that torch has
# made, which takes longer than the import itself.
_gc.disable()
try:
    from bslfast import bnn, distributions, flows, functional, likelihoods, nn, reference, vae
    from bslfast.elbo import free_bits, negative_elbo
    from bslfast.predict import Prediction, predict
finally:
    if _collecting:
        _gc.enable()

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
