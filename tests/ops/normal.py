"""Records of the normal family."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops.record import (
    Call,
    Draw,
    Error,
    Extreme,
    OpRecord,
    Results,
    Shape,
    Tolerance,
    Variant,
)

NAN, INF = math.nan, math.inf
# Found: 2.3 and 9.7. Gradients are products of up to four numbers, and terms of a sum cancel.
TOLERANCE = dict.fromkeys((torch.float32, torch.float64), Tolerance(value=3, gradient=12))


def raw_scale(draw: Draw, shape: Shape, parametrization: str) -> Tensor:
    """Raw parameters whose scales lie around 1."""
    if parametrization == "scale":
        return draw.uniform(shape, 0.2, 2.0)
    return draw.normal(
        shape, std={"softplus": 1.5, "log_scale": 0.4, "log_var": 0.8}[parametrization]
    )


def _parameters(draw: Draw, shape: Shape, parametrization: str, layout: str) -> dict[str, Tensor]:
    loc_shape = (*shape[:-1], 1) if layout == "column" else shape
    raw_shape = shape[-1:] if layout == "row" else shape
    return {
        "loc": draw.normal(loc_shape),
        "raw_scale": raw_scale(draw, raw_shape, parametrization),
    }


def _prior(draw: Draw, shape: Shape, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if kind == "default":
        return {}, {}
    if kind == "number":
        return {}, {"prior_loc": 0.3, "prior_scale": 1.7}
    if kind == "scalar_loc":
        return {"prior_loc": draw.normal(())}, {"prior_scale": 0.7}
    if kind == "scale":
        return {"prior_scale": draw.uniform(shape, 0.5, 2.0)}, {}
    prior_shape = {"tensor": shape, "row": shape[-1:], "wide": (2, *shape)}[kind]
    return {
        "prior_loc": draw.normal(prior_shape),
        "prior_scale": draw.uniform(prior_shape, 0.5, 2.0),
    }, {}


def _variant(
    parametrization: str,
    *,
    layout: str = "full",
    prior: str = "default",
    reduction: str | None = None,
    sample_shape: Shape | None = None,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        tensors = _parameters(draw, shape, parametrization, layout)
        prior_tensors, options = _prior(draw, shape, prior)
        options["parametrization"] = parametrization
        if reduction is not None:
            options["reduction"] = reduction
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call({**tensors, **prior_tensors}, options)

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _errors(*, prior: bool, samples: bool) -> list[Error]:
    three, four = torch.ones(3), torch.ones(4)
    errors = [
        Error(
            "shapes", {"loc": three, "raw_scale": four}, ValueError, r"^raw_scale: .*\[3\].*\[4\]"
        ),
        Error(
            "unknown_parametrization",
            {"parametrization": "sigma"},
            ValueError,
            r"^parametrization: expected one of 'softplus', .*'sigma'",
        ),
        Error(
            "parametrization_none",
            {"parametrization": None},
            ValueError,
            r"^parametrization: .*None",
        ),
        Error(
            "negative_scale",
            {
                "parametrization": "scale",
                "loc": three,
                "raw_scale": torch.tensor([1.0, -0.25, 2.0]),
            },
            ValueError,
            r"^raw_scale: expected scales >= 0, got -0.25",
        ),
    ]
    if samples:
        errors += [
            Error(
                "sample_shape_negative",
                {"sample_shape": (2, -1)},
                ValueError,
                r"^sample_shape: .*\(2, -1\)",
            ),
            Error(
                "sample_shape_float",
                {"sample_shape": (2.0,)},
                TypeError,
                r"^sample_shape: .*\(2\.0,\)",
            ),
            Error(
                "sample_shape_bool", {"sample_shape": (True,)}, TypeError, r"^sample_shape: .*True"
            ),
            Error("sample_shape_text", {"sample_shape": "2"}, TypeError, r"^sample_shape: .*'2'"),
            Error("sample_shape_none", {"sample_shape": None}, TypeError, r"^sample_shape: .*None"),
        ]
    if prior:
        errors += [
            Error(
                "unknown_reduction",
                {"reduction": "mean"},
                ValueError,
                r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
            ),
            Error(
                "row_of_a_number",
                {"loc": torch.tensor(0.0), "raw_scale": torch.tensor(1.0), "reduction": "row"},
                ValueError,
                r"^reduction: ",
            ),
            Error("prior_loc_text", {"prior_loc": "0"}, TypeError, r"^prior_loc: .*got str"),
            Error("prior_loc_bool", {"prior_loc": True}, TypeError, r"^prior_loc: .*got bool"),
            Error("prior_loc_none", {"prior_loc": None}, TypeError, r"^prior_loc: .*got NoneType"),
            Error("prior_loc_nan", {"prior_loc": NAN}, ValueError, r"^prior_loc: .*got nan"),
            Error(
                "prior_scale_zero",
                {"prior_scale": 0.0},
                ValueError,
                r"^prior_scale: expected a finite number above 0, got 0\.0",
            ),
            Error(
                "prior_scale_negative", {"prior_scale": -1}, ValueError, r"^prior_scale: .*got -1"
            ),
            Error("prior_scale_inf", {"prior_scale": INF}, ValueError, r"^prior_scale: .*got inf"),
            Error("prior_scale_nan", {"prior_scale": NAN}, ValueError, r"^prior_scale: .*got nan"),
            Error(
                "prior_scale_negative_tensor",
                {"prior_scale": torch.tensor([1.0, -2.0, 1.0])},
                ValueError,
                r"^prior_scale: expected scales >= 0, got -2",
            ),
            Error(
                "prior_shape",
                {"prior_loc": torch.ones(5)},
                ValueError,
                r"^prior_loc: .*\[2, 3\].*\[5\]",
            ),
        ]
    return errors


def _extremes(*, prior: bool, samples: bool) -> list[Extreme]:
    # softplus(-100) and scale = 1e-40 are subnormal in float32, and exp(100) overflows.
    points = {
        "softplus": [-1e30, -200.0, -100.0, -17.5, -16.5, 0.0, 17.5, 100.0, 1e18],
        "scale": [0.0, 1e-45, 1e-40, 1e-30, 1e-7, 1.0, 1e18],
        "log_scale": [-1e30, -200.0, -100.0, -80.0, -1e-8, 0.0, 1e-8, 40.0, 100.0],
        "log_var": [-1e30, -200.0, -100.0, -1e-8, 0.0, 1e-8, 80.0, 100.0, 200.0],
    }
    result = []
    for parametrization, raw in points.items():
        options: dict[str, Any] = {"parametrization": parametrization}
        if prior:
            options["reduction"] = "none"
        loc = [0.5 * (-1) ** i for i in range(len(raw))]
        # Where exp overflows, the gradients of sample and KL may be infinities of opposite signs.
        overflows = (8,) if prior and samples and parametrization.startswith("log") else ()
        result.append(
            Extreme(
                f"{parametrization}-raw",
                {"loc": loc, "raw_scale": raw},
                options,
                no_gradient=overflows,
            )
        )
        for special in (INF, -INF, NAN):
            if parametrization == "scale" and special == -INF:
                continue
            result.append(
                Extreme(
                    f"{parametrization}-{special}",
                    {"loc": [0.5, 0.5, special], "raw_scale": [0.1, special, 0.1]},
                    options,
                    no_gradient=(1, 2),
                )
            )
    if prior:
        for name, value in (("inf", INF), ("nan", NAN), ("tiny", 1e-30), ("huge", 1e30)):
            result.append(
                Extreme(
                    f"prior_scale-{name}",
                    {"loc": [0.5, 0.5], "raw_scale": [0.1, 0.1], "prior_scale": [value, 1.0]},
                    {"reduction": "none", "parametrization": "log_scale"},
                )
            )
        # Squares of ratios that float32 does not hold, where their quotients by a scale are held.
        tensors = {
            "loc": [0.5, -1e25, 0.5],
            "raw_scale": [1e30, 1.0, 1e15],
            "prior_scale": [1.0, 1e15, 1e-10],
        }
        result.extend(
            Extreme(
                f"{parametrization}-square",
                tensors,
                {"reduction": "none", "parametrization": parametrization},
            )
            for parametrization in ("softplus", "scale")
        )
    return result


_NO_PRIOR = {
    "softplus": _variant("softplus"),
    "scale": _variant("scale"),
    "log_scale": _variant("log_scale"),
    "log_var": _variant("log_var"),
    "softplus-samples": _variant("softplus", sample_shape=(3,)),
    "log_scale-row_raw-samples": _variant("log_scale", layout="row", sample_shape=(2, 2)),
    "scale-column_loc": _variant("scale", layout="column"),
}


def _saved_bytes(call: Call, results: Results) -> int:
    """Beside a tensor, the prior's other parameter is one as well, of one element."""
    given = [name in call.tensors for name in ("prior_loc", "prior_scale")]
    tensors = sum(t.untyped_storage().nbytes() for t in call.tensors.values())
    drawn = 8 if len(results) == 2 else 0
    return tensors + drawn + (results[-1].element_size() if any(given) and not all(given) else 0)


