"""Classes of ``torch.distributions`` that draw and evaluate by the fused ops.

Each is a subclass of torch's own class of that name (torch has no logistic one), so whatever takes
one of those takes these: ``Independent``, ``TransformedDistribution``, ``MixtureSameFamily``,
``kl_divergence``. Pyro wants methods of its own: :func:`bslfast.patch.pyro` adds them.

>>> import torch
>>> from bslfast.distributions import Normal, kl_divergence
>>> raw_scale = torch.zeros(3, requires_grad=True)
>>> q = Normal.from_softplus(torch.zeros(3), raw_scale)
>>> kl_divergence(q, Normal(torch.zeros(3), torch.ones(3))).sum().backward()
>>> raw_scale.grad
tensor([-0.3748, -0.3748, -0.3748])
"""

from torch.distributions import kl_divergence
from torch.distributions.kl import register_kl

from bslfast.distributions.discrete import Bernoulli, Categorical, NegativeBinomial, Poisson
from bslfast.distributions.laplace import Laplace
from bslfast.distributions.location_scale import LocationScale, RawScale
from bslfast.distributions.logistic import Logistic
from bslfast.distributions.multivariate import LowRankMultivariateNormal, MultivariateNormal
from bslfast.distributions.normal import Normal
from bslfast.distributions.relaxed import (
    OneHotCategoricalStraightThrough,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
)
from bslfast.distributions.student_t import StudentT
from bslfast.distributions.transformed import Gumbel, HalfCauchy, LogNormal
from bslfast.distributions.von_mises import VonMises

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gumbel",
    "HalfCauchy",
    "Laplace",
    "LocationScale",
    "LogNormal",
    "Logistic",
    "LowRankMultivariateNormal",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategoricalStraightThrough",
    "Poisson",
    "RawScale",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "StudentT",
    "VonMises",
    "kl_divergence",
    "register_kl",
]
