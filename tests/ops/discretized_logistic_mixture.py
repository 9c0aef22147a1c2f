"""Record of the discretised logistic mixture's log probability."""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF = math.inf


def _variant(
    reduction: str,
    *,
    components: int = 2,
    layout: str = "full",
    mean: float = -2.0,
    **options: Any,
) -> Variant:
    low, high = options.get("low", -1.0), options.get("high", 1.0)

    def inputs(draw: Draw, shape: Shape) -> Call:
        leading = shape[-1:] if layout == "row" else (2, *shape) if layout == "wide" else shape
        rows, width = (*leading, components), high - low
        of_x = (*shape[:-1], 1) if layout == "column" and shape else shape
        return Call(
            {
                # A little beyond both ends, where the outermost bins still reach.
                "x": draw.uniform(of_x, low - 0.01 * width, high + 0.01 * width),
                "logits": draw.normal(rows),
                "loc": draw.normal(rows, mean=0.5 * (low + high), std=0.2 * width),
                "raw_log_scale": draw.normal(rows, mean=mean, std=0.5),
            },
            {"reduction": reduction, **options},
        )

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


_NONE = {"reduction": "none"}
_X = [-1.0, -0.5, 0.25, 0.25, 1.0, 1.0]
_LOC = [[-1.5, 0.5], [0.25, -0.5], [0.25, 0.25], [0.5, 0.0], [1.5, 0.0], [0.0, 0.5]]


def _extreme(name: str, logits: list[float], raw: list[float]) -> Extreme:
    n = len(_X)
    return Extreme(
        name, {"x": _X, "logits": [logits] * n, "loc": _LOC, "raw_log_scale": [raw] * n}, _NONE
    )


_ONES = torch.ones

RECORDS = [
    OpRecord(
        "discretized_logistic_mixture_log_prob",
        {
            "row": _variant("row"),
            "none-six": _variant("none", components=6),
            "none-one_component": _variant("none", components=1),
            "none-narrow_scales": _variant("none", mean=-4.5),
            "row-bytes": _variant("row", low=0.0, high=255.0, mean=2.0),
            "sum-row_parameters": _variant("sum", layout="row"),
            "row-wide_parameters": _variant("row", layout="wide", bins=2),
            "row-column_x": _variant("row", layout="column"),
        },
        # A component's share is the exponential of its log probability, here down to -200, of which
        # every unit counts an eps. In float64 the oracle is off as well: by mpmath up to 95 eps for
        # gradients of narrow components, where the kernel is by 30.
        tolerance={torch.float32: Tolerance(32, 160), torch.float64: Tolerance(32, 256)},
        extremes=[
            _extreme("wide_and_narrow", [0.0, 0.5], [5.0, -5.0]),
            _extreme("narrow", [0.0, 0.5], [-7.0, -5.0]),
            _extreme("wide", [0.0, 0.5], [30.0, 80.0]),
            _extreme("certain", [1e30, -1e30], [-2.0, -2.0]),
            _extreme("left_out", [0.5, -INF], [-2.0, -2.0]),
            _extreme("far", [0.0, 0.5], [-100.0, -90.0]),
            _extreme("far_and_wide", [1e4, -1e4], [-200.0, -1.0]),
        ],
        errors=[
            Error(
                "loc_components",
                {"loc": _ONES(2, 3, 5)},
                ValueError,
                r"^loc: expected a last dimension of 2, as logits has, got 5",
            ),
            Error(
                "too_many_components",
                {"logits": _ONES(2, 3, 65)},
                ValueError,
                r"^logits: expected 1 to 64 components in the last dimension, got 65",
            ),
            Error(
                "a_number",
                {"raw_log_scale": torch.tensor(1.0)},
                ValueError,
                r"^raw_log_scale: expected shape \[\.\.\., components\], got \[\]",
            ),
            Error(
                "shapes",
                {"loc": _ONES(4, 3, 2)},
                ValueError,
                r"^loc: expected leading dimensions .*\[2, 3\], got \[4, 3\]",
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
        ],
    )
]
