"""bslfast's dense networks from those of peers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast.flows.conditioners import ACTIVATIONS, MADE, Conditioner
from bslfast.flows.lowering import _activated, _conditioner, _layer, _look_at_network
from bslfast.flows.maps import Map
from bslfast.patch.registry import class_name, options, put
from bslfast.programs import Builder, Lanes, lowers

#: Activations by functions.
_FUNCTIONS: dict[Any, str] = {
    F.relu: "relu",
    torch.relu: "relu",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.silu: "silu",
    F.gelu: "gelu",
}
_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
}


class NoCounterpart(Exception):
    """Why a network is kept as it is."""


def activation_name(activation: Any) -> str:
    """What bslfast calls an activation; raises NoCounterpart for one that it has not."""
    name = _MODULES.get(type(activation))
    if name is None and not isinstance(activation, nn.Module):
        name = _FUNCTIONS.get(activation)
    if name is None or getattr(activation, "approximate", "none") != "none":
        raise NoCounterpart(f"the activation {activation}")
    return name


def one_activation(activations: Sequence[Any]) -> str:
    """The same of several, which have to be alike; of none, any."""
    names = {activation_name(activation) for activation in activations}
    if len(names) > 1:
        raise NoCounterpart(f"the activations {', '.join(sorted(names))}")
    return names.pop() if names else "relu"


class Constant(Conditioner):
    """Learned constants, whatever comes in.

    Args:
        sources, make: what they are made of, as of :func:`put`.
    """

    def __init__(self, *sources: Tensor, make: Callable[..., Tensor]) -> None:
        values = make(*(source.detach() for source in sources))
        super().__init__(0, values.numel(), device=values.device, dtype=values.dtype)
        assert self.constant is not None
        put(self.constant, *sources, make=make)


def side_by_side(*parts: Tensor) -> Tensor:
    """All in a row."""
    return torch.cat([part.flatten() for part in parts])


class PeerMADE(MADE):
    """A MADE in which the degrees of hidden units go round, and are sorted then.

    Args:
        first: the least degree of hidden units.
        block_terms: layers of the context, whose outputs are added to those of the first layers of
            the residual blocks; none where the context goes into the first layer alone.
        args, network: as of :class:`MADE`.
    """

    def __init__(
        self, *args: Any, first: int, block_terms: Sequence[nn.Module] = (), **network: Any
    ) -> None:
        self._first = first
        super().__init__(*args, **network)
        self.block_terms = nn.ModuleList(block_terms)

    def context_layers(self) -> dict[int, nn.Module]:
        """See :meth:`Conditioner.context_layers`."""
        found, first = super().context_layers(), len(self.layers) - 1 - 2 * self.residual
        return found | {first + 2 * i: term for i, term in enumerate(self.block_terms)}

    def _degrees(self, width: int) -> list[int]:
        count = self.features - self._first
        return sorted(self._first + unit % count for unit in range(width))


lowers(PeerMADE)(_conditioner)


class GatedConditioner(Conditioner):
    """A Conditioner with residual blocks whose outputs are gated by the context.

    A block is ``h + (W2 a(W1 a(h) + b1) + b2) * sigmoid(G c + g)``.

    Args:
        args, network: as of :class:`Conditioner`, with a context and residual blocks.
    """

    def __init__(self, *args: Any, **network: Any) -> None:
        super().__init__(*args, **network)
        last: Any = self.layers[-1]
        self.gates = nn.ModuleList(
            nn.Linear(self.context, last.in_features, **options(last)) for _ in range(self.residual)
        )

    def _blocks(self) -> Any:
        """The layers of each block."""
        inner = list(self.layers)[-2 * self.residual - 1 : -1]
        return zip(inner[::2], inner[1::2], self.gates, strict=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the maps."""
        activation = ACTIVATIONS[self.activation]
        assert self.context_layer is not None
        h: Tensor = self.layers[0](x) + self.context_layer(context)
        for inner, outer, gate in self._blocks():
            found = outer(activation(inner(activation(h))))
            h = h + found * torch.sigmoid(gate(context))
        outputs: Tensor = self.layers[-1](h)
        return outputs


