"""Student's t beside torch.distributions and mpmath: the normaliser, the noise, the path by df."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch.distributions import StudentT

import bslfast.functional as BF
import bslfast.reference as R


def test_log_prob_closed_form() -> None:
    x, loc = torch.randn(2, 7, 9, dtype=torch.float64)
    df = torch.rand(7, 9, dtype=torch.float64) * 20 + 0.5
    scale = torch.rand(9, dtype=torch.float64) + 0.1
    found = BF.student_t_log_prob(x, df, loc, scale, parametrization="scale", reduction="none")
    torch.testing.assert_close(found, StudentT(df, loc, scale.expand(7, 9)).log_prob(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("df", [1e-3, 0.5, 1.0, 3.0, 7.99, 20.0, 1e3, 1e5, 1e8])
def test_density_and_its_derivative_by_df(dtype: torch.dtype, df: float) -> None:
    """They agree with mpmath.

    The derivative has a small relative error, also where it is like df^-2.
    """
    for x in (0.0, 0.3, 1.0, 4.0, 200.0):
        tensors = [torch.tensor([v], dtype=dtype) for v in (x, df, 0.0, 1.0)]
        tensors[1].requires_grad_()
        found = BF.student_t_log_prob(*tensors, parametrization="scale")
        (slope,) = torch.autograd.grad(found, tensors[1])
        with mpmath.workdps(60):
            z, v = (mpmath.mpf(t.item()) for t in tensors[:2])

            def log_prob(n: mpmath.mpf, z: mpmath.mpf = z) -> mpmath.mpf:
                return (
                    mpmath.loggamma((n + 1) / 2)
                    - mpmath.loggamma(n / 2)
                    - mpmath.log(mpmath.pi * n) / 2
                    - (n + 1) / 2 * mpmath.log1p(z * z / n)
                )

            expected = log_prob(v)
            y = z * z / v
            terms = [
                mpmath.digamma((v + 1) / 2) - mpmath.digamma(v / 2) - 1 / v,
                y / (1 + y) - mpmath.log1p(y),
                y / (1 + y) / v,
            ]
            expected_slope = sum(terms) / 2
        eps = torch.finfo(dtype).eps
        assert found.item() == pytest.approx(float(expected), rel=8 * eps, abs=4 * eps)
        size = float(sum(abs(t) for t in terms))
        if df > 16 or size > 1:
            assert slope.item() == pytest.approx(float(expected_slope), rel=0, abs=8 * eps * size)
        else:
            assert slope.item() == pytest.approx(float(expected_slope), rel=0, abs=8 * eps)


@pytest.mark.parametrize("df", [0.7, 1.0, 2.0, 5.0, 50.0])
def test_samples_follow_the_distribution(df: float) -> None:
    """Kolmogorov-Smirnov test at 200 points: one seed in 1e9 would fail. The seed is fixed."""
    n = 500_000
    tensors = [torch.full((n,), v, dtype=torch.float64) for v in (df, 0.5, 2.0)]
    sample = BF.student_t_rsample(*tensors, parametrization="scale", seed=11)
    z = ((sample - 0.5) / 2).sort().values
    for i in range(n // 400, n, n // 200):
        t = z[i].item()
        tail = mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True) / 2
        share = float(tail if t < 0 else 1 - tail)
        assert abs(share - (i + 0.5) / n) * n**0.5 < math.sqrt(0.5 * math.log(2e9))


@pytest.mark.parametrize("df", [3.0, 8.0, 40.0])
def test_path_by_df(df: float) -> None:
    """E log(1 + t^2 / df) = psi((df + 1) / 2) - psi(df / 2), in which df moves with the samples.

    By df, the gradients of a million samples average to the derivative within 6 standard errors: a
    false alarm in 5e8 seeds.
    """
    n = 1_000_000
    dfs = torch.full((n,), df, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    t = BF.student_t_rsample(dfs, zero, one, parametrization="scale", seed=2)
    (grad,) = torch.autograd.grad(torch.log1p(t * t / dfs).sum(), dfs)
    expected = float(mpmath.psi(1, (df + 1) / 2) - mpmath.psi(1, df / 2)) / 2
    assert abs(grad.mean() - expected) < 6 * grad.std() / n**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("functions", [BF, R], ids=["kernel", "reference"])
def test_samples_beyond_the_largest_number_can_be_left_out(
    functions: Any, dtype: torch.dtype
) -> None:
    """They have no gradient without an incoming one; else that of a growing sample, not NaN."""
    df = torch.full((4, 64), 1e-3, dtype=dtype)
    df[1], df[2], df[3] = 1e-5, 6e-8, 4.0
    call = [t.requires_grad_() for t in (df, torch.zeros_like(df), torch.zeros_like(df))]
    x = functions.student_t_rsample(*call, seed=3)
    assert not x.isnan().any()
    assert x[2].isinf().all()
    grads = torch.autograd.grad(torch.where(x.isfinite(), x, 0.0).sum(), call, retain_graph=True)
    assert all((g[x.isinf()] == 0).all() for g in grads)
    (by_df,) = torch.autograd.grad(x.sum(), call[:1])
    assert functions is R or not by_df.isnan().any()
    known = x.isinf() & ~by_df.isnan()
    assert known.sum() > 60
    assert (by_df[known] * x[known] < 0).all()  # fewer degrees: further out


def test_huge_df_is_normal() -> None:
    """Radius and angle are those of Box and Muller's normals, and so are the numbers."""
    loc, scale = torch.zeros(1000), torch.ones(1000)
    near, far = (
        BF.student_t_rsample(torch.tensor(df), loc, scale, parametrization="scale", seed=0)
        for df in (1e12, math.inf)
    )
    torch.testing.assert_close(near, far, rtol=1e-6, atol=0)
    assert abs(far.std() - 1) < 0.1


def test_log_prob_where_scales_between_overflow() -> None:
    """1e25 is 1e45 scales of 1e-20 away, more than float32 holds; its log density is -367.2."""
    x, df, loc = torch.tensor([1e25]).requires_grad_(), torch.tensor([3.0]), torch.zeros(1)
    scale = torch.tensor([1e-20], requires_grad=True)
    found = BF.student_t_log_prob(x, df, loc, scale, parametrization="scale")
    found.backward()
    exact = StudentT(df.double(), loc.double(), scale.double()).log_prob(x.double()).item()
    assert found.item() == pytest.approx(exact, rel=1e-6)
    assert found.item() == pytest.approx(-367.2, abs=0.05)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(-4e-25, rel=1e-6)
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(3e20, rel=1e-6)
