"""Tests of the normal family alone: the KL at hard points, and the samples' distribution."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from ops.record import Draw
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import bslfast.functional as BF
from bslfast import reference
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.reference import noise

DTYPES = [torch.float32, torch.float64]
EPS = {dtype: torch.finfo(dtype).eps for dtype in DTYPES}
of_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
of_each_parametrization = pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)


def raw_of(scale: Tensor, parametrization: str) -> Tensor:
    return {
        "softplus": lambda s: torch.log(torch.expm1(s)),
        "scale": lambda s: s,
        "log_scale": torch.log,
        "log_var": lambda s: 2 * torch.log(s),
    }[parametrization](scale)


def exact_log_scale(raw: float, parametrization: str) -> mpmath.mpf:
    x = mpmath.mpf(raw)
    return {
        "softplus": lambda: mpmath.log(mpmath.log1p(mpmath.exp(x))),
        "scale": lambda: mpmath.log(x),
        "log_scale": lambda: x,
        "log_var": lambda: x / 2,
    }[parametrization]()


def exact_kl(
    loc: float, raw: float, prior_loc: float, prior_scale: float, parametrization: str
) -> mpmath.mpf:
    log_t = exact_log_scale(raw, parametrization) - mpmath.log(mpmath.mpf(prior_scale))
    d = (mpmath.mpf(loc) - mpmath.mpf(prior_loc)) / mpmath.mpf(prior_scale)
    return (mpmath.expm1(2 * log_t) + d**2) / 2 - log_t


# --- the divergence -------------------------------------------------------------------------------


@of_each_parametrization
def test_kl_is_that_of_torch_distributions(parametrization: str) -> None:
    """torch.distributions is an oracle written by others."""
    draw = Draw(torch.float64)
    loc, prior_loc = draw.normal((50, 7)), draw.normal((7,))
    scale, prior_scale = draw.uniform((50, 7), 0.1, 3.0), draw.uniform((7,), 0.1, 3.0)
    raw = raw_of(scale, parametrization)
    expected = kl_divergence(Normal(loc, scale), Normal(prior_loc, prior_scale))
    for reduction, wanted in {
        "none": expected,
        "row": expected.sum(dim=-1),
        "sum": expected.sum(),
    }.items():
        options = {"parametrization": parametrization, "reduction": reduction}
        kl = BF.normal_kl(loc, raw, prior_loc, prior_scale, **options)
        torch.testing.assert_close(kl, wanted, rtol=1e-12, atol=1e-12)
        _, kl = BF.normal_rsample_kl(
            loc, raw, prior_loc=prior_loc, prior_scale=prior_scale, **options
        )
        torch.testing.assert_close(kl, wanted, rtol=1e-12, atol=1e-12)


@of_each_dtype
@of_each_parametrization
def test_kl_of_almost_the_prior(parametrization: str, dtype: torch.dtype) -> None:
    """The KL vanishes like (log t)^2. Its error must vanish like log t, and not stay at eps."""
    offsets = [s * 10.0**-k for k in range(1, 7) for s in (1, -1)] + [0.0]
    raw = raw_of(torch.tensor(offsets, dtype=torch.float64).exp(), parametrization).to(dtype)
    loc = torch.zeros_like(raw)
    kl = BF.normal_kl(loc, raw, parametrization=parametrization, reduction="none")
    with mpmath.workdps(50):
        for x, value in zip(raw.tolist(), kl.tolist(), strict=True):
            log_t = abs(exact_log_scale(x, parametrization))
            error = abs(value - exact_kl(0.0, x, 0.0, 1.0, parametrization))
            # softplus is rounded, which moves log t by eps, before both parts are made from it.
            assert error <= 3 * EPS[dtype] * (log_t + EPS[dtype]), (x, value)


HARD = {
    "softplus": [-1e4, -100.0, -40.0, -37.0, -17.1, -16.9, -5.0, 20.0, 100.0, 1e4],
    "scale": [1e-44, 1e-38, 1e-20, 1e-3, 50.0, 1e10],
    "log_scale": [-1e4, -100.0, -20.0, -1.0, 3.0, 20.0, 43.0],
    "log_var": [-1e4, -100.0, -20.0, 3.0, 20.0, 60.0, 87.0],
}


@of_each_dtype
@of_each_parametrization
def test_kl_at_hard_points(parametrization: str, dtype: torch.dtype) -> None:
    """Tiny and huge scales, priors and distances have all digits, against 50 of mpmath's."""
    points = [
        p
        for p in itertools.product(
            [0.0, 1.5, -300.0], HARD[parametrization], [0.0, -2.5], [1e-3, 1.0, 1e3]
        )
        # The test below has the cases where scale / prior_scale underflows.
        if parametrization != "scale" or p[1] / p[3] > torch.finfo(dtype).tiny
    ]
    loc, raw, prior_loc, prior_scale = torch.tensor(points, dtype=dtype).unbind(dim=1)
    kl = BF.normal_kl(
        loc, raw, prior_loc, prior_scale, parametrization=parametrization, reduction="none"
    )
    rows = zip(*(t.tolist() for t in (loc, raw, prior_loc, prior_scale, kl)), strict=True)
    with mpmath.workdps(50):
        for *arguments, value in rows:
            expected = exact_kl(*arguments, parametrization)
            if expected > torch.finfo(dtype).max:
                assert value == math.inf
                continue
            log_t = abs(exact_log_scale(arguments[1], parametrization) - mpmath.log(arguments[3]))
            # log t is rounded once: t^2 = exp(2 log t) moves by that, times its size.
            amplified = 1 + abs(arguments[1]) * (parametrization.startswith("log"))
            bound = 3 * EPS[dtype] * amplified * (expected + log_t)
            assert abs(value - expected) <= bound, (arguments, value, float(expected))


