"""Distribution functions and their inverses, in the tails, at the median and outside [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.distributions as bd

NAN, INF = math.nan, math.inf
of_each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def logistic(z: Any) -> Any:
    return 1 / (1 + mpmath.exp(-z))


def laplace(z: Any) -> Any:
    return mpmath.exp(z) / 2 if z < 0 else 1 - mpmath.exp(-z) / 2


CDF: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "normal": (lambda v: bd.Normal(v, v + 1), mpmath.ncdf),
    "lognormal": (lambda v: bd.LogNormal(v, v + 1), lambda x: mpmath.ncdf(mpmath.log(x))),
    "laplace": (lambda v: bd.Laplace(v, v + 1), laplace),
    "logistic": (lambda v: bd.Logistic(v, v + 1), logistic),
    "gumbel": (lambda v: bd.Gumbel(v, v + 1), lambda z: mpmath.exp(-mpmath.exp(-z))),
    "half_cauchy": (lambda v: bd.HalfCauchy(v + 1), lambda x: 2 * mpmath.atan(x) / mpmath.pi),
    "student_t": (
        lambda v: bd.StudentT(v + 2, v, v + 1),
        lambda t: 0.5 + t / (2 * mpmath.sqrt(2 + t * t)),
    ),
}
POSITIVE = ("lognormal", "half_cauchy")
of_each_family = pytest.mark.parametrize("name", CDF)


def values(name: str, dtype: torch.dtype) -> Tensor:
    z = torch.tensor([-12.5, -6.0, -2.0, -0.5, -1e-3, 0.0, 1e-3, 0.7, 3.0, 6.0, 16.0], dtype=dtype)
    if name == "gumbel":
        z = z.clamp(min=-4)
    return z.exp() if name in POSITIVE else z


@of_each_family
@of_each_dtype
def test_cdf_in_the_tails(name: str, dtype: torch.dtype) -> None:
    """The relative error is that of rounding x; the slope is the density."""
    make, exact = CDF[name]
    q = make(torch.tensor(0.0, dtype=dtype))
    x = values(name, dtype).requires_grad_()
    found = q.cdf(x)
    (slope,) = torch.autograd.grad(found.sum(), x)
    eps, least = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    with mpmath.workdps(150):
        for i, v in enumerate(x.tolist()):
            wanted = exact(mpmath.mpf(v))
            density = mpmath.diff(exact, mpmath.mpf(v)) if v else q.log_prob(x)[i].exp().item()
            size = 1 + v * v if name != "lognormal" else 1 + math.log(v) ** 2
            if name == "gumbel":
                size = 1 + math.exp(-v) * (1 + abs(v))
            assert abs(found[i].item() - wanted) <= 4 * eps * size * wanted, v
            assert abs(slope[i].item() - density) <= 8 * eps * size * abs(density) + least, v


@of_each_family
@of_each_dtype
def test_icdf_in_the_tails(name: str, dtype: torch.dtype) -> None:
    """The quantile has the chance p, within a change of p's last digit."""
    make, exact = CDF[name]
    q = make(torch.tensor(0.0, dtype=dtype))
    eps = torch.finfo(dtype).eps
    p = torch.tensor([1e-18, 1e-10, 1e-3, 0.2, 0.4999, 0.5001, 0.7, 0.999, 1 - eps], dtype=dtype)
    p.requires_grad_()
    found = q.icdf(p)
    (slope,) = torch.autograd.grad(found.sum(), p)
    with mpmath.workdps(150):
        for i, share in enumerate(p.tolist()):
            x = mpmath.mpf(found[i].item())
            density = mpmath.diff(exact, x)
            # The error of x that corresponds to the error of p, to first order.
            off = (exact(x) - mpmath.mpf(share)) / density
            size = abs(x) * (1 + abs(mpmath.log(x)) if name == "lognormal" else 1)
            if name == "student_t":  # of df 2: what one digit of the logarithm of p changes
                size *= 1 + abs(mpmath.log(min(share, 1 - share))) / 2
            assert abs(off) <= 4 * eps * size, share
            relative = 64 * eps * (1 + abs(mpmath.log(share)))
            assert abs(slope[i].item() * density - 1) <= relative, share


