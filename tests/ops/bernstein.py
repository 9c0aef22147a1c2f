"""Record of the map by Bernstein polynomials."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF = math.inf


def _variant(
    reduction: str,
    *,
    degree: int = 3,
    bound: float = 3.0,
    inverse: bool = False,
    layout: str = "full",
) -> Variant:
    # The map is about the identity.
    mean = math.log(math.expm1(2 * bound / degree))

    def inputs(draw: Draw, shape: Shape) -> Call:
        leading = shape[-1:] if layout == "row" else (2, *shape) if layout == "wide" else shape
        raw = draw.normal((*leading, degree + 1), mean=mean)
        raw[..., 0] += -bound - mean
        return Call(
            {
                # A quarter of x lies outside.
                "x": draw.normal(
                    (*shape[:-1], 1) if layout == "column" and shape else shape, std=0.8 * bound
                ),
                "raw_coefficients": raw,
            },
            {"bound": bound, "inverse": inverse, "reduction": reduction},
        )

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extremes() -> list[Extreme]:
    result = []
    rows = {
        # Steps that float32 does not hold: all steps, at either end, between others.
        "small": [0.0, -90.0, -110.0, -100.0],
        "small_first": [-1.0, -100.0, 0.5, 0.0],
        "small_last": [-1.0, 0.5, 0.0, -100.0],
        "small_between": [-1.0, 1.0, -100.0, -100.0, -60.0, 0.5],
        "around_the_square": [0.5, -33.9, -34.1, -34.0],
        "large": [-50.0, 100.0, 3.0, 90.0],
        "far_off": [1e4, 1.0, 2.0, 3.0],
    }
    for name, row in rows.items():
        # The ends x = -bound and x = bound are among the points.
        x = [-1e6, -100.0, -2.5, -2.0, -1.99, -1.0, -1e-3, 0.0, 0.5, 1.5, 1.999, 2.0, 3.0, 1e4]
        tensors = {"x": x, "raw_coefficients": [row] * len(x)}
        result.append(Extreme(name, tensors, {"reduction": "none", "bound": 2.0}))
    # Points outside, at the ends and inside.
    back = {
        "x": [-40.0, -3.0, -2.9, -0.5, 0.0, 0.5, 4.0, 1e5],
        "raw_coefficients": [[-3.0, 1.0, -5.0, 2.0, 0.5]] * 8,
    }
    result.append(Extreme("inverse", back, {"reduction": "none", "inverse": True}))
    return result


RECORDS = [
    OpRecord(
        "bernstein_transform",
        {
            "row": _variant("row"),
            "none-degree_1": _variant("none", degree=1),
            "none-degree_16": _variant("none", degree=16),
            "sum-row_coefficients": _variant("sum", layout="row", bound=0.7),
            "row-wide_coefficients": _variant("row", layout="wide"),
            "inverse-row": _variant("row", inverse=True),
            "inverse-none-degree_2": _variant("none", degree=2, inverse=True, bound=10.0),
            "inverse-sum-column_x": _variant("sum", inverse=True, layout="column"),
        },
        # y and the slope determine the inverse's x only to this.
        tolerance={torch.float32: Tolerance(16, 512), torch.float64: Tolerance(16, 512)},
        extremes=_extremes(),
        errors=[
            Error(
                "one_coefficient",
                {"raw_coefficients": torch.ones(2, 3, 1)},
                ValueError,
                r"^raw_coefficients: expected 2 to 64 coefficients in the last dimension, got 1",
            ),
            Error(
                "too_many",
                {"raw_coefficients": torch.ones(2, 3, 65)},
                ValueError,
                r"^raw_coefficients: expected 2 to 64 coefficients in the last dimension, got 65",
            ),
            Error(
                "a_number",
                {"raw_coefficients": torch.tensor(1.0)},
                ValueError,
                r"^raw_coefficients: expected shape \[\.\.\., coefficients\], got \[\]",
            ),
            Error(
                "shapes",
                {"raw_coefficients": torch.ones(4, 3, 2)},
                ValueError,
                r"^raw_coefficients: expected leading dimensions .*\[2, 3\], got \[4, 3\]",
            ),
            Error("bound_0", {"bound": 0.0}, ValueError, r"^bound: .*above 0, got 0\.0"),
            Error("bound_inf", {"bound": INF}, ValueError, r"^bound: .*finite number above 0"),
            Error("bound_text", {"bound": "3"}, TypeError, r"^bound: expected a finite number"),
            Error("inverse_text", {"inverse": "yes"}, TypeError, r"^inverse: .*got 'yes'"),
            Error(
                "unknown_reduction",
                {"reduction": "mean"},
                ValueError,
                r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
            ),
            Error(
                "row_of_a_number",
                {"x": torch.tensor(0.0), "raw_coefficients": torch.zeros(2)},
                ValueError,
                r"^reduction: 'row' sums over the last dimension",
            ),
        ],
    )
]
