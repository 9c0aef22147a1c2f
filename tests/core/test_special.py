"""Accuracy of csrc/core/special.h against mpmath, for every instruction set that this machine has.

The bounds here are those of docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from ops.record import isa

from bslfast._native import _cpu

Array = NDArray[np.floating]
of_each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
of_each_level = pytest.mark.parametrize("level", _cpu.isa_levels())


def apply(name: str, x: Array) -> Array:
    y = np.empty_like(x)
    _cpu.math_apply(name, x.dtype == np.float64, x.ctypes.data, y.ctypes.data, x.size)
    return y


def half_step(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.loggamma(x + 0.5) - mpmath.loggamma(x) - mpmath.log(x) / 2


def half_step_slope(x: mpmath.mpf) -> mpmath.mpf:
    return mpmath.digamma(x + 0.5) - mpmath.digamma(x) - 1 / (2 * x)


def errors(name: str, x: Array, exact: Callable[[mpmath.mpf], mpmath.mpf]) -> tuple[Array, Array]:
    """Absolute errors, and the numbers themselves."""
    with mpmath.workdps(60):
        wanted = [exact(mpmath.mpf(float(v))) for v in x]
        found = [mpmath.mpf(float(v)) for v in apply(name, x)]
        error = [float(abs(f - w)) for f, w in zip(found, wanted, strict=True)]
    return np.array(error), np.array([abs(float(w)) for w in wanted])


def points(dtype: type[np.floating]) -> Array:
    rng = np.random.default_rng(7)
    around = np.array([1, 4, 10], dtype)
    edges = [np.nextafter(around, dtype(0)), around, np.nextafter(around, dtype(99))]
    x = np.concatenate([np.exp(rng.uniform(-30, 30, 400)), rng.uniform(0.01, 20, 400), *edges])
    return x.astype(dtype)


@of_each_level
@of_each_dtype
def test_log_gamma_half_step(dtype: type[np.floating], level: str) -> None:
    """Errors are within 4 eps of max(1, result), and for large arguments within 3 eps of the
    result.
    """
    x, eps = points(dtype), np.finfo(dtype).eps
    with isa(level):
        error, size = errors("log_gamma_half_step", x, half_step)
    assert (error / np.maximum(size, 1)).max() <= 4 * eps
    large = x >= 10
    assert (error / size)[large].max() <= 3 * eps


@of_each_level
@of_each_dtype
def test_log_gamma_half_step_slope(dtype: type[np.floating], level: str) -> None:
    """Errors are within 2 eps of max(1, result), and for large arguments within 3 eps of the
    result.
    """
    x, eps = points(dtype), np.finfo(dtype).eps
    with isa(level):
        error, size = errors("log_gamma_half_step_slope", x, half_step_slope)
    assert (error / np.maximum(size, 1)).max() <= 2 * eps
    large = x >= 10
    assert (error / size)[large].max() <= 3 * eps


@of_each_level
@of_each_dtype
def test_log_one_plus_square(dtype: type[np.floating], level: str) -> None:
    """Errors are within 3 ulp of the result, also where the square would overflow."""
    rng = np.random.default_rng(7)
    bound = np.log(np.finfo(dtype).max)
    x = np.exp(np.concatenate([rng.uniform(-10, bound - 1, 400), rng.uniform(-1, 1, 400)]))
    with isa(level):
        error, size = errors("log_one_plus_square", x.astype(dtype), lambda v: mpmath.log1p(v * v))
    assert (error / size).max() <= 3 * np.finfo(dtype).eps


@of_each_level
@of_each_dtype
def test_special_values(dtype: type[np.floating], level: str) -> None:
    x = np.array([0, np.inf, np.nan], dtype)
    with isa(level):
        np.testing.assert_array_equal(apply("log_gamma_half_step", x), [-np.inf, 0, np.nan])
        np.testing.assert_array_equal(apply("log_one_plus_square", x), [0, np.inf, np.nan])


def factorial_points(dtype: type[np.floating]) -> Array:
    """Points in every region, and at the places where regions meet."""
    rng = np.random.default_rng(0)
    edge = np.array([3.0], dtype)
    parts = [
        np.arange(0, 200),
        rng.uniform(0, 3, 1500),
        rng.uniform(3, 30, 1500),
        1 + rng.uniform(-1e-3, 1e-3, 100),
        0.4616321449683622 + rng.uniform(-1e-3, 1e-3, 100),
        np.exp(rng.uniform(-80, 80, 300)),
        [0.0, 1e-30, 1e-10, 2.9999999, 3e30],
    ]
    x = np.concatenate([np.asarray(p, np.float64) for p in parts]).astype(dtype)
    return np.concatenate([x, np.nextafter(edge, dtype(0)), edge])


def errors_in_eps(name: str, dtype: type[np.floating]) -> tuple[Array, Array]:
    """Errors in eps, relative to the result and to the result + 1; the worst of all levels."""
    x = factorial_points(dtype)
    with mpmath.workdps(60):
        exact = [
            mpmath.loggamma(1 + mpmath.mpf(float(v)))
            if name == "log_factorial"
            else mpmath.digamma(1 + mpmath.mpf(float(v)))
            for v in x
        ]
        relative, absolute = [], []
        for level in _cpu.isa_levels():
            with isa(level):
                y = apply(name, x)
            eps = float(np.finfo(dtype).eps)
            off = [abs(mpmath.mpf(float(a)) - e) / eps for a, e in zip(y, exact, strict=True)]
            relative.append(
                [float(o / abs(e)) if e else float(o) for o, e in zip(off, exact, strict=True)]
            )
            absolute.append([float(o / (abs(e) + 1)) for o, e in zip(off, exact, strict=True)])
    return np.max(relative, axis=0), np.max(absolute, axis=0)


@of_each_dtype
def test_log_factorial(dtype: type[np.floating]) -> None:
    """Errors are relative to the result, also next to the zeros at 0 and 1."""
    relative, _ = errors_in_eps("log_factorial", dtype)
    assert relative.max() <= 3.5, factorial_points(dtype)[relative.argmax()]


@of_each_dtype
def test_digamma(dtype: type[np.floating]) -> None:
    """Next to its zero at 0.46 the error is relative to the terms."""
    _, absolute = errors_in_eps("digamma_of_next", dtype)
    assert absolute.max() <= 4, factorial_points(dtype)[absolute.argmax()]


@of_each_level
@of_each_dtype
def test_factorial_special_values(dtype: type[np.floating], level: str) -> None:
    x = np.array([0.0, -0.0, 1.0, math.inf, math.nan, -1e-30, -2.0, -math.inf], dtype)
    with isa(level):
        found = apply("log_factorial", x)
        slope = apply("digamma_of_next", x)
    nan = math.nan
    np.testing.assert_array_equal(found, [0.0, 0.0, 0.0, math.inf, nan, nan, nan, nan])
    np.testing.assert_allclose(slope[:3], [-np.euler_gamma, -np.euler_gamma, 1 - np.euler_gamma])
    np.testing.assert_array_equal(slope[3:], [math.inf, nan, nan, nan, nan])
