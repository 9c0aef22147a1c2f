"""Accuracy of csrc/core/log_factorial.h, for every instruction set that this machine has."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from ops.record import isa

from bslfast._native import _cpu

Array = NDArray[np.floating]
DTYPES = [np.float32, np.float64]


def apply(name: str, x: Array) -> Array:
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    _cpu.math_apply(name, x.dtype == np.float64, x.ctypes.data, y.ctypes.data, x.size)
    return y


def points(dtype: type[np.floating]) -> Array:
    """Every region and the places where one meets the next."""
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


def errors(name: str, dtype: type[np.floating]) -> tuple[Array, Array]:
    """Errors in units of eps, relative to the result and to the result + 1; all levels' worst."""
    x = points(dtype)
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


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_factorial(dtype: type[np.floating]) -> None:
    """Relative to the result, so right next to the zeros at 0 and 1 as well."""
    relative, _ = errors("log_factorial", dtype)
    assert relative.max() <= 3.5, points(dtype)[relative.argmax()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_digamma(dtype: type[np.floating]) -> None:
    """Next to its zero at 0.46 the error is one of the terms."""
    _, absolute = errors("digamma_of_next", dtype)
    assert absolute.max() <= 4, points(dtype)[absolute.argmax()]


@pytest.mark.parametrize("level", _cpu.isa_levels())
@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype: type[np.floating], level: str) -> None:
    x = np.array([0.0, -0.0, 1.0, math.inf, math.nan, -1e-30, -2.0, -math.inf], dtype)
    with isa(level):
        found = apply("log_factorial", x)
        slope = apply("digamma_of_next", x)
    nan = math.nan
    np.testing.assert_array_equal(found, [0.0, 0.0, 0.0, math.inf, nan, nan, nan, nan])
    np.testing.assert_allclose(slope[:3], [-np.euler_gamma, -np.euler_gamma, 1 - np.euler_gamma])
    np.testing.assert_array_equal(slope[3:], [math.inf, nan, nan, nan, nan])
