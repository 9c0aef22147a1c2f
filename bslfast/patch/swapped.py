"""Functions of peers that bslfast's ops take the place of, for a while."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF


class Swap(NamedTuple):
    """A function that is swapped.

    Attributes:
        modules: of the peer, in which it is known.
        name: of the function there.
        make: (the peer's function) -> what takes its place.
    """

    modules: tuple[str, ...]
    name: str
    make: Callable[[Callable[..., Any]], Callable[..., Any]]


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
        if tails != "linear" or isinstance(tail_bound, Tensor) or not _takes(given, least):
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
        if not inside or not _takes(given, least):
            return original(*given, inverse, *ends, *least)
        middle, bound = 0.5 * (left + right), 0.5 * (right - left)
        moved = (inputs - middle).clamp(-bound, bound)
        y, log_det = _spline((moved, *given[1:]), inverse, None, bound, least)
        return y + middle, log_det

    return rational_quadratic_spline


def _takes(given: tuple[Tensor, ...], least: tuple[float, ...]) -> bool:
    """Whether the op takes such tensors and numbers."""
    bins = given[1].shape[-1]
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
#: By the peer.
SWAPS: dict[str, tuple[Swap, ...]] = {
    "nflows": tuple(Swap(_NFLOWS, name, make) for name, make in _SPLINES.items()),
    "normflows": tuple(
        Swap(("normflows.utils.splines",), name, make) for name, make in _SPLINES.items()
    ),
}


class using:
    """Let functions of a peer be ops of bslfast inside of a ``with``, in all threads.

    Models stay as they are, and so do those that are made meanwhile. Of nflows and normflows these
    functions are the rational-quadratic splines: ``rational_quadratic_spline`` and
    ``unconstrained_rational_quadratic_spline``, which their couplings, autoregressive transforms
    and distribution functions call. What bslfast's op does not take, the peer's own function
    computes: other tails than linear ones, 16 bits, intervals that are not mapped onto themselves.
    At the end, also after an exception, all is as it was. :func:`convert` makes more of a model.

    Args:
        peer: ``"nflows"`` or ``"normflows"``.

    Raises:
        ValueError: another name.
        ImportError: at the beginning of the ``with``, if the peer is not installed.

    >>> import bslfast
    >>> bslfast.patch.using("flax")
    Traceback (most recent call last):
        ...
    ValueError: peer: expected one of 'nflows', 'normflows', got 'flax'
    """

    def __init__(self, peer: str) -> None:
        self.peer = _checks.choice("peer", peer, tuple(SWAPS))
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        try:
            importlib.import_module(self.peer)
        except ImportError as error:
            raise ImportError(
                f"using: expected {self.peer} to be installed, got {error}", name=self.peer
            ) from error
        for swap in SWAPS[self.peer]:
            original = getattr(importlib.import_module(swap.modules[0]), swap.name)
            replacement = swap.make(original)
            for module in map(importlib.import_module, swap.modules):
                self._before.append((module, swap.name, getattr(module, swap.name)))
                setattr(module, swap.name, replacement)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._before:
            setattr(*self._before.pop())
