"""Relaxed Bernoulli and one-hot categorical distributions against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributions as td
from scipy import stats
from torch import Tensor

import bslfast.distributions as bd
import bslfast.functional as BF

NAMES = ("RelaxedBernoulli", "RelaxedOneHotCategorical")
T = 0.75  # which every dtype holds
of_each = pytest.mark.parametrize("name", NAMES)


def logits_of(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def pair(name: str, logits: Tensor) -> tuple[Any, Any]:
    """Our distribution and torch's."""
    temperature = torch.tensor(T, dtype=torch.float64)
    return getattr(bd, name)(T, logits=logits), getattr(td, name)(temperature, logits=logits)


def points(name: str, *shape: int) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64)
    return x.sigmoid() if name == "RelaxedBernoulli" else x.softmax(-1)


@of_each
def test_are_those_of_torch(name: str) -> None:
    logits = logits_of(4, 3)
    ours, theirs = pair(name, logits)
    assert isinstance(ours, getattr(td, name))
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape
    assert str(ours.support) == str(theirs.support)
    assert ours.has_rsample
    for x in (points(name, 5, 4, 3), points(name, 3)):
        x.requires_grad_()
        found, expected = ours.log_prob(x), theirs.log_prob(x)
        torch.testing.assert_close(found, expected)
        grads = [  # torch's class keeps the normalised logits, and so their graph
            torch.autograd.grad(y.square().sum(), (x, logits), retain_graph=True)
            for y in (found, expected)
        ]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)
    for parameter in ("logits", "probs", "temperature"):
        torch.testing.assert_close(getattr(ours, parameter), getattr(theirs, parameter))
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(ours.base_dist.log_prob(x), theirs.base_dist.log_prob(x))


@of_each
def test_samples_are_those_of_the_op(name: str) -> None:
    logits = logits_of(4, 3)
    ours, _ = pair(name, logits)
    op = BF.relaxed_bernoulli_rsample if name == NAMES[0] else BF.gumbel_softmax_rsample
    torch.manual_seed(1)
    found = ours.rsample((2, 5))
    torch.manual_seed(1)
    expected = op(logits, T, sample_shape=(2, 5))
    assert torch.equal(found, expected)
    assert found.requires_grad
    torch.manual_seed(1)
    assert torch.equal(ours.sample((2, 5)), expected)
    assert not ours.sample().requires_grad
    assert ours.rsample().shape == (4, 3)
    assert ours.log_prob(ours.rsample((2,))).shape == (2, *ours.batch_shape)


@of_each
def test_expand(name: str) -> None:
    ours, theirs = pair(name, logits_of(4, 3))
    shape = torch.Size((5, *ours.batch_shape))
    wide, other = ours.expand(shape), theirs.expand(shape)
    assert type(wide) is getattr(bd, name)
    assert wide.batch_shape == other.batch_shape == shape
    x = points(name, 4, 3)
    torch.testing.assert_close(wide.log_prob(x), other.log_prob(x))
    assert wide.rsample((7,)).shape == (7, 5, 4, 3)
    assert wide.expand((6, *shape)).sample().shape == (6, 5, 4, 3)
    assert wide.base_dist.rsample((7,)).shape == (7, 5, 4, 3)


@of_each
def test_in_torchs_own_machinery(name: str) -> None:
    ours, theirs = pair(name, logits_of(4, 3))
    rows, their_rows = (td.Independent(d, 1) for d in (ours, theirs))
    x = rows.rsample((2,))
    torch.testing.assert_close(rows.log_prob(x), their_rows.log_prob(x))
    assert rows.expand((2, *rows.batch_shape)).rsample().shape == (2, 4, 3)
    affine = [td.AffineTransform(0.5, -2.0)]
    moved, their_moved = (
        td.TransformedDistribution(d, affine, validate_args=False) for d in (ours, theirs)
    )
    y = moved.rsample((2,))
    torch.testing.assert_close(moved.log_prob(y), their_moved.log_prob(y))


