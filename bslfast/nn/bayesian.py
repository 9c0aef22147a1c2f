"""What Bayesian layers have in common, and the KL divergence of a model."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch
from torch import Tensor, nn


class BayesianModule(nn.Module):
    """A layer whose parameters are distributions.

    A subclass implements :meth:`compute_kl`, and calls :meth:`remember_kl` if its forward has
    worked out the divergence along with the sample.
    """

    # (kl, the state of the parameters that it belongs to); never copied, pickled or saved.
    _remembered: tuple[Tensor, list[tuple[Tensor, int, int]]] | None = None

    def compute_kl(self) -> Tensor:
        """The KL divergence from the posterior to the prior, of all weights, by itself."""
        raise NotImplementedError

    def kl(self) -> Tensor:
        """The sum of the KL divergences of all weights from the prior, in nats.

        Taken from the last forward pass if that has computed it and the parameters are as they
        were, else computed now.
        """
        remembered, self._remembered = self._remembered, None
        if remembered is not None and torch.is_grad_enabled():
            kl, state = remembered
            now = list(self.parameters(recurse=False))
            if len(now) == len(state) and all(
                p is q and p._version == version and p.data_ptr() == address
                for p, (q, version, address) in zip(now, state, strict=True)
            ):
                return kl
        return self.compute_kl()

    def remember_kl(self, kl: Tensor) -> None:
        """Keep the divergence that a forward pass has computed, for the next call of :meth:`kl`.

        A backward pass through this layer ends that: the graph is spent, and what follows it may be
        an optimiser that changes parameters behind torch's back, through ``.data``.
        """
        self._remembered = (
            kl,
            [(p, p._version, p.data_ptr()) for p in self.parameters(recurse=False)],
        )
        assert kl.grad_fn is not None
        kl.grad_fn.register_hook(functools.partial(_forget, weakref.ref(self)))

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_remembered", None)
        return state


def _forget(layer: weakref.ref[BayesianModule], *_: Any) -> None:
    found = layer()
    if found is not None:
        found._remembered = None


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
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    divergences = [m.kl() for m in model.modules() if isinstance(m, BayesianModule)]
    if not divergences:
        raise ValueError(
            f"model: expected a module with Bayesian layers, got a {type(model).__name__} without"
        )
    total = divergences[0]
    for divergence in divergences[1:]:
        total = total + divergence
    return total
