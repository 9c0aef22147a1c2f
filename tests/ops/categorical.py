"""Record of the categorical log probability.

The generated tests know only floating-point tensors, so the index is made from the shape of the
logits, on their device. tests/functional/test_likelihood_ops.py tests the index itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def index_for(logits: Tensor) -> Tensor:
    """Classes 0, 1, ... row by row."""
    rows = logits.shape[:-1]
    flat = torch.arange(math.prod(rows), device=logits.device)
    return (flat % logits.shape[-1]).reshape(rows)


def _of_logits(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def of_logits(logits: Tensor, *, reduction: str = "none", index: Any = None) -> Tensor:
        if index is None:
            has_rows = isinstance(logits, Tensor) and logits.dim() > 0
            index = index_for(logits) if has_rows else torch.zeros((), dtype=torch.int64)
        return function(index, logits, reduction=reduction)

    return of_logits


@dataclass(frozen=True)
class _IndexedRecord(OpRecord):
    @property
    def function(self) -> Callable[..., Any]:
        return _of_logits(super().function)

    @property
    def reference(self) -> Callable[..., Any]:
        return _of_logits(super().reference)

    def prepared(self, call: Call) -> Call:
        return call.options_but(index=index_for(call.tensors["logits"]))


def _variant(classes: int, reduction: str) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        return Call({"logits": draw.normal((*shape, classes), std=2.0)}, {"reduction": reduction})

    return Variant(inputs)


def _saved_bytes(call: Call, results: tuple[Tensor, ...]) -> int:
    logits = call.tensors["logits"]
    return logits.untyped_storage().nbytes() + 8 * index_for(logits).numel()


_INTS = torch.zeros(2, dtype=torch.int64)

RECORDS = [
    _IndexedRecord(
        "categorical_log_prob",
        {
            "none": _variant(6, "none"),
            "sum": _variant(6, "sum"),
            "one_class": _variant(1, "none"),
            "many_classes": _variant(65, "none"),
            "many_classes-sum": _variant(65, "sum"),
        },
        tolerance={torch.float32: Tolerance(4, 4), torch.float64: Tolerance(4, 4)},
        saved_bytes=_saved_bytes,
        extremes=[
            # The first logit's class is asked for: an Extreme's logits are one row.
            Extreme("certain", {"logits": [100.0, 0.0, -100.0]}),
            Extreme("almost_certain", {"logits": [17.5, 0.0, 0.0]}),
            Extreme("impossible", {"logits": [-100.0, 100.0, 0.0]}),
            Extreme("huge", {"logits": [1e30, -1e30, 1e29]}),
            Extreme("excluded_other", {"logits": [0.5, -INF, 0.5]}),
            Extreme("excluded_itself", {"logits": [-INF, 0.0, 0.5]}),
            Extreme("infinite", {"logits": [INF, 0.0, 0.5]}),
            Extreme("nan", {"logits": [0.0, NAN, 0.5]}),
        ],
        errors=[
            Error(
                "a_number",
                {"logits": torch.tensor(0.0)},
                ValueError,
                r"^logits: expected shape \[\.\.\., classes\], got \[\]",
            ),
            Error(
                "shapes",
                {"logits": torch.ones(3, 5), "index": _INTS},
                ValueError,
                r"^index: expected a shape that broadcasts with \[3\].* got \[2\]",
            ),
            Error(
                "list",
                {"logits": torch.ones(2, 5), "index": [0, 1]},
                TypeError,
                r"^index: expected a torch.Tensor of dtype int64, got list",
            ),
            Error(
                "int32",
                {"logits": torch.ones(2, 5), "index": _INTS.int()},
                TypeError,
                r"^index: expected dtype int64, got int32",
            ),
            Error(
                "float",
                {"logits": torch.ones(2, 5), "index": torch.zeros(2)},
                TypeError,
                r"^index: expected dtype int64, got float32",
            ),
            Error(
                "too_large",
                {"logits": torch.ones(2, 5), "index": _INTS + 5},
                ValueError,
                r"^index: expected class indices from 0 to 4, got 5 to 5",
            ),
            Error(
                "negative",
                {"logits": torch.ones(2, 5), "index": _INTS - 1},
                ValueError,
                r"^index: expected class indices from 0 to 4, got -1 to -1",
            ),
            Error(
                "no_classes",
                {"logits": torch.ones(2, 0), "index": _INTS},
                ValueError,
                r"^index: expected class indices from 0 to -1, got 0 to 0",
            ),
            Error(
                "device",
                {"logits": torch.ones(2, 5), "index": _INTS.to("meta")},
                ValueError,
                r"^index: expected the device of logits, cpu, got meta",
            ),
            Error(
                "unknown_reduction",
                {"reduction": "row"},
                ValueError,
                r"^reduction: expected one of 'none', 'sum', got 'row'",
            ),
        ],
    ),
]
