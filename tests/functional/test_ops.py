"""What every op is tested for, from its record in tests/ops: by every route, in any layout."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from ops import CASES, RECORDS
from ops.record import (
    SEED,
    Call,
    Case,
    Draw,
    Error,
    Extreme,
    OpRecord,
    Results,
    as_tuple,
    assert_close,
    assert_same,
    assert_same_gradients,
    expected_results,
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
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import bslfast
from bslfast._native import _cpu

DTYPES = [torch.float32, torch.float64]
# Two blocks of the kernels, the last one not full.
SHAPE = (5, 67)
SMALL = (2, 3)
CHUNK = 8192

of_each_op = pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
of_each_random_op = pytest.mark.parametrize(
    "record", [r for r in RECORDS if r.random], ids=lambda r: r.name
)
of_each_case = pytest.mark.parametrize("case", CASES, ids=str)
of_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def first_case(record: OpRecord) -> Case:
    return Case(record, next(iter(record.variants)))


def widest_case(record: OpRecord) -> Case:
    """The variant with most tensor arguments."""
    cases = [Case(record, name) for name in record.variants]
    return max(cases, key=lambda c: len(c.call(torch.float32, SHAPE).tensors))


class Watch(TorchDispatchMode):
    """Sends ops by their operators, as torch's tools do, and keeps what those were called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "bslfast":
            self.calls.append((func, args, result))
        return result


# --- the table itself -----------------------------------------------------------------------------


def test_every_op_has_a_record() -> None:
    """An op without a record would have none of the tests below."""
    # bayes_linear is made of ops and a product; noise has no tensor arguments.
    own_tests = {"bayes_linear", "standard_normal", "standard_uniform"}
    assert sorted(bslfast.reference.__all__) == sorted([*(r.name for r in RECORDS), *own_tests])
    assert set(bslfast.reference.__all__) <= set(bslfast.functional.__all__)


@of_each_op
def test_reference_has_the_same_signature(record: OpRecord) -> None:
    """Or the oracle would not stand in for the op."""
    assert inspect.signature(record.function) == inspect.signature(record.reference)


# --- values and gradients -------------------------------------------------------------------------


def check(record: OpRecord, call: Call, label: str = "") -> None:
    """Values and all gradients of a call against the float64 reference."""
    names = record.differentiable(call)
    results, grads = run_with_gradients(record.function, call, names)
    expected, expected_grads = expected_with_gradients(record, call, names)
    tolerance = record.tolerance[results[0].dtype]
    elements = max(t.numel() for t in (*results, *call.tensors.values()))
    for i, (r, e) in enumerate(zip(results, expected, strict=True)):
        assert_close(r, e, tolerance.value, elements=elements, label=f"{label} result {i}")
    for name in names:
        grad, expected_grad = grads[name], expected_grads[name]
        assert grad is not None, f"{label}: no gradient for {name}"
        assert expected_grad is not None
        assert_close(
            grad, expected_grad, tolerance.gradient, elements=elements, label=f"{label} d {name}"
        )


@pytest.mark.parametrize("level", _cpu.isa_levels())
@of_each_dtype
@of_each_case
def test_agrees_with_the_reference(case: Case, dtype: torch.dtype, level: str) -> None:
    """Values and gradients, by every instruction set, against float64 on the same numbers."""
    with isa(level):
        for seed in range(3):
            check(case.record, case.call(dtype, SHAPE, seed), level)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (3,), (17,), (4097,), (0, 3), (3, 0), (2, 1, 5)], ids=str
)
@of_each_case
def test_any_shape(case: Case, shape: tuple[int, ...]) -> None:
    """None, one, fewer than a vector, no whole number of vectors."""
    if len(shape) < case.min_dims:
        pytest.skip("this variant needs a dimension")
    for dtype in DTYPES:
        check(case.record, case.call(dtype, shape), str(dtype))


@of_each_case
def test_no_gradient_mode(case: Case) -> None:
    """The same values where nothing is recorded, and nothing that asks for a gradient."""
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
    """gradcheck and gradgradcheck, also with batched gradients, by finite differences."""
    call = case.call(torch.float64, SMALL)
    names = case.record.differentiable(call)
    tensors = tuple(leaves(call, names).tensors.values())
    function = positional(case.record.function, call)
    # Many inputs: along random directions, not one by one.
    many = sum(t.numel() for t in tensors) > 30
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


# --- layouts --------------------------------------------------------------------------------------


def _expanded(t: Tensor) -> Tensor:
    return t[..., :1].expand(t.shape) if t.dim() else t


