"""Likelihoods by their names."""

from __future__ import annotations

from collections.abc import Callable

from bslfast import _checks
from bslfast.likelihoods.base import Likelihood
from bslfast.likelihoods.continuous_bernoulli import ContinuousBernoulli
from bslfast.likelihoods.discrete import Bernoulli, Categorical, NegativeBinomial, Poisson
from bslfast.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture
from bslfast.likelihoods.location_scale import HeteroscedasticNormal, Laplace, Normal, StudentT

_MAKERS: dict[str, Callable[[int], Likelihood]] = {
    "normal": Normal,
    "heteroscedastic_normal": HeteroscedasticNormal,
    "categorical": Categorical,
    "laplace": Laplace,
    "student_t": StudentT,
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
}
NAMES = tuple(_MAKERS)


def get(likelihood: str | Likelihood, targets: int) -> Likelihood:
    """Return the likelihood of that name for ``targets`` targets (or classes).

    Args:
        likelihood: one of ``NAMES``, see :mod:`bslfast.likelihoods`; or a Likelihood for as many
            targets, which comes back as it is.
        targets: number of targets, or of classes for "categorical".

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> get("heteroscedastic_normal", 3).n_outputs(3)
        6
    """
    if isinstance(likelihood, Likelihood):
        if likelihood.targets not in (None, targets):
            raise ValueError(f"likelihood: expected one for {targets} targets, got {likelihood}")
        return likelihood
    return _MAKERS[_checks.choice("likelihood", likelihood, NAMES)](targets)
