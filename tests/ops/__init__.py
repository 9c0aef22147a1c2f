"""The table of ops. A new op gets every test of tests/functional/test_ops.py by its record."""

from __future__ import annotations

from ops import (
    affine_coupling,
    bernoulli,
    categorical,
    discretized_logistic,
    elementwise,
    gumbel_softmax,
    importance,
    normal,
    normal_log_prob,
    poisson,
    rank_one,
    rational_quadratic,
)
from ops.record import Case, OpRecord

RECORDS: list[OpRecord] = [
    *affine_coupling.RECORDS,
    *bernoulli.RECORDS,
    *categorical.RECORDS,
    *elementwise.RECORDS,
    *discretized_logistic.RECORDS,
    *gumbel_softmax.RECORDS,
    *importance.RECORDS,
    *normal.RECORDS,
    *normal_log_prob.RECORDS,
    *poisson.RECORDS,
    *rank_one.RECORDS,
    *rational_quadratic.RECORDS,
]
CASES = [Case(record, name) for record in RECORDS for name in record.variants]

__all__ = ["CASES", "RECORDS", "Case", "OpRecord"]
