"""Tests of maps by Bernstein polynomials beyond tests/ops: mpmath, ends, the inverse."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
import bslfast.reference as R

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
DEGREES = [1, 2, 7, 16, 32, 63]
of_each_dtype = pytest.mark.parametrize("dtype", list(EPS), ids=lambda d: str(d)[6:])
of_each_degree = pytest.mark.parametrize("degree", DEGREES)


def coefficients(rows: int, degree: int, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(degree)
    return spread * torch.randn(rows, degree + 1, dtype=torch.float64, generator=generator)


def by_mpmath(x: float, raw: list[float], bound: float) -> list[float]:
    """(y, log dy/dx) by the definition."""
    with mpmath.workdps(100):
        theta = [mpmath.mpf(raw[0])]
        for r in raw[1:]:
            theta.append(theta[-1] + mpmath.log1p(mpmath.exp(r)))
        n = len(theta) - 1
        inside = mpmath.mpf(min(max(x, -bound), bound))
        t = (inside + bound) / (2 * bound)
        y = sum(c * mpmath.binomial(n, k) * t**k * (1 - t) ** (n - k) for k, c in enumerate(theta))
        slope = (n / mpmath.mpf(2 * bound)) * sum(
            (theta[k + 1] - theta[k]) * mpmath.binomial(n - 1, k) * t**k * (1 - t) ** (n - 1 - k)
            for k in range(n)
        )
        return [float(y + slope * (x - inside)), float(mpmath.log(slope))]


def exact(x: Tensor, raw: Tensor, bound: float) -> Tensor:
    rows = zip(x.tolist(), raw.tolist(), strict=True)
    return torch.tensor([by_mpmath(*row, bound) for row in rows], dtype=torch.float64)


def points(bound: float, rows: int, dtype: torch.dtype) -> Tensor:
    """From well outside to well outside, the ends and their neighbours among them."""
    x = torch.linspace(-1.5 * bound, 1.5 * bound, rows, dtype=torch.float64).to(dtype)
    end = torch.tensor(bound, dtype=dtype)
    zero = torch.zeros((), dtype=dtype)
    x[:6] = torch.stack(
        [-end, end, torch.nextafter(-end, zero), torch.nextafter(end, zero), zero, -3 * end]
    )
    return x


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
@of_each_degree
@of_each_dtype
def test_is_as_defined(dtype: torch.dtype, degree: int, family: Any) -> None:
    """Errors are 4 eps (float64 and degree n: 4 + n / 8) of 1 + |y| + |r_0|, and of 1 + |log|."""
    for bound, spread in ((3.0, 2.0), (0.1, 5.0), (20.0, 30.0)):
        x, raw = points(bound, 40, dtype), coefficients(40, degree, spread).to(dtype)
        if family is R:  # the twin computes in the dtype
            x, raw = x.double(), raw.double()
        y, log_det = family.bernstein_transform(x, raw, bound=bound, reduction="none")
        expected = exact(x, raw, bound)
        units = EPS[x.dtype] * (4 + (degree / 8 if x.dtype == torch.float64 else 0))
        size = 1 + expected[:, 0].abs() + raw[:, 0].abs()
        assert ((y - expected[:, 0]).abs() <= units * size).all()
        assert ((log_det - expected[:, 1]).abs() <= units * (1 + expected[:, 1].abs())).all()


@of_each_dtype
def test_steps_of_all_sizes(dtype: torch.dtype) -> None:
    """Some have a softplus below the smallest float32, alone and beside others."""
    generator = torch.Generator().manual_seed(0)
    least = -180.0 if dtype == torch.float32 else -660.0
    raw = (
        least * torch.rand(200, 9, dtype=torch.float64, generator=generator)
        + 30 * (torch.rand(200, 9, dtype=torch.float64, generator=generator) < 0.3)
    ).to(dtype)
    raw[:, 0] = 0
    raw[::2, 1:] = raw[::2, 1:].amin(dim=-1, keepdim=True)  # all alike
    x = points(2.0, 200, dtype)
    y, log_det = BF.bernstein_transform(x, raw, bound=2.0, reduction="none")
    expected = exact(x, raw, 2.0)
    least_number = 2.0**-149 if dtype == torch.float32 else 0.0
    bound = 8 * EPS[dtype] * expected[:, 0].abs() + least_number
    assert ((y - expected[:, 0]).abs() <= bound).all()
    assert ((log_det - expected[:, 1]).abs() <= 4 * EPS[dtype] * (1 + expected[:, 1].abs())).all()


def test_is_the_identity_for_even_coefficients() -> None:
    x = points(3.0, 100, torch.float64)
    for degree in DEGREES:
        raw = torch.full((100, degree + 1), -3.0, dtype=torch.float64)
        raw[:, 1:] = math.log(math.expm1(6.0 / degree))
        for inverse in (False, True):
            y, log_det = BF.bernstein_transform(x, raw, inverse=inverse, reduction="none")
            torch.testing.assert_close(y, x, rtol=1e-14, atol=1e-14)
            torch.testing.assert_close(log_det, torch.zeros_like(x), rtol=0, atol=1e-14)


def test_goes_through_the_outermost_coefficients_with_their_slopes() -> None:
    raw = coefficients(1, 6)
    steps = torch.logaddexp(raw, torch.zeros((), dtype=torch.float64))[0, 1:]
    x = torch.tensor([-1.5, 1.5, -2.5, 2.5], dtype=torch.float64)
    y, log_det = BF.bernstein_transform(x, raw, bound=1.5, reduction="none")
    low, high = raw[0, 0], raw[0, 0] + steps.sum()
    slopes = 6 / 3.0 * steps[[0, -1]]
    expected = torch.stack([low, high, low - slopes[0], high + slopes[1]])
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(log_det, slopes.log().repeat(2), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("spread", [0.5, 3.0, 10.0])
@of_each_degree
@of_each_dtype
def test_inverse_is_the_inverse(dtype: torch.dtype, degree: int, spread: float) -> None:
    """x is right to the digits that y determines; float64 and degree n: 4 + n / 4 eps."""
    raw = coefficients(2048, degree, spread).to(dtype)
    generator = torch.Generator().manual_seed(1)
    rise = torch.logaddexp(raw.double(), torch.zeros((), dtype=torch.float64))[:, 1:].sum(-1)
    share = 1.4 * torch.rand(2048, dtype=torch.float64, generator=generator) - 0.2
    y = (raw[:, 0] + share * rise).to(dtype)
    x, log_det = BF.bernstein_transform(y, raw, inverse=True, reduction="none")
    assert x.isfinite().all()
    again, slope = R.bernstein_transform(x.double(), raw.double(), reduction="none")
    made_of = y.abs() + raw[:, 0].abs() + slope.exp() * x.abs()
    units = 4 + (degree / 4 if dtype == torch.float64 else 0)
    assert ((again - y).abs() <= units * EPS[dtype] * made_of.double()).all()
    assert torch.isfinite(log_det).all()


@of_each_degree
def test_round_trip(degree: int) -> None:
    x = points(3.0, 1000, torch.float64)
    raw = coefficients(1000, degree, 1.0)
    y, log_det = BF.bernstein_transform(x, raw, reduction="none")
    back, back_log_det = BF.bernstein_transform(y, raw, inverse=True, reduction="none")
    # Slopes are down to 0.01.
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-11)


@of_each_dtype
def test_infinite_x(dtype: torch.dtype) -> None:
    x = torch.tensor([-torch.inf, torch.inf], dtype=dtype)
    raw = coefficients(2, 5).to(dtype).requires_grad_()
    for inverse in (False, True):
        y, log_det = BF.bernstein_transform(x, raw, inverse=inverse, reduction="none")
        assert y.tolist() == x.tolist()
        assert log_det.isfinite().all()
        (grad,) = torch.autograd.grad(log_det.sum(), raw)
        assert grad.isfinite().all()


@pytest.mark.parametrize("inverse", [False, True])
@of_each_degree
def test_gradients(degree: int, inverse: bool) -> None:
    """They agree with numeric differences of the kernel's results, away from the ends' jumps."""
    x = torch.tensor([-4.0, -2.5, 0.1, 2.8, 3.5], dtype=torch.float64)
    raw = coefficients(5, degree, 1.0)
    if inverse:
        x = BF.bernstein_transform(x, raw, reduction="none")[0]
    assert torch.autograd.gradcheck(
        lambda *t: BF.bernstein_transform(*t, inverse=inverse, reduction="none"),
        (x.requires_grad_(), raw.requires_grad_()),
        rtol=1e-4,
        atol=1e-6,
    )


def test_rows_are_read_in_place() -> None:
    x, together = torch.randn(7, 5), torch.randn(7, 5, 20)
    part = together[..., 3:12]
    actual = BF.bernstein_transform(x, part)
    expected = BF.bernstein_transform(x, part.contiguous())
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)
