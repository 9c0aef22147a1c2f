"""Record of the von Mises log density."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(reduction: str, layout: str = "full", *, most: float = 30.0) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        shapes = {"x": shape, "loc": shape, "concentration": shape}
        shapes |= {
            "row": {"loc": shape[-1:], "concentration": shape[-1:]},
            "column": {"concentration": (*shape[:-1], 1)},
            "scalar": {"concentration": ()},
            "wide": {"x": (2, *shape)},
        }.get(layout, {})
        tensors = {
            "x": draw.uniform(shapes["x"], -3.0, 3.0),
            "loc": draw.normal(shapes["loc"]),
            "concentration": draw.uniform(shapes["concentration"], 0.2, most),
        }
        return Call(tensors, {"reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


_CONCENTRATIONS = [0.0, 1e-30, 1e-8, 0.5, 7.99, 8.0, 8.01, 19.9, 20.0, 100.0, 1e4, 1e7, 1e20]


def _extreme(x: float) -> Extreme:
    n = len(_CONCENTRATIONS)
    return Extreme(
        f"x-{x:g}",
        {"x": [x] * n, "loc": [0.0] * n, "concentration": _CONCENTRATIONS},
        {"reduction": "none"},
    )


RECORDS = [
    OpRecord(
        "von_mises_log_prob",
        {
            "row": _variant("row"),
            "row-small": _variant("row", most=3.0),
            "none-column_concentration": _variant("none", "column"),
            "sum-wide_x": _variant("sum", "wide"),
            "row-row_parameters": _variant("row", "row"),
            "none-scalar_concentration": _variant("none", "scalar"),
        },
        tolerance={torch.float32: Tolerance(16, 16), torch.float64: Tolerance(16, 16)},
        extremes=[
            *map(_extreme, (0.0, 1e-20, 1e-4, 1.0, -3.0, 6.0)),
            Extreme(
                "specials",
                {
                    "x": [INF, NAN, 0.5, 0.5, 0.5],
                    "loc": [0.0, 0.0, INF, NAN, 0.0],
                    "concentration": [1.0, 1.0, 1.0, 1.0, NAN],
                },
                {"reduction": "none"},
                no_gradient=range(5),
            ),
        ],
        errors=[
            Error(
                "shapes",
                {"x": torch.ones(3), "loc": torch.ones(4)},
                ValueError,
                r"^loc: .*\[3\].*\[4\]",
            ),
            Error(
                "negative_concentration",
                {
                    "x": torch.zeros(3),
                    "loc": torch.zeros(3),
                    "concentration": torch.tensor([1.0, -2.0, 0.0]),
                },
                ValueError,
                r"^concentration: expected numbers >= 0, got -2",
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
                    "concentration": torch.tensor(1.0),
                    "reduction": "row",
                },
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