def test_kl_of_a_scale_far_below_the_prior_s() -> None:
    """log t is 103 here, no infinity: as long as the scale itself is a number, so is the KL."""
    loc, scale, prior_scale = torch.zeros(1), torch.tensor([1e-42]), torch.tensor([1e3])
    kl = BF.normal_kl(loc, scale, 0.0, prior_scale, parametrization="scale")
    expected = exact_kl(0.0, scale.item(), 0.0, 1e3, "scale")
    assert abs(kl.item() - expected) <= 3 * EPS[torch.float32] * expected


def test_kl_of_itself_is_zero_and_never_negative() -> None:
    """It is exactly 0 for dyadic scales, and else 0 up to a rounding error."""
    scale = torch.tensor([0.25, 1.0, 4.0])
    kl = BF.normal_kl(scale, scale, scale, scale, parametrization="scale", reduction="none")
    assert not kl.any()
    draw = Draw(torch.float32)
    loc, scale = draw.normal((10_000,)), draw.uniform((10_000,), 0.01, 10.0)
    kl = BF.normal_kl(loc, scale, loc, scale, parametrization="scale", reduction="none")
    assert kl.abs().max() <= EPS[torch.float32]


def test_kl_is_the_expected_log_ratio() -> None:
    """Monte Carlo: a mean of 200 000 within 5 standard errors, which fails once in 1.7 million."""
    n = 200_000
    draw = Draw(torch.float64)
    for i, parametrization in enumerate(PARAMETRIZATIONS):
        scale = draw.uniform((4,), 0.3, 2.0)
        loc, raw = draw.normal((4,)), raw_of(scale, parametrization)
        sample, kl = BF.normal_rsample_kl(
            loc,
            raw,
            prior_loc=0.5,
            prior_scale=1.5,
            parametrization=parametrization,
            sample_shape=(n,),
            reduction="none",
            seed=i,
        )
        ratio = Normal(loc, scale).log_prob(sample) - Normal(0.5, 1.5).log_prob(sample)
        z = (ratio.mean(dim=0) - kl) / (ratio.std(dim=0) / math.sqrt(n))
        assert z.abs().max() < 5, (parametrization, z)


