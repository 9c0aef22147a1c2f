"""The steps of a program, and what steps an object stands for.

A :class:`Builder` collects the steps (csrc/core/program.h). What steps a module or a map stands
for, a function says that :func:`lowers` registers for its class. An object that none is registered
for, or one with settings that no step has, raises :class:`CannotLower` with the reason.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from bslfast._native import _cpu
from bslfast._native._operands import PARAMETRIZATIONS
from bslfast._torch import own_buffers, own_hooks, own_modules, own_parameters

Lanes = list[int]
#: From so many weights for each dense layer on, rows go through each layer together, see
#: csrc/cpu/run_steps.h. Masked layers count as without weights.
LEAST_IN_GROUPS = 2**16


class Drawn(NamedTuple):
    """A tensor of weights that is drawn in each call, see :meth:`Builder.draw`."""

    place: int
    shape: tuple[int, ...]


class CannotLower(Exception):
    """Why a module does not become a program."""


class Builder:
    """The steps of a program while it is made.

    Args:
        features, context: how many numbers a row of x and one of the context have.

    Attributes:
        x, context: the lanes of these numbers.
    """

    def __init__(self, features: int, context: int = 0) -> None:
        self.features = features
        self.x: Lanes = list(range(features))
        self.context: Lanes = list(range(features, features + context))
        self.parameters: list[Tensor] = []
        self._places: dict[int, int] = {}
        # What weights are drawn from, and how: (parametrization, prior_loc, prior_scale).
        self._locs: list[Tensor] = []
        self._raw_scales: list[Tensor] = []
        self._draws: list[tuple[int, float, float]] = []
        #: For each draw, which seed of a call it takes, and its stream of noise.
        self.seeds: list[int] = []
        self.streams: list[int] = []
        #: How many seeds steps take for noise of their own, for each row.
        self.noises = 0
        #: Whether rows may have several dimensions: then whoever lowers has compared their shapes.
        self.any_shape = False
        #: What the logarithm is multiplied by when a call returns it.
        self.sign = 1.0
        #: A row with a number of x beyond it has a density of 0 where its logarithm is not finite.
        self.far = math.inf
        self._lanes = features + context
        self._steps: list[tuple[Any, ...]] = []
        # What the steps were made from: entries of dictionaries, hooks, contents of buffers.
        self.entries: list[tuple[dict[str, Any], str, Any]] = []
        #: What the steps were made from, in the order in which it was looked at.
        self.modules: dict[nn.Module, None] = {}
        self.owned: list[dict[str, Any]] = []
        self.hooks: list[dict[Any, Any]] = []
        self.buffers: list[Tensor] = []

    def step(
        self,
        kind: str,
        inputs: Lanes,
        outputs: int,
        *,
        parameters: Sequence[Tensor | Drawn | None] = (),
        options: Iterable[int] = (),
        numbers: Sequence[float] = (),
    ) -> Lanes:
        """Add a step, and return the lanes that it writes.

        Args:
            kind, inputs, options, numbers: see the step's file in csrc/cpu/steps.
            outputs: how many lanes it writes.
            parameters: tensors that it reads, of which None is absent.
        """
        found = list(range(self._lanes, self._lanes + outputs))
        self._lanes += outputs
        places = [-1 if p is None else self._place(p) for p in parameters]
        self._steps.append((kind, inputs, found, places, [*map(int, options)], [*numbers]))
        return found

    def dense(
        self,
        inputs: Lanes,
        outputs: int,
        weight: Tensor | Drawn | None,
        bias: Tensor | Drawn | None,
        *,
        added: Lanes | None = None,
        rows: range | None = None,
        levels: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> Lanes:
        """Add a dense layer, or the outputs of it that ``rows`` has.

        Args:
            inputs: at most as many lanes as ``weight`` has columns.
            outputs: how many.
            weight, bias: of the layer; without inputs the former is None.
            added: lanes to add to the outputs.
            rows: which outputs; None for all.
            levels: of the inputs and of the outputs: an output sees the inputs of levels up to its
                own; None if each sees all.
        """
        first, between = (0, 1) if rows is None else (rows.start, rows.step)
        length = 0 if weight is None else weight.shape[1]
        options = [added is not None, first, between, length]
        if levels is not None:
            options += [*levels[0], *levels[1]]
        return self.step(
            "dense",
            inputs + (added or []),
            outputs,
            parameters=(weight, bias),
            options=options,
        )

    def draw(
        self,
        loc: Tensor,
        raw_scale: Tensor,
        *,
        parametrization: str,
        prior: tuple[float, float],
        seed: int,
        stream: int,
    ) -> Drawn:
        """Add weights that are drawn before the steps run, as by ``normal_rsample_kl``.

        Args:
            loc, raw_scale: of one shape; nothing else reads them.
            parametrization: of the scale.
            prior: the loc and the scale of the prior.
            seed: which of a call's seeds it takes: 0 or a number that a draw has, or the next one.
            stream: of its noise.
        """
        for tensor in (loc, raw_scale):
            if id(tensor) in self._places:
                raise CannotLower("a parameter has several uses")
            self._places[id(tensor)] = -1
        self._locs.append(loc)
        self._raw_scales.append(raw_scale)
        self._draws.append((PARAMETRIZATIONS[parametrization], *prior))
        self.seeds.append(seed)
        self.streams.append(stream)
        return Drawn(len(self._draws) - 1, tuple(loc.shape))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All parameters, in the order of their gradients (csrc/core/program.h)."""
        return (*self._locs, *self.parameters, *self._raw_scales)

    def looked_at(self, module: nn.Module, *settings: str, methods: Sequence[str] = ()) -> None:
        """Note that the steps depend on a module: its parts, and these attributes of it.

        ``methods`` are those that ops would call, besides ``forward`` and the like, and that an
        object may come to have instead of its class.
        """
        own = vars(module)
        for name in settings:
            if name not in own:  # a parameter, say
                raise CannotLower(f"{name} of a {type(module).__name__} is no plain attribute")
        self.entries += [(own, name, own[name]) for name in settings]
        self.entries += [(own, name, own.get(name)) for name in methods]
        if module in self.modules:
            return
        self.modules[module] = None
        for owned in (own_parameters(module), own_modules(module), own_buffers(module)):
            self.owned.append(owned)
            self.entries += [(owned, name, value) for name, value in owned.items()]
        self.entries += [(own, name, own.get(name)) for name in _METHODS]
        kind = type(module)
        if any(inspect.isroutine(value) and hasattr(kind, name) for name, value in own.items()):
            raise CannotLower(f"a {kind.__name__} has a method of its own")
        self.hooks += own_hooks(module)

    def read(self, buffer: Tensor) -> Any:
        """Return what is in a buffer, as Python has it, and note that the steps depend on it."""
        if type(buffer) is not Tensor or not buffer.is_cpu or buffer.is_inference():
            raise CannotLower("a buffer is no plain tensor on the CPU, or made in inference mode")
        self.buffers.append(buffer)
        return buffer.tolist()

    def build(self, results: Lanes) -> Any:
        """Return the program, whose value are these lanes."""
        tensors, drawn = self.tensors, len(self._draws)
        # Samples come after all tensors.
        place = {-1: -1} | {-2 - i: len(tensors) + i for i in range(drawn)}
        steps = [
            (*head, [place.get(i, drawn + i) for i in places], options, numbers)
            for *head, places, options, numbers in self._steps
        ]
        scales = drawn + len(self.parameters)
        draws = [(i, scales + i, *how) for i, how in enumerate(self._draws)]
        sizes = [tensor.numel() for tensor in tensors]
        return _cpu.Program(
            *(self.features, len(self.context), steps, results, sizes, draws, self.noises),
            least_in_groups=LEAST_IN_GROUPS,
            sign=self.sign,
            far=self.far,
        )

    def _place(self, parameter: Tensor | Drawn) -> int:
        if isinstance(parameter, Drawn):
            return -2 - parameter.place
        place = self._places.get(id(parameter))
        if place == -1:
            raise CannotLower("a parameter has several uses")
        if place is None:
            place = self._places[id(parameter)] = len(self.parameters)
            self.parameters.append(parameter)
        return place


#: What an object may come to have instead of its class.
_METHODS = ("forward", "inverse", "log_prob", "function")
_registry: dict[type, Callable[..., Any]] = {}
#: What a subclass may define anew and still be lowered as its base class is.
_HARMLESS = {
    "__init__",
    "__module__",
    "__doc__",
    "__qualname__",
    "__annotations__",
    "__firstlineno__",
    "__static_attributes__",
    "__parameters__",
    "__orig_bases__",
    "extra_repr",
    "reset_parameters",
}


def lowers(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what lowers objects of these classes: function(builder, object, ...)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for kind in classes:
            _registry[kind] = function
        return function

    return register


def lower(builder: Builder, value: Any, *args: Any) -> Any:
    """Add the steps that ``value`` stands for, by what is registered for its class.

    Raises:
        CannotLower: if there is nothing, or it has no steps for this object.
    """
    for kind in type(value).__mro__:
        if kind in _registry:
            return _registry[kind](builder, value, *args)
        if not _HARMLESS.issuperset(vars(kind)):
            break
    raise CannotLower(f"{type(value).__name__} has no steps")
