"""What Bayesian layers have in common, and the KL divergence of a model."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bslfast.functional._op import runs_eagerly
from bslfast.nn.weight import Part, Weight


class BayesianModule(nn.Module):
    """A layer whose weights are distributions.

    A subclass names its weights in :meth:`weights`, and its forward uses :attr:`drawn` where that
    is not None. One that cannot name them implements :meth:`compute_kl`.
    :class:`bslfast.nn.BayesianLayer` makes such a layer from one of torch.
    """

    #: Samples of :meth:`weights` inside :func:`bslfast.nn.one_draw`.
    drawn: tuple[Tensor, ...] | None = None
    #: The dimension of the features of input and output, counted from the end, if :meth:`function`
    #: is linear in its one input, and in its weights, of which no output has one twice; else None.
    feature_dim: int | None = None
    # Neither is ever copied, pickled or saved.
    _remembered: Remembered | None = None

    def weights(self) -> Sequence[Weight]:
        """The weights that an estimator may draw; none if the layer has to do so itself."""
        return ()

    def function(self, drawn: tuple[Tensor, ...], *inputs: Any, **options: Any) -> Tensor:
        """The outputs of the layer with these tensors as its :meth:`weights`."""
        raise NotImplementedError

    def fused(
        self, weights: Sequence[Weight], *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> tuple[Tensor, Part | None] | None:
        """Outputs for one draw, and the divergence, if the layer has a kernel for both of them."""
        return None

    def compute_kl(self) -> Tensor:
        """The KL divergence from the posterior to the prior, of all weights, by itself."""
        weights = self.weights()
        if not weights:
            raise NotImplementedError(f"{type(self).__name__}: expected weights() or compute_kl()")
        return _sum([weight.kl() for weight in weights])

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
    then: the tensors, whether they need one, their versions and addresses, and which posterior and
    prior each has.

    Each layer keeps it until it is asked for, or until a backward pass through the layer, as the
    graph is spent then.

    Args:
        parts: all that the divergence of the layers consists of.
        layers: whose weights these are, all of them.
    """

    def __init__(self, parts: Sequence[Part], layers: Sequence[BayesianModule]) -> None:
        self._parts = parts
        # Each once, though a pass may have used it twice.
        self._layers = [weakref.ref(layer) for layer in dict.fromkeys(layers)]
        self._state = _state(self.weights())
        for layer in layers:
            set_past_module(layer, "_remembered", self)
        for part in parts:
            if part.place is not None and part.place.grad_fn is not None:
                part.place.grad_fn.register_hook(functools.partial(_forget, self._layers))

    def weights(self) -> list[Weight]:
        """Those whose divergence it is, each once."""
        return [weight for part in self._parts for weight in part.weights]

    def take(self) -> list[BayesianModule]:
        """Make the layers forget this, and return them; none if it is out of date."""
        layers = [layer for layer in (r() for r in self._layers) if layer is not None]
        known = all(layer._remembered is self for layer in layers)
        _forget(self._layers)
        if not (known and torch.is_grad_enabled()):
            return []
        now = _state(w for layer in layers for w in layer.weights())
        return layers if now == self._state else []

    def total(self) -> Tensor:
        """The divergence of the weights as they are now, in its place in the graph."""
        return _sum([part.value() for part in self._parts])


def remember(parts: Sequence[Part | None], layers: Sequence[BayesianModule]) -> None:
    """Let layers remember their divergence if it has a place in the graph of what was drawn."""
    known, graph = [], False
    for part in parts:
        if part is None:
            return
        known.append(part)
        graph = graph or (part.place is not None and part.place.requires_grad)
    if graph:
        Remembered(known, layers)


def _state(weights: Iterable[Weight]) -> set[Any]:
    """What must not change between a forward pass and the use of its graph, in any order."""
    found: set[Any] = set()
    for posterior, prior, parameters in weights:
        # Both are values, which nobody changes.
        key: tuple[Any, ...] = (id(posterior), id(prior))
        for t in parameters:
            key += (id(t), t.requires_grad, t._version, t.data_ptr())
        found.add(key)
    return found


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def set_past_module(layer: BayesianModule, name: str, value: Any) -> None:
    """Past nn.Module, which takes microseconds to see whether it is a parameter or a module."""
    object.__setattr__(layer, name, value)


def _forget(layers: Sequence[weakref.ref[BayesianModule]], *_: Any) -> None:
    for layer in (r() for r in layers):
        if layer is not None:
            set_past_module(layer, "_remembered", None)


def _divergence(layers: Sequence[BayesianModule]) -> Tensor:
    """The sum of the divergences of some layers, of which a forward pass may have computed some."""
    left, parts = dict.fromkeys(layers), []
    seen: set[tuple[Tensor, ...]] = set()
    while left:
        layer = next(iter(left))
        # What watches the computation must see all of it.
        remembered = layer._remembered if runs_eagerly(()) else None
        together = [] if remembered is None else remembered.take()
        if remembered is None or not together or not all(other in left for other in together):
            remembered, together = None, [layer]
        weights = layer.weights() if remembered is None else remembered.weights()
        own = {weight.identity: weight for weight in weights}
        if any(key in seen for key in own):  # layers may share weights, each of which counts once
            parts += [weight.kl() for key, weight in own.items() if key not in seen]
        else:
            parts.append(layer.compute_kl() if remembered is None else remembered.total())
        seen.update(own)
        for other in together:
            del left[other]
    return _sum(parts)


def kl(model: nn.Module) -> Tensor:
    """The KL divergence from posterior to prior of all Bayesian layers of ``model``, in nats.

    A sum, never an average: :func:`bslfast.negative_elbo` scales it. A layer used in several
    places, or a weight that several layers share, counts once. Always that of the parameters as
    they are now, differentiable. Where a posterior has no closed form of it, an estimate: from the
    sample of the last forward pass, or from one of its own where that pass cannot be used.

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
    return _divergence(bayesian_layers(model))


def share_weights(layers: Iterable[BayesianModule]) -> bool:
    """Whether a weight of one layer is also that of another."""
    weights = [weight.identity for layer in dict.fromkeys(layers) for weight in layer.weights()]
    return len(set(weights)) < len(weights)


def bayesian_layers(model: Any) -> list[BayesianModule]:
    """The Bayesian layers of a model, each once. Raises what :func:`kl` raises."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [m for m in model.modules() if isinstance(m, BayesianModule)]
    if not layers:
        raise ValueError(
            f"model: expected a module with Bayesian layers, got a {type(model).__name__} without"
        )
    return layers
