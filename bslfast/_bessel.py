"""A(k) = I1(k) / I0(k) of modified Bessel functions, and what goes with it, in float64.

From 20 on exp(-k) I0(k) = (2 pi k)^-1/2 S(1 / k) with a series S of positive coefficients. A
difference of Bessel functions has no digits of 1 - A = 1 / (2 k) + ... there.

Source: Abramowitz and Stegun, "Handbook of mathematical functions" (1964,
ISBN 978-0-486-61272-0), 9.7.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LARGE = 20.0
_TERMS = 34
#: (1 3 ... (2 n - 1))^2 / (n! 8^n)
_SERIES = [
    math.prod(range(1, 2 * n, 2)) ** 2 / (math.factorial(n) * 8**n) for n in range(_TERMS + 1)
]


def _split(k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether k is large, k where it is not, and 1 / k where it is."""
    large = k >= _LARGE
    return large, torch.where(large, 1.0, k), 1 / torch.where(large, k, _LARGE)


def _series(x: Tensor, order: int) -> Tensor:
    """S, S' or S''."""
    sum_ = torch.zeros_like(x)
    for n in range(_TERMS, order - 1, -1):
        sum_ = sum_ * x + _SERIES[n] * math.perm(n, order)
    return sum_


def log_bessel(k: Tensor) -> Tensor:
    """The logarithm of exp(-k) I0(k)."""
    large, few, x = _split(k)
    far = 0.5 * torch.log(x / (2 * math.pi)) + torch.log(_series(x, 0))
    # At 0 torch has 0 for the derivative of |k|.
    return torch.where(large, far, torch.log(torch.special.i0e(few + 1e-300)))


def bessel_ratio(k: Tensor) -> Tensor:
    """A(k)."""
    large, few, _ = _split(k)
    near = torch.special.i1e(few) / torch.special.i0e(few)
    return torch.where(large, 1 - bessel_spread(k), near)


def bessel_spread(k: Tensor) -> Tensor:
    """1 - A(k)."""
    large, few, x = _split(k)
    far = x * (0.5 + x * _series(x, 1) / _series(x, 0))
    near = 1 - torch.special.i1e(few) / torch.special.i0e(few)
    return torch.where(large, far, near)


def slope_of_bessel_ratio(k: Tensor) -> Tensor:
    """A'(k) = 1 - A / k - A^2."""
    large, few, x = _split(k)
    few = few.clamp(min=1e-150)
    a = torch.special.i1e(few) / torch.special.i0e(few)
    value = _series(x, 0)
    slope, curve = _series(x, 1) / value, _series(x, 2) / value
    far = x * x * (0.5 + x * (2 * slope + x * (curve - slope * slope)))
    return torch.where(large, far, (1 - a / few) - a * a)
