"""Tests of maps by mixtures of logistics beyond tests/ops: mpmath, tails, the inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
import bslfast.reference as R


def parameters(rows: int, components: int, spread: float = 2.0) -> list[Tensor]:
    torch.manual_seed(0)
    logits, loc, log_scale = torch.randn(3, rows, components, dtype=torch.float64)
    return [logits, spread * loc, 0.5 * log_scale]


def _by_mpmath(
    x: Any, logits: list[float], loc: list[float], log_scale: list[float]
) -> list[float]:
    """(y, log dy/dx) by the definition."""
    with mpmath.workdps(400):
        weights = [mpmath.exp(v) for v in logits]
        cdf = density = mpmath.mpf(0)
        for w, m, s in zip(weights, loc, log_scale, strict=True):
            scale = mpmath.exp(s)
            p = 1 / (1 + mpmath.exp(-(mpmath.mpf(x) - m) / scale))
            cdf += w / sum(weights) * p
            density += w / sum(weights) * p * (1 - p) / scale
        odds = cdf / (1 - cdf)
        return [float(mpmath.log(odds)), float(mpmath.log(density / (cdf * (1 - cdf))))]


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
def test_is_as_defined_far_into_the_tails(family: Any) -> None:
    x = torch.linspace(-200, 200, 41, dtype=torch.float64)
    given = parameters(41, 5)
    rows = zip(x.tolist(), *(p.tolist() for p in given), strict=True)
    expected = torch.tensor([_by_mpmath(*row) for row in rows], dtype=torch.float64)
    y, log_det = family.mixture_logistic_transform(x, *given, reduction="none")
    actual = torch.stack([y, log_det], dim=-1)
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("log_scale", [-13.0, -20.0, -75.0])
def test_log_det_of_the_inverse_beside_x(family: Any, dtype: torch.dtype, log_scale: float) -> None:
    """Components are narrower than a last digit of x; errors are 8 eps, against mpmath."""
    torch.manual_seed(0)
    y = (2 * torch.randn(3, dtype=torch.float64)).to(dtype)
    logits, offset, spread = (t.to(dtype) for t in torch.randn(3, 3, 3, dtype=torch.float64))
    scales = log_scale + spread
    loc = 1 + torch.exp(scales) * offset
    _, log_det = family.mixture_logistic_transform(
        y, logits, loc, scales, inverse=True, reduction="none"
    )
    for i, row in enumerate(zip(logits.tolist(), loc.tolist(), scales.tolist(), strict=True)):
        with mpmath.workdps(120):
            ends = [m + mpmath.exp(s) * v for v in (-99, 99) for m, s in zip(*row[1:], strict=True)]
            low, high = (mpmath.mpf(f(ends)) for f in (min, max))
            for _ in range(100):
                middle = (low + high) / 2
                above = _by_mpmath(middle, *row)[0] > y[i].item()
                low, high = (low, middle) if above else (middle, high)
            expected = -_by_mpmath(low, *row)[1]
        bound = 8 * torch.finfo(dtype).eps * (1 + abs(expected))
        assert abs(log_det[i].item() - expected) <= bound


def test_inverse_is_the_inverse() -> None:
    """Some components are so narrow that the map hardly rises between them."""
    x = torch.linspace(-60, 60, 400, dtype=torch.float64)
    given = parameters(400, 8)
    y, log_det = BF.mixture_logistic_transform(x, *given, reduction="none")
    back, back_log_det = BF.mixture_logistic_transform(y, *given, inverse=True, reduction="none")
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-9)
    given[2] -= 4
    again, _ = BF.mixture_logistic_transform(
        BF.mixture_logistic_transform(0.1 * x, *given, inverse=True, reduction="none")[0],
        *given,
        reduction="none",
    )
    torch.testing.assert_close(again, 0.1 * x, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_infinite_x(dtype: torch.dtype) -> None:
    x = torch.tensor([-torch.inf, torch.inf], dtype=dtype)
    given = [p.to(dtype) for p in parameters(2, 3)]
    for inverse in (False, True):
        y, _ = BF.mixture_logistic_transform(x, *given, inverse=inverse, reduction="none")
        assert y.tolist() == x.tolist()


def test_parameters_are_read_in_place() -> None:
    """Slices of one tensor give the result of contiguous ones, to the last bit."""
    x, together = torch.randn(7, 5), torch.randn(7, 5, 12)
    slices = together.split(4, dim=-1)
    actual = BF.mixture_logistic_transform(x, *slices)
    expected = BF.mixture_logistic_transform(x, *(s.contiguous() for s in slices))
    for a, e in zip(actual, expected, strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("log_scale", [-85.0, -100.0, -120.0, -200.0])
def test_inverse_of_components_too_narrow_for_float32(log_scale: float) -> None:
    """Their rates overflow; what float64 finds is the solution."""
    torch.manual_seed(0)
    rows = 400
    y, logits, loc, spread = (
        2 * torch.randn(rows),
        *torch.randn(3, rows, 5),
    )
    scales = log_scale + spread
    for given in ((logits, loc, scales), (logits, loc[:, :1].expand_as(loc), scales)):
        found = BF.mixture_logistic_transform(y, *given, inverse=True, reduction="none")
        wide = [t.double() for t in (y, *given)]
        x, log_det = BF.mixture_logistic_transform(*wide, inverse=True, reduction="none")
        torch.testing.assert_close(found[0], x.float(), rtol=3e-7, atol=0)
        torch.testing.assert_close(found[1], log_det.float(), rtol=1e-3, atol=0)


def gradients_of_inverse(tensors: Sequence[Tensor], *, log: bool) -> tuple[Tensor, ...]:
    """Of the solution or of the log-determinant: by y, logits, locs and log scales."""
    held = [t.detach().requires_grad_() for t in tensors]
    results = BF.mixture_logistic_transform(*held, inverse=True, reduction="none")
    return torch.autograd.grad(results[log].sum(), held)


@pytest.mark.parametrize("log_scale", [0.0, -18.0, -25.0, -40.0, -60.0, -85.0, -100.0, -200.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_components_in_one_place(log_scale: float, dtype: torch.dtype) -> None:
    """The log-determinant has those of wider components but for those by the location."""
    torch.manual_seed(0)
    y, logits, spread = 2 * torch.randn(400), *torch.randn(2, 400, 5)
    loc, scales = torch.randn(400, 1).expand(400, 5), log_scale + spread
    spread = scales.double() - log_scale
    found = gradients_of_inverse([t.to(dtype) for t in (y, logits, loc, scales)], log=True)
    # Wide and at 0: another computation, without narrow components.
    wider = (y.double(), logits.double(), torch.zeros_like(spread), spread)
    expected = gradients_of_inverse(wider, log=True)
    tolerance = 2e-3 if dtype is torch.float32 else 1e-9
    for which in (0, 1, 3):
        torch.testing.assert_close(
            found[which].double(), expected[which], rtol=tolerance, atol=tolerance
        )
    assert not found[2].isnan().any()


@pytest.mark.parametrize("log_scale", [-18.0, -25.0, -40.0, -60.0, -85.0])
def test_gradients_of_narrow_components(log_scale: float) -> None:
    """Against float64: of solutions all, of log-determinants all but those by locations."""
    torch.manual_seed(0)
    y, logits, loc, spread = 2 * torch.randn(400), *torch.randn(3, 400, 5)
    given = (y, logits, loc, log_scale + spread)
    wide = [t.double() for t in given]
    for log in (False, True):
        found = gradients_of_inverse(given, log=log)
        expected = gradients_of_inverse(wide, log=log)
        for which in (0, 1, 2, 3) if not log else (0, 1, 3):
            size = 1 + expected[which].abs() if log else expected[which].abs()
            # Sums over components cancel: errors are those of the largest one.
            size = size if which == 0 else size.amax(-1, keepdim=True)
            error = (found[which] - expected[which]).abs() / (size + 1e-37)
            assert error.max() < 5e-3, (log, which)


def test_narrow_components_beside_wide_ones() -> None:
    """Solutions that belong to wide components stay where they are."""
    torch.manual_seed(0)
    y, logits, loc = 2 * torch.randn(400), *torch.randn(2, 400, 6)
    scales = torch.where(torch.rand(400, 6) < 0.5, -110.0, 0.0) + torch.randn(400, 6)
    found = BF.mixture_logistic_transform(y, logits, loc, scales, inverse=True, reduction="none")
    wide = [t.double() for t in (y, logits, loc, scales)]
    right = BF.mixture_logistic_transform(*wide, inverse=True, reduction="none")
    torch.testing.assert_close(found[0], right[0].float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], right[1].float(), rtol=1e-4, atol=1e-4)
    # Results of single rows, where no other row has narrow components, are the same.
    for row in (0, 7, 200):
        alone = BF.mixture_logistic_transform(
            *(t[row : row + 1] for t in (y, logits, loc, scales)), inverse=True, reduction="none"
        )
        assert torch.equal(alone[0], found[0][row : row + 1])
        assert torch.equal(alone[1], found[1][row : row + 1])
