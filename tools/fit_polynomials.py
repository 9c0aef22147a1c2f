"""Fit the polynomials of csrc/core/math.h and special.h and print them as C++ literals.

Usage: python tools/fit_polynomials.py [name ...]

Each polynomial approximates the part of a function that is left once its leading terms are taken
exactly, so that the weight (what an error of the polynomial does to the relative error of the
function) is small and rounded coefficients cost nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
Function = Callable[[mpf], mpf]


def remez(f: Function, weight: Function, a: mpf, b: mpf, degree: int) -> tuple[list[mpf], mpf]:
    """Coefficients, lowest first, that minimise max |weight (p - f)| on [a, b]; and this error."""
    n = degree + 2
    nodes = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    grid = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * (i + mpf("0.37")) / 800) for i in range(800)]
    grid_f, grid_w = [f(x) for x in grid], [weight(x) for x in grid]
    for _ in range(12):
        rows = [
            [x**k for k in range(degree + 1)] + [(-1) ** i / weight(x)] for i, x in enumerate(nodes)
        ]
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix([f(x) for x in nodes]))
        coefficients, level = list(solution)[:-1], abs(solution[n - 1])
        descending = coefficients[::-1]
        error = [
            w * (mp.polyval(descending, x) - y)
            for x, y, w in zip(grid, grid_f, grid_w, strict=True)
        ]
        worst = max(abs(e) for e in error)
        # One extremum per run of equal sign, then the n consecutive ones with the largest errors.
        peaks: list[int] = []
        for i, e in enumerate(error):
            if peaks and mp.sign(error[peaks[-1]]) == mp.sign(e):
                if abs(e) > abs(error[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        while len(peaks) > n:
            peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
        if len(peaks) < n or worst < level * mpf("1.001"):
            break
        nodes = [grid[i] for i in peaks]
    return coefficients, worst


def rational(
    f: Function, a: mpf, b: mpf, degrees: tuple[int, int], bend: float = 0
) -> list[list[mpf]]:
    """Numerator and denominator of a ratio that meets f at nodes; the denominator begins with 1.

    The nodes are Chebyshev's of x / (1 + bend x). A bend > 0 brings them closer to the lower end.
    """
    top, bottom = degrees
    n = top + bottom + 1
    a, b = a / (1 + bend * a), b / (1 + bend * b)
    nodes = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    nodes = [x / (1 - bend * x) for x in nodes]
    rows = [
        [x**k for k in range(top + 1)] + [-f(x) * x**k for k in range(1, bottom + 1)] for x in nodes
    ]
    solution = list(mp.lu_solve(mp.matrix(rows), mp.matrix([f(x) for x in nodes])))
    return [solution[: top + 1], [mpf(1), *solution[top + 1 :]]]


def exp_weight(r: mpf) -> mpf:
    return abs(r * r / mp.expm1(r))


def sine(z: mpf) -> mpf:
    return mp.sin(mp.pi * mp.sqrt(z)) / mp.sqrt(z)


def binet(n: mpf) -> mpf:
    """The remainder of Stirling's formula for log n!."""
    return mp.loggamma(1 + n) - (n * mp.log(n) - n + mp.log(2 * mp.pi * n) / 2)


def exp_e1_excess(z: mpf) -> mpf:
    """1 / (exp(z) E1(z)) - z."""
    return 1 / mp.hyperu(1, 1, z) - z


def bessel(order: int, k: mpf) -> mpf:
    """exp(-k) I(k) of an order, without the square root of 2 pi k that it falls with."""
    if k < 300:
        return mp.besseli(order, k) * mp.exp(-k) * mp.sqrt(2 * mp.pi * k)
    term = total = mpf(1)
    for n in range(1, 40):
        term *= mpf((2 * n - 1) ** 2 - 4 * order**2) / (n * 8 * k)
        total += term
    return total


