"""Record of the importance-weighted bound.

``estimator="dreg"`` has a gradient that is not that of its value, as the generated tests expect;
tests/functional/test_importance.py has it.
"""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(samples: int, dim: int = -1) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        full = (*shape, samples) if dim == -1 else (samples, *shape)
        return Call({"log_weights": draw.normal(full, mean=-2.0, std=2.0)}, {"dim": dim})

    return Variant(inputs)


RECORDS = [
    OpRecord(
        "iwae_bound",
        {
            "last": _variant(6),
            "first": _variant(6, 0),
            "one_sample": _variant(1),
            "one_sample-first": _variant(1, 0),
            "many_samples": _variant(65),
            "many_samples-first": _variant(65, 0),
        },
        tolerance={torch.float32: Tolerance(4, 4), torch.float64: Tolerance(4, 4)},
        extremes=[
            Extreme("equal", {"log_weights": [-300.0, -300.0, -300.0]}),
            Extreme("one_counts", {"log_weights": [100.0, 0.0, -100.0]}),
            Extreme("huge", {"log_weights": [1e30, -1e30, 1e29]}),
            Extreme("one_is_zero", {"log_weights": [0.5, -INF, 0.5]}),
            Extreme(
                "all_are_zero",
                {"log_weights": [-INF, -INF]},
                no_gradient=(0, 1),
            ),
            Extreme(
                "infinite",
                {"log_weights": [INF, 0.0, -INF]},
                no_gradient=(0, 1, 2),
            ),
            Extreme("nan", {"log_weights": [0.0, NAN, 0.5]}),
        ],
        errors=[
            Error(
                "a_number",
                {"log_weights": torch.tensor(0.0)},
                ValueError,
                r"^dim: expected a dimension of log_weights, which has 0, got -1",
            ),
            Error("dim", {"dim": 3}, ValueError, r"^dim: .* which has 3, got 3"),
            Error("dim_float", {"dim": 0.0}, TypeError, r"^dim: expected an int, got 0\.0"),
            Error("dim_bool", {"dim": True}, TypeError, r"^dim: expected an int, got True"),
            Error("dim_none", {"dim": None}, TypeError, r"^dim: expected an int, got None"),
            Error(
                "no_samples",
                {"log_weights": torch.ones(3, 0)},
                ValueError,
                r"^log_weights: expected at least one sample on dimension -1, .*\[3, 0\]",
            ),
            Error(
                "unknown_estimator",
                {"estimator": "stl"},
                ValueError,
                r"^estimator: expected one of 'iwae', 'dreg', got 'stl'",
            ),
        ],
    ),
]
