"""Samples, log densities and divergences of the sampled families, against torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, as_tuple, parametrize, run
from torch import Tensor
from torch.distributions import (
    Gumbel,
    HalfCauchy,
    Laplace,
    LogNormal,
    RelaxedBernoulli,
    StudentT,
    kl_divergence,
)

import bslfast.functional as BF

#: Rows and columns: latent variables of a mini-batch, and what no cache holds.
SIZES = {"128x16": (128, 16), "4096x64": (4096, 64), "16384x256": (16384, 256)}


def parameters(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)


def values_and_parameters(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randn(shape), *parameters(shape)


def distribution_rsample_log_prob(
    family: Callable[[Tensor, Tensor], Any],
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def function(loc: Tensor, raw_scale: Tensor) -> tuple[Tensor, Tensor]:
        distribution = family(loc, F.softplus(raw_scale))
        sample = distribution.rsample()
        return sample, distribution.log_prob(sample).sum(-1)

    return function


def eager_logistic(loc: Tensor, raw_scale: Tensor) -> tuple[Tensor, Tensor]:
    scale = F.softplus(raw_scale)
    z = torch.rand_like(loc).clamp(1e-7, 1 - 1e-7).logit()
    log_prob = -z - 2 * F.softplus(-z) - scale.log()
    return loc + scale * z, log_prob.sum(-1)


def eager_logistic_log_prob(x: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    scale = F.softplus(raw_scale)
    z = (x - loc) / scale
    return (-z - 2 * F.softplus(-z) - scale.log()).sum(-1)


def eager_laplace_kl(loc: Tensor, raw_scale: Tensor) -> Tensor:
    prior = Laplace(torch.zeros(()), torch.ones(()))
    return kl_divergence(Laplace(loc, F.softplus(raw_scale)), prior).sum()


def one_scale(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (torch.randn(shape, requires_grad=True),)


def eager_half_cauchy_kl(raw_scale: Tensor) -> Tensor:
    scale = F.softplus(raw_scale)
    return torch.log((scale + 1) ** 2 / (4 * scale)).sum()


def eager_half_cauchy_rsample(raw_scale: Tensor) -> Tensor:
    return HalfCauchy(F.softplus(raw_scale)).rsample()


def eager_lognormal_rsample(loc: Tensor, raw_scale: Tensor) -> Tensor:
    return LogNormal(loc, F.softplus(raw_scale)).rsample()


def positive_and_parameters(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randn(shape).exp(), *parameters(shape)


def eager_lognormal_log_prob(x: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    return LogNormal(loc, F.softplus(raw_scale)).log_prob(x).sum(-1)


def student_t_parameters(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (3 + 5 * torch.rand(shape)).requires_grad_(), *parameters(shape)


def eager_student_t_rsample(df: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    return StudentT(df, loc, F.softplus(raw_scale)).rsample()


def student_t_values(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randn(shape), *student_t_parameters(shape)


def eager_student_t_log_prob(x: Tensor, df: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    return StudentT(df, loc, F.softplus(raw_scale)).log_prob(x).sum(-1)


def relaxed_bernoulli(logits: Tensor) -> Tensor:
    return BF.relaxed_bernoulli_rsample(logits, 0.5)


def eager_relaxed_bernoulli(logits: Tensor) -> Tensor:
    return RelaxedBernoulli(torch.full((), 0.5), logits=logits).rsample()


def mc_kl(loc: Tensor, raw_scale: Tensor) -> tuple[Tensor, Tensor]:
    return BF.normal_rsample_mc_kl(loc, raw_scale, pi=0.5, sigma1=1.0, sigma2=0.1, reduction="row")


def eager_mc_kl(loc: Tensor, raw_scale: Tensor) -> tuple[Tensor, Tensor]:
    scale = F.softplus(raw_scale)
    e = torch.randn_like(loc)
    z = loc + scale * e
    log_p = torch.logaddexp(-0.5 * z * z, -50.0 * z * z + 2.302585) - 0.693147
    return z, (-0.5 * e * e - scale.log() - log_p).sum(-1)


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Of functions without noise: equal."""
    torch.testing.assert_close(ours(*tensors), peer(*tensors), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def check_samples(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Each library's noise is its own: their medians agree, and so do those of what is reported."""
    for a, b in zip(as_tuple(ours(*tensors)), as_tuple(peer(*tensors)), strict=True):
        a, b = a.double().flatten(), b.double().flatten()
        assert a.shape == b.shape
        quartiles = torch.tensor([0.25, 0.75], dtype=torch.float64)
        spread = torch.quantile(b[:1_000_000], quartiles).diff().item()
        distance = abs((a.median() - b.median()).item())
        assert distance < 10 * spread / a.numel() ** 0.5


CASES = [
    Case(
        "laplace_rsample_log_prob",
        SIZES,
        parameters,
        BF.laplace_rsample_log_prob,
        {"torch eager": distribution_rsample_log_prob(Laplace)},
        check_samples,
    ),
    Case(
        "logistic_rsample_log_prob",
        SIZES,
        parameters,
        BF.logistic_rsample_log_prob,
        {"torch eager": eager_logistic},
        check_samples,
    ),
    Case(
        "logistic_log_prob",
        SIZES,
        values_and_parameters,
        BF.logistic_log_prob,
        {"torch eager": eager_logistic_log_prob},
        check,
    ),
    Case(
        "gumbel_rsample_log_prob",
        SIZES,
        parameters,
        BF.gumbel_rsample_log_prob,
        {"torch eager": distribution_rsample_log_prob(Gumbel)},
        check_samples,
    ),
    Case("laplace_kl", SIZES, parameters, BF.laplace_kl, {"torch eager": eager_laplace_kl}, check),
    Case(
        "half_cauchy_kl",
        SIZES,
        one_scale,
        BF.half_cauchy_kl,
        {"torch eager": eager_half_cauchy_kl},
        check,
    ),
    Case(
        "half_cauchy_rsample",
        SIZES,
        one_scale,
        BF.half_cauchy_rsample,
        {"torch eager": eager_half_cauchy_rsample},
        check_samples,
    ),
    Case(
        "lognormal_rsample",
        SIZES,
        parameters,
        BF.lognormal_rsample,
        {"torch eager": eager_lognormal_rsample},
        check_samples,
    ),
    Case(
        "lognormal_log_prob",
        SIZES,
        positive_and_parameters,
        BF.lognormal_log_prob,
        {"torch eager": eager_lognormal_log_prob},
        check,
    ),
    Case(
        "student_t_rsample",
        SIZES,
        student_t_parameters,
        BF.student_t_rsample,
        {"torch eager": eager_student_t_rsample},
        check_samples,
    ),
    Case(
        "student_t_log_prob",
        SIZES,
        student_t_values,
        BF.student_t_log_prob,
        {"torch eager": eager_student_t_log_prob},
        check,
    ),
    Case(
        "relaxed_bernoulli_rsample",
        SIZES,
        one_scale,
        relaxed_bernoulli,
        {"torch eager": eager_relaxed_bernoulli},
        check_samples,
    ),
    Case(
        "normal_rsample_mc_kl",
        SIZES,
        parameters,
        mc_kl,
        {"torch eager": eager_mc_kl},
        check_samples,
    ),
]


@parametrize(CASES)
def test_distributions(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
