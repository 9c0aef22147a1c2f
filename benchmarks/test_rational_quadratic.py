"""Rational-quadratic splines, against nflows and the same formulas written in torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, parametrize, run
from torch import Tensor

import bslfast.functional as BF

try:
    from nflows.transforms.splines.rational_quadratic import (
        unconstrained_rational_quadratic_spline as nflows_spline,
    )
except ImportError:
    nflows_spline = None

BINS, BOUND, MIN_BIN, MIN_SLOPE = 8, 3.0, 1e-3, 1e-3
SIZES = {"512x22": (512, 22), "64x4": (64, 4), "4096x32": (4096, 32)}


def inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    x = (1.5 * torch.randn(shape)).requires_grad_()
    parameters = torch.randn(*shape, 3 * BINS - 1)
    return x, *(
        p.contiguous().requires_grad_() for p in parameters.split([BINS, BINS, BINS - 1], -1)
    )


def eager(
    x: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """The usual hand-written version: no masks, one pass, the textbook's formulas."""
    inside = (x >= -BOUND) & (x <= BOUND)
    z = x.clamp(-BOUND, BOUND)

    def knots(logits: Tensor) -> Tensor:
        sizes = 2 * BOUND * (MIN_BIN + (1 - MIN_BIN * BINS) * logits.softmax(-1))
        inner = F.pad(sizes.cumsum(-1)[..., :-1] - BOUND, (1, 0), value=-BOUND)
        return F.pad(inner, (0, 1), value=BOUND)

    xs, ys = knots(widths), knots(heights)
    slopes = F.pad(MIN_SLOPE + F.softplus(derivatives), (1, 1), value=1.0)
    index = (z.unsqueeze(-1) >= (ys if inverse else xs)[..., 1:-1]).sum(-1, keepdim=True)

    def at(values: Tensor, offset: int = 0) -> Tensor:
        return values.gather(-1, index + offset).squeeze(-1)

    x0, y0, d0, d1 = at(xs), at(ys), at(slopes), at(slopes, 1)
    w, h = at(xs, 1) - x0, at(ys, 1) - y0
    s = h / w
    if inverse:
        rise = z - y0
        a = rise * (d0 + d1 - 2 * s) + h * (s - d0)
        b = h * d0 - rise * (d0 + d1 - 2 * s)
        c = -s * rise
        xi = 2 * c / (-b - (b * b - 4 * a * c).clamp(min=0).sqrt())
        y = xi * w + x0
    else:
        xi = (z - x0) / w
    cross = xi * (1 - xi)
    den = s + (d0 + d1 - 2 * s) * cross
    if not inverse:
        y = y0 + h * (s * xi * xi + d0 * cross) / den
    log_det = (s * s * (d1 * xi * xi + 2 * s * cross + d0 * (1 - xi) ** 2)).log() - 2 * den.log()
    log_det = torch.where(inside, -log_det if inverse else log_det, 0.0)
    return torch.where(inside, y, x), log_det.sum(-1)


def nflows(
    x: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    y, log_det = nflows_spline(x, widths, heights, derivatives, inverse=inverse, tail_bound=BOUND)
    return y, log_det.sum(-1)


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    # The peers lose digits next to knots, where their log-determinant may be off by a nat.
    for a, b in zip(ours(*tensors), peer(*tensors), strict=True):
        error = (a - b).abs()
        assert error.median() < 1e-4
        assert error.max() < 2


def _case(name: str, inverse: bool) -> Case:
    peers: dict[str, Function] = {"torch eager": partial(eager, inverse=inverse)}
    if nflows_spline is not None:
        peers["nflows"] = partial(nflows, inverse=inverse)
    ours = partial(BF.rational_quadratic_spline, inverse=inverse)
    return Case(name, SIZES, inputs, ours, peers, check)


CASES = [
    _case("rational_quadratic_spline", inverse=False),
    _case("rational_quadratic_spline inverse", inverse=True),
]


@parametrize(CASES)
def test_rational_quadratic(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
