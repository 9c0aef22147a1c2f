"""Values and gradients of every op against its reference, in any shape and layout."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from ops import RECORDS
from ops.every import (
    CHUNK,
    DTYPES,
    SHAPE,
    SMALL,
    differ,
    first_case,
    negative_bit,
    of_each_case,
    of_each_dtype,
    of_each_op,
    of_each_random_op,
    strided,
    transposed,
    widest_case,
)
from ops.record import (
    Call,
    Case,
    OpRecord,
    assert_close,
    assert_same,
    assert_same_gradients,
    expected_with_gradients,
    isa,
    leaves,
    noise_of,
    positional,
    run,
    run_with_gradients,
    threads,
    weights,
)
from torch import Tensor

import bslfast
from bslfast._native import _cpu

# --- the table itself ----------------------------------------------------------------------------


def test_every_op_has_a_record() -> None:
    """An op without a record would have none of the tests below."""
    # bayes_linear is made of ops and a product, and one op takes lists; noise has no tensor
    # arguments.
    own_tests = {
        *("bayes_linear", "normal_rsample_kl_many"),
        *("standard_normal", "standard_uniform"),
    }
    assert sorted(bslfast.reference.__all__) == sorted([*(r.name for r in RECORDS), *own_tests])
    assert set(bslfast.reference.__all__) <= set(bslfast.functional.__all__)


@of_each_op
def test_reference_has_the_same_signature(record: OpRecord) -> None:
    """Only then can the oracle stand in for the op."""
    assert inspect.signature(record.function) == inspect.signature(record.reference)


# --- values and gradients ------------------------------------------------------------------------


def check(
    record: OpRecord, call: Call, label: str = "", levels: Sequence[str] = (_cpu.isa(),)
) -> None:
    """Values and all gradients of a call against the float64 reference."""
    names = record.differentiable(call)
    expected, expected_grads = expected_with_gradients(record, call, names)
    for level in levels:
        with isa(level):
            results, grads = run_with_gradients(record.function, call, names)
        tolerance = record.tolerance[results[0].dtype]
        elements = max(t.numel() for t in (*results, *call.tensors.values()))
        for i, (r, e) in enumerate(zip(results, expected, strict=True)):
            what = f"{label} {level} result {i}"
            assert_close(r, e, tolerance.value, elements=elements, label=what)
        for name in names:
            grad, expected_grad = grads[name], expected_grads[name]
            what = f"{label} {level} d {name}"
            assert grad is not None, f"{what}: no gradient"
            assert expected_grad is not None
            assert_close(grad, expected_grad, tolerance.gradient, elements=elements, label=what)


@of_each_dtype
@of_each_case
def test_agrees_with_the_reference(case: Case, dtype: torch.dtype) -> None:
    """Values and gradients agree with float64 on the same numbers, at every instruction set."""
    for seed in range(3):
        check(case.record, case.call(dtype, SHAPE, seed), f"seed {seed}", _cpu.isa_levels())


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (3,), (17,), (4097,), (0, 3), (3, 0), (2, 1, 5)], ids=str
)
@of_each_case
def test_any_shape(case: Case, shape: tuple[int, ...]) -> None:
    """Shapes have no element, one, fewer than a vector, and no whole number of vectors."""
    if len(shape) < case.min_dims:
        pytest.skip("this variant needs a dimension")
    for dtype in DTYPES:
        check(case.record, case.call(dtype, shape), str(dtype))


@pytest.mark.parametrize("sample_shape", [(1,), (1, 1), (1, 2, 1)], ids=str)
@of_each_random_op
def test_sample_shapes_of_ones(record: OpRecord, sample_shape: tuple[int, ...]) -> None:
    """Dimensions of size 1 change shapes and nothing else, to the last bit of every gradient."""
    without = tuple(n for n in sample_shape if n > 1)
    for name in record.variants:
        for dtype in (*DTYPES, torch.bfloat16):
            call = Case(record, name).call(dtype, SHAPE).options_but(sample_shape=without)
            names = record.differentiable(call)
            expected, expected_grads = run_with_gradients(record.function, call, names)
            call = call.options_but(sample_shape=sample_shape)
            actual, grads = run_with_gradients(record.function, call, names)
            assert actual[0].shape[: len(sample_shape)] == sample_shape
            flat = [r.reshape(e.shape) for r, e in zip(actual, expected, strict=True)]
            assert_same(flat, expected, name)
            assert_same_gradients(grads, expected_grads, name)


@of_each_case
def test_no_gradient_mode(case: Case) -> None:
    """Values are the same where nothing is recorded, and no result requires a gradient."""
    call = case.call(torch.float32, SHAPE)
    expected = run(case.record.function, call)
    assert not any(r.requires_grad for r in expected)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            results = run(case.record.function, leaves(call, case.record.differentiable(call)))
        assert not any(r.requires_grad for r in results)
        assert_same([r.clone() for r in results], expected, mode.__name__)


@of_each_case
def test_second_derivatives(case: Case) -> None:
    """They pass gradcheck and gradgradcheck by finite differences, also with batched gradients."""
    call = case.call(torch.float64, SMALL)
    names = case.record.differentiable(call)
    tensors = tuple(leaves(call, names).tensors.values())
    function = positional(case.record.function, call)
    # Many inputs: along random directions, not one by one.
    many = sum(t.numel() for t in tensors) > 30
    if case.record.variants[case.name].own_gradient:
        assert torch.autograd.gradcheck(function, tensors, check_batched_grad=True, fast_mode=many)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=many)


@of_each_case
def test_second_derivatives_agree_with_the_reference(case: Case) -> None:
    """Finite differences are coarse; the reference's own second derivatives are not."""

    def second(function: Callable[..., Any]) -> Sequence[Tensor]:
        call = case.call(torch.float64, SMALL)
        names = case.record.differentiable(call)
        call = leaves(call, names)
        results = run(function, call)
        inputs = [call.tensors[k] for k in names]
        first = torch.autograd.grad(results, inputs, weights(results), create_graph=True)
        # A gradient that is constant in the inputs may be without a graph.
        total = sum((g * w).sum() for g, w in zip(first, weights(first), strict=True))
        total = total + sum(0 * t.sum() for t in inputs)
        return [*first, *torch.autograd.grad(total, inputs)]

    expected = second(case.record.reference)
    for actual, wanted in zip(second(case.record.function), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


# --- layouts -------------------------------------------------------------------------------------


def _expanded(t: Tensor) -> Tensor:
    return t[..., :1].expand(t.shape) if t.dim() else t


def _narrowed(t: Tensor) -> Tensor:
    if t.dim() == 0:
        return _misaligned(t)
    room = t.new_full((*t.shape[:-1], t.shape[-1] + 5), math.nan)
    room[..., 2:-3] = t
    return room[..., 2:-3]


def _misaligned(t: Tensor) -> Tensor:
    room = t.new_full((t.numel() + 1,), math.nan)
    room[1:] = t.reshape(-1)
    return room[1:].view(t.shape)


def _reversed(t: Tensor) -> Tensor:
    backwards = tuple(reversed(range(t.dim())))
    return t.permute(backwards).contiguous().permute(backwards)


LAYOUTS = [_expanded, strided, transposed, _narrowed, _misaligned, negative_bit]
of_each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__.strip("_"))


