"""Likelihoods: what the outputs of a network mean.

A likelihood turns network outputs into log probabilities of the observed targets, and a set of
outputs (one for each sample of the weights) into a prediction with its uncertainty. Bayesian
networks and autoencoders share them. Each is a small ``nn.Module``; some have parameters of their
own, which train with the network when the likelihood is a submodule of the model.

============================== =================================================================
name                           class
============================== =================================================================
"normal"                       :class:`Normal`: noise learned, fixed or from the network
"heteroscedastic_normal"       :class:`HeteroscedasticNormal`: noise from the network
"laplace"                      :class:`Laplace`
"student_t"                    :class:`StudentT`: degrees of freedom fixed or learned
"bernoulli"                    :class:`Bernoulli`: 0 and 1, or grey values between
"continuous_bernoulli"         :class:`ContinuousBernoulli`: numbers in [0, 1], with a density
"poisson"                      :class:`Poisson`: counts
"negative_binomial"            :class:`NegativeBinomial`: counts that vary more than Poisson ones
"discretized_logistic_mixture" :class:`DiscretizedLogisticMixture`: quantised values, as pixels
"categorical"                  :class:`Categorical`: class labels
============================== =================================================================

What the network gives for each target (locs and raw scales, say) stands side by side on the first
dimension after the batch: outputs [..., batch, 2 * targets] for targets [batch, targets], images
[..., batch, 2 * channels, height, width] for [batch, channels, height, width].

Log probabilities of 16-bit outputs are computed in float32, and are float32. Under autocast, as
with torch's losses, targets may be float32 where outputs have 16 bits.
"""

from bslfast.likelihoods import lowering as lowering  # registers what becomes a program
from bslfast.likelihoods.base import Likelihood, Predictive
from bslfast.likelihoods.continuous_bernoulli import ContinuousBernoulli
from bslfast.likelihoods.discrete import Bernoulli, Categorical, NegativeBinomial, Poisson
from bslfast.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture
from bslfast.likelihoods.location_scale import (
    MIN_SCALE,
    HeteroscedasticNormal,
    Laplace,
    Normal,
    StudentT,
)
from bslfast.likelihoods.names import NAMES, get

__all__ = [
    "MIN_SCALE",
    "NAMES",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogisticMixture",
    "HeteroscedasticNormal",
    "Laplace",
    "Likelihood",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "Predictive",
    "StudentT",
    "get",
]