def test_logits_of_relaxed_bernoulli_samples_are_logistic() -> None:
    """Kolmogorov-Smirnov test of both kinds of samples; a fresh seed fails once in 80 million."""
    logits = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    q = bd.RelaxedBernoulli(T, logits=logits)
    torch.manual_seed(1)
    for x in (torch.logit(q.sample((50_000,))), q.base_dist.sample((50_000,))):
        for i in range(3):
            exact = stats.logistic(logits[i].item() / T, 1 / T)
            assert stats.kstest(x[:, i].numpy(), exact.cdf).pvalue > 2e-9


def test_temperature_of_relaxed_bernoulli() -> None:
    """A tensor as temperature broadcasts, and has torch's gradient."""
    logits = logits_of(3)
    temperature = (torch.rand(2, 1, dtype=torch.float64) + 0.5).requires_grad_()
    ours = bd.RelaxedBernoulli(temperature, logits=logits)
    theirs = td.RelaxedBernoulli(temperature, logits=logits.expand(2, 3))
    assert ours.batch_shape == ours.rsample().shape == (2, 3)
    x = points(NAMES[0], 5, 2, 3)
    found, expected = (
        torch.autograd.grad(d.log_prob(x).square().sum(), (temperature, logits))
        for d in (ours, theirs)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    (grad,) = torch.autograd.grad(ours.rsample((5,)).sum(), temperature)
    assert bool(grad.isfinite().all() & (grad != 0).all())


def test_density_of_the_simplex_integrates_to_one() -> None:
    """E[p(x) / u(x)] over uniform x is 1 within 6 standard errors; fails once in 500 million."""
    q = bd.RelaxedOneHotCategorical(1.5, logits=torch.tensor([0.3, -0.2, 0.1]).double())
    uniform = td.Dirichlet(torch.ones(3, dtype=torch.float64))
    n = 200_000
    x = uniform.sample((n,))
    ratio = (q.log_prob(x) - uniform.log_prob(x)).exp()
    assert abs(ratio.mean() - 1) < 6 * ratio.std() / n**0.5


def test_log_densities_at_the_border() -> None:
    """Samples rounded to the border have a number, where torch's simplex has NaN."""
    tiny = torch.finfo(torch.float32).tiny
    q = bd.RelaxedOneHotCategorical(0.05, logits=torch.zeros(3))
    x = q.sample((1000,))
    assert bool((x == 0).any())
    assert bool(q.log_prob(x).isfinite().all())
    # Next to this face the density is a power of x. 0 has no logarithm, and counts as tiny.
    ends = q.log_prob(torch.tensor([[0.0, 0.5, 0.5], [tiny, 0.5, 0.5]]))
    assert torch.equal(ends[0], ends[1])
    b = bd.RelaxedBernoulli(0.05, logits=torch.zeros(1))
    x = b.sample((1000,))
    assert bool((x == 0).any())
    assert bool((x == 1).any())
    assert bool(b.log_prob(x).isfinite().all())
    # torch computes exp of 190 in float32 here.
    far = bd.RelaxedBernoulli(0.5, logits=torch.tensor([200.0])).log_prob(torch.tensor([0.5]))
    torch.testing.assert_close(far, torch.tensor([0.5]).log() - 200 + torch.tensor([4.0]).log())


def test_excluded_class() -> None:
    q = bd.RelaxedOneHotCategorical(T, logits=torch.tensor([0.0, 1.0, -torch.inf]))
    x = q.sample((50,))
    assert bool((x[:, 2] == 0).all())
    assert bool(q.log_prob(x).isneginf().all())


# --- straight through -----------------------------------------------------------------------------


def test_straight_through() -> None:
    """Samples are one-hot ones of torch's distribution, with the gradients of the op's samples."""
    logits = logits_of(4, 3)
    ours = bd.OneHotCategoricalStraightThrough(T, logits=logits)
    theirs = td.OneHotCategoricalStraightThrough(logits=logits)
    assert isinstance(ours, td.OneHotCategoricalStraightThrough)
    assert ours.batch_shape == theirs.batch_shape == (4,)
    assert ours.event_shape == theirs.event_shape == (3,)
    assert ours.has_rsample
    assert ours.temperature == T
    torch.manual_seed(1)
    x = ours.rsample((6,))
    torch.manual_seed(1)
    expected = BF.gumbel_softmax_rsample(logits, T, hard=True, sample_shape=(6,))
    assert torch.equal(x, expected)
    weight = torch.randn(6, 4, 3, dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad((x * weight).sum(), logits),
        torch.autograd.grad((expected * weight).sum(), logits),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.manual_seed(1)
    assert torch.equal(ours.sample((6,)), expected)
    assert not ours.sample().requires_grad
    assert bool(ours.support.check(x).all())
    for function in (
        lambda d: d.log_prob(x.detach()),
        lambda d: d.entropy(),
        lambda d: d.mean,
        lambda d: d.variance,
        lambda d: d.mode,
        lambda d: d.enumerate_support(),
        lambda d: td.kl_divergence(d, theirs.expand((4,))),
    ):
        torch.testing.assert_close(function(ours), function(theirs))
    wide = ours.expand((5, 4))
    assert type(wide) is bd.OneHotCategoricalStraightThrough
    assert wide.rsample((2,)).shape == (2, 5, 4, 3)
    torch.testing.assert_close(wide.log_prob(x[0].detach()), theirs.log_prob(x[0]).expand(5, 4))
    rows = td.Independent(ours, 1)
    torch.testing.assert_close(rows.log_prob(x), theirs.log_prob(x).sum(-1))


def test_straight_through_samples_by_the_probabilities() -> None:
    """Frequencies are within 6 standard errors: a fresh seed fails once in 150 million."""
    logits = torch.tensor([0.0, 1.0, -1.0])
    n = 100_000
    q = bd.OneHotCategoricalStraightThrough(T, logits=logits)
    found = q.sample((n,)).double().mean(0)
    p = logits.double().softmax(-1)
    assert bool(((found - p).abs() < 6 * (p * (1 - p) / n).sqrt()).all())


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "OneHotCategoricalStraightThrough"])
def test_errors(name: str) -> None:
    family = getattr(bd, name)
    with pytest.raises(ValueError, match=r"^temperature: .*above 0, got 0"):
        family(0.0, logits=torch.zeros(2))
    with pytest.raises(TypeError, match=r"^temperature: .*'?str'?"):
        family("1", logits=torch.zeros(2))
    with pytest.raises(TypeError, match=r"^logits: expected a torch.Tensor, got float"):
        family(T, logits=1.0)
    with pytest.raises(ValueError, match=r"logits"):
        family(T, logits=torch.tensor([torch.nan, 0.0]), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        family(T, logits=torch.zeros(2), validate_args=True).log_prob(torch.tensor([1.5, -0.5]))
    with pytest.raises(TypeError, match="positional"):
        family(T, torch.ones(2))  # where torch has probabilities


def test_errors_of_temperatures() -> None:
    with pytest.raises(ValueError, match="temperature"):
        bd.RelaxedBernoulli(torch.tensor(-1.0), logits=torch.zeros(2), validate_args=True)
    with pytest.raises(TypeError, match=r"^temperature: expected the dtype of logits, float32"):
        bd.RelaxedBernoulli(torch.tensor(1.0).double(), logits=torch.zeros(2))
    with pytest.raises(ValueError, match=r"^temperature: .*\[2\].*\[3\]"):
        bd.RelaxedBernoulli(torch.ones(3), logits=torch.zeros(2))
    with pytest.raises(TypeError, match=r"^temperature: expected a finite number above 0, got a"):
        bd.RelaxedOneHotCategorical(torch.tensor(1.0), logits=torch.zeros(2))
    with pytest.raises(ValueError, match=r"^logits: expected shape"):
        bd.RelaxedOneHotCategorical(1.0, logits=torch.zeros(()))