@of_each_layout
@of_each_case
def test_any_layout(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    """Arguments in a layout, alone and all at once, give exactly the contiguous result."""
    for dtype, shape in itertools.product(DTYPES, [SHAPE, (3, 4, 2, 67)]):
        call = case.call(dtype, shape)
        for names in [*([name] for name in call.tensors), list(call.tensors)]:
            changed = call.but(**{name: layout(call.tensors[name]) for name in names})
            plain = changed.map(lambda t: t.clone(memory_format=torch.contiguous_format))
            wanted = case.record.differentiable(call)
            actual = run_with_gradients(case.record.function, changed, wanted)
            expected = run_with_gradients(case.record.function, plain, wanted)
            label = f"{names} {shape} {dtype}"
            assert_same(actual[0], expected[0], label)
            assert_same_gradients(actual[1], expected[1], label)


@of_each_case
def test_nine_strided_dimensions(case: Case) -> None:
    """More dimensions than the kernels' layouts have, none of which can be merged."""
    shape = (2,) * 9
    call = case.call(torch.float32, shape)
    changed = call.map(_reversed)
    assert any(not t.is_contiguous() for t in changed.tensors.values())
    names = case.record.differentiable(call)
    actual = run_with_gradients(case.record.function, changed, names)
    expected = run_with_gradients(case.record.function, call, names)
    assert_same(actual[0], expected[0])
    assert_same_gradients(actual[1], expected[1])


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(3 * CHUNK + 17,), (3, 2 * CHUNK + 33), (1000, 25)], ids=["flat", "long", "short"]
)
@of_each_case
def test_any_number_of_threads(case: Case, shape: tuple[int, ...]) -> None:
    """Results are equal to the last bit, for rows longer and shorter than a thread's chunk."""
    for dtype in DTYPES:
        call = case.call(dtype, shape)
        names = case.record.differentiable(call)
        with threads(1):
            expected = run_with_gradients(case.record.function, call, names)
        for n in (2, 3, 4):
            with threads(n):
                actual = run_with_gradients(case.record.function, call, names)
            assert_same(actual[0], expected[0], f"{n} threads, {dtype}")
            assert_same_gradients(actual[1], expected[1], f"{n} threads, {dtype}")


