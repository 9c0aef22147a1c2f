"""The categorical family in plain torch: what csrc/core/distributions/categorical.h computes."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._precision import in_float32


@in_float32(values=0)
def categorical_log_prob(index: Tensor, logits: Tensor, *, reduction: str = "none") -> Tensor:
    """See :func:`bslfast.functional.categorical_log_prob`."""
    classes = logits.shape[-1]
    shape = torch.broadcast_shapes(logits.shape[:-1], index.shape)
    index = index.expand(shape).unsqueeze(-1)
    valid = (index >= 0) & (index < classes)
    log_probs = torch.log_softmax(logits, dim=-1).expand(*shape, classes)
    found = log_probs.gather(-1, torch.where(valid, index, torch.zeros_like(index)))
    log_prob = torch.where(valid, found, torch.nan).squeeze(-1)
    return log_prob if reduction == "none" else log_prob.sum()
