"""Likelihoods against torch.distributions, quadrature and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import bslfast
from bslfast import likelihoods
from bslfast.elbo import negative_elbo
from bslfast.likelihoods import (
    MIN_SCALE,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    HeteroscedasticNormal,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)


def test_normal_log_prob_sums_over_targets() -> None:
    head = Normal(3, init_scale=0.7)
    output, y = torch.randn(5, 3), torch.randn(5, 3)
    expected = torch.distributions.Normal(output, 0.7).log_prob(y).sum(1)
    torch.testing.assert_close(head.log_prob(output, y), expected)
    samples = torch.randn(4, 5, 3)
    expected = torch.distributions.Normal(samples, 0.7).log_prob(y).sum(-1)
    torch.testing.assert_close(head.log_prob(samples, y), expected)


@pytest.mark.parametrize("scale", [1e-3, 0.7, 30.0, 1e4])
def test_normal_starts_at_the_scale_asked_for(scale: float) -> None:
    torch.testing.assert_close(Normal(1, init_scale=scale).scale, torch.tensor([scale]))


def test_normal_learns_the_noise() -> None:
    head = Normal(1)
    y = 0.3 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-head.log_prob(torch.zeros(2000, 1), y).mean()).backward()
        optimizer.step()
    assert head.scale.item() == pytest.approx(y.square().mean().sqrt().item(), rel=1e-3)


def test_heteroscedastic_normal_reads_loc_and_raw_scale_side_by_side() -> None:
    output, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    scale = torch.nn.functional.softplus(output[:, 2:]) + likelihoods.MIN_SCALE
    expected = torch.distributions.Normal(output[:, :2], scale).log_prob(y).sum(1)
    torch.testing.assert_close(HeteroscedasticNormal(2).log_prob(output, y), expected)


def test_heteroscedastic_normal_stays_finite_at_extreme_outputs() -> None:
    output = torch.tensor([[0.0, -1e4], [0.0, 1e4]], requires_grad=True)
    log_prob = HeteroscedasticNormal(1).log_prob(output, torch.ones(2, 1))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_categorical_log_prob() -> None:
    logits, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    expected = torch.distributions.Categorical(logits=logits).log_prob(y)
    torch.testing.assert_close(Categorical(3).log_prob(logits, y), expected)
    stacked = torch.stack([logits, logits + 1])
    torch.testing.assert_close(
        Categorical(3).log_prob(stacked, y), torch.stack([expected, expected])
    )


@pytest.mark.parametrize("head", [Normal(2), HeteroscedasticNormal(2)])
def test_regression_parts_add_up_to_the_variance_of_the_mixture(
    head: likelihoods.Likelihood,
) -> None:
    torch.manual_seed(0)
    samples = torch.randn(7, 4, head.n_outputs(2))
    mean, aleatoric, epistemic = head.predictive(samples)
    assert mean.shape == aleatoric.shape == epistemic.shape == (4, 2)
    loc, scale = head.loc_scale(samples)
    component = torch.randint(7, (400_000,))
    draws = loc[component] + scale.expand(loc.shape)[component] * torch.randn(400_000, 4, 2)
    # The standard error of a variance estimated from n draws is about variance * sqrt(2 / n).
    torch.testing.assert_close(draws.var(0), aleatoric**2 + epistemic**2, rtol=0.012, atol=0.0)
    bound = 5 * (draws.std(0) / math.sqrt(400_000)).max().item()
    torch.testing.assert_close(draws.mean(0), mean, rtol=0.0, atol=bound)


def test_classification_parts_add_up_to_the_entropy() -> None:
    head = Categorical(3)
    samples = torch.randn(50, 6, 3, dtype=torch.float64)
    mean, aleatoric, epistemic = head.predictive(samples)
    torch.testing.assert_close(mean.sum(1), torch.ones(6, dtype=torch.float64))
    total = torch.distributions.Categorical(probs=mean).entropy()
    torch.testing.assert_close(aleatoric + epistemic, total)
    assert bool((epistemic > 0).all())
    # Samples that agree have no epistemic part; samples that are sure of opposite classes have
    # nothing else, and its size is log 2.
    assert head.predictive(samples[:1]).epistemic.abs().max() < 1e-12
    opposite = torch.tensor([[[500.0, 0.0, 0.0]], [[0.0, 500.0, 0.0]]])
    _, aleatoric, epistemic = head.predictive(opposite)
    assert aleatoric.item() == 0
    assert epistemic.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.95, 0.9999])
def test_interval_of_one_component_is_that_of_a_normal(level: float) -> None:
    loc = torch.tensor([[[0.0, 5.0, -1e3]]], dtype=torch.float64)
    lower, upper = Normal(3, init_scale=2.0).interval(loc, level)
    z = torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64))
    scale = Normal(3, init_scale=2.0).scale.double()
    torch.testing.assert_close(lower, loc[0] - z * scale, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(upper, loc[0] + z * scale, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("level", [0.01, 0.5, 0.95, 1 - 1e-9])
def test_interval_ends_are_quantiles_of_the_mixture(level: float) -> None:
    torch.manual_seed(0)
    # Two far modes, tight and wide, make a distribution function with steps and flats.
    loc = torch.cat([torch.randn(20, 50, 1) - 30, torch.randn(30, 50, 1) * 0.01 + 30]).double()
    raw = torch.cat([torch.full((20, 50, 1), -6.0), torch.full((30, 50, 1), 3.0)]).double()
    head, samples = HeteroscedasticNormal(1), torch.cat([loc, raw], -1)
    lower, upper = head.interval(samples, level)
    tail = (1 - level) / 2
    torch.testing.assert_close(
        head.cdf(samples, lower), torch.full((50, 1), tail).double(), rtol=1e-6, atol=1e-12
    )
    mirrored = torch.cat([-loc, raw], -1)  # P(target > upper), without cancellation
    torch.testing.assert_close(
        head.cdf(mirrored, -upper), torch.full((50, 1), tail).double(), rtol=1e-6, atol=1e-12
    )


def test_interval_of_class_probabilities_covers_the_samples() -> None:
    samples = torch.randn(1000, 3, 4)
    lower, upper = Categorical(4).interval(samples, 0.9)
    p = samples.softmax(-1)
    inside = ((p >= lower) & (p <= upper)).float().mean(0)
    torch.testing.assert_close(inside, torch.full((3, 4), 0.9), atol=0.002, rtol=0)


def test_get() -> None:
    assert isinstance(likelihoods.get("normal", 2), Normal)
    assert likelihoods.get("heteroscedastic_normal", 2).n_outputs(2) == 4
    assert likelihoods.get("categorical", 3).n_outputs(3) == 3
    with pytest.raises(ValueError, match=r"likelihood: expected one of 'normal', .*got 'gauss'"):
        likelihoods.get("gauss", 1)


# --- every law ------------------------------------------------------------------------------------

td = torch.distributions
F64 = torch.float64


def soft(raw: Tensor) -> Tensor:
    return F.softplus(raw) + MIN_SCALE


def halves(output: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    loc, raw = output.chunk(2, dim=dim)
    return loc, raw


def uniform(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, dtype=F64)


def normal(shape: tuple[int, ...]) -> Tensor:
    return 3 * torch.randn(shape, dtype=F64)


def counts(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(9, shape).to(F64)


class Quantised:
    """A law of seven values, by the differences of distribution functions."""

    def __init__(self, output: Tensor, dim: int) -> None:
        logits, loc, log_scale = torch.stack(output.chunk(6, dim), -1).chunk(3, -1)
        edges = torch.linspace(-1, 1, 7, dtype=F64)[:-1, None] + 1 / 6
        below = torch.sigmoid((edges - loc.unsqueeze(-2)) / log_scale.exp().unsqueeze(-2))
        below = (logits.softmax(-1).unsqueeze(-2) * below).sum(-1)
        self.below = F.pad(below, (0, 1), value=1.0)
        self.chances = self.below.diff(dim=-1, prepend=torch.zeros_like(below[..., :1]))
        self.values = torch.linspace(-1, 1, 7, dtype=F64)
        self.mean = self.chances @ self.values
        self.variance = self.chances @ self.values**2 - self.mean**2
        self.stddev = self.variance.sqrt()

    def log_prob(self, y: Tensor) -> Tensor:
        index = ((y + 1) * 3).round().long().expand(self.mean.shape).unsqueeze(-1)
        return self.chances.gather(-1, index).squeeze(-1).log()


Law = tuple[
    Callable[[int | None], Likelihood],
    Callable[[Tensor, int], Any],
    Callable[[tuple[int, ...]], Tensor],
]
#: The likelihood for so many targets; torch's distribution from the outputs; targets.
LAWS: dict[str, Law] = {
    "normal": (lambda n: Normal(n, init_scale=0.7), lambda o, d: td.Normal(o, 0.7), normal),
    "normal, fixed": (lambda n: Normal(n, scale=0.3), lambda o, d: td.Normal(o, 0.3), normal),
    "normal, log_var": (
        lambda n: Normal(n, init_scale=0.7, parametrization="log_var"),
        lambda o, d: td.Normal(o, 0.7),
        normal,
    ),
    "normal, log_scale": (
        lambda n: Normal(n, scale="outputs", parametrization="log_scale"),
        lambda o, d: td.Normal(halves(o, d)[0], halves(o, d)[1].exp()),
        normal,
    ),
    "heteroscedastic": (
        HeteroscedasticNormal,
        lambda o, d: td.Normal(halves(o, d)[0], soft(halves(o, d)[1])),
        normal,
    ),
    "laplace": (lambda n: Laplace(n, init_scale=0.7), lambda o, d: td.Laplace(o, 0.7), normal),
    "laplace, outputs": (
        lambda n: Laplace(n, scale="outputs"),
        lambda o, d: td.Laplace(halves(o, d)[0], soft(halves(o, d)[1])),
        normal,
    ),
    "student_t": (
        lambda n: StudentT(n, df=3.0, init_scale=0.7, learn_df=True),
        lambda o, d: td.StudentT(3.0, o, 0.7),
        normal,
    ),
    "student_t, outputs": (
        lambda n: StudentT(n, df=5.0, scale="outputs", parametrization="log_var"),
        lambda o, d: td.StudentT(5.0, halves(o, d)[0], (0.5 * halves(o, d)[1]).exp()),
        normal,
    ),
    "bernoulli": (
        Bernoulli,
        lambda o, d: td.Bernoulli(logits=o),
        lambda shape: torch.randint(2, shape).to(F64),
    ),
    "continuous_bernoulli": (
        ContinuousBernoulli,
        lambda o, d: td.ContinuousBernoulli(logits=o),
        uniform,
    ),
    "poisson": (Poisson, lambda o, d: td.Poisson(o.exp()), counts),
    "negative_binomial": (
        lambda n: NegativeBinomial(n, init_total_count=2.5),
        lambda o, d: td.NegativeBinomial(2.5, logits=o - math.log(2.5)),
        counts,
    ),
    "negative_binomial, outputs": (
        lambda n: NegativeBinomial(n, total_count="outputs"),
        lambda o, d: td.NegativeBinomial(
            halves(o, d)[1].exp(), logits=halves(o, d)[0] - halves(o, d)[1]
        ),
        counts,
    ),
    "discretized": (
        lambda n: DiscretizedLogisticMixture(n, components=2, bins=7),
        Quantised,
        lambda shape: torch.randint(7, shape).to(F64) / 3 - 1,
    ),
}
every_law = pytest.mark.parametrize("name", LAWS)


def made(name: str, targets: int | None) -> tuple[Likelihood, Callable[[Tensor, int], Any]]:
    head = LAWS[name][0](targets).double()
    if hasattr(head, "reset_parameters"):
        head.reset_parameters()
    return head, LAWS[name][1]


def outputs(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=F64)


@every_law
def test_log_prob_is_that_of_torch(name: str) -> None:
    """It is right for targets [batch, targets], for several outputs, and for images."""
    torch.manual_seed(0)
    head, law = made(name, 3)
    output, y = outputs(4, 5, head.n_outputs(3)), LAWS[name][2]((5, 3))
    expected = law(output, -1).log_prob(y).sum(-1)
    torch.testing.assert_close(head.log_prob(output, y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.log_prob(output[0], y), expected[0], rtol=1e-12, atol=1e-12)
    head, law = made(name, None)
    output, y = outputs(4, 5, head.n_outputs(2), 3, 2), LAWS[name][2]((5, 2, 3, 2))
    expected = law(output, 2).log_prob(y).flatten(2).sum(-1)
    torch.testing.assert_close(head.log_prob(output, y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.mean(output, dim=2), law(output, 2).mean)


@every_law
def test_gradients(name: str) -> None:
    """The likelihood's own parameters have gradients too, also with targets missing."""
    torch.manual_seed(1)
    head, _ = made(name, 2)
    y = LAWS[name][2]((3, 2))
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    output = outputs(2, 3, head.n_outputs(2)).requires_grad_()
    own = list(head.parameters())

    def log_prob(output: Tensor, *own: Tensor) -> tuple[Tensor, Tensor]:
        return head.log_prob(output, y), head.log_prob(output, y, mask)

    torch.autograd.gradcheck(log_prob, (output, *own), fast_mode=True)


