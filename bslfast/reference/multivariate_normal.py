"""Normal vectors in plain torch: what csrc/core/distributions/multivariate_normal.h computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._formulas import scale_of
from bslfast._precision import in_float32
from bslfast.reference.noise import normal as standard_normal
from bslfast.reference.normal import normal_kl


@in_float32(values=1)
def multivariate_normal_rsample_kl(
    loc: Tensor,
    raw_scale: Tensor,
    lower: Tensor,
    *,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.multivariate_normal_rsample_kl`."""
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=loc.device)
    eps = standard_normal(
        (*sample_shape, *loc.shape), seed, stream=stream, dtype=loc.dtype, device=loc.device
    )
    below = lower.tril(-1)
    sample = loc + scale_of(raw_scale, parametrization) * eps + eps @ below.t()
    kl = normal_kl(loc, raw_scale, prior_loc, prior_scale, parametrization=parametrization)
    return sample, kl + 0.5 * (below / prior_scale).square().sum()
