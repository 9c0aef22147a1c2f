"""Where transforms are defined and what they map onto, as constraints of torch.distributions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transform_to

if TYPE_CHECKING:
    from bslfast.flows.transform import Transform

Constraint = constraints.Constraint


class _OpenInterval(constraints.interval):
    """Without its ends, where a density is 0."""

    def check(self, value: Tensor) -> Tensor:
        inside: Tensor = (self.lower_bound < value) & (value < self.upper_bound)
        return inside


@biject_to.register(_OpenInterval)  # type: ignore[untyped-decorator]
@transform_to.register(_OpenInterval)  # type: ignore[untyped-decorator]
def _onto_open_interval(constraint: _OpenInterval) -> Any:
    return biject_to(constraints.interval(constraint.lower_bound, constraint.upper_bound))


class Defined(Constraint):
    """Where a transform and the density that comes through it are finite: it is tried out."""

    event_dim = 1

    def __init__(self, transform: Transform, context: Tensor | None = None) -> None:
        self.transform, self.context = transform, context

    @torch.no_grad()
    def check(self, value: Tensor) -> Tensor:
        z, log_det = self.transform(value, self.context)
        finite: Tensor = z.isfinite().all(dim=-1) & log_det.isfinite()
        return finite

    def __repr__(self) -> str:
        return f"Defined({type(self.transform).__name__})"


def between(low: float, high: float, *, closed: bool = False) -> Constraint:
    """Vectors of numbers between ``low`` and ``high``; these belong to it if it is closed."""
    kind: Callable[..., Constraint] = constraints.interval if closed else _OpenInterval
    return constraints.independent(kind(low, high), 1)


POSITIVE: Constraint = constraints.independent(constraints.positive, 1)


def mapped_inside(
    function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor, domain: Constraint
) -> tuple[Tensor, Tensor]:
    """``function(x)``, and where ``x`` is outside of ``domain`` a log-determinant of -inf.

    What is outside is mapped as the nearest number inside is, and gets no gradient: NaN would
    spread through what follows. A NaN stays one.
    """
    ends = nearest_ends(domain, x.dtype)
    if ends is None:
        return function(x)
    nearest = x.clamp(*ends)
    z, log_det = function(nearest)
    # Several times as fast as (nearest != x).any(dim=-1).
    outside = (nearest.detach() - x.detach()).abs_().sum(dim=-1) != 0
    return z, torch.where(outside, log_det - math.inf, log_det)


def nearest_ends(domain: Constraint, dtype: torch.dtype) -> tuple[float, float] | None:
    """The least and the greatest number inside; None of all numbers, or of what is no interval."""
    ends = _ends(domain)
    if ends is None or ends == _ALL:
        return None
    return _innermost(*ends, _is_closed(domain), dtype)


def _innermost(low: float, high: float, closed: bool, dtype: torch.dtype) -> tuple[float, float]:
    """The least and the greatest finite number between the ends, which are powers of 2 or 0."""
    info = torch.finfo(dtype)
    # Half of eps is the step from a power of 2 towards 0.
    steps = (max(0.5 * info.eps * abs(end), info.smallest_normal * info.eps) for end in (low, high))
    inner = (low, high) if closed else (low + next(steps), high - next(steps))
    return (
        inner[0] if math.isfinite(low) else info.min,
        inner[1] if math.isfinite(high) else info.max,
    )


_ALL = (-math.inf, math.inf)


def _ends(constraint: Constraint) -> tuple[float, float] | None:
    """The ends of the interval that holds every element; None if the constraint is no interval."""
    of_each = _of_each(constraint)
    if type(of_each) is type(constraints.real):
        return _ALL
    low: Any = getattr(of_each, "lower_bound", -math.inf)
    high: Any = getattr(of_each, "upper_bound", math.inf)
    return None if (low, high) == _ALL else (float(low), float(high))


def _is_closed(constraint: Constraint) -> bool:
    return type(_of_each(constraint)) is constraints.interval


def _of_each(constraint: Constraint) -> Any:
    return getattr(constraint, "base_constraint", constraint)


def _within(inner: Constraint, outer: Constraint) -> bool:
    """Whether one lies in the other, as far as intervals tell, with their ends or without."""
    a, b = _ends(inner), _ends(outer)
    return a is None or b is None or (b[0] <= a[0] and a[1] <= b[1])


class Step(NamedTuple):
    """One of the maps that a transform is made of."""

    place: str  # where it is in the transform, such as "transforms[1]"
    name: str
    domain: Constraint
    codomain: Constraint

    def inside(self, place: str) -> Step:
        """The same, seen from what has it in ``place``."""
        return self._replace(place=f"{place}.{self.place}" if self.place else place)

    def inverse(self) -> Step:
        """Its inverse."""
        name = f"Inverse({self.name})"
        return self._replace(name=name, domain=self.codomain, codomain=self.domain)

    def __str__(self) -> str:
        return f"{self.place} ({self.name})" if self.place else self.name


def forward_gap(steps: Sequence[Step]) -> str | None:
    """Where a step maps to what the next is not defined on, in words; None if it does nowhere."""
    return _gap(steps, lambda a, b: _within(a.codomain, b.domain))


def inverse_gap(steps: Sequence[Step]) -> str | None:
    """Where a step does not reach all that the next is defined on: there is no inverse of that."""
    return _gap(steps, lambda a, b: _within(b.domain, a.codomain))


def _gap(steps: Sequence[Step], fit: Callable[[Step, Step], bool]) -> str | None:
    for a, b in itertools.pairwise(steps):
        if not fit(a, b):
            return f"{a} maps onto {_words(a.codomain)} and {b} is on {_words(b.domain)}"
    return None


def _words(constraint: Constraint) -> str:
    ends = _ends(constraint)
    if ends is None:
        return repr(constraint)
    return "all numbers" if ends == _ALL else f"({ends[0]:g}, {ends[1]:g})"
