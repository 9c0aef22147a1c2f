"""Pyro: distributions and flows for ``pyro.sample``."""

from __future__ import annotations

import copy
import functools
import importlib
import types
from typing import Any, TypeVar, overload

from torch import Tensor
from torch.distributions import Distribution

from bslfast import _checks
from bslfast.flows.flow import Flow, FlowDistribution

_Kind = TypeVar("_Kind", bound=Distribution)


@overload
def pyro(distribution: type[_Kind], context: None = None) -> type[_Kind]: ...
@overload
def pyro(distribution: _Kind, context: None = None) -> _Kind: ...
@overload
def pyro(distribution: Flow, context: Tensor | None = None) -> FlowDistribution: ...
def pyro(distribution: Any, context: Tensor | None = None) -> Any:
    """Return a distribution, a class of distributions or a flow as Pyro wants it.

    What is returned has Pyro's methods (``to_event``, ``mask``, ``expand_by``, a call that draws)
    and still is what it was: an instance or a subclass of its class, which draws and evaluates by
    bslfast's ops. In a guide, ``pyro.module(name, flow)`` makes Pyro learn a flow's parameters.

    Args:
        distribution: a ``torch.distributions.Distribution``, such as those of
            :mod:`bslfast.distributions`; a class of these; or a flow, whose distribution it is.
        context: [*batch_shape, context] of a flow that has one, else None.

    Raises:
        ImportError: Pyro is not installed.
        TypeError, ValueError: naming the argument, what was expected and what came.

    ::

        Normal = bslfast.patch.pyro(bslfast.distributions.Normal)
        pyro.sample("weights", Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("latent", bslfast.patch.pyro(flow))
    """
    try:
        mixin = importlib.import_module("pyro.distributions.torch_distribution")
    except ImportError as error:
        raise ImportError(
            f"pyro: expected Pyro to be installed (pip install pyro-ppl), got {error}",
            name=error.name,
        ) from error
    if isinstance(distribution, Flow):
        distribution = distribution.distribution(context)
    elif context is not None:
        raise ValueError(
            "context: expected None for a distribution that is no flow, got "
            f"{_checks.describe(context)}"
        )
    kind: Any = distribution if isinstance(distribution, type) else type(distribution)
    if not issubclass(kind, Distribution):
        raise TypeError(
            "distribution: expected a torch.distributions.Distribution, a class of these or a "
            f"bslfast.flows.Flow, got {_checks.describe(distribution)}"
        )
    mixed = _mixed(kind, mixin.TorchDistributionMixin)
    if kind is distribution:
        return mixed
    found: Any = copy.copy(distribution)
    found.__class__ = mixed
    return found


@functools.cache
def _mixed(kind: Any, mixin: Any) -> Any:
    """A class with Pyro's methods, too; those of torch and bslfast come first."""
    if issubclass(kind, mixin):
        return kind
    own = {"__module__": __name__, "__doc__": kind.__doc__, "__reduce__": _reduced}
    return types.new_class(kind.__name__, (kind, mixin), {}, lambda body: body.update(own))


def _reduced(self: Any) -> tuple[Any, ...]:
    """How it is pickled: no module has its class."""
    kind = type(self).__mro__[1]
    return _again, (kind, vars(self))


def _again(kind: type[Distribution], state: dict[str, Any]) -> Any:
    made: Any = pyro(kind)
    found = made.__new__(made)
    found.__dict__.update(state)
    return found