def _strided(t: Tensor) -> Tensor:
    room = t.new_full((*t.shape, 2), math.nan)
    room[..., 0] = t
    return room[..., 0]


def _transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else _strided(t)


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


def _negative_bit(t: Tensor) -> Tensor:
    """A view whose memory holds the negated numbers, such as ``z.conj().imag``."""
    view = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert view.is_neg()
    return view


def _reversed(t: Tensor) -> Tensor:
    backwards = tuple(reversed(range(t.dim())))
    return t.permute(backwards).contiguous().permute(backwards)


LAYOUTS = [_expanded, _strided, _transposed, _narrowed, _misaligned, _negative_bit]
of_each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__.strip("_"))


@of_each_layout
@of_each_case
def test_any_layout(case: Case, layout: Callable[[Tensor], Tensor]) -> None:
    """Each tensor argument, and all at once, in a layout: exactly the contiguous result."""
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


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(3 * CHUNK + 17,), (3, 2 * CHUNK + 33), (1000, 25)], ids=["flat", "long", "short"]
)
@of_each_case
def test_any_number_of_threads(case: Case, shape: tuple[int, ...]) -> None:
    """The last bit too: rows longer and shorter than what a thread takes at a time."""
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


# --- routes ---------------------------------------------------------------------------------------


def by_operator(function: Callable[..., Any], call: Call, names: Sequence[str], grads: Any) -> Any:
    with Watch() as watch:
        result = run_with_gradients(function, call, names, grads)
    assert {str(f) for f, *_ in watch.calls}, "no operator was called"
    return result


def by_transform(function: Callable[..., Any], call: Call, names: Sequence[str], grads: Any) -> Any:
    fixed = {k: t for k, t in call.tensors.items() if k not in names}

    def of_wanted(*tensors: Tensor) -> Results:
        given = {**fixed, **dict(zip(names, tensors, strict=True))}
        return run(function, Call({k: given[k] for k in call.tensors}, call.options))

    wanted = [call.tensors[k] for k in names]
    results, pullback = torch.func.vjp(of_wanted, *wanted)
    found = pullback(tuple(weights(results) if grads is None else grads))
    return results, dict(zip(names, found, strict=True))


ROUTES = {"operator": by_operator, "transform": by_transform}
of_each_route = pytest.mark.parametrize("route", ROUTES)


def _subsets(names: Sequence[str]) -> Iterator[list[str]]:
    for size in range(1, len(names) + 1):
        yield from map(list, itertools.combinations(names, size))


@of_each_route
@of_each_case
def test_routes_agree(case: Case, route: str) -> None:
    """Kernel, operator and functorch Function: one definition, so equal to the last bit."""
    call = case.call(torch.float32, SHAPE)
    for names in _subsets(case.record.differentiable(call)):
        expected = run_with_gradients(case.record.function, call, names)
        actual = ROUTES[route](case.record.function, call, names, None)
        assert_same(actual[0], expected[0], str(names))
        assert_same_gradients(actual[1], expected[1], str(names))


@pytest.mark.parametrize("route", ["eager", *ROUTES])
@of_each_case
def test_incoming_gradients_of_any_layout(case: Case, route: str) -> None:
    """What autograd hands to backward is often expanded (of a sum) or transposed."""
    by = ROUTES.get(route, run_with_gradients)
    call = case.call(torch.float32, (3, 4, 67))
    names = case.record.differentiable(call)
    shapes = [r.shape for r in run(case.record.function, call)]
    for make in (
        lambda shape: torch.tensor(0.7).expand(shape),
        lambda shape: _transposed(Draw(torch.float32, 5).normal(shape)),
        lambda shape: _negative_bit(Draw(torch.float32, 5).normal(shape)),
        lambda shape: torch._efficientzerotensor(shape),
    ):
        grads = [make(shape) for shape in shapes]
        plain = [g.clone(memory_format=torch.contiguous_format) for g in grads]
        plain = [torch.zeros(g.shape) if g._is_zerotensor() else g for g in plain]
        actual = by(case.record.function, call, names, grads)
        expected = run_with_gradients(case.record.function, call, names, plain)
        assert_same_gradients(actual[1], expected[1], route)