def test_best_prior_has_no_gradient() -> None:
    """Empirical Bayes: at the prior that fits best, known in closed form, the gradients vanish."""
    draw = Draw(torch.float64)
    loc, scale = draw.normal((1000,)), draw.uniform((1000,), 0.1, 1.0)
    prior_loc = loc.mean().requires_grad_()
    variance = (scale**2 + (loc - loc.mean()) ** 2).mean()
    prior_scale = variance.sqrt().requires_grad_()
    kl = BF.normal_kl(loc, scale, prior_loc, prior_scale, parametrization="scale")
    for grad in torch.autograd.grad(kl, (prior_loc, prior_scale)):
        assert abs(grad) < 1e-10
    worse = BF.normal_kl(loc, scale, prior_loc + 0.1, prior_scale * 1.1, parametrization="scale")
    grads = torch.autograd.grad(worse, (prior_loc, prior_scale))
    assert grads[0] > 1
    assert grads[1] > 1


# --- samples --------------------------------------------------------------------------------------


def _ulps(actual: Tensor, expected: Tensor) -> float:
    spacing = np.spacing(np.abs(expected.numpy()))
    return float(((actual - expected).abs().numpy() / spacing).max())


@of_each_dtype
def test_noise_is_the_library_s(dtype: torch.dtype) -> None:
    """The noise is that of reference.noise for (seed, stream, element index) and nothing else."""
    n = 20_001
    zero, one = torch.zeros(n, dtype=dtype), torch.ones(n, dtype=dtype)
    for seed, stream in ((0, 0), (-5, 3), (2**63 + 1, 2**40)):
        sample = BF.normal_rsample(zero, one, parametrization="scale", seed=seed, stream=stream)
        expected = noise.normal((n,), seed, stream, dtype)
        assert _ulps(sample, expected) <= 5
        assert torch.equal(sample.signbit(), expected.signbit())


@of_each_dtype
@of_each_parametrization
def test_scale_to_the_last_digit(parametrization: str, dtype: torch.dtype) -> None:
    """With loc = 0 a scale shows in full, also at 1e-30 and where softplus changes form."""
    points = {
        "softplus": [-80.0, -50.0, -17.1, -16.9, -3.0, 0.0, 3.0, 16.9, 20.1, 100.0, 1e30],
        "scale": [1e-37, 1e-3, 1.0, 1e30],
        "log_scale": [-80.0, -3.0, 0.0, 1e-8, 3.0, 80.0],
        "log_var": [-160.0, -3.0, 0.0, 1e-8, 3.0, 160.0],
    }[parametrization]
    raw = torch.tensor(points, dtype=dtype)
    zero, one = torch.zeros_like(raw), torch.ones_like(raw)
    sample = BF.normal_rsample(zero, raw, parametrization=parametrization, seed=3)
    eps = BF.normal_rsample(zero, one, parametrization="scale", seed=3)
    with mpmath.workdps(50):
        for x, value, e in zip(raw.tolist(), sample.tolist(), eps.tolist(), strict=True):
            expected = mpmath.exp(exact_log_scale(x, parametrization)) * e
            assert abs(value / expected - 1) <= 3 * EPS[dtype], x


@of_each_dtype
def test_moments_and_distribution(dtype: torch.dtype) -> None:
    """Four moments within 5 standard errors, and Kolmogorov-Smirnov at one in a million."""
    n = 400_000
    loc, raw = torch.full((n,), 2.0, dtype=dtype), torch.full((n,), -0.7, dtype=dtype)
    scale = math.exp(-0.7)
    x = BF.normal_rsample(loc, raw, parametrization="log_scale", seed=11)
    z = ((x.double() - 2.0) / scale).numpy()
    # Variances of z^k for a standard normal z: 1, 2, 15, 96.
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < 5 * math.sqrt(variance / n), power
    assert stats.kstest(z, "norm").pvalue > 1e-6


