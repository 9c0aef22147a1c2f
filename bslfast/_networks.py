"""A network in evaluation mode, and how much memory it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bslfast._torch import TorchDispatchMode, uncompiled

_T = TypeVar("_T")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of ``model`` into evaluation mode inside the block, and back after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def most_bytes(network: nn.Module, call: Callable[[], _T], device: torch.device) -> tuple[int, _T]:
    """The most bytes that go into and come out of one of a network's modules, and the result.

    They are those of a call, in which compiled code runs as it was written. What is inside scripted
    modules is not seen. Torch's generators are left as they were.
    """
    most = 0

    def measure(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal most
        values = (*inputs, *(output if isinstance(output, tuple | list) else (output,)))
        most = max(most, sum(v.numel() * v.itemsize for v in values if isinstance(v, Tensor)))

    hooks = [
        module.register_forward_hook(measure)
        for module in network.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # which take none
    ]
    start = states(device)
    try:
        with uncompiled():
            result = call()
    finally:
        for hook in hooks:
            hook.remove()
        set_states(device, start)
    return most, result


class _Results(TorchDispatchMode):
    """Inside, ``bytes`` are how many each op's results have."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        values = found if isinstance(found, tuple | list) else (found,)
        self.bytes.append(sum(v.numel() * v.itemsize for v in values if isinstance(v, Tensor)))
        return found


def bytes_of_a_row(call: Callable[[int], object]) -> int:
    """The most bytes that a row more adds to what one op returns, in calls for some rows.

    Parameters, which are results too where they are divided, have the same size for any rows.
    """
    found = []
    for rows in (2, 3):  # a single one may take another path
        with _Results() as results:
            call(rows)
        found.append(results.bytes)
    return max((more - less for less, more in zip(*found, strict=False)), default=0)


def states(device: torch.device) -> tuple[Tensor, ...]:
    """The states of torch's generators for models on this device."""
    found = (torch.get_rng_state(),)
    return (*found, torch.cuda.get_rng_state(device)) if device.type == "cuda" else found


def set_states(device: torch.device, found: Sequence[Tensor]) -> None:
    """Put states back that :func:`states` has returned; none changes nothing."""
    if found:
        torch.set_rng_state(found[0])
    if len(found) > 1:
        torch.cuda.set_rng_state(found[1], device)
