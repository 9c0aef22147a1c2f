"""Pictures of training and predictions.

Every function returns a ``matplotlib.figure.Figure`` made without pyplot: it needs no display,
opens no window and leaves no global state. :func:`save` writes a figure to a file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bslfast import _checks, metrics
from bslfast._files import atomic
from bslfast._lazy import submodules
from bslfast.predict import Prediction
from bslfast.training import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bslfast.plots import densities, images
else:  # imported at their use, as they import this module and the models they draw
    __getattr__, __dir__ = submodules(__name__, ("densities", "images"))

__all__ = [
    "bands",
    "calibration",
    "class_probabilities",
    "densities",
    "diagnostics",
    "images",
    "learning_curves",
    "pit",
    "predictions",
    "rootogram",
    "save",
    "scores",
    "splits",
    "spreads",
    "weight_posterior",
]

# Colours that stay apart for the colour-blind (Okabe and Ito).
_BLUE, _ORANGE, _GREEN, _PINK, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
_CLASSES = (_BLUE, _ORANGE, _GREEN, _PINK, "#E69F00", "#56B4E9", "#000000", "#F0E442")
_MOST_EXAMPLES = 60  # more columns than this cannot be told apart


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write ``figure`` to ``path``, whole or not at all; the suffix names the format, as in .png.

    Raises:
        ValueError: if matplotlib cannot write the format that the suffix names.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".")
    formats = figure.canvas.get_supported_filetypes()
    if suffix not in formats:
        raise ValueError(
            f"path: expected one of the suffixes {', '.join(sorted(formats))}, got {str(path)!r}"
        )
    with atomic(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=130)


def learning_curves(history: History, title: str = "Learning curves") -> Figure:
    """Plot training loss, validation score and KL against the epoch.

    Args:
        history: from :func:`bslfast.training.fit`, with at least one epoch.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(history, History):
        raise TypeError(
            f"history: expected what training.fit returns, got {_checks.describe(history)}"
        )
    if not history.loss:
        raise ValueError("history: expected at least one epoch, got none")
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(history.loss) + 1)
    left.plot(epochs, history.loss, color=_BLUE, label="training: -ELBO / examples")
    shown = list(history.loss)
    if history.validation_log_likelihood:
        validation = [-value for value in history.validation_log_likelihood]
        left.plot(epochs, validation, color=_ORANGE, label="validation: -log likelihood")
        shown += validation
    left.axvline(history.best_epoch, color=_GREY, ls=":", label=f"best epoch, {history.best_epoch}")
    # The first epochs, before the KL has settled, would flatten everything after them.
    settled = torch.tensor(shown, dtype=torch.float64)
    low, high = settled.min().item(), settled.quantile(0.95).item()
    left.set_ylim(low - 0.08 * (high - low), high + 0.25 * (high - low) + 1e-9)
    left.set(xlabel="epoch", ylabel="nats per example", title="Loss")
    left.legend(framealpha=0.9, edgecolor="none")
    right.plot(epochs, history.kl, color=_GREEN)
    right.axvline(history.best_epoch, color=_GREY, ls=":")
    right.set(xlabel="epoch", ylabel="nats", title="KL(posterior || prior), all weights")
    return _finish(figure, title)


