"""Student's t family in plain torch: what csrc/core/distributions/student_t.h computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._formulas import log_gamma_half_step, log_scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.location_scale import located, scaled, standardised, uniforms


@in_float32(values=1)
def student_t_rsample(
    df: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.student_t_rsample`."""
    u = uniforms(df, loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream, numbers=2)
    w = -2 * torch.log(u[..., 0])
    df = torch.where(df > 0, df, torch.nan)
    a = w / df
    # (1 - exp(-a)) / a, by its series where the quotient is 0 / 0 or its derivative cancels.
    close = a < 0.5
    near_a = torch.where(close, a, 0.5)
    near = torch.ones_like(a)
    for k in range(18, 1, -1):
        near = 1 - near_a / k * near
    far_a = torch.where(close, 1.0, a)
    phi = torch.where(close, near, -torch.expm1(-far_a) / far_a)
    t = torch.sqrt(w * phi) * torch.cos(2 * math.pi * u[..., 1])
    sample = located(t * torch.exp(0.5 * a), loc, raw_scale, parametrization).detach()
    # Beyond the largest number a derivative is as large as one can be, but a gradient of 0 stays 0:
    # that of a sample next to it, times a factor.
    largest = torch.finfo(loc.dtype).max
    most = torch.where(sample.isinf(), math.log(largest) - 5, torch.inf)
    factor = torch.where(sample.isinf(), loc.new_full((), math.sqrt(largest)), 1.0)
    half = 0.5 * a.detach()
    grown = torch.exp(torch.minimum(half, most) + factor * (0.5 * a - half))
    fixed = raw_scale.detach()
    raw_scale = fixed + factor * torch.where(fixed.isinf(), 0.0, raw_scale - fixed)
    near = located(t * grown, loc, raw_scale, parametrization)
    return near + torch.where(near == sample, 0.0, sample - near).detach()


@in_float32(values=0)
def student_t_log_prob(
    x: Tensor,
    df: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.student_t_log_prob`."""
    z = standardised(x - loc, raw_scale, parametrization)
    df = torch.where(df > 0, df, torch.nan)
    large = z.abs() > 1e10 * df.sqrt()  # where 1 + z^2 / df is z^2 / df
    near = torch.log1p(torch.where(large, 0.0, z) ** 2 / df)
    log_z = torch.log(torch.where(large, x - loc, 1.0).abs())
    far = 2 * (log_z - log_scale_of(raw_scale, parametrization)) - df.log()
    kernel = 0.5 * (df + 1) * torch.where(large, far, near)
    normaliser = log_gamma_half_step(0.5 * df) - 0.5 * math.log(2 * math.pi)
    return reduced(scaled(normaliser - kernel, z, raw_scale, parametrization), reduction)
