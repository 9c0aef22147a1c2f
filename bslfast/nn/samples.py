"""Outputs of a model for many draws of its weights."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._torch import uncompiled
from bslfast.nn.estimators import draw, drawn_by
from bslfast.nn.many_draws import ManyDraws, has_estimates
from bslfast.nn.module import BayesianModule, bayesian_layers, set_past_module

# Numbers that passes which run together may hold, so that they stay in the cache: weights, and for
# each of an input several of a layer's outputs, of a convolution many.
_HELD = 1 << 22
_HELD_FOR_AN_INPUT = 8
_HELD_FOR_AN_INPUT_OF_CONVOLUTIONS = 32
# The draws are attributes of the layers.
_one_at_a_time = threading.RLock()


def sample_outputs(model: nn.Module, *inputs: Any, n_samples: int, **options: Any) -> Tensor:
    """Outputs of ``model`` for ``n_samples`` draws of all its weights, with gradients.

    What ``n_samples`` passes, each inside :func:`bslfast.nn.one_draw`, return: one draw serves the
    whole batch, whatever the layers' estimators. Layers that have a draw already, of an enclosing
    ``with``, keep it. Passes of small models run together, by
    ``torch.func.vmap``, several times as fast as one after another. Those of large ones run one
    after another, and so do those that vmap cannot run: of models that hold a recurrent layer or
    are in training and keep statistics (``BatchNorm``), or that decide by the values of tensors. A
    method ``model.sample_outputs(x, n_samples)``, as of
    :class:`bslfast.bnn.BayesianMLP`, is used instead.

    Inputs serve all draws. Modules in between, hooks included, see the shapes of a single pass; but
    what they keep of it is of no use outside. Dropout is drawn for each pass. Calls from several
    threads wait for each other; other passes must not run through the model meanwhile. For
    estimators without draws of the weights, several samples are a batch with repeated rows.

    Where a divergence has no closed form, :func:`bslfast.nn.kl` after the call is the mean of the
    estimates at all these draws, with their gradient; without gradients it draws by itself.

    Args:
        model: a module that is, or holds, Bayesian layers, and returns a tensor.
        *inputs, **options: as the model takes them.
        n_samples: number of draws, at least 1.

    Returns:
        [n_samples, ...], each as the model returns it.

    Raises:
        TypeError: ``model`` is not a module, or does not return a tensor; ``n_samples`` not an
            integer.
        ValueError: ``model`` has no Bayesian layer; a number below 1.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424),
    section 3.2: the expected log likelihood as a mean over draws.

    >>> import torch, bslfast
    >>> model = bslfast.nn.to_bayesian(torch.nn.Sequential(
    ...     torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24, 1)
    ... ))
    >>> likelihood = bslfast.likelihoods.Normal(1)
    >>> x, targets = torch.randn(16, 2, 8), torch.ones(16, 1)
    >>> y = bslfast.nn.sample_outputs(model, x, n_samples=5)
    >>> y.shape
    torch.Size([5, 16, 1])
    >>> log_likelihood = likelihood.log_prob(y, targets).mean(0)
    >>> kl = bslfast.nn.kl(model)
    >>> bslfast.negative_elbo(log_likelihood, kl, dataset_size=1000).backward()
    """
    n_samples = _checks.integer("n_samples", n_samples)
    every = bayesian_layers(model)
    own: Any = getattr(model, "sample_outputs", None)
    if own is not None and len(inputs) == 1 and not options:
        outputs: Tensor = own(inputs[0], n_samples)
        return outputs
    return outputs_of(model, every, inputs, options, n_samples, inputs)


def outputs_of(
    model: nn.Module,
    every: Sequence[BayesianModule],
    inputs: Sequence[Any],
    options: Mapping[str, Any],
    n_samples: int,
    whole: Sequence[Any],
) -> Tensor:
    """Outputs of a model with these layers, for the draws that it has for the ``whole`` inputs.

    How many passes run together depends on the size of the inputs, and what is drawn on that:
    parts of the inputs have the same draws if they say what they are parts of.
    """

    def one_pass(drawn: Iterable[Sequence[Tensor]]) -> Tensor:
        for layer, samples in zip(layers, drawn, strict=True):
            set_past_module(layer, "drawn", tuple(samples))
        outputs = model(*inputs, **options)
        return _checks.tensor("model", outputs, "a module that returns a tensor")

    found = []
    with _one_at_a_time:
        layers = [layer for layer in every if layer.drawn is None and layer.weights()]
        beside = [layer for layer in every if layer.drawn is not None]
        held = min(n_samples, _together(model, layers, whole))
        draws = ManyDraws()
        by_one = n_samples == 1 or not has_estimates(layers)
        try:
            for start in range(0, n_samples, held):
                n = min(held, n_samples - start)
                if n == 1 and by_one:
                    found.append(one_pass(draw(layers, beside=beside).values()).unsqueeze(0))
                else:
                    found.append(_passes(one_pass, layers, beside, n, draws))
        finally:
            for layer in layers:
                set_past_module(layer, "drawn", None)
        draws.remember(layers)
    return found[0] if len(found) == 1 else torch.cat(found)


def _together(model: nn.Module, layers: Sequence[BayesianModule], inputs: Sequence[Any]) -> int:
    """How many passes run together."""
    if not layers or any(m.training and _keeps_statistics(m) for m in model.modules()):
        return 1
    convolves = any((layer.feature_dim or 0) < -1 for layer in layers)
    each = _HELD_FOR_AN_INPUT_OF_CONVOLUTIONS if convolves else _HELD_FOR_AN_INPUT
    size = sum(w.loc.numel() for layer in layers for w in layer.weights())
    size += sum(each * x.numel() for x in inputs if isinstance(x, Tensor))
    return max(1, _HELD // max(1, size))


def _keeps_statistics(module: nn.Module) -> bool:
    return bool(getattr(module, "track_running_stats", False))


def _passes(
    one_pass: Callable[[Iterable[Sequence[Tensor]]], Tensor],
    layers: Sequence[BayesianModule],
    beside: Sequence[BayesianModule],
    n: int,
    draws: ManyDraws,
) -> Tensor:
    """The outputs of ``n`` passes, [n, ...], together if vmap can do it."""
    weights = [layer.weights() for layer in layers]
    # Layers may share some, also with those that have samples already.
    samples = {key: sample.expand(n, *sample.shape) for key, sample in drawn_by(beside).items()}
    for weight in itertools.chain.from_iterable(weights):
        if weight.identity not in samples:
            (samples[weight.identity],) = draws.of((weight,), n)
    drawn = [[samples[w.identity] for w in its] for its in weights]
    if n > 1 and not torch.compiler.is_compiling():
        try:
            with uncompiled():
                together: Tensor = torch.func.vmap(one_pass, randomness="different")(drawn)
            return together
        except RuntimeError:
            pass  # vmap's; one of the model's own comes again
    apart = [[w.unbind(0) for w in its] for its in drawn]
    return torch.stack([one_pass([[w[i] for w in its] for its in apart]) for i in range(n)])
