"""Fused differentiable ops, the ground that layers, flows and VAEs stand on.

bfloat16 and float16 arguments are computed with in float32. Values (samples, transformed x) are
rounded to the dtype of the arguments; logarithms (log densities, divergences, log-determinants,
bounds) are float32. Under autocast 16-bit arguments count as float32 ones, and may be mixed with
them.

>>> import torch, bslfast.functional as BF
>>> loc, raw_scale = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
>>> sample, kl = BF.normal_rsample_kl(loc, raw_scale, seed=0)
>>> (sample.sum() + kl).backward()
>>> loc.grad
tensor([1., 1., 1.])
"""

from bslfast.functional._op import use_reference
from bslfast.functional.affine_coupling import affine_coupling
from bslfast.functional.bayes_linear import bayes_linear
from bslfast.functional.bernoulli import bernoulli_kl, bernoulli_log_prob
from bslfast.functional.bernstein import bernstein_transform
from bslfast.functional.categorical import categorical_log_prob
from bslfast.functional.deep_sigmoidal import deep_sigmoidal_transform
from bslfast.functional.discretized_logistic import discretized_logistic_log_prob
from bslfast.functional.discretized_logistic_mixture import (
    discretized_logistic_mixture_log_prob,
)
from bslfast.functional.elementwise import (
    leaky_relu_transform,
    sigmoid_transform,
    softplus_transform,
    tanh_transform,
)
from bslfast.functional.generalized_kl import generalized_kl
from bslfast.functional.gumbel import gumbel_log_prob, gumbel_rsample, gumbel_rsample_log_prob
from bslfast.functional.gumbel_softmax import gumbel_softmax_rsample
from bslfast.functional.half_cauchy import half_cauchy_kl, half_cauchy_log_prob, half_cauchy_rsample
from bslfast.functional.iwae_bound import iwae_bound
from bslfast.functional.laplace import (
    laplace_kl,
    laplace_log_prob,
    laplace_rsample,
    laplace_rsample_log_prob,
)
from bslfast.functional.logistic import (
    logistic_log_prob,
    logistic_rsample,
    logistic_rsample_log_prob,
)
from bslfast.functional.lognormal import lognormal_log_prob, lognormal_rsample
from bslfast.functional.mixture_logistic import mixture_logistic_transform
from bslfast.functional.multivariate_normal import multivariate_normal_rsample_kl
from bslfast.functional.negative_binomial import negative_binomial_log_prob
from bslfast.functional.normal import normal_kl, normal_rsample, normal_rsample_kl
from bslfast.functional.normal_log_prob import normal_log_prob, normal_rsample_log_prob
from bslfast.functional.normal_many import normal_rsample_kl_many
from bslfast.functional.normal_mc_kl import normal_rsample_mc_kl
from bslfast.functional.planar import planar
from bslfast.functional.poisson import poisson_log_prob
from bslfast.functional.radial import radial
from bslfast.functional.rational_quadratic import rational_quadratic_spline
from bslfast.functional.relaxed_bernoulli import relaxed_bernoulli_rsample
from bslfast.functional.standard import standard_normal, standard_uniform
from bslfast.functional.student_t import student_t_log_prob, student_t_rsample
from bslfast.functional.von_mises import von_mises_log_prob

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
    "use_reference",
    "von_mises_log_prob",
]
