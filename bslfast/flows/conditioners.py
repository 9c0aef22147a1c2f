"""Networks that choose the parameters of maps: from other features, and from a context."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks
from bslfast._torch import global_hooks, own_buffers, own_hooks
from bslfast.flows.maps import Map, check_map
from bslfast.flows.transform import (
    ERRORS,
    check_inputs,
    check_like,
    check_order,
    explain_failure,
    first_number,
    has_values,
)
from bslfast.nn.convert import LAYERS
from bslfast.nn.layer import BayesianLayer
from bslfast.nn.linear import BayesLinear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
}


class _Layer(nn.Linear):
    """A dense layer, with a start of its own.

    Args:
        inputs, outputs: sizes.
        every: number of all inputs if this layer sees some of them, and another the rest: the size
            of the first weights follows it.
        start: what the outputs are at the start, whatever comes in; the rest repeat them. Without
            a bias they are 0. None for torch's own start.
        bias: whether there is a bias.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        every: int | None = None,
        start: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        self.every = every
        self.start = None if start is None else tuple(start)
        super().__init__(inputs, outputs, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()  # in any case: a seed gives other layers what it always has
        if self.start is not None:
            self.weight.zero_()
            if self.bias is not None:
                _repeat(self.start, self.bias)
        elif self.every is not None:
            for parameter in self.parameters():
                parameter.mul_(math.sqrt(self.in_features / self.every))


class _MaskedLayer(_Layer):
    """A dense layer in which each output sees the inputs of degrees up to its own.

    Args:
        seen, sees: the degrees of the inputs, and those up to which the outputs see.
        options: as for a dense layer.
    """

    mask: Tensor

    def __init__(self, seen: Sequence[int], sees: Sequence[int], **options: Any) -> None:
        self.seen, self.sees = tuple(seen), tuple(sees)
        super().__init__(len(seen), len(sees), **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "mask" not in own_buffers(self):  # while it is made
            self.register_buffer("mask", torch.empty_like(self.weight, dtype=torch.bool))
        self.mask.copy_(self.wanted_mask())

    def wanted_mask(self) -> Tensor:
        """The mask that the degrees say, on the CPU."""
        seen, sees = (torch.tensor(d, device="cpu") for d in (self.seen, self.sees))
        return seen <= sees.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, metadata: Any, strict: bool, *lists: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *lists)
        given = state_dict.get(prefix + "mask")
        errors: list[str] = lists[-1]
        # A mask may hide more. With one that hides less, the inverse would be another map's.
        if (
            isinstance(given, Tensor)
            and has_values(given)
            and given.shape == self.mask.shape
            and bool((given.detach().cpu().bool() > self.wanted_mask()).any())
        ):
            errors.append(
                f"{prefix}mask: expected one that hides all that the degrees of the layer do, got "
                "another one, as of a MADE with another order"
            )


class _BayesLayer(BayesLinear, _Layer):
    """A dense layer whose weights are drawn."""


class _BayesMaskedLayer(BayesianLayer, _MaskedLayer):
    """A masked layer whose weights are drawn, those that the mask hides, too."""


LAYERS[_Layer] = _BayesLayer
LAYERS[_MaskedLayer] = _BayesMaskedLayer


def _repeat(values: Sequence[float], to: Tensor) -> None:
    to.view(-1, len(values)).copy_(torch.tensor(values, device="cpu", dtype=to.dtype))


def _check_start(start: Any, outputs: int) -> tuple[float, ...]:
    if not isinstance(start, (tuple, list)):
        raise TypeError(f"start: expected a tuple of numbers, got {_checks.describe(start)}")
    values = tuple(_checks.number("start", value) for value in start)
    if not values or outputs % len(values):
        raise ValueError(
            f"start: expected numbers of which the {outputs} outputs are repetitions, got "
            f"{len(values)}"
        )
    return values


class Conditioner(nn.Module):
    """A dense network, constant at the start.

    The context enters the first layer by weights of its own, so that one context may serve many
    rows and is multiplied once. Without inputs at all, the outputs are learned constants.

    After the first layer and those of ``hidden`` come the residual blocks, each
    ``h + W2 a(W1 a(h) + b1) + b2`` with activation a, and then the layer of the outputs: of h, or
    of a(h) if there are no blocks.

    Args:
        inputs: size of the vectors to look at; may be 0.
        outputs: number of outputs.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers; may be empty.
        activation: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"silu"`` or ``"gelu"``.
        residual: number of residual blocks, as wide as the last hidden layer.
        start: the first outputs at the start, which the rest repeat: for the maps of a coupling
            their :attr:`Map.start`.
        device, dtype: of the parameters.

    Shape: x [..., inputs], context [..., context] -> [..., outputs]; [outputs] without inputs.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks" (2016,
    arXiv:1603.05027); in flows: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows"
    (2019, arXiv:1906.04032), appendix B.

    >>> import torch
    >>> from bslfast.flows import Conditioner
    >>> network = Conditioner(3, 4, hidden=(16,), activation="silu", residual=2, start=(0.0, 1.0))
    >>> network(torch.randn(5, 3))[0]
    tensor([0., 1., 0., 1.], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        start: Sequence[float] = (0.0,),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.inputs = _checks.integer("inputs", inputs, 0)
        self.outputs = _checks.integer("outputs", outputs)
        self.context = _checks.integer("context", context, 0)
        hidden = _checks.widths("hidden", hidden)
        self.activation = _checks.choice("activation", activation, tuple(ACTIVATIONS))
        self.residual = _checks.integer("residual", residual, 0)
        if self.residual and not hidden:
            raise ValueError(
                "residual: expected 0 for a network without hidden layers, whose width the blocks "
                f"would have, got {residual}"
            )
        self.start = _check_start(start, self.outputs)
        options = _checks.factory(device, dtype)
        self.layers = nn.ModuleList()
        self.context_layer: nn.Linear | None = None
        self.constant: nn.Parameter | None = None
        if not self.inputs + self.context:
            self.constant = nn.Parameter(torch.empty(outputs, **options))
            self.reset_parameters()
            return
        blocks = hidden[-1:] * (2 * residual)
        widths = (inputs or context, *hidden, *blocks, outputs)
        last = len(widths) - 2
        for index, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            first = {"every": inputs + context} if index == 0 else {}
            more: dict[str, Any] = {"start": self.start} if index == last else first
            self.layers.append(self._layer(index, n_in, n_out, **more, **options))
            if index == 0 and inputs and context:
                self.context_layer = _Layer(context, n_out, bias=False, **more, **options)

    def _layer(self, index: int, n_in: int, n_out: int, **options: Any) -> nn.Linear:
        return _Layer(n_in, n_out, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set what is no layer's to its start."""
        if self.constant is not None:
            _repeat(self.start, self.constant)

    @property
    def output_bias(self) -> nn.Parameter:
        """The biases of the last layer, [outputs]: what the outputs are at the start."""
        if self.constant is not None:
            return self.constant
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last.bias

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the maps.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        if (context is None) != (not self.context):
            explain_failure(self, "x", x, context, self.inputs)
        if self.constant is not None:
            return self.constant
        try:
            return self._from_layers(x if self.inputs else context, context)
        except ERRORS:
            explain_failure(self, "x", x, context, self.inputs)
            raise

    def _from_layers(self, inputs: Any, context: Tensor | None) -> Tensor:
        """What the layers make of the inputs, or of the context if there are no inputs."""
        first, *rest = self.layers
        h: Tensor = first(inputs)
        if self.context_layer is not None:
            h = h + self.context_layer(context)
        if self.residual:
            return self._through_blocks(h, rest, context)
        relu = self.activation == "relu"
        for layer in rest:
            # In place: a linear layer does not need its own output for its gradient.
            h = layer(h.relu_() if relu else ACTIVATIONS[self.activation](h))
        return h

    def context_layers(self) -> dict[int, nn.Module]:
        """What makes of the context what is added to the outputs of layers, by their index.

        A subclass may have more of them, for the first layers of residual blocks.
        """
        return {} if self.context_layer is None else {0: self.context_layer}

    def _through_blocks(self, h: Tensor, layers: list[nn.Module], context: Tensor | None) -> Tensor:
        """What comes from the first layer's outputs, by the others, with residual blocks."""
        activation, of_context = ACTIVATIONS[self.activation], self.context_layers()
        first = len(layers) - 2 * self.residual
        plain, blocks = layers[: first - 1], layers[first - 1 : -1]
        for layer in plain:
            h = layer(activation(h))
        for index, (inner, outer) in enumerate(zip(blocks[::2], blocks[1::2], strict=True)):
            found = inner(activation(h))
            if first + 2 * index in of_context:
                found = found + of_context[first + 2 * index](context)
            h = h + outer(activation(found))
        outputs: Tensor = layers[-1](h)
        return outputs

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, context={self.context}, "
            f"activation={self.activation!r}, residual={self.residual}"
        )


