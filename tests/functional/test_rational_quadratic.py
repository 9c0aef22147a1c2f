"""Tests of splines beyond tests/ops: mpmath, knots, tails, the inverse, slices in place."""

from __future__ import annotations

from typing import Any

import mpmath
import pytest
import torch
from ops.record import isa
from torch import Tensor

import bslfast.functional as BF
import bslfast.reference as R
from bslfast._native import _cpu, _operands

SLOPES = {"linear": -1, "circular": 0, None: 1, "affine": 1}
of_each_tails = pytest.mark.parametrize("tails", SLOPES)


def parameters(
    shape: tuple[int, ...], bins: int, tails: str | None, std: float = 1.0, dtype: Any = None
) -> list[Tensor]:
    return [
        (std * torch.randn(*shape, n, dtype=torch.float64)).to(dtype or torch.float64)
        for n in (bins, bins, bins + SLOPES[tails])
    ]


def _by_mpmath(
    x: float, widths: list[float], heights: list[float], slopes: list[float]
) -> tuple[float, float]:
    """(y, log dy/dx) with linear tails, as Durkan et al. (2019) write it: equations (4) and (5)."""

    def knots(logits: list[float]) -> list[Any]:
        exps = [mpmath.exp(v) for v in logits]
        low = mpmath.mpf(1e-3)
        result = [mpmath.mpf(-3)]
        for e in exps:
            result.append(result[-1] + 6 * (low + (1 - low * len(exps)) * e / sum(exps)))
        return result

    with mpmath.workdps(60):
        xs, ys = knots(widths), knots(heights)
        d = [mpmath.mpf(1e-3) + mpmath.log(1 + mpmath.exp(v)) for v in slopes]
        d = [mpmath.mpf(1), *d, mpmath.mpf(1)]
        k = max(i for i in range(len(widths)) if x >= xs[i])
        w, h = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
        s, xi = h / w, (mpmath.mpf(x) - xs[k]) / w
        den = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
        y = ys[k] + h * (s * xi**2 + d[k] * xi * (1 - xi)) / den
        top = s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2)
        return float(y), float(mpmath.log(top / den**2))


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
def test_splines_are_as_defined(family: Any) -> None:
    """They agree with mpmath and the paper's formulas, in both directions."""
    torch.manual_seed(0)
    x = torch.linspace(-2.99, 2.99, 40, dtype=torch.float64)
    given = parameters((40,), 5, "linear", std=2.0)
    y, log_det = family.rational_quadratic_spline(x, *given, reduction="none")
    wanted = [
        _by_mpmath(*row) for row in zip(x.tolist(), *(p.tolist() for p in given), strict=True)
    ]
    expected = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(torch.stack([y, log_det], dim=-1), expected, rtol=0, atol=1e-12)
    back, back_log_det = family.rational_quadratic_spline(y, *given, inverse=True, reduction="none")
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-8)


@of_each_tails
@pytest.mark.parametrize("inverse", [False, True])
def test_log_det_is_that_of_the_map_computed(tails: str | None, inverse: bool) -> None:
    torch.manual_seed(0)
    x = (6 * torch.rand(12, dtype=torch.float64) - 3) * (1 if tails is None else 1.5)
    given = parameters((12,), 6, tails)

    def y(x: Tensor) -> Tensor:
        return BF.rational_quadratic_spline(x, *given, tails=tails, inverse=inverse)[0]

    _, log_det = BF.rational_quadratic_spline(x, *given, tails=tails, inverse=inverse)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(torch.func.jacrev(y)(x))[1])


