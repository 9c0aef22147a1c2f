"""Random calls of the functions of bslfast.functional, against the reference in float64.

**The bound.** A result or gradient e may be off by

    units * (eps * (abs(e) + size) + change)

``units`` are the record's own (tests/ops) and ``eps`` is that of the arithmetic: float32's for
tensors of 16 bits. ``size`` is the square root of the number of terms that are added up; for a
gradient it is multiplied by the largest incoming gradient. ``change`` is the change of the float64
reference when each input moves by one unit in its last place: where a problem is ill-conditioned,
no kernel can do better. ``change`` includes the effect of rounding noise and, in float64, of
rounding the reference's own steps. Numbers in this interval are then rounded to the dtype, so that
a number beyond the dtype's largest may be an infinity.

NaN is right only where the reference, at the point or one unit beside it, is NaN; for a gradient
also where the right one is too large for the dtype.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

import torch
from ops.every import Watch, negative_bit, strided, transposed
from ops.record import (
    Call,
    Draw,
    OpRecord,
    Results,
    Shape,
    as_tuple,
    assert_same,
    isa,
    leaves,
    noise_of,
    run,
    threads,
)
from torch import Tensor

import bslfast
from bslfast._native import _cpu
from bslfast.functional.normal import PARAMETRIZATIONS
from fuzz.records import BY_NAME

_SIXTEEN_BITS = ("bfloat16", "float16")
_SAMPLE_SHAPES: list[Shape] = [(), (1,), (2,), (3,), (1, 1), (2, 1), (1, 3), (0,), (2, 0)]
_TRIALS = 4
_HUGE = {"float16": 3e3}
# Numbers where formulas change, functions overflow and dtypes end. They serve for float64 too, as
# the reference itself overflows beyond them.
_SIZES = [
    *(0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-8, 1e-4, 0.5, 1.0, 3.0, 10.0, 17.0, 40.0, 88.0, 104.0),
    *(200.0, 1e3, 3e4, 1e7, 1e10, 1e18, 1e30, math.inf),
]
_VALUES = [*_SIZES, *(-size for size in _SIZES), math.nan]


def _expanded(t: Tensor) -> Tensor:
    return t[..., :1].expand(t.shape) if t.dim() else t


def _stepped(t: Tensor) -> Tensor:
    if t.dim() == 0:
        return t
    room = t.new_full((*t.shape[:-1], 2 * t.shape[-1] + 1), math.nan)
    room[..., 1::2] = t
    return room[..., 1::2]


def _reversed(t: Tensor) -> Tensor:
    backwards = tuple(reversed(range(t.dim())))
    return t.permute(backwards).contiguous().permute(backwards)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": _expanded,
    "strided": strided,
    "stepped": _stepped,
    "transposed": transposed,
    "reversed": _reversed,
    "negative_bit": negative_bit,
}
# Ways in which a tensor's shape may differ from the call's.
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "first_one": lambda t: t[:1],
    "last_one": lambda t: t[..., :1],
    "one_row": lambda t: t[0],
    "wider": lambda t: torch.stack([t, t.flip(0) if t.dim() else t]),
    "one_more": lambda t: t[None],
}
GRADS = ("normal", "normal", "zero", "ones", "strided", "transposed", "huge", "none")


@dataclass(frozen=True)
class Plan:
    """One call of an op.

    ``options`` replace the variant's. ``layouts`` and ``shapes`` name the changes of an argument.
    ``values`` lists (argument, place in it from 0 to 1, the value put there). ``needs`` lists the
    arguments whose gradients are wanted (None: all). ``grads`` names each result's incoming
    gradient.
    """

    op: str
    variant: str
    shape: Shape = (2, 3)
    seed: int = 0
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, str] = field(default_factory=dict)
    values: tuple[tuple[str, float, float], ...] = ()
    needs: tuple[str, ...] | None = None
    grads: tuple[str, ...] = ("normal",)
    level: str = "baseline"
    operator: bool = False
    same: bool = False

    def __repr__(self) -> str:
        """The text without default values, and with numbers that Python cannot read."""
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(_PLAIN, f.name)
        ]
        return re.sub(r"\b(inf|nan)\b", r"math.\1", f"calls.Plan({', '.join(shown)})")

    @property
    def record(self) -> OpRecord:
        return BY_NAME[self.op]

    @property
    def numbers(self) -> torch.dtype:
        """The dtype that the kernels compute in."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    def call(self) -> Call:
        """The arguments."""
        record, dtype = self.record, getattr(torch, self.dtype)
        call = record.variants[self.variant].inputs(Draw(dtype, self.seed), self.shape)
        # An argument that the variant gives as a tensor is no option.
        call = call.options_but(**{k: v for k, v in self.options.items() if k not in call.tensors})
        if record.random:
            call = call.options_but(seed=Random(self.seed).getrandbits(64))
        tensors = dict(call.tensors)
        if call.options.get("parametrization") == "scale":
            raw = (k for k in tensors if k.endswith("raw_scale"))
            tensors |= {k: tensors[k].abs() for k in raw}
        for name, change in self.shapes.items():
            if tensors[name].dim() and tensors[name].shape[0]:
                tensors[name] = SHAPES[change](tensors[name])
        for name, where, value in self.values:
            flat = tensors[name].clone().reshape(-1)
            if flat.numel():
                flat[int(where * flat.numel())] = value
            tensors[name] = flat.view(tensors[name].shape)
        for name, layout in self.layouts.items():
            tensors[name] = LAYOUTS[layout](tensors[name])
        return replace(call, tensors=tensors)

    def incoming(self, results: Results) -> list[Tensor | None]:
        """A gradient for each result."""
        draw = Draw(torch.float64, self.seed + 1)
        given: list[Tensor | None] = []
        for i, result in enumerate(results):
            kind = self.grads[i % len(self.grads)]
            grad = draw.normal(result.shape).to(result.dtype)
            if kind == "none":
                given.append(None)
            elif kind == "zero":
                given.append(torch.zeros_like(grad))
            elif kind == "ones":
                given.append(grad.new_ones(()).expand(grad.shape))
            elif kind == "huge":
                given.append(grad * _HUGE.get(self.dtype, 1e20))
            else:
                given.append(LAYOUTS.get(kind, torch.clone)(grad))
        return given

    def check(self) -> bool:
        """Compare with the reference; False if the arguments were refused."""
        call = self.call()
        names = [k for k in self.record.differentiable(call) if k in (self.needs or call.tensors)]
        names = [] if self.needs == () else names
        with isa(self.level), Watch() if self.operator else contextlib.nullcontext():
            try:
                results, grads = _run(self.record.function, call, names, self.incoming)
            except (TypeError, ValueError) as error:
                assert_names_argument(self, error)
                if self.values or self.options or self.shapes or len(self.shape) < 2:
                    return False
                raise AssertionError(f"ordinary arguments were refused: {error}") from None
            if self.same:
                self._check_same(call, names, (results, grads))
        given = self.incoming(results)
        self._compare(call, names, given, results, grads)
        return True

    def _check_same(self, call: Call, names: list[str], expected: Any) -> None:
        """Require the same bits for any number of threads, and in a second run."""
        for n in (1, 2, 3):
            with threads(n):
                results, grads = _run(self.record.function, call, names, self.incoming)
            assert_same(results, expected[0], f"{n} threads")
            for name in names:
                pair = grads[name], expected[1][name]
                assert (pair[0] is None) == (pair[1] is None)
                if pair[0] is not None and pair[1] is not None:
                    assert_same([pair[0]], [pair[1]], f"{n} threads, d {name}")

    def _compare(
        self,
        call: Call,
        names: list[str],
        given: list[Tensor | None],
        results: Results,
        grads: dict[str, Tensor | None],
    ) -> None:
        tolerance = self.record.tolerance[self.numbers]
        oracle = _Oracle(self, call, names, given)
        sizes = [float(g.abs().max()) for g in given if g is not None and g.numel()]
        largest = max(sizes, default=0.0)
        elements = max(t.numel() for t in (*results, *call.tensors.values()))
        assert len(results) == len(oracle.results)
        for i, result in enumerate(results):
            assert result.dtype in (getattr(torch, self.dtype), self.numbers), result.dtype
            expected, change = oracle.results[i], oracle.changes[i]
            self._close(f"result {i}", result, expected, change, tolerance.value, elements, 1.0)
        for name, expected in oracle.grads.items():
            grad = grads[name]
            if grad is None:
                assert expected is None or not (expected.abs() > 0).any(), f"no gradient of {name}"
                continue
            assert grad.dtype == call.tensors[name].dtype
            wanted = torch.zeros_like(call.tensors[name]).double() if expected is None else expected
            change = oracle.grad_changes.get(name, torch.zeros_like(wanted))
            units = tolerance.gradient
            self._close(f"d {name}", grad, wanted, change, units, elements, largest)

    def _close(
        self,
        label: str,
        actual: Tensor,
        expected: Tensor,
        change: Tensor,
        units: float,
        elements: int,
        scale: float,
    ) -> None:
        assert actual.shape == expected.shape, f"{label}: {actual.shape}, not {expected.shape}"
        if not actual.numel():
            return
        eps, dtype = torch.finfo(self.numbers).eps, actual.dtype
        size = scale * math.sqrt(max(1, elements / actual.numel()))
        bound = units * (eps * (expected.abs() + size) + change)
        low, high = (expected - bound).to(dtype), (expected + bound).to(dtype)
        # An infinity is right where the reference has it; infinity - infinity is NaN.
        low, high = (torch.where(e.isnan(), expected.to(dtype), e) for e in (low, high))
        free = expected.isnan() | change.isnan()
        if label.startswith("d "):  # beyond the dtype: infinities of both signs may have met
            free |= low.isinf() | high.isinf()
        fine = free | ((actual >= low) & (actual <= high)) | (change.isinf() & ~actual.isnan())
        if not fine.all():
            i = int((~fine).reshape(-1).int().argmax())
            got, wanted, by = (t.reshape(-1)[i].item() for t in (actual, expected, bound))
            raise AssertionError(f"{label}[{i}]: {got!r}, expected {wanted!r} within {by:.3g}")

    def simpler(self) -> Iterator[Plan]:
        """Plans with one thing less."""
        for name in ("layouts", "shapes", "options"):
            kept = getattr(self, name)
            for key in kept:
                yield replace(self, **{name: {k: v for k, v in kept.items() if k != key}})
        for i in range(len(self.values)):
            yield replace(self, values=self.values[:i] + self.values[i + 1 :])
        for i, n in enumerate(self.shape):
            if len(self.shape) > self.record.variants[self.variant].min_dims:
                yield replace(self, shape=self.shape[:i] + self.shape[i + 1 :])
            for smaller in (1, 2, n // 2, n - 1):
                if 0 < smaller < n:
                    yield replace(self, shape=(*self.shape[:i], smaller, *self.shape[i + 1 :]))
        for i, kind in enumerate(self.grads):
            if kind not in ("none", "ones"):
                for plain in ("none", "ones"):
                    yield replace(self, grads=(*self.grads[:i], plain, *self.grads[i + 1 :]))
        for change in ({"level": "baseline"}, {"operator": False}, {"same": False}, {"seed": 0}):
            if getattr(self, next(iter(change))) != next(iter(change.values())):
                yield replace(self, **change)
        for i, (name, where, value) in enumerate(self.values):
            if where:
                moved = (*self.values[:i], (name, 0.0, value), *self.values[i + 1 :])
                yield replace(self, values=moved)


_PLAIN = Plan("", "-", shape=(-1,))


class _Oracle:
    """The reference at a point, and its largest change around the point."""

    def __init__(
        self, plan: Plan, call: Call, names: list[str], given: list[Tensor | None]
    ) -> None:
        self._plan, self._names = plan, names
        call = call.map(lambda t: t.to(plan.numbers))
        given = [None if g is None else g.to(plan.numbers) for g in given]
        self.results, self.grads = self._at(call, given)
        self.changes = [torch.zeros_like(r) for r in self.results]
        self.grad_changes = {k: torch.zeros_like(g) for k, g in self.grads.items() if g is not None}
        generator = torch.Generator().manual_seed(plan.seed)
        for trial in range(_TRIALS):
            if trial < 2:  # all up, all down: at a border of the domain one of both is inside
                move = functools.partial(_all_moved, up=trial == 0)
            else:
                move = functools.partial(_moved, generator=generator)
            moved = [None if g is None else move(g) for g in given]
            with contextlib.suppress(ValueError):  # beside the domain
                self._add(*self._at(call.map(move), moved))
        if plan.record.random:
            self._add_noise(call, given)
        if plan.dtype == "float64":
            self._add_own_error(call, given)
        if any(not t.isfinite().all() for t in call.tensors.values()):
            self._free_infinite(call, given)

    def _add_noise(self, call: Call, given: list[Tensor | None]) -> None:
        """Noise is rounded as well: by one unit of a number of its size, as other noise is."""
        other = self._at(call.options_but(seed=0), given)
        eps = torch.finfo(self._plan.numbers).eps
        self._add_part(eps, (self.results, self.grads), other)

    def _add_part(self, part: float, here: Any, there: Any) -> None:
        """Add a share of the difference of two points, if both exist."""
        pairs = list(zip(self.changes, here[0], there[0], strict=True))
        pairs += [(c, here[1][k], there[1][k]) for k, c in self.grad_changes.items()]
        for change, a, b in pairs:
            if a is not None and b is not None:
                off = part * _difference(a, b.double())
                torch.maximum(change, torch.where(off.isfinite(), off, 0.0), out=change)

    def _add_own_error(self, call: Call, given: list[Tensor | None]) -> None:
        """In float64 the reference rounds as well: by its error in float32, in proportion."""
        call = call.map(lambda t: t.float().double())
        given = [None if g is None else g.float().double() for g in given]
        with contextlib.suppress(ValueError):  # beside the domain
            exact, rounded = self._at(call, given), self._at(call, given, torch.float32)
            ratio = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
            self._add_part(ratio, exact, rounded)

    def _free_infinite(self, call: Call, given: list[Tensor | None]) -> None:
        """Accept any gradient of arguments that share a result with one that is not finite.

        There is no gradient where an argument is not finite. For infinite results NaN is as right.
        """
        finite = call.map(lambda t: torch.where(t.isfinite(), t, 0.5))
        results, others = self._at(finite, given)
        for change, here in zip(self.changes, self.results, strict=True):
            change.masked_fill_(~here.isfinite(), math.nan)
        for name, change in self.grad_changes.items():
            grad, other = self.grads[name], others[name]
            if grad is not None and other is not None:
                same = (grad == other) | (grad.isnan() & other.isnan())
                change.masked_fill_(~same, math.nan)
        changed: list[Tensor | None] = [
            (here != there).double() for here, there in zip(self.results, results, strict=True)
        ]
        _, parts = self._at(finite, changed)
        for name, change in self.grad_changes.items():
            part = parts[name]
            if part is not None:
                change.masked_fill_(part != 0, math.nan)

    def _at(
        self, call: Call, given: list[Tensor | None], dtype: torch.dtype = torch.float64
    ) -> tuple[Results, dict[str, Tensor | None]]:
        record, numbers = self._plan.record, self._plan.numbers
        with noise_of(numbers) if record.random else contextlib.nullcontext():
            return _run(
                record.reference,
                call.map(lambda t: t.to(dtype)),
                self._names,
                lambda results: [None if g is None else g.to(dtype) for g in given],
            )

    def _add(self, results: Results, grads: dict[str, Tensor | None]) -> None:
        for change, here, there in zip(self.changes, self.results, results, strict=True):
            torch.maximum(change, _difference(here, there), out=change)
        for name, change in self.grad_changes.items():
            here, there = self.grads[name], grads[name]
            if here is not None and there is not None:
                torch.maximum(change, _difference(here, there), out=change)


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """The difference; 0 for equal infinities, and NaN where one is NaN."""
    return torch.where(a == b, 0.0, (a - b).abs())


def _all_moved(t: Tensor, up: bool) -> Tensor:
    moved = torch.nextafter(t, torch.full_like(t, math.inf if up else -math.inf))
    return torch.where(t.isfinite(), moved, t)


def _moved(t: Tensor, generator: torch.Generator) -> Tensor:
    up = torch.rand(t.shape, generator=generator) < 0.5
    return torch.where(up, _all_moved(t, True), _all_moved(t, False))


def _run(
    function: Callable[..., Any],
    call: Call,
    names: list[str],
    incoming: Callable[[Results], list[Tensor | None]],
) -> tuple[Results, dict[str, Tensor | None]]:
    """Results and gradients; a None of ``incoming`` leaves a result unused."""
    call = leaves(call, names)
    results = as_tuple(run(function, call))
    pairs = [
        (r, g)
        for r, g in zip(results, incoming(results), strict=True)
        if g is not None and r.requires_grad
    ]
    grads: dict[str, Tensor | None] = dict.fromkeys(names)
    if pairs:
        found = torch.autograd.grad(
            [r for r, _ in pairs],
            [call.tensors[k] for k in names],
            [g for _, g in pairs],
            allow_unused=True,
        )
        grads = dict(zip(names, found, strict=True))
    return tuple(r.detach() for r in results), grads


def argument_names(op: str) -> list[str]:
    """Names of the public function's arguments, and of the record's if they differ."""
    public = inspect.signature(getattr(bslfast.functional, op)).parameters
    return [*public, *(k for v in BY_NAME[op].variants.values() for k in _inputs(v).tensors)]


def assert_names_argument(plan: Any, error: Exception) -> None:
    """Require that a message begins with the name of an argument."""
    found = re.match(r"(\w+)(\[\d+\])?: ", str(error))
    assert found, f"{type(error).__name__} without an argument's name: {error}"
    assert found[1] in argument_names(plan.op), f"{found[1]} is no argument: {error}"


# --- drawing -------------------------------------------------------------------------------------


def _inputs(variant: Any) -> Call:
    return variant.inputs(Draw(torch.float32), (2, 3))


@functools.cache
def options_of(op: str) -> dict[str, list[Any]]:
    """Values of each option: those of the record and the function's own default."""
    record = BY_NAME[op]
    found: dict[str, list[Any]] = {}
    for name, parameter in inspect.signature(getattr(bslfast.functional, op)).parameters.items():
        if isinstance(parameter.default, (bool, int, float, str, tuple)):
            found[name] = [parameter.default]
    given = [v.inputs(Draw(torch.float32), (2, 3)).options for v in record.variants.values()]
    for options in [*given, *(e.options for e in record.extremes)]:
        for name, value in options.items():
            if name in found and value not in found[name]:
                found[name].append(value)
    for name, values in found.items():
        if isinstance(values[0], bool):
            found[name] = [False, True]
        elif isinstance(values[0], float):
            # Numbers that 16 bits hold: some are rounded to the dtype of the tensors.
            found[name] = [*values, *(v * 2.0**k for v in values[:1] for k in (-6, -1, 1, 6))]
    more: dict[str, list[Any]] = {
        "sample_shape": _SAMPLE_SHAPES,
        "reduction": ["none", "row", "sum"],
        "parametrization": list(PARAMETRIZATIONS),
        "stream": [0, 1, 2**40 + 7],
    }
    return {k: more.get(k, v) for k, v in found.items() if k not in ("seed", "dim")}


@functools.cache
def _values_of(op: str) -> dict[str, list[float]]:
    """Values of the record's extremes for each argument."""
    found: dict[str, list[float]] = {}
    for extreme in BY_NAME[op].extremes:
        for name, values in extreme.tensors.items():
            found.setdefault(name, []).extend(torch.tensor(values).reshape(-1).tolist())
    return {k: sorted(set(v), key=str) for k, v in found.items()}


def _shape(rng: Random, large: bool) -> Shape:
    kind = rng.random()
    if large and kind < 0.04:
        return rng.choice([(8209,), (3, 8200), (1000, 25), (2, 4100), (300, 33)])
    if kind < 0.08:  # more dimensions than the kernels' layouts have
        return tuple(rng.choice([1, 1, 2, 2, 3]) for _ in range(rng.randint(9, 10)))
    dims = rng.choice([0, 1, 1, 2, 2, 2, 3, 4])
    sizes = [1, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33, 64, 67][: 15 if dims < 3 else 7]
    shape = tuple(0 if rng.random() < 0.04 else rng.choice(sizes) for _ in range(dims))
    return shape if large or math.prod(shape) <= 600 else shape[1:]


def draw(op: str, rng: Random, *, large: bool = True) -> Plan:
    """A random plan; ``large`` ones have more elements than a thread takes at a time."""
    record = BY_NAME[op]
    variant = rng.choice(list(record.variants))
    shape = _shape(rng, large)
    while len(shape) < record.variants[variant].min_dims:
        shape = _shape(rng, large)
    names = list(_inputs(record.variants[variant]).tensors)
    differentiable = [k for k in names if k not in record.not_differentiable]
    options = {k: rng.choice(v) for k, v in options_of(op).items() if rng.random() < 0.25}
    values = []
    if rng.random() < 0.5:
        for name in rng.sample(names, rng.randint(1, len(names))):
            pool = _VALUES + 2 * _values_of(op).get(name, [])
            values += [
                (name, rng.choice([0.0, rng.random()]), rng.choice(pool))
                for _ in range(rng.randint(1, 3))
            ]
    dtype = rng.choice(["float32"] * 4 + ["float64"] * 2 + list(_SIXTEEN_BITS))
    if op == "bayes_linear" and dtype in _SIXTEEN_BITS:  # its product is torch's, and rounds first
        dtype = "float32"
    # There are no complex numbers of 16 bits whose negated part could be taken.
    layouts = [k for k in LAYOUTS if k != "negative_bit" or dtype not in _SIXTEEN_BITS]
    levels = _cpu.isa_levels()
    return Plan(
        op,
        variant,
        shape,
        rng.randrange(10**6),
        dtype,
        options,
        {k: rng.choice(layouts) for k in names if rng.random() < 0.25},
        {k: rng.choice(list(SHAPES)) for k in names if rng.random() < 0.1},
        tuple(values),
        None if rng.random() < 0.7 else tuple(k for k in differentiable if rng.random() < 0.5),
        # No zeros where derivatives may overflow: their product is NaN.
        tuple(rng.choice([g for g in GRADS if g != "zero" or not values]) for _ in range(2)),
        levels[int(rng.random() * len(levels))],  # one draw, however many there are
        rng.random() < 0.1,
        rng.random() < 0.1,
    )
