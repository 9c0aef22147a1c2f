"""Relaxed Bernoulli samples: the distribution, and the straight-through form."""

from __future__ import annotations

import pytest
import torch
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli

import bslfast.functional as BF


def test_log_density_by_the_logistic_one() -> None:
    """The density of a sample's logit is logistic, as the docstring says."""
    logits = torch.randn(50, dtype=torch.float64)
    y = torch.randn(50, dtype=torch.float64)
    temperature = torch.tensor(0.6, dtype=torch.float64)
    expected = LogitRelaxedBernoulli(temperature, logits=logits).log_prob(y)
    found = BF.logistic_log_prob(
        y, logits / 0.6, 1 / temperature, parametrization="scale", reduction="none"
    )
    torch.testing.assert_close(found, expected)


def test_samples_are_logistic() -> None:
    logits = torch.randn(1000, dtype=torch.float64)
    x = BF.relaxed_bernoulli_rsample(logits, 0.5, seed=3)
    expected = BF.logistic_rsample(
        2 * logits, torch.tensor(2.0).double(), parametrization="scale", seed=3
    )
    torch.testing.assert_close(x.logit(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_hard_samples_are_bernoulli(dtype: torch.dtype) -> None:
    """Their mean is within 6 standard deviations; one seed in 5e8 would fail."""
    n = 1_000_000
    for logit in (-3.0, 0.0, 1.5):
        logits = torch.full((n,), logit, dtype=dtype)
        x = BF.relaxed_bernoulli_rsample(logits, 0.3, hard=True, seed=1)
        p = torch.tensor(logit, dtype=torch.float64).sigmoid().item()
        assert set(x.unique().tolist()) == {0.0, 1.0}
        assert abs(x.double().mean().item() - p) < 6 * (p * (1 - p) / n) ** 0.5


def test_straight_through_gradients_are_those_of_the_soft_sample() -> None:
    results = []
    for hard in (False, True):
        logits = torch.randn(300, generator=torch.Generator().manual_seed(0), requires_grad=True)
        temperature = torch.tensor(0.7, requires_grad=True)
        x = BF.relaxed_bernoulli_rsample(logits, temperature, hard=hard, seed=4)
        loss = (x * torch.linspace(-1, 1, 300)).sum()
        results.append((x.detach(), *torch.autograd.grad(loss, (logits, temperature))))
    (soft, *soft_grads), (hard_value, *hard_grads) = results
    assert torch.equal(hard_value, (soft > 0.5).float())
    for a, b in zip(soft_grads, hard_grads, strict=True):
        assert torch.equal(a, b)


def test_hard_second_derivatives_agree_with_the_reference() -> None:
    logits = torch.randn(20, dtype=torch.float64, requires_grad=True)
    grads = []
    for reference in (False, True):
        with BF.use_reference() if reference else torch.enable_grad():
            x = BF.relaxed_bernoulli_rsample(logits, 0.7, hard=True, seed=4)
            (first,) = torch.autograd.grad(x.sum(), logits, create_graph=True)
            grads.append((first, *torch.autograd.grad(first.square().sum(), logits)))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
