"""The log-normal family in plain torch: what csrc/core/distributions/lognormal.h computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.normal import normal_rsample
from bslfast.reference.normal_log_prob import normal_log_prob


@in_float32(values=1)
def lognormal_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.lognormal_rsample`."""
    sample = normal_rsample(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample.exp()


@in_float32(values=0)
def lognormal_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.lognormal_log_prob`."""
    outside = x <= 0
    log_x = torch.where(outside, 1.0, x).log()
    inside = normal_log_prob(
        log_x, loc, raw_scale, parametrization=parametrization, reduction="none"
    )
    return reduced(torch.where(outside, -torch.inf, inside - log_x), reduction)