class _Convolution(nn.Conv2d):
    """A convolution that keeps height and width, with a start of its own if it is the last one.

    Args:
        inputs, outputs: channels.
        size: of the square that each output sees, odd.
        start: what the outputs are at the start, whatever comes in; the rest repeat them. None for
            torch's own start.
        device, dtype: of the parameters.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, start: Sequence[float] | None, **options: Any
    ) -> None:
        self.start = None if start is None else tuple(start)
        super().__init__(inputs, outputs, size, padding=size // 2, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.start is not None and self.bias is not None:
            self.weight.zero_()
            _repeat(self.start, self.bias)


class ConvConditioner(nn.Module):
    """Convolutions with relu, constant at the start: parameters for each pixel from those around.

    For couplings of the channels of images, ``PerPixel(Coupling(map, mask, network))``: hence the
    channels come last. The first and the last layer see 3 x 3 pixels, the others one.

    Args:
        inputs: number of channels to look at, >= 1.
        outputs: number of outputs for each pixel.
        context: size of the context vectors; 0 for none. Weights of their own take them into the
            first layer, for all pixels alike.
        hidden: channels of the hidden layers, at least one.
        start: the first outputs at the start, which the rest repeat: :attr:`Map.start`.
        device, dtype: of the parameters.

    Shape: x [..., height, width, inputs], context [..., height or 1, width or 1, context] ->
    [..., height, width, outputs].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039), section 4.

    >>> import torch
    >>> from bslfast.flows import ConvConditioner
    >>> ConvConditioner(2, 6, hidden=(8, 8))(torch.randn(5, 4, 4, 2)).shape
    torch.Size([5, 4, 4, 6])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        start: Sequence[float] = (0.0,),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        options = _checks.factory(device, dtype)
        self.inputs = _checks.integer("inputs", inputs)
        self.outputs = _checks.integer("outputs", outputs)
        widths = (self.inputs, *_checks.widths("hidden", hidden, at_least=1), self.outputs)
        _check_start(start, self.outputs)
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            _Convolution(
                n_in,
                n_out,
                3 if index in (0, last) else 1,
                start=start if index == last else None,
                **options,
            )
            for index, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        )
        self.context = _checks.integer("context", context, 0)
        self.context_layer: nn.Linear | None = None
        if self.context:
            self.context_layer = _Layer(self.context, widths[1], bias=False, **options)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the maps of each pixel.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        if (context is None) != (not self.context):
            self._check_call(x, context)
        try:
            if context is not None:
                x = check_inputs(self, "x", x, context, features=self.inputs)
            return self._from_layers(x, context)
        except ERRORS:
            self._check_call(x, context)
            raise

    def _check_call(self, x: Any, context: Any) -> None:
        """Raise if x or the context is wrong."""
        what = f"[..., height, width, {self.inputs}]"
        _checks.operand("x", _checks.floating("x", x, shape=what))
        if x.dim() < 3 or x.shape[-1] != self.inputs:
            raise ValueError(f"x: expected a tensor of shape {what}, got {_checks.describe(x)}")
        like = first_number(self)
        if like is not None:
            check_like(self, "x", x, like)
        explain_failure(self, "x", x, context, self.inputs)

    def _from_layers(self, x: Tensor, context: Tensor | None) -> Tensor:
        count = math.prod(x.shape[:-3])
        images = x.movedim(-1, -3)
        h = images.reshape(count, *images.shape[-3:])
        for index, layer in enumerate(self.layers):
            h = layer(h if index == 0 else h.relu_())
            if index == 0 and self.context_layer is not None:
                added: Tensor = self.context_layer(context)
                added = added[(None,) * max(0, 3 - added.dim())]
                added = added.expand((*x.shape[:-3], *added.shape[-3:])).movedim(-1, -3)
                h = h + added.reshape(count, *added.shape[-3:])
        return h.movedim(-3, -1).reshape(*x.shape[:-1], self.outputs)

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, context={self.context}"