@lowers(GatedConditioner)
def _gated(builder: Builder, network: GatedConditioner, lanes: Lanes) -> Lanes:
    _look_at_network(builder, network)
    builder.looked_at(network.gates)
    assert network.context_layer is not None
    h = _layer(builder, network.layers[0], lanes)
    h = _layer(builder, network.context_layer, builder.context, h)
    for inner, outer, gate in network._blocks():
        a = _layer(builder, inner, _activated(builder, network, h))
        found = _layer(builder, outer, _activated(builder, network, a))
        opened = _layer(builder, gate, builder.context)
        found = builder.step("gate", found + opened, len(found))
        h = builder.step("additive", h + found, len(h), options=[False])
    outputs: Lanes = _layer(builder, network.layers[-1], h)
    return outputs


#: What subclasses and parametrised layers compute is not known.
_DENSE = {
    "torch.nn.modules.linear.Linear",
    "nflows.transforms.made.MaskedLinear",
    "normflows.nets.made.MaskedLinear",
    "zuko.nn.Linear",
    "zuko.nn.MaskedLinear",
}
_BLOCKS = {
    f"{module}.{name}"
    for module, names in {
        "nflows.nn.nets.resnet": ("ResidualBlock",),
        "normflows.nets.resnet": ("ResidualBlock",),
        "nflows.transforms.made": ("MaskedResidualBlock", "MaskedFeedforwardBlock"),
        "normflows.nets.made": ("MaskedResidualBlock", "MaskedFeedforwardBlock"),
    }.items()
    for name in names
}


def _check_layers(layers: Sequence[nn.Module]) -> None:
    for layer in layers:
        if class_name(layer) not in _DENSE:
            raise NoCounterpart(f"a layer of the class {class_name(layer)}")
        if getattr(layer, "bias", None) is None:
            raise NoCounterpart("a layer without a bias")
    if len(set(layers)) < len(layers):
        raise NoCounterpart("a layer in two places")


def conditioner(
    layers: Sequence[Any],
    inputs: int,
    context: int,
    activation: str,
    *,
    residual: int = 0,
    gates: Sequence[nn.Linear] = (),
) -> Conditioner:
    """The network of these dense layers; the first one takes x, then the context.

    Args:
        gates: layers of the context that gate residual blocks, if they are gated.
        inputs, context, activation, residual: as of :class:`Conditioner`.

    Raises:
        NoCounterpart: if bslfast has none.
    """
    _check_layers([*layers, *gates])
    first, *_, last = layers
    found = (GatedConditioner if gates else Conditioner)(
        inputs,
        last.out_features,
        context=context,
        hidden=_hidden(layers, residual),
        activation=activation,
        residual=residual,
        **options(first),
    )
    _put_layers(found, layers, inputs, context)
    if isinstance(found, GatedConditioner):
        for own, gate in zip(found.gates, gates, strict=True):
            put(own.get_parameter("weight"), gate.weight)
            put(own.get_parameter("bias"), gate.bias)
    return found


def part_of(layers: Sequence[Any], inputs: Tensor, outputs: Tensor, activation: str) -> Conditioner:
    """The network of these dense layers that sees some inputs and makes some outputs.

    Args:
        inputs, outputs: which ones.

    Raises:
        NoCounterpart: if bslfast has none.
    """
    _check_layers(layers)
    found = Conditioner(
        len(inputs),
        len(outputs),
        hidden=_hidden(layers, 0),
        activation=activation,
        **options(layers[0]),
    )
    last = len(layers) - 1
    for index, (own, layer) in enumerate(zip(found.layers, layers, strict=True)):
        assert isinstance(own, nn.Linear)
        rows = outputs if index == last else slice(None)
        columns = inputs if index == 0 else slice(None)
        put(own.weight, layer.weight, make=_rows_and_columns(rows, columns))
        put(own.bias, layer.bias, make=operator.itemgetter(rows))
    return found


def _hidden(layers: Sequence[Any], residual: int) -> list[int]:
    return [layer.out_features for layer in layers[: len(layers) - 1 - 2 * residual]]


