"""Which parameters of a model weight decay is for."""

from __future__ import annotations

from typing import Any

from torch import nn

from bslfast import _checks
from bslfast.nn.module import BayesianModule


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters of ``model`` in two groups for an optimiser: decayed, and not.

    Decayed are weights and means of weights: what has two dimensions or more. Biases, factors of
    normalisation layers, learned scales of priors and all of posteriors but the means stay as they
    are: to pull ``raw_scale`` to 0 would pull a standard deviation to log 2. A prior N(0, s) decays
    means already, by its divergence.

    Args:
        model: any module; its Bayesian layers may have any posterior.
        weight_decay: of the first group, >= 0.

    Returns:
        Two dicts with the keys ``params`` and ``weight_decay``, as ``torch.optim`` takes them, that
        of the second being 0: every parameter of the model once, in their order. Either may have no
        parameters.

    Raises:
        TypeError: ``model`` is not a module; ``weight_decay`` not a number.
        ValueError: ``weight_decay`` is negative.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019, arXiv:1711.05101),
    for weight decay.

    >>> import torch, bslfast
    >>> model = bslfast.bnn.BayesianMLP(3, (8,), 1)
    >>> decayed, others = bslfast.nn.parameter_groups(model, weight_decay=0.01)
    >>> [list(p.shape) for p in decayed["params"]], len(others["params"])
    ([[8, 3], [1, 8]], 7)
    >>> optimizer = torch.optim.AdamW([decayed, others], lr=0.01)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    weight_decay = _checks.number("weight_decay", weight_decay, minimum=0.0)
    no_weights: set[int] = set()
    for layer in model.modules():
        if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
            no_weights.update(map(id, layer.parameters()))
        if isinstance(layer, nn.MultiheadAttention):  # its biases of keys have three dimensions
            own = layer.named_parameters(recurse=False)
            no_weights.update(id(p) for name, p in own if name.startswith("bias_"))
        for weight in layer.weights() if isinstance(layer, BayesianModule) else ():
            n_means = len(weight.parameters) - len(weight.posterior.names) + 1
            no_weights.update(map(id, weight.parameters[n_means:]))
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_weight = parameter.dim() > 1 and id(parameter) not in no_weights
        (decayed if is_weight else others).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
