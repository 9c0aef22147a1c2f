"""Pointwise ops: what stands between a function of :mod:`bslfast.functional` and its kernels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

import torch
from torch import Tensor

from bslfast import _checks, reference
from bslfast._native import READS_TENSORS, _cpu
from bslfast._native._operands import PARAMETRIZATIONS as _NUMBERED_PARAMETRIZATIONS
from bslfast._native._operands import REDUCTIONS
from bslfast._native.pointwise import Kernels
from bslfast.functional._op import NOTHING, ONE_DTYPE, ONE_SHAPE, Op, common, in_common
from bslfast.functional._vmap import Folding

#: What a scale may be made from.
PARAMETRIZATIONS = tuple(_NUMBERED_PARAMETRIZATIONS)
_Option = Union[str, bool, None]  # noqa: UP007 (Python 3.10)


class PointwiseOp:
    """Checks the arguments of a pointwise op and calls it.

    Args:
        name: of the function, of its twin in :mod:`bslfast.reference` and of its kernels.
        tensors: names of its tensor arguments, which broadcast.
        options: for each option its values; together they make the variants of the kernels, the
            last option running fastest.
        numbers: names of its arguments that are numbers.
        constants: from these, the numbers that the kernels take; by default the same.
        domains: what is expected of a tensor whose elements the kernels check (to be >= 0).
        twin: its name in :mod:`bslfast.reference`, if that is another.
        parts: kernels that give the value alone, and the logarithm alone, by the same variants from
            the first of the tensors: for backward, where only one of the two has a gradient.
    """

    _kernels_of = Kernels

    def __init__(
        self,
        name: str,
        tensors: Sequence[str],
        *,
        options: Mapping[str, Sequence[_Option]] | None = None,
        numbers: Sequence[str] = (),
        constants: Callable[..., tuple[float, ...]] | None = None,
        domains: Mapping[str, str] | None = None,
        twin: str | None = None,
        parts: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self._parts = tuple(map(Kernels, parts or ()))
        self.tensors = tuple(tensors)
        self.options = {k: tuple(v) for k, v in (options or {}).items()}
        self._kinds = [(k, type(v[0])) for k, v in self.options.items()]
        self._flags = {k for k, kind in self._kinds if kind is bool}
        self.numbers = tuple(numbers)
        self._constants = constants
        self.domains = dict(domains or {})
        self._kernels = kernels = self._kernels_of(name)
        self._variants = _numbered(tuple(self.options.values()))
        known = (kernels.inputs, kernels.n_variants)
        assert known == (len(self.tensors), len(self._variants)), name

        # The op's arguments: tensors, seed, stream and sample_shape, options, numbers, reduction.
        first = len(self.tensors) + 3 * kernels.is_random
        self._options = slice(first, first + len(self.options))
        self._numbers = slice(self._options.stop, self._options.stop + len(self.numbers))
        self._random = kernels.is_random
        self._results = kernels.has_value + kernels.has_log
        self._by_element = type(kernels) is Kernels
        kinds = {str: "str", bool: "bool"}
        arguments = [f"Tensor {t}" for t in self.tensors]
        arguments += ["Tensor seed", "int stream", "SymInt[] sample_shape"] * kernels.is_random
        arguments += [
            f"{kinds[type(values[0])]}{'?' if None in values else ''} {k}"
            for k, values in self.options.items()
        ]
        arguments += [f"float {k}" for k in self.numbers]
        arguments += ["str reduction"] * kernels.reduces
        results = "(Tensor value, Tensor log)" if self._results == 2 else "Tensor"
        self.op = Op(
            f"{name}({', '.join(arguments)}) -> {results}",
            forward=self._forward,
            backward=self._backward,
            fake=self._fake,
            reference=getattr(reference, twin or name),
            rounded=self._rounded(),
            has_cuda=True,
            folding=None if kernels.is_random else self._folding(),
        )
        self._direct = self.op.directly(self._direct_forward, self._direct_backward)

    def __call__(
        self,
        *tensors: Tensor,
        reduction: str | None = None,
        sample_shape: Any = (),
        seed: Any = None,
        stream: Any = 0,
        **others: Any,
    ) -> Any:
        """The result, or both; raises what a function of :mod:`bslfast.functional` raises.

        ``others`` are the options and the numbers, in any order.
        """
        # Every function here that is called, and every loop, is some tenths of a microsecond.
        if self._by_element and seed is None and common(tensors) == ONE_SHAPE:
            directly, shape = True, tensors[0].shape
        else:
            given_seed = (seed,) if isinstance(seed, Tensor) else ()
            tensors, directly, shape = self._looked_at(tensors, given_seed)
        reduced = shape
        given: tuple[Any, ...] = ()
        if self._random:
            if type(sample_shape) is not tuple or sample_shape:
                sample_shape = _checks.sizes("sample_shape", sample_shape)
            tensors = (*tensors, _checks.seed(seed, tensors[0].device))
            if type(stream) is not int or stream != 0:
                stream = _checks.stream(stream)
            given = (stream, sample_shape)
            if sample_shape:
                shape = torch.Size((*sample_shape, *shape))
                if not self._kernels.samples:
                    reduced = shape
        chosen: tuple[Any, ...] = ()
        for name, kind in self._kinds:
            value = others[name]
            if type(value) is not kind:
                value = self._checked_option(name, value)
            chosen += (value,)
        variant = self._variants.get(chosen)
        if variant is None:
            for name, value in zip(self.options, chosen, strict=True):
                self._checked_option(name, value)
        numbers: tuple[float, ...] = ()
        if self.numbers:
            numbers = tuple([others[name] for name in self.numbers])
        given += chosen + numbers
        if self._kernels.reduces:
            if type(reduction) is not str or reduction not in REDUCTIONS or not reduced:
                reduction = _checks.reduction(reduction, reduced)
            given += (reduction,)
        if not directly:
            return self.op(*tensors, *given)
        if self._constants is not None:
            numbers = self._constants(*numbers)
        reduced_by = reduction or "none"
        facts: Any = None
        if READS_TENSORS and self._by_element:
            apart = bool(sample_shape) and self._kernels.draws_apart(shape, len(sample_shape))
            code = REDUCTIONS[reduced_by]
            facts = (
                self._kernels.index,
                variant,
                numbers,
                stream,
                code,
                sample_shape,
                apart,
                False,
            )
        call = (facts, shape, variant, numbers, reduced_by, stream, sample_shape, given)
        if torch.is_grad_enabled():
            for t in tensors:
                if t.requires_grad:
                    return self._direct()(*tensors, call)
        if facts is not None:
            results = _cpu.pointwise_results(*(*facts, tensors))
            if results is not None:
                return results
        return self._direct_forward(call, tensors)

    def facts_of_halves(self, numbers: tuple[float, ...], reduction: str, *options: _Option) -> Any:
        """What ``_cpu.pointwise_results`` takes before tensors, the first one with two halves."""
        code = REDUCTIONS[reduction]
        return self._kernels.index, self._variants[options], numbers, 0, code, (), False, True

    def _checked_option(self, name: str, value: Any) -> Any:
        if name in self._flags:
            return _checks.flag(name, value)
        return _checks.choice(name, value, self.options[name])  # type: ignore[arg-type]

    def _rounded(self) -> int | None:
        """As :class:`Op` wants to know it: the kernels take tensors of 16 bits."""
        return None

    def _folding(self) -> Folding:
        kernels = self._kernels
        return Folding(
            inner=(0,) * kernels.inputs,
            value=0 if kernels.has_value else None,
            has_log=kernels.has_log,
            reductions=_checks.REDUCTIONS if kernels.reduces else (),
            adds_up=False,
        )

    def _looked_at(
        self, tensors: tuple[Tensor, ...], seed: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], bool, torch.Size]:
        """The tensors, whether kernels may be called on them directly, and their shape."""
        found = common(tensors)
        if found and seed and not in_common(seed):
            found = NOTHING
        if found == ONE_SHAPE:
            return tensors, True, tensors[0].shape
        if found < ONE_DTYPE:
            tensors = self._checked(tensors)
        shape = _checks.broadcast(**dict(zip(self.tensors, tensors, strict=True)))
        return tensors, found >= ONE_DTYPE, shape

    def _checked(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        first, *rest = map(_checks.operand, self.tensors, tensors)
        for name, value in zip(self.tensors[1:], rest, strict=True):
            _checks.alike(name, value, self.tensors[0], first)
        return (first, *rest)

    def _split(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """(tensors, variant, numbers, reduction, seed, stream, sample_shape)."""
        n = len(self.tensors)
        numbers = tuple(args[self._numbers])
        drawn = args[n : n + 3] if self._kernels.is_random else (None, 0, ())
        return (
            tuple(args[:n]),
            self._variants[tuple(args[self._options])],
            numbers if self._constants is None else self._constants(*numbers),
            args[self._numbers.stop] if self._kernels.reduces else "none",
            *drawn,
        )

    def _forward(self, *args: Any) -> Any:
        tensors, *others = self._split(args)
        return self._results_of(tensors, others[1], *self._kernels.forward(tensors, *others))

    def _direct_forward(self, call: Any, tensors: tuple[Any, ...]) -> Any:
        _, shape, variant, numbers, reduction, stream, sample_shape, _ = call
        seed = None
        if self._random:
            tensors, seed = tensors[:-1], tensors[-1]
        results, invalid = self._kernels.forward(
            tensors, variant, numbers, reduction, seed, stream, sample_shape, shape
        )
        if invalid or self._results == 2:
            return self._results_of(tensors, numbers, results, invalid)
        return results[0]

    def _direct_backward(
        self, call: Any, grads: Any, tensors: tuple[Any, ...], needs: tuple[bool, ...]
    ) -> Any:
        _, shape, variant, numbers, reduction, stream, sample_shape, _ = call
        if self._random:
            tensors, seed = tensors[:-1], tensors[-1]
            drawn: tuple[None, ...] = (None, None)
        else:
            seed, drawn = None, (None,)
        call = (variant, numbers, reduction, seed, stream, sample_shape, shape)
        if self._parts and (grads[0] is None or grads[1] is None):
            return self._backward_of_part(grads, tensors, call, needs) + drawn
        found = self._kernels.backward(grads, tensors, *call, needs=needs[: len(tensors)])
        return found + drawn

    def _backward_of_part(
        self,
        grads: tuple[Tensor | None, ...],
        tensors: Sequence[Tensor],
        call: tuple[Any, ...],
        needs: Sequence[bool],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of the tensors, where one of the two results has none."""
        only = int(grads[0] is None)
        kernels = self._parts[only]
        n, variant, numbers, reduction, seed, stream, sample_shape, *shape = kernels.inputs, *call
        if only == 1:  # the divergence, of which there is one for all samples
            sample_shape, shape = (), []
        found = kernels.backward(
            grads[only : only + 1],
            tensors[:n],
            *(variant, numbers, reduction, seed, stream, sample_shape, *shape),
            needs=tuple(needs[:n]),
        )
        return found + (None,) * (len(tensors) - n)

    def _fault(self, name: str, tensor: Tensor, numbers: Sequence[float]) -> str:
        """What is wrong with a tensor that has elements outside its domain."""
        return f"{name}: expected {self.domains[name]}, got {tensor.min().item():g}"

    def _results_of(
        self,
        tensors: Sequence[Tensor],
        numbers: Sequence[float],
        results: tuple[Tensor, ...],
        invalid: int,
    ) -> Any:
        if invalid:
            index = (invalid & -invalid).bit_length() - 1
            raise ValueError(self._fault(self.tensors[index], tensors[index], numbers))
        return results if self._results == 2 else results[0]

    def _backward(self, *args: Any) -> tuple[Tensor | None, ...]:
        grads, needs = args[: self._results], tuple(args[-1])
        tensors, *call = self._split(args[self._results : -1])
        if self._parts and (grads[0] is None or grads[1] is None):
            found = self._backward_of_part(grads, tensors, tuple(call), needs)
            # An operator's gradient is a tensor where one is needed.
            return tuple(
                torch.zeros_like(t) if need and g is None else g
                for t, need, g in zip(tensors, needs, found, strict=True)
            )
        return self._kernels.backward(grads, tensors, *call, needs=needs)

    def _fake(self, *args: Any) -> Any:
        tensors, _, _, reduction, _, _, sample_shape = self._split(args)
        results = self._kernels.allocate(tensors, reduction, sample_shape)
        return results if self._results == 2 else results[0]


