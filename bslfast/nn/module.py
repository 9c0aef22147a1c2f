"""What Bayesian layers have in common, and the KL divergence of a model."""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bslfast._native import _cpu
from bslfast._torch import MODULES, version_of
from bslfast.functional._op import is_traced, unwatched
from bslfast.nn.weight import Part, Weight

#: (a dictionary, a name in it, the object there).
Entry = tuple[dict[str, Any], str, Any]
_NEEDS_GRADIENT = operator.attrgetter("requires_grad")


class BayesianModule(nn.Module):
    """A layer whose weights are distributions.

    A subclass names its weights in :meth:`weights`, and its forward uses :attr:`drawn` where that
    is not None. One that cannot name them implements :meth:`compute_kl`.
    :class:`bslfast.nn.BayesianLayer` makes such a layer from one of torch.
    """

    #: Samples of :meth:`weights` inside :func:`bslfast.nn.one_draw`.
    drawn: tuple[Tensor, ...] | None = None
    #: The dimension of features in input and output, counted from the end. None if
    #: :meth:`function` is not linear in its one input and in its weights, or if an output takes a
    #: weight twice.
    feature_dim: int | None = None
    # These are never copied, pickled or saved. `_together` is kept by the first of the layers that
    # are drawn in one call.
    _remembered: Remembered | None = None
    _together: Any = None

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

    def made_of(self) -> tuple[list[Entry], list[dict[str, Any]]] | None:
        """What :meth:`weights` are made of: entries of dictionaries, and some that must not grow.

        While the entries are the same objects, so are the weights. None if that cannot be said.
        """
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
        for name in ("_remembered", "_together", "drawn"):
            state.pop(name, None)
        return state


class Watch:
    """Looks whether layers have the same weights as before, in less time than to find them.

    Args:
        layers: that say what their weights are made of.
    """

    def __init__(self, layers: Sequence[BayesianModule]) -> None:
        self._layers = list(map(weakref.ref, layers))
        found = [layer.made_of() or ([], []) for layer in layers]
        entries = [entry for its, _ in found for entry in its]
        self._dicts = [own for own, _, _ in entries]
        self._names = [name for _, name, _ in entries]
        self._values = [value for _, _, value in entries]
        self._whole = [whole for _, its in found for whole in its]
        self._lengths = list(map(len, self._whole))
        self.weights = [weight for layer in layers for weight in layer.weights()]
        self.tensors = tuple([t for weight in self.weights for t in weight.parameters])

    def is_of(self, layers: Sequence[BayesianModule]) -> bool:
        """Whether it looks at just these layers, in this order."""
        return [layer() for layer in self._layers] == [*layers]

    def holds(self) -> bool:
        """Whether posteriors, priors and tensors of the weights are the same objects."""
        return _cpu.have_entries(self._dicts, self._names, self._values) and _cpu.have_sizes(
            self._whole, self._lengths
        )

    def state(self) -> list[Any]:
        """What else must not change between a forward pass and the use of its graph."""
        found: list[Any] = [*map(_NEEDS_GRADIENT, self.tensors), *map(version_of, self.tensors)]
        found += map(Tensor.data_ptr, self.tensors)
        return found


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
        watch: of these layers, if there is one.
    """

    def __init__(
        self, parts: Sequence[Part], layers: Sequence[BayesianModule], watch: Watch | None = None
    ) -> None:
        self._parts, self._watch = parts, watch
        # Each once, though a pass may have used it twice.
        self._layers = [weakref.ref(layer) for layer in dict.fromkeys(layers)]
        self._state: Any = _state(self.weights()) if watch is None else watch.state()
        for layer in layers:
            set_past_module(layer, "_remembered", self)
        forget = functools.partial(_forget, self._layers)
        self._nodes: list[Any] = []
        for part in parts:
            node: Any = None if part.place is None else part.place.grad_fn
            if node is not None and not hasattr(node, "when_spent"):
                node.register_hook(forget)
            elif node is not None:  # in a fourth of the time
                node.when_spent = forget
                self._nodes.append(node)

    def weights(self) -> list[Weight]:
        """Those whose divergence it is, each once."""
        return [weight for part in self._parts for weight in part.weights]

    def is_of(self, layers: Iterable[BayesianModule]) -> bool:
        """Whether it is that of just these layers, in this order."""
        return [layer() for layer in self._layers] == list(layers)

    def take(self) -> list[BayesianModule]:
        """Make the layers forget this, and return them; none if it is out of date."""
        layers = [layer for layer in (r() for r in self._layers) if layer is not None]
        known = all(layer._remembered is self for layer in layers)
        _forget(self._layers)
        for node in self._nodes:
            node.when_spent = None
        if not (known and torch.is_grad_enabled()):
            return []
        if self._watch is not None:
            same = self._watch.holds() and self._watch.state() == self._state
        else:
            same = _state(w for layer in layers for w in layer.weights()) == self._state
        return layers if same else []

    def total(self) -> Tensor:
        """The divergence of the weights as they are now, in its place in the graph."""
        return _sum([part.value() for part in self._parts])


def remember(
    parts: Sequence[Part | None],
    layers: Sequence[BayesianModule],
    watch: Watch | None = None,
) -> None:
    """Let layers remember their divergence if it has a place in the graph of what was drawn."""
    known, graph = [], False
    for part in parts:
        if part is None:
            return
        known.append(part)
        graph = graph or (part.place is not None and part.place.requires_grad)
    if graph:
        Remembered(known, layers, watch)


def _state(weights: Iterable[Weight]) -> set[Any]:
    """What must not change between a forward pass and the use of its graph, in any order."""
    found: set[Any] = set()
    for posterior, prior, parameters in weights:
        # Both are values, which nobody changes.
        key: tuple[Any, ...] = (id(posterior), id(prior))
        for t in parameters:
            key += (id(t), t.requires_grad, version_of(t), t.data_ptr())
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
    remembered = next(iter(left))._remembered
    if remembered is not None and remembered.is_of(left) and unwatched() and remembered.take():
        return remembered.total()
    seen: set[tuple[Tensor, ...]] = set()
    while left:
        layer = next(iter(left))
        # What watches the computation must see all of it.
        remembered = layer._remembered if unwatched() else None
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
    sample of the last forward pass, or the mean of those of the samples of
    :func:`bslfast.nn.sample_outputs`, or from one of its own where these cannot be used.

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


def _modules_of(model: nn.Module) -> Iterable[nn.Module]:
    """``model.modules()`` in a fourth of the time, which a small model's step would notice."""
    if is_traced():
        return model.modules()
    found: dict[nn.Module, None] = {}
    left: list[nn.Module | None] = [model]
    while left:
        module = left.pop()
        if module is not None and module not in found:
            found[module] = None
            left.extend(reversed(module.__dict__[MODULES].values()))
    return found


def bayesian_layers(model: Any) -> list[BayesianModule]:
    """The Bayesian layers of a model, each once. Raises what :func:`kl` raises."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [m for m in _modules_of(model) if isinstance(m, BayesianModule)]
    if not layers:
        raise ValueError(
            f"model: expected a module with Bayesian layers, got a {type(model).__name__} without"
        )
    return layers
