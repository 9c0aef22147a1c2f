"""What is known to fail. An entry whose example has become right makes a test fail: delete it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fuzz.arguments import Wrong
from fuzz.calls import Plan
from fuzz.files import File
from fuzz.modules import Module


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
        "backward of normal samples with a sample_shape of ones",
        Plan("normal_rsample", "softplus-samples", (16,), options={"sample_shape": (1,)}),
        lambda case: (
            isinstance(case, Plan)
            and case.op in ("normal_rsample", "normal_rsample_kl")
            and math.prod(case.options.get("sample_shape", ())) == 1
        ),
    ),
    Known(
        "models and distributions that draw one normal sample",
        Module("BayesLinear", 252035),
        lambda case: (
            isinstance(case, Module)
            and case.kind in ("BayesLinear", "BayesianMLP", "VAE", "Normal", "LogNormal")
        ),
    ),
    Known(
        "log densities at tiny and huge scales",
        Plan(
            *("laplace_log_prob", "softplus-none-scalar_scale", (67, 31), 938718, "float16"),
            values=(("raw_scale", 0.0, -200.0),),
        ),
        lambda case: (
            _extreme(case, "log_prob")
            and not _extreme(case, "rsample", "poisson", "discretized", "bernoulli", "categorical")
        ),
    ),
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
        "gradient of log-normal samples where the scale overflows",
        Plan(
            *("lognormal_rsample", "log_var-scalar_raw", (), 49118, "bfloat16"),
            values=(("raw_scale", 0.0, 1000.0),),
            grads=("ones", "none"),
        ),
        lambda case: _extreme(case, "lognormal_rsample"),
    ),
    Known(
        "mixtures of logistics and of sigmoids at extremes",
        Plan(
            *("mixture_logistic_transform", "none-one_component", (2, 2), 378925),
            values=(("log_scale", 0.384880936939051, -88.0),),
        ),
        lambda case: _extreme(case, "mixture_logistic", "deep_sigmoidal"),
    ),
    Known(
        "discretised logistics and their mixtures at extremes",
        Plan(
            *("discretized_logistic_mixture_log_prob", "none-one_component", ()),
            values=(("raw_log_scale", 0.0, -88.0),),
        ),
        lambda case: _extreme(case, "discretized"),
    ),
    Known(
        "the reference's gradient of the Poisson log probability by x stops at a log rate of 1000",
        Plan(
            *("poisson_log_prob", "none-column_x", (), 0, "float64"),
            values=(("log_rate", 0.0, 1e7),),
        ),
        lambda case: _extreme(case, "poisson"),
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
        "radial: a huge alpha loses digits of the small map that is left",
        Plan(
            *("radial", "column", (1,)),
            values=(("raw_alpha", 0.0, 1e18), ("z", 0.0, 1e6)),
        ),
        lambda case: _extreme(case, "radial"),
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
    Known(
        "divergence of many normal tensors in 16 bits: a sum of rounded ones",
        Plan(*("normal_rsample_kl_many", "two", (5, 4), 170380, "bfloat16")),
        lambda case: (
            isinstance(case, Plan)
            and case.op == "normal_rsample_kl_many"
            and case.dtype in ("bfloat16", "float16")
        ),
    ),
    Known(
        "bayes_linear calls its own raw_scale wrong, not the argument it came from",
        Wrong("bayes_linear", (("parametrization", "'scale'"),), "bias"),
        lambda case: getattr(case, "op", "") == "bayes_linear",
    ),
    Known(
        "numbers that float32 does not hold are a RuntimeError without a name",
        Wrong("laplace_kl", (("prior_loc", "1e+300"),), "softplus-sum"),
        lambda case: (
            (isinstance(case, Wrong) and "1e+300" in dict(case.replaced).values())
            or (isinstance(case, Module) and case.wrong == "1e+300")
        ),
    ),
    Known(
        "a checkpoint's tensors and state are not checked",
        File("checkpoint", 919719605),
        lambda case: isinstance(case, File) and case.kind == "checkpoint",
    ),
    Known(
        "a gzip file is unpacked whole, however much it holds",
        File("idx.gz", 616984707),
        lambda case: isinstance(case, File) and case.damage == "bomb",
    ),
]
