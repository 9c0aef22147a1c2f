"""Randomness and memory of every op."""

from __future__ import annotations

import contextlib
import gc
import itertools
import weakref

import pytest
import torch
from ops.every import (
    SHAPE,
    Watch,
    compile_case,
    differ,
    first_case,
    of_each_case,
    of_each_op,
    of_each_random_op,
    stack,
    widest_case,
)
from ops.record import (
    SEED,
    Case,
    OpRecord,
    Results,
    assert_same,
    assert_same_gradients,
    leaves,
    positional,
    run,
    run_with_gradients,
    weights,
)
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import bslfast.functional as BF

# --- randomness ----------------------------------------------------------------------------------


@of_each_random_op
def test_seeds_and_streams(record: OpRecord) -> None:
    """Noise is a function of seed, stream and element, with all 64 bits of the seed."""
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
        assert differ(a, b)


@of_each_random_op
def test_manual_seed_governs(record: OpRecord) -> None:
    """Without a seed, torch's generator governs the noise, and nothing else does."""
    call = first_case(record).call(torch.float32, SHAPE).options_but(seed=None)
    torch.manual_seed(1)
    first, second = run(record.function, call), run(record.function, call)
    torch.manual_seed(1)
    assert_same(run(record.function, call), first)
    with torch.random.fork_rng():
        run(record.function, call)
    assert_same(run(record.function, call), second)
    assert differ(first, second)


@of_each_random_op
def test_compiled_seeds(record: OpRecord) -> None:
    """A compiled function draws anew in each call, and takes seeds that are tensors."""
    call = first_case(record).call(torch.float32, SHAPE).options_but(seed=None)
    compiled = compile_case(first_case(record), call, backend="aot_eager")
    tensors = tuple(call.tensors.values())
    torch.manual_seed(1)
    first, second = compiled(*tensors), compiled(*tensors)
    assert differ(first, second)
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
    """Batched seeds are seeds. Without a seed, vmap's randomness decides."""
    call = first_case(record).call(torch.float32, SHAPE)
    tensors = tuple(call.tensors.values())

    def of_seed(seed: Tensor | None) -> Results:
        return positional(record.function, call.options_but(seed=seed))(*tensors)

    seeds = torch.tensor([3, -1, SEED])
    expected = stack([of_seed(s) for s in seeds])
    assert_same(torch.func.vmap(of_seed)(seeds), expected)

    def without(_: Tensor) -> Results:
        return of_seed(None)

    results = torch.func.vmap(without, randomness="different")(seeds)
    assert differ([r[0] for r in results], [r[1] for r in results])
    results = torch.func.vmap(without, randomness="same")(seeds)
    for r in results:
        assert_same([r[0] if r.dim() > 0 else r], [r[1] if r.dim() > 0 else r])
    with pytest.raises(RuntimeError, match="random"):
        torch.func.vmap(without)(seeds)


def test_vmap_of_draws_over_no_examples() -> None:
    def drawn(loc: torch.Tensor) -> torch.Tensor:
        return BF.normal_rsample(loc, loc)

    none = torch.func.vmap(drawn, randomness="different")(torch.zeros(0, 5))
    assert none.shape == (0, 5)


def test_vmap_of_draws_calls_kernels() -> None:
    """Not the operator, which takes ten times as long for each example."""
    loc, raw_scale = torch.randn(20, 5, 3), torch.randn(5, 3)

    def divergence(loc: Tensor) -> Tensor:
        return BF.normal_rsample_kl(loc, raw_scale)[1]

    function = torch.func.vmap(torch.func.grad(divergence), randomness="different")
    with torch.autograd.profiler.profile() as profile:
        found = function(loc)
    names = [event.name for event in profile.function_events]
    assert 1 <= names.count("bslfast::normal_rsample_kl_fixed_prior") < 5
    assert 1 <= names.count("bslfast::normal_rsample_kl_fixed_prior_backward") < 5
    torch.testing.assert_close(found, loc)


@pytest.mark.parametrize("reentrant", [True, False])
@of_each_random_op
def test_checkpointing(record: OpRecord, reentrant: bool) -> None:
    """Activation checkpointing computes again with the noise of the first time."""
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


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["eager", "operator"])
@of_each_case
def test_saved_for_backward(case: Case, route: str) -> None:
    """Backward keeps the arguments and the seed, and not a byte more."""
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
    """There is no reference cycle: memory is free with the last name, without the collector."""
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
    """Nor are incoming gradients, which autograd shares. A second backward gives the same."""
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
    """They are allowed. Torch then fills fresh memory with NaN, and none of it is read."""
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
