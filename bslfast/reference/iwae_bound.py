"""The importance-weighted bound in plain torch: csrc/core/distributions/iwae_bound.h."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bslfast._precision import in_float32


@in_float32(values=0)
def iwae_bound(log_weights: Tensor, *, dim: int = -1, estimator: str = "iwae") -> Tensor:
    """See :func:`bslfast.functional.iwae_bound`."""
    if estimator == "dreg":
        apply: Any = _DoublyReparametrised.apply
        bound: Tensor = apply(log_weights, dim)
    else:
        bound = torch.logsumexp(log_weights, dim=dim)
    return bound - math.log(log_weights.shape[dim])


class _DoublyReparametrised(torch.autograd.Function):
    """logsumexp with a gradient that is not its own, but that can be differentiated again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_weights: Tensor, dim: int) -> Tensor:
        return torch.logsumexp(log_weights, dim=dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.dim = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (log_weights,) = ctx.saved_tensors
        weights = torch.softmax(log_weights, dim=ctx.dim)
        return grad.unsqueeze(ctx.dim) * weights * weights, None
