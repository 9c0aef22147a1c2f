"""The negative binomial log probability beside torch.distributions and mpmath."""

from __future__ import annotations

import mpmath
import pytest
import torch
from scipy import special

import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast.distributions.negative_binomial_cdf import at_most_and_more


def test_closed_form() -> None:
    log_rate = torch.randn(7, 9, dtype=torch.float64)
    log_total_count = torch.randn(9, dtype=torch.float64)
    x = torch.poisson(4 * torch.ones(7, 9)).double()
    law = torch.distributions.NegativeBinomial(
        log_total_count.exp(), logits=log_rate - log_total_count
    )
    found = BF.negative_binomial_log_prob(x, log_rate, log_total_count, reduction="none")
    torch.testing.assert_close(found, law.log_prob(x))
    found = BF.negative_binomial_log_prob(x, log_rate, log_total_count)
    torch.testing.assert_close(found, law.log_prob(x).sum(-1))


def test_adds_up_to_one() -> None:
    log_rate = torch.tensor([[-30.0], [-2.0], [0.0], [2.5], [4.0]], dtype=torch.float64)
    log_total_count = torch.tensor([[0.5], [-3.0], [1.0], [3.0], [40.0]], dtype=torch.float64)
    x = torch.arange(4000.0, dtype=torch.float64)
    log_prob = BF.negative_binomial_log_prob(x, log_rate, log_total_count, reduction="none")
    total = log_prob.exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-13)


def _exact(
    log_rate: mpmath.mpf, log_total_count: mpmath.mpf, x: mpmath.mpf
) -> tuple[mpmath.mpf, ...]:
    """The log probability and its derivatives."""
    mu, r = mpmath.exp(log_rate), mpmath.exp(log_total_count)
    log_p, log_q = -mpmath.log1p(mu / r), -mpmath.log1p(r / mu)
    ratio = mpmath.loggamma(x + r) - mpmath.loggamma(r) - mpmath.loggamma(x + 1)
    slope = mpmath.digamma(x + r) - mpmath.digamma(r)
    by_r = slope + log_p + (mu - x) / (r + mu)
    by_x = mpmath.digamma(x + r) - mpmath.digamma(x + 1) + log_q
    return ratio + r * log_p + x * log_q, r * (x - mu) / (r + mu), r * by_r, by_x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_total", [-9.0, -1.0, 1.5, 6.0, 12.0, 18.4, 40.0])
@pytest.mark.parametrize("mu", [1e-6, 0.3, 20.0, 1e3, 1e6])
def test_keeps_its_digits(mu: float, log_total: float, dtype: torch.dtype) -> None:
    """Up to the Poisson limit: what is small has them as well, and so has what vanishes there."""
    r = torch.tensor(log_total, dtype=torch.float64).exp().item()
    n = 12
    near = mu + 2 * (mu + mu * mu / r) ** 0.5 * torch.randn(n, dtype=torch.float64)
    x = near.clamp(min=0).round().to(dtype)
    x[:4] = torch.arange(4.0)
    log_rate = (torch.full((n,), mu).double().log() + 0.1 * torch.randn(n)).to(dtype)
    log_total_count = (log_total + 0.1 * torch.randn(n, dtype=torch.float64)).to(dtype)
    tensors = [t.requires_grad_() for t in (log_rate, log_total_count, x)]
    log_prob = BF.negative_binomial_log_prob(x, *tensors[:2], reduction="none")
    grads = torch.autograd.grad(log_prob.sum(), tensors)
    found = torch.stack([log_prob.detach(), *grads]).double().T.tolist()
    eps = torch.finfo(dtype).eps
    with mpmath.workdps(60):
        for given, actual in zip(torch.stack(tensors).T.tolist(), found, strict=True):
            point = [mpmath.mpf(v) for v in given]
            exact = _exact(*point)
            # What half a unit in the last place of each argument changes.
            change = [mpmath.mpf(0)] * 4
            for i in range(2):
                moved = list(point)
                moved[i] += eps * (abs(moved[i]) + 1) / 2
                change = [
                    c + abs(a - b) for c, a, b in zip(change, _exact(*moved), exact, strict=True)
                ]
            # The parts that are added up.
            count, away = given[2], abs(given[2] - mu)
            by_total = min(1, (away * away + count + 1) / r)
            sizes = (1 if count else min(1, mu), min(1, count + mu), by_total, 1 + abs(given[0]))
            for a, e, c, size in zip(actual, exact, change, sizes, strict=True):
                assert abs(a - e) <= 8 * (eps * (abs(e) + size) + c), (given, e)


