"""Metrics of predictions and their uncertainties, on data the model has not seen.

The batch may be any number of leading dimensions. NaN and infinity are errors, in targets and in
predictions: a comparison with NaN is false and would count as an ordinary miss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bslfast import _checks
from bslfast.likelihoods import Categorical
from bslfast.metrics.bounds import MeanError, active_units, bits_per_dim, is_active, mean_and_error
from bslfast.predict import Prediction

__all__ = [
    "MeanError",
    "Reliability",
    "accuracy",
    "active_units",
    "auroc",
    "bits_per_dim",
    "brier_score",
    "calibration_curve",
    "coverage",
    "expected_calibration_error",
    "is_active",
    "mean_and_error",
    "mean_log_likelihood",
    "reliability",
    "rmse",
    "sharpness",
]


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
        prediction: a regression, from :func:`bslfast.predict`.

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


def reliability(probabilities: Tensor, y: Tensor, bins: int = 15) -> Reliability:
    """Bin examples by the probability of their predicted class and compare with the truth.

    Bin ``b`` covers the confidences in (b / bins, (b + 1) / bins].

    Args:
        probabilities: [batch, classes], floating, rows that add up to 1.
        y: true classes, int64 [batch].
        bins: number of bins on [0, 1].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    probabilities, y = _check_probabilities(probabilities, y)
    _checks.integer("bins", bins)
    confidence, predicted = probabilities.double().max(1)
    correct = (predicted == y).double()
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
    """Return the fraction of targets inside their central predictive interval.

    Calibrated predictions give ``level``, with a standard error of
    sqrt(level (1 - level) / examples).

    Args:
        prediction: a regression, from :func:`bslfast.predict`.
        y: observed targets, [batch, targets].
        level: a number in (0, 1).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """
    level = _checks.number("level", level, above=0.0, below=1.0)
    return calibration_curve(prediction, y, torch.tensor([level], dtype=torch.float64)).item()


def calibration_curve(prediction: Prediction, y: Tensor, levels: Tensor) -> Tensor:
    """Return the observed coverage of the central interval at each of ``levels``.

    A target lies inside the central interval at level L if and only if |2 F(y) - 1| <= L, where F
    is the predictive distribution function. So one evaluation of F serves all levels.

    Args:
        prediction: a regression, from :func:`bslfast.predict`.
        y: observed targets, [batch, targets].
        levels: [n], numbers in (0, 1).

    Returns:
        [n], float64: fractions over all examples and targets.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kuleshov et al., "Accurate uncertainties for deep learning using calibrated regression"
    (2018, arXiv:1807.00263), with central instead of one-sided intervals.
    """
    _check_finite(prediction, y)
    _checks.floating("levels", levels, 1, "[levels]")
    if not bool(((levels > 0) & (levels < 1)).all()):
        raise ValueError(f"levels: expected numbers above 0 and below 1, got {levels.tolist()}")
    _check_regression(prediction)
    distance = (2 * prediction.cdf(y) - 1).abs().flatten()
    _not_empty("y", distance)
    inside = distance <= levels.double().to(distance.device).unsqueeze(1)
    return inside.double().mean(1)


def _check_prediction(prediction: Prediction) -> None:
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"prediction: expected what bslfast.predict returns, got {_checks.describe(prediction)}"
        )


def _check_regression(prediction: Prediction) -> None:
    _check_prediction(prediction)
    if not prediction.likelihood.continuous:
        raise TypeError(
            "prediction: expected a regression, of targets with a density, got one with "
            f"{prediction.likelihood} likelihood"
        )


def _check_finite(prediction: Prediction, y: Tensor) -> None:
    _check_prediction(prediction)
    _checks.finite("prediction.mean", prediction.mean)
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
    """Return whether ``prediction`` holds class probabilities."""
    _check_prediction(prediction)
    return isinstance(prediction.likelihood, Categorical)