@pytest.mark.parametrize("route", ["eager", "operator"])
@of_each_case
def test_results_that_nobody_uses(case: Case, route: str) -> None:
    """A result without a gradient counts as one whose gradient is zero."""
    call = leaves(case.call(torch.float32, SHAPE), [])
    names = case.record.differentiable(call)
    n_results = len(run(case.record.function, call))
    for used in range(n_results):
        fresh = leaves(call, names)
        with Watch() if route == "operator" else contextlib.nullcontext():
            results = run(case.record.function, fresh)
            grads = torch.autograd.grad(
                results[used],
                list(fresh.tensors.values()),
                weights(results)[used],
                allow_unused=True,
            )
        zeros = [w * (i == used) for i, w in enumerate(weights(results))]
        _, expected = run_with_gradients(case.record.function, call, names, zeros)
        assert_same_gradients(dict(zip(names, grads, strict=True)), expected, f"result {used}")


def _shape_of(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return tuple(argument.shape)
    return None if argument is None else type(argument)


@of_each_op
def test_operators_pass_opcheck(record: OpRecord) -> None:
    """Schema, autograd registration, fake kernel and tracing, of forward and backward operators."""
    seen, traced = set(), set()
    for name in record.variants:
        call = Case(record, name).call(torch.float32, SMALL)
        names = record.differentiable(call)
        with Watch() as watch:
            run_with_gradients(record.function, call, names)
        assert watch.calls
        for operator, args, result in watch.calls:
            # One check for each pattern of what is None, what broadcasts, what comes out.
            pattern = str(
                [operator, *(_shape_of(a) for a in args), *map(_shape_of, as_tuple(result))]
            )
            if pattern in seen:
                continue
            seen.add(pattern)
            fresh = [
                a.detach().clone().requires_grad_(a.is_floating_point())
                if isinstance(a, Tensor)
                else a
                for a in args
            ]
            checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
            # Tracing the second derivative takes long; once for each backward operator will do.
            if operator not in traced or not operator.name().endswith("_backward"):
                checks.append("test_aot_dispatch_dynamic")
            traced.add(operator)
            found = torch.library.opcheck(operator, tuple(fresh), test_utils=checks)
            assert found == dict.fromkeys(checks, "SUCCESS")


@of_each_op
def test_use_reference(record: OpRecord) -> None:
    """The switch that benchmarks rely on runs the reference itself."""
    call = first_case(record).call(torch.float32, SHAPE)
    names = record.differentiable(call)
    expected = run_with_gradients(record.reference, call, names)
    with bslfast.functional.use_reference():
        actual = run_with_gradients(record.function, call, names)
    assert_same(actual[0], expected[0])
    assert_same_gradients(actual[1], expected[1])


@of_each_op
def test_parameters_and_graph_inputs(record: OpRecord) -> None:
    """nn.Parameter and results of other ops are arguments like any other."""
    call = first_case(record).call(torch.float32, SHAPE)
    names = record.differentiable(call)
    _, expected = run_with_gradients(record.function, call, names)
    parameters = call.map(torch.nn.Parameter)
    results = run(record.function, parameters)
    torch.autograd.backward(results, weights(results))
    assert_same_gradients({k: parameters.tensors[k].grad for k in names}, expected)
    roots = leaves(call, names)
    results = run(record.function, roots.map(lambda t: t * 1))
    torch.autograd.backward(results, weights(results))
    assert_same_gradients({k: roots.tensors[k].grad for k in names}, expected)


# --- torch.compile, torch.export, fake tensors ----------------------------------------------------


def _compiled(case: Case, call: Call, **options: Any) -> Callable[..., Results]:
    torch._dynamo.reset()
    return torch.compile(positional(case.record.function, call), fullgraph=True, **options)


def _assert_compiled_agrees(case: Case, call: Call, compiled: Callable[..., Results]) -> None:
    names = case.record.differentiable(call)
    expected = run_with_gradients(case.record.function, call, names)
    actual = run_with_gradients(lambda **kw: compiled(*(kw[k] for k in call.tensors)), call, names)
    assert_same(actual[0], expected[0])
    assert_same_gradients(actual[1], expected[1])


@of_each_case
def test_compile(case: Case) -> None:
    """One graph, forward and backward, equal to eager for the same seed."""
    call = case.call(torch.float32, SHAPE)
    _assert_compiled_agrees(case, call, _compiled(case, call, backend="aot_eager", dynamic=False))


@of_each_case
def test_compile_dynamic(case: Case) -> None:
    """One graph for all sizes."""
    call = case.call(torch.float32, SHAPE)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = _compiled(case, call, backend=counter, dynamic=True)
    graphs = []
    for shape in (SHAPE, (4, 33), (7, 129)):
        _assert_compiled_agrees(case, case.call(torch.float32, shape), compiled)
        graphs.append(counter.frame_count)
    # isinstance(number, numbers.Real) counts as a graph, an empty one.
    assert 1 <= graphs[0] == graphs[-1], "compiled again for another size"


@of_each_op
def test_compile_inductor(record: OpRecord) -> None:
    """The default backend, which plans memory itself."""
    case = widest_case(record)
    call = case.call(torch.float32, SHAPE)
    _assert_compiled_agrees(case, call, _compiled(case, call))


@of_each_op
def test_export(record: OpRecord) -> None:
    """torch.export keeps the op as one node."""
    case = widest_case(record)
    call = case.call(torch.float32, SHAPE)

    class Module(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Results:
            return positional(record.function, call)(*tensors)

    tensors = tuple(call.tensors.values())
    exported = torch.export.export(Module(), tensors)
    assert "torch.ops.bslfast." in exported.graph_module.code
    assert_same(as_tuple(exported.module()(*tensors)), run(record.function, call))


@of_each_case
def test_fake_and_meta_tensors(case: Case) -> None:
    """What torch plans with: shape, dtype and strides are those of the real results."""
    for shape in (SHAPE, (0, 3)):
        call = case.call(torch.float32, shape)
        names = case.record.differentiable(call)
        real = run_with_gradients(case.record.function, call, names)
        with FakeTensorMode() as mode:
            fake = run_with_gradients(case.record.function, call.map(mode.from_tensor), names)
        meta = run_with_gradients(case.record.function, call.map(lambda t: t.to("meta")), names)
        for device, (results, grads) in (("cpu", fake), ("meta", meta)):
            for actual, expected in [
                *zip(results, real[0], strict=True),
                *((grads[k], real[1][k]) for k in names),
            ]:
                assert actual.shape == expected.shape
                assert actual.dtype == expected.dtype
                assert actual.stride() == expected.stride()
                assert actual.device.type == device


# --- torch.func -----------------------------------------------------------------------------------

BATCH = 3


def _batch(case: Case) -> tuple[list[Call], list[Tensor], Callable[..., Results]]:
    calls = [case.call(torch.float32, SMALL, seed) for seed in range(BATCH)]
    stacked = [torch.stack([c.tensors[k] for c in calls]) for k in calls[0].tensors]
    return calls, stacked, positional(case.record.function, calls[0])


def _stack(results: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*results, strict=True)]


def _loss(function: Callable[..., Results]) -> Callable[..., Tensor]:
    def loss(*tensors: Tensor) -> Tensor:
        results = function(*tensors)
        return sum((r * w).sum() for r, w in zip(results, weights(results), strict=True))

    return loss


@of_each_case
def test_vmap(case: Case) -> None:
    """Each example as if it were alone, whichever arguments have the batch, in any dimension."""
    calls, stacked, function = _batch(case)
    expected = _stack([run(case.record.function, c) for c in calls])
    assert_same(torch.func.vmap(function)(*stacked), expected)
    last = [t.movedim(0, -1) for t in stacked]
    assert_same(torch.func.vmap(function, in_dims=-1, out_dims=0)(*last), expected)
    for i, name in enumerate(calls[0].tensors):
        tensors = list(calls[0].tensors.values())
        tensors[i] = stacked[i]
        in_dims = tuple(0 if j == i else None for j in range(len(tensors)))
        one = [run(case.record.function, calls[0].but(**{name: c.tensors[name]})) for c in calls]
        assert_same(torch.func.vmap(function, in_dims)(*tensors), _stack(one), name)


@of_each_case
def test_grad_transforms(case: Case) -> None:
    """grad, vmap of grad (one gradient per example) and grad of vmap."""
    calls, stacked, function = _batch(case)
    names = case.record.differentiable(calls[0])
    where = tuple(i for i, k in enumerate(calls[0].tensors) if k in names)
    each = []
    for call in calls:
        _, grads = run_with_gradients(case.record.function, call, names)
        each.append([grads[k] for k in names])
    grad = torch.func.grad(_loss(function), where)
    assert_same(grad(*calls[0].tensors.values()), each[0], "grad")
    assert_same(torch.func.vmap(grad)(*stacked), _stack(each), "vmap(grad)")

    def total(*tensors: Tensor) -> Tensor:
        return torch.func.vmap(_loss(function))(*tensors).sum()

    assert_same(torch.func.grad(total, where)(*stacked), _stack(each), "grad(vmap)")


@of_each_case
def test_jacobian(case: Case) -> None:
    """jacrev batches the incoming gradients alone; the Hessian nests two transforms."""
    call = case.call(torch.float64, SMALL)
    names = case.record.differentiable(call)
    where = tuple(i for i, k in enumerate(call.tensors) if k in names)
    tensors = tuple(call.tensors.values())
    fused, plain = (positional(f, call) for f in (case.record.function, case.record.reference))

    def squared_gradient(function: Callable[..., Results]) -> Callable[..., Tensor]:
        grad = torch.func.grad(_loss(function), where)
        return lambda *t: sum(g.square().sum() for g in grad(*t))

    for transform in (
        lambda f: torch.func.jacrev(f, where),
        lambda f: torch.func.jacrev(torch.func.grad(_loss(f), where), where),
        lambda f: torch.func.grad(squared_gradient(f), where),
        lambda f: torch.func.hessian(_loss(f), where),
    ):
        actual = torch.utils._pytree.tree_leaves(transform(fused)(*tensors))
        expected = torch.utils._pytree.tree_leaves(transform(plain)(*tensors))
        for a, e in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


@of_each_op
def test_forward_mode_is_never_silent(record: OpRecord) -> None:
    """A tangent comes out right, or there is an error; it is not dropped."""
    call = first_case(record).call(torch.float64, SMALL)
    name = record.differentiable(call)[0]
    tangent = torch.ones_like(call.tensors[name])

    def derivative(function: Callable[..., Any]) -> list[Tensor]:
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(call.tensors[name], tangent)
            results = run(function, call.but(**{name: dual}))
            return [forward_ad.unpack_dual(r).tangent for r in results]

    expected = derivative(record.reference)
    try:
        actual = derivative(record.function)
    except NotImplementedError as error:
        assert "forward" in str(error)  # noqa: PT017
        return
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-12)


