"""Tests of deep sigmoidal transformations beyond tests/ops: mpmath, tails, flat sigmoids."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
import bslfast.reference as R

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
of_each_dtype = pytest.mark.parametrize("dtype", list(EPS), ids=lambda d: str(d)[6:])


def parameters(rows: int, sigmoids: int, spread: float = 1.0, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    given = torch.randn(3, rows, sigmoids, dtype=torch.float64, generator=generator)
    return list(spread * given)


def by_mpmath(
    x: float, logits: list[float], raw_slope: list[float], shift: list[float]
) -> list[float]:
    """(y, log dy/dx) by the definition."""
    with mpmath.workdps(400):
        weights = [mpmath.exp(v) for v in logits]
        slopes = [mpmath.log1p(mpmath.exp(v)) for v in raw_slope]
        below = above = density = mpmath.mpf(0)
        for w, a, b in zip(weights, slopes, shift, strict=True):
            odds = mpmath.exp(a * mpmath.mpf(x) + b)
            below += w / sum(weights) * odds / (1 + odds)
            above += w / sum(weights) / (1 + odds)
            density += w / sum(weights) * a * odds / (1 + odds) ** 2
        return [
            float(mpmath.log(below) - mpmath.log(above)),
            float(mpmath.log(density / (below * above))),
        ]


def exact(x: Tensor, given: list[Tensor]) -> Tensor:
    rows = zip(x.tolist(), *(p.tolist() for p in given), strict=True)
    return torch.tensor([by_mpmath(*row) for row in rows], dtype=torch.float64)


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
def test_is_as_defined_far_into_the_tails(family: Any) -> None:
    x = torch.linspace(-200, 200, 41, dtype=torch.float64)
    given = parameters(41, 5, spread=2.0)
    y, log_det = family.deep_sigmoidal_transform(x, *given, reduction="none")
    actual = torch.stack([y, log_det], dim=-1)
    torch.testing.assert_close(actual, exact(x, given), rtol=1e-14, atol=1e-13)


SLOPES = (-103.0, -100.0, -69.99, -70.01, -37.0, -17.0, 30.0, 100.0)


@pytest.mark.parametrize(
    ("dtype", "raw"),
    [*((t, raw) for t in EPS for raw in SLOPES), (torch.float64, -700.0)],
    ids=str,
)
def test_slopes_of_all_sizes(dtype: torch.dtype, raw: float) -> None:
    """Errors are 8 eps of the inputs, with one sigmoid and with two."""
    x = torch.tensor([0.0, -1.0, 0.7, 25.0, -3e3], dtype=dtype)
    for logits, raws, shifts in (
        ([0.0], [raw], [0.5]),
        ([0.3, -0.5], [raw, 0.5], [0.5, -0.25]),
    ):
        given = [torch.tensor([v] * 5, dtype=dtype) for v in (logits, raws, shifts)]
        actual = torch.stack(BF.deep_sigmoidal_transform(x, *given, reduction="none"), dim=-1)
        expected = exact(x, given)
        size = 1 + expected.abs() + math.log1p(math.exp(min(raw, 700))) * x.abs().unsqueeze(-1)
        assert ((actual - expected).abs() <= 8 * EPS[dtype] * size).all()


@of_each_dtype
def test_flat_sigmoids_rise_in_the_end(dtype: torch.dtype) -> None:
    """Where z = a x + b reaches the size of b, errors are 8 eps."""
    raws = [-60.0, -69.9, -70.1, -80.0]
    if dtype == torch.float64:
        raws += [-300.0, -639.9, -640.1, -700.0]
    raw_slope = torch.tensor(raws, dtype=dtype).unsqueeze(-1)
    x = 3 * torch.exp(-raw_slope.squeeze(-1))
    for sign in (1, -1):
        given = [torch.zeros_like(raw_slope), raw_slope, torch.full_like(raw_slope, 0.5)]
        y, _ = BF.deep_sigmoidal_transform(sign * x, *given, reduction="none")
        expected = exact(sign * x, given)[:, 0]
        assert ((y - expected).abs() <= 8 * EPS[dtype] * (1 + expected.abs())).all()


def test_is_the_mixture_of_logistics_in_other_parameters() -> None:
    x = torch.linspace(-30, 30, 100, dtype=torch.float64)
    logits, raw_slope, shift = parameters(100, 4)
    slope = torch.logaddexp(raw_slope, torch.zeros((), dtype=torch.float64))
    for inverse in (False, True):
        actual = BF.deep_sigmoidal_transform(
            x, logits, raw_slope, shift, inverse=inverse, reduction="none"
        )
        expected = BF.mixture_logistic_transform(
            x, logits, -shift / slope, -slope.log(), inverse=inverse, reduction="none"
        )
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0])
@of_each_dtype
def test_inverse_is_the_inverse(dtype: torch.dtype, spread: float) -> None:
    """x is right to the digits that y determines: 16 eps of the terms of y."""
    given = [p.to(dtype) for p in parameters(4096, 8, spread)]
    generator = torch.Generator().manual_seed(1)
    y = (3 * spread * torch.randn(4096, dtype=torch.float64, generator=generator)).to(dtype)
    x, log_det = BF.deep_sigmoidal_transform(y, *given, inverse=True, reduction="none")
    assert x.isfinite().all()
    wide = [p.double() for p in given]
    again, slope = R.deep_sigmoidal_transform(x.double(), *wide, reduction="none")
    made_of = 1 + y.abs() + given[2].abs().amax(-1) + slope.exp() * x.abs()
    assert ((again - y).abs() <= 16 * EPS[dtype] * made_of.double()).all()
    # At this very x the logarithm is that of the map.
    found = BF.deep_sigmoidal_transform(x, *given, reduction="none")[1]
    assert torch.equal(log_det, -found)


def test_flat_sigmoids_do_not_lead_the_inverse_astray() -> None:
    """Components alone would have x at 1e20 and more, or at infinity; their mean does not."""
    for raw in (-60.0, -100.0, -300.0, -700.0, -800.0):
        given = [
            torch.tensor([v] * 9, dtype=torch.float64)
            for v in ([0.0, 0.0, 0.0], [1.0, raw, 2.0], [0.0, 0.1, -0.1])
        ]
        x = torch.linspace(-6, 6, 9, dtype=torch.float64)
        y, _ = BF.deep_sigmoidal_transform(x, *given, reduction="none")
        back, _ = BF.deep_sigmoidal_transform(y, *given, inverse=True, reduction="none")
        torch.testing.assert_close(back, x, rtol=1e-11, atol=1e-11)


def test_solutions_among_the_flat_ones() -> None:
    """Beyond the steep sigmoids, a flat one determines x."""
    y = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    for raw in (-30.0, -100.0, -600.0):
        given = [
            torch.tensor([v] * 2, dtype=torch.float64) for v in ([0.0, 0.0], [1.0, raw], [0.0, 0.0])
        ]
        x, _ = BF.deep_sigmoidal_transform(y, *given, inverse=True, reduction="none")
        # The steep one is 0 or 1: y = logit(1/2 + sigmoid(a x) / 2) for x > 0.
        share = 2 * torch.sigmoid(y.abs()) - 1
        expected = y.sign() * torch.logit(share) * math.exp(-raw)
        torch.testing.assert_close(x, expected, rtol=1e-12, atol=0)
    given[1][:, 1] = -800.0  # the solution has no number any more
    x, _ = BF.deep_sigmoidal_transform(y, *given, inverse=True, reduction="none")
    assert x.tolist() == [-math.inf, math.inf]


@of_each_dtype
def test_infinite_x(dtype: torch.dtype) -> None:
    x = torch.tensor([-torch.inf, torch.inf], dtype=dtype)
    given = [p.to(dtype) for p in parameters(2, 3)]
    given[1][:, 0] = -300
    for inverse in (False, True):
        y, _ = BF.deep_sigmoidal_transform(x, *given, inverse=inverse, reduction="none")
        assert y.tolist() == x.tolist()


def test_gradients_of_the_inverse_with_a_flat_sigmoid() -> None:
    """They agree with numeric differences of the kernel's results."""
    y = torch.tensor([0.3, -0.4, 1.5], dtype=torch.float64)
    given = [
        torch.tensor([v] * 3, dtype=torch.float64)
        for v in ([0.1, 0.4, 0.0], [1.0, -5.0, 2.0], [0.0, 0.1, -0.1])
    ]
    tensors = [t.requires_grad_() for t in (y, *given)]
    for inverse in (False, True):
        assert torch.autograd.gradcheck(
            lambda *t, i=inverse: BF.deep_sigmoidal_transform(*t, inverse=i, reduction="none"),
            tensors,
        )
