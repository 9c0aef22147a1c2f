"""The half-Cauchy family in plain torch: what csrc/core/distributions/half_cauchy.h computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._formulas import log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.location_scale import scaled, standardised, uniforms


@in_float32(values=1)
def half_cauchy_rsample(
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.half_cauchy_rsample`."""
    u = uniforms(raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
    # Where the tangent is large it comes from 1 - u, which is exact.
    near = torch.tan(0.5 * math.pi * torch.where(u < 0.5, u, 0.5))
    far = 1 / torch.tan(0.5 * math.pi * torch.where(u < 0.5, 0.5, 1 - u))
    z = torch.where(u < 0.5, near, far).to(raw_scale.dtype)
    return scale_of(raw_scale, parametrization) * z


@in_float32(values=0)
def half_cauchy_log_prob(
    x: Tensor, raw_scale: Tensor, *, parametrization: str = "softplus", reduction: str = "row"
) -> Tensor:
    """See :func:`bslfast.functional.half_cauchy_log_prob`."""
    z = standardised(x, raw_scale, parametrization)
    large = z > 1e10  # where 1 + z^2 is z^2
    near = torch.log1p(torch.where(large, 0.0, z) ** 2)
    log_z = torch.log(torch.where(large, x, 1.0)) - log_scale_of(raw_scale, parametrization)
    log_density = math.log(2 / math.pi) - torch.where(large, 2 * log_z, near)
    inside = scaled(log_density, z, raw_scale, parametrization)
    return reduced(torch.where(x < 0, -torch.inf, inside), reduction)


@in_float32(values=0)
def half_cauchy_kl(
    raw_scale: Tensor,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    """See :func:`bslfast.functional.half_cauchy_kl`."""
    prior_scale = torch.as_tensor(prior_scale, dtype=raw_scale.dtype, device=raw_scale.device)
    log_ratio = log_scale_of(raw_scale, parametrization) - prior_scale.log()
    # 2 log(cosh(log_ratio / 2))
    zero = log_ratio.new_zeros(())
    kl = torch.logaddexp(log_ratio, zero) + torch.logaddexp(-log_ratio, zero) - math.log(4)
    return reduced(kl, reduction)
