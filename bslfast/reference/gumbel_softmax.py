"""Gumbel-softmax samples in plain torch: csrc/core/distributions/gumbel_softmax.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.noise import uniform


@in_float32(values=1)
def gumbel_softmax_rsample(
    logits: Tensor,
    temperature: float,
    *,
    hard: bool = False,
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.gumbel_softmax_rsample`."""
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=logits.device)
    shape = (*sample_shape, *logits.shape)
    u = uniform(shape, seed, stream=stream, dtype=logits.dtype, device=logits.device)
    scores = (logits - torch.log(-torch.log(u))) / temperature
    soft = torch.softmax(scores, dim=-1)
    if not hard:
        return soft
    # Straight through: the value of the one, the gradient of the other. NaN in a row is in all.
    index = scores.argmax(dim=-1, keepdim=True)
    one_hot = torch.zeros_like(soft).scatter(-1, index, 1.0)
    return one_hot + (soft - soft.detach())
