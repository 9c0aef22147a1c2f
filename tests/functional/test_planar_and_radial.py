"""Tests of planar and radial maps beyond tests/ops: their Jacobians, and the inverses."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

import bslfast.functional as BF
from bslfast.flows import Planar, Radial
from bslfast.flows.planar import solve_tanh

DOUBLE = {"dtype": torch.float64}


def stir(module: Planar | Radial, noise: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += noise * torch.randn_like(parameter)


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("raw", [-3.0, 0.0, 4.0])
def test_log_det_is_that_of_the_jacobian(d: int, raw: float) -> None:
    torch.manual_seed(0)
    z, u, w = torch.randn(3, d, **DOUBLE)
    number = torch.tensor(raw, **DOUBLE)
    for op, arguments in ((BF.planar, (u + raw * w, w, number)), (BF.radial, (u, number, -number))):
        jacobian, log_det = torch.func.jacrev(op, has_aux=True)(z, *arguments)
        sign, expected = torch.linalg.slogdet(jacobian)
        assert sign == 1
        torch.testing.assert_close(log_det, expected)


def test_planar_without_a_correction_of_u() -> None:
    """Where softplus(a) - 1 = a nearly, the map is the paper's own."""
    torch.manual_seed(0)
    z, w = torch.randn(7, 3, **DOUBLE), torch.randn(3, **DOUBLE)
    fixed = mpmath.findroot(lambda a: mpmath.log1p(mpmath.exp(a)) - 1 - a, -0.4)
    u = torch.randn(3, **DOUBLE)
    u = u + w * (float(fixed) - w @ u) / (w @ w)
    y, log_det = BF.planar(z, u, w, torch.tensor(0.3, **DOUBLE))
    t = torch.tanh(z @ w + 0.3)
    torch.testing.assert_close(y, z + t.unsqueeze(1) * u)
    torch.testing.assert_close(log_det, torch.log(1 + (1 - t * t) * (w @ u)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_log_dets_keep_their_digits(dtype: torch.dtype) -> None:
    """Far from the plane and from the point, the relative error is small."""
    eps = torch.finfo(dtype).eps
    z = torch.tensor([[20.0, 0.0]], dtype=dtype)
    u, w = torch.tensor([[1.5, 0.0], [1.0, 0.0]], dtype=dtype)
    log_det = BF.planar(z, u, w, torch.zeros((), dtype=dtype))[1].item()
    with mpmath.workdps(60):
        m = mpmath.log1p(mpmath.exp(mpmath.mpf(1.5))) - 1
        expected = mpmath.log1p(m / mpmath.cosh(20) ** 2)
        assert abs(log_det - expected) <= 8 * eps * expected
    far = torch.tensor([[3e5, 4e5]], dtype=dtype)
    raw_alpha, raw_beta = torch.tensor([0.5, 2.0], dtype=dtype)
    log_det = BF.radial(far, torch.zeros(2, dtype=dtype), raw_alpha, raw_beta)[1].item()
    with mpmath.workdps(60):
        alpha = mpmath.log1p(mpmath.exp(mpmath.mpf(0.5)))
        c = (mpmath.log1p(mpmath.exp(mpmath.mpf(2))) - alpha) / (alpha + 500_000)
        expected = mpmath.log1p(c) + mpmath.log1p(c * alpha / (alpha + 500_000))
        assert abs(log_det - expected) <= 8 * eps * expected


# --- the inverses ---------------------------------------------------------------------------------


def test_the_equation_is_solved_for_every_slope() -> None:
    """1 + m may be next to nothing, and the solution a threefold root."""
    m = torch.tensor([1e-12, 1e-6, 0.01, 0.5, 1.0, 1.5, 3.0, 1e2, 1e6, 1e12], **DOUBLE) - 1
    c = torch.tensor([0.0, 1e-12, -1e-6, 1e-3, 0.3, -1.0, 5.0, -40.0, 1e3, 1e9], **DOUBLE)
    m, c = (x.reshape(-1) for x in torch.meshgrid(m, c, indexing="ij"))
    a = solve_tanh(c, 1 + m)
    # The error of the left side from rounding a and the sum's terms.
    size = c.abs() + a.abs() + (m * torch.tanh(a)).abs()
    assert ((a + m * torch.tanh(a) - c).abs() <= 8e-16 * size).all()
    assert (a * c >= 0).all()
    assert solve_tanh(torch.tensor([math.nan], **DOUBLE), 1 + m[:1]).isnan().all()


def test_derivatives_of_the_solution() -> None:
    c = torch.tensor([0.3, -2.0, 0.01, 7.0], requires_grad=True, **DOUBLE)
    m = torch.tensor([-0.7, 2.0, -0.2, 5.0], requires_grad=True, **DOUBLE)
    assert torch.autograd.gradcheck(lambda c, m: solve_tanh(c, 1 + m), (c, m))
    assert torch.autograd.gradgradcheck(lambda c, m: solve_tanh(c, 1 + m), (c, m))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", [Planar, Radial])
def test_inverse(kind: type[Planar | Radial], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    eps = torch.finfo(dtype).eps
    for noise in (0.1, 1.0, 3.0):
        transform = kind(4, dtype=dtype)
        stir(transform, noise)
        x = 3 * torch.randn(200, 4, dtype=dtype)
        with torch.no_grad():
            z, log_det = transform(x)
            back, back_log_det = transform.inverse(z)
            # Rounding z moves x by that, times the steepest the inverse may be.
            steep = torch.exp(-log_det).clamp(min=1).unsqueeze(1)
            scale = 1 + z.abs().amax() + x.abs().amax()
        assert ((back - x).abs() <= 16 * eps * steep * scale).all()
        easy = steep.squeeze(1) < 10
        torch.testing.assert_close(
            back_log_det[easy], -log_det[easy], rtol=0, atol=1e4 * eps * float(scale)
        )


def test_gradients_of_the_inverse_reach_the_parameters() -> None:
    torch.manual_seed(0)
    for transform in (Planar(3, **DOUBLE), Radial(3, **DOUBLE)):
        stir(transform, 0.3)
        z = torch.randn(4, 3, **DOUBLE)
        parameters = list(transform.parameters())
        x, log_det = transform.inverse(z)
        found = torch.autograd.grad(x.sin().sum() + log_det.sum(), parameters)
        for parameter, grad in zip(parameters, found, strict=True):
            direction = torch.randn_like(parameter)
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter += step * direction
                    x, log_det = transform.inverse(z)
                    parameter -= step * direction
                values.append(x.sin().sum() + log_det.sum())
            expected = (values[0] - values[1]) / 2e-6
            torch.testing.assert_close((grad * direction).sum(), expected, rtol=1e-6, atol=1e-8)
