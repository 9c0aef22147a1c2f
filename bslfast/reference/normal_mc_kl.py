"""Monte-Carlo divergences of normals in plain torch: csrc/core/distributions/normal_mc_kl.h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._formulas import log_exp_e1, log_gamma_half_step, log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.noise import normal as standard_normal

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@in_float32(values=1)
def normal_rsample_mc_kl(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    prior: str = "scale_mixture",
    pi: float = 0.5,
    sigma1: float = 1.0,
    sigma2: float = 0.1,
    prior_scale: float = 1.0,
    prior_df: float = 3.0,
    parametrization: str = "softplus",
    reduction: str = "sum",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.normal_rsample_mc_kl`."""
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=loc.device)
    shape = (*sample_shape, *torch.broadcast_shapes(loc.shape, raw_scale.shape))
    e = standard_normal(shape, seed, stream=stream, dtype=loc.dtype, device=loc.device)
    z = loc + scale_of(raw_scale, parametrization) * e
    log_q = -0.5 * e * e - log_scale_of(raw_scale, parametrization) - _HALF_LOG_2_PI
    if prior == "scale_mixture":
        log_p = torch.logaddexp(
            -0.5 * (z / sigma1) ** 2 + math.log(pi / sigma1),
            -0.5 * (z / sigma2) ** 2 + math.log((1 - pi) / sigma2),
        )
        log_p = log_p - _HALF_LOG_2_PI
    elif prior == "laplace":
        log_p = -z.abs() / prior_scale - math.log(2 * prior_scale)
    elif prior == "student_t":
        half_step = log_gamma_half_step(z.new_full((), 0.5 * prior_df))
        constant = half_step - _HALF_LOG_2_PI - math.log(prior_scale)
        kernel = torch.log1p((z / prior_scale) ** 2 / prior_df)
        log_p = constant - 0.5 * (prior_df + 1) * kernel
    elif prior == "horseshoe":
        log_f = log_exp_e1((z / prior_scale).abs())
        log_p = log_f - math.log(math.pi * prior_scale) - _HALF_LOG_2_PI
    else:
        log_p = -z.abs().log()
    return z, reduced(log_q - log_p, reduction)
