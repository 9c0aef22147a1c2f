"""Reparametrised normal samples and the KL divergence, against torch."""

from __future__ import annotations

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


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Divergences are equal; samples, whose noise is each library's own, are standard normal."""
    loc, raw_scale = tensors
    for ours_result, peer_result in zip(
        as_tuple(ours(*tensors)), as_tuple(peer(*tensors)), strict=True
    ):
        if ours_result.dim() == 0:
            torch.testing.assert_close(ours_result, peer_result, rtol=2e-5, atol=1e-3)
            continue
        for sample in (ours_result, peer_result):
            noise = ((sample - loc) / F.softplus(raw_scale)).double()
            bound = 6 / noise.numel() ** 0.5
            assert abs(noise.mean().item()) < bound
            assert abs(noise.var().item() - 1) < 2**0.5 * bound


CASES = [
    Case(
        "normal_rsample_kl",
        SIZES,
        inputs,
        BF.normal_rsample_kl,
        {"torch eager": eager_rsample_kl},
        check,
    ),
    Case("normal_rsample", SIZES, inputs, BF.normal_rsample, {"torch eager": eager_rsample}, check),
    Case("normal_kl", SIZES, inputs, BF.normal_kl, {"torch eager": eager_kl}, check),
]


@parametrize(CASES)
def test_normal(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
