"""Tests of affine couplings beyond tests/ops: mpmath, the inverse, the Jacobian."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

import bslfast.functional as BF
import bslfast.reference as R
from bslfast._native import _cpu

SCALE_FNS = {
    "tanh": lambda r: mpmath.exp(2 * mpmath.tanh(r / 2)),
    "exp": mpmath.exp,
    "sigmoid": lambda r: 2 / (1 + mpmath.exp(-r)),
}
assert SCALE_FNS.keys() == set(_cpu.SCALE_FNS)
of_each_scale_fn = pytest.mark.parametrize("scale_fn", SCALE_FNS)


@of_each_scale_fn
@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
def test_scales_are_as_defined(family: object, scale_fn: str) -> None:
    """They agree with mpmath, also where the scale is nearly 0."""
    raw = [-30.0, -3.0, -0.5, 0.0, 1e-3, 2.0, 30.0]
    x = torch.full((len(raw),), 0.75, dtype=torch.float64)
    y, log_det = family.affine_coupling(
        x,
        torch.zeros_like(x),
        torch.tensor(raw, dtype=torch.float64),
        scale_fn=scale_fn,
        reduction="none",
    )
    for value, log, r in zip(y.tolist(), log_det.tolist(), raw, strict=True):
        with mpmath.workdps(40):
            scale = SCALE_FNS[scale_fn](mpmath.mpf(r))
            expected, expected_log = float(scale) * 0.75, float(mpmath.log(scale))
        assert value == pytest.approx(expected, rel=1e-14, abs=0)
        assert log == pytest.approx(expected_log, rel=1e-14, abs=3e-16)


@of_each_scale_fn
def test_zero_is_the_identity(scale_fn: str) -> None:
    x = torch.randn(4, 3)
    y, log_det = BF.affine_coupling(x, torch.zeros(3), torch.zeros(3), scale_fn=scale_fn)
    torch.testing.assert_close(y, x, rtol=0, atol=0)
    assert log_det.abs().max() < 1e-6


@of_each_scale_fn
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inverse(scale_fn: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, shift, raw_scale = torch.randn(3, 100, 7, dtype=dtype)
    y, log_det = BF.affine_coupling(x, shift, raw_scale, scale_fn=scale_fn)
    back, back_log_det = BF.affine_coupling(y, shift, raw_scale, scale_fn=scale_fn, inverse=True)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(back, x, rtol=0, atol=100 * eps)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=0)


@of_each_scale_fn
@pytest.mark.parametrize("inverse", [False, True])
def test_log_det_is_that_of_the_map_computed(scale_fn: str, inverse: bool) -> None:
    torch.manual_seed(0)
    x, shift, raw_scale = torch.randn(3, 5, dtype=torch.float64)

    def y(x: torch.Tensor) -> torch.Tensor:
        return BF.affine_coupling(x, shift, raw_scale, scale_fn=scale_fn, inverse=inverse)[0]

    _, log_det = BF.affine_coupling(x, shift, raw_scale, scale_fn=scale_fn, inverse=inverse)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(torch.func.jacrev(y)(x))[1])


@pytest.mark.parametrize("scale_fn", ["exp", "sigmoid"])
def test_factors_that_overflow(scale_fn: str) -> None:
    """Nothing times what float32 does not hold is nothing; a little times it may be held."""
    x = torch.tensor([0.25, 0.25 + 2.0**-20, 1.0])
    shift = torch.full((3,), 0.25, requires_grad=True)
    raw = torch.full((3,), -100.0, requires_grad=True)
    x.requires_grad_()
    y, log_det = BF.affine_coupling(
        x, shift, raw, scale_fn=scale_fn, inverse=True, reduction="none"
    )
    wanted = (x.double() - 0.25) * math.exp(100.0) / (1 if scale_fn == "exp" else 2)
    torch.testing.assert_close(y.detach(), wanted.float().detach(), rtol=1e-6, atol=0)
    assert y[0] == 0
    assert y[1].isfinite()
    by_x, by_shift, by_raw = torch.autograd.grad(log_det.sum(), (x, shift, raw), retain_graph=True)
    assert by_x.count_nonzero() == by_shift.count_nonzero() == 0
    assert by_raw.tolist() == [-1.0] * 3
    (by_raw,) = torch.autograd.grad(y[:2].sum(), raw)
    torch.testing.assert_close(by_raw, torch.cat([-y[:2], y.new_zeros(1)]).detach())
