"""Metrics of every likelihood's predictions: by closed forms, by hand and by simulation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

from bslfast import likelihoods as heads
from bslfast import metrics
from bslfast.data import Standardizer
from bslfast.likelihoods import Likelihood
from bslfast.predict import Prediction

#: A likelihood of two targets by its name, and parts of its outputs besides the first.
HEADS: dict[str, tuple[Likelihood, tuple[float, ...]]] = {
    "normal": (heads.Normal(2, scale=0.7), ()),
    "heteroscedastic": (heads.HeteroscedasticNormal(2), (-0.4,)),
    "laplace": (heads.Laplace(2, scale=0.5), ()),
    "student_t": (heads.StudentT(2, df=4.0, scale=0.5), ()),
    "heavy tails": (heads.StudentT(2, df=1.5, scale=0.5), ()),
    "continuous_bernoulli": (heads.ContinuousBernoulli(2), ()),
    "poisson": (heads.Poisson(2), ()),
    "negative_binomial": (heads.NegativeBinomial(2, total_count="outputs"), (0.5,)),
    "discretized_logistic_mixture": (
        heads.DiscretizedLogisticMixture(2, components=1, bins=8, low=-1.0, high=1.0), (0.1, -1.5),
    ),
    "bernoulli": (heads.Bernoulli(2), ()),
}  # fmt: skip
ORDERED = [name for name in HEADS if name != "bernoulli"]
of_each = pytest.mark.parametrize("name", ORDERED)


def predicted(name: str, rows: int = 3000, draws: int = 8) -> tuple[Prediction, Tensor]:
    """A calibrated prediction: each target is drawn with the weights of a draw of its own."""
    likelihood, others = HEADS[name]
    generator = torch.Generator().manual_seed(1)
    first = torch.linspace(-1.0, 1.2, rows, dtype=torch.float64).reshape(1, rows, 1)
    first = first + 0.2 * torch.randn(draws, rows, 2, generator=generator, dtype=torch.float64)
    if "mixture" in name:
        first = torch.cat([torch.zeros_like(first), 0.6 * first], -1)
        others = others[1:]
    samples = torch.cat(
        [first, *(torch.full((draws, rows, 2), o, dtype=torch.float64) for o in others)], -1
    )
    which = torch.randint(draws, (rows,), generator=generator)
    y = likelihood.sample(samples[which, torch.arange(rows)], seed=5).detach()
    return Prediction(*likelihood.predictive(samples), samples, likelihood), y


@of_each
def test_calibrated_predictions(name: str) -> None:
    """All bounds are some four standard errors for 6000 targets."""
    prediction, y = predicted(name)
    n = y.numel()
    below, at_most = prediction.pit(y)
    assert bool((below <= at_most).all())
    torch.testing.assert_close(at_most, prediction.cdf(y))
    heights = metrics.pit_histogram(prediction, y, 10)
    assert heights.mean().item() == pytest.approx(1.0)
    assert (heights - 1).abs().max() < 4 * math.sqrt(9 / n)
    levels = torch.linspace(0.05, 0.95, 19)
    curve = metrics.calibration_curve(prediction, y, levels)
    assert (curve - levels).abs().max() < 4 * math.sqrt(0.25 / n)
    assert metrics.calibration_error(prediction, y) < 0.02
    lower, upper = prediction.interval(0.9)
    inside = ((y >= lower) & (y <= upper)).double().mean().item()
    found = metrics.coverage(prediction, y, 0.9)
    assert found == pytest.approx(inside, abs=1.1 / n)
    if prediction.likelihood.continuous:
        assert found == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / n))
    else:
        assert found >= 0.9 - 4 * math.sqrt(0.09 / n)
    assert list(metrics.summary(prediction, y)) == [
        *("rmse", "mean_log_likelihood", "coverage_95", "calibration_error"),
        *("mean_aleatoric", "mean_epistemic"),
    ]


@of_each
def test_wrong_predictions_are_seen(name: str) -> None:
    """Predictions for other rows."""
    prediction, y = predicted(name)
    right = metrics.summary(prediction, y)
    wrong = metrics.summary(prediction, y.flip(0))
    if name != "continuous_bernoulli":  # whose targets hardly depend on the rows
        assert wrong["calibration_error"] > right["calibration_error"]
    assert wrong["rmse"] > right["rmse"]
    assert wrong["mean_log_likelihood"] < right["mean_log_likelihood"]


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_the_transform_of_counts(name: str) -> None:
    """Against scipy, as a mixture over draws; of a count of 0 it begins at 0."""
    prediction, y = predicted(name, rows=40)
    rate = prediction.samples[..., :2].exp().numpy()
    if name == "poisson":
        law: Any = scipy.stats.poisson(rate)
    else:
        total = math.exp(0.5)
        law = scipy.stats.nbinom(total, total / (total + rate))
    below, at_most = prediction.pit(y)
    for found, counts in ((below, y - 1), (at_most, y)):
        expected = torch.as_tensor(law.cdf(counts.numpy()).mean(0))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert bool((below[y == 0] == 0).all())
    found = metrics.rootogram(prediction, y, most=6)
    assert found.counts.tolist() == list(range(7))
    assert found.observed.tolist() == [(y == k).sum().item() for k in range(7)]
    expected = [law.pmf(k).mean(0).sum() for k in range(7)]
    torch.testing.assert_close(found.expected, torch.tensor(expected), rtol=1e-9, atol=0)
    assert len(metrics.rootogram(prediction, y).counts) == int(y.max()) + 1


def test_the_transform_of_values_on_a_grid() -> None:
    """Chances of all values add up to 1, in their order."""
    prediction, _ = predicted("discretized_logistic_mixture", rows=5)
    likelihood = prediction.likelihood
    ends = torch.zeros(5, 2, dtype=torch.float64)
    for value in torch.linspace(-1, 1, 8, dtype=torch.float64).tolist():
        y = torch.full((5, 2), value, dtype=torch.float64)
        below, at_most = prediction.pit(y)
        torch.testing.assert_close(below, ends)
        for j in range(2):
            own = heads.DiscretizedLogisticMixture(1, components=1, bins=8, low=-1.0, high=1.0)
            parts = prediction.samples[..., j::2]
            chance = own.log_prob(parts, y[:, :1]).exp().mean(0)
            torch.testing.assert_close(at_most[:, j] - below[:, j], chance)
        ends = at_most
    torch.testing.assert_close(ends, torch.ones_like(ends))
    with pytest.raises(ValueError, match="y: expected values in"):
        likelihood.pit(prediction.samples, torch.full((5, 2), 1.5, dtype=torch.float64))


def test_the_histogram_by_hand() -> None:
    """A count of 0 with rate log 2 covers [0, 1/2], one of 1 the next 0.3466."""
    samples = torch.full((1, 2, 1), math.log(math.log(2)), dtype=torch.float64)
    likelihood = heads.Poisson(1)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = metrics.pit_histogram(prediction, y, 4)
    length = math.log(2) / 2
    share = 0.25 / length  # of the second interval below 0.75
    torch.testing.assert_close(
        found, torch.tensor([1.0, 1.0, 2 * share, 2 * (1 - share)], dtype=torch.float64)
    )
    # The central half is the second half of the one and a part of the other.
    curve = metrics.calibration_curve(prediction, y, torch.tensor([0.5]))
    assert curve.item() == pytest.approx((0.5 + share) / 2)


def test_targets_without_any_chance_are_points() -> None:
    samples = torch.full((1, 3, 1), -60.0, dtype=torch.float64)
    likelihood = heads.Poisson(1)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    y = torch.tensor([[0.0], [90.0], [90.0]], dtype=torch.float64)
    found = metrics.pit_histogram(prediction, y, 2)
    assert bool(found.isfinite().all())
    assert found.mean().item() == pytest.approx(1.0)
    assert found[1] > found[0]
    # Below all that is expected, where the distribution function is 0.
    samples = torch.full((1, 3, 1), 14.0, dtype=torch.float64)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    y = torch.tensor([[0.0], [1.0], [1e8]], dtype=torch.float64)
    found = metrics.pit_histogram(prediction, y, 3)
    torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64))
    assert metrics.calibration_error(prediction, y) == pytest.approx(0.5)


def test_binary_targets() -> None:
    prediction, y = predicted("bernoulli")
    probabilities, classes = metrics.as_classes(prediction, y)
    assert probabilities.shape == (6000, 2)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6000, dtype=torch.float64))
    found = metrics.summary(prediction, y)
    p = prediction.mean
    assert found["accuracy"] == ((p > 0.5) == (y == 1)).double().mean().item()
    assert found["brier_score"] == pytest.approx(2 * (p - y).square().mean().item())
    assert found["auroc"] == metrics.auroc(p[y == 0], p[y == 1])
    assert found["expected_calibration_error"] < 0.02
    table = metrics.reliability(probabilities, classes, 10, of=1)
    used = table.examples > 0
    error = 0.5 / table.examples[used].sqrt()
    assert bool(((table.accuracy - table.confidence)[used].abs() < 4 * error).all())
    inside = (p > 0.3) & (p <= 0.4)
    assert table.examples[3].item() == inside.sum().item()
    assert table.accuracy[3].item() == pytest.approx(y[inside].mean().item())
    ones = torch.ones_like(y)
    assert "auroc" not in metrics.summary(prediction, ones)
    with pytest.raises(ValueError, match="y: expected zeros and ones"):
        metrics.summary(prediction, 0.5 * ones)
    with pytest.raises(ValueError, match="y: expected at least one example"):
        metrics.as_classes(prediction, y[:0])
    with pytest.raises(ValueError, match="y: expected finite values, got NaN"):
        metrics.as_classes(prediction, y * torch.nan)
    with pytest.raises(TypeError, match="prediction: expected a regression"):
        metrics.coverage(prediction, y)
    with pytest.raises(TypeError, match="pit: expected a regression"):
        prediction.pit(y)
    with pytest.raises(ValueError, match="of: expected a class below 2, got 2"):
        metrics.reliability(probabilities, classes, of=2)


def test_classes() -> None:
    likelihood, y = heads.Categorical(3), torch.randint(3, (50,))
    samples = torch.randn(4, 50, 3)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    found = metrics.summary(prediction, y)
    assert found["brier_score"] == metrics.brier_score(prediction.mean, y)
    assert found["mean_log_likelihood"] == metrics.mean_log_likelihood(prediction, y)
    assert "auroc" not in found
    probabilities, classes = metrics.as_classes(prediction, y)
    assert torch.equal(probabilities, prediction.mean)
    assert torch.equal(classes, y)


def test_units_and_dimensions() -> None:
    """Those of rescaled targets are in their unit; leading dimensions do not matter."""
    prediction, y = predicted("laplace", rows=20)
    scaler = Standardizer(torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.5]).double())
    scaled = Prediction(
        scaler.inverse(prediction.mean), prediction.aleatoric * scaler.scale,
        prediction.epistemic * scaler.scale, prediction.samples, prediction.likelihood, scaler,
    )  # fmt: skip
    for one, its in zip(scaled.pit(scaler.inverse(y)), prediction.pit(y), strict=True):
        torch.testing.assert_close(one, its)
    prediction, y = predicted("poisson", rows=20)
    shaped = Prediction(
        *(t.view(4, 5, 2) for t in (prediction.mean, prediction.aleatoric, prediction.epistemic)),
        prediction.samples.view(8, 4, 5, 2), prediction.likelihood,
    )  # fmt: skip
    assert shaped.pit(y.view(4, 5, 2))[0].shape == (4, 5, 2)
    found, expected = metrics.summary(shaped, y.view(4, 5, 2)), metrics.summary(prediction, y)
    assert found == pytest.approx(expected)
    assert torch.equal(
        metrics.rootogram(shaped, y.view(4, 5, 2)).observed,
        metrics.rootogram(prediction, y).observed,
    )


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p, y: metrics.coverage(p, y + 0.5), ValueError, "y: expected whole numbers"),
        (lambda p, y: metrics.pit_histogram(p, y - 100), ValueError, "y: expected values >= 0"),
        (lambda p, y: metrics.pit_histogram(p, y, 0), ValueError, "bins: expected an integer of"),
        (lambda p, y: metrics.rootogram(p, y, -1), ValueError, "most: expected an integer of"),
        (lambda p, y: metrics.calibration_error(p, y, 0), ValueError, "levels: expected an int"),
        (lambda p, y: metrics.as_classes(p, y), TypeError, "prediction: expected class labels or"),
        (lambda p, y: metrics.summary(None, y), TypeError, "prediction: expected what bslfast"),
        (lambda p, y: metrics.summary(p, y[:3]), ValueError, "y: expected a tensor of shape"),
        (lambda p, y: metrics.summary(p, y[:0]), ValueError, "y: expected at least one example"),
        (lambda p, y: metrics.summary(p, y * torch.nan), ValueError, "y: expected finite values"),
        (lambda p, y: metrics.coverage(p, y, 1.0), ValueError, "level: expected a finite number"),
    ],
)
def test_what_is_refused(call: Any, error: type[Exception], text: str) -> None:
    prediction, y = predicted("poisson", rows=10)
    with pytest.raises(error, match=text):
        call(prediction, y)
    with pytest.raises(TypeError, match="prediction: expected counts"):
        metrics.rootogram(*predicted("normal", rows=10))
