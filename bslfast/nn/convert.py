"""Bayesian networks from plain ones."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bslfast import _checks
from bslfast.nn import convolution, embedding, linear
from bslfast.nn.layer import BayesianLayer, Settings
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior

#: What becomes what; a subclass is another class, of which nothing is known.
LAYERS: dict[type[nn.Module], type[BayesianLayer]] = {
    nn.Linear: linear.BayesLinear,
    nn.Conv1d: convolution.BayesConv1d,
    nn.Conv2d: convolution.BayesConv2d,
    nn.Conv3d: convolution.BayesConv3d,
    nn.ConvTranspose1d: convolution.BayesConvTranspose1d,
    nn.ConvTranspose2d: convolution.BayesConvTranspose2d,
    nn.ConvTranspose3d: convolution.BayesConvTranspose3d,
    nn.Embedding: embedding.BayesEmbedding,
}


def to_bayesian(
    model: nn.Module,
    select: Callable[[str, nn.Module], bool] | None = None,
    *,
    posterior: Posterior | Mapping[str, Posterior] | None = None,
    prior: Prior | Mapping[str, Prior] | None = None,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    init_scale: float = 0.02,
    parametrization: str = "softplus",
    moped: float | None = None,
) -> nn.Module:
    """A copy of ``model`` in which layers have become Bayesian ones.

    Weights become means, on their device, in their dtype, frozen if they were. Hooks, names and the
    sharing of layers stay; every layer is still an instance of its torch class. So does what is not
    selected, or cannot become Bayesian: only ``Linear``, convolutions, their transposes and
    ``Embedding`` can, and no subclasses of them.

    Args:
        model: any module.
        select: from the name of a layer in ``model`` and the layer, whether it becomes Bayesian;
            None: all that can.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`.
        moped: the delta of :meth:`bslfast.nn.BayesianLayer.centre_priors`, by which priors are
            around the weights that ``model`` has, and posteriors as wide as ``moped`` times their
            absolute values; None: neither.

    Returns:
        The copy; ``model`` is as it was.

    Raises:
        TypeError: ``model`` is not a module, or a weight is of another dtype than layers may have.
        ValueError: no layer is selected; one shares a weight with another layer, or has parameters
            that are not its class's (as ``torch.nn.utils.spectral_norm`` leaves it); what
            :class:`bslfast.nn.BayesianLayer` raises.

    Source: Krishnan, Subedar and Tickoo, "Specifying weight priors in Bayesian deep neural networks
    with empirical Bayes" (2020, arXiv:1906.05323), for posteriors and priors around the weights of
    a trained network.

    >>> import torch, bslfast
    >>> plain = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> last = bslfast.nn.to_bayesian(plain, lambda name, layer: name == "2", prior_scale=0.5)
    >>> type(last[0]).__name__, type(last[2]).__name__
    ('Linear', 'BayesLinear')
    >>> around = bslfast.nn.to_bayesian(plain, moped=0.1)
    >>> bool((around[0].priors["weight"].loc == plain[0].weight).all())
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    settings = Settings(posterior, prior, prior_loc, prior_scale, init_scale, parametrization)
    result = copy.deepcopy(model)
    chosen: list[tuple[str, Any]] = [
        (name, layer)
        for name, layer in result.named_modules()
        if type(layer) in LAYERS and (select is None or select(name, layer))
    ]
    if not chosen:
        raise ValueError(
            f"model: expected a module with one of {', '.join(k.__name__ for k in LAYERS)} that is "
            f"selected, got a {type(model).__name__} without"
        )
    held = Counter(id(p) for m in result.modules() for p in m._parameters.values() if p is not None)
    for name, layer in chosen:
        for key, parameter in layer._parameters.items():
            if key not in ("weight", "bias"):
                raise ValueError(f"model: expected {name} to have weight and bias, got {key}")
            if held[id(parameter)] > 1:
                raise ValueError(
                    f"model: expected selected layers to share no weights, got {name}.{key} in "
                    f"{held[id(parameter)]} places"
                )
    for _, layer in chosen:
        layer.__class__ = LAYERS[type(layer)]
        layer.make_bayesian(settings)
        if moped is not None:
            layer.centre_priors(moped)
    return result
