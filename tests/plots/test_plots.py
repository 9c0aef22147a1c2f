"""Pictures: their content, that they leave no state, that files are whole."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bslfast import plots
from bslfast.bnn import BayesianMLP
from bslfast.likelihoods import Bernoulli, Categorical, Normal, Poisson
from bslfast.predict import Prediction, predict
from bslfast.training import History

pytest.importorskip("matplotlib")


@pytest.fixture
def regression() -> tuple[Prediction, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(40, 80, 1, generator=generator) * 0.3
    samples += torch.linspace(3, 8, 80).reshape(1, 80, 1)
    likelihood = Normal(1, init_scale=0.6)
    prediction = Prediction(*likelihood.predictive(samples.clone()), samples, likelihood)
    return prediction, prediction.mean + 0.6 * torch.randn(80, 1, generator=generator)


@pytest.fixture
def classification() -> tuple[Prediction, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    samples = 2 * torch.randn(40, 90, 3, generator=generator) + 4 * nn.functional.one_hot(y)
    likelihood = Categorical(3)
    return Prediction(*likelihood.predictive(samples), samples, likelihood), y


def history() -> History:
    return History([3.0, 2.0, 1.5], [30.0, 20.0, 15.0], [-2.0, -1.0, -1.2], 2, False, 30, 0.1)


def test_predictions_say_what_the_metrics_say(
    regression: tuple[Prediction, torch.Tensor],
) -> None:
    from bslfast import metrics

    figure = plots.predictions(*regression, name="grade", title="a title")
    left, right = figure.axes
    assert f"{metrics.coverage(*regression):.1%} of 80" in left.get_title()
    assert f"RMSE {metrics.rmse(regression[0].mean, regression[1]):.3f}" in right.get_title()
    assert left.get_ylabel() == "grade"
    drawn = {line.get_label(): line.get_xydata() for line in left.lines}
    assert len(drawn["observed"]) + len(drawn["observed, outside the interval"]) == 80
    assert (drawn["predictive mean"][1:, 1] >= drawn["predictive mean"][:-1, 1]).all()


def test_bands_in_the_order_of_the_inputs(regression: tuple[Prediction, torch.Tensor]) -> None:
    prediction, y = regression
    x = torch.randn(80, 1)
    train = (torch.randn(30), torch.randn(30, 1))
    figure = plots.bands(prediction, x, train, names=("time, s", "level, m"))
    left, right = figure.axes
    drawn = {line.get_label(): line.get_xydata() for line in (*left.lines, *right.lines)}
    order = x.flatten().argsort()
    for name, part in (
        ("predictive mean", prediction.mean),
        ("aleatoric (noise)", prediction.aleatoric),
        ("epistemic (weights)", prediction.epistemic),
        ("both", (prediction.aleatoric**2 + prediction.epistemic**2).sqrt()),
    ):
        expected = torch.cat([x, part.detach()], 1)[order]
        torch.testing.assert_close(torch.tensor(drawn[name]).float(), expected)
    assert len(drawn["training data"]) == 30
    assert left.get_ylabel() == "level, m"
    # The outer band is the interval.
    lower, upper = prediction.interval()
    edges = left.collections[0].get_paths()[0].vertices[:, 1]
    assert edges.min() == pytest.approx(lower.min().item())
    assert edges.max() == pytest.approx(upper.max().item())
    assert len(plots.bands(prediction, x.flatten()).axes[0].lines) == 1
    with pytest.raises(ValueError, match=r"x: expected shape \[80\] or \[80, 1\], got"):
        plots.bands(prediction, x[:3])
    with pytest.raises(ValueError, match=r"train y: expected shape \[30\] or \[30, 1\], got"):
        plots.bands(prediction, x, (train[0], y))


def test_spreads_of_several_models(
    regression: tuple[Prediction, torch.Tensor], classification: tuple[Prediction, torch.Tensor]
) -> None:
    prediction, y = regression
    figure = plots.spreads({"few rows": prediction, "many rows": prediction}, y, name="grade")
    left, right = figure.axes
    assert left.lines[0].get_label() == "observed"
    assert len(left.lines[0].get_xdata()) == 30
    mean = f"mean {prediction.epistemic.mean():.3f}"
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == [f"few rows: {mean}", f"many rows: {mean}"]
    heights = [patch.get_height() for patch in right.patches]
    assert sum(heights) == 160
    with pytest.raises(ValueError, match="predictions: expected at least one, got none"):
        plots.spreads({}, y)
    with pytest.raises(TypeError, match="prediction: expected a regression, got class prob"):
        plots.spreads({"a": classification[0]}, y)


def test_scores_of_groups_say_what_the_metric_says() -> None:
    from bslfast import metrics

    known, other = torch.rand(40, 2), torch.rand(50) + 0.5
    [axes] = plots.scores({"test": known, "noise": other}, name="nats").axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["test", f"noise: AUROC {metrics.auroc(known, other):.3f}"]
    with pytest.raises(ValueError, match="groups: expected at least one, got none"):
        plots.scores({})
    with pytest.raises(ValueError, match="noise: expected finite values, got NaN"):
        plots.scores({"test": known, "noise": torch.tensor([torch.nan])})


def test_splits_have_their_mean_and_standard_error() -> None:
    figure = plots.splits({"RMSE": [1.0, 2.0, 3.0], "log likelihood": [-1.0, -1.0, -4.0]})
    labels = [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes]
    assert labels == ["mean 2 ± 0.58 (standard error)", "mean -2 ± 1 (standard error)"]
    [axes] = plots.splits({"RMSE": [1.5]}).axes
    assert axes.get_legend().get_texts()[0].get_text() == "mean 1.5"
    with pytest.raises(ValueError, match="scores: expected at least one score"):
        plots.splits({"RMSE": []})


def test_class_probabilities_show_the_least_certain(
    classification: tuple[Prediction, torch.Tensor],
) -> None:
    figure = plots.class_probabilities(*classification, ["a", "b", "c"])
    top, bottom = figure.axes
    assert "the 60 least certain of 90" in bottom.get_xlabel()
    assert len(bottom.patches) >= 120  # two stacked bars each
    assert {text.get_text() for text in top.texts} == {"truth: a", "truth: b", "truth: c"}


def test_calibration_of_both_kinds(
    regression: tuple[Prediction, torch.Tensor],
    classification: tuple[Prediction, torch.Tensor],
) -> None:
    assert "interval" in plots.calibration(*regression).axes[0].get_xlabel()
    figure = plots.calibration(*classification)
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 90


def test_learning_curves_with_and_without_validation() -> None:
    figure = plots.learning_curves(history())
    assert len(figure.axes[0].lines) == 3
    assert len(plots.learning_curves(History([1.0], [2.0], best_epoch=1)).axes[0].lines) == 2


def test_weight_posterior_draws_every_weight() -> None:
    model = BayesianMLP(4, (5,), 2)
    figure = plots.weight_posterior(model)
    assert sum(len(line.get_xydata()) for line in figure.axes[0].lines) == 4 * 5 + 5 + 5 * 2 + 2
    assert "of 37" in figure.axes[1].get_title()


def test_save_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    file = tmp_path / "deep" / "a.png"
    figure = plots.learning_curves(history())
    plots.save(figure, file)
    with Image.open(file) as image:
        image.verify()
    before = file.read_bytes()

    def half(path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plots.save(figure, file)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == ["a.png"]
    with pytest.raises(ValueError, match=r"path: expected one of the suffixes .*a.xyz"):
        plots.save(figure, tmp_path / "a.xyz")


def test_no_pyplot_and_nothing_loaded_by_import(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import bslfast.plots as plots, bslfast.data, bslfast.cli\n"
        "from bslfast.training import History\n"
        "for name in ('matplotlib', 'sklearn', 'tqdm', 'pooch', 'safetensors'):\n"
        "    assert name in before or name not in sys.modules, name\n"
        "plots.learning_curves(History([1.0], [1.0], best_epoch=1))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    # The clone's folder would hide the installed package by its sources.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)


def test_plots_refuse(
    regression: tuple[Prediction, torch.Tensor],
    classification: tuple[Prediction, torch.Tensor],
) -> None:
    prediction, y = regression
    classes, labels = classification
    with pytest.raises(TypeError, match="prediction: expected a regression, got class prob"):
        plots.predictions(classes, labels)
    with pytest.raises(TypeError, match="prediction: expected class probabilities, got a reg"):
        plots.class_probabilities(prediction, y, ["a"])
    with pytest.raises(ValueError, match=r"y: .*\[batch, 1\]"):
        plots.predictions(prediction, y[:3])
    with pytest.raises(ValueError, match="class_names: expected 3 names, got 'abc'"):
        plots.class_probabilities(classes, labels, "abc")
    with pytest.raises(TypeError, match=r"history: expected what training.fit returns"):
        plots.learning_curves([1.0])
    with pytest.raises(ValueError, match="history: expected at least one epoch"):
        plots.learning_curves(History())
    with pytest.raises(ValueError, match="model: expected at least one Bayesian layer"):
        plots.weight_posterior(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module, got a list"):
        plots.weight_posterior([])
    with pytest.raises(TypeError, match=r"prediction: expected what bslfast.predict returns"):
        plots.calibration(torch.zeros(3), y)


def test_pictures_of_a_real_prediction(tmp_path: Path) -> None:
    """The whole way from a model to files, once for each kind of target."""
    torch.manual_seed(0)
    x = torch.randn(12, 3)
    regression = predict(BayesianMLP(3, (4,), 1), x, 10)
    plots.save(plots.predictions(regression, torch.randn(12, 1)), tmp_path / "a.png")
    labels = torch.randint(2, (12,))
    classes = predict(BayesianMLP(3, (4,), 2, likelihood="categorical"), x, 10)
    plots.save(plots.class_probabilities(classes, labels, ["no", "yes"]), tmp_path / "b.svg")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.svg"]


def counts(rows: int = 60) -> tuple[Prediction, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = torch.linspace(-1, 2, rows).reshape(1, rows, 1).expand(20, rows, 1)
    samples = samples + 0.2 * torch.randn(20, rows, 1, generator=generator)
    likelihood = Poisson(1)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    return prediction, torch.poisson(samples[0].exp(), generator)


def test_rootograms_hang_from_what_is_expected() -> None:
    from bslfast import metrics

    prediction, y = counts()
    table = metrics.rootogram(prediction, y)
    axes = plots.rootogram(prediction, y, name="visits").axes[0]
    bars = [bar for bar in axes.patches if bar.get_width() == pytest.approx(0.85)]
    assert len(bars) == len(table.counts)
    for bar, observed, expected in zip(bars, table.observed, table.expected, strict=True):
        assert bar.get_height() == pytest.approx(observed.sqrt().item())
        assert bar.get_y() + bar.get_height() == pytest.approx(expected.sqrt().item())
    assert axes.get_xlabel() == "visits"
    axes = plots.rootogram(prediction, y, most=2).axes[0]
    assert f"{int((y > 2).sum())} of 60 beyond" in axes.get_xlabel()
    far = torch.cat([y[1:], torch.full((1, 1), 500.0)])
    assert "1 of 60 beyond" in plots.rootogram(prediction, far).axes[0].get_xlabel()
    with pytest.raises(ValueError, match="y: expected finite values, got NaN"):
        plots.rootogram(prediction, torch.full_like(y, torch.nan))


def test_the_integral_transform_has_its_histogram(
    regression: tuple[Prediction, torch.Tensor],
) -> None:
    from bslfast import metrics

    for prediction, y in (regression, counts()):
        axes = plots.pit(prediction, y, bins=8).axes[0]
        heights = [bar.get_height() for bar in axes.patches if bar.get_width() < 0.2]
        assert heights == pytest.approx(metrics.pit_histogram(prediction, y, 8).tolist())
        assert f"{metrics.calibration_error(prediction, y):.3f}" in axes.get_title()


def test_bands_of_counts_are_not_below_zero() -> None:
    prediction, y = counts()
    wide = replace(prediction, epistemic=prediction.epistemic + 5)
    for figure in (plots.predictions(wide, y), plots.bands(wide, torch.arange(60.0))):
        for band in figure.axes[0].collections:
            assert band.get_paths()[0].vertices[:, 1].min() >= 0


def binary(targets: int = 1) -> tuple[Prediction, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    samples = 2 * torch.randn(1, 50, targets, generator=generator)
    samples = samples + 0.3 * torch.randn(20, 50, targets, generator=generator)
    likelihood = Bernoulli(targets)
    prediction = Prediction(*likelihood.predictive(samples), samples, likelihood)
    return prediction, torch.bernoulli(samples[0].sigmoid(), generator=generator)


def test_binary_targets_are_two_classes() -> None:
    prediction, y = binary()
    top, bottom = plots.class_probabilities(prediction, y, ["no", "yes"]).axes
    assert "test examples" in bottom.get_xlabel()
    assert {text.get_text() for text in top.texts} == {"truth: no", "truth: yes"}
    points = {c.get_label(): c for c in top.containers}
    shown = sorted(points["p(yes)"].lines[0].get_ydata())
    assert shown == pytest.approx(sorted(prediction.mean.flatten().tolist()))
    top, bottom = plots.calibration(prediction, y).axes
    assert top.get_ylabel() == "fraction of ones"
    assert sum(bar.get_height() for bar in bottom.patches) == 50
    two, both = binary(2)
    assert (
        "60 least certain of 100"
        in plots.class_probabilities(two, both, ["no", "yes"]).axes[1].get_xlabel()
    )


def test_diagnostics_are_those_of_the_targets(
    regression: tuple[Prediction, torch.Tensor],
    classification: tuple[Prediction, torch.Tensor],
) -> None:
    usual = ["predictions", "calibration", "pit"]
    assert list(plots.diagnostics(*regression, ["grade"])) == usual
    found = plots.diagnostics(*counts(), ["visits"], title="A title")
    assert list(found) == [*usual, "rootogram"]
    assert found["pit"].get_suptitle() == "A title: probability integral transform"
    assert list(plots.diagnostics(*classification, ["a", "b", "c"])) == usual[:2]
    assert list(plots.diagnostics(*binary(), ["no", "yes"])) == usual[:2]
    likelihood, samples = Normal(2), torch.zeros(3, 4, 2)
    two = Prediction(*likelihood.predictive(samples), samples, likelihood)
    assert list(plots.diagnostics(two, torch.zeros(4, 2), ["a", "b"])) == usual[1:]
    with pytest.raises(ValueError, match="names: expected 2 names, got 'ab'"):
        plots.diagnostics(two, torch.zeros(4, 2), "ab")
    with pytest.raises(TypeError, match="prediction: expected a regression"):
        plots.pit(*classification)
    with pytest.raises(TypeError, match="prediction: expected counts"):
        plots.rootogram(*regression)
