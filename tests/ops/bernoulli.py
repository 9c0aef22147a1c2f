"""Record of the Bernoulli log probability."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(reduction: str, *, layout: str = "full", binary: bool = False) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        logits = draw.normal(shape[-1:] if layout == "row" else shape, std=2.0)
        x = draw.uniform((2, *shape) if layout == "wide" else shape)
        if layout == "column":
            x = draw.uniform((*shape[:-1], 1))
        if binary:
            x = (x > 0.5).to(x.dtype)
        return Call({"logits": logits, "x": x}, {"reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _weighted(value: float, *elements: int) -> list[float]:
    """``value`` times the incoming gradient of some elements, see record.weights."""
    return [value * math.cos(1.7 * i + 1) for i in elements]


_LOGITS = [-1e30, -200.0, -88.0, -17.5, -1e-8, 0.0, 1e-8, 17.5, 88.0, 200.0, 1e30]

RECORDS = [
    OpRecord(
        "bernoulli_log_prob",
        {
            "row": _variant("row"),
            "row-binary": _variant("row", binary=True),
            "none": _variant("none"),
            "sum-wide_x": _variant("sum", layout="wide"),
            "row-row_logits": _variant("row", layout="row"),
            "none-column_x": _variant("none", layout="column"),
        },
        tolerance={torch.float32: Tolerance(4, 4), torch.float64: Tolerance(4, 4)},
        extremes=[
            *(
                Extreme(
                    f"x-{x}",
                    {"logits": _LOGITS, "x": [x] * len(_LOGITS)},
                    {"reduction": "none"},
                )
                for x in (0.0, 1.0, 0.25)
            ),
            # Certain outcomes. By x the derivative is the logit.
            Extreme(
                "infinite-logits",
                {"logits": [INF, INF, -INF, -INF, INF, NAN], "x": [1.0, 0.0, 0.0, 1.0, 0.5, 1.0]},
                {"reduction": "none"},
                results=[[0.0, -INF, 0.0, -INF, -INF, NAN]],
                gradients={
                    "logits": [
                        0.0,
                        *_weighted(-1.0, 1),
                        0.0,
                        *_weighted(1.0, 3),
                        *_weighted(-0.5, 4),
                        NAN,
                    ],
                    "x": _weighted(INF, 0, 1) + _weighted(-INF, 2, 3) + _weighted(INF, 4) + [NAN],
                },
            ),
            Extreme(
                "infinite-x",
                {"logits": [0.5, 0.5, -0.5], "x": [INF, -INF, NAN]},
                {"reduction": "none"},
            ),
        ],
        errors=[
            Error(
                "shapes",
                {"logits": torch.ones(3), "x": torch.ones(4)},
                ValueError,
                r"^x: .*\[3\].*\[4\]",
            ),
            Error(
                "unknown_reduction",
                {"reduction": "mean"},
                ValueError,
                r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
            ),
            Error(
                "row_of_a_number",
                {"logits": torch.tensor(0.0), "x": torch.tensor(1.0), "reduction": "row"},
                ValueError,
                r"^reduction: ",
            ),
        ],
    ),
]
