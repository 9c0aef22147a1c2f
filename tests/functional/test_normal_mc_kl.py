"""Monte-Carlo divergences: their expectations, and torch.distributions' values at the sample."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch.distributions import Categorical, Laplace, MixtureSameFamily, Normal, StudentT

import bslfast.functional as BF
from bslfast._formulas import log_exp_e1
from bslfast.functional.normal_mc_kl import PRIORS


def log_p(prior: str, z: torch.Tensor) -> torch.Tensor:
    if prior == "scale_mixture":
        components = Normal(torch.zeros(2).double(), torch.tensor([1.5, 0.2]).double())
        return MixtureSameFamily(
            Categorical(torch.tensor([0.3, 0.7]).double()), components
        ).log_prob(z)
    if prior == "laplace":
        return Laplace(0.0, 0.8).log_prob(z)
    if prior == "student_t":
        return StudentT(2.5, 0.0, 0.8).log_prob(z)
    if prior == "horseshoe":
        return z.new_tensor([horseshoe(v) for v in (z / 0.8).tolist()]) - math.log(0.8)
    return -z.abs().log()


def horseshoe(w: float) -> float:
    """The log density at scale 1: the scales of a normal are integrated over by quadrature."""
    with mpmath.workdps(20):

        def joint(log_scale: mpmath.mpf) -> mpmath.mpf:
            scale = mpmath.exp(log_scale)
            normal = mpmath.exp(-((w / scale) ** 2) / 2) / (scale * mpmath.sqrt(2 * mpmath.pi))
            return normal * 2 / (mpmath.pi * (1 + scale**2)) * scale

        middle = mpmath.log(abs(w))
        ends = sorted([-60, *(middle + k for k in (-3, -1, 0, 1, 3)), 0, 3, 60])
        return float(mpmath.log(mpmath.quad(joint, ends)))


NUMBERS = {"pi": 0.3, "sigma1": 1.5, "sigma2": 0.2, "prior_scale": 0.8, "prior_df": 2.5}


@pytest.mark.parametrize("prior", PRIORS)
def test_log_ratio_at_the_sample(prior: str) -> None:
    loc, raw = torch.randn(2, 100, dtype=torch.float64)
    z, kl = BF.normal_rsample_mc_kl(loc, raw, prior=prior, reduction="none", seed=3, **NUMBERS)
    assert torch.equal(z, BF.normal_rsample(loc, raw, seed=3))
    q = Normal(loc, torch.nn.functional.softplus(raw))
    torch.testing.assert_close(kl, q.log_prob(z) - log_p(prior, z))


def test_mixture_of_equals_averages_to_the_normal_kl() -> None:
    """Values and gradients over a million samples are within 6 standard errors."""
    n = 1_000_000
    loc = torch.full((n,), 0.4, dtype=torch.float64, requires_grad=True)
    raw = torch.full((n,), 0.6, dtype=torch.float64, requires_grad=True)
    _, kl = BF.normal_rsample_mc_kl(
        loc, raw, sigma1=1.3, sigma2=1.3, parametrization="scale", reduction="none", seed=5
    )
    grads = torch.autograd.grad(kl.sum(), (loc, raw))
    loc1, raw1 = loc.detach()[:1].requires_grad_(), raw.detach()[:1].requires_grad_()
    exact = BF.normal_kl(loc1, raw1, 0.0, 1.3, parametrization="scale")
    exact_grads = torch.autograd.grad(exact, (loc1, raw1))
    for found, wanted in zip((kl, *grads), (exact, *exact_grads), strict=True):
        assert abs(found.mean() - wanted.squeeze()) < 6 * found.std() / n**0.5


def test_mixture_far_out() -> None:
    """Both components underflow in float32, but the logarithm of their sum does not."""
    loc = torch.tensor([1e3, -1e3, 1.0])
    z, kl = BF.normal_rsample_mc_kl(
        loc,
        torch.full((3,), -30.0),
        pi=0.5,
        sigma1=1.0,
        sigma2=0.0025,
        parametrization="log_scale",
        reduction="none",
        seed=0,
    )
    with mpmath.workdps(40):
        for i in range(3):
            x = mpmath.mpf(z[i].item())
            parts = [mpmath.exp(-((x / s) ** 2) / 2) / s / 2 for s in (1, mpmath.mpf("0.0025"))]
            noise = BF.normal_rsample(
                torch.zeros(3), torch.zeros(3), parametrization="log_scale", seed=0
            )
            log_q = -(mpmath.mpf(noise[i].item()) ** 2) / 2 + 30
            expected = float(log_q - mpmath.log(sum(parts)))
            assert kl[i].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("prior", ["log_uniform", "horseshoe"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_beside_the_pole(dtype: torch.dtype, prior: str) -> None:
    """The gradient is right at the returned sample, to 16 eps, also next to 0.

    The sample itself is rounded. Next to the pole this changes it by any number of its last digits,
    and another sample, such as the reference's, has another gradient there.
    """
    torch.manual_seed(0)
    loc, raw = torch.randn(2, 3, 8192, dtype=torch.float64).to(dtype)
    loc.requires_grad_()
    z, kl = BF.normal_rsample_mc_kl(loc, raw, prior=prior, reduction="none", seed=5)
    (actual,) = torch.autograd.grad(kl.sum(), loc)
    at = z.detach().double().requires_grad_()
    log_p = -at.abs().log() if prior == "log_uniform" else log_exp_e1(at.abs())
    (expected,) = torch.autograd.grad(-log_p.sum(), at)
    beside = z.abs() < 0.5
    assert z.abs().min() < 1e-3
    error = ((actual - expected) / expected)[beside]
    assert error.abs().max() <= 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_horseshoe_from_its_pole_to_its_tails(dtype: torch.dtype) -> None:
    """log p and its derivative agree with mpmath, from 1e-25 to 1e37 and from 1e-250 to 1e300."""
    eps = torch.finfo(dtype).eps
    low, high, log_scale = (-25, 37, -80) if dtype == torch.float32 else (-250, 300, -700)
    exponents = torch.cat([torch.linspace(low, high, 101), torch.linspace(-1, 1, 300)]).double()
    loc = (10**exponents).to(dtype).requires_grad_()
    raw = torch.full_like(loc, log_scale)
    options = {"prior": "horseshoe", "parametrization": "log_scale", "reduction": "none", "seed": 1}
    z, kl = BF.normal_rsample_mc_kl(loc, raw, **options)
    assert torch.equal(z, loc)
    (score,) = torch.autograd.grad(-kl.sum(), loc)
    noise = BF.normal_rsample(torch.zeros_like(loc), raw, parametrization="log_scale", seed=1)
    noise = noise.double() / math.exp(log_scale)
    log_p = -0.5 * noise**2 - log_scale - 0.5 * math.log(2 * math.pi) - kl.double()
    for i, w in enumerate(z.tolist()):
        with mpmath.workdps(40):
            u = mpmath.mpf(w) ** 2 / 2
            f = mpmath.hyperu(1, 1, u)  # exp(u) E1(u)
            wanted = float(mpmath.log(f / (mpmath.pi * mpmath.sqrt(2 * mpmath.pi))))
            excess = 1 / f - u if u < 1e15 else 1 - 1 / u  # f' / f = -excess / u
            slope = float(-2 / mpmath.mpf(w) * excess)
        assert abs(log_p[i] - wanted) < 8 * eps * (-log_scale + abs(wanted))
        assert abs(score[i] - slope) <= 10 * eps * abs(slope) + torch.finfo(dtype).tiny
