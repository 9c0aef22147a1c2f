"""Estimators: how a layer's outputs are drawn.

:class:`WeightSample` draws the weights. Others draw less noisy outputs of the same mean and
variance, for linear maps: each has the layer's :meth:`~bslfast.nn.BayesianModule.weights` and its
:meth:`~bslfast.nn.BayesianModule.function` of them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from bslfast import _checks
from bslfast.nn.estimators.linear_maps import Flipout, LocalReparametrization
from bslfast.nn.estimators.weight_sample import Estimator, WeightSample, draw, drawn_by, one_draw
from bslfast.nn.module import bayesian_layers

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Flipout",
    "LocalReparametrization",
    "WeightSample",
    "draw",
    "drawn_by",
    "estimator_of",
    "one_draw",
    "set_estimator",
]

#: Estimators by the names that an argument ``estimator`` may have.
ESTIMATORS: dict[str, Estimator] = {
    "weight_sample": WeightSample(),
    "local_reparametrization": LocalReparametrization(),
    "flipout": Flipout(),
}


def estimator_of(value: Any) -> Estimator:
    """An estimator, by itself or by its name. Raises TypeError or ValueError."""
    if isinstance(value, Estimator):
        return value
    return ESTIMATORS[_checks.choice("estimator", value, tuple(ESTIMATORS))]


def set_estimator(model: nn.Module, estimator: str | Estimator) -> None:
    """Let all Bayesian layers of ``model`` draw their outputs in one way.

    For some layers alone, call it with the module that holds them, or set ``layer.estimator``.

    Args:
        model: a module that is, or holds, Bayesian layers.
        estimator: "weight_sample", "local_reparametrization" or "flipout", see
            :class:`WeightSample`, :class:`LocalReparametrization`, :class:`Flipout`; or an
            :class:`Estimator`.

    Raises:
        TypeError: ``model`` is not a module, or ``estimator`` none.
        ValueError: an unknown name; a model without Bayesian layers; a layer that the estimator
            does not serve. No layer is changed then.

    Source: Wen, Vicol, Ba, Tran and Grosse, "Flipout: efficient pseudo-independent weight
    perturbations on mini-batches" (2018, arXiv:1803.04386), which compares the three.

    >>> import bslfast
    >>> model = bslfast.bnn.BayesianMLP(3, (8,), 1)
    >>> bslfast.nn.set_estimator(model, "local_reparametrization")
    >>> model.layers[0].estimator
    LocalReparametrization()
    """
    found, layers = estimator_of(estimator), bayesian_layers(model)
    for layer in layers:
        if not hasattr(layer, "estimator"):
            raise ValueError(
                f"estimator: expected layers that are a BayesianLayer, got a {type(layer).__name__}"
            )
        found.check(layer)
    for layer in layers:
        layer.estimator = found  # type: ignore[assignment]
