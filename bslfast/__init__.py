"""Bayesian layers, variational autoencoders and normalizing flows with fused kernels."""

from __future__ import annotations

import gc as _gc
from importlib import metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING

from bslfast._lazy import submodules as _submodules

_collecting = _gc.isenabled()
# Nothing made here is garbage, yet making it would have Python search through all that torch has
# made, which takes longer than the import itself.
_gc.disable()
try:
    from bslfast import bnn, distributions, flows, functional, likelihoods, nn, reference, vae
    from bslfast.elbo import free_bits, negative_elbo
    from bslfast.predict import Prediction, predict
    from bslfast.programs import whole_networks
finally:
    if _collecting:
        _gc.enable()

# Imported when they are used: training and what goes with it would double the time. sklearn needs
# scikit-learn, so a * leaves it out.
if _TYPE_CHECKING:
    from bslfast import cli, data, info, metrics, patch, plots, training
    from bslfast import sklearn as sklearn
else:
    __getattr__, __dir__ = _submodules(
        __name__, ("cli", "data", "info", "metrics", "patch", "plots", "sklearn", "training")
    )

__version__ = _metadata.version("bslfast")
__all__ = [
    "Prediction",
    "bnn",
    "cli",
    "data",
    "distributions",
    "flows",
    "free_bits",
    "functional",
    "info",
    "likelihoods",
    "metrics",
    "negative_elbo",
    "nn",
    "patch",
    "plots",
    "predict",
    "reference",
    "training",
    "vae",
    "whole_networks",
]
