"""Record of the Poisson log probability."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(
    reduction: str, *, layout: str = "full", counts: bool = False, top: float = 12.0
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        log_rate = draw.normal(shape[-1:] if layout == "row" else shape, mean=1.0)
        x_shape = {"wide": (2, *shape), "column": (*shape[:-1], 1)}.get(layout, shape)
        x = draw.uniform(x_shape, 0.1, top)
        if counts:  # from 1 on: finite differences at 0 would take negative counts
            x = x.ceil()
        return Call({"log_rate": log_rate, "x": x}, {"reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extreme(name: str, log_rate: list[float], x: float, no_gradient: tuple[int, ...]) -> Extreme:
    return Extreme(
        name,
        {"log_rate": log_rate, "x": [x] * len(log_rate)},
        {"reduction": "none"},
        no_gradient=no_gradient,
    )


_LOG_RATES = [-1e30, -200.0, -30.0, -1e-8, 0.0, 1e-8, 0.25, 2.5, 20.0, 80.0, -INF, INF, NAN]

RECORDS = [
    OpRecord(
        "poisson_log_prob",
        {
            "row": _variant("row"),
            "row-counts": _variant("row", counts=True),
            "none": _variant("none"),
            "none-few": _variant("none", top=3.5),
            "sum-wide_x": _variant("sum", layout="wide"),
            "row-row_log_rate": _variant("row", layout="row"),
            "none-column_x": _variant("none", layout="column"),
        },
        tolerance={torch.float32: Tolerance(8, 8), torch.float64: Tolerance(8, 8)},
        extremes=[
            # At l = -inf the derivative by x is -inf, and the reference's is NaN.
            *(
                _extreme(f"x-{x}", _LOG_RATES, x, no_gradient=(10, 11, 12))
                for x in (0.0, 1e-30, 0.5, 1.0, 2.0, 3.0, 9.5, 40.0)
            ),
            # Rates that are infinite but have finite logarithms, up to the largest of float32.
            Extreme(
                "large",
                {
                    "log_rate": [2e3, 65504.0, 65504.0, 1e20, 3e38, 200.0, -3e38],
                    "x": [1.0, 0.0, 50.0, 1e20, 2.0, 3e38, 1e-30],
                },
                {"reduction": "none"},
            ),
            Extreme(
                "infinite-x",
                {"log_rate": [0.5, 0.5, -INF], "x": [INF, NAN, INF]},
                {"reduction": "none"},
                results=[[-INF, NAN, -INF]],
                no_gradient=(0, 1, 2),
            ),
        ],
        errors=[
            Error(
                "shapes",
                {"log_rate": torch.ones(3), "x": torch.ones(4)},
                ValueError,
                r"^x: .*\[3\].*\[4\]",
            ),
            Error(
                "negative_count",
                {"log_rate": torch.zeros(3), "x": torch.tensor([1.0, -2.0, 0.0])},
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
                {"log_rate": torch.tensor(0.0), "x": torch.tensor(1.0), "reduction": "row"},
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
