"""Several draws of the weights of a pass, and the divergence at them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast.nn.module import BayesianModule, remember
from bslfast.nn.weight import Part, Weight, divergence_of


class ManyDraws:
    r"""Draws samples of weights, perhaps in several calls, and remembers their divergence.

    A divergence without a closed form is the mean of the estimates at all samples:

    .. math:: \frac{1}{S} \sum_{s=1}^{S} \log q(w_s) - \log p(w_s)
    """

    def __init__(self) -> None:
        #: The estimates of each weight, and for how many samples each is.
        self._estimates: dict[tuple[Tensor, ...], list[tuple[int, Part]]] = {}
        self._known = True

    def of(self, weights: Sequence[Weight], n: int) -> tuple[Tensor, ...]:
        """``n`` samples of each weight, [n, ...]."""
        return tuple([self._samples(weight, n) for weight in weights])

    def _samples(self, weight: Weight, n: int) -> Tensor:
        divergence = divergence_of(weight)
        if not divergence.estimated or not torch.is_grad_enabled():
            return weight.rsample(sample_shape=(n,))
        samples, part = divergence.draw_many(weight, n)
        self._known = self._known and part is not None
        if part is not None:
            self._estimates.setdefault(weight.identity, []).append((n, part))
        return samples

    def remember(self, layers: Sequence[BayesianModule]) -> None:
        """Let layers, whose weights have been drawn, remember the divergence at these samples."""
        if not self._estimates or not self._known:
            return
        parts = []
        weights = {weight.identity: weight for layer in layers for weight in layer.weights()}
        for key, weight in weights.items():
            parts += self._parts_of(weight, self._estimates.get(key, ()))
        remember(parts, layers)

    def _parts_of(self, weight: Weight, estimates: Sequence[tuple[int, Part]]) -> list[Part]:
        """What the divergence of a weight is a sum of."""
        if not estimates:
            return [Part((weight,), weight.kl, None)]
        count = sum(n for n, _ in estimates)
        return [
            Part((weight,), lambda part=part: part.value() / count, part.place)  # type: ignore[misc]
            for _, part in estimates
        ]


def has_estimates(layers: Sequence[BayesianModule]) -> bool:
    """Whether the divergence of a weight has no closed form."""
    return any(divergence_of(weight).estimated for layer in layers for weight in layer.weights())
