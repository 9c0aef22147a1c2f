"""Record of normal samples with Monte-Carlo divergences."""

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
)
from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

# Numbers that every dtype holds.
PRIORS: dict[str, dict[str, float]] = {
    "scale_mixture": {"pi": 0.25, "sigma1": 1.5, "sigma2": 0.5},
    "laplace": {"prior_scale": 0.75},
    "student_t": {"prior_scale": 0.75, "prior_df": 2.5},
    "log_uniform": {},
    "horseshoe": {"prior_scale": 0.75},
}


def _variant(
    prior: str,
    parametrization: str,
    reduction: str,
    layout: str = "full",
    sample_shape: Shape | None = None,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        raw_shape = {"row": shape[-1:], "scalar": ()}.get(layout, shape)
        tensors = {
            "loc": draw.normal((*shape[:-1], 1) if layout == "column" else shape),
            "raw_scale": raw_scale(draw, raw_shape, parametrization),
        }
        if prior in ("log_uniform", "horseshoe"):  # away from 0, where the log ratio has a pole
            tensors = {"loc": tensors["loc"].abs() + 1, "raw_scale": tensors["raw_scale"] - 5}
        options: dict[str, Any] = {
            "prior": prior,
            "parametrization": parametrization,
            "reduction": reduction,
            **PRIORS[prior],
        }
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call(tensors, options)

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _extremes() -> list[Extreme]:
    result = []
    for prior, numbers in PRIORS.items():
        options = {"prior": prior, "reduction": "none", **numbers}
        raw = [-200.0, -100.0, -17.5, -16.5, 0.0, 17.5, 100.0]
        tensors = {"loc": [0.5 * (-1) ** i for i in range(len(raw))], "raw_scale": raw}
        result.append(Extreme(f"{prior}-raw", tensors, options))
        loc = [-1e10, -1000.0, -30.0, -1.0, 1e-3, 2.0, 30.0, 1000.0, 1e10]
        tensors = {"loc": loc, "raw_scale": [-20.0] * len(loc)}
        result.append(Extreme(f"{prior}-loc", tensors, options))
        tensors = {"loc": [INF, -INF, NAN, 0.5], "raw_scale": [0.1, 0.1, 0.1, NAN]}
        result.append(Extreme(f"{prior}-specials", tensors, options, no_gradient=range(4)))
    return result


RECORDS = [
    OpRecord(
        "normal_rsample_mc_kl",
        {
            "scale_mixture-softplus-sum": _variant("scale_mixture", "softplus", "sum"),
            "scale_mixture-scale-row": _variant("scale_mixture", "scale", "row", "row"),
            "laplace-log_scale-none": _variant("laplace", "log_scale", "none", "column"),
            "student_t-softplus-row-samples": _variant(
                "student_t", "softplus", "row", "scalar", (2, 2)
            ),
            "log_uniform-log_var-sum": _variant("log_uniform", "log_var", "sum"),
            "horseshoe-softplus-row": _variant("horseshoe", "softplus", "row"),
        },
        tolerance=dict.fromkeys((torch.float32, torch.float64), Tolerance(16, 32)),
        random=True,
        extremes=_extremes(),
        errors=[
            *shape_errors("loc", "raw_scale"),
            *parametrization_errors("loc"),
            *sample_errors(),
            *reduction_errors("loc", "raw_scale"),
            Error("prior", {"prior": "cauchy"}, ValueError, r"^prior: .*got 'cauchy'"),
            Error("pi", {"pi": 1.0}, ValueError, r"^pi: .*above 0 and below 1, got 1.0"),
            Error("sigma", {"sigma2": 0.0}, ValueError, r"^sigma2: .*above 0, got 0.0"),
            Error("df", {"prior_df": "3"}, TypeError, r"^prior_df: .*'3'"),
            Error("prior_scale", {"prior_scale": NAN}, ValueError, r"^prior_scale: .*got nan"),
        ],
    )
]
