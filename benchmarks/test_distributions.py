"""Samples, log densities and divergences of the sampled families, against torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, as_tuple, parametrize, run
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Gumbel,
    HalfCauchy,
    Laplace,
    LogNormal,
    Normal,
    Poisson,
    RelaxedBernoulli,
    StudentT,
    VonMises,
    kl_divergence,
)

import bslfast.distributions
import bslfast.functional as BF

#: Rows and columns: latent variables of a mini-batch, up to tensors larger than any cache.
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


def distribution_rsample(
    family: Callable[[Tensor, Tensor], Any],
) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda loc, raw_scale: family(loc, F.softplus(raw_scale)).rsample()


def distribution_log_prob(
    family: Callable[[Tensor, Tensor], Any],
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda x, loc, raw_scale: family(loc, F.softplus(raw_scale)).log_prob(x).sum(-1)


def eager_logistic_rsample(loc: Tensor, raw_scale: Tensor) -> Tensor:
    return loc + F.softplus(raw_scale) * torch.rand_like(loc).clamp(1e-7, 1 - 1e-7).logit()


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


def eager_bernoulli_kl(logits: Tensor, prior_logits: Tensor) -> Tensor:
    return kl_divergence(Bernoulli(logits=logits), Bernoulli(logits=prior_logits)).sum()


def eager_generalized_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return kl_divergence(Poisson(log_p.exp()), Poisson(log_q.exp())).sum()


def one_scale(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (torch.randn(shape, requires_grad=True),)


def eager_half_cauchy_kl(raw_scale: Tensor) -> Tensor:
    scale = F.softplus(raw_scale)
    return torch.log((scale + 1) ** 2 / (4 * scale)).sum()


def positive_and_scale(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randn(shape).exp(), *one_scale(shape)


def eager_half_cauchy_log_prob(x: Tensor, raw_scale: Tensor) -> Tensor:
    return HalfCauchy(F.softplus(raw_scale)).log_prob(x).sum(-1)


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


def angles_and_parameters(shape: tuple[int, int]) -> Sequence[Tensor]:
    concentration = (0.5 + 20 * torch.rand(shape)).requires_grad_()
    return torch.randn(shape), torch.randn(shape, requires_grad=True), concentration


def eager_von_mises_log_prob(x: Tensor, loc: Tensor, concentration: Tensor) -> Tensor:
    log_prob: Tensor = VonMises(loc, concentration, validate_args=False).log_prob(x)
    return log_prob.sum(-1)


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
    """Compare functions without noise: their results are equal."""
    torch.testing.assert_close(ours(*tensors), peer(*tensors), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def check_samples(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare medians, of samples and of the other results: each library has its own noise."""
    draws = math.ceil(1000 / max(tensor.numel() for tensor in tensors))
    found, others = ([as_tuple(f(*tensors)) for _ in range(draws)] for f in (ours, peer))
    for some, theirs in zip(zip(*found, strict=True), zip(*others, strict=True), strict=True):
        a, b = (torch.stack(values).double().flatten() for values in (some, theirs))
        assert a.shape == b.shape
        quartiles = torch.tensor([0.25, 0.75], dtype=torch.float64)
        spread = torch.quantile(b[:1_000_000], quartiles).diff().item()
        distance = abs((a.median() - b.median()).item())
        assert distance < 10 * spread / a.numel() ** 0.5


def _case(
    ours: Function, inputs: Callable[[Any], Sequence[Tensor]], eager: Function, name: str = ""
) -> Case:
    name = name or ours.__name__
    checked = check_samples if "sample" in name else check
    return Case(name, SIZES, inputs, ours, {"torch eager": eager}, checked)


def _noise(ours: Callable[..., Tensor], eager: Callable[..., Tensor]) -> Case:
    """Noise by itself, with the shape of the input."""
    return Case(
        ours.__name__,
        {"64": 64, "65k": 1 << 16, "4M": 1 << 22},
        lambda size: [torch.empty(size)],
        lambda like: ours(like.shape, device=like.device),
        {"torch eager": eager},
        check_samples,
        ("forward",),
    )


