"""Record of the deep sigmoidal transformation."""

from __future__ import annotations

import math

import torch

from ops.mixture_logistic import errors, variants
from ops.record import Extreme, OpRecord, Tolerance

INF = math.inf
#: softplus(raw_slope) = 1
_ONE = math.log(math.expm1(1.0))


def _extremes() -> list[Extreme]:
    result = []
    for inverse in (False, True):
        name = "inverse" if inverse else "forward"
        options = {"reduction": "none", "inverse": inverse}
        # At 1e30 the oracle's own error of some eps of x is not small against 1.
        far = 1e6 if inverse else 1e30
        x = [-far, -3e4, -200.0, -30.0, -1.0, 0.0, 1.0, 30.0, 200.0, 3e4, far]
        n = len(x)
        # One sigmoid is affine: nothing is lost at any distance.
        one = {"logits": [[7.0]] * n, "raw_slope": [[2.0]] * n, "shift": [[0.0]] * n}
        result.append(Extreme(f"{name}-one", {"x": x, **one}, options))
        # Two equal sigmoids with huge logits.
        same = {k: [[v[0][0]] * 2] * n for k, v in one.items()} | {"logits": [[1e30, 1e30]] * n}
        result.append(Extreme(f"{name}-same", {"x": x, **same}, options))
        # A sigmoid without weight, and weights of all sizes.
        others = {
            "x": [0.5, -2.0, 2.0, 50.0, -50.0],
            "logits": [[0.0, -INF], [-1e30, 0.0], [90.0, 0.0], [0.0, -60.0], [0.0, 60.0]],
            "raw_slope": [[_ONE, _ONE]] * 5,
            "shift": [[0.0, 1.0], [0.0, 0.5], [0.0, 1.0], [0.0, 0.5], [0.0, 0.5]],
        }
        result.append(Extreme(f"{name}-weights", others, options))
        # Slopes whose softplus float32 does not hold, and large slopes, alone and with others.
        alone = [-100.0, -86.0, -120.0, -30.0, 30.0, 100.0]
        flat = {
            "x": [0.25, 1.0, -1.0, -3.0, 0.5, -0.01],
            "logits": [[0.0]] * 6,
            "raw_slope": [[v] for v in alone],
            "shift": [[0.25], [1.0], [-1.0], [-3.0], [0.25], [0.25]],
        }
        # The inverse's derivatives by the first and the third slope overflow in float32.
        steep = (0, 2) if inverse else ()
        result.append(Extreme(f"{name}-slopes", flat, options, no_gradient=steep))
        mixed = {
            "x": [0.5, -0.5, 0.9, 0.0, 0.125],
            "logits": [[0.0, 0.0]] * 5,
            "raw_slope": [[1.0, -100.0], [1.0, -60.0], [2.0, -30.0], [1.0, 100.0], [20.0, -20.0]],
            "shift": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.25], [0.0, 0.0], [0.0, 0.0]],
        }
        result.append(Extreme(f"{name}-mixed_slopes", mixed, options))
    far = {
        "x": [1e30, -1e30, 3e38, 2.0, -1e20],
        "logits": [[0.0, -1.0], [89.0, 0.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.0]],
        "raw_slope": [[1e10, 1e20], [1e9, 1e12], [1.0, 1.0], [3e38, 3e38], [1e20, 1e30]],
        "shift": [[0.0, 0.5], [-10.0, 5.0], [-3e38, 0.0], [0.0, 0.0], [1e20, 3e38]],
    }
    result.append(Extreme("forward-far", far, {"reduction": "none"}))
    # Solutions beyond the largest number, because of a slope or of weights.
    lost = {
        "x": [3.0, -3.0, 0.0, 1e30],
        "logits": [[0.0, 0.0]] * 4,
        "raw_slope": [[1.0, -INF], [1.0, -INF], [-INF, -INF], [-INF, -INF]],
        "shift": [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
    }
    options = {"reduction": "none", "inverse": True}
    values = [INF, -INF, 0.0, INF]
    result.append(
        Extreme(
            "inverse-nowhere",
            lost,
            options,
            results=[values, None],
            no_gradient=range(4),
        )
    )
    return result


RECORDS = [
    OpRecord(
        "deep_sigmoidal_transform",
        variants(logits=1.0, raw_slope=1.0, shift=1.0),
        tolerance={torch.float32: Tolerance(64, 512), torch.float64: Tolerance(64, 512)},
        extremes=_extremes(),
        errors=errors("raw_slope", "shift"),
    )
]