def test_is_poisson_in_the_limit() -> None:
    log_rate = torch.tensor([-200.0, -3.0, 0.0, 2.0, 80.0])
    x = torch.tensor([0.0, 2.0, 0.0, 9.0, 3.0])
    expected = BF.poisson_log_prob(x, log_rate, reduction="none")
    for log_total_count in (200.0, 1e30, torch.inf):
        total = torch.full((5,), log_total_count).requires_grad_()
        found = BF.negative_binomial_log_prob(x, log_rate, total, reduction="none")
        torch.testing.assert_close(found.detach(), expected)
        (grad,) = torch.autograd.grad(found.sum(), total)
        assert grad.count_nonzero() == 0


def test_ends() -> None:
    """No mean and no event; a total count so small that what counts is its logarithm."""
    none = torch.full((3,), -torch.inf)
    x = torch.tensor([0.0, 1.0, 10.0])
    found = BF.negative_binomial_log_prob(x, none, torch.zeros(3), reduction="none")
    assert found.tolist() == [0.0, -torch.inf, -torch.inf]
    found = BF.negative_binomial_log_prob(x, torch.zeros(3), none, reduction="none")
    assert found.tolist() == [0.0, -torch.inf, -torch.inf]
    tiny = torch.full((3,), -1e4)
    found = BF.negative_binomial_log_prob(x, torch.zeros(3), tiny, reduction="none")
    # log r - log x + x log q, and q = 1 to all digits.
    torch.testing.assert_close(found, torch.tensor([0.0, -1e4, -1e4 - 2.302585]))


@pytest.mark.parametrize("log_total", [-7.0, -0.3, 0.0, 1.5, 9.0, 18.4])
@pytest.mark.parametrize("mu", [1e-6, 0.01, 5.0, 1e3])
def test_distribution_function(mu: float, log_total: float) -> None:
    """From both sides, of the smaller one all digits."""
    log_rate = torch.tensor(mu, dtype=torch.float64).log()
    log_total_count = torch.tensor(log_total, dtype=torch.float64)
    r = log_total_count.exp().item()
    width = (mu + mu * mu / r) ** 0.5
    y = sorted({float(int(v)) for v in (0, 1, mu / 2, mu, mu + width, mu + 6 * width)})
    at_most, more = at_most_and_more(log_rate, log_total_count, torch.tensor(y).double())
    torch.testing.assert_close(at_most + more, torch.ones_like(more), rtol=0, atol=1e-15)
    law = bd.NegativeBinomial(log_rate, log_total_count)
    assert torch.equal(law.cdf(torch.tensor(y).double() + 0.5), at_most)
    assert law.cdf(torch.tensor(-1.0)) == 0
    log_odds = log_rate - log_total_count
    p, q = torch.sigmoid(-log_odds).item(), torch.sigmoid(log_odds).item()
    for n, below, above in zip(y, at_most.tolist(), more.tolist(), strict=True):
        # Not from the one of p and q that has lost digits.
        if p < q:
            exact = (special.betainc, special.betaincc)[above < below](r, n + 1, p)
        else:
            exact = (special.betaincc, special.betainc)[above < below](n + 1, r, q)
        assert min(below, above) == pytest.approx(exact, rel=2e-11, abs=1e-300)
