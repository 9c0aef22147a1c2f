"""Networks that choose the parameters of maps: from other features, and from a context."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks

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


def _repeat(values: Sequence[float], to: Tensor) -> None:
    to.view(-1, len(values)).copy_(torch.tensor(values, device="cpu", dtype=to.dtype))


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

    Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks" (2016); in flows:
    Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019), appendix B.

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
        if residual and not hidden:
            raise ValueError(
                "residual: expected 0 for a network without hidden layers, whose width the blocks "
                f"would have, got {residual}"
            )
        self.start = tuple(start)
        if not self.start or outputs % len(self.start):
            raise ValueError(
                f"start: expected numbers of which the {outputs} outputs are repetitions, got "
                f"{len(self.start)}"
            )
        options: dict[str, Any] = {"device": device, "dtype": dtype}
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
        """Return the parameters of the maps."""
        if self.constant is not None:
            return self.constant
        h: Tensor = x
        if not self.inputs:
            assert context is not None
            h = context
        first, *rest = self.layers
        h = first(h)
        if self.context_layer is not None:
            h = h + self.context_layer(context)
        blocks: list[nn.Module] = []
        if self.residual:
            *rest, last = rest
            rest, blocks = rest[: -2 * self.residual], rest[-2 * self.residual :]
        for layer in rest:
            h = layer(self._activated(h))
        for inner, outer in zip(blocks[::2], blocks[1::2], strict=True):
            h = h + outer(self._activated(inner(ACTIVATIONS[self.activation](h))))
        if self.residual:
            h = last(h)
        return h

    def _activated(self, h: Tensor) -> Tensor:
        """The activation of what nothing else needs."""
        # relu in place: a linear layer does not need its own output for its gradient.
        return h.relu_() if self.activation == "relu" else ACTIVATIONS[self.activation](h)

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, context={self.context}, "
            f"activation={self.activation!r}, residual={self.residual}"
        )
