"""Records of the closed-form divergences of scale families: Laplace and half-Cauchy."""

from __future__ import annotations

from typing import Any

import torch

from ops.location_scale import (
    INF,
    NAN,
    parametrization_errors,
    reduction_errors,
    shape_errors,
)
from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Results, Shape, Tolerance, Variant

# float64 holds all of these scales, float32 does not.
POINTS = {
    "softplus": [-200.0, -100.0, -17.5, -16.5, 0.0, 17.5, 100.0, 1e18],
    "scale": [1e-45, 1e-40, 1e-30, 1e-7, 1.0, 1e18],
    "log_scale": [-200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 40.0, 80.0],
    "log_var": [-200.0, -100.0, -1e-8, 0.0, 1e-8, 80.0, 160.0],
}


def _variant(family: str, parametrization: str, reduction: str, prior: str) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        tensors = {"loc": draw.normal(shape)} if family == "laplace" else {}
        raw_shape = shape[-1:] if prior == "row" else shape
        if family == "half_cauchy" and prior == "row":
            raw_shape = shape
        tensors["raw_scale"] = raw_scale(draw, raw_shape, parametrization)
        options: dict[str, Any] = {"parametrization": parametrization, "reduction": reduction}
        if prior == "number":
            # Numbers that 16 bits hold as well.
            options |= {"prior_scale": 1.75}
            if family == "laplace":
                options |= {"prior_loc": 0.25}
        elif prior != "default":
            prior_shape = {"row": shape[-1:], "wide": (2, *shape)}.get(prior, shape)
            if family == "laplace":
                tensors["prior_loc"] = draw.normal(prior_shape)
            tensors["prior_scale"] = draw.uniform(prior_shape, 0.5, 2.0)
        return Call(tensors, options)

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _saved_bytes(names: tuple[str, ...]) -> Any:
    """A prior that is a number is kept as a tensor of one element."""

    def saved(call: Call, results: Results) -> int:
        numbers = sum(name not in call.tensors for name in names)
        tensors = sum(t.untyped_storage().nbytes() for t in call.tensors.values())
        return tensors + numbers * results[0].element_size()

    return saved


def _extremes(family: str) -> list[Extreme]:
    result = []
    for parametrization, raw in POINTS.items():
        tensors = {"raw_scale": raw}
        if family == "laplace":
            tensors = {"loc": [0.5 * (-1) ** i for i in range(len(raw))], **tensors}
        options = {"parametrization": parametrization, "reduction": "none"}
        result.append(Extreme(f"{parametrization}-raw", tensors, options))
    options = {"parametrization": "log_scale", "reduction": "none"}
    near = [-1e-2, -1e-4, -1e-6, 0.0, 1e-6, 1e-4, 1e-2, 0.3, 0.4, -0.3, -0.4]
    if family == "laplace":
        zero = [0.0] * len(near)
        result.append(Extreme("close_to_the_prior", {"loc": near, "raw_scale": zero}, options))
        result.append(Extreme("scales_alike", {"loc": zero, "raw_scale": near}, options))
        result.append(
            Extreme(
                "specials",
                {"loc": [INF, -INF, NAN, 0.5, 0.5], "raw_scale": [0.1, 0.1, 0.1, INF, NAN]},
                options,
                no_gradient=(0, 1, 2, 3, 4),
            )
        )
    else:
        result.append(Extreme("scales_alike", {"raw_scale": near}, options))
        result.append(
            Extreme("specials", {"raw_scale": [INF, -INF, NAN]}, options, no_gradient=(0, 1, 2))
        )
    for name, value in (("tiny", 1e-30), ("huge", 1e30), ("nan", NAN)):
        tensors = {"raw_scale": [0.1, 0.1], "prior_scale": [value, 1.0]}
        if family == "laplace":
            tensors = {"loc": [0.5, 0.5], **tensors}
        # With logarithms a rounding error would be multiplied by their size.
        for parametrization in ("scale", "log_scale", "log_var"):
            by = {**options, "parametrization": parametrization}
            result.append(Extreme(f"{parametrization}-prior_scale-{name}", tensors, by))
    return result


def _prior_errors(*, loc: bool) -> list[Error]:
    errors = [
        Error(
            "prior_scale_zero", {"prior_scale": 0.0}, ValueError, r"^prior_scale: .*above 0, got"
        ),
        Error("prior_scale_nan", {"prior_scale": NAN}, ValueError, r"^prior_scale: .*got nan"),
        Error("prior_scale_text", {"prior_scale": "1"}, TypeError, r"^prior_scale: .*got str"),
        Error(
            "prior_scale_negative",
            {"prior_scale": torch.tensor([1.0, -2.0, 1.0])},
            ValueError,
            r"^prior_scale: expected scales >= 0, got -2",
        ),
    ]
    if loc:
        errors += [
            Error("prior_loc_bool", {"prior_loc": True}, TypeError, r"^prior_loc: .*got bool"),
            Error("prior_loc_nan", {"prior_loc": NAN}, ValueError, r"^prior_loc: .*got nan"),
        ]
    return errors


def _variants(family: str) -> dict[str, Variant]:
    return {
        "softplus-sum": _variant(family, "softplus", "sum", "default"),
        "scale-row-row_prior": _variant(family, "scale", "row", "row"),
        "log_scale-none-number_prior": _variant(family, "log_scale", "none", "number"),
        "softplus-none-tensor_prior": _variant(family, "softplus", "none", "tensor"),
        "log_var-row-wide_prior": _variant(family, "log_var", "row", "wide"),
    }


# The logarithm of a ratio of almost equal scales is of the size of rounding errors, not of 1.
TOLERANCE = dict.fromkeys((torch.float32, torch.float64), Tolerance(8, 16))

RECORDS = [
    OpRecord(
        "laplace_kl",
        _variants("laplace"),
        tolerance=TOLERANCE,
        extremes=_extremes("laplace"),
        errors=[
            *shape_errors("loc", "raw_scale"),
            *parametrization_errors("loc"),
            *_prior_errors(loc=True),
            *reduction_errors("loc", "raw_scale"),
        ],
        saved_bytes=_saved_bytes(("prior_loc", "prior_scale")),
    ),
    OpRecord(
        "half_cauchy_kl",
        _variants("half_cauchy"),
        tolerance=TOLERANCE,
        extremes=_extremes("half_cauchy"),
        errors=[
            *shape_errors("raw_scale", "prior_scale"),
            *parametrization_errors(),
            *_prior_errors(loc=False),
            *reduction_errors("raw_scale"),
        ],
        saved_bytes=_saved_bytes(("prior_scale",)),
    ),
]
