"""Record of the discretised logistic log probability."""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(reduction: str, layout: str = "full", mean: float = -2.0, **options: Any) -> Variant:
    low, high = options.get("low", -1.0), options.get("high", 1.0)

    def inputs(draw: Draw, shape: Shape) -> Call:
        shapes = {"x": shape, "loc": shape, "raw_log_scale": shape}
        if layout == "row":
            shapes |= {"loc": shape[-1:], "raw_log_scale": shape[-1:]}
        elif layout == "column":
            shapes |= {"x": (*shape[:-1], 1)}
        elif layout == "wide":
            shapes |= {"x": (2, *shape)}
        elif layout == "scalar":
            shapes |= {"raw_log_scale": ()}
        width = high - low
        tensors = {
            # A little beyond both ends, where the outermost bins still reach.
            "x": draw.uniform(shapes["x"], low - 0.01 * width, high + 0.01 * width),
            "loc": draw.normal(shapes["loc"], mean=0.5 * (low + high), std=0.2 * width),
            "raw_log_scale": draw.normal(shapes["raw_log_scale"], mean=mean, std=0.5),
        }
        return Call(tensors, {"reduction": reduction, **options})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


_RAW = [-20.0, -12.0, -7.0, -5.0, -4.5, 0.0, 5.0, 15.0, 30.0, 80.0]
_NONE = {"reduction": "none"}


def _extreme(name: str, x: float, loc: float) -> Extreme:
    n = len(_RAW)
    return Extreme(name, {"x": [x] * n, "loc": [loc] * n, "raw_log_scale": _RAW}, _NONE)


RECORDS = [
    OpRecord(
        "discretized_logistic_log_prob",
        {
            "row": _variant("row"),
            "none": _variant("none"),
            "none-wide_scales": _variant("none", mean=2.0),
            "none-narrow_scales": _variant("none", mean=-4.5),
            "none-two_bins": _variant("none", bins=2),
            "row-bytes": _variant("row", low=0.0, high=255.0, mean=2.0),
            "row-wide_x": _variant("row", "wide"),
            "sum-column_x": _variant("sum", "column"),
            "row-row_parameters": _variant("row", "row"),
            "row-scalar_scale": _variant("row", "scalar"),
        },
        tolerance={torch.float32: Tolerance(16, 32), torch.float64: Tolerance(16, 32)},
        extremes=[
            _extreme("inside", 0.25, 0.25),
            _extreme("beside", 0.25, 0.375),
            _extreme("other_side", 0.25, -0.5),
            _extreme("first", -1.0, 0.25),
            _extreme("last", 1.0, 0.25),
            _extreme("first-certain", -1.0, -1.5),
            _extreme("last-certain", 1.0, 1.5),
            Extreme(
                "tails",
                {
                    "x": [0.25, 0.25, 0.25, 0.25],
                    "loc": [0.25, 0.25, 0.75, 0.75],
                    "raw_log_scale": [-100.0, 100.0, 100.0, -60.0],
                },
                _NONE,
                no_gradient=(0,),
            ),
            Extreme(
                "special",
                {
                    "x": [INF, -INF, NAN, 0.25, 0.25, 0.25, 0.25],
                    "loc": [0.0, 0.0, 0.0, INF, -INF, NAN, 0.25],
                    "raw_log_scale": [-2.0, -2.0, -2.0, -2.0, -2.0, -2.0, NAN],
                },
                _NONE,
                results=[[-INF, -INF, NAN, -INF, -INF, NAN, NAN]],
                no_gradient=tuple(range(7)),
            ),
        ],
        errors=[
            Error("shapes", {"loc": torch.ones(4)}, ValueError, r"^loc: .*\[2, 3\].*\[4\]"),
            Error(
                "scale_shape",
                {"raw_log_scale": torch.ones(4)},
                ValueError,
                r"^raw_log_scale: .*\[2, 3\].*\[4\]",
            ),
            Error("bins_one", {"bins": 1}, ValueError, r"^bins: .*at least 2, got 1"),
            Error("bins_float", {"bins": 256.0}, TypeError, r"^bins: expected an integer"),
            Error("low_text", {"low": "0"}, TypeError, r"^low: expected a finite number"),
            Error(
                "high_below_low",
                {"low": 1.0, "high": 0.0},
                ValueError,
                r"^high: expected a finite number above 1, got 0\.0",
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
                    "x": torch.tensor(0.0),
                    "loc": torch.tensor(0.0),
                    "raw_log_scale": torch.tensor(1.0),
                    "reduction": "row",
                },
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
