"""Metrics of predictions and their uncertainties, on data the model has not seen.

:func:`summary` has those that make sense for a likelihood's targets (``likelihood.kind``):
:func:`rmse`, :func:`coverage`, :func:`calibration_error`, :func:`pit_histogram` and
:func:`sharpness` for numbers, counts and values; :func:`accuracy`, :func:`brier_score`,
:func:`reliability` and :func:`expected_calibration_error` for binary targets and classes, by
:func:`as_classes`; :func:`rootogram` for counts; :func:`mean_log_likelihood` for all.

The batch may be any number of leading dimensions. NaN and infinity are errors, in targets and in
predictions: a comparison with NaN is false and would count as an ordinary miss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bslfast import _checks
from bslfast.likelihoods import StudentT
from bslfast.metrics.bounds import MeanError, active_units, bits_per_dim, is_active, mean_and_error
from bslfast.predict import Prediction

__all__ = [
    "MeanError",
    "Reliability",
    "Rootogram",
    "accuracy",
    "active_units",
    "as_classes",
    "auroc",
    "bits_per_dim",
    "brier_score",
    "calibration_curve",
    "calibration_error",
    "coverage",
    "expected_calibration_error",
    "is_active",
    "mean_and_error",
    "mean_log_likelihood",
    "pit_histogram",
    "reliability",
    "rmse",
    "rootogram",
    "sharpness",
    "summary",
]

_ORDERED = ("numbers", "counts", "values")
#: Bins of the calibration error in a summary, as of the picture.
_BINS = 10


def summary(prediction: Prediction, y: Tensor) -> dict[str, float]:
    """Return the metrics that make sense for a prediction, by their names.

    Numbers, counts and values: rmse, mean_log_likelihood, coverage_95, calibration_error,
    mean_aleatoric, mean_epistemic. Binary targets and classes: accuracy, mean_log_likelihood,
    brier_score, expected_calibration_error (of ten bins), mean_aleatoric_entropy,
    mean_epistemic_entropy; for binary ones, if there are both, auroc: how well the probability of 1
    tells them apart.

    Args:
        prediction: from :func:`bslfast.predict`.
        y: observed targets.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> from bslfast.likelihoods import Poisson
        >>> from bslfast.predict import predict
        >>> model, y = torch.nn.Identity(), torch.tensor([[0.0], [1.0], [2.0]])
        >>> prediction = predict(model, torch.zeros(3, 1), 1, likelihood=Poisson(1))
        >>> found = summary(prediction, y)
        >>> round(found["rmse"], 3), found["coverage_95"]  # of rates 1
        (0.816, 1.0)
    """
    _check_finite(prediction, y)
    _not_empty("y", y)
    log_likelihood = mean_log_likelihood(prediction, y)
    aleatoric = prediction.aleatoric.double().mean().item()
    epistemic = prediction.epistemic.double().mean().item()
    if prediction.likelihood.kind in _ORDERED:
        return {
            "rmse": rmse(prediction.mean, y),
            "mean_log_likelihood": log_likelihood,
            "coverage_95": coverage(prediction, y, 0.95),
            "calibration_error": calibration_error(prediction, y),
            "mean_aleatoric": aleatoric,
            "mean_epistemic": epistemic,
        }
    probabilities, classes = as_classes(prediction, y)
    found = {
        "accuracy": accuracy(probabilities, classes),
        "mean_log_likelihood": log_likelihood,
        "brier_score": brier_score(probabilities, classes),
        "expected_calibration_error": expected_calibration_error(probabilities, classes, _BINS),
    }
    if prediction.likelihood.kind == "binary" and 0 < int(classes.sum()) < len(classes):
        of_one = probabilities[:, 1]
        found["auroc"] = auroc(of_one[classes == 0], of_one[classes == 1])
    return found | {"mean_aleatoric_entropy": aleatoric, "mean_epistemic_entropy": epistemic}


def as_classes(prediction: Prediction, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return class probabilities and true classes, for binary targets those of 0 and 1.

    Args:
        prediction: of class labels or of binary targets, from :func:`bslfast.predict`.
        y: class indices, int64 [batch]; or [batch, targets] of zeros and ones, whose dimensions
            become one.

    Returns:
        (probabilities [n, classes], classes, int64 [n]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came, also for binary
            targets between 0 and 1.

    Example:
        >>> from bslfast.likelihoods import Bernoulli
        >>> from bslfast.predict import predict
        >>> model = torch.nn.Identity()
        >>> prediction = predict(model, torch.zeros(2, 1), 1, likelihood=Bernoulli(1))
        >>> as_classes(prediction, torch.tensor([[1.0], [0.0]]))
        (tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]]), tensor([1, 0]))
    """
    _check_finite(prediction, y)
    _not_empty("y", y)
    if prediction.likelihood.kind == "classes":
        return _check_classes(prediction.mean, y)
    if prediction.likelihood.kind != "binary":
        raise TypeError(
            "prediction: expected class labels or binary targets, got one with "
            f"{prediction.likelihood} likelihood"
        )
    _checks.floating("y", y, None, f"{tuple(prediction.mean.shape)}")
    if y.shape != prediction.mean.shape:
        raise ValueError(
            f"y: expected shape {tuple(prediction.mean.shape)}, got {_checks.describe(y)}"
        )
    if not bool(((y == 0) | (y == 1)).all()):
        raise ValueError("y: expected zeros and ones, got other numbers")
    of_one = prediction.mean.flatten()
    return torch.stack([1 - of_one, of_one], 1), y.flatten().long()


