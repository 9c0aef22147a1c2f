"""The importance-weighted bound's other estimator, which the table of ops does not cover."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ops.record import assert_same, threads
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import bslfast.functional as BF
from bslfast import reference


class Passing(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def dreg(log_weights: Tensor, dim: int = -1) -> Tensor:
    return BF.iwae_bound(log_weights, dim=dim, estimator="dreg")


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("samples", [1, 5, 64, 65, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dreg_gradient(dtype: torch.dtype, samples: int, dim: int) -> None:
    """It is the squares of the normalised weights; the value is that of the other estimator."""
    shape = [3, 70]
    shape.insert(dim % 3, samples)
    log_weights = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    bound = dreg(log_weights, dim)
    assert torch.equal(bound, BF.iwae_bound(log_weights, dim=dim))
    weights = torch.randn(bound.shape, dtype=dtype)
    bound.backward(weights)
    exact = log_weights.detach().double()
    expected = weights.double().unsqueeze(dim) * exact.softmax(dim).square()
    assert log_weights.grad is not None
    # A log weight that is 20 below the largest: half an eps of 20, twice for the square.
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(log_weights.grad.double(), expected, rtol=8 * tolerance, atol=0)
    value = exact.logsumexp(dim) - math.log(samples)
    torch.testing.assert_close(bound.detach().double(), value, rtol=tolerance, atol=tolerance)


def test_dreg_by_every_route() -> None:
    log_weights = torch.randn(5, 67)
    grad = torch.randn(5)
    leaf = log_weights.clone().requires_grad_()
    (expected,) = torch.autograd.grad(dreg(leaf), leaf, grad)
    with Passing():
        leaf = log_weights.clone().requires_grad_()
        (by_operator,) = torch.autograd.grad(dreg(leaf), leaf, grad)
    by_transform = torch.func.vjp(dreg, log_weights)[1](grad)[0]
    compiled = torch.compile(dreg, backend="aot_eager", fullgraph=True)
    leaf = log_weights.clone().requires_grad_()
    (by_compiler,) = torch.autograd.grad(compiled(leaf), leaf, grad)
    with threads(1):
        leaf = log_weights.clone().requires_grad_()
        (by_one_thread,) = torch.autograd.grad(dreg(leaf), leaf, grad)
    for found in (by_operator, by_transform, by_compiler, by_one_thread):
        assert_same([found], [expected])
    leaf = log_weights.clone().requires_grad_()
    by_reference = torch.autograd.grad(reference.iwae_bound(leaf, estimator="dreg"), leaf, grad)
    torch.testing.assert_close(by_reference[0], expected)


def test_dreg_second_derivative() -> None:
    """It is the derivative of the gradient, by finite differences."""
    log_weights = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def gradient(log_weights: Tensor) -> Tensor:
        return torch.autograd.grad(dreg(log_weights).sum(), log_weights, create_graph=True)[0]

    assert torch.autograd.gradcheck(gradient, (log_weights,))


def test_dimensions_agree() -> None:
    log_weights = 3 * torch.randn(130, 7, 90)
    expected = log_weights.double().logsumexp(1).float() - math.log(7)
    torch.testing.assert_close(BF.iwae_bound(log_weights, dim=1), expected)
    moved = log_weights.movedim(1, -1)  # read by a copy
    torch.testing.assert_close(BF.iwae_bound(moved), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_of_any_range(dtype: torch.dtype) -> None:
    """Samples in front come in groups, whose sums are brought to the largest weight so far."""
    torch.manual_seed(0)
    log_weights = torch.randn(50, 7, dtype=dtype)
    log_weights[:, 0] = torch.linspace(-2000, 2000, 50)  # each group beyond the range of the last
    log_weights[:, 1] = torch.linspace(2000, -2000, 50)
    log_weights[:20, 2] = -torch.inf
    log_weights[:, 3] = -torch.inf
    log_weights[30, 4] = torch.inf
    log_weights[40, 5] = torch.nan
    finite = log_weights[:, :3].clone().requires_grad_()
    (grad,) = torch.autograd.grad(BF.iwae_bound(finite, dim=0).sum(), finite)
    softmax = torch.softmax(finite.detach().double(), dim=0)
    torch.testing.assert_close(grad.double(), softmax, rtol=1e-5, atol=1e-12)
    bound = BF.iwae_bound(log_weights, dim=0)
    expected = torch.logsumexp(log_weights.double(), dim=0) - torch.tensor(50.0).double().log()
    torch.testing.assert_close(bound.double(), expected, equal_nan=True, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_is_subnormal(dtype: torch.dtype, dim: int, estimator: str) -> None:
    """CPUs compute with such numbers a hundred times as slowly, in all layers that see them."""
    numbers = torch.finfo(dtype)
    least = numbers.tiny / numbers.eps**2
    log_weights = torch.linspace(0, 1.2 * math.log(numbers.tiny), 300, dtype=dtype)
    log_weights = torch.stack([log_weights, log_weights.flip(0)], dim=1 + dim)
    log_weights.requires_grad_()
    bound = BF.iwae_bound(log_weights, dim=dim, estimator=estimator)
    (grad,) = torch.autograd.grad(bound.sum(), log_weights)
    exact = torch.softmax(log_weights.detach().double(), dim=dim)
    exact = exact.square() if estimator == "dreg" else exact
    assert ((exact > 0) & (exact < numbers.tiny)).any()
    assert (grad[exact > 1.01 * least] > 0).all()
    assert (grad[exact < 0.99 * least] == 0).all()
