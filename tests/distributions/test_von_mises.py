"""The von Mises distribution against scipy's and mpmath, for concentrations from 1e-6 to 1e6."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from scipy import stats

import bslfast.distributions as bd
from bslfast.distributions.von_mises import _implicit

CONCENTRATIONS = [1e-6, 0.02, 1.0, 7.0, 19.5, 20.5, 300.0, 1e6]


def ratio(k: Any) -> Any:
    return mpmath.besseli(1, k) / mpmath.besseli(0, k)


def log_i0(k: Any) -> Any:
    return mpmath.log(mpmath.besseli(0, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_entropies_and_variances(dtype: torch.dtype) -> None:
    """Derivatives by the concentration too; densities at the mode and 3 deviations away."""
    k = torch.tensor(CONCENTRATIONS, dtype=dtype, requires_grad=True)
    away = (3 / k.detach().sqrt()).clamp(max=3.0)
    q = bd.VonMises(torch.tensor(0.0, dtype=dtype), k)
    found = [q.log_prob(torch.zeros_like(away)), q.log_prob(away), q.entropy(), q.variance]
    slopes = [torch.autograd.grad(f.sum(), k)[0] for f in found]
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(50):
        for i, (v, x) in enumerate(zip(k.tolist(), away.tolist(), strict=True)):

            def density(x: Any, v: Any) -> Any:
                return v * mpmath.cos(x) - mpmath.log(2 * mpmath.pi) - log_i0(v)

            exact = [
                lambda v: density(0, v),
                lambda v, x=x: density(mpmath.mpf(x), v),
                lambda v: mpmath.log(2 * mpmath.pi) + log_i0(v) - v * ratio(v),
                lambda v: 1 - ratio(v),
            ]
            for j, function in enumerate(exact):
                wanted, slope = function(mpmath.mpf(v)), mpmath.diff(function, mpmath.mpf(v))
                # At three deviations the terms of the density are of the size of 4.5. The entropy
                # has k times a difference of Bessel functions.
                part = (1.0, 4.5, 1 + v, 0.5)[j] if v < 20 else (1.0, 4.5, 1.0, 0.0)[j]
                size = abs(wanted) + part
                assert abs(found[j][i].item() - wanted) <= 8 * eps * size, (j, v)
                # Up to k = 20 slopes are differences of numbers of the size of 1.
                parts = 1.0 if v < 20 else 1 / v if j == 2 else 0.0
                assert abs(slopes[j][i].item() - slope) <= 64 * eps * (abs(slope) + parts), (j, v)
    # At three deviations k - k cos(x) would have no digits if both terms were rounded.
    wide = bd.VonMises(0.0, torch.tensor(1e6)).log_prob(torch.tensor(3e-3))
    assert wide.item() == pytest.approx(stats.vonmises.logpdf(3e-3, 1e6), abs=1e-5)


@pytest.mark.parametrize("concentration", [1e-6, 0.5, 19.0, 1e6])
def test_samples(concentration: float) -> None:
    """Kolmogorov-Smirnov test; a fresh seed fails once in 500 million. Angles are in radians."""
    torch.manual_seed(1)
    k = torch.tensor([concentration], requires_grad=True)
    loc = torch.tensor([3.0], requires_grad=True)
    q = bd.VonMises(loc, k)
    x = q.rsample((20_000,))
    assert x.shape == (20_000, 1)
    assert bool((x.abs() <= math.pi).all())
    centred = torch.remainder(x.detach().double() - 3.0 + math.pi, 2 * math.pi) - math.pi
    assert stats.kstest(centred[:, 0].numpy(), "vonmises", (concentration,)).pvalue > 2e-9
    torch.manual_seed(1)
    assert torch.equal(q.sample((20_000,)), x)
    # The mean of cos(x - loc) is A(k), and its derivative the path's, within 6 standard errors.
    value = torch.cos(x - 3.0)
    by_k = torch.autograd.grad(value.sum(), k, retain_graph=True)[0] / 20_000
    (by_loc,) = torch.autograd.grad(x.sum(), loc)
    assert by_loc.item() == 20_000
    exact = float(mpmath.diff(ratio, concentration)) if concentration < 1e3 else 0.5e-12
    assert abs(by_k.item() - exact) < 0.2 * exact


def test_samples_of_any_concentration() -> None:
    """None is a reason to go on drawing for ever."""
    k = torch.tensor([0.0, 1e-45, 1e16, 1e30, math.inf, math.nan, -1.0])
    x = bd.VonMises(torch.zeros(7), k, validate_args=False).rsample((2000,)).double()
    assert bool(x[:, 5:].isnan().all())
    assert bool((x[:, 4].abs() < 1e-15).all())
    for i in range(2):
        assert stats.kstest(x[:, i], stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 2e-9
    # Their loc and pi are added in float64.
    assert (x[:, 2].std() / 1e-8 - 1).abs() < 6 / math.sqrt(2 * 2000)


def test_second_derivative_of_samples() -> None:
    """That of the angle with a fixed value of the distribution function."""
    for concentration in (0.3, 2.0, 20.0):
        k = torch.tensor(concentration, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(0)
        for x in bd.VonMises(torch.zeros_like(k), k.expand(4)).rsample():
            (slope,) = torch.autograd.grad(x, k, create_graph=True)
            (second,) = torch.autograd.grad(slope, k, retain_graph=True)
            step = 1e-4 * concentration
            angle, by_k = x.detach(), slope.detach()
            ends = [
                _implicit(angle + d * (by_k + 0.5 * d * second), k.detach() + d)
                for d in (-step, step)
            ]
            assert second.item() == pytest.approx(
                ((ends[1] - ends[0]) / (2 * step)).item(), rel=1e-5
            )


def test_implicit_gradient() -> None:
    """It agrees with the derivative of the distribution function by quadrature."""
    for concentration in (1e-6, 0.3, 10.0, 1e6):
        k = torch.tensor(concentration, dtype=torch.float64, requires_grad=True)
        torch.manual_seed(0)
        for x in bd.VonMises(torch.zeros_like(k), k.expand(6)).rsample():
            (slope,) = torch.autograd.grad(x, k, retain_graph=True)
            with mpmath.workdps(40):
                v, end = mpmath.mpf(concentration), mpmath.mpf(x.item())
                a = ratio(v)
                each = mpmath.quad(
                    lambda t, v=v, a=a, end=end: (
                        (mpmath.cos(t) - a) * mpmath.exp(v * (mpmath.cos(t) - mpmath.cos(end)))
                    ),
                    [0, end / 2, end],
                )
            assert abs(slope.item() + each) <= 1e-10 * abs(each)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl(dtype: torch.dtype) -> None:
    """The divergence and its gradient are right for all pairs, also neighbouring ones."""
    given = [*CONCENTRATIONS, 1.001, 300.1]
    k = torch.tensor(given, dtype=dtype)
    p = bd.VonMises(torch.tensor(0.5, dtype=dtype), k[:, None])
    q = bd.VonMises(torch.tensor(0.5, dtype=dtype), k)
    kl = bd.kl_divergence(p, q)
    assert kl.shape == (len(given), len(given))
    assert bool((kl >= 0).all())
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(50):
        exact = [mpmath.mpf(v) for v in k.tolist()]
        values = [(v, log_i0(v), ratio(v)) for v in exact]
        for i, (v, log, a) in enumerate(values):
            for j, (w, other, _) in enumerate(values):
                wanted = other - log - a * (w - v)
                assert abs(kl[i, j].item() - wanted) <= (2 * eps + 1e-12) * wanted, (v, w)
    moved = bd.kl_divergence(bd.VonMises(0.0, 2.0), bd.VonMises(math.pi, 2.0))
    assert moved.item() == pytest.approx(4 * float(ratio(2)), rel=1e-6)
    rows = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.1, 2.0, 0.7, 2.3)]
    torch.autograd.gradcheck(
        lambda m, a, n, b: bd.kl_divergence(bd.VonMises(m, a), bd.VonMises(n, b)), rows
    )


def test_shapes_numbers_and_errors() -> None:
    q = bd.VonMises(torch.zeros(2, 1), torch.ones(3))
    assert q.batch_shape == q.mean.shape == q.mode.shape == q.entropy().shape == (2, 3)
    assert q.has_rsample
    assert isinstance(q, torch.distributions.VonMises)
    wide = q.expand((4, 2, 3))
    assert type(wide) is bd.VonMises
    assert wide.rsample((5,)).shape == (5, 4, 2, 3)
    assert torch.distributions.Independent(q, 1).log_prob(torch.zeros(3)).shape == (2,)
    assert bd.VonMises(0.0, 1).sample().dtype == torch.get_default_dtype()
    with pytest.raises(ValueError, match="concentration"):
        bd.VonMises(0.0, torch.tensor(-1.0), validate_args=True)
    with pytest.raises(TypeError, match="concentration: expected the dtype of loc"):
        bd.VonMises(torch.zeros(2), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"concentration: .*\[2\].*\[3\]"):
        bd.VonMises(torch.zeros(2), torch.ones(3))
