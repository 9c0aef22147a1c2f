"""The normal log density in plain torch: csrc/core/distributions/normal_log_prob.h."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.normal import log_scale_of, scale_of


@in_float32(values=0)
def normal_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.normal_log_prob`."""
    log_scale = log_scale_of(raw_scale, parametrization)
    if parametrization in ("log_scale", "log_var"):
        z = (x - loc) * torch.exp(-log_scale)
    else:
        z = (x - loc) / scale_of(raw_scale, parametrization)
    log_prob = -0.5 * z * z - (log_scale + 0.5 * math.log(2 * math.pi))
    if reduction == "none":
        return log_prob
    return log_prob.sum(dim=-1) if reduction == "row" else log_prob.sum()