HALF_LN2 = mp.log(2) / 2 + mpf("0.0005")  # the slack covers a product with log2(e) that was rounded
# name: (function, weight, ends of the interval, degree in float32, degree in float64)
FITS: dict[str, tuple[Function, Function, mpf, mpf, int | None, int | None]] = {
    "exp_tail": (lambda r: (mp.expm1(r) - r) / r**2, exp_weight, -HALF_LN2, HALF_LN2, 4, 10),
    "softmax_numerator": (
        lambda r: (mp.expm1(r) - r) / r**2,
        lambda r: abs(r * r / mp.exp(r)),
        -HALF_LN2 - mpf("0.01"),  # not symmetric: 0, of weight 0, is no node
        HALF_LN2,
        None,
        9,
    ),
    "log_tail": (
        lambda f: (mp.log1p(f) - f + f * f / 2) / f**3,
        lambda f: f**3 / mp.log1p(f),
        mpf("-0.25"),
        mpf("0.5"),
        7,
        None,
    ),
    "atanh_tail": (
        lambda z: 2 * (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        lambda z: z * mp.sqrt(z) / (2 * mp.atanh(mp.sqrt(z))),
        mpf("1e-12"),
        mpf("0.04"),
        None,
        6,
    ),
    "sinpi_tail": (
        lambda z: (sine(z) - mp.pi) / z,
        lambda z: z / sine(z),
        mpf("1e-12"),
        mpf("0.0625"),
        2,
        5,
    ),
    "cospi_tail": (
        lambda z: (mp.cos(mp.pi * mp.sqrt(z)) - 1) / z,
        lambda z: z / mp.cos(mp.pi * mp.sqrt(z)),
        mpf("1e-12"),
        mpf("0.0625"),
        3,
        6,
    ),
    "tanh_tail": (
        lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        lambda z: z * mp.sqrt(z) / mp.tanh(mp.sqrt(z)),
        mpf("1e-12"),
        mpf("0.3025"),
        4,
        10,
    ),
    "stirling_tail": (  # in z = 1 / n^2, from n = 3 on
        lambda z: binet(1 / mp.sqrt(z)) / mp.sqrt(z),
        lambda z: mp.sqrt(z),
        mpf("1e-12"),
        1 / mpf(9),
        3,
        9,
    ),
    "digamma_tail": (  # 1/2 - n (digamma(1 + n) - log n), times n, in z = 1 / n^2
        lambda z: 1 / (2 * mp.sqrt(z)) - (mp.digamma(1 + 1 / mp.sqrt(z)) + mp.log(z) / 2) / z,
        lambda z: z,
        mpf("1e-12"),
        1 / mpf(9),
        3,
        9,
    ),
    "ein_ratio": (  # the entire part of the exponential integral, over z
        lambda z: (mp.e1(z) + mp.log(z) + mp.euler) / z,
        lambda z: z / mp.e1(z),
        mpf("1e-9"),
        mpf(1),
        5,
        10,
    ),
    "bessel_near": (  # I0 in y = k^2 / 4, up to k = 8
        lambda y: mp.besseli(0, 2 * mp.sqrt(y)),
        lambda y: 1 / mp.besseli(0, 2 * mp.sqrt(y)),
        mpf("1e-12"),
        mpf(16),
        9,
        14,
    ),
    "bessel_far": (  # in t = 1 / k, from k = 8 on
        lambda t: bessel(0, 1 / t),
        lambda t: mpf(1),
        mpf("1e-9"),
        1 / mpf(8),
        4,
        20,
    ),
    "bessel_spread_far": (  # (1 - I1 / I0) 2 k, likewise
        lambda t: (1 - bessel(1, 1 / t) / bessel(0, 1 / t)) * 2 / t,
        lambda t: mpf(1),
        mpf("1e-9"),
        1 / mpf(8),
        6,
        24,
    ),
}
# name: (function, ends of the interval, two degrees in float32, two in float64); the degrees are
# those of numerator and denominator.
RATIONALS: dict[str, tuple[Function, mpf, mpf, tuple[int, int], tuple[int, int]]] = {
    "log_factorial_ratio": (
        lambda n: mp.loggamma(1 + n) / (n * (n - 1)),
        mpf("-1e-9"),
        mpf(3),
        (4, 5),
        (9, 9),
    ),
    "exp_e1_ratio": (  # in t = 1 / z, from z = 1 on
        lambda t: exp_e1_excess(1 / t),
        mpf("1e-12"),
        mpf(1),
        (5, 5),
        (11, 11),
    ),
    "digamma_ratio": (lambda n: mp.digamma(1 + n), mpf(0), mpf(3), (5, 4), (8, 8)),
    "normal_tail_ratio": (  # the tail of the normal distribution beyond a, times exp(a^2 / 2)
        lambda a: mp.exp(a * a / 2) * mp.erfc(a / mp.sqrt(2)) / 2,
        mpf(0),
        mpf(39),
        (5, 6),
        (9, 10),
    ),
    "bessel_spread_near": (  # 1 - I1 / I0, up to k = 8
        lambda k: 1 - mp.besseli(1, k) / mp.besseli(0, k),
        mpf(0),
        mpf(8),
        (6, 7),
        (10, 11),
    ),
}
# Bends for functions that change most near the lower end.
BENDS = {"exp_e1_ratio": 2, "normal_tail_ratio": 0.3, "bessel_spread_near": 0.1}


def literals(dtype: type[np.floating], coefficients: list[mpf]) -> str:
    suffix = "f" if dtype is np.float32 else ""
    numbers = [np.format_float_scientific(dtype(float(c)), unique=True) for c in coefficients]
    return "    " + ", ".join(x + suffix for x in numbers)


def main() -> None:
    for name in sys.argv[1:] or [*FITS, *RATIONALS]:
        if name in RATIONALS:
            g, low, high, *both = RATIONALS[name]
            for dtype, pair in zip((np.float32, np.float64), both, strict=True):
                parts = rational(g, low, high, pair, BENDS.get(name, 0))
                grid = [low + (high - low) * (mpf(i) + mpf("0.37")) / 500 for i in range(500)]
                top, bottom = (part[::-1] for part in parts)
                error = max(abs(mp.polyval(top, x) / mp.polyval(bottom, x) - g(x)) for x in grid)
                print(f"{name} {dtype.__name__}: error 2^{float(mp.log(error, 2)):.1f}")
                print(*(literals(dtype, part) for part in parts), sep="\n")
            continue
        f, weight, a, b, *degrees = FITS[name]
        for dtype, degree in zip((np.float32, np.float64), degrees, strict=True):
            if degree is None:
                continue
            coefficients, error = remez(f, weight, a, b, degree)
            print(f"{name} {dtype.__name__}: relative error 2^{float(mp.log(error, 2)):.1f}")
            print(literals(dtype, coefficients))


if __name__ == "__main__":
    main()
