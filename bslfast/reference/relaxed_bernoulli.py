"""Relaxed Bernoulli samples in plain torch: csrc/core/distributions/relaxed_bernoulli.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.location_scale import uniforms
from bslfast.reference.logistic import logistic_of_uniform


@in_float32(values=1)
def relaxed_bernoulli_rsample(
    logits: Tensor,
    temperature: Tensor | float,
    *,
    hard: bool = False,
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.relaxed_bernoulli_rsample`."""
    temperature = torch.as_tensor(temperature, dtype=logits.dtype, device=logits.device)
    u = uniforms(logits, temperature, sample_shape=sample_shape, seed=seed, stream=stream)
    noise = logistic_of_uniform(u).to(logits.dtype)
    y = (logits + noise) / temperature
    # The sigmoid, by what has an accurate derivative where it is close to 1.
    soft = torch.exp(-torch.logaddexp(-y, y.new_zeros(())))
    if not hard:
        return soft
    # The difference is 0, and has the gradient.
    return (soft.detach() > 0.5).to(soft.dtype) + (soft - soft.detach())
