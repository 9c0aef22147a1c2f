"""Reparametrised normal samples and the KL divergence, against torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, as_tuple, parametrize, run
from torch import Tensor

import bslfast.functional as BF

SIZES = {"651": 651, "65k": 1 << 16, "4M": 1 << 22}


def inputs(n: int) -> Sequence[Tensor]:
    loc = torch.randn(n, requires_grad=True)
    raw_scale = torch.randn(n, requires_grad=True)
    return loc, raw_scale


def eager_rsample_kl(loc: Tensor, raw_scale: Tensor) -> tuple[Tensor, Tensor]:
    scale = F.softplus(raw_scale)
    sample = loc + scale * torch.randn_like(loc)
    kl = (0.5 * (scale * scale + loc * loc - 1) - scale.log()).sum()
    return sample, kl


def eager_rsample(loc: Tensor, raw_scale: Tensor) -> Tensor:
    return loc + F.softplus(raw_scale) * torch.randn_like(loc)


def eager_kl(loc: Tensor, raw_scale: Tensor) -> Tensor:
    scale = F.softplus(raw_scale)
    return (0.5 * (scale * scale + loc * loc - 1) - scale.log()).sum()


def inputs_of_model(widths: Sequence[int]) -> Sequence[Tensor]:
    """All locations of a model's weights and biases, then all raw scales."""
    shapes = [s for a, b in itertools.pairwise(widths) for s in ((b, a), (b,))]
    return [torch.randn(s, requires_grad=True) for s in (*shapes, *shapes)]


def ours_many(*tensors: Tensor) -> tuple[Tensor, ...]:
    n = len(tensors) // 2
    samples, kl = BF.normal_rsample_kl_many(tensors[:n], tensors[n:])
    return *samples, kl


def eager_many(*tensors: Tensor) -> tuple[Tensor, ...]:
    n = len(tensors) // 2
    drawn = [eager_rsample_kl(*pair) for pair in zip(tensors[:n], tensors[n:], strict=True)]
    return *(sample for sample, _ in drawn), sum((kl for _, kl in drawn[1:]), drawn[0][1])


def inputs_of_vector(n: int) -> Sequence[Tensor]:
    """A mean, a raw scale and a factor that equations can be solved with in float32."""
    return *inputs(n), (0.3 / n**0.5 * torch.randn(n, n)).requires_grad_()


def eager_vector(loc: Tensor, raw_scale: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    scale, below = F.softplus(raw_scale), lower.tril(-1)
    noise = torch.randn_like(loc)
    sample = loc + scale * noise + below @ noise
    kl = (0.5 * (scale * scale + loc * loc - 1) - scale.log()).sum() + 0.5 * below.square().sum()
    return sample, kl


@torch.no_grad()
def check_vector(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare as :func:`check` does; noise is what the factor makes a sample of."""
    loc, raw_scale, lower = tensors
    (ours_sample, ours_kl), (peer_sample, peer_kl) = ours(*tensors), peer(*tensors)
    torch.testing.assert_close(ours_kl, peer_kl, rtol=2e-5, atol=1e-3)
    factor = (lower.tril(-1) + F.softplus(raw_scale).diag()).double()
    for sample in (ours_sample, peer_sample):
        deviation = (sample - loc).double().unsqueeze(1)
        noise = torch.linalg.solve_triangular(factor, deviation, upper=False)
        bound = 6 / noise.numel() ** 0.5
        assert abs(noise.mean().item()) < bound
        assert abs(noise.var().item() - 1) < 2**0.5 * bound


@torch.no_grad()
def check_many(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare as :func:`check` does, for each tensor and for the sum of divergences."""
    n = len(tensors) // 2
    (*ours_samples, ours_kl), (*peer_samples, peer_kl) = ours(*tensors), peer(*tensors)
    torch.testing.assert_close(ours_kl, peer_kl, rtol=2e-5, atol=1e-3)
    for pair in zip(ours_samples, peer_samples, tensors[:n], tensors[n:], strict=True):
        check_noise(*pair)


def check_noise(ours: Tensor, peer: Tensor, loc: Tensor, raw_scale: Tensor) -> None:
    for sample in (ours, peer):
        noise = ((sample - loc) / F.softplus(raw_scale)).double()
        bound = 6 / noise.numel() ** 0.5
        assert abs(noise.mean().item()) < bound
        if noise.numel() > 1:
            assert abs(noise.var().item() - 1) < 2**0.5 * bound


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare: divergences are equal, and samples of each library's own noise standard normal."""
    loc, raw_scale = tensors
    for ours_result, peer_result in zip(
        as_tuple(ours(*tensors)), as_tuple(peer(*tensors)), strict=True
    ):
        if ours_result.dim() == 0:
            torch.testing.assert_close(ours_result, peer_result, rtol=2e-5, atol=1e-3)
            continue
        check_noise(ours_result, peer_result, loc, raw_scale)


CASES = [
    Case(
        "normal_rsample_kl",
        SIZES,
        inputs,
        BF.normal_rsample_kl,
        {"torch eager": eager_rsample_kl},
        check,
    ),
    Case(
        "normal_rsample_kl_many",
        {"11-50-1": (11, 50, 1), "784-400-10": (784, 400, 10)},
        inputs_of_model,
        ours_many,
        {"torch eager": eager_many},
        check_many,
    ),
    Case(
        "multivariate_normal_rsample_kl",
        {"96": 96, "500": 500, "4000": 4000},
        inputs_of_vector,
        BF.multivariate_normal_rsample_kl,
        {"torch eager": eager_vector},
        check_vector,
    ),
    Case("normal_rsample", SIZES, inputs, BF.normal_rsample, {"torch eager": eager_rsample}, check),
    Case("normal_kl", SIZES, inputs, BF.normal_kl, {"torch eager": eager_kl}, check),
]


@parametrize(CASES)
def test_normal(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
