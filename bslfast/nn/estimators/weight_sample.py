"""What an estimator is, and the one that draws the weights: of a layer, or of many together."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from bslfast.functional._op import unwatched
from bslfast.functional.normal_many import draw_checked
from bslfast.nn.module import (
    BayesianModule,
    Watch,
    bayesian_layers,
    remember,
    set_past_module,
)
from bslfast.nn.posteriors import Normal
from bslfast.nn.priors import Normal as NormalPrior
from bslfast.nn.weight import Divergence, Part, Weight, columns_of, divergence_of, normal_part

#: Up to this many weights, a step by ops on the CPU costs more for Python and graph nodes than for
#: memory. Layers that draw by themselves need less memory. On CUDA devices a layer costs its
#: launches.
MOST_DRAWN_TOGETHER = 1 << 18


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


def draw(
    layers: Sequence[BayesianModule],
    seed: int | Tensor | None = None,
    *,
    beside: Sequence[BayesianModule] = (),
) -> dict[BayesianModule, tuple[Tensor, ...]]:
    """Samples of the weights of all layers that name them, drawn together.

    The layers remember the place of their divergence in the graph. Weights of one kind
    (:meth:`Divergence.kind`) are one call; their noise streams are numbered on from call to call.
    A weight that several layers share is drawn once, and not at all if a layer ``beside`` these
    has a sample of it.
    """
    found = None if beside else _drawn_together(layers, seed)
    if found is not None:
        return found
    every = [(layer, layer.weights()) for layer in layers]
    named = [(layer, weights) for layer, weights in every if weights]
    calls: dict[Hashable, tuple[Divergence, list[int], list[Weight]]] = {}
    place = 0
    there = drawn_by(beside)
    places_of: dict[tuple[Tensor, ...], int] = {}
    for _, weights in named:
        for weight in weights:
            key = weight.identity
            if key in there or places_of.setdefault(key, place) != place:
                continue
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
    return {
        layer: tuple([there[key] if key in there else samples[places_of[key]] for key in keys])
        for layer, keys in ((layer, [w.identity for w in weights]) for layer, weights in named)
    }


class _Together:
    """The weights of some layers that are drawn in one call, and its arguments."""

    def __init__(self, layers: Sequence[BayesianModule]) -> None:
        self.watch = Watch(layers)
        self.sizes = [len(layer.weights()) for layer in layers]
        self.columns = loc, raw_scale, prior_loc, prior_scale, how = columns_of(self.watch.weights)
        self.tensors = (*loc, *raw_scale)
        self.constants = (tuple(prior_loc), tuple(prior_scale), 0, how)
        self.launches = loc[0].is_cuda
        self.pays = self.launches or sum(map(Tensor.numel, loc)) <= MOST_DRAWN_TOGETHER


def _are_drawn_together(layers: Sequence[BayesianModule]) -> bool:
    """Whether the weights are normal with normal priors, all of one kind, each of one layer."""
    seen, kinds = set(), set()
    for layer in layers:
        weights = layer.weights()
        if not weights or layer.made_of() is None:
            return False
        for posterior, prior, parameters in weights:
            if (
                type(posterior) is not Normal
                or type(prior) is not NormalPrior
                or parameters in seen
            ):
                return False
            seen.add(parameters)
            kinds.add(posterior.parametrization)
    return len(kinds) == 1


def _known_together(layers: Sequence[BayesianModule]) -> _Together | None:
    """What the weights of layers have that can be drawn in one call; None if they cannot."""
    if not _are_drawn_together(layers):
        return None
    known = _Together(layers)
    set_past_module(layers[0], "_together", known)
    return known


def pays_at_once(layers: Sequence[BayesianModule]) -> bool:
    """Whether the weights of layers can be drawn in one call, in less time than layer by layer."""
    known = _known_together(layers)
    return known is not None and known.pays


def drawn_at_once(
    layers: Sequence[BayesianModule],
) -> dict[BayesianModule, tuple[Tensor, ...]] | None:
    """:func:`draw` where it is one call in less time than layer by layer; None elsewhere."""
    found = _drawn_together(layers, None, if_it_pays=True)
    if found is not None:
        return found
    # Kernels for plain tensors are not called directly on CUDA devices.
    known: _Together | None = layers[0]._together
    if known is None or not (known.launches and known.watch.is_of(layers) and known.watch.holds()):
        return None
    return draw(layers)


def _drawn_together(
    layers: Sequence[BayesianModule], seed: int | Tensor | None, *, if_it_pays: bool = False
) -> dict[BayesianModule, tuple[Tensor, ...]] | None:
    """:func:`draw` where it is one call, by what is known from the last one; None elsewhere."""
    if not layers or not unwatched():
        return None
    known: _Together | None = layers[0]._together
    if known is None or not known.watch.is_of(layers) or not known.watch.holds():
        known = _known_together(layers)
    if known is None or (if_it_pays and not known.pays):
        return None
    found = draw_checked(known.tensors, known.constants, seed)
    if found is None:
        return None
    samples, place = found
    if place.requires_grad:
        remember((normal_part(place, known.watch.weights, known.columns),), layers, known.watch)
    left = iter(samples)
    return {
        layer: tuple(itertools.islice(left, n))
        for layer, n in zip(layers, known.sizes, strict=True)
    }


def drawn_by(layers: Iterable[BayesianModule]) -> dict[tuple[Tensor, ...], Tensor]:
    """The samples that layers have, by the identities of their weights."""
    return {
        weight.identity: sample
        for layer in layers
        if layer.drawn is not None
        for weight, sample in zip(layer.weights(), layer.drawn, strict=True)
    }


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
    layers = bayesian_layers(model)
    beside = [layer for layer in layers if layer.drawn is not None]
    drawn = draw([layer for layer in layers if layer.drawn is None], seed, beside=beside)
    try:
        for layer, samples in drawn.items():
            set_past_module(layer, "drawn", samples)
        yield
    finally:
        for layer in drawn:
            set_past_module(layer, "drawn", None)
