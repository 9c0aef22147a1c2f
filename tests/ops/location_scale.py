"""Records of the location-scale families: samples, samples with log densities, log densities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf
# softplus(-100) and scale = 1e-40 are subnormal in float32, and exp(100) overflows.
POINTS = {
    "softplus": [-1e30, -200.0, -100.0, -17.5, -16.5, 0.0, 17.5, 100.0, 1e18],
    "scale": [0.0, 1e-45, 1e-40, 1e-30, 1e-7, 1.0, 1e18],
    "log_scale": [-1e30, -200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 40.0, 80.0],
    "log_var": [-1e30, -200.0, -100.0, -1e-8, 0.0, 1e-8, 80.0, 100.0, 160.0],
}
# Scales that vanish in float32, or nearly, or in float64 as well.
VANISHING = {
    "softplus": [-1e30, -1000.0, -200.0, -100.0, -88.0, -60.0],
    "scale": [0.0, 1e-45, 1e-40, 1e-38],
    "log_scale": [-1e30, -1000.0, -200.0, -100.0, -88.0],
    "log_var": [-1e30, -2000.0, -400.0, -180.0, -170.0],
}


def vanishing_extremes(
    at: float = 0.5, beside: Sequence[float] = (0.25, -0.25), **others: float
) -> list[Extreme]:
    """Log densities at the location (``others``, and x = ``at``), a little and far beside it."""
    result = []
    for parametrization, raw in VANISHING.items():
        options = {"parametrization": parametrization, "reduction": "none"}
        n = len(raw)
        tensors = {**{k: [v] * n for k, v in others.items()}, "raw_scale": raw}
        # The gradient at a scale of 0 is infinite, or does not exist.
        zeros = [i for i, r in enumerate(raw) if r in (0.0, -1e30)]
        x = [at] * n
        name = f"{parametrization}-vanishing"
        result.append(Extreme(f"{name}-at", {"x": x, **tensors}, options, no_gradient=zeros))
        x = [at + beside[i % len(beside)] for i in range(n)]
        result.append(Extreme(f"{name}-beside", {"x": x, **tensors}, options, no_gradient=zeros))
    return result


def subnormal_extremes(**others: float) -> list[Extreme]:
    """Scales, and distances from 0, that have few digits in float32."""
    points = {"softplus": -95.0, "scale": 2e-41, "log_scale": -95.0, "log_var": -190.0}
    x = [1e-41, 7e-42, 4e-41, 1e-40]
    return [
        Extreme(
            f"{parametrization}-subnormal",
            {"x": x, **{k: [v] * 4 for k, v in others.items()}, "raw_scale": [raw] * 4},
            {"parametrization": parametrization, "reduction": "none"},
        )
        for parametrization, raw in points.items()
    ]


def specials(parametrization: str) -> list[float]:
    return [s for s in (INF, -INF, NAN) if not (parametrization == "scale" and s == -INF)]


def shape_errors(first: str, second: str) -> list[Error]:
    return [
        Error(
            "shapes",
            {first: torch.ones(3), second: torch.ones(4)},
            ValueError,
            rf"^{second}: .*\[3\].*\[4\]",
        )
    ]


def parametrization_errors(*others: str) -> list[Error]:
    three = dict.fromkeys(others, torch.ones(3))
    return [
        Error(
            "unknown_parametrization",
            {"parametrization": "sigma"},
            ValueError,
            r"^parametrization: expected one of 'softplus', .*'sigma'",
        ),
        Error("parametrization_none", {"parametrization": None}, ValueError, r"^parametrization: "),
        Error(
            "negative_scale",
            {**three, "parametrization": "scale", "raw_scale": torch.tensor([1.0, -0.25, 2.0])},
            ValueError,
            r"^raw_scale: expected scales >= 0, got -0.25",
        ),
    ]


def sample_errors() -> list[Error]:
    return [
        Error("sample_shape", {"sample_shape": (2, -1)}, ValueError, r"^sample_shape: .*\(2, -1\)"),
        Error("sample_shape_text", {"sample_shape": "2"}, TypeError, r"^sample_shape: .*'2'"),
    ]


def reduction_errors(*tensors: str) -> list[Error]:
    return [
        Error(
            "unknown_reduction",
            {"reduction": "mean"},
            ValueError,
            r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
        ),
        Error(
            "row_of_a_number",
            {**dict.fromkeys(tensors, torch.tensor(0.5)), "reduction": "row"},
            ValueError,
            r"^reduction: ",
        ),
    ]


def _sampled(
    parametrization: str,
    reduction: str | None,
    layout: str = "full",
    sample_shape: Shape | None = None,
    **others: Any,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        tensors = {
            "loc": draw.normal((*shape[:-1], 1) if layout == "column" else shape),
            "raw_scale": raw_scale(
                draw,
                {"row": shape[-1:], "scalar": ()}.get(layout, shape),
                parametrization,
            ),
        }
        options: dict[str, Any] = {"parametrization": parametrization, **others}
        if reduction is not None:
            options["reduction"] = reduction
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call(tensors, options)

    return Variant(
        inputs,
        min_dims=1 if reduction == "row" and sample_shape is None else 0,
        own_gradient=not others.get("path_only"),
    )


def _density(
    parametrization: str, reduction: str, layout: str = "full", *, spread: float
) -> Variant:
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
            "x": draw.normal(shapes["x"], std=spread),
            "loc": draw.normal(shapes["loc"], std=spread),
            "raw_scale": raw_scale(draw, shapes["raw_scale"], parametrization),
        }
        if spread < 1 and parametrization == "softplus":
            tensors["raw_scale"] += 4
        return Call(tensors, {"parametrization": parametrization, "reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _sample_extremes(*, log_prob: bool, **others: Any) -> list[Extreme]:
    result = []
    for parametrization, raw in POINTS.items():
        options: dict[str, Any] = {"parametrization": parametrization, **others}
        if log_prob:
            options["reduction"] = "none"
        loc = [0.5 * (-1) ** i for i in range(len(raw))]
        # Through the sample alone, that of a scale of 0 is infinite, or none.
        zeros = [i for i, r in enumerate(raw) if others and r in (0.0, -1e30)]
        tensors = {"loc": loc, "raw_scale": raw}
        result.append(Extreme(f"{parametrization}-raw", tensors, options, no_gradient=zeros))
        result.extend(
            Extreme(
                f"{parametrization}-{special}",
                {"loc": [0.5, 0.5, special], "raw_scale": [0.1, special, 0.1]},
                options,
                no_gradient=(1, 2),
            )
            for special in specials(parametrization)
        )
    return result


def _density_extremes() -> list[Extreme]:
    # The distance from loc is half a scale.
    scale: dict[str, Callable[[float], float]] = {
        "softplus": lambda r: math.log1p(math.exp(r)) if r < 30 else r,
        "scale": lambda r: r,
        "log_scale": math.exp,
        "log_var": lambda r: math.exp(r / 2),
    }
    result = []
    for parametrization, points in POINTS.items():
        options = {"parametrization": parametrization, "reduction": "none"}
        # The gradient by x is 1 / scale.
        raw = [r for r in points if scale[parametrization](r) >= 1e-36]
        x = [(0.5 * (-1) ** i) * scale[parametrization](r) for i, r in enumerate(raw)]
        result.append(
            Extreme(
                f"{parametrization}-raw",
                {"x": x, "loc": [0.0] * len(raw), "raw_scale": raw},
                options,
            )
        )
        result.extend(
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
            for special in specials(parametrization)
        )
    result.append(
        Extreme(
            "tails",
            {
                "x": [-1e30, -1000.0, -50.0, -1e-8, 0.0, 1e-8, 50.0, 1000.0, 1e30],
                "loc": [0.0] * 9,
                "raw_scale": [1.0] * 9,
            },
            {"parametrization": "scale", "reduction": "none"},
        )
    )
    return [*result, *vanishing_extremes(loc=0.5), *subnormal_extremes(loc=0.0)]


def _with_path_only(record: OpRecord) -> OpRecord:
    """Gradients of the log density through the sample alone."""
    variants = {
        "path_only-softplus-row": _sampled("softplus", "row", path_only=True),
        "path_only-scale-sum-row_raw-samples": _sampled(
            "scale", "sum", "row", (2, 2), path_only=True
        ),
    }
    extremes = [
        replace(e, name=f"path_only-{e.name}")
        for e in _sample_extremes(log_prob=True, path_only=True)
    ]
    wrong = Error("path_only", {"path_only": 1}, TypeError, r"^path_only: ")
    return replace(
        record,
        variants={**record.variants, **variants},
        extremes=[*record.extremes, *extremes],
        errors=[*record.errors, wrong],
    )


def _records(family: str, *, tolerance: Tolerance, spread: float = 1.0) -> list[OpRecord]:
    tolerances = dict.fromkeys((torch.float32, torch.float64), tolerance)
    return [
        OpRecord(
            f"{family}_rsample",
            {
                "softplus": _sampled("softplus", None),
                "scale-column_loc": _sampled("scale", None, "column"),
                "log_scale-row_raw-samples": _sampled("log_scale", None, "row", (2, 2)),
                "log_var-scalar_raw": _sampled("log_var", None, "scalar"),
            },
            tolerance=tolerances,
            random=True,
            extremes=_sample_extremes(log_prob=False),
            errors=[
                *shape_errors("loc", "raw_scale"),
                *parametrization_errors("loc"),
                *sample_errors(),
            ],
        ),
        OpRecord(
            f"{family}_rsample_log_prob",
            {
                "softplus-row": _sampled("softplus", "row"),
                "scale-none-column_loc": _sampled("scale", "none", "column"),
                "log_scale-sum-row_raw-samples": _sampled("log_scale", "sum", "row", (2, 2)),
                "log_var-row-scalar_raw": _sampled("log_var", "row", "scalar"),
            },
            tolerance=tolerances,
            random=True,
            extremes=_sample_extremes(log_prob=True),
            errors=[
                *shape_errors("loc", "raw_scale"),
                *parametrization_errors("loc"),
                *sample_errors(),
                *reduction_errors("loc", "raw_scale"),
            ],
        ),
        OpRecord(
            f"{family}_log_prob",
            {
                "softplus-row": _density("softplus", "row", spread=spread),
                "scale-row-row_parameters": _density("scale", "row", "row", spread=spread),
                "log_scale-sum-column_x": _density("log_scale", "sum", "column", spread=spread),
                "log_var-none-wide_x": _density("log_var", "none", "wide", spread=spread),
                "softplus-none-scalar_scale": _density("softplus", "none", "scalar", spread=spread),
            },
            tolerance=tolerances,
            extremes=_density_extremes(),
            errors=[
                *shape_errors("x", "loc"),
                *parametrization_errors("x", "loc"),
                *reduction_errors("x", "loc", "raw_scale"),
            ],
        ),
    ]


RECORDS = [
    # A small spread, because exp(-z) multiplies the relative error of z by z.
    *_records("gumbel", tolerance=Tolerance(8, 16), spread=0.25),
    *_records("laplace", tolerance=Tolerance(8, 16)),
    *_records("logistic", tolerance=Tolerance(8, 16)),
    # The others of this family are older, and have files of their own.
    _with_path_only(_records("normal", tolerance=Tolerance(8, 16))[1]),
]
