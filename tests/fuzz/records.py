"""The records of tests/ops, and one for each function of bslfast.functional that has none there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ops import RECORDS
from ops.record import Call, Draw, OpRecord, Shape, Tolerance, Variant
from torch import Tensor

import bslfast

# The bounds of the other normal ops, and more for the sums in products of matrices.
_TOLERANCE = dict.fromkeys((torch.float32, torch.float64), Tolerance(16, 32))


def _linear(bias: bool) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        n_in, n_out = shape[-1], 4
        tensors = {
            "x": draw.normal(shape),
            "weight_loc": draw.normal((n_out, n_in)),
            "weight_raw_scale": draw.normal((n_out, n_in)),
        }
        if bias:
            tensors |= {
                "bias_loc": draw.normal((n_out,)),
                "bias_raw_scale": draw.normal((n_out,)),
            }
        return Call(tensors)

    return Variant(inputs, min_dims=1)


def _many(draw: Draw, shape: Shape) -> Call:
    shapes = {"first": shape, "second": (3,)}
    names = ("loc", "raw_scale")
    return Call({f"{i}_{k}": draw.normal(s) for k in names for i, s in shapes.items()})


@dataclass(frozen=True)
class Adapted(OpRecord):
    """A record of a function with arguments that are not tensors; ``adapter`` replaces them."""

    adapter: Callable[..., Any] = lambda function: function

    @property
    def function(self) -> Callable[..., Any]:
        return self.adapter(getattr(bslfast.functional, self.name))

    @property
    def reference(self) -> Callable[..., Any]:
        return self.adapter(getattr(bslfast.reference, self.name))


def _of_lists(function: Callable[..., Any]) -> Callable[..., Any]:
    def of_tensors(
        first_loc: Tensor,
        second_loc: Tensor,
        first_raw_scale: Tensor,
        second_raw_scale: Tensor,
        **options: Any,
    ) -> tuple[Tensor, ...]:
        raw_scales = [first_raw_scale, second_raw_scale]
        samples, kl = function([first_loc, second_loc], raw_scales, **options)
        return *samples, kl

    return of_tensors


def _of_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    def of_tensor(like: Tensor, **options: Any) -> Tensor:
        return function(like.shape, dtype=like.dtype, **options)

    return of_tensor


OTHERS: list[OpRecord] = [
    OpRecord(
        "bayes_linear",
        {"bias": _linear(True), "no_bias": _linear(False)},
        tolerance=_TOLERANCE,
        random=True,
    ),
    Adapted(
        "normal_rsample_kl_many",
        {"two": Variant(_many)},
        tolerance=_TOLERANCE,
        random=True,
        adapter=_of_lists,
    ),
    *(
        Adapted(
            name,
            {"": Variant(lambda draw, shape: Call({"like": draw.normal(shape)}))},
            tolerance=_TOLERANCE,
            random=True,
            not_differentiable=frozenset({"like"}),
            adapter=_of_shape,
        )
        for name in ("standard_normal", "standard_uniform")
    ),
]
BY_NAME: dict[str, OpRecord] = {record.name: record for record in (*RECORDS, *OTHERS)}
