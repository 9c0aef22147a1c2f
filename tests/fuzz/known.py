"""What is known to fail. An entry whose example has become right makes a test fail: delete it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.calls import Plan


@dataclass(frozen=True)
class Known:
    """A fault: why, a case that shows it, and whether another case may fail for it."""

    reason: str
    example: Any
    covers: Callable[[Any], bool]


def _extreme(case: Any, *parts: str) -> bool:
    """A call with chosen values of an op whose name has one of these parts."""
    return isinstance(case, Plan) and bool(case.values) and any(p in case.op for p in parts)


KNOWN: list[Known] = [
    Known(
        "gradients of samples' log densities where the scale overflows",
        Plan(
            "logistic_rsample_log_prob",
            "log_scale-sum-row_raw-samples",
            (),
            values=(("raw_scale", 0.0, 100.0),),
            grads=("none", "ones"),
        ),
        lambda case: _extreme(case, "rsample_log_prob"),
    ),
    Known(
        "affine coupling: gradient of the shift where the inverse's exponential overflows",
        Plan(
            *("affine_coupling", "exp-inverse-row-row_parameters", (1,)),
            values=(("raw_scale", 0.0, -1e30),),
            needs=("shift",),
            grads=("none", "ones"),
        ),
        lambda case: _extreme(case, "affine_coupling"),
    ),
    Known(
        "planar: a huge u loses what is left of it along w",
        Plan(*("planar", "wide", (1,), 283144), values=(("u", 0.0, 1e10),)),
        lambda case: _extreme(case, "planar"),
    ),
    Known(
        "gradient of normal divergences where the scale's square overflows",
        Plan(
            *("normal_rsample_kl_many", "two", ()),
            values=(("second_raw_scale", 0.0, 1e30),),
            grads=("ones",),
        ),
        lambda case: _extreme(case, "normal_kl", "normal_rsample_kl"),
    ),
    Known(
        "ratios of scales by logarithms, whose rounding is multiplied by their size",
        Plan(
            *("laplace_kl", "log_var-row-wide_prior", (1,), 1),
            values=(("prior_scale", 0.0, 1e-30),),
        ),
        lambda case: _extreme(case, "laplace_kl", "half_cauchy_kl"),
    ),
    Known(
        "Student's t samples of a tiny df overflow before they have to",
        Plan(
            *("student_t_rsample", "log_var-scalar_df", (23,), 69779),
            values=(("df", 0.0, 1e-4),),
        ),
        lambda case: _extreme(case, "student_t_rsample"),
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
        "Monte-Carlo divergences of scales that overflow; the horseshoe's in float64",
        Plan(
            *("normal_rsample_mc_kl", "laplace-log_scale-none", ()),
            options={"prior": "student_t"},
            values=(("raw_scale", 0.0, 200.0),),
        ),
        lambda case: isinstance(case, Plan) and case.op == "normal_rsample_mc_kl",
    ),
]