def _with_prior(make: Callable[..., Variant]) -> dict[str, Variant]:
    return {
        "softplus-sum": make("softplus", reduction="sum"),
        "softplus-row-row_prior": make("softplus", layout="row", prior="row", reduction="row"),
        "softplus-none-tensor_prior": make("softplus", prior="tensor", reduction="none"),
        "scale-row-number_prior": make("scale", prior="number", reduction="row"),
        "scale-none-scalar_prior": make("scale", prior="scalar_loc", reduction="none"),
        "log_scale-none-number_prior": make("log_scale", prior="number", reduction="none"),
        "log_scale-sum-column_loc": make(
            "log_scale", layout="column", prior="scale", reduction="sum"
        ),
        "log_var-sum-tensor_prior": make("log_var", prior="tensor", reduction="sum"),
    }


def _two_samples(*args: Any, **options: Any) -> Variant:
    return _variant(*args, sample_shape=(2,) if options["reduction"] == "row" else None, **options)


RECORDS = [
    OpRecord(
        "normal_rsample",
        _NO_PRIOR,
        tolerance=TOLERANCE,
        random=True,
        extremes=_extremes(prior=False, samples=True),
        errors=_errors(prior=False, samples=True),
    ),
    OpRecord(
        "normal_kl",
        {
            **_with_prior(_variant),
            "log_var-row-wide_prior": _variant("log_var", prior="wide", reduction="row"),
        },
        tolerance=TOLERANCE,
        saved_bytes=_saved_bytes,
        extremes=_extremes(prior=True, samples=False),
        errors=_errors(prior=True, samples=False),
    ),
    OpRecord(
        "normal_rsample_kl",
        _with_prior(_two_samples),
        tolerance=TOLERANCE,
        random=True,
        saved_bytes=_saved_bytes,
        extremes=_extremes(prior=True, samples=True),
        errors=[
            *_errors(prior=True, samples=True),
            Error(
                "wide_prior",
                {"prior_loc": torch.ones(4, 2, 3)},
                ValueError,
                r"^prior_loc: expected a shape that broadcasts to \[2, 3\].*\[4, 2, 3\]",
            ),
        ],
    ),
]