def test_sample_shape() -> None:
    """Independent samples in front; the KL is that of the parameters, once."""
    draw = Draw(torch.float32)
    loc, raw = draw.normal((4, 3)), draw.normal((3,))
    one, kl = BF.normal_rsample_kl(loc, raw, seed=1)
    assert one.shape == (4, 3)
    for sample_shape in [(5,), (5, 2), (1,), (0,), [5], 5, torch.Size([5])]:
        size = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        sample, again = BF.normal_rsample_kl(loc, raw, sample_shape=sample_shape, seed=1)
        assert sample.shape == (*size, 4, 3)
        assert torch.equal(kl, again)
        if sample.numel() == 0:
            continue
        # Sample after sample along one sequence: the first is the one drawn alone.
        flat = sample.reshape(-1, 4, 3)
        assert torch.equal(flat[0], one)
        assert len({tuple(s.flatten().tolist()) for s in flat}) == len(flat)
        alone = BF.normal_rsample(loc, raw, sample_shape=sample_shape, seed=1)
        assert torch.equal(sample, alone)


def test_no_samples_no_gradient() -> None:
    """sample_shape (0,): the gradient of the samples is zero, that of the KL is not."""
    loc, raw = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    sample, kl = BF.normal_rsample_kl(loc, raw, sample_shape=(0,), seed=1)
    grads = torch.autograd.grad(sample.sum(), (loc, raw), retain_graph=True)
    assert not any(g.any() for g in grads)
    with_kl = torch.autograd.grad(sample.sum() + kl, (loc, raw))
    assert all(g.all() for g in with_kl)


def test_gradient_is_the_noise() -> None:
    """d sample / d loc = 1 and d sample / d scale = the noise of forward, to the last bit."""
    loc = torch.zeros(300, requires_grad=True)
    scale = torch.ones(300, requires_grad=True)
    sample = BF.normal_rsample(loc, scale, parametrization="scale", seed=9)
    by_loc, by_scale = torch.autograd.grad(sample.sum(), (loc, scale))
    assert torch.equal(by_loc, torch.ones(300))
    assert torch.equal(by_scale, sample.detach())


# --- negative scales ------------------------------------------------------------------------------


@pytest.mark.parametrize("grad", [False, True])
def test_negative_scales(grad: bool) -> None:
    """They are found in the kernel's own pass, wherever they are. The error names the worst."""
    n = 30_000
    loc, good = torch.zeros(n), torch.ones(n)
    for position in (0, 255, 256, n - 1):
        bad = good.clone()
        bad[position] = -3.5
        bad[position // 2] = min(-0.5, float(bad[position // 2]))
        bad.requires_grad_(grad)
        for call in (
            lambda b: BF.normal_rsample(loc, b, parametrization="scale"),
            lambda b: BF.normal_kl(loc, b, parametrization="scale"),
            lambda b: BF.normal_rsample_kl(loc, b, parametrization="scale"),
        ):
            with pytest.raises(ValueError, match=r"^raw_scale: expected scales >= 0, got -3.5"):
                call(bad)
        for parametrization in PARAMETRIZATIONS:
            with pytest.raises(ValueError, match=r"^prior_scale: expected scales >= 0, got -3.5"):
                BF.normal_kl(loc, good, 0.0, bad, parametrization=parametrization)
    with pytest.raises(ValueError, match=r"^raw_scale: "):
        BF.normal_kl(loc, -good, 0.0, -good, parametrization="scale")


def test_zero_and_nan_scales_are_no_error() -> None:
    """Zero of either sign is a scale (of a point mass); NaN is for the user's checks to find."""
    loc = torch.full((3,), 2.0)
    raw = torch.tensor([0.0, -0.0, math.nan])
    sample = BF.normal_rsample(loc, raw, parametrization="scale", seed=0)
    assert sample[:2].tolist() == [2.0, 2.0]
    assert sample[2].isnan()
    kl = BF.normal_kl(loc, raw, parametrization="scale", reduction="none")
    assert kl[:2].tolist() == [math.inf, math.inf]
    assert kl[2].isnan()


def test_negative_scales_elsewhere_are_nan() -> None:
    """Where values cannot be looked at, there is no error: NaN, and only there."""
    loc, raw = torch.zeros(3), torch.tensor([1.0, -1.0, 1.0])
    with BF.use_reference():
        sample, kl = BF.normal_rsample_kl(loc, raw, parametrization="scale", reduction="none")
    for result in (sample, kl):
        assert result.isnan().tolist() == [False, True, False]
    kl = reference.normal_kl(
        loc, torch.ones(3), 0.0, raw, parametrization="scale", reduction="none"
    )
    assert kl.isnan().tolist() == [False, True, False]


# --- samples with their log densities, and log densities ------------------------------------------


@of_each_parametrization
@pytest.mark.parametrize("sample_shape", [(), (3,), (2, 1)], ids=str)
def test_rsample_log_prob_has_the_samples_of_rsample(
    parametrization: str, sample_shape: tuple[int, ...]
) -> None:
    draw = Draw(torch.float32)
    loc, raw = draw.normal((40, 7)), raw_of(draw.uniform((7,), 0.1, 3.0), parametrization)
    options = {"parametrization": parametrization, "sample_shape": sample_shape, "seed": 4}
    sample, log_prob = BF.normal_rsample_log_prob(loc, raw, stream=2, **options)
    assert torch.equal(sample, BF.normal_rsample(loc, raw, stream=2, **options))
    expected = BF.normal_log_prob(sample, loc, raw, parametrization=parametrization)
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-4)


