"""Bayesian networks from plain ones."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast

from torch import nn

from bslfast import _checks
from bslfast._torch import flat_names, own_parameters
from bslfast.nn import attention, convolution, embedding, linear, normalization, recurrent
from bslfast.nn.estimators import Estimator
from bslfast.nn.layer import BayesianLayer, Settings
from bslfast.nn.module import BayesianModule
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior
from bslfast.nn.sequential import join

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
    nn.LayerNorm: normalization.BayesLayerNorm,
    nn.LSTM: recurrent.BayesLSTM,
    nn.GRU: recurrent.BayesGRU,
    nn.MultiheadAttention: attention.BayesMultiheadAttention,
}

#: Those of torch. Flows add theirs, which have no public names.
_NAMES = tuple(kind.__name__ for kind in LAYERS)

#: Layers by what they are, by their names in the model, or by a function of both.
Choice: TypeAlias = type[nn.Module] | str | Callable[[str, nn.Module], bool]

_CHOICES = "classes of modules, names, or a function"
# torch looks at these attributes before it calls a kernel for a whole Transformer layer. That
# kernel would read weights that are gone.
_FAST_PATHS: dict[type[nn.Module], str] = {
    nn.TransformerEncoderLayer: "activation_relu_or_gelu",
    nn.TransformerEncoder: "use_nested_tensor",
}


def to_bayesian(
    model: nn.Module,
    select: Choice | Collection[Choice] | None = None,
    *,
    posterior: Posterior | Mapping[str, Posterior] | None = None,
    prior: Prior | Mapping[str, Prior] | None = None,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    init_scale: float = 0.02,
    parametrization: str = "softplus",
    estimator: str | Estimator = "weight_sample",
    moped: float | None = None,
) -> nn.Module:
    """A copy of ``model`` in which layers have become Bayesian ones.

    Weights become means, on their device, in their dtype, frozen if they were. Hooks, names and the
    sharing of layers and of weights stay; every layer is still an instance of its torch class, and
    returns what that returns. So does what is not selected, or cannot become Bayesian: only
    ``Linear``, convolutions, their transposes, ``Embedding``, ``LSTM``, ``GRU``,
    ``MultiheadAttention`` and ``LayerNorm`` can, and no subclasses of them. Transformers of torch
    consist of these.

    Args:
        model: any module.
        select: which layers become Bayesian. A class of modules; a name in ``model``, or a pattern
            for names as in :mod:`fnmatch` (``"encoder.*"``); several of these; or a function of the
            name of a layer and the layer, that says so. None: all that can.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.
        moped: the delta of :meth:`bslfast.nn.BayesianLayer.centre_priors`, by which priors are
            around the weights that ``model`` has, and posteriors as wide as ``moped`` times their
            absolute values; None: neither.

    Returns:
        The copy; ``model`` is as it was.

    Raises:
        TypeError: ``model`` is not a module, ``select`` is none of these, or a weight is of another
            dtype than layers may have.
        ValueError: no layer is selected, by ``select`` or by one of several; one shares a weight
            with a layer that is not, or has parameters that are not its class's (as
            ``torch.nn.utils.spectral_norm`` leaves it); layers with a joint posterior share one;
            what :class:`bslfast.nn.BayesianLayer` raises.

    Layers that share a weight, as an embedding and the last layer of a language model often do,
    share its posterior and its prior, and its divergence counts once. It is one random variable:
    passes inside :func:`bslfast.nn.one_draw`, :func:`bslfast.nn.sample_outputs`, ``predict`` and
    ``fit`` use one sample in all of its places. Outside, each layer draws by itself, as does a
    layer that is called twice.

    Each ``torch.nn.Sequential`` with Bayesian layers becomes a :class:`bslfast.nn.Sequential`, a
    subclass that draws their weights in one call.

    Source: Krishnan, Subedar and Tickoo, "Specifying weight priors in Bayesian deep neural networks
    with empirical Bayes" (2020, arXiv:1906.05323), for posteriors and priors around the weights of
    a trained network.

    >>> import torch, bslfast
    >>> plain = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> last = bslfast.nn.to_bayesian(plain, "2", prior_scale=0.5)
    >>> type(last[0]).__name__, type(last[2]).__name__
    ('Linear', 'BayesLinear')
    >>> every = bslfast.nn.to_bayesian(plain, torch.nn.Linear)
    >>> encoder = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> all(name.endswith(("_loc", "_raw_scale")) for name in to_bayesian(encoder).state_dict())
    True
    >>> around = bslfast.nn.to_bayesian(plain, moped=0.1)
    >>> bool((around[0].priors["weight"].loc == plain[0].weight).all())
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    settings = Settings(
        *(posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator)
    )
    result = copy.deepcopy(model)
    make_bayesian(result, settings, select, moped)
    return result


