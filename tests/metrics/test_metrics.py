"""Metrics against closed forms, scikit-learn and simulations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bslfast import metrics
from bslfast.likelihoods import Categorical, Normal
from bslfast.predict import Prediction, predict


def normal_prediction(loc: torch.Tensor, scale: float = 1.0) -> Prediction:
    return predict(torch.nn.Identity(), loc, 1, likelihood=Normal(loc.shape[-1], init_scale=scale))


def test_accuracy_and_rmse() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.4, 0.3, 0.3]])
    assert metrics.accuracy(p, torch.tensor([0, 2, 1, 2])) == 0.75
    mean, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [0.0]])
    assert metrics.rmse(mean, y) == pytest.approx(math.sqrt(5))


def test_mean_log_likelihood_is_that_of_the_mixture() -> None:
    y = torch.randn(20, 2, dtype=torch.float64)
    prediction = normal_prediction(torch.zeros(20, 2, dtype=torch.float64), 2.0)
    expected = torch.distributions.Normal(0, 2.0).log_prob(y).sum(1).mean().item()
    assert metrics.mean_log_likelihood(prediction, y) == pytest.approx(expected, rel=1e-6)


def test_calibration_error_by_hand() -> None:
    # Bin (0.6, 0.7]: two examples, confidence 0.65, one right: gap 0.15. Bin (0.9, 1]: two,
    # confidence 0.95, both right: gap 0.05. The mean over four examples is 0.1.
    p = torch.tensor([[0.65, 0.35], [0.35, 0.65], [0.95, 0.05], [0.95, 0.05]])
    y = torch.tensor([0, 0, 0, 0])
    assert metrics.expected_calibration_error(p, y, bins=10) == pytest.approx(0.1, abs=1e-7)
    table = metrics.reliability(p, y, bins=10)
    assert table.examples.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert table.confidence[6].item() == pytest.approx(0.65)
    assert table.accuracy[6].item() == 0.5
    assert table.accuracy[0].isnan()


def test_calibration_error_vanishes_for_calibrated_predictions() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(200_000, generator=generator)
    y = (torch.rand(200_000, generator=generator) > confidence).long()
    p = torch.stack([confidence, 1 - confidence], 1)
    # Each bin's accuracy scatters by at most 0.5 / sqrt(26,000) = 0.003; mean |gap| is below that.
    assert metrics.expected_calibration_error(p, y) < 0.004
    # Overconfident predictions are found: everything claimed certain, 75 % right.
    sure = torch.tensor([[1.0, 0.0]]).expand(200_000, 2)
    assert metrics.expected_calibration_error(sure, y) == pytest.approx(0.25, abs=0.005)


def test_bins_cover_both_ends() -> None:
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    table = metrics.reliability(p, torch.tensor([0, 0]), bins=2)
    assert table.examples.tolist() == [1, 1]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_coverage_of_calibrated_predictions_is_the_level(level: float) -> None:
    n = 40_000
    y = 1.5 * torch.randn(n, 1, generator=torch.Generator().manual_seed(1)) + 3
    prediction = normal_prediction(torch.full((n, 1), 3.0), 1.5)
    bound = 4 * math.sqrt(level * (1 - level) / n)  # four standard errors
    assert metrics.coverage(prediction, y, level) == pytest.approx(level, abs=bound)


def test_coverage_agrees_with_the_intervals() -> None:
    torch.manual_seed(0)
    samples = torch.randn(30, 500, 1)
    likelihood = Normal(1, init_scale=0.3)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    y = torch.randn(500, 1)
    levels = torch.tensor([0.3, 0.7, 0.95])
    curve = metrics.calibration_curve(prediction, y, levels)
    for level, observed in zip(levels.tolist(), curve.tolist(), strict=True):
        lower, upper = prediction.interval(level)
        inside = ((y >= lower) & (y <= upper)).double().mean().item()
        assert observed == pytest.approx(inside, abs=0.0021)  # one example on the edge
    assert bool((curve.diff() > 0).all())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: metrics.accuracy([0.5], None), TypeError, "probabilities: .*got a list"),
        (
            lambda: metrics.accuracy(torch.ones(2, 2) / 2, torch.zeros(2)),
            TypeError,
            "y: expected an int64 tensor",
        ),
        (
            lambda: metrics.accuracy(torch.ones(2, 2) / 2, torch.tensor([0, 2])),
            ValueError,
            "y: expected class indices from 0 to 1, got 0 to 2",
        ),
        (
            lambda: metrics.accuracy(torch.ones(2, 2) / 2, torch.tensor([0, 1, 1])),
            ValueError,
            r"y: expected an int64 tensor of shape \[2\]",
        ),
        (
            lambda: metrics.accuracy(torch.ones(0, 2), torch.zeros(0).long()),
            ValueError,
            "probabilities: expected at least one example",
        ),
        (
            lambda: metrics.rmse(torch.ones(3, 1), torch.ones(3, 2)),
            ValueError,
            r"y: expected shape \(3, 1\)",
        ),
        (lambda: metrics.rmse(torch.ones(3, 1), torch.ones(3)), ValueError, r"y: .*\(3,\)"),
        (
            lambda: metrics.expected_calibration_error(torch.randn(9, 2), torch.zeros(9).long()),
            ValueError,
            "probabilities: expected non-negative rows that add up to 1",
        ),
        (
            lambda: metrics.expected_calibration_error(
                torch.ones(1, 2) / 2, torch.zeros(1).long(), bins=0
            ),
            ValueError,
            "bins: expected an integer of at least 1, got 0",
        ),
        (lambda: metrics.coverage(torch.ones(3), None), TypeError, "prediction: expected what"),
        (
            lambda: metrics.coverage(normal_prediction(torch.ones(3, 1)), torch.ones(3, 1), 95),
            ValueError,
            "^level: expected a finite number above 0 and below 1, got 95",
        ),
        (
            lambda: metrics.coverage(normal_prediction(torch.ones(3, 1)), torch.ones(3, 1), "a"),
            TypeError,
            "^level: expected a finite number above 0 and below 1, got 'a'",
        ),
        (
            lambda: metrics.calibration_curve(
                normal_prediction(torch.ones(3, 1)), torch.ones(3, 1), torch.tensor([0.5, 1.0])
            ),
            ValueError,
            "levels: expected numbers above 0 and below 1",
        ),
        (
            lambda: metrics.brier_score(10 * torch.randn(9, 2), torch.zeros(9).long()),
            ValueError,
            "probabilities: expected non-negative rows that add up to 1, got values from",
        ),
        (
            lambda: metrics.brier_score(torch.ones(9, 2), torch.zeros(9).long()),
            ValueError,
            "probabilities: expected non-negative rows .* got values from 1 and row sums from 2",
        ),
    ],
)
def test_metrics_refuse(call: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


P, CLASSES = torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 1])
METRICS = {
    "rmse": lambda prediction, y: metrics.rmse(prediction.mean, y),
    "coverage": metrics.coverage,
    "calibration_curve": lambda prediction, y: metrics.calibration_curve(
        prediction, y, torch.tensor([0.5])
    ),
    "mean_log_likelihood": metrics.mean_log_likelihood,
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_targets_and_predictions_that_are_not_finite_are_refused(metric: Any, bad: float) -> None:
    good, spoiled = torch.zeros(4, 1), torch.tensor([[0.0], [0.0], [bad], [0.0]])
    kind = "NaN" if math.isnan(bad) else "infinity"
    text = f"expected finite values, got {kind}: 1 of 4 values are not finite, .* index \\(2, 0\\)"
    with pytest.raises(ValueError, match=f"^y: {text}"):
        metric(normal_prediction(good), spoiled)
    with pytest.raises(ValueError, match=f"mean: {text}"):
        metric(normal_prediction(spoiled), good)


@pytest.mark.parametrize(
    "metric", [metrics.accuracy, metrics.reliability, metrics.expected_calibration_error]
)
def test_probabilities_that_are_nan_are_refused(metric: Any) -> None:
    metric(P, CLASSES)
    with pytest.raises(ValueError, match="probabilities: expected finite values, got NaN"):
        metric(torch.tensor([[0.9, 0.1], [math.nan, 0.7]]), CLASSES)


def test_any_leading_dimensions() -> None:
    mean, y = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    assert metrics.rmse(mean, y) == pytest.approx((mean - y).square().mean().sqrt().item())
    prediction = normal_prediction(mean)
    flat = normal_prediction(mean.view(12, 2))
    for metric in (metrics.coverage, metrics.mean_log_likelihood):
        assert metric(prediction, y) == pytest.approx(metric(flat, y.view(12, 2)))
    p, classes = torch.randn(4, 3, 5).softmax(-1), torch.randint(0, 5, (4, 3))
    for metric in (metrics.accuracy, metrics.expected_calibration_error):
        assert metric(p, classes) == metric(p.view(12, 5), classes.view(12))
        assert metric(p[0, 0], classes[0, 0]) == metric(p[0, :1], classes[0, :1])
        with pytest.raises(ValueError, match=r"y: expected shape \(4, 3\)"):
            metric(p, classes.view(3, 4))
    with pytest.raises(ValueError, match=r"probabilities: expected \[batch, classes\], got 1"):
        metrics.accuracy(torch.tensor(1.0), torch.tensor(0))


def test_coverage_is_for_regression() -> None:
    prediction = predict(torch.nn.Identity(), torch.zeros(2, 3), 1, likelihood=Categorical(3))
    with pytest.raises(TypeError, match="expected a regression"):
        metrics.coverage(prediction, torch.zeros(2, 3))


def test_brier_score() -> None:
    p, y = torch.randn(50, 3).softmax(-1), torch.randint(0, 3, (50,))
    by_hand = [sum((p[i, c].item() - (y[i] == c).item()) ** 2 for c in range(3)) for i in range(50)]
    assert metrics.brier_score(p, y) == pytest.approx(sum(by_hand) / 50)
    sklearn = pytest.importorskip("sklearn.metrics")
    two = torch.stack([1 - p[:, 0], p[:, 0]], 1)
    expected = 2 * sklearn.brier_score_loss(y == 0, p[:, 0])
    assert metrics.brier_score(two, (y == 0).long()) == pytest.approx(expected)
    assert metrics.brier_score(p.view(5, 10, 3), y.view(5, 10)) == metrics.brier_score(p, y)


def test_sharpness_is_the_root_mean_variance_of_the_mixture() -> None:
    samples = torch.randn(40, 6, 1, dtype=torch.float64)
    likelihood = Normal(1, init_scale=0.5).double()
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    variance = samples.var(0, correction=0) + likelihood.scale.item() ** 2
    assert metrics.sharpness(prediction) == pytest.approx(variance.mean().sqrt().item())
    classes = predict(torch.nn.Identity(), torch.zeros(2, 3), 1, likelihood=Categorical(3))
    with pytest.raises(TypeError, match="prediction: expected a regression"):
        metrics.sharpness(classes)


def test_auroc() -> None:
    # Whole numbers, so that there are ties.
    generator = torch.Generator().manual_seed(0)
    known = torch.randint(0, 9, (40,), generator=generator).float()
    unknown = torch.randint(3, 12, (30,), generator=generator).float()
    pairs = [(u > k).item() + 0.5 * (u == k).item() for u in unknown for k in known]
    assert metrics.auroc(known, unknown) == pytest.approx(sum(pairs) / 1200)
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = torch.cat([torch.zeros(40), torch.ones(30)])
    expected = sklearn.roc_auc_score(labels, torch.cat([known, unknown]))
    assert metrics.auroc(known, unknown) == pytest.approx(expected)
    assert metrics.auroc(unknown, known) == pytest.approx(1 - expected)
    assert metrics.auroc(known, known.view(8, 5)) == 0.5
    with pytest.raises(ValueError, match="known: expected finite values, got NaN"):
        metrics.auroc(torch.tensor([math.nan]), unknown)
    with pytest.raises(ValueError, match="unknown: expected at least one example"):
        metrics.auroc(known, torch.zeros(0))
