"""Log-normal and half-Cauchy beside torch.distributions; divergences beside mpmath."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch.distributions import HalfCauchy, LogNormal, Normal

import bslfast.functional as BF
from bslfast.reference.noise import uniform

of_each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def test_lognormal_closed_form() -> None:
    loc = torch.randn(7, 9, dtype=torch.float64)
    scale = torch.rand(9, dtype=torch.float64) + 0.1
    x = torch.randn(7, 9, dtype=torch.float64).exp()
    found = BF.lognormal_log_prob(x, loc, scale, parametrization="scale", reduction="none")
    torch.testing.assert_close(found, LogNormal(loc, scale).log_prob(x))


def test_lognormal_samples_are_those_of_the_normal() -> None:
    loc, raw = torch.randn(2, 500, dtype=torch.float64)
    found = BF.lognormal_rsample(loc, raw, seed=4)
    torch.testing.assert_close(found, BF.normal_rsample(loc, raw, seed=4).exp())


def test_half_cauchy_closed_form() -> None:
    x = torch.rand(7, 9, dtype=torch.float64) * 10
    scale = torch.rand(9, dtype=torch.float64) + 0.1
    found = BF.half_cauchy_log_prob(x, scale, parametrization="scale", reduction="none")
    torch.testing.assert_close(found, HalfCauchy(scale).log_prob(x))


@of_each_dtype
def test_half_cauchy_samples_are_the_quantiles_of_the_noise(dtype: torch.dtype) -> None:
    """They agree with mpmath, at both ends of 100,000 uniforms."""
    n = 100_000
    u = uniform((n,), 5, dtype=dtype)
    z = BF.half_cauchy_rsample(torch.ones(n, dtype=dtype), parametrization="scale", seed=5)
    order = u.argsort()
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(40):
        for i in [*order[:10].tolist(), *order[-10:].tolist(), *range(10)]:
            exact = float(mpmath.tan(mpmath.pi * mpmath.mpf(u[i].item()) / 2))
            assert z[i].item() == pytest.approx(exact, rel=4 * eps, abs=0)


def test_half_cauchy_far_out() -> None:
    """In float32 the square of z overflows."""
    x = torch.tensor([1e25])
    found = BF.half_cauchy_log_prob(x, torch.ones(1), parametrization="scale", reduction="none")
    expected = math.log(2 / math.pi) - 2 * math.log(1e25)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@of_each_dtype
@pytest.mark.parametrize("ratio", [-60.0, -2.0, -1.4, -0.3, -1e-3, 1e-3, 0.35, 1.6, 60.0])
def test_half_cauchy_kl(dtype: torch.dtype, ratio: float) -> None:
    """Its relative error is small also where the divergence is."""
    raw = torch.tensor([ratio], dtype=dtype)
    found = BF.half_cauchy_kl(raw, parametrization="log_scale").item()
    with mpmath.workdps(40):
        a = mpmath.exp(mpmath.mpf(raw.item()))
        expected = float(mpmath.log((a + 1) ** 2 / (4 * a)))
    assert found == pytest.approx(expected, rel=8 * torch.finfo(dtype).eps, abs=0)


@of_each_dtype
def test_laplace_kl(dtype: torch.dtype) -> None:
    """Its relative error is small also where the divergence is: by the mean, and by the scale."""
    for distance in (0.0, 1e-6, 1e-3, 0.3, 0.5, 3.0, 1e4):
        for log_scale in (-20.0, -1e-3, 0.0, 1e-3, 0.3, 0.4, 5.0):
            loc = torch.tensor([distance], dtype=dtype)
            raw = torch.tensor([log_scale], dtype=dtype)
            found = BF.laplace_kl(loc, raw, parametrization="log_scale").item()
            with mpmath.workdps(40):
                d, b = mpmath.mpf(loc.item()), mpmath.exp(mpmath.mpf(raw.item()))
                expected = float(b * mpmath.exp(-d / b) + d - 1 - mpmath.log(b))
            # exp(-delta) - 1 + delta is a difference from delta = 0.34 on, where it is a sixth.
            bound = 16 * torch.finfo(dtype).eps
            assert found == pytest.approx(expected, rel=bound, abs=0), (distance, log_scale)


def test_laplace_kl_is_the_expectation_of_the_log_ratio() -> None:
    """A mean of a million samples is within 6 standard errors; one seed in 5e8 would fail."""
    n = 1_000_000
    loc = torch.full((n,), 0.4, dtype=torch.float64)
    raw = torch.full((n,), 0.7, dtype=torch.float64)
    sample, log_q = BF.laplace_rsample_log_prob(
        loc, raw, parametrization="scale", reduction="none", seed=2
    )
    zero, prior_scale = torch.zeros((), dtype=torch.float64), torch.tensor(1.5).double()
    log_p = BF.laplace_log_prob(
        sample, zero, prior_scale, parametrization="scale", reduction="none"
    )
    ratio = log_q - log_p
    kl = BF.laplace_kl(loc[:1], raw[:1], 0.0, 1.5, parametrization="scale")
    assert abs(ratio.mean() - kl) < 6 * ratio.std() / n**0.5


def test_second_derivative_of_the_laplace_kl_at_the_prior() -> None:
    """A mean at the prior's is not a kink: the divergence is |d|^2 / (2 s s0) there."""
    loc = torch.zeros(1, dtype=torch.float64)
    raw = torch.full((1,), 2.0, dtype=torch.float64)
    hessian = torch.func.hessian(
        lambda m: BF.laplace_kl(m, raw, 0.0, 3.0, parametrization="scale")
    )(loc)
    torch.testing.assert_close(hessian, torch.full((1, 1), 1 / 6, dtype=torch.float64))


def test_normal_noise_of_lognormal_is_normal() -> None:
    x = BF.lognormal_rsample(torch.zeros(200_000), torch.ones(200_000), seed=1)
    noise = x.double().log() / math.log1p(math.e)
    cdf = Normal(0.0, 1.0).cdf(noise).sort().values
    grid = torch.arange(1, noise.numel() + 1, dtype=torch.float64) / noise.numel()
    # Kolmogorov and Smirnov: a false alarm in 1e9 seeds.
    assert (cdf - grid).abs().max() * noise.numel() ** 0.5 < math.sqrt(0.5 * math.log(2e9)) + 0.01