@every_law
def test_missing_targets_leave_no_trace(name: str) -> None:
    torch.manual_seed(2)
    head, law = made(name, 3)
    y, mask = LAWS[name][2]((6, 3)), torch.rand(6, 3) > 0.4
    output = outputs(2, 6, head.n_outputs(3))
    expected = (law(output, -1).log_prob(y) * mask).sum(-1)
    gone = ~torch.cat([mask] * len(head.parts), -1)
    for junk in (math.nan, math.inf, -1e300):
        leaf = output.masked_fill(gone, junk).requires_grad_()
        found = head.log_prob(leaf, y.masked_fill(~mask, junk), mask)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad(found.sum(), (leaf, *head.parameters()))
        assert all(g.isfinite().all() for g in grads)
        assert grads[0][gone.expand_as(leaf)].count_nonzero() == 0
        assert grads[0][~gone.expand_as(leaf)].count_nonzero() > 0
    whole = head.log_prob(output, y)
    none = torch.zeros_like(mask)
    torch.testing.assert_close(head.log_prob(output, y, ~none), whole, rtol=1e-12, atol=1e-12)
    assert head.log_prob(output, y, none).count_nonzero() == 0


def test_missing_labels_leave_no_trace() -> None:
    head, y = Categorical(3), torch.tensor([0, 99, 2, -5])
    mask = torch.tensor([True, False, True, False])
    output = outputs(4, 3)
    output[~mask] = math.nan
    output.requires_grad_()
    found = head.log_prob(output, y, mask)
    torch.testing.assert_close(found[mask], head.log_prob(output[mask], y[mask]))
    assert found[~mask].count_nonzero() == 0
    (grad,) = torch.autograd.grad(found.sum(), output)
    assert grad.isfinite().all()
    assert grad[~mask].count_nonzero() == 0


