"""What Bayesian layers have in common: their draws, and the KL divergence of a model."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast._native.normal_many import write_kl
from bslfast.functional._op import runs_eagerly
from bslfast.functional.normal_many import draw_many


class NormalWeight(NamedTuple):
    """A tensor of weights N(loc, scale) and the numbers of its prior, see BF.normal_rsample_kl."""

    loc: Tensor
    raw_scale: Tensor
    prior_loc: float
    prior_scale: float
    parametrization: str


class BayesianModule(nn.Module):
    """A layer whose parameters are distributions.

    A subclass implements :meth:`compute_kl`. If it names its weights in :meth:`normal_weights`, its
    forward uses :attr:`drawn` where that is not None.
    """

    #: Samples of :meth:`normal_weights` inside :func:`one_draw`.
    drawn: tuple[Tensor, ...] | None = None
    # Neither is ever copied, pickled or saved.
    _remembered: Remembered | None = None

    def compute_kl(self) -> Tensor:
        """The KL divergence from the posterior to the prior, of all weights, by itself."""
        raise NotImplementedError

    def normal_weights(self) -> Sequence[NormalWeight]:
        """The weights that :func:`one_draw` may draw; none if the layer has to do so itself."""
        return ()

    def kl(self) -> Tensor:
        """The sum of the KL divergences of all weights from the prior, in nats.

        That of the parameters as they are now. Its gradient is worked out along with that of the
        last forward pass, if that is possible.
        """
        return _divergence((self,))

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_remembered", "drawn"):
            state.pop(name, None)
        return state


class Remembered:
    """The place of some layers' divergence in the graph of a forward pass.

    There one kernel works out the gradients of samples and divergence. Not its value: parameters
    may change in ways that nothing tells of (fused optimisers, kernels of others, ``.data``), so
    that it is computed from them when it is asked for. What the gradient is made of is looked at
    then: the tensors, whether they need one, their versions and addresses, and the numbers of the
    prior.

    Each layer keeps it until it is asked for, or until a backward pass through the layer, as the
    graph is spent then.

    Args:
        parts: of the graph, each with the weights whose divergence it is; without values.
        layers: whose weights these are, all of them.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Tensor, Sequence[NormalWeight]]],
        layers: Sequence[BayesianModule],
    ) -> None:
        self._parts = parts
        self._layers = [weakref.ref(layer) for layer in layers]
        self._state = _state(w for _, weights in parts for w in weights)
        for layer in layers:
            _set(layer, "_remembered", self)
        for part, _ in parts:
            if part.grad_fn is not None:
                part.grad_fn.register_hook(functools.partial(_forget, self._layers))

    def take(self) -> list[BayesianModule]:
        """The layers that this is the divergence of, which forget it; none if it is out of date."""
        layers = [layer for layer in (r() for r in self._layers) if layer is not None]
        known = all(layer._remembered is self for layer in layers)
        _forget(self._layers)
        if not (known and torch.is_grad_enabled()):
            return []
        now = _state(w for layer in layers for w in layer.normal_weights())
        return layers if now == self._state else []

    def total(self) -> Tensor:
        """The divergence of the weights as they are now, in its place in the graph."""
        for part, weights in self._parts:
            loc, raw_scale, prior_loc, prior_scale, parametrization = zip(*weights, strict=True)
            write_kl(part, loc, raw_scale, prior_loc, prior_scale, parametrization[0])
        return _sum([part for part, _ in self._parts])


def _state(weights: Iterable[NormalWeight]) -> dict[Any, int]:
    """What must not change between a forward pass and the use of its graph, in any order."""
    found: dict[Any, int] = {}
    for loc, raw_scale, *numbers in weights:
        key = (
            *(id(loc), loc.requires_grad, loc._version, loc.data_ptr()),
            *(id(raw_scale), raw_scale.requires_grad, raw_scale._version, raw_scale.data_ptr()),
            *numbers,
        )
        found[key] = found.get(key, 0) + 1
    return found


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _set(layer: BayesianModule, name: str, value: Any) -> None:
    """Past nn.Module, which takes microseconds to see whether it is a parameter or a module."""
    object.__setattr__(layer, name, value)


def _forget(layers: Sequence[weakref.ref[BayesianModule]], *_: Any) -> None:
    for layer in (r() for r in layers):
        if layer is not None:
            _set(layer, "_remembered", None)


