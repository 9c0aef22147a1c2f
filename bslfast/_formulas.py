"""Formulas in plain torch that the package and its reference share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# c(k) = -(1 - 4^-k) B(2 k) / (k (2 k - 1)), see csrc/core/special.h.
_SERIES = (
    -1 / 8,
    1 / 192,
    -1 / 640,
    17 / 14336,
    -31 / 18432,
    691 / 180224,
    -5461 / 425984,
    929569 / 15728640,
)
_SHIFT = 10
_EULER_GAMMA = 0.5772156649015329


def scale_of(raw_scale: Tensor, parametrization: str) -> Tensor:
    """The standard deviation that a raw parameter stands for."""
    if parametrization == "softplus":
        # Not F.softplus, which is x beyond a threshold: an error of 2e-9 in float64.
        return torch.logaddexp(raw_scale, raw_scale.new_zeros(()))
    if parametrization == "scale":
        return torch.where(raw_scale >= 0, raw_scale, torch.nan)
    return torch.exp(raw_scale if parametrization == "log_scale" else 0.5 * raw_scale)


def in_softplus_tail(raw_scale: Tensor) -> Tensor:
    """Where softplus is exp to the last digit. 16 bits have few, and underflow below -9."""
    return raw_scale < {torch.float64: -37, torch.float32: -17}.get(raw_scale.dtype, -9)


def log_scale_of(raw_scale: Tensor, parametrization: str) -> Tensor:
    """Its logarithm, also where the scale itself underflows."""
    if parametrization == "softplus":
        tail = in_softplus_tail(raw_scale)
        # where() twice: the branch not taken must not send NaN into the gradient.
        inner = torch.where(tail, torch.zeros_like(raw_scale), raw_scale)
        return torch.where(tail, raw_scale, scale_of(inner, parametrization).log())
    if parametrization == "scale":
        return torch.log(raw_scale)
    return raw_scale if parametrization == "log_scale" else 0.5 * raw_scale


def normal_absolute_mean(loc: Tensor, scale: Tensor) -> Tensor:
    """E|w| of w from N(loc, scale), also where the scale is 0."""
    # exp(-z^2 / 2) is 0 from there on in float64, and erf is 1. NaN is far, too.
    far = ~(loc.abs() < 40 * scale)
    # where() twice: the branch not taken must not send NaN into the gradient.
    near, spread = torch.where(far, 0.0, loc), torch.where(far, 1.0, scale)
    z = near / spread
    folded = math.sqrt(2 / math.pi) * spread * torch.exp(-0.5 * z * z)
    return torch.where(far, loc.abs(), folded + near * torch.erf(math.sqrt(0.5) * z))


def normal_laplace_kl(
    loc: Tensor,
    raw_scale: Tensor,
    parametrization: str,
    prior_loc: Tensor | float,
    prior_scale: Tensor | float,
) -> Tensor:
    """KL(N(loc, scale) || Laplace(prior_loc, prior_scale)) of each element, in nats."""
    spread = normal_absolute_mean(loc - prior_loc, scale_of(raw_scale, parametrization))
    log_ratio = log_scale_of(raw_scale, parametrization) - _log(prior_scale)
    return spread / prior_scale - log_ratio + 0.5 * (math.log(2 / math.pi) - 1)


def laplace_normal_kl(
    loc: Tensor,
    raw_scale: Tensor,
    parametrization: str,
    prior_loc: Tensor | float,
    prior_scale: Tensor | float,
) -> Tensor:
    """KL(Laplace(loc, scale) || N(prior_loc, prior_scale)) of each element, in nats."""
    z = (loc - prior_loc) / prior_scale
    ratio = scale_of(raw_scale, parametrization) / prior_scale
    log_ratio = log_scale_of(raw_scale, parametrization) - _log(prior_scale)
    return 0.5 * z * z + ratio * ratio - log_ratio + 0.5 * math.log(math.pi / 2) - 1


def _log(value: Tensor | float) -> Tensor | float:
    return value.log() if isinstance(value, Tensor) else math.log(value)


def planar_direction(u: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The direction u + k w of an invertible map, its product m > -1 with w, and 1 + m."""
    wu, ww = (w * u).sum(dim=-1), (w * w).sum(dim=-1)
    none = ww == 0
    soft = torch.logaddexp(wu, wu.new_zeros(()))
    m, det = torch.where(none, wu, soft - 1), torch.where(none, 1 + wu, soft)
    k = (m - wu) / torch.where(none, 1.0, ww)
    return u + k.unsqueeze(-1) * w, m, det


def log_near_one(less_one: Tensor, whole: Tensor) -> Tensor:
    """The logarithm of ``whole`` = 1 + ``less_one``: each where it is accurate."""
    near = ~(less_one < -0.5)
    # where() twice: the branch not taken must not send NaN into the gradient.
    close = torch.log1p(torch.where(near, less_one, 0.0))
    return torch.where(near, close, torch.log(torch.where(near, 1.0, whole)))


def bound_of(dtype: torch.dtype, bound: float) -> float:
    """``bound`` as a number of 16 bits if ``dtype`` has so few, else as it is.

    Rounded to such a dtype, what lies below a bound that is none of its numbers may lie above.
    """
    info = torch.finfo(dtype)
    if info.bits > 16:
        return bound
    # Dekker's splitting: arithmetic, which torch.compile traces whatever is known of the number.
    scaled = bound * (info.eps * 2.0**52 + 1)
    return min(scaled - (scaled - bound), info.max)


def log_gamma_half_step(x: Tensor) -> Tensor:
    """``lgamma(x + 1/2) - lgamma(x) - log(x) / 2``, which the difference has few digits of."""
    small = x < _SHIFT
    low = torch.where(small, x, 1.0)
    shift = 0.5 * torch.log((low + _SHIFT) / low)
    for i in range(_SHIFT):
        shift = shift + torch.log((low + i) / (low + (i + 0.5)))
    high = torch.where(small, x + _SHIFT, x)
    square = 1 / (high * high)
    series = torch.zeros_like(x)
    for c in reversed(_SERIES):
        series = series * square + c
    return series / high + torch.where(small, shift, 0.0)


def log_exp_e1(u: Tensor) -> Tensor:
    """log(exp(z) E1(z)) of z = u^2 / 2, by the series about 0 and the continued fraction."""
    z = 0.5 * u * u
    near = z < 1
    # where() twice: the branch not taken must not send NaN into the gradient.
    small = torch.where(near, z, 0.5)
    power, series = torch.ones_like(z), torch.zeros_like(z)
    for k in range(1, 21):
        power = power * (-small / k)
        series = series - power / k
    log_z = 2 * torch.where(near, u, 1.0).log() - math.log(2)
    e1 = series - log_z - _EULER_GAMMA
    large = torch.where(near, 1.0, z)
    fraction = torch.ones_like(z)
    for k in range(120, 0, -1):
        fraction = 1 + k / (large + (k + 1) / fraction)
    # exp(z) E1(z) = 1 / (z + 1 / (1 + 1 / (z + 2 / (1 + 2 / (z + ...)))))
    far = math.log(2) - 2 * torch.where(near, 1.0, u).log() - torch.log1p(1 / (large * fraction))
    return torch.where(near, z + e1.log(), far)
