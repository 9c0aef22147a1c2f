"""Estimators: how a layer's outputs are drawn.

:class:`WeightSample` draws the weights. Others draw less noisy outputs of the same mean and
variance, for linear maps: each has the layer's :meth:`~BayesianModule.weights` and its
:meth:`~BayesianModule.function` of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.nn import posteriors
from bslfast.nn.module import (
    BayesianModule,
    bayesian_layers,
    remember,
    set_past_module,
)
from bslfast.nn.posteriors import Posterior
from bslfast.nn.weight import Divergence, Part, Weight, divergence_of


class Estimator:
    """Draws the outputs of a layer. A value: it keeps nothing of a layer."""

    def check(self, layer: BayesianModule) -> None:
        """Raise ValueError if the outputs of this layer cannot be drawn in this way."""

    def __call__(
        self, layer: BayesianModule, *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> Tensor:
        """Outputs of the layer, which remembers its divergence if that is part of their graph."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class WeightSample(Estimator):
    r"""One draw of all weights of the layer serves the whole batch.

    .. math:: y_n = f(x_n; w), \quad w \sim q

    It serves every layer and posterior. The noise of all examples is the same, so that their
    gradients vary together: an average over a batch is no less noisy than one of them.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, estimator="weight_sample")  # as without the argument
    >>> torch.equal(*layer(torch.ones(2, 3)))
    True
    """

    def __call__(
        self, layer: BayesianModule, *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> Tensor:
        """Outputs for one draw."""
        fused = layer.fused(layer.weights(), *inputs, seed=seed, **options)
        if fused is None:
            return layer.function(draw((layer,), seed)[layer], *inputs, **options)
        outputs, part = fused
        remember((part,), (layer,))
        return outputs


class _OfLinearMaps(Estimator):
    """What serves layers that are linear in their input and their weights."""

    #: Which the weights may have.
    _posteriors: ClassVar[tuple[type[Posterior], ...]]

    def check(self, layer: BayesianModule) -> None:
        """Raise ValueError for other layers and posteriors."""
        if layer.feature_dim is None:
            raise ValueError(
                f"estimator: expected WeightSample() for a {type(layer).__name__}, which is no "
                f"linear map, got {self}"
            )
        for weight in layer.weights():
            if type(weight.posterior) not in self._posteriors:
                names = " or ".join(kind.__name__ for kind in self._posteriors)
                raise ValueError(
                    f"estimator: expected WeightSample() unless all posteriors are {names}, got "
                    f"{self} for a {type(weight.posterior).__name__}"
                )


@dataclasses.dataclass(frozen=True)
class LocalReparametrization(_OfLinearMaps):
    r"""Outputs drawn for each example from the normal distribution that the weights give them.

    .. math:: y = f(x; m) + \sqrt{f(x^2; s^2)} \, \epsilon, \quad \epsilon \sim N(0, 1)

    for a layer f with the means m and the standard deviations s, each element of y with a number
    of its own. Mean and variance are those of :class:`WeightSample`. Examples share no noise,
    which makes gradients less noisy; nor do the positions of a convolution, whose outputs are
    correlated under a draw of its kernel.

    It serves linear layers, convolutions and their transposes with ``Normal`` and ``Deterministic``
    posteriors, not in float16, which does not hold the squares. ``layer.kl()`` is computed by
    itself: in closed form, or from a sample of the weights where there is none. Inside
    :func:`bslfast.nn.one_draw` the weights have been drawn, and are used.

    Raises:
        ValueError: by the layer, if it is or has what is not served.
        TypeError: by a pass in float16.

    Source: Kingma, Salimans and Welling, "Variational dropout and the local reparameterization
    trick" (2015, arXiv:1506.02557), section 2.2.

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, estimator="local_reparametrization")
    >>> torch.equal(*layer(torch.ones(2, 3)))
    False
    """

    _posteriors = (posteriors.Normal, posteriors.Deterministic)

    def __call__(
        self, layer: BayesianModule, *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> Tensor:
        """Outputs, each element with noise of its own."""
        self.check(layer)
        x, others, options = _first(inputs, options)
        weights = layer.weights()
        mean = layer.function(tuple([w.loc for w in weights]), x, *others, **options)
        if mean.dtype == torch.float16:
            raise TypeError(
                f"estimator: expected WeightSample() or Flipout() in float16, got {self}"
            )
        if all(type(w.posterior) is posteriors.Deterministic for w in weights):
            return mean
        variances = tuple([w.stddev().square() for w in weights])
        variance = layer.function(variances, x.square(), *others, **options)
        # At 0, as for an input of zeros, the root has no derivative. Nor is it below 0, where fast
        # algorithms of convolution may round to.
        tiny = torch.finfo(variance.dtype).tiny
        scale = F.threshold(variance, tiny, tiny).sqrt()
        y = BF.normal_rsample(mean, scale, parametrization="scale", seed=seed)
        return y.to(mean.dtype)  # as the torch class returns it under autocast


@dataclasses.dataclass(frozen=True)
class Flipout(_OfLinearMaps):
    r"""One draw of the weights, whose deviations from the mean get random signs for each example.

    .. math:: y_n = f(x_n; m) + r_n \, f(s_n x_n; w - m), \quad w \sim q

    with signs s_n for each input feature (or channel) and r_n for each output feature, a deviation
    of the bias included. Each example has a sample of the posterior, of the same mean and variance
    as those of :class:`WeightSample`; samples of two examples are uncorrelated, though not
    independent. Rows of all leading dimensions are examples of a linear layer.

    It serves linear layers, convolutions and their transposes with posteriors of independent
    weights that are symmetric around their mean: ``Normal``, ``Laplace`` and ``Deterministic``.
    ``layer.kl()`` is computed by itself: in closed form, or from another sample of the weights
    where there is none. Inside :func:`bslfast.nn.one_draw` the weights have been drawn, and are
    used without signs.

    Raises:
        ValueError: by the layer, if it is or has what is not served.

    Source: Wen, Vicol, Ba, Tran and Grosse, "Flipout: efficient pseudo-independent weight
    perturbations on mini-batches" (2018, arXiv:1803.04386).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConv2d(3, 2, 1, estimator="flipout")
    >>> x = torch.ones(4, 3, 5, 5)
    >>> torch.equal(layer(x, seed=1), layer(x, seed=1)), layer(x).unique(dim=0).shape
    (True, torch.Size([4, 2, 5, 5]))
    """

    _posteriors = (posteriors.Normal, posteriors.Laplace, posteriors.Deterministic)

    def __call__(
        self, layer: BayesianModule, *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> Tensor:
        """Outputs, the examples with signs of their own."""
        self.check(layer)
        x, others, options = _first(inputs, options)
        weights = layer.weights()
        mean = layer.function(tuple([w.loc for w in weights]), x, *others, **options)
        seed = _checks.seed(seed, mean.device)
        deviations = tuple(
            [_around_zero(w).rsample(seed=seed, stream=i) for i, w in enumerate(weights)]
        )
        dim, n = layer.feature_dim, len(weights)
        assert dim is not None
        flipped = x * _signs(x, dim, seed, n)
        noise = layer.function(deviations, flipped, *others, **options)
        return mean + noise * _signs(mean, dim, seed, n + 1)


def _first(
    inputs: Sequence[Any], options: dict[str, Any]
) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """(the first input, which torch's layers call ``input``; the others; the other options)."""
    if inputs:
        return inputs[0], inputs[1:], options
    return options.get("input"), (), {k: v for k, v in options.items() if k != "input"}


def _around_zero(weight: Weight) -> Weight:
    """The deviation of a weight from its mean."""
    loc, *others = weight.parameters
    zeros = loc.new_zeros(()).expand_as(loc)
    return weight._replace(parameters=(zeros, *others))


def _signs(like: Tensor, dim: int, seed: Tensor, stream: int) -> Tensor:
    """1 or -1 for each feature, that is along ``dim`` < 0, of each example of a tensor."""
    shape = (*like.shape[: like.dim() + dim + 1], *(1,) * (-1 - dim))
    uniform = BF.standard_uniform(shape, seed=seed, stream=stream, dtype=torch.float32)
    return (uniform - 0.5).sign().to(like.dtype)


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


def draw(
    layers: Sequence[BayesianModule], seed: int | Tensor | None = None
) -> dict[BayesianModule, tuple[Tensor, ...]]:
    """Samples of the weights of all layers that name them, drawn together.

    The layers remember the place of their divergence in the graph. Weights of one kind
    (:meth:`Divergence.kind`) are one call; their noise streams are numbered on from call to call.
    """
    every = [(layer, layer.weights()) for layer in layers]
    named = [(layer, weights) for layer, weights in every if weights]
    calls: dict[Hashable, tuple[Divergence, list[int], list[Weight]]] = {}
    place = 0
    for _, weights in named:
        for weight in weights:
            divergence = divergence_of(weight)
            kind = divergence.kind(weight)
            if kind is None:
                kind = place
            if kind in calls:
                _, places, alike = calls[kind]
                places.append(place)
                alike.append(weight)
            else:
                calls[kind] = divergence, [place], [weight]
            place += 1
    samples: dict[int, Tensor] = {}
    parts: list[Part | None] = []
    for divergence, places, alike in calls.values():
        drawn, part = divergence.draw(alike, seed, len(samples))
        samples.update(zip(places, drawn, strict=True))
        parts.append(part)
    remember(parts, [layer for layer, _ in named])
    result, begin = {}, 0
    for layer, weights in named:
        result[layer] = tuple([samples[begin + i] for i in range(len(weights))])
        begin += len(weights)
    return result


@contextlib.contextmanager
def one_draw(model: nn.Module, *, seed: int | Tensor | None = None) -> Iterator[None]:
    """One draw of the weights of ``model``, for every forward pass inside the ``with`` block.

    Such passes evaluate one function that the posterior has drawn, on as many batches as are
    wanted: add up their losses before one backward pass, as they share the graph of the draw.
    Normal weights with normal priors are drawn together: on a CUDA device by one kernel, whatever
    the number of layers (:func:`bslfast.functional.normal_rsample_kl_many`). Layers that have a
    draw already, of an enclosing ``with``, keep it; those that do not name their weights in
    :meth:`BayesianModule.weights`, and calls of a layer with a seed, draw by themselves.

    It holds for the module's layers in all threads. Gradients reach the parameters as they were at
    the beginning, if gradients were enabled then: not those that ``torch.func.functional_call``
    puts in their place inside. A pass under activation checkpointing must be run again, that is its
    backward pass, inside, too.

    Args:
        model: a module that is, or holds, Bayesian layers.
        seed: as in :func:`bslfast.functional.normal_rsample`.

    Raises:
        TypeError: ``model`` is not a module, or ``seed`` not one.
        ValueError: ``model`` has no Bayesian layer.

    >>> import torch, bslfast
    >>> model, x = bslfast.bnn.BayesianMLP(3, (8,), 1), torch.ones(5, 3)
    >>> with bslfast.nn.one_draw(model):
    ...     first, again = model(x), model(x)
    >>> torch.equal(first, again), torch.equal(first, model(x))
    (True, False)
    """
    drawn = draw([layer for layer in bayesian_layers(model) if layer.drawn is None], seed)
    try:
        for layer, samples in drawn.items():
            set_past_module(layer, "drawn", samples)
        yield
    finally:
        for layer in drawn:
            set_past_module(layer, "drawn", None)
