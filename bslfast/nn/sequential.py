"""A chain of modules whose weights are drawn in one call."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

from bslfast._torch import global_hooks, own_hooks
from bslfast.functional._op import unwatched
from bslfast.nn.estimators import WeightSample
from bslfast.nn.estimators.weight_sample import drawn_at_once
from bslfast.nn.layer import BayesianLayer
from bslfast.nn.module import BayesianModule

#: Samples of layers that no pass has used yet.
Drawn = dict[BayesianModule, Any]


class Sequential(nn.Sequential):
    r"""``torch.nn.Sequential``, which draws the weights of its layers in one call.

    Each layer has the samples that it would draw by itself, of the same distribution: one for each
    pass, and another one where it is called again. A pass then has one call of a kernel for all
    samples, and one for their gradients and those of :func:`bslfast.nn.kl`, whatever the number of
    layers:

    .. math:: y = f_L(\dots f_1(x; w_1) \dots; w_L), \quad (w_1, \dots, w_L) \sim q

    It is so for normal weights with normal priors of numbers, all of one parametrization, of layers
    whose estimator is ``WeightSample``: up to 262,144 of them on the CPU, where larger layers take
    less memory each by itself, and any number on CUDA devices. Layers in ``Sequential`` inside take
    part. Those with hooks, or whose ``forward`` takes no ``drawn``, draw by themselves, as do all
    layers inside :func:`bslfast.nn.one_draw`, under ``torch.compile`` and under ``torch.func``.
    :func:`bslfast.nn.to_bayesian` makes such chains of all ``torch.nn.Sequential`` with Bayesian
    layers, and :func:`bslfast.nn.deterministic_twin` makes torch's again.

    Args:
        *args: as of ``torch.nn.Sequential``: modules, or an ordered dictionary of them.

    Shape: as of the modules.

    Raises:
        TypeError, ValueError: what the modules raise.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424), for
    the step: one draw of all weights, and the sum of all divergences.

    >>> import torch, bslfast
    >>> layers = bslfast.nn.BayesLinear(3, 8), torch.nn.ReLU(), bslfast.nn.BayesLinear(8, 1)
    >>> model = bslfast.nn.Sequential(*layers)
    >>> loss = model(torch.ones(5, 3)).square().mean() + bslfast.nn.kl(model) / 1000
    >>> loss.backward()
    """

    def forward(self, input: Any, *, drawn: Drawn | None = None) -> Any:
        """Outputs for one draw of all weights.

        Args:
            input: of the first module.
            drawn: samples of layers inside, as of a chain that holds this one. They are taken out
                when they are used.
        """
        if drawn is None:
            drawn = self._draw()
        for part in self:
            if not drawn:
                input = part(input)
            elif part in drawn:
                input = part(input, drawn=drawn.pop(part))
            elif type(part) is Sequential and not _has_hooks(part):
                input = part(input, drawn=drawn)
            else:
                input = part(input)
        return input

    def _draw(self) -> Drawn:
        """Samples of the layers that are drawn in one call; empty if there are none."""
        if not unwatched() or any(global_hooks()):
            return {}
        layers: dict[BayesianLayer, None] = {}
        self.add_layers(layers)
        # A layer alone has a kernel for its draw and its product.
        return (drawn_at_once([*layers]) if len(layers) > 1 else None) or {}

    def add_layers(self, found: dict[BayesianLayer, None]) -> None:
        """Add the layers that can be drawn together, in the order of their first calls."""
        for part in self:
            if isinstance(part, BayesianLayer):
                if (
                    part.drawn is None
                    and type(part.estimator) is WeightSample
                    and not part._joint
                    and not _has_hooks(part)
                    and _takes_samples(type(part))  # type: ignore[arg-type]
                ):
                    found[part] = None
            elif type(part) is Sequential and not _has_hooks(part):
                part.add_layers(found)


def _has_hooks(module: nn.Module) -> bool:
    """Whether something is called before, after or instead of a module's own method.

    A hook may cut the graph, so that parts of it have backward passes of their own. What somebody
    has put in the place of ``forward`` may take no samples.
    """
    return any(own_hooks(module)) or "forward" in vars(module)


@functools.lru_cache(256)
def _takes_samples(kind: type[BayesianLayer]) -> bool:
    """Whether layers of a class, which may have methods of its own, can be called with samples."""
    if kind.__call__ is not nn.Module.__call__:
        return False
    parameters = inspect.signature(kind.forward).parameters
    return "drawn" in parameters or any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )


def join(model: nn.Module) -> None:
    """Make a :class:`Sequential` of each of torch's in a model that holds a Bayesian layer."""
    for module in model.modules():
        if type(module) is nn.Sequential and any(
            isinstance(part, BayesianModule) for part in module.modules()
        ):
            module.__class__ = Sequential