def accuracy(probabilities: Tensor, y: Tensor) -> float:
    """Return the fraction of examples whose most probable class is the true one.

    Args:
        probabilities: [batch, classes], floating.
        y: true classes, int64 [batch].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> accuracy(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 1]))
        0.5
    """
    probabilities, y = _check_classes(probabilities, y)
    return (probabilities.argmax(1) == y).double().mean().item()


def rmse(mean: Tensor, y: Tensor) -> float:
    """Return the root mean squared error over examples and targets, in the unit of ``y``.

    Args:
        mean: predictive means, [batch, targets].
        y: observed targets of the same shape.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> rmse(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))  # sqrt(2)
        1.4142135623730951
    """
    _checks.floating("mean", mean, None, "[batch, targets]")
    _not_empty("mean", mean)
    _checks.floating("y", y, None, f"{tuple(mean.shape)}")
    if y.shape != mean.shape:
        raise ValueError(f"y: expected shape {tuple(mean.shape)}, got {_checks.describe(y)}")
    _checks.finite("mean", mean)
    _checks.finite("y", y)
    # Python's square root is correctly rounded; torch's is not on some machines.
    return math.sqrt((mean.double() - y.double()).square().mean().item())


def brier_score(probabilities: Tensor, y: Tensor) -> float:
    """Return the mean squared distance between probabilities and the true class as a unit vector.

    .. math:: \\frac{1}{n} \\sum_{i=1}^n \\sum_c (p_{ic} - [y_i = c])^2

    It lies in [0, 2], 0 is certain and right, and it is proper: the true probabilities score best.
    For two classes it is twice the mean of (p_1 - y)^2.

    Args:
        probabilities: [batch, classes], floating, rows that add up to 1.
        y: true classes, int64 [batch].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Brier, "Verification of forecasts expressed in terms of probability" (1950,
    doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    Example:
        >>> brier_score(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([0, 0]))
        0.25
    """
    probabilities, y = _check_probabilities(probabilities, y)
    truth = torch.nn.functional.one_hot(y, probabilities.shape[1])
    return (probabilities.double() - truth).square().sum(1).mean().item()


