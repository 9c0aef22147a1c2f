"""Record of Gumbel-softmax samples.

``hard=True`` has the gradient of another value than its own, so the generated tests do not fit it.
tests/functional/test_gumbel_softmax.py tests it.
"""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

NAN, INF = math.nan, math.inf


def _variant(classes: int, temperature: float, sample_shape: Shape = ()) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        logits = draw.normal((*shape, classes), std=2.0)
        options = {"temperature": temperature, "sample_shape": sample_shape}
        return Call({"logits": logits}, options)

    return Variant(inputs)


_OPTIONS = {"temperature": 0.5}

RECORDS = [
    OpRecord(
        "gumbel_softmax_rsample",
        {
            "narrow": _variant(6, 0.7),
            "one_class": _variant(1, 1.0),
            "many_classes": _variant(65, 1.5),
            "samples": _variant(9, 1.0, (3,)),
            "many_classes-samples": _variant(70, 1.0, (2, 2)),
        },
        # Scores are about 5, and what rounding does to them is in their exponentials.
        tolerance={torch.float32: Tolerance(16, 16), torch.float64: Tolerance(16, 16)},
        random=True,
        extremes=[
            Extreme("certain", {"logits": [100.0, 0.0, -100.0]}, _OPTIONS),
            Extreme("huge", {"logits": [1e30, -1e30, 1e29]}, _OPTIONS),
            Extreme("excluded", {"logits": [0.5, -INF, 0.5]}, _OPTIONS),
            Extreme("cold", {"logits": [0.5, -0.5, 0.5]}, {"temperature": 1e-4}),
            Extreme("hot", {"logits": [0.5, -0.5, 0.5]}, {"temperature": 1e10}),
            Extreme("nan", {"logits": [0.5, NAN, 0.5]}, _OPTIONS),
            Extreme("infinite", {"logits": [0.5, INF, 0.5]}, _OPTIONS),
        ],
        errors=[
            Error(
                "a_number",
                {"logits": torch.tensor(0.0)},
                ValueError,
                r"^logits: expected shape \[\.\.\., classes\], got \[\]",
            ),
            Error("cold", {"temperature": 0.0}, ValueError, r"^temperature: .* above 0, got 0\.0"),
            Error("nan", {"temperature": NAN}, ValueError, r"^temperature: .* got nan"),
            Error(
                "temperature_tensor",
                {"temperature": torch.tensor(1.0)},
                TypeError,
                r"^temperature: expected a finite number above 0, got a tensor",
            ),
            Error("hard", {"hard": 1}, TypeError, r"^hard: expected a bool, got 1"),
            Error(
                "sample_shape",
                {"sample_shape": (-1,)},
                ValueError,
                r"^sample_shape: .*\(-1,\)",
            ),
        ],
    ),
]
