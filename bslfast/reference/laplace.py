"""The Laplace family in plain torch: what csrc/core/distributions/laplace.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._formulas import log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.location_scale import family


@in_float32(values=0)
def laplace_kl(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    """See :func:`bslfast.functional.laplace_kl`."""
    prior_scale = torch.as_tensor(prior_scale, dtype=loc.dtype, device=loc.device)
    log_ratio = log_scale_of(raw_scale, parametrization) - prior_scale.log()
    difference = loc - prior_loc
    # Not abs(), whose derivative at 0 would hide the second derivative of a smooth function.
    distance = torch.where(difference < 0, -difference, difference)
    scale = scale_of(raw_scale, parametrization)
    delta = distance / scale
    ratio_minus_one = scale / prior_scale - 1
    if parametrization in ("log_scale", "log_var"):
        near = log_ratio.abs() < 0.3  # else its rounding error would be multiplied
        ratio_minus_one = torch.where(
            near, torch.expm1(torch.where(near, log_ratio, 0.0)), ratio_minus_one
        )
    kl = (ratio_minus_one - log_ratio) + distance / prior_scale * _rest_share(delta)
    return reduced(kl, reduction)


def _rest_share(x: Tensor) -> Tensor:
    """``(exp(-x) - 1 + x) / x``."""
    near_x = torch.where(x < 0.5, x, 0.5)
    near = torch.zeros_like(x)
    for k in range(18, 1, -1):
        near = near_x / k * (1 - near)
    # Twice, so that no NaN of the branch not taken comes into the gradient.
    far_x = torch.where(x < 0.5, 0.5, x)
    return torch.where(x < 0.5, near, 1 + torch.expm1(-far_x) / far_x)


def _quantile(u: Tensor) -> Tensor:
    """The number that a share ``u`` of standard Laplace numbers lies below."""
    above = u - 0.5  # exact, as is what the logarithm is of
    return torch.copysign(-torch.log1p(-2 * above.abs()), above)


def _log_density(z: Tensor) -> Tensor:
    """The log density of the standard Laplace distribution."""
    return -z.abs() - math.log(2)


laplace_rsample, laplace_rsample_log_prob, laplace_log_prob = family(_quantile, _log_density)