# --- the end of the range -------------------------------------------------------------------------

EXTREMES = [
    pytest.param(record, extreme, dtype, id=f"{record.name}-{extreme.name}-{str(dtype)[6:]}")
    for record in RECORDS
    for extreme in record.extremes
    for dtype in DTYPES
]


@pytest.mark.parametrize("level", _cpu.isa_levels())
@pytest.mark.parametrize(("record", "extreme", "dtype"), EXTREMES)
def test_extreme_values(record: OpRecord, extreme: Extreme, dtype: torch.dtype, level: str) -> None:
    """Nothing overflows early, cancels or turns into NaN that is not one."""
    tensors = {k: torch.tensor(v, dtype=dtype) for k, v in extreme.tensors.items()}
    call = Call(tensors, dict(extreme.options))
    if record.random:
        call = call.options_but(seed=SEED)
    names = record.differentiable(call)
    with isa(level):
        results, grads = run_with_gradients(record.function, call, names)
    expected, expected_grads = expected_with_gradients(record, call, names)
    tolerance = record.tolerance[dtype]
    for i, result in enumerate(results):
        stated = extreme.results[i] if extreme.results else None
        wanted = expected[i] if stated is None else torch.tensor(stated, dtype=torch.float64)
        assert_close(result, wanted, tolerance.value, label=f"result {i}")
    for name in names:
        stated = (extreme.gradients or {}).get(name)
        wanted = (
            expected_grads[name] if stated is None else torch.tensor(stated, dtype=torch.float64)
        )
        kept = [i for i in range(len(wanted)) if i not in extreme.no_gradient]
        assert_close(grads[name][kept], wanted[kept], tolerance.gradient, label=f"d {name}")


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
@of_each_case
def test_special_values_stay_in_their_place(case: Case, special: float) -> None:
    """In each argument: what the formula gives there, nothing elsewhere; NaN comes through."""
    for dtype in DTYPES:
        plain = case.call(dtype, SHAPE)
        for name, tensor in plain.tensors.items():
            changed = tensor.clone()
            changed.view(-1)[tensor.numel() // 2] = special
            call = plain.but(**{name: changed})
            try:
                results = run(case.record.function, call)
            except ValueError as error:
                # A negative scale, say. NaN and inf are numbers that a training run meets.
                allowed = name in case.record.bounded and math.isinf(special)
                assert allowed or special == -math.inf, error  # noqa: PT017
                assert str(error).startswith(name)  # noqa: PT017
                continue
            expected = expected_results(case.record, call)
            bound = case.record.tolerance[dtype].value
            elements = max(t.numel() for t in (*results, *call.tensors.values()))
            for r, e in zip(results, expected, strict=True):
                assert_close(r, e, bound, elements=elements, label=f"{name}={special}")
            if math.isnan(special):
                assert any(r.isnan().any() for r in results), f"NaN in {name} disappeared"


# --- errors ---------------------------------------------------------------------------------------

ERRORS = [
    pytest.param(record, error, id=f"{record.name}-{error.name}")
    for record in RECORDS
    for error in record.errors
]


@pytest.mark.parametrize(("record", "error"), ERRORS)
def test_refuses(record: OpRecord, error: Error) -> None:
    """By name, with what was expected and what came; with and without gradients."""
    call = first_case(record).call(torch.float32, SMALL)
    arguments = {**call.tensors, **call.options, **error.arguments}
    for grad in (False, True):
        given = {
            k: v.detach().clone().requires_grad_(grad)
            if isinstance(v, Tensor) and v.is_floating_point()
            else v
            for k, v in arguments.items()
        }
        with pytest.raises(error.exception, match=error.match):
            record.function(**given)


WRONG_TENSORS: dict[str, tuple[Callable[[Tensor], Any], type[Exception], str]] = {
    "list": (lambda t: t.tolist(), TypeError, "expected a.* torch.Tensor.* got list"),
    "ndarray": (lambda t: t.numpy(), TypeError, "expected a.* torch.Tensor.* got ndarray"),
    "none": (lambda t: None, TypeError, "expected a.* torch.Tensor.* got NoneType"),
    "int64": (lambda t: t.long(), TypeError, "expected dtype float32, float64, .* got int64"),
    "bool": (lambda t: t > 0, TypeError, "expected dtype float32, float64, .* got bool"),
    "complex": (lambda t: t.cfloat(), TypeError, "expected dtype .* got complex64"),
    "float8": (lambda t: t.to(torch.float8_e5m2), TypeError, "expected dtype .* got float8_e5m2"),
    "sparse": (lambda t: t.to_sparse(), (TypeError, ValueError), "expected .* got .*sparse"),
    "mkldnn": (lambda t: t.to_mkldnn(), (TypeError, ValueError), "expected .* got .*mkldnn"),
}


@pytest.mark.parametrize("wrong", WRONG_TENSORS)
@of_each_op
def test_refuses_wrong_tensors(record: OpRecord, wrong: str) -> None:
    """Every tensor argument, without a line in the record."""
    make, exception, match = WRONG_TENSORS[wrong]
    call = widest_case(record).call(torch.float32, SMALL)
    for name, tensor in call.tensors.items():
        with pytest.raises(exception, match=rf"^{name}: {match}"):
            record.function(**{**call.tensors, name: make(tensor)}, **call.options)


@of_each_op
def test_refuses_unlike_tensors(record: OpRecord) -> None:
    """Nothing is promoted, nothing moved in silence."""
    call = widest_case(record).call(torch.float32, SMALL)
    first, *others = call.tensors
    for name in others:
        double = call.tensors[name].double()
        with pytest.raises(
            TypeError, match=rf"^{name}: expected the dtype of {first}, float32, got float64"
        ):
            run(record.function, call.but(**{name: double}))
        meta = call.tensors[name].to("meta")
        with pytest.raises(
            ValueError, match=rf"^{name}: expected the device of {first}, cpu, got meta"
        ):
            run(record.function, call.but(**{name: meta}))


@pytest.mark.parametrize(
    ("argument", "value", "exception", "match"),
    [
        ("seed", 1.5, TypeError, "got 1.5"),
        ("seed", True, TypeError, "got True"),
        ("seed", "1", TypeError, "got '1'"),
        ("seed", 2**64, ValueError, "got 18446744073709551616"),
        ("seed", -(2**63) - 1, ValueError, "got -9223372036854775809"),
        ("seed", torch.tensor(1.0), TypeError, "dtype float32"),
        ("seed", torch.tensor(1, dtype=torch.int32), TypeError, "dtype int32"),
        ("seed", torch.tensor([1, 2]), TypeError, r"shape \[2\]"),
        ("seed", torch.empty((), dtype=torch.int64, device="meta"), ValueError, "meta"),
        ("stream", -1, ValueError, "got -1"),
        ("stream", 2**63, ValueError, "got 9223372036854775808"),
        ("stream", 0.5, TypeError, "got 0.5"),
        ("stream", None, TypeError, "got None"),
    ],
)
@of_each_random_op
def test_refuses_seeds(
    record: OpRecord, argument: str, value: Any, exception: type[Exception], match: str
) -> None:
    call = first_case(record).call(torch.float32, SMALL)
    with pytest.raises(exception, match=rf"^{argument}: expected .*{match}"):
        run(record.function, call.options_but(**{argument: value}))


# --- randomness -----------------------------------------------------------------------------------


def _differ(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))


