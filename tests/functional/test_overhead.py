"""Python's share of a call, before its kernel: counted rather than timed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast
import bslfast.functional as BF
from bslfast.distributions import Normal, kl_divergence

_HERE = str(Path(bslfast.__file__).parent) + os.sep


def calls_of_ours(function: Callable[[], Any]) -> int:
    """The number of calls of the package's Python functions in a call."""
    function()  # what is made at the first call
    found = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal found
        found += event == "call" and frame.f_code.co_filename.startswith(_HERE)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


def _normals(loc: Tensor, scale: Tensor) -> Tensor:
    return kl_divergence(Normal(loc, scale), Normal(scale, scale))


@pytest.mark.parametrize(
    ("function", "forward", "backward"),
    [
        (lambda a, b: BF.bernoulli_log_prob(a, b, reduction="none"), 18, 16),
        (lambda a, b: BF.normal_rsample(a, b), 22, 14),
        (lambda a, b: BF.normal_kl(a, b), 26, 18),
        (lambda a, b: BF.laplace_rsample(a, b), 20, 16),
        (lambda a, b: BF.relaxed_bernoulli_rsample(a, 0.5), 27, 20),
        (lambda a, b: BF.laplace_kl(a, b), 29, 23),
        (lambda a, b: Normal(a, b).rsample(), 42, 14),
        (_normals, 72, 27),
    ],
)
def test_functions_between_call_and_kernel(
    function: Callable[[Tensor, Tensor], Tensor], forward: int, backward: int
) -> None:
    """Small calls are mostly Python: each function takes about 0.2 us."""
    a, b = torch.zeros(5, requires_grad=True), torch.ones(5, requires_grad=True)
    assert calls_of_ours(lambda: function(a, b)) <= forward
    result = function(a, b)
    grad = torch.ones_like(result)
    found = calls_of_ours(
        lambda: torch.autograd.grad(result, (a, b), grad, retain_graph=True, allow_unused=True)
    )
    assert found <= backward


class Wrapped(torch.Tensor):
    """A subclass, of which kernels must not read the memory."""


def test_only_plain_arguments_go_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that torch must look at, the seed included, go through an operator."""
    a, b, seed = torch.zeros(5), torch.ones(5), torch.tensor(7)
    seen: list[str] = []

    def by_operator(*args: Any) -> Any:
        seen.append("operator")
        raise RuntimeError

    for op in (BF.laplace._rsample.op, BF.normal._rsample.op):
        monkeypatch.setattr(op, "operator", by_operator)
    for call in (BF.laplace_rsample, BF.normal_rsample):
        seen.clear()
        call(a, b, seed=seed)
        assert not seen
        for odd in (
            (a.as_subclass(Wrapped), b, seed),
            (a, b, seed.as_subclass(Wrapped)),
            (a, torch.complex(b, -b).conj().imag, seed),
            (torch._efficientzerotensor(5), b, seed),
        ):
            seen.clear()
            with pytest.raises(RuntimeError):
                call(odd[0], odd[1], seed=odd[2])
            assert seen == ["operator"]


def test_saved_tensors_may_come_back_otherwise() -> None:
    """Hooks on saved tensors give backward copies, which may have another layout."""
    for function in (BF.normal_kl, BF.laplace_rsample, BF.normal_rsample):
        options = {} if function is BF.normal_kl else {"seed": 3}
        a, b = torch.randn(4, 6).requires_grad_(), torch.randn(4, 6).requires_grad_()
        expected = torch.autograd.grad(function(a, b, **options).sum(), (a, b))
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t.detach().clone(),
            lambda t: t.t().contiguous().t() if t.dim() == 2 else t,
        ):
            result = function(a, b, **options)
        for found, wanted in zip(torch.autograd.grad(result.sum(), (a, b)), expected, strict=True):
            assert torch.equal(found, wanted)
