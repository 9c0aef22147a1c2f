"""Records of ops, from which functional/every_op makes all its tests.

A record names the op and says how to make inputs for it. Everything else has defaults: the function
is ``bslfast.functional.<name>``, the oracle ``bslfast.reference.<name>``, all tensor arguments are
differentiable, nothing but the arguments (and the seed) is saved for backward.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import bslfast
from bslfast._native import _cpu
from bslfast.reference import noise

Shape = tuple[int, ...]
Results = tuple[Tensor, ...]
SEED = 0x0123456789ABCDEF


class Draw:
    """Reproducible inputs of one dtype."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: Sequence[int], mean: float = 0.0, std: float = 1.0) -> Tensor:
        values = torch.randn(tuple(shape), dtype=torch.float64, generator=self._generator)
        return (mean + std * values).to(self.dtype)

    def uniform(self, shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> Tensor:
        values = torch.rand(tuple(shape), dtype=torch.float64, generator=self._generator)
        return (low + (high - low) * values).to(self.dtype)


@dataclass(frozen=True)
class Call:
    """Arguments of one call: tensors, in the order of the signature, and everything else."""

    tensors: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> Call:
        return replace(self, tensors={k: function(t) for k, t in self.tensors.items()})

    def but(self, **tensors: Tensor) -> Call:
        return replace(self, tensors={**self.tensors, **tensors})

    def options_but(self, **options: Any) -> Call:
        return replace(self, options={**self.options, **options})


@dataclass(frozen=True)
class Variant:
    """One way to call an op (a parametrization, a reduction, what is broadcast)."""

    inputs: Callable[[Draw, Shape], Call]
    min_dims: int = 0
    #: Whether the gradient is that of the value: of some estimators it is another one.
    own_gradient: bool = True


@dataclass(frozen=True)
class Tolerance:
    """Bounds in units of the dtype's eps, see :func:`assert_close`."""

    value: float
    gradient: float


@dataclass(frozen=True)
class Extreme:
    """Inputs at the end of the range. Results left None must be those of the float64 reference.

    Where an argument is not finite the loss has no gradient: ``no_gradient`` lists elements whose
    gradient may be anything.
    """

    name: str
    tensors: Mapping[str, Sequence[float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Sequence[float] | None] | None = None
    gradients: Mapping[str, Sequence[float]] | None = None
    no_gradient: Sequence[int] = ()


@dataclass(frozen=True)
class Error:
    """Arguments that replace good ones, and how the op must refuse them."""

    name: str
    arguments: Mapping[str, Any]
    exception: type[Exception]
    match: str


@dataclass(frozen=True)
class OpRecord:
    name: str
    variants: Mapping[str, Variant]
    tolerance: Mapping[torch.dtype, Tolerance]
    #: Whether the op takes ``seed`` and ``stream``.
    random: bool = False
    not_differentiable: frozenset[str] = frozenset()
    #: Arguments that some variants want in a finite range: infinities are errors there.
    bounded: frozenset[str] = frozenset()
    extremes: Sequence[Extreme] = ()
    errors: Sequence[Error] = ()
    #: Bytes saved for backward, if not those of the tensor arguments and the seed.
    saved_bytes: Callable[[Call, Results], int] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        return getattr(bslfast.functional, self.name)

    @property
    def reference(self) -> Callable[..., Any]:
        return getattr(bslfast.reference, self.name)

    @property
    def values(self) -> int:
        """The number of results that are values, which keep 16 bits; the others are logarithms."""
        logarithms = ("_log_prob", "_kl", "_bound")
        return 0 if self.name.endswith(logarithms) and "_rsample_" not in self.name else 1

    def rounded(self, results: Sequence[Tensor], low: torch.dtype) -> list[Tensor]:
        """Results of a call on tensors of ``low``, given those of a call on float32."""
        return [r.to(low) if i < self.values else r for i, r in enumerate(results)]

    def prepared(self, call: Call) -> Call:
        """Add the arguments that ``function`` would compute by torch before it calls the op."""
        return call

    def differentiable(self, call: Call) -> list[str]:
        return [name for name in call.tensors if name not in self.not_differentiable]


@dataclass(frozen=True)
class Case:
    """A record and one of its variants: what tests are parametrised over."""

    record: OpRecord
    name: str

    def __str__(self) -> str:
        return f"{self.record.name}-{self.name}"

    @property
    def min_dims(self) -> int:
        return self.record.variants[self.name].min_dims

    def call(self, dtype: torch.dtype, shape: Shape, seed: int = 0) -> Call:
        """Inputs; the op's own seed is an int, the same in every call."""
        call = self.record.variants[self.name].inputs(Draw(dtype, seed), shape)
        return call.options_but(seed=SEED) if self.record.random else call


# --- running an op --------------------------------------------------------------------------------


def as_tuple(results: Any) -> Results:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def run(function: Callable[..., Any], call: Call) -> Results:
    return as_tuple(function(**call.tensors, **call.options))


def positional(function: Callable[..., Any], call: Call) -> Callable[..., Results]:
    """The op as a function of its tensors alone, as torch.func and torch.compile want it."""
    names, options = list(call.tensors), call.options

    def on_tensors(*tensors: Tensor) -> Results:
        return as_tuple(function(**dict(zip(names, tensors, strict=True)), **options))

    return on_tensors


def leaves(call: Call, names: Sequence[str]) -> Call:
    """A copy of the call on fresh leaves, of which ``names`` require a gradient."""
    return replace(
        call, tensors={k: t.detach().requires_grad_(k in names) for k, t in call.tensors.items()}
    )


def weights(results: Sequence[Tensor]) -> list[Tensor]:
    """Incoming gradients of order 1: no random numbers, so that every transform may make them."""
    return [
        (torch.arange(r.numel(), dtype=torch.float64, device=r.device) * 1.7 + 1)
        .cos()
        .reshape(r.shape)
        .to(r.dtype)
        for r in results
    ]


def run_with_gradients(
    function: Callable[..., Any],
    call: Call,
    names: Sequence[str],
    grads: Sequence[Tensor] | None = None,
) -> tuple[Results, dict[str, Tensor | None]]:
    """Results, and the gradients of ``names`` for the incoming ``grads`` (default: weights)."""
    call = leaves(call, names)
    results = run(function, call)
    given = weights(results) if grads is None else grads
    pairs = [(r, g) for r, g in zip(results, given, strict=True) if r.requires_grad]
    found = torch.autograd.grad(
        [r for r, _ in pairs],
        [call.tensors[k] for k in names],
        [g for _, g in pairs],
        allow_unused=True,
    )
    return tuple(r.detach() for r in results), dict(zip(names, found, strict=True))


# --- the oracle -----------------------------------------------------------------------------------


@functools.cache
def _noise_places() -> dict[Callable[..., Tensor], list[tuple[ModuleType, str]]]:
    """Where the reference has its noise functions: the modules, and the names there."""
    return {
        kind: [
            (module, attribute)
            for name, module in sys.modules.items()
            if name.startswith("bslfast.reference")
            for attribute, value in vars(module).items()
            if value is kind
        ]
        for kind in (noise.normal, noise.uniform)
    }


@contextlib.contextmanager
def noise_of(dtype: torch.dtype) -> Iterator[None]:
    """Inside, the reference draws the noise of ``dtype`` also for float64 arguments."""
    patched = []
    for kind, places in _noise_places().items():

        def other(
            shape: Sequence[int],
            seed: Any,
            stream: int = 0,
            dtype_: torch.dtype = torch.float32,
            device: Any = None,
            *,
            kind: Callable[..., Tensor] = kind,
            **more: Any,
        ) -> Tensor:
            wanted = more.pop("dtype", dtype_)
            return kind(shape, seed, stream, dtype, device, **more).to(wanted)

        for module, attribute in places:
            setattr(module, attribute, other)
            patched.append((module, attribute, kind))
    try:
        yield
    finally:
        for module, attribute, kind in patched:
            setattr(module, attribute, kind)


def expected_results(record: OpRecord, call: Call) -> Results:
    """The float64 reference on the very values (and noise) of a call in any dtype."""
    dtype = next(iter(call.tensors.values())).dtype
    with noise_of(dtype), torch.no_grad():
        return run(record.reference, call.map(Tensor.double))


def expected_with_gradients(
    record: OpRecord, call: Call, names: Sequence[str]
) -> tuple[Results, dict[str, Tensor | None]]:
    dtype = next(iter(call.tensors.values())).dtype
    with noise_of(dtype):
        double = leaves(call.map(Tensor.double), names)
        results = run(record.reference, double)
        given = [w.double() for w in weights([r.to(dtype) for r in results])]
        return run_with_gradients(record.reference, double, names, given)


def errors(actual: Tensor, expected: Tensor, elements: int | None = None) -> Tensor:
    """The error of each element, in eps of the size of its terms.

    An element is a sum of terms, some of which cancel. Their size is taken to be that of the
    element or, if more, of a typical element (the root mean square), and at least 1 for each term.
    The number of terms is ``elements`` divided by the number of results. Without ``elements`` there
    is one term, and a typical element does not count.
    """
    size = torch.ones((), dtype=torch.float64)
    if elements is not None:
        finite = expected[expected.isfinite()]
        typical = finite.square().mean().sqrt() if finite.numel() else size
        size = typical.clamp(min=math.sqrt(max(1, elements / actual.numel())))
    rounded = expected.to(actual.dtype).double()  # also overflows as the dtype does
    error = (actual.double() - expected).abs() / (expected.abs() + size)
    found = torch.nan_to_num(error / torch.finfo(actual.dtype).eps, math.inf, math.inf)
    same = (actual.double() == rounded) | (actual.isnan() & rounded.isnan())
    return torch.where(same, 0.0, found)


def assert_close(
    actual: Tensor,
    expected: Tensor,
    units: float,
    *,
    elements: int | None = None,
    label: str = "",
) -> None:
    """Within ``units`` eps, see :func:`errors`; NaN and inf where the oracle has them."""
    assert actual.shape == expected.shape, (
        f"{label}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    )
    if actual.numel() == 0:
        return
    found = errors(actual, expected, elements)
    worst = int(found.argmax())
    assert found.max() <= units, (
        f"{label}: {found.max():.3g} eps, bound {units}; element {worst}: "
        f"{actual.reshape(-1)[worst].item()!r}, expected "
        f"{expected.reshape(-1)[worst].to(actual.dtype).item()!r}"
    )


def assert_extreme(
    record: OpRecord,
    extreme: Extreme,
    dtype: torch.dtype,
    device: str = "cpu",
    levels: Sequence[str] = (_cpu.isa(),),
) -> None:
    """Require the stated numbers of an extreme case, and else the reference's."""
    tensors = {k: torch.tensor(v, dtype=dtype) for k, v in extreme.tensors.items()}
    call = Call(tensors, dict(extreme.options))
    if record.random:
        call = call.options_but(seed=SEED)
    names = record.differentiable(call)
    expected, expected_grads = expected_with_gradients(record, call, names)
    on_device = call.map(lambda t: t.to(device))
    bound = record.tolerance[dtype]
    times = 1 if device == "cpu" else 2  # a device contracts other products and sums
    for level in levels:
        with isa(level):
            results, grads = run_with_gradients(record.function, on_device, names)
        for i, result in enumerate(results):
            stated = extreme.results[i] if extreme.results else None
            wanted = expected[i] if stated is None else torch.tensor(stated, dtype=torch.float64)
            what = f"{level} result {i}"
            assert_close(result.cpu(), wanted, times * bound.value, label=what)
        for name in names:
            stated = (extreme.gradients or {}).get(name)
            actual, wanted = grads[name], expected_grads[name]
            if stated is not None:
                wanted = torch.tensor(stated, dtype=torch.float64)
            assert actual is not None
            assert wanted is not None
            kept = [i for i in range(len(wanted)) if i not in extreme.no_gradient]
            what = f"{level} d {name}"
            assert_close(actual.cpu()[kept], wanted[kept], times * bound.gradient, label=what)


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether :func:`assert_same` need not look closer, which takes a hundred times as long."""
    alike = a.dtype == b.dtype and a.device == b.device and a.layout == b.layout
    return alike and torch.equal(a, b)


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor], label: str = "") -> None:
    """Equal to the last bit, dtype and shape included; NaN equals NaN."""
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if _is_same(a, e):
            continue
        torch.testing.assert_close(
            a, e, rtol=0, atol=0, equal_nan=True, msg=lambda m, i=i: f"{label} [{i}]: {m}"
        )


def assert_same_gradients(
    actual: Mapping[str, Tensor | None], expected: Mapping[str, Tensor | None], label: str = ""
) -> None:
    """Require equality to the last bit, dtype and shape included; no gradient equals zero."""
    assert actual.keys() == expected.keys()
    for name, grad in actual.items():
        other = expected[name]
        if grad is None or other is None:
            for g in (grad, other):
                assert g is None or not g.any(), f"{label} {name}: {grad}, expected {other}"
        else:
            assert_same([grad], [other], f"{label} gradient of {name}")


# --- circumstances --------------------------------------------------------------------------------


@contextlib.contextmanager
def isa(level: str) -> Iterator[None]:
    before = _cpu.isa()
    _cpu.set_isa(level)
    try:
        yield
    finally:
        _cpu.set_isa(before)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
