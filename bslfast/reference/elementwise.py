"""Elementwise maps in plain torch: what csrc/core/bijectors/elementwise.h computes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced


@in_float32(values=1)
def leaky_relu_transform(
    x: Tensor, *, negative_slope: float = 0.01, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.leaky_relu_transform`."""
    y = torch.where(x < 0, x / negative_slope if inverse else x * negative_slope, x)
    log = -math.log(negative_slope) if inverse else math.log(negative_slope)
    return y, reduced(torch.where(x < 0, log, torch.where(x.isnan(), x, 0.0)), reduction)


@in_float32(values=1)
def tanh_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.tanh_transform`."""
    if inverse:
        y = _inside(x, x.abs() <= 1)
        plus, minus = torch.log1p(y), torch.log1p(-y)
        return 0.5 * (plus - minus), reduced(-(plus + minus), reduction)
    # 1 - tanh(x)^2 = 1 / cosh(x)^2
    return torch.tanh(x), reduced(2 * (math.log(2) - torch.logaddexp(x, -x)), reduction)


@in_float32(values=1)
def sigmoid_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.sigmoid_transform`."""
    if inverse:
        y = _inside(x, (x >= 0) & (x <= 1))
        low, high = torch.log(y), torch.log1p(-y)
        return low - high, reduced(-(low + high), reduction)
    # y (1 - y) = 1 / (2 cosh(x / 2))^2
    return torch.sigmoid(x), reduced(-2 * torch.logaddexp(0.5 * x, -0.5 * x), reduction)


@in_float32(values=1)
def softplus_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.softplus_transform`."""
    zero = x.new_zeros(())
    if not inverse:
        return torch.logaddexp(x, zero), reduced(-torch.logaddexp(-x, zero), reduction)
    y = _inside(x, x >= 0)
    # where() twice: the branch not taken must not send NaN into the gradient.
    large = y > math.log(2)
    far = torch.log1p(-torch.exp(-torch.where(large, y, 1.0)))
    near = torch.log(-torch.expm1(-torch.where(large, 1.0, y)))
    log = torch.where(large, far, near)
    return y + log, reduced(-log, reduction)


def _inside(x: Tensor, inside: Tensor) -> Tensor:
    """``x``, and NaN outside: a factor, so that the gradient is NaN there as well."""
    return x * torch.where(inside, 1.0, math.nan)