@of_each_family
@of_each_dtype
def test_icdf_at_and_beyond_the_ends(name: str, dtype: torch.dtype) -> None:
    q = CDF[name][0](torch.tensor(0.0, dtype=dtype))
    p = torch.tensor([-INF, -3.0, -0.1, 1.1, 3.0, INF, NAN, 0.0, 1.0, 0.5], dtype=dtype)
    found = q.icdf(p.requires_grad_()).tolist()
    assert all(map(math.isnan, found[:7]))
    assert found[7:9] == [0.0 if name in POSITIVE else -INF, INF]
    assert found[9] == pytest.approx(q.icdf(p[9] + torch.finfo(dtype).eps).item(), abs=1e-6)
    with torch.no_grad():
        ends = torch.tensor([0.0 if name in POSITIVE else -INF, INF, NAN], dtype=dtype)
        unchecked = CDF[name][0](torch.tensor(0.0, dtype=dtype))
        unchecked._validate_args = False
        below, above, nothing = unchecked.cdf(ends).tolist()
    assert (below, above) == (0.0, 1.0)
    assert math.isnan(nothing)


def test_the_stated_values() -> None:
    normal, six = bd.Normal(0.0, 1.0), torch.tensor(-6.0)
    assert normal.cdf(six).item() == pytest.approx(9.8658765e-10, rel=1e-6)
    assert normal.icdf(torch.tensor(1e-10)).item() == pytest.approx(-6.3613409, rel=1e-7)
    p = 1 - 2.0**-24
    wanted = 2 / math.tan(math.pi / 2 * 2.0**-24)
    assert bd.HalfCauchy(2.0).icdf(torch.tensor(p)).item() == pytest.approx(wanted, rel=2e-7)
    assert bd.LogNormal(0.0, 1.0).cdf(torch.tensor(0.0)) == 0
    with pytest.raises(ValueError, match="support"):
        bd.LogNormal(0.0, 1.0, validate_args=True).cdf(torch.tensor(-1.0))


# --- Student's t ----------------------------------------------------------------------------------


def tail(t: Any, df: Any) -> Any:
    """Probability that Student's t exceeds t > 0, by the integral over u = asinh(t / sqrt(df))."""
    u = mpmath.asinh(t / mpmath.sqrt(df))
    width = 1 / mpmath.sqrt(df) if df > 1 else 1 / df
    ends = [u + width * v for v in (0, 1, 4, 12, 48)]
    ratio = mpmath.quad(
        lambda v: mpmath.exp(-df * mpmath.log(mpmath.cosh(v) / mpmath.cosh(u))), ends
    )
    return ratio * mpmath.cosh(u) ** -df / mpmath.beta(df / 2, mpmath.mpf(1) / 2)


DFS = [0.5, 2.5, 33.0, 1e6]
POINTS = [1e-3, 0.4, 1.5, 6.0, 30.0]


def test_student_t_for_any_df() -> None:
    """Both tails and their quantiles are right; float32 has the same numbers, rounded."""
    df, t = (v.reshape(-1) for v in torch.meshgrid(torch.tensor(DFS), torch.tensor(POINTS)))
    narrow = bd.StudentT(df)
    q = bd.StudentT(df.double())
    lower, upper = q.cdf(-t.double()), q.cdf(t.double())
    back = q.icdf(lower)
    eps = torch.finfo(torch.float64).eps
    with mpmath.workdps(25):
        for i, (n, x) in enumerate(zip(df.tolist(), t.tolist(), strict=True)):
            exact = tail(mpmath.mpf(x), mpmath.mpf(n))
            if exact < 1e-300:
                continue
            size = abs(mpmath.log(exact))
            assert abs(lower[i].item() - exact) <= (3e-15 + eps * size) * exact, (n, x)
            assert abs(upper[i].item() - (1 - exact)) <= 2 * eps, (n, x)
            if exact < 0.4:
                assert abs(back[i].item() / -x - 1) <= 4e-15 * (1 + size / n), (n, x)
    assert torch.equal(narrow.cdf(-t), lower.float())
    assert torch.equal(narrow.cdf(t), upper.float())
    p = lower.float().clamp(min=1e-30)
    assert torch.equal(narrow.icdf(p), q.icdf(p.double()).float())
    single = torch.stack([bd.StudentT(n).cdf(-x) for n, x in zip(df, t, strict=True)])
    assert torch.equal(single, narrow.cdf(-t))


