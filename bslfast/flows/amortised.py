"""Transforms with parameters of their own, to which a network may add what a context says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bslfast.flows.conditioners import Conditioner
from bslfast.flows.transform import Transform


class Amortised(Transform):
    """A transform whose parameters are its own and, with a context, what a network adds to them.

    The network is 0 at the start, so that the context then makes no difference.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
    """

    #: Makes of the context what is added to the parameters, one after the other; or there is none.
    conditioner: Conditioner | None

    def __init__(self, features: int, context: int) -> None:
        super().__init__(features, context)
        self.conditioner = None

    def _add_network(
        self, own: Sequence[Tensor], hidden: Sequence[int], activation: str, options: dict[str, Any]
    ) -> None:
        """Make the network for these parameters, if there is a context."""
        outputs = sum(parameter.numel() for parameter in own)
        network = Conditioner(
            0, outputs, context=self.context, hidden=hidden, activation=activation, **options
        )
        if self.context:
            self.conditioner = network

    def _at(self, context: Tensor | None, *own: Tensor) -> tuple[Tensor, ...]:
        """The parameters at a context [..., context], each [..., *its own shape]."""
        if self.conditioner is None or context is None:
            return own
        added = self.conditioner(context[..., :0], context)
        parts = added.split([parameter.numel() for parameter in own], dim=-1)
        leading = added.shape[:-1]
        return tuple(
            parameter + part.reshape((*leading, *parameter.shape))
            for parameter, part in zip(own, parts, strict=True)
        )

    def extra_repr(self) -> str:
        context = f", context={self.context}" if self.context else ""
        return f"features={self.features}{context}"
