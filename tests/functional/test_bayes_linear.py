"""bayes_linear: one node in eager mode, its parts elsewhere; both must be the same function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import reference
from bslfast.functional.normal import PARAMETRIZATIONS


def arguments(
    dtype: torch.dtype = torch.float64, bias: bool = True, parametrization: str = "softplus"
) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    raw = (normal(4, 3), normal(4))
    if parametrization == "scale":
        raw = (raw[0].abs() + 0.1, raw[1].abs() + 0.1)
    tensors = [normal(2, 5, 3), normal(4, 3), raw[0]]
    if bias:
        tensors += [normal(4), raw[1]]
    for tensor in tensors:
        tensor.requires_grad_()
    return [*tensors, *([] if bias else [None, None])]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_values_and_gradients_are_those_of_the_reference(parametrization: str, bias: bool) -> None:
    inputs = arguments(bias=bias, parametrization=parametrization)
    options: dict[str, Any] = {
        "parametrization": parametrization,
        "prior_loc": 0.3,
        "prior_scale": 0.7,
        "seed": 5,
    }
    got = BF.bayes_linear(*inputs, **options)
    expected = reference.bayes_linear(*inputs, **options)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    wanted = [t for t in inputs if t is not None]
    grads = [torch.randn_like(o) for o in expected]
    torch.testing.assert_close(
        torch.autograd.grad(got, wanted, grads),
        torch.autograd.grad(expected, wanted, grads),
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize("index", range(5))
def test_each_input_may_be_the_only_one_with_a_gradient(index: int) -> None:
    inputs = arguments()
    full = torch.autograd.grad(_total(BF.bayes_linear(*inputs, seed=5)), inputs[index])
    alone = [t.detach().requires_grad_(i == index) for i, t in enumerate(inputs)]
    got = torch.autograd.grad(_total(BF.bayes_linear(*alone, seed=5)), alone[index])
    torch.testing.assert_close(got, full, rtol=0, atol=0)


@pytest.mark.parametrize("which", [0, 1])
def test_only_one_result_may_be_used(which: int) -> None:
    inputs = arguments()
    got = torch.autograd.grad(
        BF.bayes_linear(*inputs, seed=5)[which].sum(), inputs, allow_unused=True
    )
    expected = torch.autograd.grad(
        reference.bayes_linear(*inputs, seed=5)[which].sum(), inputs, allow_unused=True
    )
    for a, b in zip(got, expected, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_gradcheck_and_second_derivatives() -> None:
    inputs = arguments()

    def function(*tensors: Tensor) -> Any:
        return BF.bayes_linear(*tensors, seed=5)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_scale_made_from_the_mean(create_graph: bool) -> None:
    x, loc, *_ = arguments()
    assert x is not None
    assert loc is not None
    raw = loc * 2
    found = [
        torch.autograd.grad(
            _total(function(x, loc, raw, seed=5)),
            [x, loc, raw],
            create_graph=create_graph,
            retain_graph=True,
        )
        for function in (BF.bayes_linear, reference.bayes_linear)
    ]
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_the_incoming_gradient_is_not_written_to() -> None:
    # The gradient of the sampled weight is overwritten in place; what the user hands in is not.
    inputs = arguments()
    y, kl = BF.bayes_linear(*inputs, seed=5)
    grads = (torch.randn_like(y), torch.randn_like(kl))
    kept = [g.clone() for g in grads]
    torch.autograd.grad((y, kl), inputs, grads)
    torch.testing.assert_close(list(grads), kept, rtol=0, atol=0)


def test_compiled_and_transformed_agree_with_eager() -> None:
    inputs = arguments()

    def function(*tensors: Tensor) -> Tensor:
        return _total(BF.bayes_linear(*tensors, seed=5))

    expected = torch.autograd.grad(function(*inputs), inputs)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(*inputs), inputs), expected, rtol=1e-12, atol=1e-12
    )
    detached = [t.detach() for t in inputs]
    torch.testing.assert_close(
        torch.func.grad(function, tuple(range(5)))(*detached), expected, rtol=1e-12, atol=1e-12
    )


def test_reference_mode_gives_the_same() -> None:
    inputs = arguments()
    got = BF.bayes_linear(*inputs, seed=5)
    with BF.use_reference():
        expected = BF.bayes_linear(*inputs, seed=5)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_thread_count_does_not_show() -> None:
    x, wl, wr = (torch.randn(s, requires_grad=True) for s in ((7, 200), (150, 200), (150, 200)))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            kl = BF.bayes_linear(x, wl, wr, seed=3)[1]
            results.append((kl, *torch.autograd.grad(kl, (wl, wr))))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("position", "value", "error", "message"),
    [
        (0, [1.0], TypeError, "x: expected a torch.Tensor, got list"),
        (0, torch.zeros(5, 4), ValueError, r"x: expected shape \[..., 3\], got \[5, 4\]"),
        (0, torch.zeros(()), ValueError, r"x: expected shape \[..., 3\], got \[\]"),
        (0, torch.zeros(5, 3, dtype=torch.int64), TypeError, "x: expected dtype"),
        (
            0,
            torch.zeros(5, 3, dtype=torch.float64),
            TypeError,
            "x: expected the dtype of weight_loc",
        ),
        (1, torch.zeros(3), ValueError, "weight_loc: expected shape"),
        (2, torch.zeros(4, 4), ValueError, r"weight_raw_scale: expected shape \[4, 3\]"),
        (3, torch.zeros(3), ValueError, r"bias_loc: expected shape \[4\]"),
        (4, None, ValueError, "bias_raw_scale: expected a tensor"),
        (3, None, ValueError, "bias_loc: expected a tensor"),
    ],
)
def test_errors(position: int, value: Any, error: type[Exception], message: str) -> None:
    inputs: list[Any] = [t.detach() for t in arguments(torch.float32) if t is not None]
    inputs[position] = value
    with pytest.raises(error, match=message):
        BF.bayes_linear(*inputs)


def _total(results: tuple[Tensor, Tensor]) -> Tensor:
    y, kl = results
    return y.square().sum() + 0.5 * kl


def test_a_second_backward_gives_the_same_and_leaves_the_first_alone() -> None:
    """Backward overwrites the sampled weight, so the next backward must draw it again."""
    inputs = [t for t in arguments() if t is not None]
    y, kl = BF.bayes_linear(*inputs, seed=5)
    given = [torch.randn_like(y), torch.randn_like(kl)]
    first = torch.autograd.grad((y, kl), inputs, given, retain_graph=True)
    kept = [g.clone() for g in first]
    second = torch.autograd.grad((y, kl), inputs, given)
    for a, b, c in zip(first, kept, second, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(b, c)
