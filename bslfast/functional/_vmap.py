"""Rules for ``torch.func.vmap`` and for batched gradients: what an operator does with examples.

The examples of an op that draws nothing become one more dimension of a single call. An op that
draws is called for each example, as noise must not depend on the rest of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Rule = Callable[..., Any]


class Folding(NamedTuple):
    """What an op is like whose examples may become one call.

    Attributes:
        inner: for each tensor, how many of its last dimensions an element has: 1 of rows, else 0.
        value: the same of the value; None for an op without one.
        has_log: whether the op returns a logarithm, behind the value if there is one.
        reductions: what the op's last argument may be; empty if it is no reduction.
        adds_up: whether kernels add up the gradient of a row that serves all elements, in float64.
    """

    inner: tuple[int, ...]
    value: int | None
    has_log: bool
    reductions: tuple[str, ...]
    adds_up: bool

    def forward(self, operator: Any) -> Rule:
        """The rule of the op itself."""
        n = len(self.inner)
        loop = one_by_one(operator, n)

        def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            given = [*zip(args[:n], in_dims[:n], self.inner, strict=True)]
            lead = _lead(given)
            constants = args[n:]
            total = bool(self.reductions) and constants[-1] == "sum"
            if total and lead:
                if "row" not in self.reductions:
                    return loop(info, in_dims, *args)
                # The sum over an example is that over a row of all its elements.
                rows = [_one_row(*t, lead) for t in given]
                results = operator(*rows, *constants[:-1], "row")
                if self.value is not None:
                    value, log = results
                    results = value.unflatten(1, lead), log
            else:
                if total:  # of a single element
                    constants = (*constants[:-1], "none")
                results = operator(*(_aligned(*t, len(lead)) for t in given), *constants)
            return results, 0 if isinstance(results, Tensor) else (0,) * len(results)

        return rule

    def backward(self, operator: Any, differentiable: Sequence[int]) -> Rule:
        """The rule of the operator of the gradients."""
        n_grads, n = (self.value is not None) + self.has_log, len(self.inner)
        loop = one_by_one(operator, n_grads + n)

        def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
            size, needs = info.batch_size, args[-1]
            tensors, constants = args[n_grads : n_grads + n], [*args[n_grads + n : -1]]
            given = [*zip(tensors, in_dims[n_grads : n_grads + n], self.inner, strict=True)]
            lead = _lead(given)
            examples = [_example_shape(t, dim) for t, dim, _ in given]
            shared = any(
                inner and math.prod(shape[:-1]) == 1
                for shape, inner in zip(examples[1:], self.inner[1:], strict=True)
            )
            # Kernels know such a row only if it serves all examples as well.
            if self.adds_up and lead and shared:
                return loop(info, in_dims, *args)
            grads = [*zip(args[:n_grads], in_dims[:n_grads], strict=True)]
            aligned = []
            if self.value is not None:
                aligned.append(_aligned(*grads[0], self.value, len(lead), size))
            if self.has_log:
                reduction = constants[-1] if self.reductions else "none"
                log = _aligned(*grads[-1], 0, len(lead) - (reduction == "row"), size)
                if reduction == "sum":
                    constants[-1] = "none"
                    log = None if log is None else log.expand(size, *lead)
                aligned.append(log)
            # Each example has a gradient of its own, also of what all of them share.
            results = operator(
                *aligned, *(_aligned(*t, len(lead), size) for t in given), *constants, needs
            )
            single = isinstance(results, Tensor)
            shaped, dims = [], []
            for i, need, found in zip(
                differentiable, needs, (results,) if single else results, strict=True
            ):
                shaped.append(found.reshape(size, *examples[i]) if need else found)
                dims.append(0 if need else None)
            return (shaped[0], dims[0]) if single else (tuple(shaped), tuple(dims))

        return rule


def one_by_one(operator: Any, n_tensors: int) -> Rule:
    """The rule of one call for each example."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        def one(a: Tensor, dim: int | None, index: int) -> Tensor:
            if dim is None:
                return a
            # Without examples one of ones shows the shapes of results.
            return a.select(dim, index) if a.shape[dim] else a.new_ones(_example_shape(a, dim))

        size = info.batch_size
        results = []
        for index in range(size or 1):
            given = zip(args[:n_tensors], in_dims, strict=False)
            tensors = [one(a, dim, index) for a, dim in given]
            results.append(operator(*tensors, *args[n_tensors:]))
        if isinstance(results[0], Tensor):
            return torch.stack(results)[:size], 0
        columns = tuple(torch.stack(column)[:size] for column in zip(*results, strict=True))
        return columns, (0,) * len(columns)

    return rule


def _example_shape(tensor: Tensor, dim: int | None) -> tuple[int, ...]:
    shape = [*tensor.shape]
    if dim is not None:
        del shape[dim]
    return tuple(shape)


def _lead(given: Sequence[tuple[Tensor, int | None, int]]) -> torch.Size:
    """The shape of an example's elements."""
    shapes = [_example_shape(t, dim) for t, dim, _ in given]
    leading = [s[: len(s) - inner] for s, (*_, inner) in zip(shapes, given, strict=True)]
    return torch.Size(torch.broadcast_shapes(*leading))


def _aligned(
    tensor: Tensor | None, dim: int | None, inner: int, rank: int, size: int | None = None
) -> Any:
    """The tensor with the examples in front of ``rank`` dimensions of elements, as views.

    One without examples stays as it is, or gets ``size`` equal ones.
    """
    if tensor is None:
        return None
    if dim is not None:
        tensor = tensor.movedim(dim, 0)
    elif size is None:
        return tensor
    else:
        tensor = tensor.expand(size, *tensor.shape)
    ones = (1,) * (1 + rank + inner - tensor.dim())
    return tensor.view(tensor.shape[0], *ones, *tensor.shape[1:])


def _one_row(tensor: Tensor, dim: int | None, inner: int, lead: torch.Size) -> Tensor:
    """The same with an example's elements, broadcast to ``lead``, on one dimension."""
    aligned: Tensor = _aligned(tensor, dim, inner, len(lead))
    first = 0 if dim is None else 1
    tail = aligned.shape[aligned.dim() - inner :]
    return aligned.expand(*aligned.shape[:first], *lead, *tail).flatten(
        first, first + len(lead) - 1
    )
