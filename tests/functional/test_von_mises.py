"""The von Mises log density beside mpmath."""

from __future__ import annotations

import mpmath
import pytest
import torch

import bslfast.functional as BF
from bslfast._native import _cpu

CONCENTRATIONS = [1e-6, 0.03, 0.5, 2.0, 7.99, 8.01, 12.0, 40.0, 300.0, 1e4, 1e8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("isa", _cpu.isa_levels())
def test_density_and_gradients(isa: str, dtype: torch.dtype) -> None:
    """Angles are some standard deviations from loc: both parts of the density count."""
    k = torch.tensor(CONCENTRATIONS, dtype=dtype).repeat_interleave(5)
    away = torch.tensor([0.0, 0.3, -1.0, 2.0, 3.0], dtype=dtype).repeat(len(CONCENTRATIONS))
    x = away / k.clamp(min=1.0).sqrt()
    tensors = [t.requires_grad_() for t in (x, torch.zeros_like(x), k)]
    before = _cpu.isa()
    _cpu.set_isa(isa)
    try:
        found = BF.von_mises_log_prob(*tensors, reduction="none")
        by_x, by_loc, by_k = torch.autograd.grad(found.sum(), tensors)
    finally:
        _cpu.set_isa(before)
    assert torch.equal(by_loc, -by_x)
    eps = torch.finfo(dtype).eps
    for i in range(len(x)):
        with mpmath.workdps(50):
            c, t = mpmath.mpf(k[i].item()), mpmath.mpf(x[i].item())
            lost = -2 * c * mpmath.sin(t / 2) ** 2
            series = mpmath.besseli(0, c) * mpmath.exp(-c)
            spread = 1 - mpmath.besseli(1, c) / mpmath.besseli(0, c)
            exact = lost - mpmath.log(2 * mpmath.pi * series)
            slope = spread + lost / c
            size = 1 + abs(lost) + abs(exact)
        assert found[i].item() == pytest.approx(float(exact), abs=4 * eps * float(size))
        # Next to pi the sine is less exact than the angle.
        rounded = 4 * eps * float(c * abs(t))
        assert by_x[i].item() == pytest.approx(float(-c * mpmath.sin(t)), abs=rounded)
        rounded = 16 * eps * float(spread) + 4 * eps * float(-lost / c)
        assert by_k[i].item() == pytest.approx(float(slope), abs=rounded)


def test_whole_turns() -> None:
    x = torch.linspace(-3.0, 3.0, 20, dtype=torch.float64)
    loc, k = torch.full_like(x, 0.4), torch.full_like(x, 5.0)
    expected = BF.von_mises_log_prob(x, loc, k, reduction="none")
    for turns in (-7, -1, 1, 30):
        found = BF.von_mises_log_prob(x + turns * 2 * torch.pi, loc, k, reduction="none")
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
