"""Records of divergences by logits and log rates: Bernoulli, and the generalised one.

Next to 0 these tests bound absolute errors; tests/distributions/test_discrete.py bounds relative
ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.location_scale import reduction_errors, shape_errors
from ops.record import Call, Draw, Extreme, OpRecord, Results, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _pair(names: tuple[str, str], reduction: str, layout: str = "full", **near: float) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        first = draw.normal(shape[-1:] if layout == "row" else shape)
        other = (2, *shape) if layout == "wide" else shape
        second = draw.normal(other)
        if near:
            second = first + near["std"] * second
        return Call(dict(zip(names, (first, second), strict=True)), {"reduction": reduction})

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def _normalised(reduction: str) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        p, q = draw.normal(shape), draw.normal(shape)
        tensors = {"log_p": p, "log_q": q}
        for name, logits in (("log_p_total", p), ("log_q_total", q)):
            tensors[name] = logits.logsumexp(-1, keepdim=True)
        return Call(tensors, {"reduction": reduction})

    return Variant(inputs, min_dims=1)


def _pairs(names: tuple[str, str], first: list[float], second: list[float]) -> dict[str, Any]:
    """All pairs of one number with another."""
    return {
        names[0]: [a for a in first for _ in second],
        names[1]: [b for _ in first for b in second],
    }


def _saved_bytes(call: Call, results: Results) -> int:
    """A total that is a number is kept as a tensor of one element."""
    tensors = sum(t.untyped_storage().nbytes() for t in call.tensors.values())
    return tensors + (4 - len(call.tensors)) * results[0].element_size()


_NAMES = ("logits", "prior_logits")
_LOGS = ("log_p", "log_q")
_LOGITS = [-1e30, -200.0, -17.5, -1.0, -1e-8, 0.0, 0.25, 1.0, 17.5, 88.0, 1e30]
_LOG_RATES = [-1e30, -200.0, -17.5, -1.0, -1e-8, 0.0, 0.25, 1.0, 17.5, 60.0]
_NEAR = [-0.7, -0.69, -0.3, -1e-2, -1e-5, 0.0, 1e-5, 1e-2, 0.3, 0.69, 0.7]

RECORDS = [
    OpRecord(
        "bernoulli_kl",
        {
            "row-row_logits": _pair(_NAMES, "row", "row"),
            "none-near": _pair(_NAMES, "none", std=0.1),
            "sum-wide_prior": _pair(_NAMES, "sum", "wide"),
        },
        tolerance={torch.float32: Tolerance(4, 4), torch.float64: Tolerance(4, 4)},
        extremes=[
            Extreme("logits", _pairs(_NAMES, _LOGITS, _LOGITS), {"reduction": "none"}),
            Extreme("near", _pairs(_NAMES, [0.0], _NEAR), {"reduction": "none"}),
            Extreme(
                "infinite",
                {
                    "logits": [INF, -INF, INF, -INF, 0.5, -200.0, 0.5, 200.0, NAN, 0.5],
                    "prior_logits": [INF, -INF, -INF, 3.0, -INF, -INF, INF, INF, 0.5, NAN],
                },
                {"reduction": "none"},
                results=[[0, 0, INF, math.log1p(math.exp(3)), INF, INF, INF, INF, NAN, NAN]],
                no_gradient=(2, 4, 5, 6, 7, 8, 9),
            ),
        ],
        errors=[*shape_errors(*_NAMES), *reduction_errors(*_NAMES)],
    ),
    OpRecord(
        "generalized_kl",
        {
            "row-row_p": _pair(_LOGS, "row", "row"),
            "row-totals": _normalised("row"),
            "none-near": _pair(_LOGS, "none", std=0.1),
        },
        tolerance={torch.float32: Tolerance(8, 8), torch.float64: Tolerance(8, 8)},
        saved_bytes=_saved_bytes,
        extremes=[
            Extreme("log_rates", _pairs(_LOGS, _LOG_RATES, _LOG_RATES), {"reduction": "none"}),
            Extreme("near", _pairs(_LOGS, [0.0], _NEAR), {"reduction": "none"}),
            # exp(89) is infinite in float32, what is left of it is not.
            Extreme(
                "large",
                {"log_p": [89.0, 89.0, 88.5, 89.0], "log_q": [89.0, 89.25, 89.0, 88.0]},
                {"reduction": "none"},
            ),
            Extreme(
                "infinite",
                {
                    "log_p": [-INF, -INF, 1.0, -200.0, NAN, 0.5],
                    "log_q": [-INF, 1.0, -INF, -INF, 0.5, NAN],
                },
                {"reduction": "none"},
                results=[[0.0, math.exp(1), INF, INF, NAN, NAN]],
                no_gradient=(2, 3, 4, 5),
            ),
        ],
        errors=[*shape_errors(*_LOGS), *reduction_errors(*_LOGS)],
    ),
]
