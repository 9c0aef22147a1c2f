"""The table of ops. A new op gets every test of tests/functional/every_op by its record."""

from __future__ import annotations

from dataclasses import replace

from ops import (
    affine_coupling,
    bernoulli,
    bernstein,
    categorical,
    deep_sigmoidal,
    discrete_kl,
    discretized_logistic,
    discretized_logistic_mixture,
    elementwise,
    gumbel_softmax,
    iwae_bound,
    location_scale,
    mixture_logistic,
    multivariate_normal,
    negative_binomial,
    normal,
    normal_log_prob,
    normal_mc_kl,
    planar,
    poisson,
    positive,
    radial,
    rational_quadratic,
    relaxed_bernoulli,
    scale_kl,
    student_t,
    von_mises,
)
from ops.record import Call, Case, Draw, OpRecord, Shape


def _with_one_sample(record: OpRecord) -> OpRecord:
    """Add a sample shape of one to a random op: a dimension that its arguments do not have."""
    if not record.random:
        return record
    name, first = next(iter(record.variants.items()))

    def inputs(draw: Draw, shape: Shape) -> Call:
        return first.inputs(draw, shape).options_but(sample_shape=(1,))

    drawn = {f"{name}-one_sample": replace(first, inputs=inputs)}
    return replace(record, variants={**record.variants, **drawn})


RECORDS: list[OpRecord] = list(
    map(
        _with_one_sample,
        [
            *affine_coupling.RECORDS,
            *bernoulli.RECORDS,
            *bernstein.RECORDS,
            *categorical.RECORDS,
            *deep_sigmoidal.RECORDS,
            *discrete_kl.RECORDS,
            *discretized_logistic.RECORDS,
            *discretized_logistic_mixture.RECORDS,
            *elementwise.RECORDS,
            *gumbel_softmax.RECORDS,
            *iwae_bound.RECORDS,
            *location_scale.RECORDS,
            *mixture_logistic.RECORDS,
            *multivariate_normal.RECORDS,
            *negative_binomial.RECORDS,
            *normal.RECORDS,
            *normal_log_prob.RECORDS,
            *normal_mc_kl.RECORDS,
            *planar.RECORDS,
            *poisson.RECORDS,
            *positive.RECORDS,
            *radial.RECORDS,
            *rational_quadratic.RECORDS,
            *relaxed_bernoulli.RECORDS,
            *scale_kl.RECORDS,
            *student_t.RECORDS,
            *von_mises.RECORDS,
        ],
    )
)
CASES = [Case(record, name) for record in RECORDS for name in record.variants]

__all__ = ["CASES", "RECORDS", "Case", "OpRecord"]
