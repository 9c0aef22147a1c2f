"""Mixtures of discretised logistics in plain torch: csrc/rows/discretized_logistic_mixture.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.discretized_logistic import discretized_logistic_log_prob


@in_float32(values=0)
def discretized_logistic_mixture_log_prob(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    *,
    bins: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.discretized_logistic_mixture_log_prob`."""
    components = discretized_logistic_log_prob(
        x.unsqueeze(-1), loc, raw_log_scale, bins=bins, low=low, high=high, reduction="none"
    )
    log_prob = torch.logsumexp(torch.log_softmax(logits, dim=-1) + components, dim=-1)
    return reduced(log_prob, reduction)