def predictions(
    prediction: Prediction,
    y: Tensor,
    *,
    name: str = "target",
    level: float = 0.95,
    title: str = "Predictions and their uncertainty",
) -> Figure:
    """Plot regression predictions with their intervals against the observed values.

    The left panel has the examples in the order of their predicted mean, with the central
    predictive interval and, inside it, the part that comes from the weights. The right panel has
    the predicted mean against the observation.

    Args:
        prediction: a regression with one target, from :func:`bslfast.predict`.
        y: observed values, [batch, 1], in the unit of ``prediction.mean``.
        name: name of the target with its unit, for the axes.
        level: probability of the interval, in (0, 1).
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if metrics.is_classification(prediction):
        raise TypeError("prediction: expected a regression, got class probabilities")
    _checks.floating("y", y, 2, "[batch, 1]")
    if y.shape != prediction.mean.shape or y.shape[1] != 1:
        raise ValueError(
            f"y: expected [batch, 1] like prediction.mean, which is "
            f"{tuple(prediction.mean.shape)}, got {_checks.describe(y)}"
        )
    lower, upper = (end.cpu().flatten() for end in prediction.interval(level))
    mean, epistemic = prediction.mean.cpu().flatten(), prediction.epistemic.cpu().flatten()
    truth = y.cpu().flatten()
    order = mean.argsort()
    rank = torch.arange(1, len(order) + 1)
    spread = _normal_quantile(level) * epistemic
    rmse = metrics.rmse(prediction.mean, y)
    covered = metrics.coverage(prediction, y, level)

    figure = _figure(11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    inside = ((truth >= lower) & (truth <= upper))[order]
    left.fill_between(
        rank, lower[order], upper[order], color=_BLUE, alpha=0.16, lw=0,
        label=f"{level:.0%} predictive interval",
    )  # fmt: skip
    left.fill_between(
        rank, _from_zero(prediction, mean - spread)[order], (mean + spread)[order],
        color=_BLUE, alpha=0.45, lw=0,
        label=f"{level:.0%} from the weights (epistemic)",
    )  # fmt: skip
    left.plot(rank, mean[order], color=_BLUE, lw=1.2, label="predictive mean")
    style = {"ls": "", "marker": ".", "ms": 4, "mew": 0}
    left.plot(rank[inside], truth[order][inside], color=_GREY, alpha=0.6, **style, label="observed")
    left.plot(
        rank[~inside], truth[order][~inside], color=_ORANGE, **{**style, "ms": 6},
        label="observed, outside the interval",
    )  # fmt: skip
    left.set(
        xlabel="test examples, in the order of their predicted mean", ylabel=name,
        title=f"{covered:.1%} of {len(truth)} inside the {level:.0%} interval",
    )  # fmt: skip
    left.margins(x=0.01)
    _headroom(left, 0.22)
    left.legend(frameon=False, ncols=2, fontsize=8, loc="upper left")

    # Points of integer targets would cover each other in one line per value.
    whole = bool((truth == truth.round()).all())
    noise = torch.rand(len(truth), generator=torch.Generator().manual_seed(0)) - 0.5
    right.plot(
        truth + 0.5 * noise * whole, mean, ls="", marker=".", ms=5, mew=0, color=_BLUE, alpha=0.5
    )
    ends = [min(truth.min(), mean.min()).item(), max(truth.max(), mean.max()).item()]
    right.plot(ends, ends, color=_GREY, ls="--", lw=1, label="perfect")
    right.set(
        xlabel=f"observed {name}" + (" (spread sideways to be seen)" if whole else ""),
        ylabel=f"predicted mean {name}", title=f"RMSE {rmse:.3f}",
    )  # fmt: skip
    right.legend(frameon=False)
    return _finish(figure, title)


def bands(
    prediction: Prediction,
    x: Tensor,
    train: tuple[Tensor, Tensor] | None = None,
    *,
    level: float = 0.95,
    names: tuple[str, str] = ("x", "y"),
    title: str = "Predictive bands",
) -> Figure:
    """Plot a regression on one input as a curve with its bands.

    The left panel has the predictive mean, the central predictive interval and, inside it, the part
    that comes from the weights. The right panel has both parts of the standard deviation.

    Args:
        prediction: a regression with one target, from :func:`bslfast.predict`.
        x: the inputs of the prediction, [batch] or [batch, 1], in any order.
        train: inputs and targets to show as points, of the shapes of ``x`` and [rows] or [rows, 1].
        level: probability of the interval, in (0, 1).
        names: of input and target with their units, for the axes.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    mean = _one_target(prediction)
    order = _column("x", x, len(mean)).argsort()
    x = _column("x", x, len(mean))[order]
    lower, upper = (end.cpu().flatten()[order] for end in prediction.interval(level))
    mean = mean[order]
    aleatoric, epistemic = (
        part.detach().cpu().flatten()[order]
        for part in (prediction.aleatoric, prediction.epistemic)
    )
    spread = _normal_quantile(level) * epistemic
    figure = _figure(11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    left.fill_between(
        x, lower, upper, color=_BLUE, alpha=0.16, lw=0, label=f"{level:.0%} predictive interval"
    )
    left.fill_between(
        x, _from_zero(prediction, mean - spread), mean + spread, color=_BLUE, alpha=0.45, lw=0,
        label=f"{level:.0%} from the weights (epistemic)",
    )  # fmt: skip
    left.plot(x, mean, color=_BLUE, lw=1.5, label="predictive mean")
    if train is not None:
        inputs = _column("train x", train[0])
        targets = _column("train y", train[1], len(inputs))
        left.plot(
            inputs, targets, ls="", marker=".", ms=4, mew=0, color=_GREY, alpha=0.7,
            label="training data",
        )  # fmt: skip
    left.set(xlabel=names[0], ylabel=names[1], title="Predictions")
    _headroom(left, 0.25)
    left.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    total = (aleatoric.square() + epistemic.square()).sqrt()
    right.plot(x, total, color="black", ls=":", lw=1.5, label="both")
    right.plot(x, aleatoric, color=_GREY, lw=1.5, label="aleatoric (noise)")
    right.plot(x, epistemic, color=_ORANGE, lw=1.5, label="epistemic (weights)")
    right.set(
        xlabel=names[0], ylabel=f"standard deviation of {names[1]}", title="Parts of the spread"
    )
    right.set_ylim(bottom=0)
    _headroom(right, 0.2)
    right.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
    return _finish(figure, title)


def spreads(
    predictions: Mapping[str, Prediction],
    y: Tensor,
    *,
    name: str = "target",
    level: float = 0.95,
    title: str = "What the weights leave open",
) -> Figure:
    """Plot how far predictions of several models scatter with their weights, on the same inputs.

    The left panel has the means of up to 30 examples with the interval that comes from the weights,
    a colour for each model. The right panel has the distribution of the epistemic standard
    deviation over all examples.

    Args:
        predictions: by a name for its model, regressions with one target at the same inputs.
        y: observed values, [batch, 1].
        name: name of the target with its unit, for the axes.
        level: probability of the interval, in (0, 1).
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not predictions:
        raise ValueError("predictions: expected at least one, got none")
    means = {key: _one_target(value) for key, value in predictions.items()}
    first = next(iter(means.values()))
    truth = _column("y", y, len(first))
    shown = torch.linspace(0, len(first) - 1, min(30, len(first))).round().long()
    order = first.argsort()[shown]
    figure = _figure(11, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    rank = torch.arange(1, len(order) + 1)
    left.plot(rank, truth[order], ls="", marker="x", color=_GREY, label="observed")
    highest = max(p.epistemic.max().item() for p in predictions.values())
    edges = torch.linspace(0, highest if highest > 0 else 1.0, 41)
    for k, (key, prediction) in enumerate(predictions.items()):
        colour = _CLASSES[k % len(_CLASSES)]
        if len(means[key]) != len(first):
            raise ValueError(
                f"predictions: expected {len(first)} examples in each, got {len(means[key])} in "
                f"{key!r}"
            )
        epistemic = prediction.epistemic.detach().cpu().flatten()
        offset = 0.3 * (k - (len(predictions) - 1) / 2) / len(predictions)
        left.errorbar(
            rank + offset, means[key][order], (_normal_quantile(level) * epistemic[order]).tolist(),
            ls="", marker="o", ms=4, elinewidth=1.5, color=colour,
            label=f"{key}: mean, {level:.0%} from the weights",
        )  # fmt: skip
        right.hist(
            epistemic.tolist(), edges.tolist(), color=colour, alpha=0.55,
            label=f"{key}: mean {epistemic.mean():.3f}",
        )  # fmt: skip
    left.set(xlabel="some examples, in the order of their predicted mean", ylabel=name)
    left.set_title("Predicted means")
    _headroom(left, 0.2)
    left.legend(frameon=False, fontsize=8, loc="upper left")
    right.set(xlabel=f"epistemic standard deviation of {name}", ylabel="examples")
    right.set_title(f"All {len(first)} examples")
    _headroom(right, 0.2)
    right.legend(frameon=False, fontsize=8, loc="upper right")
    return _finish(figure, title)


def _from_zero(prediction: Prediction, lower: Tensor) -> Tensor:
    """Lower ends of bands, which for means of counts are at least 0."""
    return lower.clamp_min(0) if prediction.likelihood.kind == "counts" else lower


def _one_target(prediction: Prediction) -> Tensor:
    """The predictive means of a regression with one target, [batch] on the CPU."""
    if metrics.is_classification(prediction):
        raise TypeError("prediction: expected a regression, got class probabilities")
    mean = prediction.mean
    if mean.ndim != 2 or mean.shape[1] != 1:
        raise ValueError(f"prediction: expected one target, got means {tuple(mean.shape)}")
    return mean.detach().cpu().flatten()


def _column(name: str, value: Tensor, rows: int | None = None) -> Tensor:
    """[rows] or [rows, 1] as [rows] on the CPU."""
    _checks.floating(name, value, None, "[rows] or [rows, 1]")
    if value.shape not in ((value.numel(),), (value.numel(), 1)) or (
        rows is not None and value.numel() != rows
    ):
        wanted = "rows" if rows is None else rows
        raise ValueError(
            f"{name}: expected shape [{wanted}] or [{wanted}, 1], got {_checks.describe(value)}"
        )
    return value.detach().cpu().flatten()


def _normal_quantile(level: float) -> float:
    """How many standard deviations the central interval of a normal distribution reaches."""
    chance = torch.tensor(0.5 * (1 + level), dtype=torch.float64)
    return float(torch.special.ndtri(chance).item())


def class_probabilities(
    prediction: Prediction,
    y: Tensor,
    class_names: Sequence[str],
    *,
    level: float = 0.9,
    title: str = "Class probabilities and their uncertainty",
) -> Figure:
    """Plot the probability of every class, with its interval over the weights, per example.

    Examples are grouped by their true class, the surest first. If there are more than 60, the 60
    least certain are shown. Binary targets are examples of two classes, 0 and 1.

    Args:
        prediction: a classification, from :func:`bslfast.predict`, or of binary targets.
        y: true classes, int64 [batch]; binary targets, [batch, targets], of zeros and ones.
        class_names: one name per class; of 0 and 1.
        level: share of the samples of the weights inside each probability's interval, in (0, 1).
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not metrics.is_classification(prediction):
        raise TypeError("prediction: expected class probabilities, got a regression")
    mean, y = (value.cpu() for value in metrics.as_classes(prediction, y))
    batch, classes = mean.shape
    if isinstance(class_names, str) or len(class_names) != classes:
        raise ValueError(f"class_names: expected {classes} names, got {class_names!r}")
    lower, upper = (end.cpu() for end in prediction.interval(level))
    if prediction.likelihood.kind == "binary":
        lower, upper = lower.flatten(), upper.flatten()
        lower, upper = torch.stack([1 - upper, lower], 1), torch.stack([1 - lower, upper], 1)
    else:
        lower, upper = lower.reshape(batch, classes), upper.reshape(batch, classes)
    parts = [part.cpu().flatten() for part in (prediction.aleatoric, prediction.epistemic)]
    entropy = parts[0] + parts[1]
    shown = entropy.argsort(descending=True)[:_MOST_EXAMPLES].flip(0)
    shown = shown[y[shown].argsort(stable=True)]
    columns = torch.arange(len(shown))

    figure = _figure(max(7.0, 2.5 + 0.17 * len(shown)), 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1))
    for k, name in enumerate(class_names):
        colour = _CLASSES[k % len(_CLASSES)]
        mine = columns[y[shown] == k]
        if len(mine):
            for axes in (top, bottom):
                axes.axvspan(mine[0] - 0.5, mine[-1] + 0.5, color=colour, alpha=0.1, lw=0)
            middle = 0.5 * (mine[0] + mine[-1]).item()
            top.text(
                middle, 1.06, f"truth: {name}", color=colour, ha="center", va="bottom", fontsize=9
            )
        p, ends = mean[shown, k], (lower[shown, k], upper[shown, k])
        # The mean of a skewed distribution can lie outside its central interval.
        bars = torch.stack([(p - ends[0]).clamp_min(0), (ends[1] - p).clamp_min(0)]).tolist()
        offset = 0.22 * (k - (classes - 1) / 2) if classes <= 4 else 0.0
        top.errorbar(
            columns + offset, p, bars, ls="", marker="o", ms=3.5, color=colour, elinewidth=1,
            label=f"p({name})",
        )  # fmt: skip
    wrong = columns[mean[shown].argmax(1) != y[shown]]
    if len(wrong):
        top.plot(
            wrong, torch.full((len(wrong),), -0.07), ls="", marker="^", ms=7, color="black",
            label="wrong class predicted",
        )  # fmt: skip
    top.set(ylabel=f"probability (bars: {level:.0%} of the samples)", ylim=(-0.12, 1.16))
    top.set_yticks([0, 0.25, 0.5, 0.75, 1])
    top.legend(
        frameon=False, fontsize=8, ncols=min(classes + 1, 5), loc="lower left",
        bbox_to_anchor=(0, 1.0),
    )  # fmt: skip
    aleatoric, epistemic = (part[shown].tolist() for part in parts)
    # Lists, because matplotlib's bars combine their arguments with numpy scalars: tensors fail.
    bottom.bar(columns.tolist(), aleatoric, color=_GREY, label="aleatoric (expected entropy)")
    bottom.bar(
        columns.tolist(),
        epistemic,
        bottom=aleatoric,
        color=_ORANGE,
        label="epistemic (mutual information)",
    )
    which = "test examples" if len(shown) == batch else f"the {len(shown)} least certain of {batch}"
    bottom.set(
        xlabel=f"{which}, by true class, surest first", ylabel="entropy, nats",
        xlim=(-0.5, len(shown) - 0.5),
    )  # fmt: skip
    _headroom(bottom, 0.3)
    bottom.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    bottom.set_xticks([])
    return _finish(figure, title)