def _divergence(layers: Sequence[BayesianModule]) -> Tensor:
    """The sum of the divergences of some layers, of which a forward pass may have computed some."""
    left, parts = dict.fromkeys(layers), []
    while left:
        layer = next(iter(left))
        # What watches the computation must see all of it.
        remembered = layer._remembered if runs_eagerly(()) else None
        together = [] if remembered is None else remembered.take()
        if remembered is not None and together and all(other in left for other in together):
            parts.append(remembered.total())
        else:
            parts.append(layer.compute_kl())
            together = [layer]
        for other in together:
            del left[other]
    return _sum(parts)


@contextlib.contextmanager
def one_draw(model: nn.Module, *, seed: int | Tensor | None = None) -> Iterator[None]:
    """One draw of the weights of ``model``, for every forward pass inside the ``with`` block.

    Such passes evaluate one function that the posterior has drawn, on as many batches as are
    wanted: add up their losses before one backward pass, as they share the graph of the draw. All
    weights are drawn together: on a CUDA device by one kernel, whatever the number of layers
    (:func:`bslfast.functional.normal_rsample_kl_many`). Layers that have a draw already, of an
    enclosing ``with``, keep it; those that do not name their weights in
    :meth:`BayesianModule.normal_weights`, and calls of a layer with a seed, draw by themselves.

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
    drawn = draw([layer for layer in _bayesian_layers(model) if layer.drawn is None], seed)
    try:
        for layer, samples in drawn.items():
            _set(layer, "drawn", samples)
        yield
    finally:
        for layer in drawn:
            _set(layer, "drawn", None)


def draw(
    layers: Sequence[BayesianModule], seed: int | Tensor | None = None
) -> dict[BayesianModule, tuple[Tensor, ...]]:
    """Samples of the weights of all layers that name them, drawn together.

    The layers remember the place of their divergence in the graph. Weights of one parametrization,
    dtype and device are one call; their noise streams are numbered on from call to call.
    """
    every = [(layer, layer.normal_weights()) for layer in layers]
    named = [(layer, weights) for layer, weights in every if weights]
    places: dict[Any, list[tuple[int, NormalWeight]]] = {}
    for place, weight in enumerate(w for _, weights in named for w in weights):
        kind = (weight.loc.device, weight.loc.dtype, weight.parametrization)
        places.setdefault(kind, []).append((place, weight))
    samples: dict[int, Tensor] = {}
    parts: list[tuple[Tensor, Sequence[NormalWeight]]] = []
    for (*_, parametrization), found in places.items():
        loc, raw_scale, prior_loc, prior_scale, _ = zip(*(w for _, w in found), strict=True)
        drawn, kl = draw_many(
            loc,
            raw_scale,
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            parametrization=parametrization,
            seed=seed,
            stream=len(samples),
        )
        samples.update((place, one) for (place, _), one in zip(found, drawn, strict=True))
        if kl is not None:
            parts.append((kl, [w for _, w in found]))
    if len(parts) == len(places) and any(kl.requires_grad for kl, _ in parts):
        Remembered(parts, [layer for layer, _ in named])
    result, begin = {}, 0
    for layer, weights in named:
        result[layer] = tuple(samples[begin + i] for i in range(len(weights)))
        begin += len(weights)
    return result


def kl(model: nn.Module) -> Tensor:
    """The KL divergence from posterior to prior of all Bayesian layers of ``model``, in nats.

    A sum, never an average: :func:`bslfast.negative_elbo` scales it. A layer used in several places
    counts once. Always that of the parameters as they are now, differentiable.

    Args:
        model: a module that is, or holds, Bayesian layers.

    Returns:
        A scalar tensor.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: it has no Bayesian layer.

    >>> import torch, bslfast
    >>> model = torch.nn.Sequential(bslfast.nn.BayesLinear(3, 4), bslfast.nn.BayesLinear(4, 1))
    >>> bool(bslfast.nn.kl(model) > 0)
    True
    """
    return _divergence(_bayesian_layers(model))


def _bayesian_layers(model: Any) -> list[BayesianModule]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [m for m in model.modules() if isinstance(m, BayesianModule)]
    if not layers:
        raise ValueError(
            f"model: expected a module with Bayesian layers, got a {type(model).__name__} without"
        )
    return layers