def make_bayesian(
    model: nn.Module,
    settings: Settings,
    select: Choice | Collection[Choice] | None = None,
    moped: float | None = None,
) -> None:
    """Convert in place."""
    chosen = _chosen(model, select)
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for key, held in own_parameters(module).items():
            if held is not None:
                places.setdefault(held, []).append((module, key))
    selected = set(chosen.values())
    for name, layer in chosen.items():
        known = _names(layer)
        for key, parameter in layer.named_parameters():
            if key not in known:
                raise ValueError(f"model: expected {name} to have {' and '.join(known)}, got {key}")
            count = len(places[parameter])
            holders = {module for module, _ in places[parameter]}
            if count > 1 and len(holders & selected) < count:
                raise ValueError(
                    f"model: expected a weight in several places to be a parameter of so many "
                    f"selected layers, got {name}.{key} in {count} places"
                )
    for layer in chosen.values():
        bayesian = cast(Any, layer)
        bayesian.__class__ = LAYERS[type(layer)]
        bayesian.make_bayesian(settings)
        if moped is not None:
            bayesian.centre_priors(moped)
    for (first, key), *others in places.values():
        for other, its_key in others:
            if other in selected:
                cast(BayesianLayer, other).share(its_key, cast(BayesianLayer, first), key)
    choose_fast_paths(model)
    join(model)


def choose_fast_paths(model: nn.Module) -> None:
    """Let torch's Transformers use kernels for whole layers if these have no drawn weights."""
    for module in model.modules():
        for kind, name in _FAST_PATHS.items():
            if not isinstance(module, kind):
                continue
            kept = f"_{name}_if_plain"
            drawn = any(isinstance(m, BayesianModule) for m in module.modules())
            if drawn and kept not in module.__dict__:
                setattr(module, kept, getattr(module, name))
                setattr(module, name, False)
            elif not drawn and kept in module.__dict__:
                setattr(module, name, module.__dict__.pop(kept))


def _names(layer: nn.Module) -> tuple[str, ...]:
    """The parameters that a layer of torch has, by its class."""
    if isinstance(layer, nn.RNNBase):
        return tuple(flat_names(layer))
    if isinstance(layer, nn.MultiheadAttention):
        own = (*(f"{x}_proj_weight" for x in ("q", "k", "v", "in")), "in_proj_bias")
        return (*own, "bias_k", "bias_v", "out_proj.weight", "out_proj.bias")
    return ("weight", "bias")


def _chosen(model: nn.Module, select: Choice | Collection[Choice] | None) -> dict[str, nn.Module]:
    """The layers that are selected, by their first name in the model."""
    names: dict[nn.Module, list[str]] = {}
    for name, layer in model.named_modules(remove_duplicate=False):
        if type(layer) in LAYERS and any(True for _ in layer.parameters()):
            names.setdefault(layer, []).append(name)
    choices: list[Any] = [nn.Module] if select is None else [select]
    if isinstance(select, Collection) and not isinstance(select, str):
        choices = list(select)
        if not choices:
            raise ValueError(f"select: expected {_CHOICES}, got {select!r}")
    chosen = set()
    for choice in choices:
        found = [layer for layer, known in names.items() if _is(choice, layer, known)]
        if not found:
            shown = "" if select is None else f" that is selected by {choice!r}"
            raise ValueError(
                f"model: expected a module with one of {', '.join(_NAMES)}"
                f"{shown}, got a {type(model).__name__} without"
            )
        chosen.update(found)
    return {known[0]: layer for layer, known in names.items() if layer in chosen}


def _is(choice: Any, layer: nn.Module, names: Sequence[str]) -> bool:
    if isinstance(choice, str):
        return any(fnmatch.fnmatchcase(name, choice) for name in names)
    if isinstance(choice, type) and issubclass(choice, nn.Module):
        return isinstance(layer, choice)
    if callable(choice) and not isinstance(choice, type):
        return bool(choice(names[0], layer))
    raise TypeError(f"select: expected {_CHOICES}, got {_checks.describe(choice)}")
