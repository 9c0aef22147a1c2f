"""Accuracy of csrc/core/math.h in ulp, for every instruction set that this machine has.

The bounds here are those of docs/numerics.md.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from bslfast._native import _cpu

Array = NDArray[np.floating]

# The largest error allowed, in ulp: float32, float64.
MAX_ULP = {
    "exp": (0.8, 0.8),
    "expm1": (1.32, 1.2),
    "log": (1.01, 1.0),
    "log1p": (1.02, 1.1),
    "sigmoid": (2.0, 2.0),
    "softplus": (1.6, 1.7),
    "tanh": (1.6, 1.6),
    "sinpi": (1.7, 1.7),
    "cospi": (1.7, 1.7),
}
INF, NAN = math.inf, math.nan


@contextlib.contextmanager
def isa(level: str) -> Iterator[None]:
    before = _cpu.isa()
    _cpu.set_isa(level)
    try:
        yield
    finally:
        _cpu.set_isa(before)


def apply(name: str, x: Array) -> Array:
    x = np.ascontiguousarray(x)
    y = np.empty_like(x)
    _cpu.math_apply(name, x.dtype == np.float64, x.ctypes.data, y.ctypes.data, x.size)
    return y


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def sinpi(x: Array) -> Array:
    x = np.fmod(x, 2)
    pi = 4 * np.arctan(x.dtype.type(1))
    quadrant = np.rint(2 * x)
    r = pi * (x - quadrant / 2)  # of a difference that is exact
    values = np.stack([np.sin(r), np.cos(r), -np.sin(r), -np.cos(r)])
    index = np.nan_to_num(quadrant).astype(np.int64) % 4
    return np.take_along_axis(values, index[None], axis=0)[0]


def cospi(x: Array) -> Array:
    x = np.fmod(np.abs(x), 2)
    # The half is added exactly where it matters: around the zeros at 1/2 and 3/2.
    return np.where(x < 1, sinpi(0.5 - x), -sinpi(0.5 - (x - 1)))


REFERENCE: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "tanh": np.tanh,
    "sinpi": sinpi,
    "cospi": cospi,
}


def check(name: str, x: Array) -> None:
    """Compare with the reference in the next wider type, at every level."""
    wide = np.float64 if x.dtype == np.float32 else np.longdouble
    limits = np.finfo(x.dtype)
    with np.errstate(all="ignore"):
        exact = REFERENCE[name](x.astype(wide))
        rounded = exact.astype(x.dtype)
        finite = np.isfinite(rounded)
        exact = np.where(finite, exact, 0)
        exponent = np.frexp(np.abs(exact))[1] - 1
        ulp = np.ldexp(wide(1), np.maximum(exponent, limits.minexp) - limits.nmant)
    bound = MAX_ULP[name][x.dtype == np.float64]
    for level in _cpu.isa_levels():
        with isa(level):
            y = apply(name, x)
        # Just below an overflow, an error of less than an ulp may already round to infinity.
        special = (y == rounded) | (np.isnan(y) & np.isnan(rounded))
        wrong = ~finite & ~special & ~(np.abs(y) == limits.max)
        assert not wrong.any(), (level, x[wrong][:5], y[wrong][:5])
        overflow = np.isinf(y) & (np.abs(rounded) == limits.max)
        with np.errstate(all="ignore"):
            error = np.where(finite & ~overflow, np.abs(y.astype(wide) - exact) / ulp, 0)
        assert not np.isnan(error).any(), (level, x[np.isnan(error)][:5])
        worst = error.argmax()
        assert error[worst] <= bound, (level, float(error[worst]), x[worst], y[worst])


@pytest.mark.parametrize("name", MAX_ULP)
def test_float32_over_the_whole_range(name: str) -> None:
    x = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    check(name, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAX_ULP)
def test_float32_everywhere(name: str) -> None:
    step = 2**24
    for start in range(0, 2**32, step):
        x = np.arange(start, start + step, dtype=np.uint64).astype(np.uint32).view(np.float32)
        check(name, x)


@pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="needs a long double wider than double"
)
@pytest.mark.parametrize("name", MAX_ULP)
def test_float64_over_the_whole_range(name: str) -> None:
    rng = np.random.default_rng(20240229)
    n = 200_000
    sign = rng.choice([-1.0, 1.0], n)
    x = np.concatenate(
        [
            rng.integers(0, 2**64, n, dtype=np.uint64).view(np.float64),
            rng.uniform(-750, 750, n),
            rng.uniform(-40, 40, n),
            rng.uniform(-2, 2, n),
            rng.uniform(0.4, 2.2, n),
            1 + sign * np.exp(rng.uniform(-37, 0, n)),
            sign * np.exp(rng.uniform(-745, 10, n)),
            rng.integers(-9, 9, n) / 4 + sign * np.exp(rng.uniform(-40, -1, n)),
        ]
    )
    check(name, x)


def edges(dtype: type[np.floating]) -> Array:
    limits = np.finfo(dtype)
    powers = np.ldexp(1.0, np.arange(limits.minexp - limits.nmant, limits.maxexp))
    landmarks = (0.25, 0.5, 0.55, 0.75, 1.5, math.log(2), math.log(2) / 2, 1 / 3, 10, 20)
    values = [0.0, limits.smallest_subnormal, limits.tiny, limits.eps, limits.max, *landmarks]
    x = np.concatenate([np.array(values, dtype), powers.astype(dtype)])
    x = np.concatenate([np.nextafter(x, dtype(-9)), x, np.nextafter(x, dtype(9))])
    return np.concatenate([x, -x])


@pytest.mark.parametrize("name", MAX_ULP)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(name: str, dtype: type[np.floating]) -> None:
    if dtype is np.float64 and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("needs a long double wider than double")
    check(name, edges(dtype))


SPECIAL = {
    # f(-inf), f(-0), f(0), f(inf); sinpi and cospi have no limits.
    "exp": (0.0, 1.0, 1.0, INF),
    "expm1": (-1.0, -0.0, 0.0, INF),
    "log": (NAN, -INF, -INF, INF),
    "log1p": (NAN, -0.0, 0.0, INF),
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "softplus": (0.0, math.log(2), math.log(2), INF),
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "sinpi": (NAN, -0.0, 0.0, NAN),
    "cospi": (NAN, 1.0, 1.0, NAN),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(name: str, dtype: type[np.floating]) -> None:
    x = np.array([-INF, -0.0, 0.0, INF, NAN, -NAN], dtype)
    expected = np.array([*SPECIAL[name], NAN, NAN], dtype)
    for level in _cpu.isa_levels():
        with isa(level):
            y = apply(name, x)
        np.testing.assert_array_equal(y, expected)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(y)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("level", _cpu.isa_levels())
def test_against_mpmath(level: str) -> None:
    """mpmath shares no code with the C library, whose long double might mislead."""
    functions = {
        "exp": mpmath.exp,
        "expm1": mpmath.expm1,
        "log": mpmath.log,
        "log1p": mpmath.log1p,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
        "tanh": mpmath.tanh,
        "sinpi": mpmath.sinpi,
        "cospi": mpmath.cospi,
    }
    x = np.array([1e-300, 1e-17, 3e-9, 0.1, 0.4999, 0.7071, 1.3, 2.5e0, 17.2, 36.9, 333.3])
    x = np.concatenate([x, -x])
    with isa(level), mpmath.workdps(350):
        for name, function in functions.items():
            domain = x[x > (0 if name == "log" else -1 if name == "log1p" else -INF)]
            for value, y in zip(domain, apply(name, domain), strict=True):
                exact = function(mpmath.mpf(float(value)))
                ulp = math.ulp(float(exact))
                assert abs(mpmath.mpf(float(y)) - exact) <= MAX_ULP[name][1] * ulp, (name, value)


def test_length_zero_and_tails() -> None:
    """Lengths that are no multiple of a block give the elements of a whole block."""
    x = np.linspace(-3, 3, 300, dtype=np.float32)
    whole = apply("exp", x)
    for n in (0, 1, 7, 255, 256, 257):
        np.testing.assert_array_equal(apply("exp", x[:n]), whole[:n])
