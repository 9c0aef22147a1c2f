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
from bslfast._native import READS_TENSORS, _cpu, pointwise
from bslfast.distributions import Normal, kl_divergence
from bslfast.distributions import normal as distributions_normal
from bslfast.functional import _op
from bslfast.functional import _pointwise as functional_pointwise
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

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


@pytest.mark.skipif(not READS_TENSORS, reason="this version of torch has no table of C functions")
@pytest.mark.parametrize(
    ("function", "forward", "backward"),
    [
        (lambda a, b: BF.bernoulli_log_prob(a, b, reduction="none"), 4, 2),
        (lambda a, b: BF.normal_rsample(a, b), 5, 2),
        (lambda a, b: BF.normal_kl(a, b), 6, 2),
        (lambda a, b: BF.laplace_rsample(a, b), 5, 2),
        (lambda a, b: BF.relaxed_bernoulli_rsample(a, 0.5), 13, 2),
        (lambda a, b: BF.laplace_kl(a, b), 14, 2),
        (lambda a, b: Normal(a, b).rsample(), 25, 0),
        (_normals, 49, 2),
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


@pytest.mark.skipif(not READS_TENSORS, reason="this version of torch has no table of C functions")
def test_functions_of_models_by_ops() -> None:
    """A step of a small VAE and of a small Bayesian network, forward."""
    vae = VAE(mlp_encoder((6,), 2, (5,)), mlp_decoder(2, (6,), (5,)))
    network, x = bslfast.bnn.BayesianMLP(3, (5,), 1), torch.rand(4, 6)

    def loss() -> Tensor:
        log_likelihood = network.likelihood.log_prob(network(x[:, :3]), x[:, :1])
        return bslfast.negative_elbo(log_likelihood, bslfast.nn.kl(network), dataset_size=10)

    with bslfast.whole_networks(False):
        vae.elbo(x)
        assert calls_of_ours(lambda: vae.elbo(x)) <= 19
        assert calls_of_ours(loss) <= 91


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


def _without_table(patch: pytest.MonkeyPatch) -> None:
    """Go on as with a version of torch whose tensors kernels cannot read."""
    patch.setattr(pointwise, "READS_TENSORS", False)
    patch.setattr(functional_pointwise, "READS_TENSORS", False)
    for module in (_op, functional_pointwise):
        patch.setattr(module, "in_common", _op._in_common_by_attributes)
    patch.setattr(distributions_normal, "READS_TENSORS", False)


@pytest.mark.skipif(not READS_TENSORS, reason="this version of torch has no table of C functions")
def test_what_tensors_have_in_common() -> None:
    """By torch's table of C functions the same is found as by attributes."""
    a, b = torch.zeros(5, requires_grad=True), torch.ones(5)
    seen: list[tuple[int, int]] = []

    def both(*tensors: Tensor | None) -> int:
        found = _cpu.in_common(tensors)
        seen.append((found, _op._in_common_by_attributes(tensors)))
        return found

    with torch.inference_mode():
        inferred = torch.zeros(5)
    assert both(a, b) == both(torch.nn.Parameter(b), inferred) == _op.ONE_SHAPE
    assert both(torch.zeros(0, 3), torch.ones(0, 3).t().t()) == _op.ONE_SHAPE
    assert both(a, b[:1]) == both(a, b.reshape(1, 5)) == _op.ONE_DTYPE
    for others in ((a, b.double()), (None, a), (b.half(), b.half()), (b.long(),), (a, b.bool())):
        assert both(*others) == _op.PLAIN
    nested = torch.nested.nested_tensor([b, b], layout=torch.jagged)
    odd = [b.as_subclass(Wrapped), torch.complex(b, -b).conj().imag, torch.complex(b, b).conj()]
    odd += [torch._efficientzerotensor(5), b.to_sparse(), torch.empty(5, device="meta"), nested]
    for tensor in odd:
        assert both(a, tensor) == both(tensor) == _op.NOTHING

    def function(x: Tensor) -> Tensor:
        assert both(x) == _op.NOTHING
        return x * 2

    torch.vmap(function)(torch.ones(2, 3))
    torch.func.grad(lambda x: function(x).sum())(b)
    leaf = a * 1
    leaf.register_hook(lambda grad: function(grad) / 2)
    torch.autograd.grad(leaf * 3, a, torch.ones(2, 5), is_grads_batched=True)
    assert len(seen) > 20
    assert all(found == expected for found, expected in seen)


def test_kernels_read_tensors_as_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies elsewhere, broadcasts or has many dimensions."""
    wide = torch.randn(3, 4, 10)[:, :, ::2]
    many = torch.randn(*[2] * 10).transpose(0, 9)
    cases = [
        (wide, torch.rand(4, 1)),
        (torch.randn(5, 4).t(), torch.rand(4, 5)),
        (torch.randn(1, 5).expand(3, 5), torch.rand(())),
        (many, torch.rand(2, 1, 2)),
        (torch.randn(0, 4), torch.rand(4)),
    ]

    def results() -> list[Tensor]:
        found: list[Tensor] = []
        for loc, scale in cases:
            leaves = loc.clone().requires_grad_(), scale.clone().requires_grad_()
            a, b = leaves[0].as_strided(loc.shape, leaves[0].stride()), leaves[1]
            for reduction in ("none", "row", "sum"):
                kl = BF.normal_kl(a, b, reduction=reduction)
                found += [kl, *torch.autograd.grad(kl.sum(), leaves)]
            sample = BF.laplace_rsample(a, b, sample_shape=(2,), seed=1)
            found += [sample, *torch.autograd.grad(sample, leaves, torch.ones_like(sample))]
        return found

    direct = results()
    _without_table(monkeypatch)
    for found, expected in zip(direct, results(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("sample_shape", [(), (3,), (2, 0)])
def test_few_samples_with_a_plain_scale(
    sample_shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are what the kernel draws, and so are their gradients."""
    loc, scale = torch.randn(4, 5, dtype=torch.float64), torch.rand(4, 5, dtype=torch.float64)
    scale[0, 0] = torch.nan

    def drawn() -> tuple[Tensor, ...]:
        leaves = loc.clone().requires_grad_(), scale.clone().requires_grad_()
        torch.manual_seed(3)
        x = Normal(*leaves, validate_args=False).rsample(sample_shape)
        return x, *torch.autograd.grad(
            x, leaves, torch.linspace(0, 1, x.numel()).view_as(x).double()
        )

    few = drawn()
    by_torch = READS_TENSORS and 0 not in sample_shape
    assert ("AddBackward" in type(few[0].grad_fn).__name__) == by_torch
    _without_table(monkeypatch)
    kernel = drawn()
    assert "AddBackward" not in type(kernel[0].grad_fn).__name__
    for found, expected in zip(few, kernel, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15, equal_nan=True)
    if 0 not in sample_shape:
        scale[1, 1] = -0.5
        monkeypatch.undo()
        with pytest.raises(ValueError, match="raw_scale: expected scales >= 0, got "):
            drawn()
