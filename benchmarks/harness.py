"""Cases of benchmarks: one computation by bslfast and by its peers, checked, then timed.

A new op is a new :class:`Case` in a ``test_*.py`` here. Every implementation of a case runs in the
same process, one after the other, on the same inputs; the report (report.py) shows ratios.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._functorch import config

#: Takes the inputs and returns the results that are differentiated.
Function = Callable[..., Any]
MODES = ("forward", "backward", "both")
THREADS = (1, 2)
COMPILED = "torch.compile"


@dataclass(frozen=True)
class Case:
    """An op to compare.

    Attributes:
        name: name of the group in the report.
        sizes: names of the sizes, each with the argument of ``inputs``.
        inputs: makes the tensor arguments; those to be differentiated have requires_grad.
        ours: the function under test.
        peers: other implementations by name; "torch.compile" is added from "torch eager".
        check: asserts that a peer's results agree with ours; both get the inputs.
        modes: the modes to be timed.
    """

    name: str
    sizes: dict[str, Any]
    inputs: Callable[[Any], Sequence[Tensor]]
    ours: Function
    peers: dict[str, Function]
    check: Callable[[Function, Function, Sequence[Tensor]], None]
    modes: Sequence[str] = MODES

    def implementations(self) -> dict[str, Function]:
        return {"bslfast": self.ours, **self.peers, COMPILED: self.peers["torch eager"]}


def parametrize(cases: Sequence[Case]) -> Any:
    """Decorate a test(case, size, mode, threads, implementation) with all combinations."""

    def combinations() -> Iterator[Any]:
        for case in cases:
            for size, threads, mode, implementation in itertools.product(
                case.sizes, THREADS, case.modes, case.implementations()
            ):
                yield pytest.param(
                    case,
                    size,
                    mode,
                    threads,
                    implementation,
                    id=f"{case.name}-{size}-{mode}-{threads}-{implementation}",
                    marks=[pytest.mark.compiled] if implementation == COMPILED else [],
                )

    return pytest.mark.parametrize(
        ("case", "size", "mode", "threads", "implementation"), list(combinations())
    )


def run(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    """Check one implementation of a case against bslfast, then time it."""
    torch.manual_seed(0)
    inputs = case.inputs(case.sizes[size])
    function = case.implementations()[implementation]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if implementation == COMPILED:
        function = _compiled(function, (case.name, size, threads))
    try:
        case.check(case.ours, function, inputs)
        timed = _timed(function, inputs, mode)
        # Warm-up fills caches and the allocator; torch.compile also compiles on its second call.
        calls, start = 0, time.perf_counter()
        while calls < 3 or time.perf_counter() - start < 0.05:
            timed()
            calls += 1
        benchmark.group = f"{case.name} {size} {mode} {threads} threads"
        benchmark.extra_info.update(
            case=case.name,
            size=size,
            mode=mode,
            threads=threads,
            implementation=implementation,
            elements=inputs[0].numel(),
            saved_bytes=saved_bytes(function, inputs),
        )
        benchmark(timed)
    finally:
        torch.set_num_threads(before)


_compiled_for: tuple[Any, ...] = ()


def _compiled(function: Function, key: tuple[Any, ...]) -> Function:
    """Compile for one size and number of threads, as the code depends on both.

    Code for another size is dropped first: else torch.compile would change to code for any size,
    which is slower.
    """
    global _compiled_for
    if key != _compiled_for:
        torch._dynamo.reset()
        _compiled_for = key
    # Donated buffers forbid retained graphs, and backward passes timed by themselves retain theirs.
    config.donated_buffer = False
    compiled: Function = torch.compile(function)
    return compiled


def _timed(function: Function, inputs: Sequence[Tensor], mode: str) -> Callable[[], Any]:
    wanted = [t for t in inputs if t.requires_grad]
    if mode == "forward":

        def forward() -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    outputs = differentiable(function(*inputs))
    grads = [torch.randn_like(o) for o in outputs]
    if mode == "backward":
        return lambda: torch.autograd.grad(outputs, wanted, grads, retain_graph=True)
    return lambda: torch.autograd.grad(differentiable(function(*inputs)), wanted, grads)


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def differentiable(outputs: Any) -> tuple[Tensor, ...]:
    """The outputs that depend on the inputs: a log-determinant may be a constant."""
    return tuple(o for o in as_tuple(outputs) if o.requires_grad)


def saved_bytes(function: Function, inputs: Sequence[Tensor]) -> int:
    """The bytes kept for backward, with the inputs; shared storage counts once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        outputs = function(*inputs)
    del outputs
    return sum(storages.values())
