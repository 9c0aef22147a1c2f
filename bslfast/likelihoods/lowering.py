"""What steps of a program likelihoods stand for: (builder, likelihood, outputs, targets)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.likelihoods.base import Likelihood
from bslfast.likelihoods.discrete import Bernoulli, Categorical, NegativeBinomial, Poisson
from bslfast.likelihoods.location_scale import MIN_SCALE, Laplace, Normal, StudentT, _LocationScale
from bslfast.programs import Builder, CannotLower, Lanes, lowers
from bslfast.programs.networks import activated, constant


def in_rows(likelihood: Likelihood, y: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Targets as a program's context, [rows, numbers]; None if they do not have such a shape."""
    if isinstance(likelihood, Categorical):
        return y.to(dtype).unsqueeze(1) if y.dtype is torch.int64 and y.ndim == 1 else None
    return y if y.ndim == 2 and likelihood.targets in (None, y.shape[1]) else None


@lowers(Normal, Laplace, StudentT)
def _location_scale(
    builder: Builder, likelihood: _LocationScale, outputs: Lanes, targets: Lanes
) -> None:
    builder.looked_at(likelihood, "targets", "scale_from", "parametrization")
    count = len(targets)
    parametrization = "scale"
    if isinstance(likelihood.scale_from, float):
        scale = builder.step("constant", [], 1, numbers=[likelihood.scale_from]) * count
    else:
        if likelihood.scale_from == "outputs":
            raw = outputs[count:]
        else:
            raw = constant(builder, likelihood.raw_scale)
        if likelihood.parametrization == "softplus":
            scale = activated(builder, "softplus", raw, MIN_SCALE)
        else:
            scale, parametrization = raw, likelihood.parametrization
        if likelihood.scale_from == "learned" and likelihood.targets is None:
            scale = scale * count  # targets of any shape share one
    inputs = [*targets, *_df(builder, likelihood, count), *outputs[:count], *scale]
    if len(outputs) != len(likelihood.parts) * count or len(scale) != count:
        raise CannotLower("the likelihood is of another number of targets")
    builder.step(_kind(likelihood), inputs, 0, options=[PARAMETRIZATIONS.index(parametrization)])


def _df(builder: Builder, likelihood: _LocationScale, count: int) -> Lanes:
    """The degrees of freedom of each target."""
    if not isinstance(likelihood, StudentT):
        return []
    builder.looked_at(likelihood, "learn_df", "init_df")
    if likelihood.learn_df:
        return activated(builder, "softplus", constant(builder, likelihood.raw_df)) * count
    return builder.step("constant", [], 1, numbers=[likelihood.init_df]) * count


_KINDS: dict[type, str] = {
    Normal: "normal_log_prob",
    Laplace: "laplace_log_prob",
    StudentT: "student_t_log_prob",
    Bernoulli: "bernoulli_log_prob",
    Poisson: "poisson_log_prob",
    NegativeBinomial: "negative_binomial_log_prob",
}


def _kind(likelihood: Likelihood) -> str:
    return next(_KINDS[c] for c in type(likelihood).__mro__ if c in _KINDS)


@lowers(Bernoulli, Poisson)
def _of_outputs(builder: Builder, likelihood: Likelihood, outputs: Lanes, targets: Lanes) -> None:
    builder.looked_at(likelihood, "targets")
    if len(outputs) != len(targets):
        raise CannotLower("the likelihood is of another number of targets")
    builder.step(_kind(likelihood), outputs + targets, 0, options=[0])


@lowers(NegativeBinomial)
def _negative_binomial(
    builder: Builder, likelihood: NegativeBinomial, outputs: Lanes, targets: Lanes
) -> None:
    builder.looked_at(likelihood, "targets", "total_count_from")
    count = len(targets)
    total: Lanes
    if likelihood.total_count_from == "outputs":
        total = outputs[count:]
    elif isinstance(likelihood.total_count_from, float):
        log_total = math.log(likelihood.total_count_from)
        total = builder.step("constant", [], 1, numbers=[log_total]) * count
    else:
        total = constant(builder, likelihood.log_total_count)
        if likelihood.targets is None:
            total = total * count  # targets of any shape share one
    if len(outputs) != len(likelihood.parts) * count or len(total) != count:
        raise CannotLower("the likelihood is of another number of targets")
    builder.step(_kind(likelihood), [*outputs[:count], *total, *targets], 0, options=[0])


@lowers(Categorical)
def _categorical(builder: Builder, likelihood: Categorical, outputs: Lanes, label: Lanes) -> None:
    builder.looked_at(likelihood, "classes")
    if len(outputs) != likelihood.classes:
        raise CannotLower("the likelihood is of another number of classes")
    builder.step("categorical_log_prob", label + outputs, 0)