@of_each_random_op
def test_seeds_and_streams(record: OpRecord) -> None:
    """Noise is a function of seed, stream and element: of all 64 bits of the seed."""
    call = first_case(record).call(torch.float32, SHAPE)
    base = run(record.function, call)
    assert_same(run(record.function, call), base)
    assert_same(run(record.function, call.options_but(stream=0)), base)
    tensor_seeds = [torch.tensor(SEED), torch.tensor([SEED]), torch.tensor([[0, SEED]])[:, 1:]]
    for seed in tensor_seeds:
        assert_same(run(record.function, call.options_but(seed=seed)), base)
    same_seeds = [run(record.function, call.options_but(seed=s)) for s in (-1, 2**64 - 1)]
    assert_same(*same_seeds)
    others = [{"seed": SEED + 1}, {"seed": SEED ^ (1 << 40)}, {"stream": 1}, {"stream": 1 << 40}]
    found = [base, *(run(record.function, call.options_but(**o)) for o in others)]
    for a, b in itertools.combinations(found, 2):
        assert _differ(a, b)


@of_each_random_op
def test_manual_seed_governs(record: OpRecord) -> None:
    """Without a seed: torch's generator, and nothing else."""
    call = first_case(record).call(torch.float32, SHAPE).options_but(seed=None)
    torch.manual_seed(1)
    first, second = run(record.function, call), run(record.function, call)
    torch.manual_seed(1)
    assert_same(run(record.function, call), first)
    with torch.random.fork_rng():
        run(record.function, call)
    assert_same(run(record.function, call), second)
    assert _differ(first, second)


