"""Deep sigmoidal transformations in plain torch: csrc/core/bijectors/deep_sigmoidal.h."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._formulas import log_scale_of, scale_of
from bslfast._precision import in_float32
from bslfast.reference.mixture_logistic import Components, finite_where, transform_by, twice


@in_float32(values=1)
def deep_sigmoidal_transform(
    x: Tensor,
    logits: Tensor,
    raw_slope: Tensor,
    shift: Tensor,
    *,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.deep_sigmoidal_transform`."""
    return transform_by(_SLOPE_SHIFT, x, (logits, raw_slope, shift), inverse, reduction)


def _lines(x: Tensor, rest: Tensor, raw_slope: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    slope = _slope(raw_slope, x)
    x = x + rest
    half = slope * (0.5 * x) + 0.5 * shift
    # The middle of a jump at 0.
    half = torch.where((x == 0) & torch.isinf(slope), 0.5 * shift, half)
    return twice(half), log_scale_of(raw_slope, "softplus")


def _solutions(y: Tensor, raw_slope: Tensor, shift: Tensor) -> Tensor:
    x = 2 * ((0.5 * y - 0.5 * shift) / _slope(raw_slope, y))
    # That of a flat component may be infinite, where a mixture's may not.
    return finite_where(y, x)


def _slope(raw_slope: Tensor, x: Tensor) -> Tensor:
    # Never 0: an infinite x has an infinite value.
    info = torch.finfo(x.dtype)
    return scale_of(raw_slope, "softplus").clamp(min=info.tiny * info.eps)


_SLOPE_SHIFT = Components(_lines, _solutions, broad=True)