class MADE(Conditioner):
    """A masked dense network: each feature's parameters depend on the features before it alone.

    A hidden unit of degree k sees, by any path, the first k features in ``order``, and the
    parameters of the feature at place k (from 0 on) see the hidden units of degrees up to k. The
    degrees of a layer rise, spread evenly from 1 to features - 1, or from 0 if there is a context,
    so that it reaches the first feature too. A layer with fewer units than degrees leaves some out,
    and with them some of what later features could depend on.

    Otherwise a :class:`Conditioner`, with the same start, activations and residual blocks.

    Args:
        features: size of the vectors, >= 1. A single one has nothing before it but the context.
        map: of each feature, which the outputs are parameters for.
        context: size of the context vectors; 0 for none. Every output may depend on it.
        hidden: widths of the hidden layers; may be empty.
        order: the features, from the one that depends on no other to the one that depends on all;
            each of 0 ... features - 1 once. None for their own order.
        activation, residual: as in :class:`Conditioner`.
        device, dtype: of the parameters.

    Shape: x [..., features], context [..., context] -> [..., features * map.size], in the order
    that ``map`` takes them.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Germain, Gregor, Murray and Larochelle, "MADE: masked autoencoder for distribution
    estimation" (2015, arXiv:1502.03509); residual: Durkan and Nash, "Autoregressive energy
    machines" (2019, arXiv:1904.05626).

    >>> import torch
    >>> from bslfast.flows import MADE, Additive
    >>> network = MADE(3, Additive(), order=[2, 0, 1])
    >>> _ = torch.nn.init.normal_(network.layers[-1].weight)
    >>> jacobian = torch.autograd.functional.jacobian(network, torch.randn(3))
    >>> (jacobian != 0).int()
    tensor([[0, 0, 1],
            [1, 0, 1],
            [0, 0, 0]], dtype=torch.int32)
    """

    def __init__(
        self,
        features: int,
        map: Map,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        order: Sequence[int] | Tensor | None = None,
        activation: str = "relu",
        residual: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.features = _checks.integer("features", features)
        self.map = check_map("map", map)
        self.order = check_order("order", range(self.features) if order is None else order)
        if len(self.order) != self.features:
            raise ValueError(
                f"order: expected each of 0 to {self.features - 1} once, got {order!r}"
            )
        self._lowest = 0 if _checks.integer("context", context, 0) else 1
        place_of = {feature: place for place, feature in enumerate(self.order)}
        # The degree of each input, and the place of the feature of each output.
        self._degrees_in = [place_of[feature] + 1 for feature in range(self.features)]
        self._places = [place_of[owner] for owner in map.owners(self.features)]
        super().__init__(
            self.features if self.features > 1 else 0,
            self.features * map.size,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            start=map.start,
            device=device,
            dtype=dtype,
        )
        # How many outputs of each layer see less than so many features.
        self._ends = [
            [bisect.bisect_left(sees, place) for place in range(self.features + 1)]
            for sees in (sorted(getattr(layer, "sees", ())) for layer in self.layers)
        ]

    def _layer(self, index: int, n_in: int, n_out: int, **options: Any) -> nn.Linear:
        if self.features == 1:
            return super()._layer(index, n_in, n_out, **options)
        return _MaskedLayer(
            self._degrees_in if index == 0 else self._degrees(n_in),
            self._places if "start" in options else self._degrees(n_out),
            **options,
        )

    def _degrees(self, width: int) -> list[int]:
        """The degrees of the units of a hidden layer."""
        count = self.features - self._lowest
        if width >= count:
            return [self._lowest + unit * count // width for unit in range(width)]
        # Both ends are among them.
        return [self._lowest + round(u * (count - 1) / max(width - 1, 1)) for u in range(width)]

    def runs_in_order(self) -> bool:
        """Whether :meth:`in_order` computes what a call does.

        It reads the weights of the layers, whose hooks and own ways to compute it would pass by.
        """
        if not self.inputs or type(self).in_order is not MADE.in_order:
            return True
        parts: list[tuple[nn.Module, Any]] = [(self, MADE)]
        parts += [(layer, _MaskedLayer) for layer in self.layers]
        return all(
            type(part).forward is kind.forward
            and "forward" not in vars(part)
            and not any(own_hooks(part))
            for part, kind in parts
        ) and not any(global_hooks())

    def in_order(
        self, solve: Callable[[int, Tensor], Tensor], like: Tensor, context: Tensor | None = None
    ) -> None:
        """Call ``solve(feature, parameters)`` for one feature after the other, in their order.

        Hidden units are computed when all that they see is known. So each weight is used once: all
        features together cost what one call of the network does.

        Args:
            solve: returns the values [..., 1] of a feature, which parameters of later ones depend
                on; its parameters [..., map.size] are those of a single feature.
            like: [..., features], whose leading dimensions and dtype the values have.
            context: [..., context], or None.
        """
        if not self.inputs:
            solve(0, self(like[..., :0], context))
            return
        layers: list[Any] = list(self.layers)
        device = layers[0].weight.device
        # Features by their place in the order, as hidden units are by their degree.
        rows = torch.tensor(self._places, device="cpu").argsort(stable=True).to(device)
        weights = [layer.weight * layer.mask for layer in layers]  # which may hide more
        biases = [
            layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
            for layer in layers
        ]
        weights[0] = weights[0].index_select(1, torch.tensor(self.order, device=device))
        weights[-1], biases[-1] = (
            weights[-1].index_select(0, rows),
            biases[-1].index_select(0, rows),
        )
        terms = {index: layer(context) for index, layer in self.context_layers().items()}
        if terms and len(layers) == 1:
            terms[0] = terms[0].index_select(-1, rows)
        known = [like[..., :0] for _ in layers]  # inputs of each layer

        def learn(index: int, values: Tensor) -> None:
            known[index] = torch.cat((known[index], values), dim=-1)

        def outputs(index: int, place: int) -> Tensor:
            """What a layer makes of inputs of which the last ones have just become known."""
            new = slice(*self._ends[index][place : place + 2])
            inputs = known[index]
            found = F.linear(inputs, weights[index][new, : inputs.shape[-1]], biases[index][new])
            return found + terms[index][..., new] if index in terms else found

        activation = ACTIVATIONS[self.activation]
        last = len(layers) - 1
        blocks = last - 2 * self.residual
        for place, feature in enumerate(self.order):
            h = outputs(0, place)
            for index in range(1, blocks):
                learn(index, activation(h))
                h = outputs(index, place)
            for index in range(blocks, last, 2):
                learn(index, activation(h))
                learn(index + 1, activation(outputs(index, place)))
                h = h + outputs(index + 1, place)
            if last:
                learn(last, h if self.residual else activation(h))
                h = outputs(last, place)
            learn(0, solve(feature, h))

    def extra_repr(self) -> str:
        return f"features={self.features}, {super().extra_repr()}, map={self.map!r}"