def test_gradients_of_student_t() -> None:
    """The gradient by x is the density; other gradients agree with finite differences."""
    given = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for v in ([0.5, 3.0, 40.0], [0.1] * 3, [0.7] * 3, [-20.0, 0.3, 2.0])
    ]
    df, loc, scale, x = given
    q = bd.StudentT(df, loc, scale)
    (slope,) = torch.autograd.grad(q.cdf(x).sum(), x, create_graph=True)
    torch.testing.assert_close(slope, q.log_prob(x).exp(), rtol=1e-14, atol=0)
    torch.autograd.gradcheck(lambda *p: bd.StudentT(*p[:3]).cdf(p[3]), given)
    torch.autograd.gradgradcheck(lambda v: bd.StudentT(df, loc, scale).cdf(v), (x,))
    p = torch.tensor([0.1, 0.49, 0.9], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(
        lambda *v: bd.StudentT(*v[:3]).icdf(v[3]), (df, loc, scale, p), rtol=1e-4, fast_mode=True
    )
    single = torch.vmap(lambda n, v: bd.StudentT(n, validate_args=False).cdf(v))(df, x)
    assert torch.equal(single, bd.StudentT(df).cdf(x))


# --- divergences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 2.0, 300.0])
def test_kl_of_logistic(shift: float) -> None:
    """It is right for ratios of all sizes and neighbouring pairs; float32 has it rounded."""
    log_ratio = torch.tensor([-40.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 40.0])

    def divergence(dtype: torch.dtype) -> Tensor:
        loc = torch.tensor(shift, dtype=dtype)
        p = bd.Logistic.from_log_scale(loc, log_ratio.to(dtype))
        return bd.kl_divergence(p, bd.Logistic(loc * 0, loc * 0 + 1))

    kl = divergence(torch.float64)
    assert torch.equal(divergence(torch.float32), kl.float())

    def exact(log: Any) -> Any:
        r, m = mpmath.exp(log), mpmath.mpf(shift)

        def cross(u: Any) -> Any:  # u is a chance, and both tails have the same share of nodes
            z = mpmath.log(u / (1 - u))
            y = [(m + r * s * z) for s in (1, -1)]
            both = [abs(v) + 2 * mpmath.log1p(mpmath.exp(-abs(v))) for v in y]
            return mpmath.fsum(both)

        kink = mpmath.mpf(1) / (1 + mpmath.exp(min(m / r, 200)))
        ends = sorted({mpmath.mpf(0), kink / 1000, kink, mpmath.mpf(1) / 2})
        return mpmath.quad(cross, ends, maxdegree=8) - 2 - log

    with mpmath.workdps(30):
        for i, v in enumerate(log_ratio.tolist()):
            wanted = exact(mpmath.mpf(v))
            near = 1e-13 if wanted < 1e-5 else 2e-15  # of pairs 1e-3 apart, z is rounded
            assert abs(kl[i].item() - wanted) <= near * wanted + 1e-24, v


def test_gradients_of_kl_of_logistic() -> None:
    given = torch.tensor([[0.3, -1.0], [0.5, 1.5], [1.0, 1.0], [0.7, 4.0]], dtype=torch.float64)
    rows = [row.requires_grad_() for row in given]
    torch.autograd.gradcheck(
        lambda a, s, b, t: bd.kl_divergence(bd.Logistic(a, s), bd.Logistic(b, t)), rows
    )


def test_a_refusal_says_what_else_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"^kl_divergence: expected .*StudentT.*rsample"):
        bd.kl_divergence(bd.StudentT(3.0), bd.StudentT(2.0))