def calibration(prediction: Prediction, y: Tensor, title: str = "Calibration") -> Figure:
    """Plot the claims of the predictions against the observed frequencies.

    For regression, also of counts, that is the observed coverage of central intervals against their
    level (:func:`bslfast.metrics.calibration_curve`), with the band that holds 95% of calibrated
    models for this many examples. For classification it is accuracy against confidence in ten bins,
    and the number of examples in each bin; for binary targets how often they are 1, against the
    probability of that.

    Args:
        prediction: from :func:`bslfast.predict`.
        y: observed targets.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    figure = _figure(5.6, 5.4)
    if metrics.is_classification(prediction):
        _reliability(figure, prediction, y)
    else:
        levels = torch.linspace(0, 1, 51, dtype=torch.float64)[1:-1]
        observed = metrics.calibration_curve(prediction, y, levels)
        band = 1.96 * (levels * (1 - levels) / y.numel()).sqrt()
        axes = figure.subplots()
        axes.fill_between(
            levels, levels - band, levels + band, color=_GREY, alpha=0.25, lw=0,
            label=f"chance, 95% ({y.numel()} targets)",
        )  # fmt: skip
        axes.plot([0, 1], [0, 1], color=_GREY, ls="--", lw=1, label="calibrated")
        axes.plot(levels, observed, color=_BLUE, lw=2, label="observed")
        axes.set(
            xlabel="level of the central interval", ylabel="fraction of targets inside it",
            xlim=(0, 1), ylim=(0, 1), aspect="equal",
        )  # fmt: skip
        axes.legend(frameon=False, loc="upper left")
    return _finish(figure, title)


def _reliability(figure: Figure, prediction: Prediction, y: Tensor) -> None:
    bins, binary = 10, prediction.likelihood.kind == "binary"
    probabilities, classes = (value.cpu() for value in metrics.as_classes(prediction, y))
    table = metrics.reliability(probabilities, classes, bins, of=1 if binary else None)
    error = metrics.expected_calibration_error(probabilities, classes, bins)
    used = table.examples > 0
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    centres = (torch.arange(bins) + 0.5) / bins
    confidence, accuracy, count = (column[used] for column in table)
    # Wilson's interval stays inside [0, 1] and makes sense for a bin with one example.
    z = 1.96
    centre = (accuracy + z * z / (2 * count)) / (1 + z * z / count)
    half = (accuracy * (1 - accuracy) / count + (z / (2 * count)) ** 2).sqrt()
    half = z * half / (1 + z * z / count)
    bars = [(accuracy - centre + half).clamp_min(0), (centre + half - accuracy).clamp_min(0)]
    top.plot([0, 1], [0, 1], color=_GREY, ls="--", lw=1, label="calibrated")
    top.errorbar(
        confidence, accuracy, torch.stack(bars).tolist(), ls="", marker="o", color=_BLUE, capsize=3,
        label="observed, 95% interval",
    )  # fmt: skip
    top.set(
        ylabel="fraction of ones" if binary else "accuracy",
        ylim=(-0.03, 1.05),
        title=f"calibration error {error:.3f}",
    )
    top.legend(frameon=False, loc="upper left")
    bottom.bar(centres[used].tolist(), count.tolist(), width=0.9 / bins, color=_BLUE, alpha=0.6)
    bottom.set(
        xlabel=f"probability of 1, {bins} bins" if binary else
        f"confidence: probability of the predicted class, {bins} bins",
        ylabel="examples", xlim=(0, 1.02),
    )  # fmt: skip


def pit(
    prediction: Prediction,
    y: Tensor,
    *,
    bins: int = 10,
    title: str = "Probability integral transform",
) -> Figure:
    """Plot where targets lie in their predictive distributions, see :func:`metrics.pit_histogram`.

    Bars of calibrated predictions are 1 high, up to chance: 95 % of them are in the band. Those
    of counts scatter less than the band says.

    Args:
        prediction: a regression, from :func:`bslfast.predict`; of counts, too.
        y: observed targets, [batch, targets].
        bins: number of bars.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Czado, Gneiting and Held, "Predictive model assessment for count data" (2009,
    doi:10.1111/j.1541-0420.2009.01191.x).
    """
    heights = metrics.pit_histogram(prediction, y, bins).cpu()
    figure = _figure(6.2, 4.2)
    axes = figure.subplots()
    # The standard deviation of a bar of independent examples, in units of its mean.
    half = 1.96 * math.sqrt((bins - 1) / y.numel())
    axes.axhspan(
        max(0.0, 1 - half), 1 + half, color=_GREY, alpha=0.25, lw=0,
        label=f"chance, 95% ({y.numel()} targets)",
    )  # fmt: skip
    centres = (torch.arange(bins) + 0.5) / bins
    axes.bar(centres.tolist(), heights.tolist(), width=0.94 / bins, color=_BLUE, alpha=0.7)
    axes.axhline(1, color=_GREY, ls="--", lw=1, label="calibrated")
    error = metrics.calibration_error(prediction, y)
    axes.set(
        xlabel="P(target < y) to P(target ≤ y) under the prediction", ylabel="density", xlim=(0, 1),
        title=f"calibration error {error:.3f}",
    )  # fmt: skip
    _headroom(axes, 0.25)
    axes.legend(frameon=False, loc="upper left", ncols=2)
    return _finish(figure, title)


def rootogram(
    prediction: Prediction,
    y: Tensor,
    *,
    name: str = "count",
    most: int | None = None,
    title: str = "Observed and expected counts",
) -> Figure:
    """Plot how often counts were observed, hanging from how often they are expected.

    Roots of both are drawn (:func:`bslfast.metrics.rootogram`), which scatter alike for rare and
    for frequent counts. A bar that does not reach 0 is a count that was seen too rarely; one that
    goes below it was seen too often. The band has 95 % of the bars' ends by chance.

    Args:
        prediction: of counts, from :func:`bslfast.predict`.
        y: observed counts, [batch, targets].
        name: name of the target, for the axis.
        most: the largest count; None: the largest one observed, up to 60.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kleiber and Zeileis, "Visualizing count data regressions using rootograms" (2016,
    doi:10.1080/00031305.2016.1173590, arXiv:1605.01311).
    """
    if most is None and isinstance(y, Tensor) and y.numel() and bool(y.isfinite().all()):
        most = int(y.detach().max().clamp(0, _MOST_EXAMPLES).item())
    found = metrics.rootogram(prediction, y, most)
    observed, expected = found.observed.sqrt(), found.expected.sqrt()
    figure = _figure(min(12.0, max(6.0, 2.5 + 0.18 * len(observed))), 4.4)
    axes: Any = figure.subplots()
    # The root of a Poisson count has a standard deviation of 1/2.
    axes.axhspan(-0.98, 0.98, color=_GREY, alpha=0.2, lw=0, label="ends by chance, 95%")
    axes.axhline(0, color="black", lw=1)
    axes.bar(
        found.counts.tolist(), observed.tolist(), bottom=(expected - observed).tolist(), width=0.85,
        color=_BLUE, alpha=0.6, label="observed, from the expected down",
    )  # fmt: skip
    axes.plot(found.counts, expected, color=_ORANGE, marker="o", ms=3, lw=1.5, label="expected")
    beyond = int(y.numel() - found.observed.sum().item())
    more = f", {beyond} of {y.numel()} beyond" if beyond else ""
    axes.set(xlabel=f"{name}{more}", ylabel="root of the number of examples")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _headroom(axes, 0.15)
    axes.legend(frameon=False, loc="upper right")
    return _finish(figure, title)


def diagnostics(
    prediction: Prediction,
    y: Tensor,
    names: Sequence[str],
    *,
    title: str = "Held-out data",
) -> dict[str, Figure]:
    """Return the pictures that make sense for a prediction, by their names.

    Numbers, counts and values: :func:`predictions` if there is one target, :func:`calibration` and
    :func:`pit`; counts :func:`rootogram`, too. Binary targets and classes:
    :func:`class_probabilities` as "predictions", and :func:`calibration`. What the numbers in them
    are, :func:`bslfast.metrics.summary` says.

    Args:
        prediction: from :func:`bslfast.predict`.
        y: observed targets.
        names: of the targets, or of the classes; for binary targets of 0 and 1.
        title: what headings begin with.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> import torch, bslfast
        >>> model, y = torch.nn.Identity(), torch.tensor([[0.0], [1.0], [2.0]])
        >>> likelihood = bslfast.likelihoods.Poisson(1)
        >>> prediction = bslfast.predict(model, torch.zeros(3, 1), 1, likelihood=likelihood)
        >>> list(diagnostics(prediction, y, ["visits"]))
        ['predictions', 'calibration', 'pit', 'rootogram']
    """
    if metrics.is_classification(prediction):
        return {
            "predictions": class_probabilities(prediction, y, names, title=f"{title}: predictions"),
            "calibration": calibration(prediction, y, f"{title}: calibration"),
        }
    if isinstance(names, str) or len(names) != prediction.mean.shape[-1]:
        raise ValueError(f"names: expected {prediction.mean.shape[-1]} names, got {names!r}")
    found = {}
    if prediction.mean.ndim == 2 and prediction.mean.shape[1] == 1:
        found["predictions"] = predictions(
            prediction, y, name=names[0], title=f"{title}: predictions"
        )
    found["calibration"] = calibration(prediction, y, f"{title}: calibration")
    found["pit"] = pit(prediction, y, title=f"{title}: probability integral transform")
    if prediction.likelihood.kind == "counts":
        name = names[0] if len(names) == 1 else "count"
        found["rootogram"] = rootogram(
            prediction, y, name=name, title=f"{title}: observed and expected counts"
        )
    return found


def scores(
    groups: Mapping[str, Tensor],
    *,
    name: str = "score",
    title: str = "Scores of known and unknown inputs",
) -> Figure:
    """Plot how scores of several groups of inputs are distributed, such as their epistemic parts.

    The legend has the AUROC of each group against the first, see :func:`bslfast.metrics.auroc`.

    Args:
        groups: by its name the scores of each group, of any shape; the first are known inputs.
        name: name of the scores with their unit, for the axis.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not groups:
        raise ValueError("groups: expected at least one, got none")
    each = {
        key: _checks.finite(key, _checks.floating(key, value, None, "of scores")).cpu().flatten()
        for key, value in groups.items()
    }
    known = next(iter(each.values()))
    low = min(value.min().item() for value in each.values())
    high = max(value.max().item() for value in each.values())
    edges = torch.linspace(low, high if high > low else low + 1, 61).tolist()
    figure = _figure(7, 4.4)
    axes = figure.subplots()
    for k, (key, value) in enumerate(each.items()):
        label = key if k == 0 else f"{key}: AUROC {metrics.auroc(known, value):.3f}"
        axes.hist(
            value.tolist(), edges, density=True, alpha=0.5, color=_CLASSES[k % len(_CLASSES)],
            label=label,
        )  # fmt: skip
    axes.set(xlabel=name, ylabel="density", yscale="log")
    axes.legend(frameon=False)
    return _finish(figure, title)


