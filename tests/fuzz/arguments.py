"""Wrong arguments: each is accepted, or refused by a TypeError or ValueError that names it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from ops.record import Draw
from torch import Tensor

import bslfast
from fuzz.calls import assert_names_argument
from fuzz.records import BY_NAME


def _of_tensor(change: Callable[[Tensor], Any]) -> Callable[[Any], Any]:
    """A change of a tensor, or of the tensors in a list; other values become a tensor of two."""

    def changed(value: Any) -> Any:
        if isinstance(value, list):
            return [changed(v) for v in value]
        return change(value if isinstance(value, Tensor) else torch.ones(2))

    return changed


WRONG: dict[str, Callable[[Any], Any]] = {
    **{
        repr(value): lambda _, value=value: value
        for value in (
            *(None, True, 0, -1, 3, 2**63, 2**70, -(2**70), 1.5, -0.25, math.nan, math.inf, 1e300),
            *(1j, "", "text", "row", "scale", "1", b"bytes", [], (), {}, [1, "a"], (-1,), (2.0,)),
            *((1, None), object, torch.float32, torch.device("meta"), torch.Size([2])),
            *(slice(None), np.float32(0.5), np.int64(2)),
        )
    },
    "ndarray": lambda _: np.ones((2, 3), np.float32),
    "numbers": lambda _: torch.ones(2, 3).tolist(),
    "int64": _of_tensor(lambda t: t.to(torch.int64)),
    "bool": _of_tensor(lambda t: t > 0),
    "complex": _of_tensor(lambda t: t.to(torch.complex64)),
    "double": _of_tensor(Tensor.double),
    "half": _of_tensor(Tensor.half),
    "float8": _of_tensor(lambda t: t.float().to(torch.float8_e5m2)),
    "meta": _of_tensor(lambda t: t.to("meta")),
    "sparse": _of_tensor(lambda t: t.float().to_sparse()),
    "nested": _of_tensor(lambda t: torch.nested.nested_tensor([t.float(), t.float()])),
    "quantized": _of_tensor(lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8)),
    "nan": _of_tensor(lambda t: torch.full_like(t.float(), math.nan)),
    "negative": _of_tensor(lambda t: -t.float().abs() - 1),
    "number": _of_tensor(lambda t: torch.tensor(0.5)),
    "empty": _of_tensor(lambda t: torch.ones(0)),
    "more": _of_tensor(lambda t: torch.ones(3, 1, 2, 1, 7)),
    "longer": _of_tensor(lambda t: torch.cat([t, t]) if t.dim() else torch.ones(5)),
    "shorter": _of_tensor(lambda t: t[..., :-1] if t.dim() else torch.ones(5)),
    "transposed": _of_tensor(lambda t: t.transpose(0, -1) if t.dim() else torch.ones(5)),
    "parameter": _of_tensor(lambda t: torch.nn.Parameter(t.float())),
    "list": lambda value: [value, value],
    "tuple": lambda value: (value,),
}


@dataclass(frozen=True)
class Wrong:
    """A call with some arguments replaced, as pairs of a name and the new value."""

    op: str
    replaced: tuple[tuple[str, str], ...]
    variant: str = ""

    def __repr__(self) -> str:
        return f"arguments.Wrong({self.op!r}, {self.replaced!r}, {self.variant!r})"

    def check(self) -> bool:
        """Return False if the arguments were refused, as they should be."""
        given = ordinary(self.op, self.variant)
        for name, wrong in self.replaced:
            given[name] = WRONG[wrong](given.get(name))
        try:
            results = getattr(bslfast.functional, self.op)(**given)
        except (TypeError, ValueError) as error:
            assert_names_argument(self, error)
            return False
        assert results is not None
        return True

    def simpler(self) -> Iterator[Wrong]:
        for i in range(len(self.replaced)):
            yield replace(self, replaced=self.replaced[:i] + self.replaced[i + 1 :])


def ordinary(op: str, variant: str) -> dict[str, Any]:
    """Right arguments of the public function."""
    record = BY_NAME[op]
    call = record.variants[variant].inputs(Draw(torch.float32), (2, 3))
    call = record.prepared(call)
    tensors: dict[str, Any] = dict(call.tensors)
    if op == "normal_rsample_kl_many":
        loc_0, loc_1, raw_0, raw_1 = tensors.values()
        tensors = {"loc": [loc_0, loc_1], "raw_scale": [raw_0, raw_1]}
    elif op.startswith("standard_"):
        tensors = {"shape": (2, 3)}
    return {**tensors, **call.options}


def draw(op: str, rng: Random) -> Wrong:
    """One or two wrong arguments."""
    variant = rng.choice(list(BY_NAME[op].variants))
    names = list(inspect.signature(getattr(bslfast.functional, op)).parameters)
    chosen = rng.sample(names, min(len(names), rng.choice([1, 1, 1, 2])))
    return Wrong(op, tuple((name, rng.choice(list(WRONG))) for name in chosen), variant)
