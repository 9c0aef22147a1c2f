"""Functions and methods of peers that bslfast takes the place of, for a while."""

from __future__ import annotations

import copy
import functools
import importlib
import operator
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.patch import twins
from bslfast.patch.registry import PEERS


class Swap(NamedTuple):
    """A function that is swapped.

    Attributes:
        modules: of the peer, in which it is known.
        name: of the function there, or of a class and its method.
        make: (the peer's function) -> what takes its place.
    """

    modules: tuple[str, ...]
    name: str
    make: Callable[[Callable[..., Any]], Callable[..., Any]]

    def owners(self) -> Iterator[Any]:
        """The modules, or their classes, that have it."""
        for owner in map(importlib.import_module, self.modules):
            yield functools.reduce(getattr, self.name.split(".")[:-1], owner)


def _unconstrained(original: Callable[..., Any]) -> Callable[..., Any]:
    """nflows' spline with linear tails."""

    @functools.wraps(original)
    def unconstrained_rational_quadratic_spline(
        inputs: Tensor,
        unnormalized_widths: Tensor,
        unnormalized_heights: Tensor,
        unnormalized_derivatives: Tensor,
        inverse: bool = False,
        tails: Any = "linear",
        tail_bound: Any = 1.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
    ) -> Any:
        least = (min_bin_width, min_bin_height, min_derivative)
        given = (inputs, unnormalized_widths, unnormalized_heights, unnormalized_derivatives)
        taken = tails == "linear" and not isinstance(tail_bound, Tensor)
        if not taken or not _takes(given, least, -1):
            return original(*given, inverse, tails, tail_bound, *least)
        return _spline(given, inverse, "linear", float(tail_bound), least)

    return unconstrained_rational_quadratic_spline


def _constrained(original: Callable[..., Any]) -> Callable[..., Any]:
    """nflows' spline of an interval onto itself."""

    @functools.wraps(original)
    def rational_quadratic_spline(
        inputs: Tensor,
        unnormalized_widths: Tensor,
        unnormalized_heights: Tensor,
        unnormalized_derivatives: Tensor,
        inverse: bool = False,
        left: Any = 0.0,
        right: Any = 1.0,
        bottom: Any = 0.0,
        top: Any = 1.0,
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
    ) -> Any:
        least = (min_bin_width, min_bin_height, min_derivative)
        given = (inputs, unnormalized_widths, unnormalized_heights, unnormalized_derivatives)
        ends = (left, right, bottom, top)
        onto_itself = not any(isinstance(end, Tensor) for end in ends) and ends[:2] == ends[2:]
        inside = onto_itself and bool(((inputs >= left) & (inputs <= right)).all())
        if not inside or not _takes(given, least, 1):
            return original(*given, inverse, *ends, *least)
        middle, bound = 0.5 * (left + right), 0.5 * (right - left)
        moved = (inputs - middle).clamp(-bound, bound)
        y, log_det = _spline((moved, *given[1:]), inverse, None, bound, least)
        return y + middle, log_det

    return rational_quadratic_spline


def _takes(given: tuple[Tensor, ...], least: tuple[float, ...], more: int) -> bool:
    """Whether the op takes such tensors and numbers; ``more`` slopes than there are bins."""
    bins = given[1].shape[-1]
    if [t.shape[-1] for t in given[2:]] != [bins, bins + more]:
        return False
    sizes = all(number > 0 and number * bins < 1 for number in least[:2])
    alike = all(t.dtype == given[0].dtype and t.device == given[0].device for t in given)
    kinds = given[0].dtype in (torch.float32, torch.float64)
    return bins <= BF.rational_quadratic.MAX_BINS and sizes and least[2] > 0 and alike and kinds


