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
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

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
    y = y > 0 if estimator is CLASSIFIER else y.astype(dtype)
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


def test_targets_keep_their_digits(x: Any, y: Any) -> None:
    """float32 has the 10 digits of no date in seconds, but of standardised ones."""
    single = x.astype(np.float32)
    plain, moved = (_made(REGRESSOR).fit(single, offset + 16 * y) for offset in (0.0, 2.0**31))
    for i, (expected, got) in enumerate(
        zip(plain.predict(single, True), moved.predict(single, True), strict=True)
    ):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got - (0 if i else 2.0**31), expected, rtol=1e-4, atol=1e-5)
    assert moved.score(single, 2.0**31 + 16 * y) > 0.9
    with_y = torch.from_numpy(2.0**31 + 16 * y[:, None])
    assert moved.prediction(single).log_prob(with_y).mean() > -3
    lower, upper = moved.prediction(single).interval(0.9)
    assert ((lower < with_y) & (with_y < upper)).double().mean() > 0.7
    inside = moved.prediction(single).cdf(with_y)
    assert ((inside > 0.05) & (inside < 0.95)).equal((lower < with_y) & (with_y < upper))
    huge = _made(REGRESSOR).fit(single, 1e60 * y)
    np.testing.assert_allclose(huge.predict(single) / 1e60, plain.predict(single) / 16, rtol=1e-3)
    with pytest.raises(ValueError, match=r"y: expected columns whose standard deviation"):
        _made(REGRESSOR).fit(single, 1e300 * y)
    with pytest.raises(ValueError, match=r"X: expected columns whose standard deviation"):
        _made(REGRESSOR).fit(1e300 * x, y)


def test_a_column_that_is_constant_up_to_rounding(x: Any, y: Any) -> None:
    """It says nothing, in whatever rows."""
    nearly, constant = x.copy(), x.copy()
    nearly[:, 1], constant[:, 1] = np.where(x[:, 1] > 0, 0.1 + 0.2, 0.3), 0.3
    found = [_made(REGRESSOR).fit(rows, y).predict(constant) for rows in (nearly, constant)]
    np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_any_order_of_rows_and_bytes(estimator: Any, x: Any, y: Any) -> None:
    y = y > 0 if estimator is CLASSIFIER else y
    short = {"epochs": 2}
    expected = _results(_made(estimator, **short).fit(x[::-1].copy(), y[::-1].copy()), x)
    turned = _made(estimator, **short).fit(x[::-1], y[::-1])
    np.testing.assert_array_equal(_results(turned, x), expected)
    np.testing.assert_allclose(_results(turned, x[::-1])[::-1], expected, rtol=1e-10)
    other = y if estimator is CLASSIFIER else y.astype(">f8")
    swapped = _made(estimator, **short).fit(x.astype(">f8")[::-1], other[::-1])
    np.testing.assert_array_equal(_results(swapped, x.astype(">f8")), expected)


@pytest.mark.parametrize("estimator", EVERY, ids=lambda e: type(e).__name__)
def test_a_fit_that_fails_is_none(
    estimator: Any, x: Any, y: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = y > 0 if estimator is CLASSIFIER else y
    for model in (_made(estimator), _made(estimator, epochs=1).fit(x, y)):

        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("bslfast.training.fit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                model.fit(x[:, :1], y)
        with pytest.raises(NotFittedError):
            _results(model, x)
        with pytest.raises(NotFittedError):
            check_is_fitted(model)


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
    for more, rows, text in (
        ({}, 2, r"held out, which are 1 of 2 with validation_fraction=0.1, got 1"),
        ({"validation_fraction": 0.9}, 4, r"which are 4 of 4 with .*=0.9, got 0"),
        ({"flow_options": {"hidden": (3,)}}, 9, r"arguments of NSF, activation, .* got 'hidden'"),
        (
            {"flow": "MAF", "flow_options": {"bins": 3}},
            9,
            r"flow_options: .* of MAF, .* got 'bins'",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            _made(DENSITY, **more).fit(x[:rows])
    with pytest.raises(TypeError, match="flow_options: expected a mapping or None, got"):
        _made(DENSITY, flow_options=[3]).fit(x)
    assert len(_made(DENSITY, patience=2).fit(x[:4]).history_.validation_log_likelihood) == 3
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 1"):
        _made(CLASSIFIER, n_samples=0).fit(x, y > 0)
    with pytest.raises(ValueError, match="y: expected at least two classes, got 1 class"):
        _made(CLASSIFIER).fit(x, y > 9)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ModuleNotFoundError, match=r"bslfast.sklearn: .* pip install scikit-learn"):
        runpy.run_path(str(bslfast.sklearn.__file__))
