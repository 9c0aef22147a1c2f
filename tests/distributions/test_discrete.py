"""Divergences and entropies by logits and log rates, next to 0 and at the end of the range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor

import bslfast.distributions as bd

INF = math.inf
of_each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def bernoulli(a: list[Any], b: list[Any]) -> Any:
    return categorical([a[0], 0], [b[0], 0])


def categorical(a: list[Any], b: list[Any]) -> Any:
    p, q = ([mpmath.exp(v) for v in logits] for logits in (a, b))
    p, q = ([v / mpmath.fsum(share) for v in share] for share in (p, q))
    return mpmath.fsum(x * mpmath.log(x / y) for x, y in zip(p, q, strict=True))


def poisson(a: list[Any], b: list[Any]) -> Any:
    return mpmath.exp(a[0]) * (a[0] - b[0]) - mpmath.exp(a[0]) + mpmath.exp(b[0])


KL: dict[str, tuple[Callable[[Tensor], Any], Callable[..., Any]]] = {
    "bernoulli": (lambda v: bd.Bernoulli(v[..., 0]), bernoulli),
    "categorical": (bd.Categorical, categorical),
    "poisson": (lambda v: bd.Poisson(v[..., 0]), poisson),
}
CASES = {
    "bernoulli": [
        ([0.0], [-100.0]),
        ([20.0], [25.0]),
        ([-100.0], [-60.0]),
        ([60.0], [100.0]),
        ([3.0], [-3.0]),
        *([[a], [a + d]] for a in (-9.0, 0.0, 2.0) for d in (0.7, 0.1, -1e-3, 1e-5)),
    ],
    "categorical": [
        ([0.0, 0.0, 0.0], [0.0, 0.0, -110.0]),
        ([0.0, 20.0, 1.0], [0.0, 25.0, 1.0]),
        ([-100.0, 0.0, 0.0], [100.0, 0.0, 0.0]),
        *(([0.5, -2.0, 1.0], [0.5 + d, -2.0 - 2 * d, 1.0]) for d in (0.5, 0.1, 1e-3, 1e-5)),
    ],
    "poisson": [
        ([-200.0], [0.0]),
        ([0.0], [-200.0]),
        ([-60.0], [-62.0]),
        ([30.0], [31.0]),
        *([[a], [a + d]] for a in (-9.0, 0.0, 7.0) for d in (0.7, -0.1, 1e-3, -1e-5)),
    ],
}


@of_each_dtype
@pytest.mark.parametrize("name", KL)
def test_divergences_are_relatively_accurate(name: str, dtype: torch.dtype) -> None:
    """Values and gradients are within 16 eps of themselves, also for pairs 1e-5 apart.

    The gradient by the first logits is a chance times the difference of d and its mean. The
    difference may be next to 0, so its error is relative to d.
    """
    make, exact = KL[name]
    eps = torch.finfo(dtype).eps
    for given in CASES[name]:
        a, b = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in given)
        kl = bd.kl_divergence(make(a), make(b))
        grads = torch.autograd.grad(kl, (a, b))
        with mpmath.workdps(200):
            x, y = ([mpmath.mpf(v) for v in t.tolist()] for t in (a, b))
            wanted = exact(x, y)
            # A rounded total shifts each d by the same error, which counts by its square.
            shift = (0.25 * eps) ** 2 if name == "categorical" else 0
            assert abs(kl.item() - wanted) <= 16 * eps * wanted + shift, given
            d = max(abs(v - w) for v, w in zip(x, y, strict=True))
            for which, grad in enumerate(grads):
                for i, found in enumerate(grad.tolist()):
                    moved = [[*x], [*y]]

                    def along(v: Any, moved: Any = moved, at: Any = (which, i)) -> Any:
                        moved[at[0]][at[1]] = v
                        return exact(*moved)

                    slope = mpmath.diff(along, moved[which][i])
                    share = min(1, d) if name == "categorical" else 0
                    bound = 16 * eps * (abs(slope) + share) + torch.finfo(dtype).tiny
                    assert abs(found - slope) <= bound, (given, which, i)


def test_the_stated_values() -> None:
    zero = torch.tensor(0.0)
    pairs: list[tuple[Any, Any, float]] = [
        (bd.Bernoulli(zero), bd.Bernoulli(zero - 100), 49.306853),
        (bd.Bernoulli(zero + 20), bd.Bernoulli(zero + 25), 8.2584675e-09),
        (bd.Categorical(torch.zeros(3)), bd.Categorical(torch.tensor([0, 0, -110.0])), 36.261200),
        (bd.Poisson(zero - 200), bd.Poisson(zero), 1.0),
    ]
    for p, q, value in pairs:
        assert bd.kl_divergence(p, q).item() == pytest.approx(value, rel=1e-6)


def test_classes_that_are_excluded() -> None:
    p = torch.tensor([[0.0, 0.0, -INF], [0.0, -INF, -INF], [0.0, 0.0, 0.0]], requires_grad=True)
    q = torch.tensor([0.0, 0.0, -INF])
    kl = bd.kl_divergence(bd.Categorical(p), bd.Categorical(q))
    torch.testing.assert_close(kl.detach(), torch.tensor([0.0, math.log(2), INF]))
    (grad,) = torch.autograd.grad(
        bd.kl_divergence(bd.Categorical(p[:2]), bd.Categorical(q)).sum(), p
    )
    assert bool(grad.isfinite().all())
    hot = [bd.OneHotCategoricalStraightThrough(0.5, logits=v) for v in (p.detach(), q)]
    assert torch.equal(bd.kl_divergence(*hot), kl.detach())
    with pytest.raises(ValueError, match=r"kl_divergence: expected .* same classes, got 3 and 1"):
        bd.kl_divergence(bd.Categorical(p), bd.Categorical(torch.zeros(1)))


@of_each_dtype
def test_entropies(dtype: torch.dtype) -> None:
    """Errors are relative to the entropy, also where one outcome is almost certain. None is NaN."""
    eps = torch.finfo(dtype).eps
    logits = torch.tensor([-80.0, -20.0, -0.5, 0.0, 3.0, 20.0, 80.0, 100.0], dtype=dtype)
    logits.requires_grad_()
    entropy = bd.Bernoulli(logits).entropy()
    pair = torch.stack([logits, torch.zeros_like(logits)], -1)
    (slope,) = torch.autograd.grad(entropy.sum(), logits)
    both = bd.Categorical(pair).entropy()
    (other,) = torch.autograd.grad(both.sum(), logits)
    with mpmath.workdps(60):
        for i, v in enumerate(logits.tolist()):
            p, q = (1 / (1 + mpmath.exp(sign * mpmath.mpf(v))) for sign in (1, -1))
            exact = -p * mpmath.log(p) - q * mpmath.log(q)
            least = torch.finfo(dtype).tiny
            assert abs(entropy[i].item() - exact) <= 8 * eps * exact + least
            assert abs(both[i].item() - exact) <= 8 * eps * exact + least
            for found in (slope[i].item(), other[i].item()):
                assert (
                    abs(found + mpmath.mpf(v) * p * q) <= 8 * eps * min(p, q) * (1 + abs(v)) + least
                )
    certain = torch.tensor([INF, -INF], dtype=dtype)
    assert torch.equal(bd.Bernoulli(certain).entropy(), torch.zeros(2, dtype=dtype))
    excluded = torch.tensor([0.0, 0.0, -INF, -110.0], dtype=dtype, requires_grad=True)
    found = bd.Categorical(excluded).entropy()
    assert found.item() == pytest.approx(math.log(2), rel=4 * eps)
    (grad,) = torch.autograd.grad(found, excluded)
    assert bool(grad.isfinite().all())


@of_each_dtype
def test_entropy_of_poisson(dtype: torch.dtype) -> None:
    """The entropy and its derivative by the log rate are right on both sides of rate 40."""
    eps = torch.finfo(dtype).eps
    values = [-80.0, -5.0, 0.0, 2.0, 3.5, 3.68, 3.69, 4.5, 7.0]
    log_rate = torch.tensor(values, dtype=dtype, requires_grad=True)
    entropy = bd.Poisson(log_rate).entropy()
    (slope,) = torch.autograd.grad(entropy.sum(), log_rate)
    with mpmath.workdps(30):
        for i, v in enumerate(log_rate.tolist()):
            x = mpmath.mpf(v)
            rate = mpmath.exp(x)
            around = int(14 * mpmath.sqrt(rate)) + 40
            counts = range(max(0, int(rate) - around), int(rate) + around)
            chances = [mpmath.exp(k * x - rate - mpmath.loggamma(k + 1)) for k in counts]
            each = list(zip(chances, counts, strict=True))
            exact = rate * (1 - x) + mpmath.fsum(c * mpmath.loggamma(k + 1) for c, k in each)
            derivative = rate * (mpmath.fsum(c * mpmath.log(k + 1) for c, k in each) - x)
            assert abs(entropy[i].item() - exact) <= 4 * eps * exact
            assert abs(slope[i].item() - derivative) <= 16 * eps * derivative
    ends = torch.tensor([-INF, -1e30, 60.0], dtype=dtype, requires_grad=True)
    entropy = bd.Poisson(ends).entropy()
    (slope,) = torch.autograd.grad(entropy.sum(), ends)
    half = 0.5 * math.log(2 * math.pi * math.e)
    torch.testing.assert_close(entropy, torch.tensor([0.0, 0.0, half + 30], dtype=dtype))
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.0, 0.5], dtype=dtype))
