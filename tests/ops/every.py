"""The common part of the tests of every op (tests/functional/every_op)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ops import CASES, RECORDS
from ops.record import (
    Call,
    Case,
    OpRecord,
    Results,
    positional,
)

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
    """Sends ops through their operators, as torch's tools do, and keeps the arguments."""

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


def strided(t: Tensor) -> Tensor:
    room = t.new_full((*t.shape, 2), math.nan)
    room[..., 0] = t
    return room[..., 0]


def transposed(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.dim() > 1 else strided(t)


def negative_bit(t: Tensor) -> Tensor:
    """A view whose memory holds the negated numbers, such as ``z.conj().imag``."""
    view = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert view.is_neg()
    return view


def compile_case(case: Case, call: Call, **options: Any) -> Callable[..., Results]:
    torch._dynamo.reset()
    return torch.compile(positional(case.record.function, call), fullgraph=True, **options)


def stack(results: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [torch.stack(column) for column in zip(*results, strict=True)]


def differ(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a, b, strict=True))
