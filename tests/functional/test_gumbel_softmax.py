"""Gumbel-softmax samples: distribution and the straight-through gradient."""

from __future__ import annotations

import math

import pytest
import torch
from ops.record import SEED, assert_same, threads
from torch import Tensor

import bslfast.functional as BF
from bslfast import reference


@pytest.mark.parametrize("classes", [1, 3, 64, 65, 400])
def test_hard_samples_are_one_hot(classes: int) -> None:
    """They have the soft sample's largest class, and its gradient to the last bit."""
    logits = 2 * torch.randn(100, classes)
    soft_logits, hard_logits = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    soft = BF.gumbel_softmax_rsample(soft_logits, 0.7, seed=1)
    hard = BF.gumbel_softmax_rsample(hard_logits, 0.7, hard=True, seed=1)
    expected = torch.nn.functional.one_hot(soft.argmax(-1), classes).float()
    assert torch.equal(hard, expected)
    grad = torch.randn_like(soft)
    soft.backward(grad)
    hard.backward(grad)
    assert soft_logits.grad is not None
    assert hard_logits.grad is not None
    assert_same([hard_logits.grad], [soft_logits.grad])
    plain = logits.double().requires_grad_()
    with threads(1):
        twin = reference.gumbel_softmax_rsample(logits, 0.7, hard=True, seed=1)
    assert torch.equal(hard, twin)
    assert plain.grad is None


def test_hard_by_every_route() -> None:
    logits = torch.randn(5, 7)
    grad = torch.randn(5, 7)

    def sample(logits: Tensor) -> Tensor:
        return BF.gumbel_softmax_rsample(logits, 0.5, hard=True, seed=SEED)

    leaf = logits.clone().requires_grad_()
    expected = sample(leaf)
    (expected_grad,) = torch.autograd.grad(expected, leaf, grad)
    value, pullback = torch.func.vjp(sample, logits)
    assert_same([value, pullback(grad)[0]], [expected, expected_grad])
    leaf = logits.clone().requires_grad_()
    compiled = torch.compile(sample, backend="aot_eager", fullgraph=True)(leaf)
    assert_same([compiled, *torch.autograd.grad(compiled, leaf, grad)], [expected, expected_grad])


@pytest.mark.parametrize("classes", [4, 100])
def test_nan_in_a_hard_row(classes: int) -> None:
    logits = torch.zeros(3, classes)
    logits[1, 2] = math.nan
    hard = BF.gumbel_softmax_rsample(logits, 1.0, hard=True, seed=0)
    assert hard[1].isnan().all()
    assert hard[[0, 2]].sum(-1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("classes", [5, 80])
def test_classes_come_with_their_probabilities(classes: int) -> None:
    """Chi-square test of 200,000 draws. Each of two tests has one false alarm in 10^6."""
    logits = torch.randn(classes)
    n = 200_000
    hard = BF.gumbel_softmax_rsample(logits, 1.0, hard=True, sample_shape=(n,), seed=7)
    expected = n * logits.double().softmax(-1)
    statistic = ((hard.double().sum(0) - expected).square() / expected).sum()
    freedom = torch.tensor(classes - 1.0, dtype=torch.float64)
    tail = torch.special.gammaincc(freedom / 2, statistic / 2)
    assert tail > 1e-6, (statistic, tail)


def test_density() -> None:
    """log(y0 / y1) temperature of soft samples of two classes is logistic around l0 - l1.

    Kolmogorov-Smirnov distance of 100,000 draws; false alarms: 2 exp(-2 * 2.7^2), 9e-7.
    """
    n = 100_000
    logits = torch.tensor([0.7, -0.4], dtype=torch.float64)
    y = BF.gumbel_softmax_rsample(logits, 0.8, sample_shape=(n,), seed=3)
    z = ((y[:, 0].log() - y[:, 1].log()) * 0.8 - 1.1).sort().values
    grid = torch.arange(n, dtype=torch.float64) / n
    distance = (z.sigmoid() - grid).abs().max() + 1 / n
    assert distance * math.sqrt(n) < 2.7


def test_excluded_classes() -> None:
    logits = torch.tensor([0.0, -math.inf, 1.0], requires_grad=True)
    y = BF.gumbel_softmax_rsample(logits, 0.5, sample_shape=(100,), seed=0)
    assert (y[:, 1] == 0).all()
    torch.testing.assert_close(y.sum(-1), torch.ones(100))
    y[:, 0].sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[1] == 0


def test_rows_of_samples_share_their_logits() -> None:
    """Reading rows again gives what copies of them give, also where tiles wrap around."""
    for rows, classes in ((7, 5), (45, 3), (3, 70)):
        logits = torch.randn(rows, classes)
        shared = BF.gumbel_softmax_rsample(logits, 1.0, sample_shape=(9,), seed=2)
        copies = logits.expand(9, rows, classes).contiguous()
        assert_same([shared], [BF.gumbel_softmax_rsample(copies, 1.0, seed=2)])
