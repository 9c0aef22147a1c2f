"""Records of the families of positive numbers: log-normal and half-Cauchy."""

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
    specials,
    subnormal_extremes,
    vanishing_extremes,
)
from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

POINTS = {
    "softplus": [-200.0, -100.0, -17.5, -16.5, 0.0, 1.5],
    "scale": [0.0, 1e-40, 1e-30, 1e-7, 1.0, 2.0],
    "log_scale": [-200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 1.0],
    "log_var": [-200.0, -100.0, -1e-8, 0.0, 1e-8, 2.0],
}
# Large scales, for functions that do not take exponentials of them.
LARGE = {
    "softplus": [100.0, 1e18],
    "scale": [100.0, 1e18],
    "log_scale": [40.0, 80.0],
    "log_var": [80.0, 160.0],
}


def _sampled(
    family: str, parametrization: str, layout: str = "full", sample_shape: Shape | None = None
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        raw_shape = shape
        if family == "lognormal":  # the other one has nothing to broadcast with
            raw_shape = {"row": shape[-1:], "scalar": ()}.get(layout, shape)
        tensors = {"raw_scale": raw_scale(draw, raw_shape, parametrization)}
        if family == "lognormal":
            loc = draw.normal((*shape[:-1], 1) if layout == "column" else shape)
            tensors = {"loc": loc, **tensors}
        options: dict[str, Any] = {"parametrization": parametrization}
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call(tensors, options)

    return Variant(inputs)


def _density(family: str, parametrization: str, reduction: str, layout: str = "full") -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        x_shape = {"column": (*shape[:-1], 1), "wide": (2, *shape)}.get(layout, shape)
        row = shape[-1:] if layout == "row" else shape
        tensors = {"x": draw.normal(x_shape).exp()}
        if family == "lognormal":
            tensors["loc"] = draw.normal(row)
        raw_shape = () if layout == "scalar" else row
        tensors["raw_scale"] = raw_scale(draw, raw_shape, parametrization)
        return Call(tensors, {"parametrization": parametrization, "reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _with_loc(family: str, tensors: dict[str, list[float]], loc: float) -> dict[str, list[float]]:
    if family != "lognormal":
        return tensors
    *first, raw = tensors
    n = len(tensors[raw])
    return {**{k: tensors[k] for k in first}, "loc": [loc] * n, raw: tensors[raw]}


def _sample_extremes(family: str) -> list[Extreme]:
    result = []
    for parametrization, points in POINTS.items():
        raw = points if family == "lognormal" else points + LARGE[parametrization]
        options = {"parametrization": parametrization}
        tensors = _with_loc(family, {"raw_scale": raw}, -0.5)
        result.append(Extreme(f"{parametrization}-raw", tensors, options))
        special = specials(parametrization)
        result.append(
            Extreme(
                f"{parametrization}-specials",
                _with_loc(family, {"raw_scale": special}, 0.5),
                options,
                no_gradient=range(len(special)),
            )
        )
    return result


def _density_extremes(family: str) -> list[Extreme]:
    result = []
    for parametrization, points in POINTS.items():
        # For a tiny scale the gradient by x overflows float32, unless x is as small.
        raw = [r for r in points[-4:] if r != 1e-30] + LARGE[parametrization]
        options = {"parametrization": parametrization, "reduction": "none"}
        # For log-normal, log x = loc to the last digit; for half-Cauchy, x = 0.5.
        x, loc = (1.0, 0.0) if family == "lognormal" else (0.5, 0.0)
        tensors = _with_loc(family, {"x": [x] * len(raw), "raw_scale": raw}, loc)
        result.append(Extreme(f"{parametrization}-raw", tensors, options))
    options = {"parametrization": "scale", "reduction": "none"}
    x = [1e-30, 1e-10, 0.5, 1.0, 2.0, 1e10, 1e25]
    tensors = _with_loc(family, {"x": x, "raw_scale": [1.5] * len(x)}, 0.25)
    result.append(Extreme("tails", tensors, options))
    x = [-1e-30, -1.0, -1e30]
    tensors = _with_loc(family, {"x": x, "raw_scale": [1.5] * len(x)}, 0.25)
    result.append(Extreme("outside", tensors, options, results=[[-INF] * len(x)]))
    x = [0.0, INF, NAN, -INF, 0.5, 0.5]
    tensors = _with_loc(family, {"x": x, "raw_scale": [1.5] * 4 + [INF, NAN]}, 0.25)
    result.append(Extreme("specials", tensors, options, no_gradient=range(len(x))))
    if family == "lognormal":
        return result + vanishing_extremes(1.0, loc=0.0)
    x, scale = [1e25, 1e19, 1e10, 1e38, 0.5], [1e-20, 1e-20, 1e-36, 1e-36, 1e-45]
    result.append(Extreme("far", {"x": x, "raw_scale": scale}, options, no_gradient=(4,)))
    return result + vanishing_extremes(0.0, (0.25,)) + subnormal_extremes()


def _records(family: str, *, tolerance: Tolerance) -> list[OpRecord]:
    tolerances = dict.fromkeys((torch.float32, torch.float64), tolerance)
    parameters = ("loc", "raw_scale") if family == "lognormal" else ("raw_scale",)
    shapes: list[Error] = shape_errors(*parameters) if len(parameters) == 2 else []
    return [
        OpRecord(
            f"{family}_rsample",
            {
                "softplus": _sampled(family, "softplus"),
                "scale-column_loc": _sampled(family, "scale", "column"),
                "log_scale-samples": _sampled(family, "log_scale", "row", (2, 2)),
                "log_var-scalar_raw": _sampled(family, "log_var", "scalar"),
            },
            tolerance=tolerances,
            random=True,
            extremes=_sample_extremes(family),
            errors=[*shapes, *parametrization_errors(*parameters[:-1]), *sample_errors()],
        ),
        OpRecord(
            f"{family}_log_prob",
            {
                "softplus-row": _density(family, "softplus", "row"),
                "scale-row-row_parameters": _density(family, "scale", "row", "row"),
                "log_scale-sum-column_x": _density(family, "log_scale", "sum", "column"),
                "log_var-none-wide_x": _density(family, "log_var", "none", "wide"),
                "softplus-none-scalar_scale": _density(family, "softplus", "none", "scalar"),
            },
            tolerance=tolerances,
            extremes=_density_extremes(family),
            errors=[
                *shape_errors("x", parameters[0]),
                *parametrization_errors("x", *parameters[:-1]),
                *reduction_errors("x", *parameters),
            ],
        ),
    ]


RECORDS = [
    # The exponential multiplies the rounding error of its argument.
    *_records("lognormal", tolerance=Tolerance(16, 32)),
    *_records("half_cauchy", tolerance=Tolerance(8, 16)),
]
