"""Records of the affine coupling family."""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(
    scale_fn: str, *, inverse: bool = False, layout: str = "full", reduction: str = "none"
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        wide = (2, *shape) if layout == "wide" else shape
        shapes = {
            "x": (*shape[:-1], 1) if layout == "column" else shape,
            "shift": shape[-1:] if layout in ("row", "column") else wide,
            "raw_scale": shape[-1:] if layout == "row" else wide,
        }
        options: dict[str, Any] = {
            "scale_fn": scale_fn,
            "inverse": inverse,
            "reduction": reduction,
        }
        return Call({name: draw.normal(s) for name, s in shapes.items()}, options)

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extremes() -> list[Extreme]:
    # exp(-100) is subnormal in float32, and exp(100) overflows.
    points = {
        "tanh": [-INF, -1e30, -100.0, -1e-8, 0.0, 1e-8, 20.0, 1e30, INF],
        "exp": [-1e30, -200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 40.0, 80.0],
        "sigmoid": [-200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 20.0, 1e30, INF],
    }
    result = []
    for scale_fn, raw in points.items():
        for inverse in (False, True):
            kept = [
                # The inverse gets -r with exp, and no r < -80 with sigmoid: else it would overflow.
                -r if inverse and scale_fn == "exp" else r
                for r in raw
                if not (inverse and scale_fn == "sigmoid" and r < -80)
            ]
            tensors = {
                "x": [0.5 * (-1) ** i for i in range(len(kept))],
                "shift": [0.25] * len(kept),
                "raw_scale": kept,
            }
            options = {"scale_fn": scale_fn, "inverse": inverse, "reduction": "none"}
            name = f"{scale_fn}-{'inverse' if inverse else 'forward'}"
            result.append(Extreme(name, tensors, options))
    return result


_ERRORS = [
    Error(
        "shapes",
        {"x": torch.ones(3), "shift": torch.ones(4)},
        ValueError,
        r"^shift: .*\[3\].*\[4\]",
    ),
    Error(
        "unknown_scale_fn",
        {"scale_fn": "softplus"},
        ValueError,
        r"^scale_fn: expected one of 'tanh', 'exp', 'sigmoid', got 'softplus'",
    ),
    Error("scale_fn_none", {"scale_fn": None}, ValueError, r"^scale_fn: .*None"),
    Error("inverse_text", {"inverse": "yes"}, TypeError, r"^inverse: expected a bool, got 'yes'"),
    Error("inverse_number", {"inverse": 1}, TypeError, r"^inverse: expected a bool, got 1"),
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
            "shift": torch.tensor(0.0),
            "raw_scale": torch.tensor(1.0),
            "reduction": "row",
        },
        ValueError,
        r"^reduction: ",
    ),
]

RECORDS = [
    OpRecord(
        "affine_coupling",
        {
            "tanh-row": _variant("tanh", reduction="row"),
            "tanh-inverse-sum": _variant("tanh", inverse=True, reduction="sum"),
            "exp-none-column_x": _variant("exp", layout="column"),
            "exp-inverse-row-row_parameters": _variant(
                "exp", inverse=True, layout="row", reduction="row"
            ),
            "sigmoid-sum-row_parameters": _variant("sigmoid", layout="row", reduction="sum"),
            "sigmoid-inverse-row-wide_parameters": _variant(
                "sigmoid", inverse=True, layout="wide", reduction="row"
            ),
        },
        tolerance={torch.float32: Tolerance(16, 16), torch.float64: Tolerance(16, 16)},
        extremes=_extremes(),
        errors=_ERRORS,
    )
]