def splits(scores: Mapping[str, Sequence[float]], title: str = "Splits of the data") -> Figure:
    """Plot scores of several splits of the data, a panel for each, with mean and standard error.

    Args:
        scores: by its name the score of each split.
        title: heading of the picture.

    Raises:
        ValueError: if there are no scores.
    """
    if not scores or not all(map(len, scores.values())):
        raise ValueError("scores: expected at least one score of one split, got none")
    figure = _figure(4.6 * len(scores), 4)
    for axes, (name, values) in zip(
        figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True
    ):
        each = torch.tensor(values, dtype=torch.float64)
        mean = each.mean().item()
        label = f"mean {mean:.4g}"
        if len(each) > 1:
            error = each.std().item() / math.sqrt(len(each))
            label += f" ± {error:.2g} (standard error)"
            axes.axhspan(mean - error, mean + error, color=_BLUE, alpha=0.2, lw=0)
        axes.axhline(mean, color=_BLUE, lw=1.5, label=label)
        axes.plot(range(len(each)), values, ls="", marker="o", color=_ORANGE)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="split", ylabel=name)
        _headroom(axes, 0.15)
        axes.legend(frameon=False, loc="upper left")
    return _finish(figure, title)


def weight_posterior(model: nn.Module, title: str = "Posterior of the weights") -> Figure:
    """Plot the mean and standard deviation of every weight, and their ratio.

    Weights whose |mean| / standard deviation is far below 1 carry little information and could be
    set to zero. Weights at the prior's standard deviation and mean have learned nothing.

    Args:
        model: a module with at least one layer of :mod:`bslfast.nn`.
        title: heading of the picture.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    layers = _posteriors(model)
    if not layers:
        raise ValueError(f"model: expected at least one Bayesian layer, got none in {model}")
    figure = _figure(10, 4.3)
    from matplotlib.ticker import LogLocator, NullFormatter

    left, right = figure.subplots(1, 2)
    ratios = []
    for k, (name, loc, scale) in enumerate(layers):
        colour = _CLASSES[k % len(_CLASSES)]
        label = f"{name} ({loc.numel()})"
        left.plot(loc, scale, ls="", marker=".", ms=5, mew=0, alpha=0.6, color=colour, label=label)
        ratios.append((loc.abs() / scale).clamp_min(1e-3).log10())
    left.set(
        xlabel="mean of the weight", ylabel="standard deviation", yscale="log",
        title="One point per weight",
    )  # fmt: skip
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend(frameon=False, fontsize=8, markerscale=2)
    every = torch.cat(ratios)
    edges = torch.linspace(min(-2.0, every.min().item()), max(2.0, every.max().item()), 41)
    right.hist(
        [ratio.tolist() for ratio in ratios], edges.tolist(), stacked=True,
        color=[_CLASSES[k % len(_CLASSES)] for k in range(len(layers))],
    )  # fmt: skip
    right.axvline(0, color="black", ls="--", lw=1)
    below = (every < 0).double().mean().item()
    right.set(
        xlabel="log10 of |mean| / standard deviation", ylabel="weights",
        title=f"Signal to noise: {below:.0%} of {len(every)} below 1",
    )  # fmt: skip
    return _finish(figure, title)


def _posteriors(model: nn.Module) -> list[tuple[str, Tensor, Tensor]]:
    """Return (layer name, means, standard deviations), flat and on the CPU, per Bayesian layer."""
    from bslfast.nn import BayesianModule

    layers = []
    for name, module in model.named_modules():
        weights = module.weights() if isinstance(module, BayesianModule) else ()
        spreads = [(w.loc, w.stddev()) for w in weights]
        uncertain = [(loc, stddev) for loc, stddev in spreads if stddev.any()]
        if uncertain:
            loc, stddev = (
                torch.cat([t.detach().cpu().flatten() for t in column])
                for column in zip(*uncertain, strict=True)
            )
            layers.append((name, loc, stddev))
    return layers


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ModuleNotFoundError(
            "plots: expected matplotlib to be installed: pip install matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def _headroom(axes: Axes, fraction: float) -> None:
    """Leave room for a legend above the data."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + fraction * (high - low))


def _finish(figure: Figure, title: str) -> Figure:
    figure.suptitle(title, fontsize=12)
    axes: Any
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, alpha=0.25, lw=0.6)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(10)
    return figure
