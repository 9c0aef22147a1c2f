"""Record of normal vectors with a full covariance."""

from __future__ import annotations

import math

import torch

from ops.normal import raw_scale
from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF = math.inf
# Even, so that the middle of a factor lies below its diagonal. The last block of rows is not full,
# and the larger number makes several chunks.
MOST = 302, 602


def _variant(
    parametrization: str,
    *,
    prior: tuple[float, float] | None = None,
    sample_shape: Shape | None = None,
) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        numel = math.prod(shape)
        n = min(numel, MOST[numel >= 1000])
        tensors = {
            "loc": draw.normal((n,)),
            "raw_scale": raw_scale(draw, (n,), parametrization),
            # Above the diagonal, too.
            "lower": draw.normal((n, n), std=0.5),
        }
        call = Call(tensors, {"parametrization": parametrization})
        if prior is not None:
            call = call.options_but(prior_loc=prior[0], prior_scale=prior[1])
        return call if sample_shape is None else call.options_but(sample_shape=sample_shape)

    return Variant(inputs)


def _extremes() -> list[Extreme]:
    result = []
    lower = [[0.5 * (i + 1) * (-1) ** j for j in range(3)] for i in range(3)]
    for parametrization, raw in {
        "softplus": [-200.0, -17.5, 1e18],
        "scale": [0.0, 1e-40, 1e18],
        "log_scale": [-100.0, 0.0, 40.0],
        "log_var": [-200.0, 0.0, 80.0],
    }.items():
        tensors = {"loc": [0.5, -0.5, 0.5], "raw_scale": raw, "lower": lower}
        result.append(Extreme(parametrization, tensors, {"parametrization": parametrization}))
    tensors = {"loc": [0.5, -0.5, 0.5], "raw_scale": [0.1, 0.2, 0.3]}
    # What does not count, whatever it is.
    above = [[math.nan, INF, INF], [0.5, -INF, math.nan], [-1.0, 2.0, INF]]
    result.append(Extreme("above_the_diagonal", {**tensors, "lower": above}))
    # The prior's precision is not a float32; where the factor is 0 its gradient is 0.
    zeros = {**tensors, "lower": [[0.0] * 3] * 3}
    result.append(Extreme("prior_scale-tiny", zeros, {"prior_loc": 0.5, "prior_scale": 1e-22}))
    return result


RECORDS = [
    OpRecord(
        "multivariate_normal_rsample_kl",
        {
            "softplus": _variant("softplus"),
            "scale-samples": _variant("scale", sample_shape=(5,)),
            "log_scale-prior": _variant("log_scale", prior=(0.3, 1.7)),
            "log_var-prior-samples": _variant("log_var", prior=(-0.2, 0.7), sample_shape=(2, 3)),
        },
        # Samples are sums of n products, some of which cancel. Found: 3.9 and 4.8; in float64, of
        # which the twin's own sums have the larger part, 13.9 and 4.1.
        tolerance={torch.float32: Tolerance(6, 8), torch.float64: Tolerance(16, 8)},
        random=True,
        extremes=_extremes(),
        errors=[
            Error(
                "loc_shape", {"loc": torch.ones(2, 3)}, ValueError, r"^loc: .*\[n\], got \[2, 3\]"
            ),
            Error(
                "raw_scale_shape",
                {"raw_scale": torch.ones(1)},
                ValueError,
                r"^raw_scale: expected shape \[6\], as loc has 6 elements, got \[1\]",
            ),
            Error(
                "lower_shape",
                {"lower": torch.ones(6, 5)},
                ValueError,
                r"^lower: expected shape \[6, 6\], as loc has 6 elements, got \[6, 5\]",
            ),
            Error(
                "unknown_parametrization",
                {"parametrization": "sigma"},
                ValueError,
                r"^parametrization: expected one of 'softplus', .*'sigma'",
            ),
            Error(
                "negative_scale",
                {"parametrization": "scale", "raw_scale": torch.tensor([1.0, -0.25, 1, 1, 1, 1])},
                ValueError,
                r"^raw_scale: expected scales >= 0, got -0.25",
            ),
            Error("prior_loc_nan", {"prior_loc": math.nan}, ValueError, r"^prior_loc: .*got nan"),
            Error("prior_loc_text", {"prior_loc": "0"}, TypeError, r"^prior_loc: .*got '0'"),
            Error("prior_scale_zero", {"prior_scale": 0.0}, ValueError, r"^prior_scale: .*above 0"),
            Error("sample_shape_negative", {"sample_shape": (-1,)}, ValueError, r"^sample_shape: "),
            Error("sample_shape_text", {"sample_shape": "2"}, TypeError, r"^sample_shape: .*'2'"),
        ],
    ),
]
