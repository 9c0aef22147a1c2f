"""Normal log densities in plain torch: csrc/core/distributions/normal_log_prob.h."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._formulas import log_scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.location_scale import located, scaled, standardised
from bslfast.reference.noise import normal as standard_normal

_HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


@in_float32(values=0)
def normal_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    """See :func:`bslfast.functional.normal_log_prob`."""
    z = standardised(x - loc, raw_scale, parametrization)
    log_density = -0.5 * z * z - _HALF_LOG_2_PI
    return reduced(scaled(log_density, z, raw_scale, parametrization), reduction)


@in_float32(values=1)
def normal_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
    path_only: bool = False,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.normal_rsample_log_prob`."""
    if seed is None:
        seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=loc.device)
    shape = (*sample_shape, *torch.broadcast_shapes(loc.shape, raw_scale.shape))
    e = standard_normal(shape, seed, stream=stream, dtype=loc.dtype, device=loc.device)
    log_scale = log_scale_of(raw_scale, parametrization)
    if path_only:
        apply: Any = _AlongPath.apply
        given = (loc.expand(shape), log_scale.expand(shape), raw_scale, parametrization)
        log_prob = apply(e, *given)
    else:
        log_prob = -0.5 * e * e - (log_scale + _HALF_LOG_2_PI)
    return located(e, loc, raw_scale, parametrization), reduced(log_prob, reduction)


class _AlongPath(torch.autograd.Function):
    """The log density with the gradient that reaches it through the sample."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        e: Tensor, loc: Tensor, log_scale: Tensor, raw_scale: Tensor, parametrization: str
    ) -> Tensor:
        return -0.5 * e * e - (log_scale + _HALF_LOG_2_PI)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        e, _, _, raw_scale, ctx.parametrization = inputs
        ctx.save_for_backward(e, raw_scale)
        ctx.save_for_forward(e, raw_scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        e, raw_scale = ctx.saved_tensors
        by_loc = -grad * standardised(e, raw_scale, ctx.parametrization)
        return None, by_loc, -grad * e * e, None, None

    @staticmethod
    def jvp(ctx: Any, _: None, loc: Tensor, log_scale: Tensor, *others: Any) -> Tensor:
        e, raw_scale = ctx.saved_tensors
        tangent: Tensor = loc * standardised(e, raw_scale, ctx.parametrization) + log_scale * e * e
        return -tangent
