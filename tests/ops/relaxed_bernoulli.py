"""Record of relaxed Bernoulli samples."""

from __future__ import annotations

from typing import Any

import torch

from ops.location_scale import INF, NAN, sample_errors, shape_errors
from ops.record import Call, Draw, Error, Extreme, OpRecord, Results, Shape, Tolerance, Variant


def _variant(temperature: str, sample_shape: Shape | None = None) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        tensors = {"logits": draw.normal(shape, std=2.0)}
        options: dict[str, Any] = {}
        if temperature == "number":
            options["temperature"] = 0.75  # which 16 bits hold as well
        else:
            shapes = {
                "row": shape[-1:],
                "wide": (2, *shape),
                "scalar": (),
                "column": (*shape[:-1], 1),
            }
            tensors["temperature"] = draw.uniform(shapes.get(temperature, shape), 0.3, 2.0)
        if sample_shape is not None:
            options["sample_shape"] = sample_shape
        return Call(tensors, options)

    return Variant(inputs)


def _saved_bytes(call: Call, results: Results) -> int:
    """A temperature that is a number is kept as a tensor of one element."""
    tensors = sum(t.untyped_storage().nbytes() for t in call.tensors.values())
    return 8 + tensors + ("temperature" not in call.tensors) * results[0].element_size()


def _extremes() -> list[Extreme]:
    result = []
    logits = [-1e30, -200.0, -88.0, -17.5, -1e-8, 0.0, 1e-8, 17.5, 88.0, 200.0, 1e30]
    for hard in (False, True):
        for temperature in (1e-3, 0.5, 100.0):
            tensors = {"logits": logits, "temperature": [temperature] * len(logits)}
            name = f"{'hard' if hard else 'soft'}-{temperature:g}"
            result.append(Extreme(name, tensors, {"hard": hard}))
        tensors = {"logits": [INF, -INF, NAN, 0.5, 0.5], "temperature": [1.0, 1.0, 1.0, INF, NAN]}
        name = f"{'hard' if hard else 'soft'}-specials"
        result.append(Extreme(name, tensors, {"hard": hard}, no_gradient=range(5)))
    return result


RECORDS = [
    OpRecord(
        "relaxed_bernoulli_rsample",
        # Hard samples are among the extremes only, as their gradients are not their values'.
        {
            "tensor": _variant("full"),
            "number": _variant("number"),
            "row-samples": _variant("row", (2, 2)),
            "scalar": _variant("scalar"),
            "wide": _variant("wide"),
            "column": _variant("column"),
        },
        tolerance=dict.fromkeys((torch.float32, torch.float64), Tolerance(8, 16)),
        random=True,
        extremes=_extremes(),
        errors=[
            *shape_errors("logits", "temperature"),
            *sample_errors(),
            Error("hard", {"hard": 1}, TypeError, r"^hard: expected a bool, got 1"),
            Error(
                "temperature", {"temperature": 0.0}, ValueError, r"^temperature: .*above 0, got 0"
            ),
            Error(
                "temperature_tensor",
                {"temperature": torch.tensor([0.5, -1.0, 0.5])},
                ValueError,
                r"^temperature: expected numbers > 0, got -1",
            ),
            Error(
                "temperature_none", {"temperature": None}, TypeError, r"^temperature: .*NoneType"
            ),
        ],
        saved_bytes=_saved_bytes,
    )
]