def _spline(
    given: tuple[Tensor, ...],
    inverse: bool,
    tails: str | None,
    bound: float,
    least: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    x, widths, heights, derivatives = given
    return BF.rational_quadratic_spline(
        x,
        widths,
        heights,
        derivatives,
        inverse=inverse,
        tails=tails,
        bound=bound,
        min_bin_width=least[0],
        min_bin_height=least[1],
        min_derivative=least[2],
        reduction="none",
    )


_NFLOWS = (
    "nflows.transforms.splines",
    "nflows.transforms.splines.rational_quadratic",
    "nflows.transforms.autoregressive",
)
_SPLINES = {
    "rational_quadratic_spline": _constrained,
    "unconstrained_rational_quadratic_spline": _unconstrained,
}
_NFLOWS_TWINS: twins.Originals = {
    "forward": lambda module, x, context: module.forward(x, context),
    "inverse": lambda module, x, context: module.inverse(x, context),
    "log_prob": lambda module, x, context: [module._log_prob(x, context)],
}


def _transform(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of nflows' transforms."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(self: Any, inputs: Tensor, context: Any = None) -> Any:
            found = twins.compute(self, what, inputs, context, _NFLOWS_TWINS)
            return original(self, inputs, context) if found is None else tuple(found)

        return method

    return make


def _flow(original: Callable[..., Any]) -> Callable[..., Any]:
    """The density of nflows' flows."""

    @functools.wraps(original)
    def _log_prob(self: Any, inputs: Tensor, context: Any) -> Any:
        found = None
        if type(self._embedding_net) is nn.Identity:
            found = twins.compute(self, "log_prob", inputs, context, _NFLOWS_TWINS)
        return original(self, inputs, context) if found is None else found[0]

    return _log_prob


#: Its transforms lead from noise to data.
_NORMFLOWS_TWINS: twins.Originals = {
    "forward": lambda module, x, context: module.inverse(*_given(x, context)),
    "inverse": lambda module, x, context: module.forward(*_given(x, context)),
    "log_prob": lambda module, x, context: [module.log_prob(*_given(x, context))],
}


def _given(x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
    return (x,) if context is None else (x, context)


def _divergence(found: list[Tensor]) -> Tensor:
    """What normflows makes of densities, which it adds up in the default dtype for this."""
    return -torch.mean(found[0].to(torch.get_default_dtype()))


def _normflows_method(
    what: str, result: Callable[[list[Tensor]], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A method of normflows; ``result`` makes what it returns of what the twin computes."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(self: Any, x: Tensor, *args: Any, **named: Any) -> Any:
            context = args[0] if args else named.get("context")
            found = None
            if len(args) < 2 and named.keys() <= {"context"}:
                found = twins.compute(self, what, x, context, _NORMFLOWS_TWINS)
            return original(self, x, *args, **named) if found is None else result(found)

        return method

    return make


_ZUKO_TWINS: twins.Originals = {
    "forward": lambda module, x, context: module(context).call_and_ladj(x),
    "inverse": lambda module, x, context: module(context).inv.call_and_ladj(x),
}


def _zuko_composed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Zuko's composed transforms, of which a model makes one for each context."""
    module: Any = importlib.import_module("zuko.lazy")

    @functools.wraps(original)
    def forward(self: Any, c: Tensor | None = None) -> Any:
        found = original(self, c)
        if type(found) is module.ComposedTransform:
            found.__class__ = Composed
            found.made_by = self, c
        return found

    def compute(transform: Any, what: str, x: Tensor) -> Any:
        if module.LazyComposedTransform.forward is not forward:  # after the end of the swap
            return None
        lazy, c = transform.made_by
        if not isinstance(x, Tensor) or x.dim() == 0 or not x.numel():
            return None
        lead = x.shape[:-1]
        if c is not None:
            if not isinstance(c, Tensor) or c.dim() == 0:
                return None
            try:
                lead = torch.broadcast_shapes(lead, c.shape[:-1])
            except RuntimeError:  # zuko has its own
                return None
            if not (lead.numel() and c.shape[-1]):
                return None
            c = c.expand(*lead, c.shape[-1]).reshape(-1, c.shape[-1])
        rows = x.expand(*lead, x.shape[-1]).reshape(-1, x.shape[-1])
        both = twins.compute(lazy, what, rows, c, _ZUKO_TWINS)
        return None if both is None else (both[0].view(*lead, -1), both[1].view(lead))

    class Composed(module.ComposedTransform):  # type: ignore[misc]
        """One whose lazy transform has a twin."""

        what, turned = "forward", "inverse"

        def __reduce__(self) -> Any:
            """Copies and what is pickled are zuko's own."""
            own = module.ComposedTransform.__new__(module.ComposedTransform)
            vars(own).update(vars(self))
            del own.made_by
            return copy.copy, (own,)

        @property
        def inv(self) -> Any:
            found = super().inv
            found.__class__, found.made_by = Turned, self.made_by
            return found

        def call_and_ladj(self, x: Tensor) -> Any:
            found = compute(self, self.what, x)
            return super().call_and_ladj(x) if found is None else found

        def _call(self, x: Tensor) -> Any:
            found = compute(self, self.what, x)
            return super()._call(x) if found is None else found[0]

        def _inverse(self, y: Tensor) -> Any:
            found = compute(self, self.turned, y)
            return super()._inverse(y) if found is None else found[0]

    class Turned(Composed):
        """The inverse of one."""

        what, turned = "inverse", "forward"

        @property
        def inv(self) -> Any:
            found = super().inv
            found.__class__ = Composed
            return found

    return forward


_TRANSFORMS = (
    ("nflows.transforms.base", "CompositeTransform"),
    ("nflows.transforms.coupling", "CouplingTransform"),
    ("nflows.transforms.autoregressive", "AutoregressiveTransform"),
)
_NORMFLOWS_TRANSFORMS = (
    ("neural_spline.wrapper", "CoupledRationalQuadraticSpline"),
    ("neural_spline.wrapper", "AutoregressiveRationalQuadraticSpline"),
    ("affine.autoregressive", "Autoregressive"),
    ("affine.coupling", "MaskedAffineFlow"),
)
#: By the peer.
SWAPS: dict[str, tuple[Swap, ...]] = {
    "nflows": (
        *(Swap(_NFLOWS, name, make) for name, make in _SPLINES.items()),
        *(
            Swap((module,), f"{kind}.{what}", _transform(what))
            for module, kind in _TRANSFORMS
            for what in ("forward", "inverse")
        ),
        Swap(("nflows.flows.base",), "Flow._log_prob", _flow),
    ),
    "normflows": (
        *(Swap(("normflows.utils.splines",), name, make) for name, make in _SPLINES.items()),
        *(
            Swap((f"normflows.flows.{module}",), f"{kind}.{name}", _normflows_method(what, tuple))
            for module, kind in _NORMFLOWS_TRANSFORMS
            for name, what in (("inverse", "forward"), ("forward", "inverse"))
        ),
        *(
            Swap(("normflows.core",), f"{kind}.{name}", _normflows_method("log_prob", result))
            for kind in ("NormalizingFlow", "ConditionalNormalizingFlow")
            for name, result in (
                ("log_prob", operator.itemgetter(0)),
                ("forward_kld", _divergence),
            )
        ),
    ),
    "zuko": (Swap(("zuko.lazy",), "LazyComposedTransform.forward", _zuko_composed),),
}


class _Swapped:
    """What of a peer is swapped: once, however many blocks are inside of it at a time.

    Args:
        swaps: of the peer.
    """

    def __init__(self, swaps: tuple[Swap, ...]) -> None:
        self.swaps, self.blocks = swaps, 0
        self._before: list[tuple[Any, str, Any]] = []

    def begin(self) -> None:
        """Swap all, or nothing if that fails."""
        try:
            for swap in self.swaps:
                owners = list(swap.owners())
                name = swap.name.rsplit(".", 1)[-1]
                replacement = swap.make(getattr(owners[0], name))
                for owner in owners:
                    self._before.append((owner, name, getattr(owner, name)))
                    setattr(owner, name, replacement)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Put back what was there."""
        while self._before:
            setattr(*self._before.pop())


_SWAPPED = {peer: _Swapped(swaps) for peer, swaps in SWAPS.items()}
_lock = threading.Lock()


class using:
    """Let a peer compute with bslfast inside of a ``with``, in all threads.

    Models stay as they are, with their classes, parameters and states, and so do those that are
    made meanwhile. Inside, transforms and flows that :func:`convert` takes, and that are small
    dense networks on the CPU, run as one call of a kernel, on the peer's own parameters, which get
    the gradients. That holds for models that other packages make of the peer's classes, too. These
    are the methods that are swapped:

    * nflows: ``forward`` and ``inverse`` of ``CompositeTransform``, ``CouplingTransform`` and
      ``AutoregressiveTransform``; ``log_prob`` of ``Flow`` if it has no ``embedding_net``.
    * normflows: ``log_prob`` and ``forward_kld`` of the two flows; ``forward`` and ``inverse`` of
      their transforms of splines, of ``MaskedAffineAutoregressive`` and ``MaskedAffineFlow``.
    * zuko: what a ``LazyComposedTransform`` makes, and so the distribution that a flow makes.

    Everywhere else the peer's own code runs, with rational-quadratic splines of nflows and of
    normflows by bslfast's op: where a network has no counterpart, a module has hooks, torch
    transforms or compiles the call, x is no matrix (nflows, normflows), or it is not on the CPU. At
    the end, also after an exception, all is as it was; where blocks overlap, at the end of the last
    one. Calls of one module in several threads wait for each other.

    A module may be changed between calls. Before each, its weights are read, and its class, its
    attributes and those of its parts are compared with what they were. Not noticed are changes
    after a module's first call in a block:

    * of a class or of a peer's function, such as ``type(transform).method = other``;
    * inside of an attribute that is a list, a dict or another object;
    * by ``.data`` of what is no weight, such as a mask, if it has more than 1024 numbers.

    A module that has been called has an attribute ``_bslfast_twins``, which is no part of its state
    and empty in its copies.

    Bayesian layers have no swap, as they draw by other random numbers: :func:`convert` takes them.

    Args:
        peer: ``"nflows"``, ``"normflows"`` or ``"zuko"``.

    Raises:
        ValueError: another name.
        ImportError: at the beginning of the ``with``, if the peer is not installed.

    With zuko installed::

        flow = zuko.flows.NSF(3)
        with bslfast.patch.using("zuko"):
            (-flow().log_prob(x).mean()).backward()  # as one call; flow's parameters get gradients

    >>> import bslfast
    >>> bslfast.patch.using("flax")
    Traceback (most recent call last):
        ...
    ValueError: peer: expected one of 'nflows', 'normflows', 'zuko', got 'flax'
    """

    def __init__(self, peer: str) -> None:
        if isinstance(peer, str) and peer.replace("-", "_") in PEERS - SWAPS.keys():
            raise ValueError(
                f"peer: expected one of {', '.join(map(repr, SWAPS))}, got {peer!r}, whose models "
                "bslfast.patch.convert takes"
            )
        self.peer = _checks.choice("peer", peer, tuple(SWAPS))

    def __enter__(self) -> None:
        try:
            importlib.import_module(self.peer)
        except ImportError as error:
            raise ImportError(
                f"using: expected {self.peer} to be installed (pip install {self.peer}), got "
                f"{error}",
                name=self.peer,
            ) from error
        with _lock:
            swapped = _SWAPPED[self.peer]
            if not swapped.blocks:
                swapped.begin()
            swapped.blocks += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _lock:
            swapped = _SWAPPED[self.peer]
            swapped.blocks -= 1
            if not swapped.blocks:
                swapped.end()