def _put_layers(
    found: Conditioner, layers: Sequence[Any], inputs: int, context: int, orders: Any = None
) -> None:
    """Copy weights. ``orders`` are those of the units before each layer and after the last one."""
    wide = found.inputs + context if found.inputs and context else None
    for index, (own, layer) in enumerate(zip(found.layers, layers, strict=True)):
        weight, bias = layer.weight, layer.bias
        if wide is not None and index == 0 and weight.shape[1] != wide and orders is None:
            raise NoCounterpart(f"a first layer of {weight.shape[1]} inputs")
        split = index == 0 and found.inputs
        rows: Any = slice(None) if orders is None else orders[index + 1]
        columns: Any = slice(inputs) if split else slice(None)
        if orders is not None:
            columns = orders[index]
        assert isinstance(own, nn.Linear)
        put(own.weight, weight, make=_rows_and_columns(rows, columns))
        put(own.bias, bias, make=operator.itemgetter(rows))
        if split and weight.shape[1] > inputs:
            assert found.context_layer is not None
            behind = slice(inputs, None)
            put(found.context_layer.weight, weight, make=_rows_and_columns(rows, behind))


def _rows_and_columns(rows: Any, columns: Any) -> Callable[[Tensor], Tensor]:
    return lambda weight: weight[rows][:, columns]


def made(
    layers: Sequence[Any],
    map: Map,
    order: Sequence[int],
    context: int,
    activation: str,
    degrees: Sequence[Tensor],
    *,
    residual: int = 0,
    context_term: nn.Linear | None = None,
    block_terms: Sequence[nn.Linear] = (),
) -> PeerMADE:
    """The masked network of these masked layers, which have a ``mask`` each.

    Args:
        layers: the first one takes x, and perhaps the context after it.
        degrees: of the hidden units of each layer: how many features they see.
        context_term: a layer of the context whose activation is added to the first layer.
        block_terms: layers of the context that are added inside of the residual blocks.
        map, order, context, activation, residual: as of :class:`MADE`.

    Raises:
        NoCounterpart: if bslfast has none.
    """
    terms = [*([] if context_term is None else [context_term]), *block_terms]
    _check_layers([*layers, *terms])
    features = len(order)
    if features < 2 or not degrees:
        raise NoCounterpart("a masked network of one feature or without hidden layers")
    joined = context > 0 and context_term is None
    found = PeerMADE(
        features,
        map,
        first=0 if joined else 1,
        context=context,
        order=order,
        hidden=_hidden(layers, residual),
        activation=activation,
        residual=residual,
        **options(layers[0]),
    )
    kept = torch.arange(features), torch.arange(layers[-1].out_features)
    orders = [kept[0], *(d.cpu().argsort(stable=True) for d in degrees), kept[1]]
    for index, (own, layer) in enumerate(zip(found.layers, layers, strict=True)):
        mask = layer.mask.bool().cpu()[orders[index + 1]]
        own_mask: Any = own.mask
        if not torch.equal(mask[:, orders[index]], own_mask.cpu()):
            raise NoCounterpart("masks of another kind")
        if joined and index == 0 and not bool(mask[:, features:].all()):
            raise NoCounterpart("masks of the context")
    _put_layers(found, layers, features, context if joined else 0, orders)
    if context_term is not None:
        kinds = {name: kind for kind, name in _MODULES.items()}
        added: Any = nn.Sequential(_reordered(context_term, orders[1]), kinds[activation]())
        found.context_layer = added
        first = len(layers) - 2 * residual
        found.block_terms.extend(
            _reordered(term, orders[first + 2 * i]) for i, term in enumerate(block_terms)
        )
    return found


def _reordered(layer: nn.Linear, order: Tensor) -> nn.Linear:
    """A copy of a layer with its outputs in another order."""
    found = nn.Linear(layer.in_features, layer.out_features, **options(layer))
    put(found.weight, layer.weight, make=operator.itemgetter(order))
    put(found.bias, layer.bias, make=operator.itemgetter(order))
    return found


def check_parts(network: Any) -> None:
    """Raise NoCounterpart for what bslfast's networks have not.

    Dropout that drops something, batch normalisation, blocks of unknown classes.
    """
    for module in network.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            raise NoCounterpart("dropout")
        if isinstance(module, nn.BatchNorm1d):
            raise NoCounterpart("batch normalisation")
    for block in network.blocks:
        if class_name(block) not in _BLOCKS:
            raise NoCounterpart(f"a block of the class {class_name(block)}")