def location_scale_op(name: str, *tensors: str) -> PointwiseOp:
    """An op of ``tensors``, a location and what a scale is made from."""
    return PointwiseOp(
        name,
        (*tensors, "loc", "raw_scale"),
        options={"parametrization": PARAMETRIZATIONS},
        domains={"raw_scale": "scales >= 0"},
    )


def parameter(name: str, value: Any, like: Any, *, above: float = -math.inf) -> Tensor:
    """A parameter as a tensor: a number becomes one without dimensions, rounded to the dtype."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number or a torch.Tensor, got {type(value).__name__}")
    value = _checks.number(name, value, above=above, dtype=like.dtype)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def number(name: str, value: Any, *, above: float = -math.inf) -> float:
    """A parameter that might have been a tensor, as a number."""
    if type(value) is float and above < value < math.inf:  # the rest takes longer
        return value
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number or a torch.Tensor, got {type(value).__name__}")
    return _checks.number(name, value, above=above)


def _numbered(
    options: Sequence[Sequence[str | bool | None]],
) -> dict[tuple[str | bool | None, ...], int]:
    """The variants, each with its number in the kernels' table."""
    values: list[tuple[_Option, ...]] = [()]
    for option in options:
        values = [(*v, choice) for v in values for choice in option]
    return {v: i for i, v in enumerate(values)}
