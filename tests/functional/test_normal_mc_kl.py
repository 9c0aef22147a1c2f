"""Monte-Carlo divergences: their expectations, and what torch.distributions says at the sample."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch.distributions import Categorical, Laplace, MixtureSameFamily, Normal, StudentT

import bslfast.functional as BF

PRIORS = ("scale_mixture", "laplace", "student_t", "log_uniform")


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
    return -z.abs().log()


NUMBERS = {"pi": 0.3, "sigma1": 1.5, "sigma2": 0.2, "prior_scale": 0.8, "prior_df": 2.5}


@pytest.mark.parametrize("prior", PRIORS)
def test_log_ratio_at_the_sample(prior: str) -> None:
    loc, raw = torch.randn(2, 400, dtype=torch.float64)
    z, kl = BF.normal_rsample_mc_kl(loc, raw, prior=prior, reduction="none", seed=3, **NUMBERS)
    assert torch.equal(z, BF.normal_rsample(loc, raw, seed=3))
    q = Normal(loc, torch.nn.functional.softplus(raw))
    torch.testing.assert_close(kl, q.log_prob(z) - log_p(prior, z))


def test_mixture_of_equals_averages_to_the_normal_kl() -> None:
    """In value and gradient, over a million samples, within 6 standard errors."""
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
    """Both components underflow in float32: the logarithm of their sum does not."""
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