@pytest.mark.parametrize("level", _cpu.isa_levels())
@pytest.mark.parametrize("bins", [1, 2, 8, 64, 128])
@of_each_tails
def test_inverse(tails: str | None, bins: int, level: str) -> None:
    torch.manual_seed(0)
    x = 2.999 * (2 * torch.rand(50, 7, dtype=torch.float64) - 1)
    given = parameters((50, 7), bins, tails)
    with isa(level):
        y, log_det = BF.rational_quadratic_spline(x, *given, tails=tails)
        back, back_log_det = BF.rational_quadratic_spline(y, *given, tails=tails, inverse=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("level", _cpu.isa_levels())
@pytest.mark.parametrize("inverse", [False, True])
def test_float32_at_exact_knots(inverse: bool, level: str) -> None:
    """Log-determinants are within 1e-4 nats of float64, where usual formulas raise or lose nats."""
    torch.manual_seed(0)
    widths, heights = (2 * torch.randn(20000, 8) for _ in range(2))
    derivatives = 6 * torch.randn(20000, 7)
    knots = R.rational_quadratic.knots_of((heights if inverse else widths).double(), 3.0, 1e-3)[0]
    x = knots.gather(-1, torch.randint(9, (20000, 1))).squeeze(-1).float().clamp(-3, 3)
    options = {"inverse": inverse, "reduction": "none"}
    with isa(level):
        y, log_det = BF.rational_quadratic_spline(x, widths, heights, derivatives, **options)
    expected_y, expected = R.rational_quadratic_spline(
        *(t.double() for t in (x, widths, heights, derivatives)), **options
    )
    assert (log_det - expected).abs().max() < 1e-4
    assert (y - expected_y).abs().max() < 3e-6


def test_linear_tails() -> None:
    """The map is the identity outside, with slope 1 and no jump at the ends."""
    torch.manual_seed(0)
    edge = torch.tensor(3.0)
    beyond, within = torch.nextafter(edge, edge + 1), torch.nextafter(edge, edge - 1)
    x = torch.stack([-torch.inf * edge, -beyond, -edge, -within, within, edge, beyond])
    for inverse in (False, True):
        y, log_det = BF.rational_quadratic_spline(
            x,
            *parameters((7,), 8, "linear", dtype=torch.float32),
            inverse=inverse,
            reduction="none",
        )
        torch.testing.assert_close(y, x, rtol=0, atol=1e-6)
        assert log_det.abs().max() < 1e-3
        assert not log_det[[0, 1, 6]].any()


def test_affine_tails() -> None:
    """Tails are lines. Value and slope have no jump at the ends, and depend only on slopes."""
    torch.manual_seed(0)
    given = parameters((2,), 8, "affine")
    options = {"tails": "affine", "reduction": "none"}
    ends = 1e-3 + torch.nn.functional.softplus(given[2][..., [0, -1]])
    for inverse, slopes in ((False, ends), (True, 1 / ends)):
        for side, end, slope in ((-1.0, 0, slopes[:, 0]), (1.0, -1, slopes[:, 1])):
            edge = torch.full((2,), 3 * side, dtype=torch.float64)
            far = (edge + 100 * side).requires_grad_()
            leaves = [p.clone().requires_grad_() for p in given]
            y, log_det = BF.rational_quadratic_spline(far, *leaves, inverse=inverse, **options)
            torch.testing.assert_close(y, edge + 100 * side * slope)
            torch.testing.assert_close(log_det, slope.log())
            grads = torch.autograd.grad((y + log_det).sum(), [far, *leaves])
            torch.testing.assert_close(grads[0], slope)
            assert not grads[1].any()
            assert not grads[2].any()
            assert grads[3][:, end].all()
            assert grads[3].count_nonzero() == 2
            # The slope has a gradient through the log-determinant however far x is.
            leaves[2].grad = None
            _, log_det = BF.rational_quadratic_spline(
                edge * torch.inf, *leaves, inverse=inverse, **options
            )
            (grad,) = torch.autograd.grad(log_det.sum(), leaves[2])
            (expected,) = torch.autograd.grad(
                (1e-3 + torch.nn.functional.softplus(leaves[2][:, end])).log().sum(), leaves[2]
            )
            torch.testing.assert_close(grad, -expected if inverse else expected)
            for near in (edge * (1 - 1e-12), edge * (1 + 1e-12)):
                y, log_det = BF.rational_quadratic_spline(near, *given, inverse=inverse, **options)
                torch.testing.assert_close(y, edge, rtol=0, atol=1e-10)
                torch.testing.assert_close(log_det, slope.log(), rtol=0, atol=1e-8)


def test_circular_tails() -> None:
    """The map is periodic, onto the interval, and smooth across its ends."""
    torch.manual_seed(0)
    given = parameters((9,), 5, "circular")
    options = {"tails": "circular", "bound": torch.pi, "reduction": "none"}
    x = torch.linspace(-3.1, 3.1, 9, dtype=torch.float64)
    y, log_det = BF.rational_quadratic_spline(x, *given, **options)
    for turns in (-1000, -1, 1, 7):
        again = BF.rational_quadratic_spline(x + 2 * torch.pi * turns, *given, **options)
        torch.testing.assert_close(again[0], y, rtol=0, atol=1e-10)
        torch.testing.assert_close(again[1], log_det, rtol=0, atol=1e-9)
    assert y.abs().max() <= torch.pi
    near = torch.full((9,), torch.pi, dtype=torch.float64)
    (low, low_log), (high, high_log) = (
        BF.rational_quadratic_spline(near * side, *given, **options)
        for side in (1e-9 - 1, 1 - 1e-9)
    )
    torch.testing.assert_close(high - low, 2 * near, rtol=0, atol=1e-6)
    torch.testing.assert_close(low_log, high_log, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", [BF, R], ids=["kernel", "reference"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("tails", ["linear", "circular", None])
def test_what_is_inside_stays_inside(tails: str | None, dtype: torch.dtype, family: Any) -> None:
    """Rounding moves no point outside, also with a bound that the dtype does not hold; so chains
    work.
    """
    options: dict[str, Any] = {"tails": tails, "reduction": "none"}
    one = [torch.tensor(v, dtype=dtype) for v in ([0.0, -3.0], [-3.0, 3.0], [3.0, -1.0, 1.0])]
    if tails is None:
        y, _ = family.rational_quadratic_spline(torch.tensor([-3, 3], dtype=dtype), *one, **options)
        assert y.tolist() == [-3, 3]
    torch.manual_seed(0)
    for bound in (3.0, 2.9, 0.1):
        ends = torch.tensor([-bound, bound], dtype=dtype)
        middle = torch.linspace(-0.999, 0.999, 99, dtype=torch.float64).mul(bound).to(dtype)
        near = [ends, ends.nextafter(middle[49:50])]
        x = torch.cat([*(near * 10), middle]).double().clamp(-bound, bound).to(dtype)
        for step in range(8):
            given = parameters((len(x),), 3, tails, 4.0, dtype)
            x, _ = family.rational_quadratic_spline(
                x, *given, bound=bound, inverse=step % 2 == 1, **options
            )
            assert x.abs().max() <= ends[1], f"{bound} {step}"


def test_no_tails_outside_the_domain() -> None:
    """It is an error in eager mode on the CPU, and NaN elsewhere. NaN is not outside."""
    given = parameters((3,), 4, None)
    x = torch.tensor([0.0, 3.5, torch.nan], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"^x: expected values in \[-3, 3\].*got 3.5"):
        BF.rational_quadratic_spline(x, *given, tails=None)
    with BF.use_reference():
        y, log_det = BF.rational_quadratic_spline(x, *given, tails=None, reduction="none")
    assert y.isnan().tolist() == log_det.isnan().tolist() == [False, True, True]
    inside = torch.where(x > 3, 3.0, x)
    y, _ = BF.rational_quadratic_spline(inside, *given, tails=None)
    assert y.isnan().tolist() == [False, False, True]
    # The bound is rounded to the dtype: 0.1 in float32 is more than 0.1.
    edge = torch.tensor([0.1, -0.1, 0.0])
    y, _ = BF.rational_quadratic_spline(
        edge, *(p.float() for p in given), tails=None, bound=0.1, reduction="none"
    )
    assert torch.equal(y[:2], edge[:2])


def test_zeros_are_nearly_the_identity() -> None:
    """A conditioner of zeros gives equal bins, and the slope log 2 at inner knots."""
    x = torch.linspace(-4, 4, 101)
    zeros = [torch.zeros(101, n) for n in (8, 8, 7)]
    y, _ = BF.rational_quadratic_spline(x, *zeros)
    assert (y - x).abs().max() < 0.1


def test_slices_are_read_in_place() -> None:
    """A conditioner's output is split into slices, and gradients flow back to it."""
    torch.manual_seed(0)
    x = torch.randn(6, 3)
    output = torch.randn(6, 3 * 23, requires_grad=True)
    slices = output.view(6, 3, 23).split([8, 8, 7], dim=-1)
    y, log_det = BF.rational_quadratic_spline(x, *slices)
    copied = [p.detach().clone().requires_grad_() for p in slices]
    expected = BF.rational_quadratic_spline(x, *copied)
    assert torch.equal(y, expected[0])
    assert torch.equal(log_det, expected[1])
    (y.sum() + log_det.sum()).backward()
    (expected[0].sum() + expected[1].sum()).backward()
    wanted = torch.cat([p.grad for p in copied], dim=-1)
    assert torch.equal(output.grad.view(6, 3, 23), wanted)
    for operand in (_operands.row_operand(p, (6, 3)) for p in slices):
        assert output.data_ptr() <= operand[0] < output.data_ptr() + output.nbytes


def test_no_gradient_reaches_parameters_from_outside() -> None:
    """Their gradient is 0, even if they are NaN."""
    x = torch.tensor([5.0, 0.0], requires_grad=True)
    given = [torch.zeros(2, n) for n in (4, 4, 3)]
    for p in given:
        p[0] = torch.nan
        p.requires_grad_()
    y, log_det = BF.rational_quadratic_spline(x, *given)
    (y.sum() + log_det).backward()
    assert not log_det.isnan()
    assert x.grad[0] == 1
    for p in given:
        assert not p.grad[0].any()
        assert p.grad[1].isfinite().all()
