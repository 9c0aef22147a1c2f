"""Records of the elementwise maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf
# Ranges of the inverses' arguments; None: all numbers.
RANGES = {
    "leaky_relu_transform": None,
    "tanh_transform": (-0.9, 0.9),
    "sigmoid_transform": (0.05, 0.95),
    "softplus_transform": (0.05, 4.0),
}


def _variant(name: str, reduction: str, **options: Any) -> Variant:
    between = RANGES[name] if options.get("inverse") else None

    def inputs(draw: Draw, shape: Shape) -> Call:
        x = draw.uniform(shape, *between) if between else draw.normal(shape, std=2.0)
        return Call({"x": x}, {**options, "reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extreme(name: str, x: Sequence[float], inverse: bool = False, **more: Any) -> Extreme:
    return Extreme(name, {"x": x}, {"inverse": inverse, "reduction": "none"}, **more)


_SMALL = [-0.0, 0.0, 1e-38, -1e-20, 1e-8, -1e-3]
# The last numbers before 1 and the least above 0, in float32 and, where it has them, float64.
_INSIDE = [1e-30, 1e-8, 0.01, 0.2499, 0.25, 0.2501, 0.4999, 0.5, 0.5001, 0.75, 1 - 2**-24]
_EXTREMES = {
    "leaky_relu_transform": [
        _extreme("forward", [*_SMALL, -1e30, 1e30, INF, -INF]),
        _extreme("inverse", [*_SMALL, -1e30, 1e30, INF, -INF], inverse=True),
        _extreme("nan", [NAN, 1.0], no_gradient=(0,)),
    ],
    "tanh_transform": [
        _extreme("forward", [*_SMALL, 0.53, -0.54, 0.55, -9.1, 20.0, -50.0, 1e3, 1e30, INF, -INF]),
        _extreme("inverse", [*_SMALL, *_INSIDE, *(-y for y in _INSIDE)], inverse=True),
        _extreme("inverse-ends", [1.0, -1.0], inverse=True, no_gradient=(0, 1)),
        _extreme("inverse-outside", [1.0001, -1.0001, 3.0, -INF, INF, NAN], inverse=True),
        _extreme("nan", [NAN, 1.0]),
    ],
    "sigmoid_transform": [
        _extreme("forward", [*_SMALL, -17.5, 17.5, -88.0, 88.0, -104.0, 1e3, -1e30, INF, -INF]),
        _extreme("inverse", [*_INSIDE, 1e-38], inverse=True),
        _extreme("inverse-ends", [0.0, 1.0], inverse=True, no_gradient=(0, 1)),
        _extreme("inverse-outside", [-1e-30, 1.0001, 3.0, -INF, INF, NAN], inverse=True),
        _extreme("nan", [NAN, 1.0]),
    ],
    "softplus_transform": [
        _extreme("forward", [*_SMALL, -17.5, 17.5, -88.0, 88.0, -104.0, 1e3, -1e30, 1e30]),
        _extreme("infinite", [INF, -INF]),
        _extreme("inverse", [1e-38, *_INSIDE, 1.39, 1.41, 17.0, 90.0, 1e3, 1e30], inverse=True),
        _extreme("inverse-ends", [0.0, INF], inverse=True, no_gradient=(0,)),
        _extreme("inverse-outside", [-1e-30, -3.0, -INF, NAN], inverse=True),
        _extreme("nan", [NAN, 1.0]),
    ],
}
_ERRORS = [
    Error("inverse_number", {"inverse": 1}, TypeError, r"^inverse: expected a bool, got 1"),
    Error(
        "unknown_reduction",
        {"reduction": "mean"},
        ValueError,
        r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
    ),
    Error(
        "row_of_a_number",
        {"x": torch.tensor(0.25), "reduction": "row"},
        ValueError,
        r"^reduction: ",
    ),
]
_SLOPE_ERRORS = [
    Error(f"slope_{value}", {"negative_slope": value}, error, r"^negative_slope: expected a finite")
    for value, error in ((0.0, ValueError), (-1, ValueError), (INF, ValueError), ("a", TypeError))
]


def _record(name: str) -> OpRecord:
    slope = name == "leaky_relu_transform"
    more: dict[str, Any] = {"negative_slope": 0.3} if slope else {}
    return OpRecord(
        name,
        {
            "row": _variant(name, "row"),
            "inverse-row": _variant(name, "row", inverse=True),
            "sum": _variant(name, "sum", **more),
            "inverse-none": _variant(name, "none", inverse=True, **more),
        },
        tolerance={torch.float32: Tolerance(8, 8), torch.float64: Tolerance(8, 8)},
        extremes=_EXTREMES[name],
        errors=[*_ERRORS, *(_SLOPE_ERRORS if slope else [])],
    )


RECORDS = [_record(name) for name in RANGES]
