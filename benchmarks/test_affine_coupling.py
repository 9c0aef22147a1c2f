"""The affine map of coupling layers, against torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, parametrize, run
from torch import Tensor

import bslfast.functional as BF

SIZES = {"512x22": (512, 22), "4096x64": (4096, 64)}


def inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return [torch.randn(shape, requires_grad=True) for _ in range(3)]


def eager(
    x: Tensor, shift: Tensor, raw_scale: Tensor, *, scale_fn: str, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The usual hand-written version."""
    if scale_fn == "tanh":
        log_scale = 2 * torch.tanh(raw_scale / 2)
    elif scale_fn == "exp":
        log_scale = raw_scale
    else:
        log_scale = F.logsigmoid(raw_scale) + 0.6931471805599453
    if inverse:
        return (x - shift) * torch.exp(-log_scale), -log_scale.sum(-1)
    return x * torch.exp(log_scale) + shift, log_scale.sum(-1)


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    for a, b in zip(ours(*tensors), peer(*tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _case(name: str, scale_fn: str, inverse: bool) -> Case:
    options = {"scale_fn": scale_fn, "inverse": inverse}
    ours = partial(BF.affine_coupling, **options)
    return Case(name, SIZES, inputs, ours, {"torch eager": partial(eager, **options)}, check)


CASES = [
    _case("affine_coupling", "tanh", inverse=False),
    _case("affine_coupling inverse", "tanh", inverse=True),
    _case("affine_coupling exp", "exp", inverse=False),
    _case("affine_coupling sigmoid", "sigmoid", inverse=False),
]


@parametrize(CASES)
def test_affine_coupling(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