def sharpness(prediction: Prediction) -> float:
    """Return the root mean variance of the predictive distributions, in the unit of the targets.

    .. math:: \\sqrt{\\mathrm{mean}(\\mathrm{aleatoric}^2 + \\mathrm{epistemic}^2)}

    If two models are calibrated, the one with the smaller sharpness says more. Targets are not
    needed.

    Args:
        prediction: a regression, from :func:`bslfast.predict`; of counts, too.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts, calibration and sharpness"
    (2007, doi:10.1111/j.1467-9868.2007.00587.x); Kuleshov et al., "Accurate uncertainties for deep
    learning using calibrated regression" (2018, arXiv:1807.00263), section 3.

    Example:
        >>> from bslfast.likelihoods import Normal
        >>> from bslfast.predict import predict
        >>> sharpness(predict(torch.nn.Identity(), torch.zeros(3, 1), 1, likelihood=Normal(1)))
        1.0
    """
    _check_regression(prediction)
    _not_empty("prediction.mean", prediction.mean)
    _checks.finite("prediction.aleatoric", prediction.aleatoric)
    _checks.finite("prediction.epistemic", prediction.epistemic)
    parts = (prediction.aleatoric, prediction.epistemic)
    return math.sqrt(sum(part.double().square().mean().item() for part in parts))


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return how well scores tell unknown inputs from known ones: the area under the ROC curve.

    .. math:: P(s_{unknown} > s_{known}) + \\tfrac12 P(s_{unknown} = s_{known})

    1 is perfect, 0.5 chance. With ``Prediction.epistemic`` as the score it measures the detection
    of inputs that are unlike the training data.

    Args:
        known: scores of inputs like those of the training, of any shape.
        unknown: scores of other inputs, of any shape, which should be higher.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve" (1982, doi:10.1148/radiology.143.1.7063747), by the ranks of Mann
    and Whitney, "On a test of whether one of two random variables is stochastically larger than
    the other" (1947, doi:10.1214/aoms/1177730491).

    Example:
        >>> auroc(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.25, 0.4]))
        0.8333333333333334
    """
    for name, value in (("known", known), ("unknown", unknown)):
        _checks.finite(name, _checks.floating(name, value, None, "of scores"))
        _not_empty(name, value)
    low = known.double().flatten().sort().values
    high = unknown.double().flatten().to(low.device)
    below = torch.searchsorted(low, high, right=False)
    not_above = torch.searchsorted(low, high, right=True)
    return (below + not_above).double().mean().item() / (2 * len(low))


def mean_log_likelihood(prediction: Prediction, y: Tensor) -> float:
    """Return the mean log predictive probability (density) of ``y``, in nats per example.

    It scores mean and uncertainty together; higher is better. For regression the density depends
    on the unit of ``y``: with k targets, a unit c times as large adds k log(c).

    Args:
        prediction: from :func:`bslfast.predict`.
        y: observed targets.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    _check_finite(prediction, y)
    return prediction.log_prob(y).double().mean().item()


class Reliability(NamedTuple):
    """Accuracy against confidence in equal-width bins; empty bins hold NaN.

    ``confidence`` and ``accuracy`` are float64 tensors [bins]. ``examples``, the number of examples
    in each bin, is int64 [bins].
    """

    confidence: Tensor
    accuracy: Tensor
    examples: Tensor


def reliability(
    probabilities: Tensor, y: Tensor, bins: int = 15, *, of: int | None = None
) -> Reliability:
    """Bin examples by the probability of their predicted class and compare with the truth.

    Bin ``b`` covers the confidences in (b / bins, (b + 1) / bins].

    Args:
        probabilities: [batch, classes], floating, rows that add up to 1.
        y: true classes, int64 [batch].
        bins: number of bins on [0, 1].
        of: a class whose probability is compared with how often it is the true one, which then
            stands for confidence and accuracy; None: the predicted class of each example.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    probabilities, y = _check_probabilities(probabilities, y)
    _checks.integer("bins", bins)
    if of is None:
        confidence, predicted = probabilities.double().max(1)
        correct = (predicted == y).double()
    else:
        of = _checks.integer("of", of, 0)
        if of >= probabilities.shape[1]:
            raise ValueError(f"of: expected a class below {probabilities.shape[1]}, got {of}")
        confidence, correct = probabilities[:, of].double(), (y == of).double()
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(index, minlength=bins)
    return Reliability(
        torch.bincount(index, confidence, bins) / count,
        torch.bincount(index, correct, bins) / count,
        count,
    )


def expected_calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Return the mean distance between confidence and accuracy over equal-width bins.

    .. math:: \\sum_b \\frac{n_b}{n} |\\mathrm{acc}_b - \\mathrm{conf}_b|

    It lies in [0, 1]; 0 is calibrated. With few examples it is biased upwards, since the accuracy
    of a bin of n_b examples scatters by up to 1 / (2 sqrt(n_b)).

    Arguments and errors are those of :func:`reliability`.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning" (2015,
    doi:10.1609/aaai.v29i1.9602).

    Example:
        >>> p = torch.tensor([[0.75, 0.25]] * 4)
        >>> expected_calibration_error(p, torch.tensor([0, 0, 0, 1]))
        0.0
    """
    table = reliability(probabilities, y, bins)
    gap = (table.accuracy - table.confidence).abs().nan_to_num(0.0)
    return ((gap * table.examples).sum() / table.examples.sum()).item()