@of_each_case
def test_several_chunks_agree_with_the_reference(case: Case) -> None:
    """What is added up from several chunks is the sum."""
    for shape in [(2, CHUNK + 33), (1000, 25)]:
        check(case.record, case.call(torch.float32, shape), str(shape))


# --- 16 bits -------------------------------------------------------------------------------------


of_each_low_dtype = pytest.mark.parametrize(
    "low", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)


@of_each_low_dtype
@of_each_case
def test_sixteen_bits(case: Case, low: torch.dtype) -> None:
    """The results are those of the float32 op on the same numbers, rounded once, to the last bit.

    An incoming gradient of 16 bits is a float32 number as well. So the error is that of one
    rounding, also in gradients that are sums. Logarithms are not rounded at all. The reference is
    tested in the same way.
    """
    record = case.record
    call = case.call(torch.float32, SHAPE).map(lambda t: t.to(low) if t.is_floating_point() else t)
    full = call.map(lambda t: t.float() if t.is_floating_point() else t)
    names = record.differentiable(call)
    given = record.rounded(weights(run(record.function, full)), low)
    for function in (record.function, record.reference):
        expected, expected_grads = run_with_gradients(
            function, full, names, [g.float() for g in given]
        )
        results, grads = run_with_gradients(function, call, names, given)
        assert_same(results, record.rounded(expected, low))
        assert_same_gradients(grads, {k: g.to(low) for k, g in expected_grads.items()})


@of_each_low_dtype
@of_each_op
def test_sixteen_bits_overflow_in_no_logarithm(record: OpRecord, low: torch.dtype) -> None:
    """Sums, and their gradients, go beyond 65504, the largest float16."""
    case = widest_case(record)
    call = case.call(low, (600, 700))
    if "reduction" in inspect.signature(record.function).parameters:
        call = call.options_but(reduction="sum")
    names = record.differentiable(call)
    results, grads = run_with_gradients(record.function, call, names)
    full = call.map(lambda t: t.float() if t.is_floating_point() else t)
    expected = run(record.function, full)
    for i, (r, e) in enumerate(zip(results, expected, strict=True)):
        assert r.dtype == (low if i < record.values else torch.float32)
        assert i < record.values or torch.equal(r, e)
    assert all(g is not None and g.dtype == low for g in grads.values())


@of_each_low_dtype
@of_each_op
def test_autocast(record: OpRecord, low: torch.dtype) -> None:
    """Under autocast 16-bit arguments are computed in float32; gradients come back in 16 bits."""
    call = widest_case(record).call(torch.float32, SHAPE).map(lambda t: t.to(low))
    names = record.differentiable(call)
    expected, expected_grads = run_with_gradients(record.function, call.map(Tensor.float), names)
    with torch.autocast("cpu", dtype=low):
        actual, grads = run_with_gradients(record.function, call, names)
    assert_same(actual, expected)
    assert_same_gradients(grads, {k: g.to(low) for k, g in expected_grads.items()})


@of_each_low_dtype
@of_each_op
def test_autocast_of_several_dtypes(record: OpRecord, low: torch.dtype) -> None:
    """Data may be float32 and a network's outputs 16-bit, or the other way round."""
    call = widest_case(record).call(torch.float32, SHAPE).map(lambda t: t.to(low).float())
    expected = run(record.function, call)
    for name in call.tensors:
        mixed = call.but(**{name: call.tensors[name].to(low)})
        with torch.autocast("cpu", dtype=low):
            assert_same(run(record.function, mixed), expected, name)
        if len(call.tensors) > 1:
            with pytest.raises(TypeError, match="expected the dtype of"):
                run(record.function, mixed)


# --- the tests themselves ------------------------------------------------------------------------


@of_each_random_op
def test_oracle_draws_the_noise_of_the_dtype(record: OpRecord) -> None:
    """The float64 reference has float32 noise. Else the comparison above would be of nothing."""
    call = first_case(record).call(torch.float32, SHAPE).map(Tensor.double)
    own = run(record.reference, call)
    with noise_of(torch.float32):
        assert differ(run(record.reference, call), own)
    assert_same(run(record.reference, call), own)
