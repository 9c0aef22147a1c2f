"""Records of rational-quadratic splines."""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF, NAN = math.inf, math.nan
SLOPES = {"linear": -1, "circular": 0, None: 1, "affine": 1}  # number of slopes less that of bins


def _variant(
    tails: str | None,
    *,
    bins: int = 2,
    inverse: bool = False,
    layout: str = "full",
    reduction: str = "none",
    bound: float = 3.0,
    **options: Any,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        # Most of x lies inside, in any bin; with linear tails some lie outside.
        limit = {"linear": 1.2, "circular": 2.5, None: 0.99, "affine": 1.5}[tails] * bound
        x = draw.uniform((*shape[:-1], 1) if layout == "column" and shape else shape, -limit, limit)
        leading = shape[-1:] if layout == "row" else (2, *shape) if layout == "wide" else shape
        # The element that tests change lies inside, next to the slope that they change.
        if x.numel():
            x.view(-1)[x.numel() // 2] = 0.99 * bound
        sizes = {"widths": bins, "heights": bins, "derivatives": bins + SLOPES[tails]}
        return Call(
            {"x": x, **{k: draw.normal((*leading, n)) for k, n in sizes.items()}},
            {"tails": tails, "inverse": inverse, "reduction": reduction, "bound": bound, **options},
        )

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _rows(n: int, row: list[float]) -> list[list[float]]:
    return [row] * n


def _extremes() -> list[Extreme]:
    result = []
    x = [-INF, -1e30, -3.5, -3.0, -2.999, 0.0, 2.999, 3.0, 1e30, INF]
    for inverse in (False, True):
        options = {"reduction": "none", "inverse": inverse}
        name = "inverse" if inverse else "forward"
        parameters = {
            "widths": _rows(10, [0.5, -1.0, 0.0]),
            "heights": _rows(10, [0.0, 1.0, -0.5]),
            "derivatives": _rows(10, [0.3, -0.7]),
        }
        result.append(Extreme(f"{name}-x", {"x": x, **parameters}, options))
        slopes = {"derivatives": _rows(10, [0.2, 0.3, -0.7, 1.5])}
        affine = {**options, "tails": "affine"}
        result.append(Extreme(f"{name}-affine", {"x": x, **parameters, **slopes}, affine))
        # The smallest bins, and the steepest and flattest slopes.
        steep = {
            "x": [-2.5, -0.5, 0.0, 0.5, 2.5],
            "widths": [
                [1e30, 0.0, 0.0],
                [0.0, -INF, 0.0],
                [0, 0, 0],
                [80.0, 0.0, -80.0],
                [1e4, 0, 0],
            ],
            "heights": [
                [0.0, 0.0, 1e30],
                [-INF, 0.0, 0.0],
                [0, 0, 0],
                [0.0, -90.0, 0.0],
                [0, 0, 1e4],
            ],
            "derivatives": [[-1e30, 2.0], [50.0, -50.0], [1e4, -1e4], [-INF, 0.0], [0.0, 1e3]],
        }
        result.append(Extreme(f"{name}-parameters", steep, options))
    return result


def _errors() -> list[Error]:
    ones = torch.ones

    def number(name: str, *bad: Any) -> list[Error]:
        return [
            Error(f"{name}_{value}", {name: value}, ValueError, rf"^{name}: .*got {value}")
            for value in bad
        ]

    return [
        Error(
            "heights_bins",
            {"heights": ones(2, 3, 5)},
            ValueError,
            r"^heights: expected a last dimension of 2, as widths has, got 5",
        ),
        Error(
            "derivatives_bins",
            {"derivatives": ones(2, 3, 2)},
            ValueError,
            r"^derivatives: expected a last dimension of 1 \(for 2 bins and tails='linear'\), got",
        ),
        Error(
            "too_many_bins",
            {"widths": ones(2, 3, 129), "heights": ones(2, 3, 129)},
            ValueError,
            r"^widths: expected 1 to 128 bins in the last dimension, got 129",
        ),
        Error(
            "no_bins",
            {"widths": ones(2, 3, 0), "heights": ones(2, 3, 0)},
            ValueError,
            r"^widths: expected 1 to 128 bins .*got 0",
        ),
        Error(
            "widths_number",
            {"widths": torch.tensor(1.0)},
            ValueError,
            r"^widths: expected shape \[..., D, bins\], got \[\]",
        ),
        Error(
            "shapes",
            {"heights": ones(4, 3, 2)},
            ValueError,
            r"^heights: expected leading dimensions .*\[2, 3\], got \[4, 3\]",
        ),
        Error(
            "unknown_tails",
            {"tails": "none"},
            ValueError,
            r"^tails: expected one of 'linear', 'affine', 'circular', None, got 'none'",
        ),
        Error("tails_number", {"tails": 0}, TypeError, r"^tails: .*got 0"),
        Error("inverse_text", {"inverse": "yes"}, TypeError, r"^inverse: .*got 'yes'"),
        Error(
            "bound_text",
            {"bound": "3"},
            TypeError,
            r"^bound: expected a finite number.*got .3. .str.",
        ),
        *number("bound", 0.0, -1, NAN, INF),
        *number("min_bin_width", 0.0, -0.1, 0.5, 1, NAN),
        *number("min_bin_height", 0.0, -0.1, 0.5, 1, NAN),
        *number("min_derivative", 0.0, -1, INF),
        Error("unknown_reduction", {"reduction": "mean"}, ValueError, r"^reduction: .*'mean'"),
        Error(
            "outside",
            {"x": torch.tensor([[0.0, -3.25, 1.0]]), "derivatives": ones(2, 3, 3), "tails": None},
            ValueError,
            r"^x: expected values in \[-3, 3\], .*got -3.25",
        ),
    ]


RECORDS = [
    OpRecord(
        "rational_quadratic_spline",
        {
            "linear-row": _variant("linear", reduction="row"),
            "linear-inverse-none": _variant("linear", inverse=True),
            "linear-sum-row_parameters": _variant(
                "linear", layout="row", reduction="sum", bound=1.5
            ),
            "circular-row-wide_parameters": _variant("circular", layout="wide", reduction="row"),
            "circular-inverse-sum": _variant("circular", inverse=True, reduction="sum"),
            "affine-row": _variant("affine", reduction="row"),
            "affine-inverse-none-row_parameters": _variant("affine", inverse=True, layout="row"),
            "no_tails-none": _variant(None, bound=0.5, min_bin_width=0.05, min_derivative=0.1),
            "no_tails-inverse-row-column_x": _variant(
                None, inverse=True, layout="column", reduction="row", min_bin_height=0.02
            ),
        },
        # float64 sets the knots of both the kernel and the oracle: the last digit of a knot counts
        # for as much as slopes change within a bin.
        tolerance={torch.float32: Tolerance(64, 512), torch.float64: Tolerance(1024, 16384)},
        bounded=frozenset({"x"}),
        extremes=_extremes(),
        errors=_errors(),
    )
]
