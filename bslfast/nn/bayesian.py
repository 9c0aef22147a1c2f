"""What Bayesian layers have in common: their draws, and the KL divergence of a model."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import functional as BF
from bslfast.functional._op import HAS_CUDA, runs_eagerly


class NormalWeight(NamedTuple):
    """A tensor of weights N(loc, scale) and the numbers of its prior, see BF.normal_rsample_kl."""

    loc: Tensor
    raw_scale: Tensor
    prior_loc: float
    prior_scale: float
    parametrization: str


class BayesianModule(nn.Module):
    """A layer whose parameters are distributions.

    A subclass implements :meth:`compute_kl`, and calls :meth:`remember_kl` if its forward has
    worked out the divergence along with the sample. If it names its weights in
    :meth:`normal_weights`, its forward uses :attr:`drawn` where that is not None.
    """

    #: Samples of :meth:`normal_weights` inside :func:`one_draw`.
    drawn: tuple[Tensor, ...] | None = None
    # Neither is ever copied, pickled or saved.
    _remembered: _Divergence | None = None

    def compute_kl(self) -> Tensor:
        """The KL divergence from the posterior to the prior, of all weights, by itself."""
        raise NotImplementedError

    def normal_weights(self) -> Sequence[NormalWeight]:
        """The weights that :func:`one_draw` may draw; none if the layer has to do so itself."""
        return ()

    def kl(self) -> Tensor:
        """The sum of the KL divergences of all weights from the prior, in nats.

        Taken from the last forward pass if that has computed it and the parameters are as they
        were, else computed now.
        """
        return _divergence((self,))

    def remember_kl(self, kl: Tensor) -> None:
        """Keep the divergence that a forward pass has computed, for the next call of :meth:`kl`."""
        _Divergence(kl, (self,))

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_remembered", "drawn"):
            state.pop(name, None)
        return state


class _Divergence:
    """The divergence of some layers together, as a forward pass has computed it.

    Each of them keeps it until it is asked for or until a backward pass through the layer: then the
    graph is spent, and what follows may be an optimiser that changes parameters behind torch's
    back, through ``.data``.
    """

    def __init__(self, kl: Tensor, layers: Sequence[BayesianModule]) -> None:
        self.kl = kl
        self._layers = [weakref.ref(layer) for layer in layers]
        self._state = [(p, p._version, p.data_ptr()) for p in _parameters(layers)]
        for layer in layers:
            _set(layer, "_remembered", self)
        assert kl.grad_fn is not None
        kl.grad_fn.register_hook(functools.partial(_forget, self._layers))

    def take(self) -> list[BayesianModule]:
        """The layers that this is the divergence of, which forget it; none if it is out of date."""
        layers = [layer for layer in (r() for r in self._layers) if layer is not None]
        known = all(layer._remembered is self for layer in layers)
        _forget(self._layers)
        now = _parameters(layers)
        same = len(now) == len(self._state) and all(
            p is q and p._version == version and p.data_ptr() == address
            for p, (q, version, address) in zip(now, self._state, strict=True)
        )
        return layers if known and same and torch.is_grad_enabled() else []


def _parameters(layers: Sequence[nn.Module]) -> list[Tensor]:
    # A tenth of the time that parameters() takes; of every step of a small model that shows.
    return [p for layer in layers for p in layer._parameters.values() if p is not None]


def _set(layer: BayesianModule, name: str, value: Any) -> None:
    """Past nn.Module, which takes microseconds to see whether it is a parameter or a module."""
    object.__setattr__(layer, name, value)


def _forget(layers: Sequence[weakref.ref[BayesianModule]], *_: Any) -> None:
    for layer in (r() for r in layers):
        if layer is not None:
            _set(layer, "_remembered", None)


def _divergence(layers: Sequence[BayesianModule]) -> Tensor:
    """The sum of the divergences of some layers, of which a forward pass may have computed some."""
    left, parts = dict.fromkeys(layers), []
    while left:
        layer = next(iter(left))
        remembered = layer._remembered
        together = [] if remembered is None else remembered.take()
        if remembered is not None and together and all(other in left for other in together):
            parts.append(remembered.kl)
        else:
            parts.append(layer.compute_kl())
            together = [layer]
        for other in together:
            del left[other]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@contextlib.contextmanager
def one_draw(model: nn.Module, *, seed: int | Tensor | None = None) -> Iterator[None]:
    """One draw of all weights of ``model``, for every forward pass inside the ``with`` block.

    Such passes evaluate one function that the posterior has drawn, on as many batches as are
    wanted. All weights are drawn together: on a CUDA device by one kernel, whatever the number of
    layers (:func:`bslfast.functional.normal_rsample_kl_many`). Layers that have a draw already, of
    an enclosing ``with``, keep it.

    Args:
        model: a module that is, or holds, Bayesian layers.
        seed: as in :func:`bslfast.functional.normal_rsample`.

    Raises:
        TypeError: ``model`` is not a module, or ``seed`` not one.
        ValueError: ``model`` has no Bayesian layer.

    >>> import torch, bslfast
    >>> model, x = bslfast.bnn.BayesianMLP(3, (8,), 1), torch.ones(5, 3)
    >>> with bslfast.nn.one_draw(model):
    ...     first, again = model(x), model(x)
    >>> torch.equal(first, again), torch.equal(first, model(x))
    (True, False)
    """
    with drawn_together(_bayesian_layers(model), seed):
        yield


@contextlib.contextmanager
def drawn_together(
    layers: Sequence[BayesianModule], seed: int | Tensor | None = None
) -> Iterator[None]:
    """:func:`one_draw` of these layers."""
    weights = {layer: layer.normal_weights() for layer in layers if layer.drawn is None}
    alike: dict[Any, list[BayesianModule]] = {}
    for layer, own in weights.items():
        if own:
            kind = (own[0].loc.device, own[0].loc.dtype, own[0].parametrization)
            alike.setdefault(kind, []).append(layer)
    stream = 0
    try:
        for group in alike.values():
            stream += _draw(group, [weights[layer] for layer in group], seed, stream)
        yield
    finally:
        for layer in weights:
            _set(layer, "drawn", None)


def _draw(
    layers: Sequence[BayesianModule],
    weights: Sequence[Sequence[NormalWeight]],
    seed: int | Tensor | None,
    stream: int,
) -> int:
    """Draw weights that have one parametrization, dtype and device; how many tensors there are."""
    loc, raw_scale, prior_loc, prior_scale, parametrization = zip(
        *(weight for own in weights for weight in own), strict=True
    )
    samples, kl = BF.normal_rsample_kl_many(
        loc,
        raw_scale,
        prior_loc=prior_loc,
        prior_scale=prior_scale,
        parametrization=parametrization[0],
        seed=seed,
        stream=stream,
    )
    begin = 0
    for layer, own in zip(layers, weights, strict=True):
        _set(layer, "drawn", samples[begin : begin + len(own)])
        begin += len(own)
    if kl.requires_grad and runs_eagerly((kl,), on_cuda=HAS_CUDA):
        _Divergence(kl, layers)
    return begin


def kl(model: nn.Module) -> Tensor:
    """The KL divergence from posterior to prior of all Bayesian layers of ``model``, in nats.

    A sum, never an average: :func:`bslfast.negative_elbo` scales it. A layer used in several places
    counts once. Always that of the parameters as they are now, differentiable.

    Args:
        model: a module that is, or holds, Bayesian layers.

    Returns:
        A scalar tensor.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: it has no Bayesian layer.

    >>> import torch, bslfast
    >>> model = torch.nn.Sequential(bslfast.nn.BayesLinear(3, 4), bslfast.nn.BayesLinear(4, 1))
    >>> bool(bslfast.nn.kl(model) > 0)
    True
    """
    return _divergence(_bayesian_layers(model))


def _bayesian_layers(model: Any) -> list[BayesianModule]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    layers = [m for m in model.modules() if isinstance(m, BayesianModule)]
    if not layers:
        raise ValueError(
            f"model: expected a module with Bayesian layers, got a {type(model).__name__} without"
        )
    return layers
