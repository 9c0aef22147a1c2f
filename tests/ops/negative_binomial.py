"""Record of the negative binomial log probability."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(
    reduction: str,
    *,
    layout: str = "full",
    counts: bool = False,
    top: float = 12.0,
    log_total_count: float = 0.5,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        total_shape = {"number": (), "row": shape[-1:]}.get(layout, shape)
        tensors = {
            "log_rate": draw.normal(shape, mean=1.0),
            "log_total_count": draw.normal(total_shape, mean=log_total_count),
        }
        x = draw.uniform((2, *shape) if layout == "wide" else shape, 0.1, top)
        if counts:  # not 0, beside which finite differences would look
            x = x.ceil()
        return Call({**tensors, "x": x}, {"reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


_LOG_RATES = [-200.0, -30.0, -1e-8, 0.0, 0.25, 2.5, 20.0, 60.0, INF, NAN]


def _extreme(log_total_count: float, x: float) -> Extreme:
    n = len(_LOG_RATES)
    return Extreme(
        f"x-{x}-log_total_count-{log_total_count}",
        {"log_rate": _LOG_RATES, "log_total_count": [log_total_count] * n, "x": [x] * n},
        {"reduction": "none"},
        no_gradient=(8, 9),
    )


RECORDS = [
    OpRecord(
        "negative_binomial_log_prob",
        {
            "row": _variant("row"),
            "row-counts-many": _variant("row", counts=True, log_total_count=9.0),
            "none-few": _variant("none", top=3.5, log_total_count=-1.0),
            "sum-wide_x": _variant("sum", layout="wide"),
            "none-number": _variant("none", layout="number"),
            "row-row_log_total_count": _variant("row", layout="row"),
        },
        tolerance={torch.float32: Tolerance(8, 16), torch.float64: Tolerance(8, 16)},
        extremes=[_extreme(t, x) for t in (-100.0, 2.0, 30.0, 300.0) for x in (0.0, 0.5, 40.0)],
        errors=[
            Error(
                "shapes",
                {
                    "log_rate": torch.ones(3),
                    "log_total_count": torch.ones(3),
                    "x": torch.ones(4),
                },
                ValueError,
                r"^x: .*\[3\].*\[4\]",
            ),
            Error(
                "negative_count",
                {
                    "log_rate": torch.zeros(3),
                    "log_total_count": torch.zeros(3),
                    "x": torch.tensor([1.0, -2.0, 0.0]),
                },
                ValueError,
                r"^x: expected counts >= 0, got -2",
            ),
            Error(
                "unknown_reduction",
                {"reduction": "mean"},
                ValueError,
                r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
            ),
            Error(
                "row_of_a_number",
                {
                    "log_rate": torch.tensor(0.0),
                    "log_total_count": torch.tensor(0.0),
                    "x": torch.tensor(1.0),
                    "reduction": "row",
                },
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
