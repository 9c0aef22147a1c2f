"""Known failures. A test fails if an entry's example no longer fails: then delete the entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.calls import Plan


@dataclass(frozen=True)
class Known:
    """A fault: its reason, a case that shows it, and whether other cases may fail for it."""

    reason: str
    example: Any
    covers: Callable[[Any], bool]


def _extreme(case: Any, *parts: str) -> bool:
    """A call with chosen values of an op whose name has one of these parts."""
    return isinstance(case, Plan) and bool(case.values) and any(p in case.op for p in parts)


KNOWN: list[Known] = [
    Known(
        "planar: a huge u loses what is left of it along w",
        Plan(*("planar", "wide", (1,), 283144), values=(("u", 0.0, 1e10),)),
        lambda case: _extreme(case, "planar"),
    ),
    Known(
        "Bernstein polynomials with a step of which float32 holds a few bits only",
        Plan(
            *("bernstein_transform", "inverse-none-degree_2", (15,)),
            layouts={"x": "expanded"},
            values=(("raw_coefficients", 0.16472331056068723, -200.0), ("x", 0.0, -1e6)),
        ),
        lambda case: _extreme(case, "bernstein"),
    ),
    Known(
        "Monte-Carlo divergences from priors with heavy tails where the scale overflows",
        Plan(
            *("normal_rsample_mc_kl", "laplace-log_scale-none", ()),
            options={"prior": "student_t"},
            values=(("raw_scale", 0.0, 200.0),),
        ),
        lambda case: (
            isinstance(case, Plan)
            and case.op == "normal_rsample_mc_kl"
            and any(name == "raw_scale" and value > 80 for name, _, value in case.values)
        ),
    ),
]
