"""The normal family in plain torch: what csrc/core/distributions/normal.h computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._formulas import log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.noise import normal as standard_normal


@in_float32(values=1)
def normal_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    """See :func:`bslfast.functional.normal_rsample`."""
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=loc.device)
    shape = (*sample_shape, *torch.broadcast_shapes(loc.shape, raw_scale.shape))
    eps = standard_normal(shape, seed, stream=stream, dtype=loc.dtype, device=loc.device)
    return loc + scale_of(raw_scale, parametrization) * eps


@in_float32(values=0)
def normal_kl(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    """See :func:`bslfast.functional.normal_kl`."""
    prior_scale = torch.as_tensor(prior_scale, dtype=loc.dtype, device=loc.device)
    log_ratio = log_scale_of(raw_scale, parametrization) - prior_scale.log()
    if parametrization in ("log_scale", "log_var"):
        square_minus_one = torch.expm1(2 * log_ratio)
    else:
        ratio = scale_of(raw_scale, parametrization) / prior_scale
        square_minus_one = (ratio - 1) * (ratio + 1)
    distance = (loc - prior_loc) / prior_scale
    kl = 0.5 * (square_minus_one + distance**2) - log_ratio
    if reduction == "none":
        return kl
    return kl.sum(dim=-1) if reduction == "row" else kl.sum()


@in_float32(values=1)
def normal_rsample_kl(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "sum",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.normal_rsample_kl`."""
    sample = normal_rsample(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    kl = normal_kl(
        loc,
        raw_scale.expand(torch.broadcast_shapes(loc.shape, raw_scale.shape)),
        prior_loc,
        prior_scale,
        parametrization=parametrization,
        reduction=reduction,
    )
    return sample, kl


def normal_rsample_kl_many(
    loc: Sequence[Tensor],
    raw_scale: Sequence[Tensor],
    *,
    prior_loc: float | Sequence[float] = 0.0,
    prior_scale: float | Sequence[float] = 1.0,
    parametrization: str = "softplus",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """See :func:`bslfast.functional.normal_rsample_kl_many`."""

    def of_each(value: float | Sequence[float]) -> Sequence[float]:
        return value if isinstance(value, Sequence) else [value] * len(loc)

    drawn = [
        normal_rsample_kl(
            one,
            raw,
            prior_loc=one_prior_loc,
            prior_scale=one_prior_scale,
            parametrization=parametrization,
            seed=seed,
            stream=stream + i,
        )
        for i, (one, raw, one_prior_loc, one_prior_scale) in enumerate(
            zip(loc, raw_scale, of_each(prior_loc), of_each(prior_scale), strict=True)
        )
    ]
    return tuple(sample for sample, _ in drawn), sum((kl for _, kl in drawn[1:]), drawn[0][1])
