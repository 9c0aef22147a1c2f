"""The maps of normalizing flows that are not couplings by half, against torch."""

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


def line(shape: tuple[int, int]) -> Sequence[Tensor]:
    return [torch.randn(shape, requires_grad=True)]


def unit(shape: tuple[int, int]) -> Sequence[Tensor]:
    return [(0.05 + 0.9 * torch.rand(shape)).requires_grad_()]


def planar_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    """One plane for all vectors."""
    plane = torch.randn(2, shape[1]) / shape[1] ** 0.5
    return [
        t.detach().clone().requires_grad_() for t in (torch.randn(shape), *plane, torch.ones(()))
    ]


def own_planes(shape: tuple[int, int]) -> Sequence[Tensor]:
    """A plane for each vector, as from an encoder."""
    vectors = torch.randn(3, *shape) / shape[1] ** 0.5
    return [t.detach().clone().requires_grad_() for t in (*vectors, torch.ones(shape[0]))]


def radial_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    z0, numbers = torch.randn(shape[1]), torch.randn(2)
    return [t.detach().clone().requires_grad_() for t in (torch.randn(shape), z0, *numbers)]


def eager_planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    wu = (w * u).sum(-1, keepdim=True)
    u = u + (F.softplus(wu) - 1 - wu) * w / (w * w).sum(-1, keepdim=True)
    t = torch.tanh((z @ w if w.dim() == 1 else (z * w).sum(-1)) + b)
    return z + t.unsqueeze(-1) * u, torch.log(1 + (1 - t * t) * (w * u).sum(-1))


def eager_radial(
    z: Tensor, z0: Tensor, raw_alpha: Tensor, raw_beta: Tensor
) -> tuple[Tensor, Tensor]:
    alpha = F.softplus(raw_alpha)
    beta = F.softplus(raw_beta) - alpha
    away = z - z0
    r = away.norm(dim=-1)
    h = 1 / (alpha + r)
    log_det = (z.shape[-1] - 1) * torch.log1p(beta * h) + torch.log1p(beta * h - beta * h * h * r)
    return z + (beta * h).unsqueeze(-1) * away, log_det


def eager_leaky_relu(x: Tensor) -> tuple[Tensor, Tensor]:
    log_slope = torch.where(x < 0, -4.605170185988091, 0.0)
    return F.leaky_relu(x, 0.01), log_slope.sum(-1)


def eager_tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    """The formula of torch.distributions.TanhTransform."""
    return torch.tanh(x), (2 * (0.6931471805599453 - x - F.softplus(-2 * x))).sum(-1)


def eager_atanh(y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.atanh(y), -torch.log1p(-y * y).sum(-1)


def eager_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(x), -(F.softplus(-x) + F.softplus(x)).sum(-1)


def eager_logit(y: Tensor) -> tuple[Tensor, Tensor]:
    x = y.log() - (-y).log1p()
    return x, (F.softplus(-x) + F.softplus(x)).sum(-1)


def eager_softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(x), -F.softplus(-x).sum(-1)


def eager_softplus_inverse(y: Tensor) -> tuple[Tensor, Tensor]:
    log = (-torch.expm1(-y)).log()
    return y + log, -log.sum(-1)


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    for a, b in zip(ours(*tensors), peer(*tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _inverse(function: Function) -> Function:
    return partial(function, inverse=True)


CASES = [
    Case(name, SIZES, inputs, ours, {"torch eager": eager}, check)
    for name, inputs, ours, eager in (
        ("leaky_relu_transform", line, BF.leaky_relu_transform, eager_leaky_relu),
        ("tanh_transform", line, BF.tanh_transform, eager_tanh),
        ("tanh_transform inverse", unit, _inverse(BF.tanh_transform), eager_atanh),
        ("sigmoid_transform", line, BF.sigmoid_transform, eager_sigmoid),
        ("sigmoid_transform inverse", unit, _inverse(BF.sigmoid_transform), eager_logit),
        ("softplus_transform", line, BF.softplus_transform, eager_softplus),
        (
            "softplus_transform inverse",
            unit,
            _inverse(BF.softplus_transform),
            eager_softplus_inverse,
        ),
        ("planar", planar_inputs, BF.planar, eager_planar),
        ("planar, own planes", own_planes, BF.planar, eager_planar),
        ("radial", radial_inputs, BF.radial, eager_radial),
    )
]


@parametrize(CASES)
def test_bijectors(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
