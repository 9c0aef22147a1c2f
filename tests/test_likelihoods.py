"""Likelihoods against torch.distributions, quadrature and simulation."""

from __future__ import annotations

import math

import pytest
import torch

from bslfast import likelihoods
from bslfast.elbo import negative_elbo
from bslfast.likelihoods import Categorical, HeteroscedasticNormal, Normal


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


X, Y = torch.zeros(4, 1), torch.zeros(4, 1)
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