@of_each_random_op
def test_compiled_seeds(record: OpRecord) -> None:
    """A compiled function draws anew in each call, and takes seeds that are tensors."""
    call = first_case(record).call(torch.float32, SHAPE).options_but(seed=None)
    compiled = _compiled(first_case(record), call, backend="aot_eager")
    tensors = tuple(call.tensors.values())
    torch.manual_seed(1)
    first, second = compiled(*tensors), compiled(*tensors)
    assert _differ(first, second)
    torch.manual_seed(1)
    assert_same(compiled(*tensors), first)

    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def with_seed(seed: Tensor) -> Results:
        return run(record.function, call.options_but(seed=seed))

    for seed in (1, 2):
        expected = run(record.function, call.options_but(seed=seed))
        assert_same(with_seed(torch.tensor(seed)), expected)


@of_each_random_op
def test_vmap_over_seeds(record: OpRecord) -> None:
    """Batched seeds are seeds; without one, vmap's randomness says what is meant."""
    call = first_case(record).call(torch.float32, SHAPE)
    tensors = tuple(call.tensors.values())

    def of_seed(seed: Tensor | None) -> Results:
        return positional(record.function, call.options_but(seed=seed))(*tensors)

    seeds = torch.tensor([3, -1, SEED])
    expected = _stack([of_seed(s) for s in seeds])
    assert_same(torch.func.vmap(of_seed)(seeds), expected)

    def without(_: Tensor) -> Results:
        return of_seed(None)

    results = torch.func.vmap(without, randomness="different")(seeds)
    assert _differ([r[0] for r in results], [r[1] for r in results])
    results = torch.func.vmap(without, randomness="same")(seeds)
    for r in results:
        assert_same([r[0] if r.dim() > 0 else r], [r[1] if r.dim() > 0 else r])
    with pytest.raises(RuntimeError, match="random"):
        torch.func.vmap(without)(seeds)


