"""Networks at the means of their weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, cast

from torch import Tensor, nn

from bslfast._torch import COMPILED_FROM, copy_hooks, own_modules, own_parameters
from bslfast.nn.convert import choose_fast_paths
from bslfast.nn.module import bayesian_layers, set_past_module
from bslfast.nn.sequential import Sequential


@contextlib.contextmanager
def at_means(model: nn.Module) -> Iterator[None]:
    """The means in the place of draws, for every forward pass inside the ``with`` block.

    :func:`bslfast.predict` and ``sample_outputs`` inside give the same outputs for each sample.
    Gradients reach the means. Those of joint posteriors (``FullCovariance``, ``LowRank``) stay as
    they were at the beginning. It holds for the module's layers in all threads, and before the draw
    of an enclosing :func:`bslfast.nn.one_draw`. Calls of a layer with a seed draw as ever.

    Args:
        model: a module that is, or holds, Bayesian layers.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``model`` has no Bayesian layer, or one that does not name its weights.

    >>> import torch, bslfast
    >>> model, x = bslfast.bnn.BayesianMLP(3, (8,), 1), torch.ones(5, 3)
    >>> with bslfast.nn.at_means(model):
    ...     outputs = model(x)
    >>> torch.allclose(outputs, model.deterministic_twin()(x))
    True
    """
    layers, before = bayesian_layers(model), []
    means = [tuple([weight.loc for weight in layer.weights()]) for layer in layers]
    for layer, its in zip(layers, means, strict=True):
        if not its:
            raise ValueError(
                f"model: expected layers that name their weights, got a {type(layer).__name__}"
            )
    try:
        for layer, its in zip(layers, means, strict=True):
            before.append((layer, layer.drawn))
            set_past_module(layer, "drawn", its)
        yield
    finally:
        for layer, drawn in before:
            set_past_module(layer, "drawn", drawn)


def deterministic_twin(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose Bayesian layers have become those of torch, at the means.

    The inverse of :func:`bslfast.nn.to_bayesian`, but for the scales. A module that has a method
    ``deterministic_twin``, as all layers and ``BayesianMLP`` do, becomes what that returns, with
    its own hooks. Sharing of layers and weights, buffers and modes stay. The twin needs nothing of
    this library, so that it can be exported: ``torch.export.export(twin.eval(), (x,))``, or, if the
    package onnx is installed, ``torch.onnx.export(twin.eval(), (x,), "network.onnx")``.

    Args:
        model: a module that is, or holds, Bayesian layers; one of ``torch.compile`` becomes a plain
            one.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``model`` has no Bayesian layer, or one without a deterministic twin.

    >>> import torch, bslfast
    >>> layers = bslfast.nn.BayesConv1d(3, 4, 2), torch.nn.Flatten(), bslfast.nn.BayesLinear(16, 1)
    >>> model, x = torch.nn.Sequential(*layers), torch.ones(2, 3, 5)
    >>> bslfast.nn.deterministic_twin(model)
    Sequential(
      (0): Conv1d(3, 4, kernel_size=(2,), stride=(1,))
      (1): Flatten(start_dim=1, end_dim=-1)
      (2): Linear(in_features=16, out_features=1, bias=True)
    )
    >>> torch.export.export(bslfast.nn.deterministic_twin(model), (x,)).module()(x).shape
    torch.Size([2, 1])
    """
    for layer in bayesian_layers(model):
        if not hasattr(layer, "deterministic_twin"):
            raise ValueError(
                f"model: expected layers with a deterministic_twin, got a {type(layer).__name__}"
            )
    known: dict[nn.Module, nn.Module] = {}
    twin = _twin(copy.deepcopy(model), known)
    share_means(known)
    choose_fast_paths(twin)
    return twin


def share_means(twins: dict[nn.Module, nn.Module]) -> None:
    """Make weights one in twins of layers that share them."""
    found: dict[Tensor, nn.Parameter] = {}
    for layer, twin in twins.items():
        for name in vars(layer).get("_shapes", ()):
            loc, mean = own_parameters(layer).get(f"{name}_loc"), own_parameters(twin).get(name)
            if loc is not None and mean is not None and found.setdefault(loc, mean) is not mean:
                own_parameters(twin)[name] = found[loc]


def _twin(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """The twin of a module, which is changed in place if only parts of it have one."""
    if module in known:
        return known[module]
    inside: Any = own_modules(module).get(COMPILED_FROM)  # of what torch.compile returns
    if inside is not None:
        return _twin(inside, known)
    own = getattr(module, "deterministic_twin", None)
    if own is None:
        known[module] = module
        replace_parts(module, known)
        if type(module) is Sequential:
            cast(Any, module).__class__ = nn.Sequential
        return module
    twin: nn.Module = own()
    known[module] = twin
    copy_hooks(module, twin)
    return twin


def replace_parts(module: nn.Module, known: dict[nn.Module, nn.Module] | None = None) -> None:
    """Put twins in the place of all Bayesian parts of a module; ``known`` are those made before."""
    known = {} if known is None else known
    for name, part in own_modules(module).items():
        if part is not None:
            own_modules(module)[name] = _twin(part, known)
