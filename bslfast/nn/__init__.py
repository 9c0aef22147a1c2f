"""Bayesian layers: drop-in modules whose weights are distributions.

:mod:`bslfast.nn.posteriors` and :mod:`bslfast.nn.priors` are the distributions that weights have.
"""

from bslfast.nn import posteriors, priors
from bslfast.nn.convert import to_bayesian
from bslfast.nn.convolution import (
    BayesConv1d,
    BayesConv2d,
    BayesConv3d,
    BayesConvTranspose1d,
    BayesConvTranspose2d,
    BayesConvTranspose3d,
)
from bslfast.nn.embedding import BayesEmbedding
from bslfast.nn.estimators import one_draw
from bslfast.nn.layer import BayesianLayer
from bslfast.nn.linear import BayesLinear
from bslfast.nn.module import BayesianModule, kl
from bslfast.nn.parameter_groups import parameter_groups
from bslfast.nn.weight import NormalWeight, Weight

__all__ = [
    "BayesConv1d",
    "BayesConv2d",
    "BayesConv3d",
    "BayesConvTranspose1d",
    "BayesConvTranspose2d",
    "BayesConvTranspose3d",
    "BayesEmbedding",
    "BayesLinear",
    "BayesianLayer",
    "BayesianModule",
    "NormalWeight",
    "Weight",
    "kl",
    "one_draw",
    "parameter_groups",
    "posteriors",
    "priors",
    "to_bayesian",
]
