"""Location-scale families beside torch.distributions, mpmath and their distribution functions."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Distribution,
    Gumbel,
    Laplace,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)

import bslfast.functional as BF
from bslfast import reference
from bslfast.reference.noise import uniform

FAMILIES = ["gumbel", "laplace", "logistic"]
of_each_family = pytest.mark.parametrize("family", FAMILIES)
CDF: dict[str, Callable[[Tensor], Tensor]] = {
    "gumbel": lambda z: torch.exp(-torch.exp(-z)),
    "laplace": lambda z: torch.where(z < 0, 0.5 * torch.exp(z), 1 - 0.5 * torch.exp(-z)),
    "logistic": torch.sigmoid,
}


def distribution(family: str, loc: Tensor, scale: Tensor) -> Distribution:
    if family == "gumbel":
        return Gumbel(loc, scale)
    if family == "laplace":
        return Laplace(loc, scale)
    base = Uniform(torch.zeros_like(loc), torch.ones_like(loc))
    return TransformedDistribution(base, [SigmoidTransform().inv, AffineTransform(loc, scale)])


def op(family: str, kind: str) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(BF, f"{family}_{kind}")
    return function


@of_each_family
def test_log_prob_closed_form(family: str) -> None:
    x, loc = torch.randn(2, 7, 9, dtype=torch.float64)
    scale = torch.rand(9, dtype=torch.float64) + 0.1
    expected = distribution(family, loc, scale.expand(7, 9)).log_prob(x)
    found = op(family, "log_prob")(x, loc, scale, parametrization="scale")
    torch.testing.assert_close(found, expected.sum(-1))


@of_each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_are_the_quantiles_of_the_noise(family: str, dtype: torch.dtype) -> None:
    """They agree with mpmath, at both ends of 100,000 uniforms and next to the middle."""
    n = 100_000
    u = uniform((n,), 5, dtype=dtype)
    z = op(family, "rsample")(
        torch.zeros(n, dtype=dtype), torch.ones(n, dtype=dtype), parametrization="scale", seed=5
    )
    order = u.argsort()
    middle = (u - 0.5).abs().argsort()
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(40):
        for i in [*order[:10].tolist(), *order[-10:].tolist(), *middle[:10].tolist(), 0, 1, 2]:
            v = mpmath.mpf(u[i].item())
            exact = {
                "gumbel": lambda v=v: -mpmath.log(-mpmath.log(v)),
                "laplace": lambda v=v: mpmath.log(2 * v) if v < 0.5 else -mpmath.log(2 - 2 * v),
                "logistic": lambda v=v: mpmath.log(v / (1 - v)),
            }[family]()
            assert z[i].item() == pytest.approx(
                float(exact), rel=3 * eps, abs=2 * eps if family == "gumbel" else 0
            )


@of_each_family
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_follow_the_distribution(family: str, dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov test: one seed in 1e9 would fail. The seed is fixed."""
    n = 1_000_000
    z = op(family, "rsample")(
        torch.full((n,), 0.25, dtype=dtype),
        torch.full((n,), 2.0, dtype=dtype),
        parametrization="scale",
        seed=11,
    )
    cdf = CDF[family]((z.double() - 0.25) / 2).sort().values
    grid = torch.arange(n + 1, dtype=torch.float64) / n
    distance = torch.maximum((cdf - grid[:-1]).abs().max(), (cdf - grid[1:]).abs().max())
    # P(sqrt(n) D > c) < 2 exp(-2 c^2).
    assert distance.item() * math.sqrt(n) < math.sqrt(0.5 * math.log(2e9))


@of_each_family
def test_log_prob_of_a_sample_is_that_of_the_value(family: str) -> None:
    """The fused log density is the one of the sample, and so are its total derivatives."""
    torch.manual_seed(0)
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        loc = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
        raw = torch.randn(3, dtype=torch.float64, requires_grad=True)
        if fused:
            sample, log_prob = op(family, "rsample_log_prob")(loc, raw, seed=3)
        else:
            sample = op(family, "rsample")(loc, raw, seed=3)
            log_prob = op(family, "log_prob")(sample, loc, raw)
        loss = (sample * torch.linspace(0, 1, 3)).sum() + (log_prob * log_prob.detach()).sum()
        results.append([sample, log_prob, *torch.autograd.grad(loss, (loc, raw))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@of_each_family
def test_tiny_and_huge_scales(family: str) -> None:
    """The logarithm of a scale that underflows is still exact in the log density of a sample."""
    raw = torch.tensor([-200.0, 200.0])
    _, log_prob = op(family, "rsample_log_prob")(
        torch.zeros(2), raw, parametrization="log_scale", reduction="none", seed=0
    )
    _, standard = op(family, "rsample_log_prob")(
        torch.zeros(2), torch.zeros(2), parametrization="log_scale", reduction="none", seed=0
    )
    torch.testing.assert_close(log_prob, standard - raw)


@of_each_family
def test_sixteen_bit_reference_stays_finite(family: str) -> None:
    """Uniforms rounded to 16 bits would be 1 now and then."""
    loc = torch.zeros(100_000, dtype=torch.bfloat16)
    sample = getattr(reference, f"{family}_rsample")(loc, loc, seed=1)
    assert sample.dtype == torch.bfloat16
    assert sample.isfinite().all()


@pytest.mark.parametrize("family", [*FAMILIES, "normal"])
def test_log_density_where_the_sample_says_nothing(family: str) -> None:
    """Gradients of the log density alone where the scale overflows, of the sample alone at 0."""
    loc = torch.zeros(4, requires_grad=True)
    for how, value, slope in (("log_scale", 200.0, -1.0), ("log_var", 400.0, -0.5)):
        raw = torch.full((4,), value, requires_grad=True)
        sample, log_prob = op(family, "rsample_log_prob")(loc, raw, parametrization=how, seed=1)
        by_loc, by_raw = torch.autograd.grad(log_prob, (loc, raw), torch.ones_like(log_prob))
        assert by_loc.count_nonzero() == 0
        assert by_raw.tolist() == [slope] * 4
        # Samples that a loss leaves out.
        sample = op(family, "rsample")(loc, raw, parametrization=how, seed=1)
        (by_raw,) = torch.autograd.grad(sample, raw, torch.zeros_like(sample))
        assert by_raw.count_nonzero() == 0
    raw = torch.zeros(4, requires_grad=True)
    sample, _ = op(family, "rsample_log_prob")(loc, raw, parametrization="scale", seed=1)
    (by_raw,) = torch.autograd.grad(sample.sum(), raw)
    unit = op(family, "rsample")(loc, torch.ones(4), parametrization="scale", seed=1)
    assert torch.equal(by_raw, unit)
