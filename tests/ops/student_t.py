"""Records of Student's t family."""

from __future__ import annotations

from typing import Any

import torch

from ops.location_scale import (
    INF,
    NAN,
    parametrization_errors,
    reduction_errors,
    sample_errors,
    shape_errors,
    subnormal_extremes,
    vanishing_extremes,
)
from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

POINTS = {
    "softplus": [-80.0, -17.5, -16.5, 0.0, 17.5, 100.0, 1e18],
    "scale": [1e-30, 1e-7, 1.0, 1e18],
    "log_scale": [-80.0, -1e-8, 0.0, 1e-8, 40.0],
    "log_var": [-100.0, -1e-8, 0.0, 1e-8, 80.0],
}


def _variant(
    parametrization: str,
    reduction: str | None,
    layout: str = "full",
    *,
    density: bool,
    sample_shape: Shape | None = None,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        row = shape[-1:]
        shapes = {"x": shape, "df": shape, "loc": shape, "raw_scale": shape}
        shapes |= {
            "row": {"df": row, "raw_scale": row},
            "column": {"df": (*shape[:-1], 1)},
            "scalar": {"df": ()},
            "wide": {"x" if density else "loc": (2, *shape)},
        }.get(layout, {})
        tensors = {
            "df": draw.uniform(shapes["df"], 2.0, 20.0),
            "loc": draw.normal(shapes["loc"]),
            "raw_scale": raw_scale(draw, shapes["raw_scale"], parametrization),
        }
        if density:
            tensors = {"x": draw.normal(shapes["x"]), **tensors}
        options: dict[str, Any] = {"parametrization": parametrization}
        if reduction is not None:
            options["reduction"] = reduction
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call(tensors, options)

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extremes(*, density: bool) -> list[Extreme]:
    result = []
    more: dict[str, Any] = {"reduction": "none"} if density else {}
    for parametrization, raw in POINTS.items():
        n = len(raw)
        tensors = {"df": [4.0] * n, "loc": [0.0] * n, "raw_scale": raw}
        if density:
            scale = {"softplus": lambda r: max(r, 0.7) if r > -16 else 2.718281828**r}.get(
                parametrization, lambda r: r
            )
            if parametrization == "log_scale":
                scale = lambda r: 2.718281828**r  # noqa: E731
            if parametrization == "log_var":
                scale = lambda r: 2.718281828 ** (r / 2)  # noqa: E731
            tensors = {"x": [0.5 * scale(r) for r in raw], **tensors}
        options = {"parametrization": parametrization, **more}
        result.append(Extreme(f"{parametrization}-raw", tensors, options))
    options = {"parametrization": "scale", **more}
    dfs = [0.25, 0.5, 1.0, 2.0, 7.9, 8.0, 15.9, 16.0, 100.0, 1e4, 1e7, 1e10, 1e30]
    n = len(dfs)
    tensors = {"df": dfs, "loc": [0.0] * n, "raw_scale": [1.5] * n}
    for x in (0.0, 1e-20, 0.5, 30.0, 1e15) if density else (None,):
        given = tensors if x is None else {"x": [x] * n, **tensors}
        result.append(Extreme("df" if x is None else f"df-x-{x:g}", given, options))
    tensors = {
        "df": [INF, NAN, 3.0, 3.0, 3.0],
        "loc": [0.5, 0.5, INF, NAN, 0.5],
        "raw_scale": [1.0, 1.0, 1.0, 1.0, NAN],
    }
    if density:
        tensors = {"x": [0.25] * 5, **tensors}
    result.append(Extreme("specials", tensors, options, no_gradient=range(5)))
    if density:
        # Farther from loc than numbers hold, in scales.
        x = [1e25, -1e25, 1e19, 1e10, 1e38, 0.5]
        scale = [1e-20, 1e-30, 1e-20, 1e-36, 1e-36, 1e-45]
        for df in (0.5, 4.0, 1e4, 1e30):
            tensors = {"x": x, "df": [df] * 6, "loc": [0.0] * 6, "raw_scale": scale}
            result.append(Extreme(f"far-df-{df:g}", tensors, options, no_gradient=(5,)))
        result += vanishing_extremes(df=4.0, loc=0.5)
        result += subnormal_extremes(df=4.0, loc=0.0)
    return result


def _df_error(*others: str) -> Error:
    three = dict.fromkeys(others, torch.ones(3))
    return Error(
        "df_zero",
        {**three, "df": torch.tensor([1.0, 0.0, 2.0])},
        ValueError,
        r"^df: expected numbers > 0, got 0",
    )


TOLERANCE = dict.fromkeys((torch.float32, torch.float64), Tolerance(16, 32))
RECORDS = [
    OpRecord(
        "student_t_rsample",
        {
            "softplus": _variant("softplus", None, density=False),
            "scale-column_df": _variant("scale", None, "column", density=False),
            "log_scale-samples": _variant(
                "log_scale", None, "row", density=False, sample_shape=(2, 2)
            ),
            "log_var-scalar_df": _variant("log_var", None, "scalar", density=False),
            "softplus-wide_loc": _variant("softplus", None, "wide", density=False),
        },
        tolerance=TOLERANCE,
        random=True,
        extremes=_extremes(density=False),
        errors=[
            *shape_errors("df", "loc"),
            *parametrization_errors("df", "loc"),
            *sample_errors(),
            _df_error("loc", "raw_scale"),
        ],
    ),
    OpRecord(
        "student_t_log_prob",
        {
            "softplus-row": _variant("softplus", "row", density=True),
            "scale-row-row_parameters": _variant("scale", "row", "row", density=True),
            "log_scale-sum-column_df": _variant("log_scale", "sum", "column", density=True),
            "log_var-none-wide_x": _variant("log_var", "none", "wide", density=True),
            "softplus-none-scalar_df": _variant("softplus", "none", "scalar", density=True),
        },
        tolerance=TOLERANCE,
        extremes=_extremes(density=True),
        errors=[
            *shape_errors("x", "df"),
            *parametrization_errors("x", "df", "loc"),
            *reduction_errors("x", "df", "loc", "raw_scale"),
            _df_error("x", "loc", "raw_scale"),
        ],
    ),
]