@every_law
def test_samples_are_of_the_distribution(name: str) -> None:
    head, law = made(name, 2)
    torch.manual_seed(3)
    output, n = outputs(head.n_outputs(2)), 40_000
    draws = head.sample(output.expand(n, -1), seed=4)
    assert torch.equal(draws, head.sample(output.expand(n, -1), seed=4))
    assert not torch.equal(draws, head.sample(output.expand(n, -1), seed=5))
    each = law(output, -1)
    if name.startswith("student_t"):  # whose squares have no variance
        chance = torch.special.ndtr((draws - each.loc) / each.scale)
        mid = torch.full((2,), 0.5, dtype=F64)
        torch.testing.assert_close(chance.median(0).values, mid, rtol=0, atol=0.01)
        expected = each.scale * {3.0: 0.764892, 5.0: 0.726687}[each.df.flatten()[0].item()]
        found = (draws - each.loc).abs().median(0).values
        torch.testing.assert_close(found, expected.expand(2), rtol=0.03, atol=0)
        return
    deviation = each.stddev.expand(2)
    assert ((draws.mean(0) - each.mean).abs() < 5 * deviation / math.sqrt(n)).all()
    torch.testing.assert_close(draws.std(0), deviation, rtol=0.03, atol=0)


DISCRETE = ("bernoulli", "poisson", "negative_binomial", "discretized")
CONTINUOUS = [name for name in LAWS if not name.startswith(DISCRETE)]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_predictions(name: str) -> None:
    """The mixture's variance and its parts, distribution function and quantiles are right."""
    head, law = made(name, 2)
    torch.manual_seed(5)
    samples = 2 * outputs(7, 4, head.n_outputs(2))
    each = law(samples, -1)
    mean, aleatoric, epistemic = head.predictive(samples)
    torch.testing.assert_close(mean, each.mean.mean(0))
    second = (each.variance.expand(7, 4, 2) + each.mean**2).mean(0)
    torch.testing.assert_close(aleatoric**2 + epistemic**2, second - mean**2)
    for level in (0.1, 0.95, 1 - 1e-7):
        tail = torch.full((4, 2), (1 - level) / 2, dtype=F64)
        lower, upper = head.interval(samples, level)
        assert (lower < upper).all()
        torch.testing.assert_close(head.cdf(samples, lower), tail, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(head.cdf(samples, upper), 1 - tail, rtol=0, atol=1e-9)
    y = LAWS[name][2]((4, 2))
    if not name.startswith("student_t"):  # torch has none
        torch.testing.assert_close(head.cdf(samples, y), each.cdf(y).mean(0), rtol=0, atol=1e-6)
    # The slope of the distribution function is the density.
    step = 1e-6
    slope = (head.cdf(samples, y + step) - head.cdf(samples, y - step)) / (2 * step)
    torch.testing.assert_close(slope, each.log_prob(y).exp().mean(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_count_predictions(name: str) -> None:
    head, law = made(name, 3)
    torch.manual_seed(6)
    highest = 8.0 if name == "poisson" else 5.0
    samples = torch.tensor([-3.0, 1.0, highest], dtype=F64) + 0.3 * outputs(7, 4, 3)
    mean, aleatoric, epistemic = head.predictive(samples)
    each = law(samples, -1)
    torch.testing.assert_close(mean, each.mean.mean(0))
    torch.testing.assert_close(
        aleatoric**2 + epistemic**2, each.variance.mean(0) + each.mean.var(0, correction=0)
    )
    n = torch.arange(20_000, dtype=F64)[:, None, None, None]
    below = each.log_prob(n).exp().mean(1).cumsum(0)
    for level in (0.1, 0.5, 0.95, 0.9999):
        tail = (1 - level) / 2
        lower, upper = head.interval(samples, level)
        torch.testing.assert_close(lower, (below < tail).sum(0).to(F64), rtol=0, atol=0)
        torch.testing.assert_close(upper, (below < 1 - tail).sum(0).to(F64), rtol=0, atol=0)
    y = counts((4, 3))
    expected = below.gather(0, y.long()[None])[0]
    torch.testing.assert_close(head.cdf(samples, y), expected, rtol=1e-9, atol=1e-12)
    assert head.cdf(samples, y - 100).count_nonzero() == 0
    assert head.interval(torch.full((2, 1, 3), math.nan), 0.9)[1].isnan().all()


def test_negative_binomial_learns_its_total_counts() -> None:
    """The total count of each target is near the one that it was drawn with."""
    torch.manual_seed(7)
    drawn = NegativeBinomial(2, total_count="outputs")
    logs = torch.tensor([1.0, 2.0, math.log(0.5), math.log(8.0)])
    y = drawn.sample(logs.expand(4000, 4), seed=1)
    head, log_rate = NegativeBinomial(2), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([log_rate, *head.parameters()], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (-head.log_prob(log_rate.expand(4000, 2), y).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(log_rate.detach(), logs[:2], rtol=0, atol=0.1)
    torch.testing.assert_close(head.log_total_count.detach(), logs[2:], rtol=0, atol=0.2)
    history = bslfast.training.fit(
        bslfast.bnn.BayesianMLP(1, (4,), 2, likelihood=head),
        (torch.zeros(4000, 1), y),
        epochs=1,
        progress=False,
    )
    assert math.isfinite(history.loss[0])


def test_negative_binomial_is_poisson_in_the_limit() -> None:
    samples, y = torch.tensor([[[0.5, 7.0]]]), torch.tensor([[2.0, 1080.0]])
    poisson, other = Poisson(2), NegativeBinomial(2, total_count=1e18)
    torch.testing.assert_close(other.log_prob(samples[0], y), poisson.log_prob(samples[0], y))
    torch.testing.assert_close(other.cdf(samples, y), poisson.cdf(samples, y))
    for level in (0.5, 0.99):
        for a, b in zip(
            other.interval(samples, level), poisson.interval(samples, level), strict=True
        ):
            assert torch.equal(a, b)


def test_quantised_predictions() -> None:
    torch.manual_seed(6)
    head = DiscretizedLogisticMixture(3, components=2, bins=7)
    samples = outputs(5, 4, head.n_outputs(3))
    each = Quantised(samples, -1)
    mean, aleatoric, epistemic = head.predictive(samples)
    torch.testing.assert_close(mean, each.mean.mean(0))
    torch.testing.assert_close(aleatoric, each.variance.mean(0).sqrt())
    torch.testing.assert_close(epistemic, each.mean.std(0, correction=0))
    below = each.below.mean(0)
    for level in (0.1, 0.5, 0.9):
        tail = (1 - level) / 2
        lower, upper = head.interval(samples, level)
        torch.testing.assert_close(lower, each.values[(below < tail).sum(-1)])
        torch.testing.assert_close(upper, each.values[(below < 1 - tail).sum(-1)])
    draws = head.sample(samples, seed=1)
    assert ((draws * 3 - (draws * 3).round()).abs() < 1e-12).all()
    # If 0 is not among the values, the nearest value replaces missing targets.
    head = DiscretizedLogisticMixture(1, low=1.0, high=2.0)
    gone = torch.zeros(4, 1, dtype=torch.bool)
    assert head.log_prob(torch.zeros(4, 15), Y / 0, gone).count_nonzero() == 0
    # The mean is that of one value, and not NaN although the scale vanishes.
    sharp = torch.tensor([[0.0] * 5 + [1.5] * 5 + [-200.0] * 5])
    assert head.mean(sharp).item() == pytest.approx(1.5, abs=0.002)


def test_binary_predictions() -> None:
    """Predictions are those of two classes."""
    samples = outputs(50, 6, 2)
    found = Bernoulli(2).predictive(samples)
    for t in range(2):
        logits = torch.stack([torch.zeros_like(samples[..., t]), samples[..., t]], -1)
        expected = Categorical(2).predictive(logits)
        torch.testing.assert_close(found.mean[:, t], expected.mean[:, 1])
        torch.testing.assert_close(found.aleatoric[:, t], expected.aleatoric)
        torch.testing.assert_close(found.epistemic[:, t], expected.epistemic)
        ends = Categorical(2).interval(logits, 0.9)
        for a, e in zip(Bernoulli(2).interval(samples, 0.9), ends, strict=True):
            torch.testing.assert_close(a[:, t], e[:, 1])


SLOPES = [0.0, 1e-300, 1e-9, 0.1, 0.499999, 0.500001, -0.7, 3.0, -40.0, 700.0]


@pytest.mark.parametrize("slope", SLOPES)
def test_continuous_bernoulli_is_right_for_any_slope(slope: float) -> None:
    """It is right also where torch's is not: next to slope 0, and where a probability has no
    digits.
    """
    with mpmath.workdps(60):
        # Next to 0 it is a uniform distribution to all digits.
        m = mpmath.mpf(slope if abs(slope) > 1e-12 else 1e-20)
        constant = float(mpmath.log(m / mpmath.expm1(m)))
        mean = float(1 / -mpmath.expm1(-m) - 1 / m)
        variance = float(1 / m**2 - 1 / (4 * mpmath.sinh(m / 2) ** 2))
        below = float(mpmath.expm1(m * 0.25) / mpmath.expm1(m))
    head, output = ContinuousBernoulli(1), torch.tensor([[slope]], dtype=F64, requires_grad=True)
    quarter = torch.full((1, 1), 0.25, dtype=F64)
    log_prob = head.log_prob(output, quarter)
    assert log_prob.item() == pytest.approx(0.25 * slope + constant, rel=1e-13, abs=1e-13)
    # The derivative of a log density of this kind is y less the mean.
    (grad,) = torch.autograd.grad(log_prob.sum(), output)
    assert grad.item() == pytest.approx(0.25 - mean, rel=1e-12, abs=1e-13)
    samples = output.detach()[None]
    assert head.mean(output).item() == pytest.approx(mean, rel=1e-13)
    assert head.predictive(samples).aleatoric.item() == pytest.approx(variance**0.5, rel=1e-12)
    assert head.cdf(samples, quarter).item() == pytest.approx(below, rel=1e-12)
    each = head.distribution(output)
    for p in (0.0, below, 0.1, 0.9, 1.0):
        with mpmath.workdps(700):  # so many are lost where the density is steep
            exact = float(mpmath.log1p(p * mpmath.expm1(m)) / m)
        found = each.icdf(torch.tensor([[p]], dtype=F64))
        assert found.item() == pytest.approx(exact, rel=1e-13, abs=1e-15)
        assert torch.autograd.grad(found.sum(), output)[0].isfinite().all()


def test_student_t_learns_its_tails() -> None:
    """Scale and degrees of freedom come near those of the targets."""
    torch.manual_seed(7)
    y = td.StudentT(3.0, 0.0, 0.5).sample((4000, 1))
    head = StudentT(1, df=10.0, learn_df=True)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (-head.log_prob(torch.zeros_like(y), y).mean()).backward()
        optimizer.step()
    assert head.scale.item() == pytest.approx(0.5, rel=0.1)
    assert head.df.item() == pytest.approx(3.0, rel=0.2)


@pytest.mark.parametrize(
    "name",
    [
        "laplace",
        "student_t",
        "bernoulli",
        "continuous_bernoulli",
        "poisson",
        "negative_binomial",
        "discretized_logistic_mixture",
    ],
)
def test_networks_take_names_and_likelihoods(name: str) -> None:
    torch.manual_seed(8)
    head = likelihoods.get(name, 2)
    x, y = torch.randn(9, 3), torch.randint(2, (9, 2)).float()
    for given in (name, head):
        model = bslfast.bnn.BayesianMLP(3, (8,), 2, likelihood=given)
        loss = negative_elbo(model.likelihood.log_prob(model(x), y), 0.0, dataset_size=9)
        loss.backward()
        own = model.likelihood.parameters()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in own)
        prediction = bslfast.predict(model, x, 5)
        assert prediction.mean.shape == (*prediction.log_prob(y).shape, 2)
        lower, upper = prediction.interval(0.9)
        assert (lower <= upper).all()
    assert model.likelihood is head


def test_only_densities_are_rescaled() -> None:
    x, y = torch.randn(9, 3), 7 + 5 * torch.randn(9, 2)
    scaler = bslfast.data.Standardizer.fit(y)
    model = bslfast.bnn.BayesianMLP(3, (8,), 2, likelihood="laplace")
    prediction = bslfast.predict(model, x, 5, seed=0, target_scaler=scaler)
    plain = bslfast.predict(model, x, 5, seed=0)
    torch.testing.assert_close(prediction.mean, scaler.inverse(plain.mean))
    torch.testing.assert_close(prediction.cdf(y), plain.cdf(scaler.transform(y)))
    for name in ("poisson", "bernoulli"):
        model = bslfast.bnn.BayesianMLP(3, (8,), 2, likelihood=name)
        with pytest.raises(ValueError, match="target_scaler: expected None"):
            bslfast.predict(model, x, 5, target_scaler=scaler)
    with pytest.raises(TypeError, match="prediction: expected a regression"):
        bslfast.metrics.coverage(bslfast.predict(model, x, 5), y.abs().round())


X, Y = torch.zeros(4, 1), torch.zeros(4, 1)
IMAGES = torch.zeros(4, 2, 3, 3)
LABELS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Normal(0), ValueError, "targets: expected an integer of at least 1, got 0"),
        (lambda: Normal(1, init_scale=-1.0), ValueError, "init_scale: .*above 0.0001, got -1.0"),
        (lambda: Normal(1).log_prob(X, [0.0]), TypeError, "y: .*got a list"),
        (lambda: Normal(1).log_prob(X, torch.zeros(4)), ValueError, r"y: .*got .*shape \(4,\)"),
        (lambda: Normal(1).log_prob(X, LABELS[:, None]), TypeError, "y: .*got a tensor .*int64"),
        (lambda: Normal(1).log_prob(X, Y.double()), TypeError, "y: expected the dtype of output"),
        (lambda: Normal(2).log_prob(X, Y), ValueError, r"output: .*\[..., batch, 2\]"),
        (lambda: Normal(1).interval(X, 0.9), ValueError, r"samples: .*\[samples, batch, outputs\]"),
        (lambda: Normal(1).interval(X[None], 95), ValueError, "level: .*below 1, got 95"),
        (lambda: Normal(1, scale=0.0), ValueError, "scale: expected .*above 0, got 0.0"),
        (lambda: Normal(1, scale="decoder"), ValueError, "scale: expected one of 'learned', 'out"),
        (lambda: Normal(1, parametrization="scale"), ValueError, "parametrization: expected one"),
        (lambda: StudentT(1, df=0.0), ValueError, "df: expected .*above 0, got 0.0"),
        (lambda: StudentT(1, learn_df=1), TypeError, "learn_df: expected a bool, got 1"),
        (lambda: Normal(None).log_prob(X, LABELS.float()), ValueError, r"y: .*\[batch, targets, "),
        (lambda: Normal(None).log_prob(X, Y[:3]), ValueError, r"output: .*'\.\.\.', 3, 1\)"),
        (
            lambda: HeteroscedasticNormal(None).log_prob(IMAGES, IMAGES),
            ValueError,
            r"output: .*4, 4, 3, 3\) for y of shape \(4, 2, 3, 3\)",
        ),
        (lambda: Normal(None).log_prob(X, Y.double()), TypeError, "y: expected the dtype of ou"),
        (lambda: Normal(1).log_prob(X, Y, Y), TypeError, r"mask: expected a bool .*float32"),
        (lambda: Normal(1).log_prob(X, Y, [True]), TypeError, "mask: expected a bool .*a list"),
        (lambda: Normal(1).log_prob(X, Y, LABELS > 0), ValueError, r"mask: .* got \(4,\)"),
        (lambda: Bernoulli(1).log_prob(X, Y - 1), ValueError, r"y: .*\[0, 1\] .*got -1 to -1"),
        (lambda: Bernoulli(1).log_prob(X, Y / 0), ValueError, r"y: .*\[0, 1\] .*got nan to nan"),
        (lambda: ContinuousBernoulli(1).log_prob(X, Y + 2), ValueError, "y: .*got 2 to 2"),
        (lambda: Poisson(1).log_prob(X, Y - 1), ValueError, "y: expected values >= 0 .*got -1"),
        (lambda: Poisson(1).log_prob(X, Y + 0.5), ValueError, "y: expected whole .*got 0.5"),
        (lambda: Poisson(1).log_prob(X, Y + math.inf), ValueError, "y: .*got inf to inf"),
        (lambda: Poisson(2).interval(X[None], 0.9), ValueError, r"output: .*batch, 2\]"),
        (
            lambda: NegativeBinomial(1).log_prob(X, Y + 0.5),
            ValueError,
            "y: expected whole .*'negative_binomial', got 0.5",
        ),
        (lambda: NegativeBinomial(total_count="r"), ValueError, "total_count: .*'outputs', got"),
        (lambda: NegativeBinomial(total_count=0.0), ValueError, "total_count: .*above 0"),
        (lambda: NegativeBinomial(init_total_count=-1.0), ValueError, "init_total_count: "),
        (lambda: Bernoulli(1).cdf(X[None], Y), TypeError, "cdf: expected a regression"),
        (lambda: DiscretizedLogisticMixture(1, bins=1), ValueError, "bins: .*at least 2, got 1"),
        (lambda: DiscretizedLogisticMixture(1, low=1.0), ValueError, "high: .*above 1, got 1.0"),
        (
            lambda: DiscretizedLogisticMixture(1).log_prob(torch.zeros(4, 15), Y - 2),
            ValueError,
            r"y: expected values in \[-1, 1\] .*got -2 to -2",
        ),
        (lambda: likelihoods.get(Normal(2), 1), ValueError, "likelihood: expected one for 1 tar"),
        (lambda: likelihoods.get(3, 1), TypeError, "likelihood: expected one of 'normal', "),
        (lambda: Categorical(1), ValueError, "classes: expected an integer of at least 2, got 1"),
        (
            lambda: Categorical(2).log_prob(torch.zeros(4, 2), LABELS + 2),
            ValueError,
            "y: expected class indices from 0 to 1, got 2 to 2",
        ),
        (
            lambda: Categorical(2).log_prob(torch.zeros(4, 2), LABELS.float()),
            TypeError,
            "y: expected an int64 tensor",
        ),
        (
            lambda: Categorical(2).log_prob(torch.zeros(4, 2), LABELS[:3]),
            ValueError,
            r"y: expected an int64 tensor of shape \[4\]",
        ),
    ],
)
def test_likelihoods_refuse(call: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


# --- the ELBO -------------------------------------------------------------------------------------


def test_negative_elbo_over_batches_adds_up_to_the_whole() -> None:
    log_likelihood, kl, n = torch.randn(12), torch.tensor(7.0), 12
    whole = (kl - log_likelihood.sum()) / n
    batches = [negative_elbo(b, kl, dataset_size=n) for b in log_likelihood.split(4)]
    torch.testing.assert_close(torch.stack(batches).mean(), whole)
    torch.testing.assert_close(
        negative_elbo(log_likelihood, kl, dataset_size=n, beta=0.0), -log_likelihood.mean()
    )


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([1.0], 0.0, 1), TypeError, "log_likelihood: .*got a list"),
        ((torch.zeros(2, 2), 0.0, 1), ValueError, r"log_likelihood: .*\[batch\], got"),
        ((torch.zeros(0), 0.0, 1), ValueError, "log_likelihood: expected at least one example"),
        ((torch.zeros(2), torch.zeros(3), 1), ValueError, "kl: expected a tensor of one element"),
        ((torch.zeros(2), -1.0, 1), ValueError, "kl: expected a finite number at least 0"),
        ((torch.zeros(2), 0.0, 0), ValueError, "dataset_size: .*got 0"),
        ((torch.zeros(2), 0.0, 2.0), TypeError, "dataset_size: expected an integer"),
        ((torch.zeros(2), 0.0, 2, -1.0), ValueError, "beta: .*got -1.0"),
    ],
)
def test_negative_elbo_refuses(arguments: tuple, error: type[Exception], text: str) -> None:
    log_likelihood, kl, size, *beta = arguments
    with pytest.raises(error, match=text):
        negative_elbo(log_likelihood, kl, dataset_size=size, **({"beta": beta[0]} if beta else {}))