def coverage(prediction: Prediction, y: Tensor, level: float = 0.95) -> float:
    """Return the fraction of targets inside their central predictive interval, ends included.

    Calibrated predictions give ``level``, with a standard error of
    sqrt(level (1 - level) / examples). They give more for counts: an interval of whole numbers has
    at least ``level`` inside. :func:`calibration_curve` has no such excess.

    Args:
        prediction: a regression, from :func:`bslfast.predict`.
        y: observed targets, [batch, targets].
        level: a number in (0, 1).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    level = _checks.number("level", level, above=0.0, below=1.0)
    if isinstance(prediction, Prediction) and prediction.likelihood.kind in ("counts", "values"):
        _check_finite(prediction, y)
        prediction.pit(y)  # which looks at y
        _not_empty("y", y)
        lower, upper = (end.to(y.device) for end in prediction.interval(level))
        return ((y >= lower) & (y <= upper)).double().mean().item()
    return calibration_curve(prediction, y, torch.tensor([level], dtype=torch.float64)).item()


def calibration_curve(prediction: Prediction, y: Tensor, levels: Tensor) -> Tensor:
    """Return the observed coverage of the central interval at each of ``levels``.

    A target lies inside the central interval at level L if and only if |2 F(y) - 1| <= L, where F
    is the predictive distribution function. So one evaluation of F serves all levels. A count has
    an interval of F instead, from P(target < y) to P(target <= y). What counts is the part of it in
    [(1 - L) / 2, (1 + L) / 2], so that calibrated predictions give L for them, too.

    Args:
        prediction: a regression, from :func:`bslfast.predict`; of counts, too.
        y: observed targets, [batch, targets].
        levels: [n], numbers in (0, 1).

    Returns:
        [n], float64: fractions over all examples and targets.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kuleshov et al., "Accurate uncertainties for deep learning using calibrated regression"
    (2018, arXiv:1807.00263), with central instead of one-sided intervals; for counts with the
    transform of Czado, Gneiting and Held, "Predictive model assessment for count data" (2009,
    doi:10.1111/j.1541-0420.2009.01191.x).
    """
    _check_finite(prediction, y)
    _checks.floating("levels", levels, 1, "[levels]")
    if not bool(((levels > 0) & (levels < 1)).all()):
        raise ValueError(f"levels: expected numbers above 0 and below 1, got {levels.tolist()}")
    _check_regression(prediction)
    below, at_most = (end.flatten() for end in prediction.pit(y))
    _not_empty("y", below)
    levels = levels.double().to(below.device).unsqueeze(1)
    if prediction.likelihood.continuous:
        return ((2 * at_most - 1).abs() <= levels).double().mean(1)
    least, most = (1 - levels) / 2, (1 + levels) / 2
    return (_share_below(below, at_most, most) - _share_below(below, at_most, least)).mean(1)


def calibration_error(prediction: Prediction, y: Tensor, levels: int = 99) -> float:
    r"""Return the mean distance between the levels of central intervals and their coverage.

    .. math:: \frac{1}{n} \sum_{i=1}^n |\mathrm{coverage}(L_i) - L_i|, \quad
              L_i = \frac{i}{n + 1}

    It lies in [0, 1/2]; 0 is calibrated. It is 1/2 if all targets are in the middle of their
    predictions, or far outside.

    Args:
        prediction: a regression, from :func:`bslfast.predict`; of counts, too.
        y: observed targets, [batch, targets].
        levels: how many there are.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kuleshov et al., "Accurate uncertainties for deep learning using calibrated regression"
    (2018, arXiv:1807.00263), section 3.5, with absolute differences.

    Example:
        >>> from bslfast.likelihoods import Normal
        >>> from bslfast.predict import predict
        >>> prediction = predict(torch.nn.Identity(), torch.zeros(3, 1), 1, likelihood=Normal(1))
        >>> calibration_error(prediction, torch.zeros(3, 1))
        0.5
    """
    n = _checks.integer("levels", levels)
    at = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1)
    curve = calibration_curve(prediction, y, at)
    return (curve.cpu() - at).abs().mean().item()


def pit_histogram(prediction: Prediction, y: Tensor, bins: int = 10) -> Tensor:
    r"""Return the histogram of the probability integral transform, as a density.

    Heights are 1 for calibrated predictions. High ends say that predictions are too sure, a high
    middle that they are too wide, a slope that they are too low or too high. The transform of a
    count is an interval (:meth:`bslfast.predict.Prediction.pit`), which spreads evenly over the
    bins that it covers.

    Args:
        prediction: a regression, from :func:`bslfast.predict`; of counts, too.
        y: observed targets, [batch, targets].
        bins: number of bins on [0, 1].

    Returns:
        [bins], float64, whose mean is 1.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Czado, Gneiting and Held, "Predictive model assessment for count data" (2009,
    doi:10.1111/j.1541-0420.2009.01191.x), section 2.1.

    Example:
        >>> from bslfast.likelihoods import Normal
        >>> from bslfast.predict import predict
        >>> prediction = predict(torch.nn.Identity(), torch.zeros(2, 1), 1, likelihood=Normal(1))
        >>> pit_histogram(prediction, torch.tensor([[-1.0], [1.0]]), 2)
        tensor([1., 1.], dtype=torch.float64)
    """
    _check_finite(prediction, y)
    bins = _checks.integer("bins", bins)
    _check_regression(prediction)
    below, at_most = (end.flatten() for end in prediction.pit(y))
    _not_empty("y", below)
    if prediction.likelihood.continuous:
        index = (at_most * bins).long().clamp(0, bins - 1)
        return torch.bincount(index, minlength=bins).double() * (bins / len(index))
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=below.device)
    shares = _share_below(below, at_most, edges.unsqueeze(1))
    return shares.diff(dim=0).mean(1) * bins


def _share_below(below: Tensor, at_most: Tensor, edge: Tensor) -> Tensor:
    """Which part of each interval [examples] lies below each edge [edges, 1]: [edges, examples]."""
    length = at_most - below
    tiny = length < 1e-300  # a target that has no chance at all is a point, above 0 even so
    share = ((edge - below) / torch.where(tiny, 1.0, length)).clamp(0, 1)
    return torch.where(tiny, ((edge >= at_most) & (edge > 0)).double(), share)


class Rootogram(NamedTuple):
    """How often each count was observed and expected; float64 tensors [counts].

    ``counts`` are 0, 1, ...; ``expected`` is the sum of the predicted chances over all examples and
    targets.
    """

    counts: Tensor
    observed: Tensor
    expected: Tensor


def rootogram(prediction: Prediction, y: Tensor, most: int | None = None) -> Rootogram:
    r"""Compare how often counts were observed with what predictions say, over all examples.

    .. math:: o_k = \#\{i : y_i = k\}, \quad e_k = \sum_i P(y_i = k | x_i)

    Too few zeros, or tails that are too short, are seen there, which no single example shows.

    Args:
        prediction: of counts, from :func:`bslfast.predict`.
        y: observed counts, [batch, targets].
        most: the largest count to look at; None: the largest one observed.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kleiber and Zeileis, "Visualizing count data regressions using rootograms" (2016,
    doi:10.1080/00031305.2016.1173590, arXiv:1605.01311).

    Example:
        >>> from bslfast.likelihoods import Poisson
        >>> from bslfast.predict import predict
        >>> prediction = predict(torch.nn.Identity(), torch.zeros(2, 1), 1, likelihood=Poisson(1))
        >>> found = rootogram(prediction, torch.tensor([[0.0], [1.0]]))
        >>> found.observed.tolist(), [round(e, 4) for e in found.expected.tolist()]  # 2 / e each
        ([1.0, 1.0], [0.7358, 0.7358])
    """
    _check_finite(prediction, y)
    if prediction.likelihood.kind != "counts":
        raise TypeError(
            f"prediction: expected counts, got one with {prediction.likelihood} likelihood"
        )
    prediction.pit(y)  # which looks at y
    _not_empty("y", y)
    last = int(y.max().item()) if most is None else _checks.integer("most", most, 0)
    samples = prediction.samples.double()
    each = prediction.likelihood.distribution(samples)
    counts = torch.arange(last + 1, dtype=torch.float64)
    expected = [
        each.log_prob(samples.new_tensor(k)).exp().mean(0).sum().item() for k in counts.tolist()
    ]
    seen = y.detach().cpu().double().flatten()
    observed = torch.bincount(seen[seen <= last].long(), minlength=last + 1).double()
    return Rootogram(counts, observed, torch.tensor(expected, dtype=torch.float64))


def _check_prediction(prediction: Prediction) -> None:
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"prediction: expected what bslfast.predict returns, got {_checks.describe(prediction)}"
        )


def _check_regression(prediction: Prediction) -> None:
    _check_prediction(prediction)
    if prediction.likelihood.kind not in _ORDERED:
        raise TypeError(
            "prediction: expected a regression, of numbers or counts, got one with "
            f"{prediction.likelihood} likelihood"
        )


def _check_finite(prediction: Prediction, y: Tensor) -> None:
    _check_prediction(prediction)
    _checks.finite("prediction.mean", prediction.mean)
    if isinstance(prediction.likelihood, StudentT):  # whose variance may be infinite
        _checks.finite("prediction.samples", prediction.samples)
    else:
        _checks.finite("prediction.aleatoric", prediction.aleatoric)
    _checks.finite("y", _checks.tensor("y", y))


def _check_classes(probabilities: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities as [rows, classes] and true classes as [rows]."""
    _checks.floating("probabilities", probabilities, None, "[batch, classes]")
    if probabilities.ndim == 0:
        raise ValueError(f"probabilities: expected [batch, classes], got {probabilities.item():g}")
    _not_empty("probabilities", probabilities)
    _checks.finite("probabilities", probabilities)
    *leading, classes = probabilities.shape
    if len(leading) != 1:
        if _checks.tensor("y", y).shape != probabilities.shape[:-1]:
            raise ValueError(f"y: expected shape {tuple(leading)}, got {_checks.describe(y)}")
        probabilities, y = probabilities.reshape(-1, classes), y.reshape(-1)
    return probabilities, _checks.class_indices("y", y, classes, len(probabilities))


def _check_probabilities(probabilities: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The same of rows that add up to 1, as logits do not."""
    probabilities, y = _check_classes(probabilities, y)
    # 1e-3 leaves room for the rounding of 16-bit probabilities, not for logits.
    if bool((probabilities < 0).any()) or not bool(
        ((probabilities.sum(1) - 1).abs() < (1e-3 if probabilities.itemsize > 2 else 0.05)).all()
    ):
        raise ValueError(
            "probabilities: expected non-negative rows that add up to 1, got values from "
            f"{probabilities.min().item():g} and row sums from {probabilities.sum(1).min():g} to "
            f"{probabilities.sum(1).max():g}"
        )
    return probabilities, y


def _not_empty(name: str, value: Tensor) -> None:
    if value.numel() == 0:
        raise ValueError(f"{name}: expected at least one example, got {_checks.describe(value)}")


def is_classification(prediction: Prediction) -> bool:
    """Return whether ``prediction`` holds probabilities of classes, or of binary targets."""
    _check_prediction(prediction)
    return prediction.likelihood.kind not in _ORDERED