@of_each_dtype
@of_each_parametrization
def test_log_density_of_a_sample_however_small_the_scale(
    dtype: torch.dtype, parametrization: str
) -> None:
    """It agrees with mpmath. Gradients are total derivatives, which do not depend on loc."""
    raw = {
        "softplus": [40.0, 1.0, -10.0, -16.9, -17.1, -40.0, -80.0, -95.0, -200.0, -1000.0],
        "scale": [1e10, 1.0, 1e-10, 1e-20, 1e-30, 1e-38, 1e-40, 1e-44],
        "log_scale": [5.0, 0.0, -10.0, -20.0, -40.0, -80.0, -200.0, -1000.0],
        "log_var": [10.0, 0.0, -20.0, -28.0, -40.0, -80.0, -160.0, -180.0, -400.0, -2000.0],
    }[parametrization]
    loc = torch.full((len(raw),), 1.25, dtype=dtype, requires_grad=True)
    raw_scale = torch.tensor(raw, dtype=dtype, requires_grad=True)
    _, log_prob = BF.normal_rsample_log_prob(
        loc, raw_scale, parametrization=parametrization, reduction="none", seed=9
    )
    e = BF.standard_normal((len(raw),), seed=9, dtype=dtype)
    by_loc, by_raw = torch.autograd.grad(log_prob.sum(), (loc, raw_scale))
    assert not by_loc.any()
    with mpmath.workdps(50):
        for i, r in enumerate(raw_scale.tolist()):
            log_scale = exact_log_scale(r, parametrization)
            exact = -(mpmath.mpf(e[i].item()) ** 2 + mpmath.log(2 * mpmath.pi)) / 2 - log_scale
            assert log_prob[i].item() == pytest.approx(float(exact), rel=4 * EPS[dtype])
            slope = {
                "softplus": lambda x: 1 / ((1 + mpmath.exp(-x)) * mpmath.log1p(mpmath.exp(x))),
                "scale": lambda x: 1 / x,
                "log_scale": lambda x: 1,
                "log_var": lambda x: 0.5,
            }[parametrization](mpmath.mpf(r))
            wanted = torch.tensor(-float(slope), dtype=dtype).item()  # also overflows as it does
            assert by_raw[i].item() == pytest.approx(wanted, rel=8 * EPS[dtype])


def test_log_prob_of_a_vanishing_variance() -> None:
    """1 / scale overflows at the mean, where the log density is 90 - log(2 pi) / 2."""
    zero, log_var = torch.zeros(1), torch.tensor([-180.0])
    found = BF.normal_log_prob(zero, zero, log_var, parametrization="log_var")
    assert found.item() == pytest.approx(90 - 0.5 * math.log(2 * math.pi), rel=1e-7)
    nearby = BF.normal_log_prob(zero + 1e-3, zero, log_var, parametrization="log_var")
    assert nearby.item() == -math.inf
