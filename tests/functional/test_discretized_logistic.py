"""The discretised logistic beside mpmath, and its sums."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF


def grid(bins: int, low: float, high: float, dtype: torch.dtype) -> Tensor:
    return torch.linspace(low, high, bins, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("bins", "low", "high"), [(256, -1, 1), (2, 0, 1), (256, 0, 255)])
@pytest.mark.parametrize("raw", [-20.0, -5.0, -2.0, 0.0, 3.0, 20.0])
def test_adds_up_to_one(bins: int, low: float, high: float, raw: float) -> None:
    x = grid(bins, low, high, torch.float64)
    loc = torch.tensor([[low - 1.0], [low + 0.3], [0.5 * (low + high)], [high]]).double()
    log_prob = BF.discretized_logistic_log_prob(
        x, loc, torch.tensor(raw).double(), bins=bins, low=low, high=high, reduction="none"
    )
    total = log_prob.exp().sum(-1)
    # The bins of two values meet half-way between them, up to the rounding of the values.
    atol = 1e-14 + 4e-16 * (high - low) * math.exp(-raw)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=atol)


def exact(x: float, loc: float, raw: float, first: bool, last: bool) -> mpmath.mpf:
    """The difference of two distribution functions, at 400 digits, bins=256 on [-1, 1]."""
    h = mpmath.mpf(1) / 255
    scale = mpmath.exp(mpmath.mpf(raw))
    value = mpmath.mpf(x) - mpmath.mpf(loc)
    above, below = (1 / (1 + mpmath.exp(-(value + s * h) / scale)) for s in (1, -1))
    return mpmath.log((1 if last else above) - (0 if first else below))


@pytest.mark.parametrize("raw", [-9.0, -7.0, -5.5, -5.0, -4.5, -4.0, -2.0, 0.0, 4.0, 12.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_mpmath(dtype: torch.dtype, raw: float) -> None:
    """The kernel agrees with mpmath on the very same numbers, also with a bin's edge next to loc.

    1 / 255 has no end in binary, and (x - loc - h) / s would magnify what float32 loses of it.
    """
    values = grid(256, -1, 1, dtype)
    x = values[torch.arange(0, 256, 5)].repeat(4)
    scale = torch.tensor(raw, dtype=torch.float64).exp()
    away = torch.cat(
        [
            3 * scale * torch.randn(52, dtype=torch.float64),
            0.5 * torch.randn(52, dtype=torch.float64),
            1 / 255 + 0.3 * scale * torch.randn(52, dtype=torch.float64),
            -1 / 255 + 0.3 * scale * torch.randn(52, dtype=torch.float64),
        ]
    )
    loc = (x.double() - away).to(dtype)
    found = BF.discretized_logistic_log_prob(
        x, loc, torch.tensor(raw, dtype=dtype), reduction="none"
    )
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(60):
        # Tails that vanish beside 1 in 60 digits are subtracted from 1 in 4000 digits.
        for a, m, y in zip(x.tolist(), loc.tolist(), found.tolist(), strict=True):
            far = abs(a - m) / scale.item() > 100
            with mpmath.workdps(4000 if far else 60):
                wanted = exact(a, m, raw, a <= -1, a >= 1)
            assert abs(mpmath.mpf(y) - wanted) <= 8 * eps * (abs(wanted) + 0.5), (a, m, y)


def test_wide_scales_are_densities() -> None:
    """With bins much narrower than the scale, it is the log density plus the log of the width."""
    x = torch.linspace(-0.9, 0.9, 50)
    loc, raw = torch.tensor(0.3), torch.tensor(10.0)
    found = BF.discretized_logistic_log_prob(x, loc, raw, reduction="none")
    z = ((x - loc) / raw.exp()).double()
    expected = -z - 2 * torch.nn.functional.softplus(-z) - 10.0 + torch.tensor(2 / 255.0).log()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