def numbers(n: int) -> Sequence[Tensor]:
    """Means and standard deviations of two distributions."""
    given = [torch.randn(n), 0.5 + torch.rand(n), torch.randn(n), 0.5 + torch.rand(n)]
    return [t.requires_grad_() for t in given]


def distribution_calls(normal: Any) -> tuple[Function, Function]:
    """Calls of few elements, with the constructor and the checks of arguments."""
    return (
        lambda *p: normal(*p[:2]).rsample(),
        lambda *p: kl_divergence(normal(*p[:2]), normal(*p[2:])),
    )


def _small(name: str, ours: Function, eager: Function, inputs: Callable[..., Any]) -> Case:
    sizes = {"1": 1, "64": 64, "1000": 1000, "65k": 1 << 16}
    checked = check_samples if "sample" in name else check
    return Case(name, sizes, inputs, ours, {"torch eager": eager}, checked, ("forward", "both"))


_OURS, _TORCHS = distribution_calls(bslfast.distributions.Normal), distribution_calls(Normal)

CASES = [
    _small("Normal(loc, scale).rsample()", _OURS[0], _TORCHS[0], lambda n: numbers(n)[:2]),
    _small("kl_divergence(Normal, Normal)", _OURS[1], _TORCHS[1], numbers),
    _small(
        "bernoulli_log_prob of few",
        lambda logits, x: BF.bernoulli_log_prob(x, logits, reduction="none"),
        lambda logits, x: -F.binary_cross_entropy_with_logits(logits, x, reduction="none"),
        lambda n: (torch.randn(n, requires_grad=True), torch.rand(n)),
    ),
    _noise(BF.standard_normal, torch.randn_like),
    _noise(BF.standard_uniform, torch.rand_like),
    _case(BF.laplace_rsample_log_prob, parameters, distribution_rsample_log_prob(Laplace)),
    _case(BF.laplace_rsample, parameters, distribution_rsample(Laplace)),
    _case(BF.laplace_log_prob, values_and_parameters, distribution_log_prob(Laplace)),
    _case(BF.logistic_rsample_log_prob, parameters, eager_logistic),
    _case(BF.logistic_rsample, parameters, eager_logistic_rsample),
    _case(BF.logistic_log_prob, values_and_parameters, eager_logistic_log_prob),
    _case(BF.gumbel_rsample_log_prob, parameters, distribution_rsample_log_prob(Gumbel)),
    _case(BF.gumbel_rsample, parameters, distribution_rsample(Gumbel)),
    _case(BF.gumbel_log_prob, values_and_parameters, distribution_log_prob(Gumbel)),
    _case(BF.laplace_kl, parameters, eager_laplace_kl),
    _case(BF.half_cauchy_kl, one_scale, eager_half_cauchy_kl),
    _case(BF.bernoulli_kl, parameters, eager_bernoulli_kl),
    _case(BF.generalized_kl, parameters, eager_generalized_kl),
    _case(BF.half_cauchy_rsample, one_scale, eager_half_cauchy_rsample),
    _case(BF.half_cauchy_log_prob, positive_and_scale, eager_half_cauchy_log_prob),
    _case(BF.lognormal_rsample, parameters, eager_lognormal_rsample),
    _case(BF.lognormal_log_prob, positive_and_parameters, eager_lognormal_log_prob),
    _case(BF.student_t_rsample, student_t_parameters, eager_student_t_rsample),
    _case(BF.student_t_log_prob, student_t_values, eager_student_t_log_prob),
    _case(BF.von_mises_log_prob, angles_and_parameters, eager_von_mises_log_prob),
    _case(relaxed_bernoulli, one_scale, eager_relaxed_bernoulli, "relaxed_bernoulli_rsample"),
    _case(BF.normal_rsample_log_prob, parameters, distribution_rsample_log_prob(Normal)),
    _case(mc_kl, parameters, eager_mc_kl, "normal_rsample_mc_kl"),
]


@parametrize(CASES)
def test_distributions(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
