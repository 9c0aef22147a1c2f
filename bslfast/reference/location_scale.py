"""What the twins of location-scale families share: csrc/core/distributions/location_scale.h."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bslfast._formulas import in_softplus_tail, log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.noise import uniform


def uniforms(
    *tensors: Tensor,
    sample_shape: Sequence[int],
    seed: int | Tensor | None,
    stream: int,
    numbers: int = 1,
) -> Tensor:
    """The noise for samples of these parameters, in a last dimension if it is several numbers.

    In float32 for 16 bits, where it could be 1.
    """
    like = tensors[0]
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=like.device)
    shape = (*sample_shape, *torch.broadcast_shapes(*(t.shape for t in tensors)))
    if numbers > 1:
        shape = (*shape, numbers)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return uniform(shape, seed, stream=stream, dtype=dtype, device=like.device)


def located(z: Tensor, loc: Tensor, raw_scale: Tensor, parametrization: str) -> Tensor:
    """``loc + scale * z``."""
    return loc + scale_of(raw_scale, parametrization) * z.to(loc.dtype)


def standardised(difference: Tensor, raw_scale: Tensor, parametrization: str) -> Tensor:
    """``difference / scale``, and 0 of 0 also where the scale underflows."""
    if parametrization == "scale":
        scale = scale_of(raw_scale, parametrization)
        return difference / torch.where(scale == 0, torch.finfo(scale.dtype).tiny, scale)
    # 1 / sqrt(scale), which is finite: 1 / scale overflows before the quotient does.
    most = math.floor(math.log(torch.finfo(raw_scale.dtype).max))
    log_scale = log_scale_of(raw_scale, parametrization)
    factor = torch.exp((-0.5 * log_scale).clamp(max=most))
    by_log = difference * factor * factor
    if parametrization != "softplus":
        return by_log
    tail = in_softplus_tail(raw_scale)
    scale = scale_of(torch.where(tail, 0.0, raw_scale), parametrization)
    return torch.where(tail, by_log, difference / scale)


def scaled(log_density: Tensor, z: Tensor, raw_scale: Tensor, parametrization: str) -> Tensor:
    """``log f(z) - log(scale)``; a scale of 0 has everything at the location, where z is 0."""
    log_scale = log_scale_of(raw_scale, parametrization)
    elsewhere = (log_scale == -torch.inf) & (z.abs() > 0)
    return torch.where(elsewhere, -torch.inf, log_density - log_scale)


class Family(NamedTuple):
    """The twins of a family's ops; see those in :mod:`bslfast.functional`."""

    rsample: Callable[..., Tensor]
    rsample_log_prob: Callable[..., tuple[Tensor, Tensor]]
    log_prob: Callable[..., Tensor]


def family(quantile: Callable[[Tensor], Tensor], log_density: Callable[[Tensor], Tensor]) -> Family:
    """The family of ``loc + scale * z``.

    Args:
        quantile: the number that a share ``u`` of the z lies below.
        log_density: of z.
    """

    @in_float32(values=1)
    def rsample(
        loc: Tensor,
        raw_scale: Tensor,
        *,
        parametrization: str = "softplus",
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
        return located(quantile(u), loc, raw_scale, parametrization)

    @in_float32(values=1)
    def rsample_log_prob(
        loc: Tensor,
        raw_scale: Tensor,
        *,
        parametrization: str = "softplus",
        sample_shape: Sequence[int] = (),
        reduction: str = "row",
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> tuple[Tensor, Tensor]:
        u = uniforms(loc, raw_scale, sample_shape=sample_shape, seed=seed, stream=stream)
        z = quantile(u)
        log_prob = log_density(z).to(loc.dtype) - log_scale_of(raw_scale, parametrization)
        return located(z, loc, raw_scale, parametrization), reduced(log_prob, reduction)

    @in_float32(values=0)
    def log_prob(
        x: Tensor,
        loc: Tensor,
        raw_scale: Tensor,
        *,
        parametrization: str = "softplus",
        reduction: str = "row",
    ) -> Tensor:
        z = standardised(x - loc, raw_scale, parametrization)
        return reduced(scaled(log_density(z), z, raw_scale, parametrization), reduction)

    return Family(rsample, rsample_log_prob, log_prob)
