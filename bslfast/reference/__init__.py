"""Every op of :mod:`bslfast.functional` in plain torch, with the same name and signature.

The oracle of the tests, the shortest documentation of what an op computes, and what runs on devices
that have no kernels. Arguments are not checked here.
"""

from bslfast.reference.affine_coupling import affine_coupling
from bslfast.reference.bayes_linear import bayes_linear
from bslfast.reference.bernoulli import bernoulli_log_prob
from bslfast.reference.categorical import categorical_log_prob
from bslfast.reference.discretized_logistic import discretized_logistic_log_prob
from bslfast.reference.elementwise import (
    leaky_relu_transform,
    sigmoid_transform,
    softplus_transform,
    tanh_transform,
)
from bslfast.reference.gumbel_softmax import gumbel_softmax_rsample
from bslfast.reference.importance import iwae_bound
from bslfast.reference.normal import normal_kl, normal_rsample, normal_rsample_kl
from bslfast.reference.normal_log_prob import normal_log_prob
from bslfast.reference.poisson import poisson_log_prob
from bslfast.reference.rank_one import planar, radial
from bslfast.reference.rational_quadratic import rational_quadratic_spline
from bslfast.reference.standard import standard_normal, standard_uniform

__all__ = [
    "affine_coupling",
    "bayes_linear",
    "bernoulli_log_prob",
    "categorical_log_prob",
    "discretized_logistic_log_prob",
    "gumbel_softmax_rsample",
    "iwae_bound",
    "leaky_relu_transform",
    "normal_kl",
    "normal_log_prob",
    "normal_rsample",
    "normal_rsample_kl",
    "planar",
    "poisson_log_prob",
    "radial",
    "rational_quadratic_spline",
    "sigmoid_transform",
    "softplus_transform",
    "standard_normal",
    "standard_uniform",
    "tanh_transform",
]