@pytest.mark.parametrize("reentrant", [True, False])
@of_each_random_op
def test_checkpointing(record: OpRecord, reentrant: bool) -> None:
    """What activation checkpointing computes again has the noise of the first time."""
    call = first_case(record).call(torch.float32, SHAPE).options_but(seed=None)
    names = record.differentiable(call)
    function = positional(record.function, call)
    torch.manual_seed(1)
    expected = run_with_gradients(record.function, call, names)
    torch.manual_seed(1)
    fresh = leaves(call, names)
    results = checkpoint(function, *fresh.tensors.values(), use_reentrant=reentrant)
    torch.randn(3)  # what comes in between does not matter
    torch.autograd.backward(results, weights(results))
    assert_same([r.detach() for r in results], expected[0])
    assert_same_gradients({k: fresh.tensors[k].grad for k in names}, expected[1])


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["eager", "operator"])
@of_each_case
def test_saved_for_backward(case: Case, route: str) -> None:
    """The arguments and the seed, not a byte more: counted."""
    record = case.record
    call = case.call(torch.float32, SHAPE)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    fresh = leaves(call, record.differentiable(call))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        Watch() if route == "operator" else contextlib.nullcontext(),
    ):
        results = run(record.function, fresh)
    if record.saved_bytes is not None:
        allowed = record.saved_bytes(call, results)
    else:
        allowed = sum(t.untyped_storage().nbytes() for t in call.tensors.values())
        allowed += 8 * record.random
    assert sum(saved.values()) == allowed


