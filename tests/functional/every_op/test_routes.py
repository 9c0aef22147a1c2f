"""Every op by every route: autograd, operators, torch.compile, torch.export and torch.func."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from ops import CASES
from ops.every import (
    SHAPE,
    SMALL,
    Watch,
    compile_case,
    first_case,
    negative_bit,
    of_each_case,
    of_each_op,
    stack,
    transposed,
    widest_case,
)
from ops.record import (
    Call,
    Case,
    Draw,
    OpRecord,
    Results,
    as_tuple,
    assert_same,
    assert_same_gradients,
    leaves,
    positional,
    run,
    run_with_gradients,
    weights,
)
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode

import bslfast
from bslfast._native import _cpu
from bslfast._native.rows import Kernels

# --- routes --------------------------------------------------------------------------------------


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
    """Kernel, operator and functorch Function are one definition, so equal to the last bit."""
    call = case.call(torch.float32, SHAPE)
    for names in _subsets(case.record.differentiable(call)):
        expected = run_with_gradients(case.record.function, call, names)
        actual = ROUTES[route](case.record.function, call, names, None)
        assert_same(actual[0], expected[0], str(names))
        assert_same_gradients(actual[1], expected[1], str(names))


@of_each_op
def test_routes_agree_in_sixteen_bits(record: OpRecord) -> None:
    """Dtypes of values, logarithms and gradients agree too, also where they are only planned."""
    case, low = widest_case(record), torch.bfloat16
    call = case.call(torch.float32, SHAPE).map(lambda t: t.to(low) if t.is_floating_point() else t)
    names = record.differentiable(call)
    expected = run_with_gradients(record.function, call, names)
    for route, by in ROUTES.items():
        actual = by(record.function, call, names, None)
        assert_same(actual[0], expected[0], route)
        assert_same_gradients(actual[1], expected[1], route)
    _assert_compiled_agrees(
        case, call, compile_case(case, call, backend="aot_eager", dynamic=False)
    )
    with FakeTensorMode() as mode:
        fake = run_with_gradients(record.function, call.map(mode.from_tensor), names)
    with bslfast.functional.use_reference():
        reference = run_with_gradients(record.function, call, names)
    for results, grads in (fake, reference):
        for actual, wanted in [
            *zip(results, expected[0], strict=True),
            *((grads[k], expected[1][k]) for k in names),
        ]:
            assert actual.dtype == wanted.dtype


@of_each_op
def test_second_derivatives_in_sixteen_bits(record: OpRecord) -> None:
    """They are those of float32, rounded once."""
    low = torch.bfloat16
    call = first_case(record).call(torch.float32, SMALL).map(lambda t: t.to(low))
    names = record.differentiable(call)

    def second(call: Call) -> Sequence[Tensor]:
        call = leaves(call, names)
        inputs = [call.tensors[k] for k in names]
        results = run(record.function, call)
        given = [w.to(low).to(w.dtype) for w in weights(results)]
        first = torch.autograd.grad(results, inputs, given, create_graph=True)
        total = sum(g.float().sum() for g in first) + sum(0 * t.float().sum() for t in inputs)
        return [*first, *torch.autograd.grad(total, inputs)]

    for actual, wanted in zip(second(call), second(call.map(Tensor.float)), strict=True):
        torch.testing.assert_close(actual, wanted.to(low), rtol=2e-2, atol=2e-2)


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
        lambda shape: transposed(Draw(torch.float32, 5).normal(shape)),
        lambda shape: negative_bit(Draw(torch.float32, 5).normal(shape)),
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
    """Schema, autograd registration, fake kernel and tracing of both operators are right."""
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
            # Tracing takes long; once for each operator will do. test_compile traces every variant.
            if operator not in traced:
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


# --- torch.compile, torch.export, fake tensors ---------------------------------------------------


def _assert_compiled_agrees(case: Case, call: Call, compiled: Callable[..., Results]) -> None:
    names = case.record.differentiable(call)
    expected = run_with_gradients(case.record.function, call, names)
    actual = run_with_gradients(lambda **kw: compiled(*(kw[k] for k in call.tensors)), call, names)
    assert_same(actual[0], expected[0])
    assert_same_gradients(actual[1], expected[1])


@of_each_case
def test_compile(case: Case) -> None:
    """Forward and backward are one graph, with the results of eager mode for the same seed."""
    call = case.call(torch.float32, SHAPE)
    _assert_compiled_agrees(
        case, call, compile_case(case, call, backend="aot_eager", dynamic=False)
    )


@of_each_case
def test_compile_dynamic(case: Case) -> None:
    """One graph serves all sizes."""
    call = case.call(torch.float32, SHAPE)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = compile_case(case, call, backend=counter, dynamic=True)
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
    _assert_compiled_agrees(case, call, compile_case(case, call))


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
    """Shape, dtype and strides that torch plans with are those of the real results."""
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


# --- torch.func ----------------------------------------------------------------------------------


BATCH = 3


def _batch(case: Case) -> tuple[list[Call], list[Tensor], Callable[..., Results]]:
    calls = [case.call(torch.float32, SMALL, seed) for seed in range(BATCH)]
    stacked = [torch.stack([c.tensors[k] for c in calls]) for k in calls[0].tensors]
    return calls, stacked, positional(case.record.function, calls[0])


def _loss(function: Callable[..., Results]) -> Callable[..., Tensor]:
    def loss(*tensors: Tensor) -> Tensor:
        results = function(*tensors)
        return sum((r * w).sum() for r, w in zip(results, weights(results), strict=True))

    return loss


@of_each_case
def test_vmap(case: Case) -> None:
    """Each example has its own result, whichever arguments have the batch, in any dimension."""
    calls, stacked, function = _batch(case)
    expected = stack([run(case.record.function, c) for c in calls])
    assert_same(torch.func.vmap(function)(*stacked), expected)
    last = [t.movedim(0, -1) for t in stacked]
    assert_same(torch.func.vmap(function, in_dims=-1, out_dims=0)(*last), expected)
    for i, name in enumerate(calls[0].tensors):
        tensors = list(calls[0].tensors.values())
        tensors[i] = stacked[i]
        in_dims = tuple(0 if j == i else None for j in range(len(tensors)))
        one = [run(case.record.function, calls[0].but(**{name: c.tensors[name]})) for c in calls]
        assert_same(torch.func.vmap(function, in_dims)(*tensors), stack(one), name)


# Cases that vmap calls for each example: those that draw, those of kernels that add up the gradient
# of a row that all examples share, and these.
LOOPS = re.compile("iwae_bound.*|categorical_log_prob-.*sum")
ADD_UP = [f"{name}-shared" for name in _cpu.row_ops() if Kernels(name).adds_up]


@pytest.mark.parametrize("case", [c for c in CASES if not c.record.random], ids=str)
def test_vmap_is_one_call(case: Case) -> None:
    """Forward and backward, with a batch in any dimension of some arguments, are as one by one."""
    calls = [case.call(torch.float64, SHAPE, seed) for seed in range(BATCH)]
    function, keys = positional(case.record.function, calls[0]), list(calls[0].tensors)
    where = tuple(i for i, k in enumerate(keys) if k in case.record.differentiable(calls[0]))
    # On which dimension at most the batch of each argument is, if it has one.
    for kind in {tuple((1, 0, None)[(i + k) % 3] for i in range(len(keys))) for k in range(2)}:
        own = [
            [calls[0 if dim is None else n].tensors[k] for k, dim in zip(keys, kind, strict=True)]
            for n in range(BATCH)
        ]
        in_dims = tuple(
            dim if dim is None else min(dim, t.dim()) for dim, t in zip(kind, own[0], strict=True)
        )
        batch = [
            column[0] if dim is None else torch.stack(column, dim)
            for dim, column in zip(in_dims, zip(*own, strict=True), strict=True)
        ]
        grad = torch.func.grad(_loss(function), where)
        with Watch() as watch:
            found = [torch.func.vmap(f, in_dims)(*batch) for f in (function, grad)]
        assert len(watch.calls) == 3 or str(case) in ADD_UP or LOOPS.fullmatch(str(case))
        for actual, f in zip(found, (function, grad), strict=True):
            for a, e in zip(actual, stack([f(*tensors) for tensors in own]), strict=True):
                torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-11)


def test_vmap_in_vmap() -> None:
    """Examples of examples; and examples of a single element, or of none."""

    def affine(*tensors: Tensor) -> Results:
        return bslfast.functional.affine_coupling(*tensors, reduction="sum")

    vmap, (x, shift, raw) = torch.func.vmap, (torch.randn(4, 3, 2) for _ in range(3))
    shift, raw = shift[0], raw[:, 0]
    found = vmap(vmap(affine, (0, 0, None)), (0, None, 0))(x, shift, raw)
    expected = [stack([affine(x[i, j], shift[j], raw[i]) for j in range(3)]) for i in range(4)]
    assert_same(found, stack(expected))
    for each in ((shift, shift + 1, shift + 2), (x[0, 0], *shift.T[:2, :2])):
        numbers = bslfast.functional.affine_coupling(*each, reduction="none")
        deep = affine
        for _ in range(each[0].dim()):
            deep = vmap(deep)
        assert_same(deep(*each), numbers)
    empty = vmap(affine)(*[torch.ones(4, 3, 0)] * 3)
    assert_same(empty, [torch.ones(4, 3, 0), torch.zeros(4)])


@of_each_case
def test_grad_transforms(case: Case) -> None:
    """These are grad, vmap of grad (one gradient per example) and grad of vmap."""
    calls, stacked, function = _batch(case)
    names = case.record.differentiable(calls[0])
    where = tuple(i for i, k in enumerate(calls[0].tensors) if k in names)
    each = []
    for call in calls:
        _, grads = run_with_gradients(case.record.function, call, names)
        each.append([grads[k] for k in names])
    grad = torch.func.grad(_loss(function), where)
    assert_same(grad(*calls[0].tensors.values()), each[0], "grad")
    assert_same(torch.func.vmap(grad)(*stacked), stack(each), "vmap(grad)")

    def total(*tensors: Tensor) -> Tensor:
        return torch.func.vmap(_loss(function))(*tensors).sum()

    assert_same(torch.func.grad(total, where)(*stacked), stack(each), "grad(vmap)")


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
    """A tangent comes out right, or there is an error. It is not dropped."""
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
