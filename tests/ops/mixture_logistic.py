"""Record of the map by mixtures of logistics."""

from __future__ import annotations

import math
from typing import Any

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF = math.inf
_ONES = torch.ones


def _variant(
    stds: dict[str, float],
    reduction: str,
    *,
    components: int = 2,
    inverse: bool = False,
    layout: str = "full",
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        x = draw.normal((*shape[:-1], 1) if layout == "column" and shape else shape, std=2.0)
        leading = shape[-1:] if layout == "row" else (2, *shape) if layout == "wide" else shape
        rows = (*leading, components)
        return Call(
            {"x": x, **{name: draw.normal(rows, std=std) for name, std in stds.items()}},
            {"inverse": inverse, "reduction": reduction},
        )

    return Variant(inputs, min_dims=1 if reduction == "row" else 0)


def variants(**stds: float) -> dict[str, Variant]:
    """Variants of a map by rows of parameters, drawn with these standard deviations."""

    def variant(reduction: str, **options: Any) -> Variant:
        return _variant(stds, reduction, **options)

    return {
        "row": variant("row"),
        "none-three": variant("none", components=3),
        "none-one_component": variant("none", components=1),
        "sum-row_parameters": variant("sum", layout="row"),
        "row-wide_parameters": variant("row", layout="wide"),
        "inverse-row": variant("row", inverse=True),
        "inverse-none-three": variant("none", components=3, inverse=True),
        "inverse-sum-column_x": variant("sum", inverse=True, layout="column"),
    }


def errors(first: str, second: str) -> list[Error]:
    """Errors of a map by mixtures, given the names of the components' parameters."""
    return [
        Error(
            f"{first}_components",
            {first: _ONES(2, 3, 5)},
            ValueError,
            rf"^{first}: expected a last dimension of 2, as logits has, got 5",
        ),
        Error(
            "no_components",
            {"logits": _ONES(2, 3, 0)},
            ValueError,
            r"^logits: expected 1 to 64 components in the last dimension, got 0",
        ),
        Error(
            "too_many_components",
            {"logits": _ONES(2, 3, 65)},
            ValueError,
            r"^logits: expected 1 to 64 components in the last dimension, got 65",
        ),
        Error(
            "a_number",
            {second: torch.tensor(1.0)},
            ValueError,
            rf"^{second}: expected shape \[\.\.\., components\], got \[\]",
        ),
        Error(
            "shapes",
            {first: _ONES(4, 3, 2)},
            ValueError,
            rf"^{first}: expected leading dimensions .*\[2, 3\], got \[4, 3\]",
        ),
        Error("inverse_text", {"inverse": "yes"}, TypeError, r"^inverse: .*got 'yes'"),
        Error(
            "unknown_reduction",
            {"reduction": "mean"},
            ValueError,
            r"^reduction: expected one of 'none', 'row', 'sum', got 'mean'",
        ),
        Error(
            "row_of_a_number",
            {
                "x": torch.tensor(0.0),
                **dict.fromkeys(("logits", first, second), torch.zeros(2)),
            },
            ValueError,
            r"^reduction: 'row' sums over the last dimension",
        ),
    ]


def _extremes() -> list[Extreme]:
    result = []
    for inverse in (False, True):
        name = "inverse" if inverse else "forward"
        options = {"reduction": "none", "inverse": inverse}
        x = [-1e30, -3e4, -200.0, -30.0, -1.0, 0.0, 1.0, 30.0, 200.0, 3e4, 1e30]
        n = len(x)
        # One component is affine: nothing is lost at any distance.
        one = {"logits": [[7.0]] * n, "loc": [[0.0]] * n, "log_scale": [[0.0]] * n}
        result.append(Extreme(f"{name}-one", {"x": x, **one}, options))
        # Two equal components with huge logits.
        same = {k: [[v[0][0]] * 2] * n for k, v in one.items()} | {"logits": [[1e30, 1e30]] * n}
        result.append(Extreme(f"{name}-same", {"x": x, **same}, options))
        # A component without weight, and weights of all sizes.
        others = {
            "x": [0.5, -2.0, 2.0, 50.0, -50.0],
            "logits": [[0.0, -INF], [-1e30, 0.0], [90.0, 0.0], [0.0, -60.0], [0.0, 60.0]],
            "loc": [[0.0, 1.0], [0.0, 0.5], [0.0, 1.0], [0.0, 0.5], [0.0, 0.5]],
            "log_scale": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
        }
        result.append(Extreme(f"{name}-weights", others, options))
        wide = {
            "x": [0.25, 0.25, -2.0],
            "logits": [[0.0], [0.0], [0.0]],
            "loc": [[0.25], [0.25], [0.0]],
            "log_scale": [[-60.0], [60.0], [-4.0]],
        }
        if not inverse:
            result.append(Extreme(f"{name}-scales", wide, options))
    return [*result, *_far()]


def _far() -> list[Extreme]:
    result = []
    # z, or x - loc, is more than float32 holds. Either one component counts, or two at the same
    # distance, or those on both sides.
    far = {
        "x": [1.0, 200.0, -3e38, 1e30, 0.5, 3e38],
        "logits": [[0.0, -1.0], [89.0, 0.0], [0.0, 0.0], [0.5, 0.5], [0.25, 0.0], [0.0, 0.0]],
        "loc": [[0.0, 0.5], [-10.0, 5.0], [0.0, 3e38], [0.0, 0.0], [0.0, 1.0], [-3e38, 0.0]],
        "log_scale": [
            [-100.0, -200.0],
            [-89.0, -120.0],
            [1.0, 0.0],
            [-30.0, -30.0],
            [-150.0, -120.0],
            [88.0, 88.0],
        ],
    }
    one = {
        "x": [1.0, 200.0, -1e20, 0.25, 2e38],
        "logits": [[1e4]] * 5,
        "loc": [[0.0], [-10.0], [3e38], [0.25], [-2e38]],
        "log_scale": [[-200.0], [-89.0], [-10.0], [-200.0], [60.0]],
    }
    options = {"reduction": "none"}
    result.append(Extreme("forward-far", far, options))
    result.append(Extreme("forward-far_one", one, options))
    # Solutions beyond the largest number, and components narrower than the last digit of x.
    inverse = {**options, "inverse": True}
    beyond = {
        "x": [1.0, -2.0, 1e-3, 0.0, 3.0],
        "logits": [[0.0]] * 5,
        "loc": [[0.0], [1.0], [-104.0], [2.5], [0.0]],
        "log_scale": [[100.0], [200.0], [200.0], [-200.0], [-13.0]],
    }
    result.append(Extreme("inverse-beyond", beyond, inverse))
    narrow = {
        "x": [0.5, -2.0, 1.0, 3.0, -0.25],
        "logits": [[0.0, 1.0], [0.5, 0.0], [0.0, -1.0], [0.0, 0.0], [0.0, 2.0]],
        "loc": [[1.0, 1.0], [1.5, 1.5], [-2.0, -2.0], [1000.0, 1000.0], [1.0, 1.0]],
        "log_scale": [[-13.0, -12.0], [-20.0, -19.5], [-60.0, -58.0], [-9.0, -8.0], [-30.0, 0.0]],
    }
    result.append(Extreme("inverse-narrow", narrow, inverse))
    return result


RECORDS = [
    OpRecord(
        "mixture_logistic_transform",
        variants(logits=1.0, loc=1.0, log_scale=0.5),
        tolerance={torch.float32: Tolerance(64, 512), torch.float64: Tolerance(64, 512)},
        extremes=_extremes(),
        errors=errors("loc", "log_scale"),
    )
]