@of_each_case
def test_nothing_is_kept(case: Case) -> None:
    """No reference cycle: memory is free when the last name goes, without the garbage collector."""
    gc.disable()
    try:
        call = leaves(
            case.call(torch.float32, SHAPE),
            case.record.differentiable(case.call(torch.float32, SHAPE)),
        )
        results = run(case.record.function, call)
        torch.autograd.backward(results, weights(results))
        held = [weakref.ref(t) for t in (*call.tensors.values(), *results)]
        del call, results
        assert not [r for r in held if r() is not None]
    finally:
        gc.enable()


@of_each_op
def test_arguments_are_not_written_to(record: OpRecord) -> None:
    """Nor are incoming gradients, which autograd shares; a second backward gives the same."""
    call = widest_case(record).call(torch.float32, SHAPE)
    names = record.differentiable(call)
    fresh = leaves(call.map(Tensor.clone), names)
    results = run(record.function, fresh)
    given = weights(results)
    inputs = [fresh.tensors[k] for k in names]
    first = torch.autograd.grad(results, inputs, given, retain_graph=True)
    second = torch.autograd.grad(results, inputs, given)
    assert_same(first, second)
    assert_same(given, weights(results))
    assert_same([t.detach() for t in fresh.tensors.values()], list(call.tensors.values()))


@of_each_op
def test_deterministic_algorithms(record: OpRecord) -> None:
    """Allowed, and nothing is read of fresh memory, which torch then fills with NaN."""
    call = widest_case(record).call(torch.float32, SHAPE)
    names = record.differentiable(call)
    expected = run_with_gradients(record.function, call, names)
    torch.use_deterministic_algorithms(True)
    try:
        actual = run_with_gradients(record.function, call, names)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(actual[0], expected[0])
    assert_same_gradients(actual[1], expected[1])


@of_each_op
def test_changed_arguments_are_noticed(record: OpRecord) -> None:
    """Backward computes from the arguments: changing them in between must not go unnoticed."""
    call = first_case(record).call(torch.float32, SHAPE)
    names = record.differentiable(call)
    for name in names:
        fresh = leaves(call, names)
        results = run(record.function, fresh)
        with torch.no_grad():
            fresh.tensors[name].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.backward(results, weights(results))


# --- 16 bits --------------------------------------------------------------------------------------

of_each_low_dtype = pytest.mark.parametrize(
    "low", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)


@of_each_low_dtype
@of_each_case
def test_sixteen_bits(case: Case, low: torch.dtype) -> None:
    """float32 arithmetic, rounded once: the float32 op on the same numbers, to the last bit.

    (An incoming gradient of 16 bits is a number of 32 as well.) So the error is that of one
    rounding, also in gradients that are sums.
    """
    record = case.record
    call = case.call(torch.float32, SHAPE).map(lambda t: t.to(low) if t.is_floating_point() else t)
    full = call.map(lambda t: t.float() if t.is_floating_point() else t)
    names = record.differentiable(call)
    expected = run(record.function, full)
    given = [w.to(low) for w in weights(expected)]
    _, expected_grads = run_with_gradients(record.function, full, names, [g.float() for g in given])
    results, grads = run_with_gradients(record.function, call, names, given)
    assert_same(results, [e.to(low) for e in expected])
    assert_same_gradients(grads, {k: g.to(low) for k, g in expected_grads.items()})


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


# --- the tests themselves -------------------------------------------------------------------------


@of_each_random_op
def test_oracle_draws_the_noise_of_the_dtype(record: OpRecord) -> None:
    """float32 noise in a float64 reference, or the comparison above would be of nothing."""
    call = first_case(record).call(torch.float32, SHAPE).map(Tensor.double)
    own = run(record.reference, call)
    with noise_of(torch.float32):
        assert _differ(run(record.reference, call), own)
    assert_same(run(record.reference, call), own)
