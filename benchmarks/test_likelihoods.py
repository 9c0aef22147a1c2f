"""Log likelihoods from the outputs of a network, against torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, parametrize, run
from torch import Tensor

import bslfast.functional as BF

#: Rows and columns: a mini-batch of MNIST, and one larger than any cache.
IMAGES = {"128x784": (128, 784), "8192x784": (8192, 784)}
#: Rows and classes.
CLASSES = {"128x10": (128, 10), "65kx10": (1 << 16, 10), "4096x1000": (4096, 1000)}


def bernoulli_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (torch.rand(shape) > 0.5).float(), torch.randn(shape, requires_grad=True)


def eager_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)


def normal_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (
        torch.randn(shape),
        torch.randn(shape, requires_grad=True),
        torch.randn(shape, requires_grad=True),
    )


def normal_log_prob(x: Tensor, loc: Tensor, log_var: Tensor) -> Tensor:
    return BF.normal_log_prob(x, loc, log_var, parametrization="log_var")


def eager_normal(x: Tensor, loc: Tensor, log_var: Tensor) -> Tensor:
    z = (x - loc) * torch.exp(-0.5 * log_var)
    return (-0.5 * (z * z + log_var) - 0.9189385332046727).sum(-1)


def categorical_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return torch.randint(shape[1], shape[:1]), torch.randn(shape, requires_grad=True)


def eager_categorical(index: Tensor, logits: Tensor) -> Tensor:
    return -F.cross_entropy(logits, index, reduction="none")


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    torch.testing.assert_close(ours(*tensors), peer(*tensors), rtol=1e-4, atol=1e-3)


CASES = [
    Case(
        "bernoulli_log_prob",
        IMAGES,
        bernoulli_inputs,
        BF.bernoulli_log_prob,
        {"torch eager": eager_bernoulli},
        check,
    ),
    Case(
        "normal_log_prob",
        IMAGES,
        normal_inputs,
        normal_log_prob,
        {"torch eager": eager_normal},
        check,
    ),
    Case(
        "categorical_log_prob",
        CLASSES,
        categorical_inputs,
        BF.categorical_log_prob,
        {"torch eager": eager_categorical},
        check,
    ),
]


@parametrize(CASES)
def test_likelihoods(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
