"""Bayesian layers: drop-in modules whose weights are distributions.

:mod:`bslfast.nn.posteriors` and :mod:`bslfast.nn.priors` are the distributions that weights have.
"""

from bslfast.nn import posteriors, priors
from bslfast.nn.attention import BayesMultiheadAttention
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
from bslfast.nn.estimators import (
    Estimator,
    Flipout,
    LocalReparametrization,
    WeightSample,
    one_draw,
    set_estimator,
)
from bslfast.nn.layer import BayesianLayer
from bslfast.nn.linear import BayesLinear
from bslfast.nn.means import at_means, deterministic_twin
from bslfast.nn.module import BayesianModule, kl
from bslfast.nn.normalization import BayesLayerNorm
from bslfast.nn.parameter_groups import parameter_groups
from bslfast.nn.recurrent import BayesGRU, BayesLSTM
from bslfast.nn.samples import sample_outputs
from bslfast.nn.sequential import Sequential
from bslfast.nn.transformer import BayesTransformerEncoderLayer
from bslfast.nn.weight import NormalWeight, Weight

__all__ = [
    "BayesConv1d",
    "BayesConv2d",
    "BayesConv3d",
    "BayesConvTranspose1d",
    "BayesConvTranspose2d",
    "BayesConvTranspose3d",
    "BayesEmbedding",
    "BayesGRU",
    "BayesLSTM",
    "BayesLayerNorm",
    "BayesLinear",
    "BayesMultiheadAttention",
    "BayesTransformerEncoderLayer",
    "BayesianLayer",
    "BayesianModule",
    "Estimator",
    "Flipout",
    "LocalReparametrization",
    "NormalWeight",
    "Sequential",
    "Weight",
    "WeightSample",
    "at_means",
    "deterministic_twin",
    "kl",
    "one_draw",
    "parameter_groups",
    "posteriors",
    "priors",
    "sample_outputs",
    "set_estimator",
    "to_bayesian",
]
