"""The estimators for scikit-learn: its own checks, and what they promise beyond."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks

import bslfast
from bslfast.sklearn import BayesianMLPClassifier, BayesianMLPRegressor, FlowDensity

_SHORT: dict[str, Any] = {"epochs": 40, "batch_size": 32, "lr": 0.05, "n_samples": 20}
REGRESSOR = BayesianMLPRegressor((16,), **_SHORT)
CLASSIFIER = BayesianMLPClassifier((16,), **_SHORT)
DENSITY = FlowDensity(transforms=2, hidden=(8,), epochs=3)
EVERY = [REGRESSOR, CLASSIFIER, DENSITY]


@parametrize_with_checks(EVERY)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def _made(estimator: Any, **parameters: Any) -> Any:
    return clone(estimator).set_params(random_state=0, **parameters)


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).normal(size=(120, 2))


@pytest.fixture(scope="module")
def y(x: Any) -> Any:
    return np.tanh(x[:, 0]) + 0.1 * np.random.default_rng(1).normal(size=len(x))


def _results(model: Any, x: Any) -> Any:
    if isinstance(model, FlowDensity):
        return model.score_samples(x)
    return model.predict_proba(x) if isinstance(model, BayesianMLPClassifier) else model.predict(x)


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_random_state_and_dtype(estimator: Any, dtype: Any, x: Any, y: Any) -> None:
    x = x.astype(dtype)
    y = y > 0 if estimator is CLASSIFIER else y
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again = (_results(_made(estimator).fit(x, y), x) for _ in range(2))
    other = _results(_made(estimator).set_params(random_state=1).fit(x, y), x)
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    assert first.dtype == dtype


def test_units_of_inputs_and_targets(x: Any, y: Any) -> None:
    """Powers of two are exact: the network sees the same numbers."""
    plain = _made(REGRESSOR).fit(x, y)
    scaled = _made(REGRESSOR).fit(1024 * x, 8 * y)
    for expected, got in zip(
        plain.predict(x, return_std=True), scaled.predict(1024 * x, True), strict=True
    ):
        np.testing.assert_allclose(got, 8 * expected, rtol=1e-12)
    density = _made(DENSITY).fit(x).score_samples(x)
    np.testing.assert_allclose(
        _made(DENSITY).fit(8 * x).score_samples(8 * x), density - 2 * np.log(8), rtol=1e-12
    )


def test_moments_are_those_of_the_mixture(x: Any, y: Any) -> None:
    """By hand from the network's outputs, noise and draws together."""
    model = _made(REGRESSOR, likelihood="heteroscedastic_normal").fit(x, y)
    mean, std = model.predict(x, return_std=True)
    found = model.prediction(x)
    law = found.likelihood.distribution(found.samples)
    second = (law.mean.square() + law.variance).mean(0)
    np.testing.assert_allclose(mean, y.mean() + y.std() * law.mean.mean(0)[:, 0].numpy())
    variance = (second - law.mean.mean(0).square())[:, 0].numpy()
    np.testing.assert_allclose(std, y.std() * np.sqrt(variance))
    lower, upper = found.interval(0.95)
    inside = (lower[:, 0].numpy() < y) & (y < upper[:, 0].numpy())
    assert inside.mean() > 0.85
    assert model.score(x, y) > 0.9


def test_several_targets(x: Any, y: Any) -> None:
    both = np.stack([y, 100 - 3 * y], axis=1)
    mean, std = _made(REGRESSOR).fit(x, both).predict(x, return_std=True)
    assert mean.shape == std.shape == both.shape
    assert np.abs(mean - both).mean(0) == pytest.approx([0.08, 0.24], rel=0.5)


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "laplace", "student_t"])
def test_other_laws_of_targets(likelihood: str, x: Any) -> None:
    counts = np.random.default_rng(2).poisson(np.exp(1 + x[:, 0]))
    model = _made(REGRESSOR, likelihood=likelihood).fit(x, counts)
    assert model.score(x, counts) > 0.5
    if model.likelihood in ("poisson", "negative_binomial"):
        assert model.predict(x).min() > 0
        with pytest.raises(ValueError, match="y: expected"):
            model.fit(x, counts - 0.5)


def test_a_density_is_one(x: Any) -> None:
    """Its integral over a grid is 1, and samples have the moments of the data."""
    points = np.array([0.0, 30.0]) + np.concatenate([x - 4, 2 * x + 2])
    model = _made(DENSITY, epochs=40).fit(points)
    grid = np.stack(np.meshgrid(np.linspace(-15, 15, 301), np.linspace(15, 45, 301)), -1)
    total = np.exp(model.score_samples(grid.reshape(-1, 2))).sum() * 0.1**2
    assert total == pytest.approx(1, abs=2e-3)
    samples = model.sample(5000, random_state=1)
    np.testing.assert_array_equal(samples, model.sample(5000, random_state=1))
    np.testing.assert_allclose(samples.mean(0), points.mean(0), atol=0.5)
    np.testing.assert_allclose(samples.std(0), points.std(0), rtol=0.15)
    assert model.score(points) == pytest.approx(model.score_samples(points).mean())
    assert len(model.history_.validation_log_likelihood) == 40
    assert "one call" in model.model_.explain()


@pytest.mark.parametrize("flow", ["MAF", "RealNVP", "NICE"])
def test_flows_by_name(flow: str, x: Any) -> None:
    model = _made(DENSITY, flow=flow, validation_fraction=0.0).fit(x)
    assert model.history_.validation_log_likelihood == []
    assert model.score(x) > -3.2  # of a standard normal: -2.84


def test_in_pipelines_and_searches(x: Any, y: Any) -> None:
    pipeline = make_pipeline(PolynomialFeatures(2), _made(REGRESSOR))
    search = GridSearchCV(pipeline, {"bayesianmlpregressor__hidden": [(), (16,)]}, cv=2)
    assert search.fit(x, y).best_params_ == {"bayesianmlpregressor__hidden": (16,)}
    assert cross_val_score(_made(DENSITY), x, cv=2).min() > -4


def test_errors(x: Any, y: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"likelihood: expected one of 'normal', .* got 'cat"):
        _made(REGRESSOR, likelihood="categorical").fit(x, y)
    with pytest.raises(ValueError, match=r"flow: expected one of 'NSF', .* got 'Glow'"):
        _made(DENSITY, flow="Glow").fit(x)
    with pytest.raises(ValueError, match="validation_fraction: expected a finite number"):
        _made(DENSITY, validation_fraction=1.0).fit(x)
    with pytest.raises(ValueError, match="patience: expected None without validation"):
        _made(DENSITY, validation_fraction=0.0, patience=3).fit(x)
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 1"):
        _made(CLASSIFIER, n_samples=0).fit(x, y > 0)
    with pytest.raises(ValueError, match="y: expected at least two classes, got 1 class"):
        _made(CLASSIFIER).fit(x, y > 9)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ModuleNotFoundError, match=r"bslfast.sklearn: .* pip install scikit-learn"):
        runpy.run_path(str(bslfast.sklearn.__file__))
