"""Record of the normal log density."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bslfast.functional.normal import PARAMETRIZATIONS
from ops.location_scale import subnormal_extremes, vanishing_extremes
from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(parametrization: str, reduction: str, layout: str = "full") -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        shapes = {"x": shape, "loc": shape, "raw_scale": shape}
        if layout == "row":
            shapes |= {"loc": shape[-1:], "raw_scale": shape[-1:]}
        elif layout == "column":
            shapes |= {"x": (*shape[:-1], 1)}
        elif layout == "wide":
            shapes |= {"x": (2, *shape)}
        elif layout == "scalar":
            shapes |= {"raw_scale": ()}
        tensors = {
            "x": draw.normal(shapes["x"]),
            "loc": draw.normal(shapes["loc"]),
            "raw_scale": raw_scale(draw, shapes["raw_scale"], parametrization),
        }
        return Call(tensors, {"parametrization": parametrization, "reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extremes() -> list[Extreme]:
    points = {
        "softplus": [-80.0, -17.5, -16.5, 0.0, 17.5, 100.0, 1e18],
        "scale": [1e-30, 1e-7, 1.0, 1e18],
        "log_scale": [-40.0, -1e-8, 0.0, 1e-8, 40.0, 100.0],
        "log_var": [-80.0, -1e-8, 0.0, 1e-8, 80.0, 200.0],
    }
    result = []
    for parametrization, raw in points.items():
        options = {"parametrization": parametrization, "reduction": "none"}
        # The distance from the mean is of the size of the scale.
        scale: dict[str, Callable[[float], float]] = {
            "softplus": lambda r: math.log1p(math.exp(r)) if r < 30 else r,
            "scale": lambda r: r,
            "log_scale": math.exp,
            "log_var": lambda r: math.exp(r / 2),
        }
        widths = map(scale[parametrization], raw)
        x = [(0.5 * (-1) ** i) * min(w, 1e30) for i, w in enumerate(widths)]
        result.append(
            Extreme(
                f"{parametrization}-raw",
                {"x": x, "loc": [0.0] * len(raw), "raw_scale": raw},
                options,
            )
        )
        for special in (INF, -INF, NAN):
            if parametrization == "scale" and special == -INF:
                continue
            result.append(
                Extreme(
                    f"{parametrization}-{special}",
                    {
                        "x": [special, 0.5, 0.5],
                        "loc": [0.5, special, 0.25],
                        "raw_scale": [0.1, 0.1, special],
                    },
                    options,
                    no_gradient=(0, 1, 2),
                )
            )
    return [*result, *vanishing_extremes(loc=0.5), *subnormal_extremes(loc=0.0)]


RECORDS = [
    OpRecord(
        "normal_log_prob",
        {
            "softplus-row": _variant("softplus", "row"),
            **{f"{p}-none": _variant(p, "none") for p in PARAMETRIZATIONS},
            "log_var-row-wide_x": _variant("log_var", "row", "wide"),
            "log_scale-sum-column_x": _variant("log_scale", "sum", "column"),
            "scale-row-row_parameters": _variant("scale", "row", "row"),
            "softplus-row-scalar_scale": _variant("softplus", "row", "scalar"),
        },
        # The gradient of the scale is a difference of two numbers, of which z^2 may be 100.
        tolerance={torch.float32: Tolerance(8, 32), torch.float64: Tolerance(8, 32)},
        extremes=_extremes(),
        errors=[
            Error("shapes", {"loc": torch.ones(4)}, ValueError, r"^loc: .*\[2, 3\].*\[4\]"),
            Error(
                "scale_shape",
                {"raw_scale": torch.ones(4)},
                ValueError,
                r"^raw_scale: .*\[2, 3\].*\[4\]",
            ),
            Error(
                "unknown_parametrization",
                {"parametrization": "sigma"},
                ValueError,
                r"^parametrization: expected one of 'softplus', .*'sigma'",
            ),
            Error(
                "negative_scale",
                {"parametrization": "scale", "raw_scale": torch.tensor([1.0, -0.25, 2.0])},
                ValueError,
                r"^raw_scale: expected scales >= 0, got -0.25",
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
                    "raw_scale": torch.tensor(1.0),
                    "reduction": "row",
                },
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
