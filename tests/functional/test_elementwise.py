"""Tests of elementwise maps beyond tests/ops: relative errors against mpmath, the inverse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast._native import _cpu

SLOPE = 0.25  # exact in every dtype
# Name to (the op, the map, its inverse and the logarithms of their derivatives by mpmath).
MAPS: dict[str, tuple[Callable[..., Any], Any, Any, Any, Any]] = {
    "leaky_relu": (
        partial(BF.leaky_relu_transform, negative_slope=SLOPE),
        lambda x: x if x >= 0 else SLOPE * x,
        lambda y: y if y >= 0 else y / SLOPE,
        lambda x: mpmath.mpf(0) if x >= 0 else mpmath.log(SLOPE),
        lambda y: mpmath.mpf(0) if y >= 0 else -mpmath.log(SLOPE),
    ),
    "tanh": (
        BF.tanh_transform,
        mpmath.tanh,
        mpmath.atanh,
        lambda x: -2 * mpmath.log(mpmath.cosh(x)),
        lambda y: -mpmath.log1p(-y * y),
    ),
    "sigmoid": (
        BF.sigmoid_transform,
        lambda x: 1 / (1 + mpmath.exp(-x)),
        lambda y: mpmath.log(y / (1 - y)),
        lambda x: -abs(x) - 2 * mpmath.log1p(mpmath.exp(-abs(x))),
        lambda y: -mpmath.log(y * (1 - y)),
    ),
    "softplus": (
        BF.softplus_transform,
        lambda x: mpmath.log1p(mpmath.exp(x)),
        lambda y: mpmath.log(mpmath.expm1(y)),
        lambda x: -mpmath.log1p(mpmath.exp(-x)),
        lambda y: mpmath.log1p(1 / mpmath.expm1(y)),
    ),
}
of_each_map = pytest.mark.parametrize("name", MAPS)
of_each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def _points(dtype: torch.dtype) -> Tensor:
    """Points of every size, dense around the places where formulas change."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(300, dtype=torch.float64, generator=generator) * 12 - 10
    middle = torch.rand(300, dtype=torch.float64, generator=generator) * 1.6
    x = torch.cat([2**size, middle, torch.tensor([0.54, 1.08, 0.25, 0.5, 0.6931, 1.4, 60.0])])
    return torch.cat([x, -x]).to(dtype)


def _error(actual: Tensor, expected: list[Any]) -> float:
    """Largest error in units of eps, relative to the result."""
    eps = torch.finfo(actual.dtype).eps
    pairs = zip(actual.double().tolist(), expected, strict=True)
    return max(float(abs(a - e) / (abs(e) * eps)) if e else abs(a) / eps for a, e in pairs)


@pytest.mark.parametrize("level", _cpu.isa_levels())
@of_each_dtype
@of_each_map
def test_relative_errors(name: str, dtype: torch.dtype, level: str) -> None:
    """Values and logarithms are right in relative terms, however small they are."""
    op, forward, inverse, log, inverse_log = MAPS[name]
    x = _points(dtype)
    # Points in the range, exact in the dtype: 0.5 +- y is not, which is why it is rounded first.
    y = {
        "leaky_relu": x,
        "tanh": x[x.abs() < 1],
        "sigmoid": torch.cat([x[(x > 0) & (x < 1)], (0.5 + x[x.abs() < 0.25] / 8)]),
        "softplus": x[x > 0],
    }[name]
    before = _cpu.isa()
    _cpu.set_isa(level)
    try:
        found = [op(x, reduction="none"), op(y, inverse=True, reduction="none")]
    finally:
        _cpu.set_isa(before)
    with mpmath.workdps(50):
        for points, (value, logs), functions in (
            (x, found[0], (forward, log)),
            (y, found[1], (inverse, inverse_log)),
        ):
            exact = [mpmath.mpf(p) for p in points.double().tolist()]
            wanted = [[f(p) for p in exact] for f in functions]
            if name == "softplus" and functions[0] is inverse:
                # y + log(1 - exp(-y)) passes through 0, where y itself is not exact to more.
                wanted_x, x_found = wanted[0], value.double().tolist()
                eps = np.finfo(np.float32 if dtype == torch.float32 else np.float64).eps
                for a, e in zip(x_found, wanted_x, strict=True):
                    assert abs(a - e) <= 4 * eps * (1 + abs(e))
            else:
                assert _error(value, wanted[0]) <= 4
            assert _error(logs, wanted[1]) <= 8


@of_each_dtype
@of_each_map
def test_inverse(name: str, dtype: torch.dtype) -> None:
    op = MAPS[name][0]
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(100, 7, dtype=dtype, generator=generator)
    x = x.clamp(-4, 4)  # beyond, y is too near its bound to hold x
    y, log_det = op(x)
    back, back_log_det = op(y, inverse=True)
    eps = torch.finfo(dtype).eps
    slope = torch.exp(-op(x, reduction="none")[1])
    assert ((back - x).abs() <= 8 * eps * (1 + slope)).all()
    assert ((back_log_det + log_det).abs() <= 8 * eps * (1 + slope.sum(-1))).all()


@of_each_map
@pytest.mark.parametrize("inverse", [False, True])
def test_log_det_is_that_of_the_map_computed(name: str, inverse: bool) -> None:
    op = MAPS[name][0]
    x = torch.tensor([0.1, 0.9, 0.3, 0.55], dtype=torch.float64)

    def y(x: Tensor) -> Tensor:
        return op(x, inverse=inverse)[0]

    log_det = op(x, inverse=inverse)[1]
    torch.testing.assert_close(log_det, torch.linalg.slogdet(torch.func.jacrev(y)(x))[1])


@pytest.mark.parametrize(
    ("name", "outside"),
    [("tanh", [-1.5, 1.5]), ("sigmoid", [-0.5, 1.5]), ("softplus", [-1.0, -1e-30])],
)
def test_outside_the_range_everything_is_nan(name: str, outside: list[float]) -> None:
    x = torch.tensor(outside, requires_grad=True)
    y, log_det = MAPS[name][0](x, inverse=True, reduction="none")
    (grad,) = torch.autograd.grad(y.sum() + log_det.sum(), x)
    for found in (y, log_det, grad):
        assert found.isnan().all()


def test_gradients_hold_in_the_tails() -> None:
    """1 - tanh(x)^2 and sigmoid's y (1 - y) are right where 1 - y is 0 in the dtype."""
    x = torch.tensor([30.0, -40.0], requires_grad=True)
    for op, expected in (
        (BF.tanh_transform, [4 * np.exp(-60.0), 4 * np.exp(-80.0)]),
        (BF.sigmoid_transform, [np.exp(-30.0), np.exp(-40.0)]),
    ):
        (grad,) = torch.autograd.grad(op(x)[0].sum(), x)
        np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-6)
