"""The Poisson log probability beside torch.distributions and mpmath."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
import bslfast.reference as R


def test_closed_form() -> None:
    log_rate = torch.randn(7, 9, dtype=torch.float64)
    x = torch.poisson(4 * torch.ones(7, 9)).double()
    expected = torch.distributions.Poisson(log_rate.exp()).log_prob(x)
    torch.testing.assert_close(BF.poisson_log_prob(x, log_rate, reduction="none"), expected)
    torch.testing.assert_close(BF.poisson_log_prob(x, log_rate), expected.sum(-1))


def test_adds_up_to_one() -> None:
    log_rate = torch.tensor([[-30.0], [-2.0], [0.0], [2.5], [4.0]], dtype=torch.float64)
    x = torch.arange(400.0, dtype=torch.float64)
    total = BF.poisson_log_prob(x, log_rate, reduction="none").exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14)


def _worst(found: Tensor, exact: list[mpmath.mpf]) -> float:
    """The largest error in units of eps (|result| + 1)."""
    eps = torch.finfo(found.dtype).eps
    return max(
        float(abs(mpmath.mpf(a) - e) / (abs(e) + 1)) / eps
        for a, e in zip(found.tolist(), exact, strict=True)
    )


@pytest.mark.parametrize(("size", "bound"), [(3, 4), (30, 4), (1e3, 4), (1e5, 8), (1e7, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_counts_keep_their_digits(dtype: torch.dtype, size: float, bound: float) -> None:
    """The error is that of l - log x, some 0.1 eps, times sqrt(x).

    x l - exp(l) - log x! would keep no digits in float32 from x = 1e6 on.
    """
    x = (3 + size * torch.rand(200, dtype=torch.float64)).round().to(dtype)
    away = 2 * torch.randn(200, dtype=torch.float64) / x.double().sqrt()
    log_rate = (x.double().log() + away).to(dtype)
    with mpmath.workdps(60):
        numbers = zip(log_rate.tolist(), x.tolist(), strict=True)
        pairs = [(mpmath.mpf(a), mpmath.mpf(b)) for a, b in numbers]
        exact = [n * rate - mpmath.exp(rate) - mpmath.loggamma(n + 1) for rate, n in pairs]
        by_rate = [1 - mpmath.exp(rate) / n for rate, n in pairs]
        by_x = [rate - mpmath.digamma(n + 1) for rate, n in pairs]
        log_rate.requires_grad_()
        x.requires_grad_()
        log_prob = BF.poisson_log_prob(x, log_rate, reduction="none")
        log_prob.sum().backward()
        assert _worst(log_prob.detach(), exact) <= bound
        assert log_rate.grad is not None
        assert x.grad is not None
        assert _worst(log_rate.grad / x.detach(), by_rate) <= 2
        assert _worst(x.grad, by_x) <= 2


def test_certain_outcomes() -> None:
    """A rate of 0 gives log probability 0 without an event, and -inf with one."""
    log_rate = torch.tensor([-torch.inf, -torch.inf, -torch.inf])
    x = torch.tensor([0.0, 1.0, 10.0])
    found = BF.poisson_log_prob(x, log_rate, reduction="none")
    assert found.tolist() == [0.0, -torch.inf, -torch.inf]


def test_large_rates_in_float16() -> None:
    """The derivative by x is log_rate - digamma(x + 1), however large the logarithm is."""
    log_rate = torch.tensor([-65504.0, 2000.0, 65504.0], dtype=torch.float16)
    x = torch.tensor([1.0, 5.0, 0.0], dtype=torch.float16, requires_grad=True)
    wanted = log_rate.double() - torch.digamma(x.detach().double() + 1)
    (by_x,) = torch.autograd.grad(BF.poisson_log_prob(x, log_rate), x)
    assert torch.equal(by_x, wanted.half())
    double = x.detach().double().requires_grad_()
    (by_x,) = torch.autograd.grad(R.poisson_log_prob(double, log_rate.double()), double)
    torch.testing.assert_close(by_x, wanted)


def test_negative_counts_are_nan_where_nobody_looks() -> None:
    compiled = torch.compile(
        lambda rate, x: BF.poisson_log_prob(x, rate, reduction="none"), backend="aot_eager"
    )
    with pytest.raises(ValueError, match=r"^x: expected counts >= 0, got -1"):
        BF.poisson_log_prob(torch.tensor([1.0, -1.0]), torch.zeros(2))
    with BF.use_reference():
        found = BF.poisson_log_prob(torch.tensor([1.0, -1.0]), torch.zeros(2), reduction="none")
    assert found.isnan().tolist() == [False, True]
    assert compiled(torch.zeros(2), torch.ones(2)).tolist() == [-1.0, -1.0]
