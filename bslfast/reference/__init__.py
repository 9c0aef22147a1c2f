"""Every op of :mod:`bslfast.functional` in plain torch, with the same name and signature.

The oracle of the tests, the shortest documentation of what an op computes, and what runs on devices
that have no kernels. Arguments are not checked here.
"""

from bslfast.reference.affine_coupling import affine_coupling
from bslfast.reference.bayes_linear import bayes_linear
from bslfast.reference.bernoulli import bernoulli_kl, bernoulli_log_prob
from bslfast.reference.bernstein import bernstein_transform
from bslfast.reference.categorical import categorical_log_prob
from bslfast.reference.deep_sigmoidal import deep_sigmoidal_transform
from bslfast.reference.discretized_logistic import discretized_logistic_log_prob
from bslfast.reference.discretized_logistic_mixture import (
    discretized_logistic_mixture_log_prob,
)
from bslfast.reference.elementwise import (
    leaky_relu_transform,
    sigmoid_transform,
    softplus_transform,
    tanh_transform,
)
from bslfast.reference.generalized_kl import generalized_kl
from bslfast.reference.gumbel import gumbel_log_prob, gumbel_rsample, gumbel_rsample_log_prob
from bslfast.reference.gumbel_softmax import gumbel_softmax_rsample
from bslfast.reference.half_cauchy import half_cauchy_kl, half_cauchy_log_prob, half_cauchy_rsample
from bslfast.reference.iwae_bound import iwae_bound
from bslfast.reference.laplace import (
    laplace_kl,
    laplace_log_prob,
    laplace_rsample,
    laplace_rsample_log_prob,
)
from bslfast.reference.logistic import (
    logistic_log_prob,
    logistic_rsample,
    logistic_rsample_log_prob,
)
from bslfast.reference.lognormal import lognormal_log_prob, lognormal_rsample
from bslfast.reference.mixture_logistic import mixture_logistic_transform
from bslfast.reference.multivariate_normal import multivariate_normal_rsample_kl
from bslfast.reference.negative_binomial import negative_binomial_log_prob
from bslfast.reference.normal import (
    normal_kl,
    normal_rsample,
    normal_rsample_kl,
    normal_rsample_kl_many,
)
from bslfast.reference.normal_log_prob import normal_log_prob, normal_rsample_log_prob
from bslfast.reference.normal_mc_kl import normal_rsample_mc_kl
from bslfast.reference.planar import planar
from bslfast.reference.poisson import poisson_log_prob
from bslfast.reference.radial import radial
from bslfast.reference.rational_quadratic import rational_quadratic_spline
from bslfast.reference.relaxed_bernoulli import relaxed_bernoulli_rsample
from bslfast.reference.standard import standard_normal, standard_uniform
from bslfast.reference.student_t import student_t_log_prob, student_t_rsample
from bslfast.reference.von_mises import von_mises_log_prob

__all__ = [
    "affine_coupling",
    "bayes_linear",
    "bernoulli_kl",
    "bernoulli_log_prob",
    "bernstein_transform",
    "categorical_log_prob",
    "deep_sigmoidal_transform",
    "discretized_logistic_log_prob",
    "discretized_logistic_mixture_log_prob",
    "generalized_kl",
    "gumbel_log_prob",
    "gumbel_rsample",
    "gumbel_rsample_log_prob",
    "gumbel_softmax_rsample",
    "half_cauchy_kl",
    "half_cauchy_log_prob",
    "half_cauchy_rsample",
    "iwae_bound",
    "laplace_kl",
    "laplace_log_prob",
    "laplace_rsample",
    "laplace_rsample_log_prob",
    "leaky_relu_transform",
    "logistic_log_prob",
    "logistic_rsample",
    "logistic_rsample_log_prob",
    "lognormal_log_prob",
    "lognormal_rsample",
    "mixture_logistic_transform",
    "multivariate_normal_rsample_kl",
    "negative_binomial_log_prob",
    "normal_kl",
    "normal_log_prob",
    "normal_rsample",
    "normal_rsample_kl",
    "normal_rsample_kl_many",
    "normal_rsample_log_prob",
    "normal_rsample_mc_kl",
    "planar",
    "poisson_log_prob",
    "radial",
    "rational_quadratic_spline",
    "relaxed_bernoulli_rsample",
    "sigmoid_transform",
    "softplus_transform",
    "standard_normal",
    "standard_uniform",
    "student_t_log_prob",
    "student_t_rsample",
    "tanh_transform",
    "von_mises_log_prob",
]
