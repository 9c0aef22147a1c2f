"""Programs of modules: kept with them, looked at before each call, run, differentiated, trained.

Parameters stay where they are: a program knows their places, and every call asks for their
addresses. What a program was made from is compared with what is there, see :class:`Lowered`.
"""

from __future__ import annotations

import itertools
import math
import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._native import _cpu, serial_after_fork
from bslfast._torch import global_hooks, own_parameters, unflatten, version_of
from bslfast.functional._op import differentiated, runs_eagerly, unwatched
from bslfast.programs.building import Builder, CannotLower, Lanes

#: For each call its seeds, first those of the draws of weights; the stream of each.
Seeds = tuple[list[int], list[int]]
#: A module, and the name and settings of its method (x, context) -> (vectors or None, logarithms).
ByMethod = tuple[nn.Module, str, dict[str, Any]]
#: The most weights of a layer in a program. For larger layers torch's matrix products are faster.
MOST_WEIGHTS = 2**21
#: Up to so many parameters that steps read, training by a network's program is faster than by ops.
MOST_TRAINED = 2**21
#: The most samples of a row whose bound a program can have.
MOST_SAMPLES = _cpu.MOST_SAMPLES
_enabled = True
_of_thread = threading.local()

_DTYPE = operator.attrgetter("dtype")
_IS_CPU = operator.attrgetter("is_cpu")
_SHAPE = operator.attrgetter("shape")


class whole_networks:
    """Switch programs on or off, for all threads; as a context manager, for a while.

    Networks and flows that are switched off run op by op, with the same results up to rounding.

    Args:
        enabled: whether those that are small run as one call where they can.

    Raises:
        TypeError: if ``enabled`` is no bool.

    >>> import torch, bslfast
    >>> flow, x = bslfast.flows.RealNVP(3), torch.randn(5, 3)
    >>> whole = flow.log_prob(x)
    >>> with bslfast.whole_networks(False):
    ...     torch.allclose(flow.log_prob(x), whole)
    True
    """

    def __init__(self, enabled: bool) -> None:
        global _enabled
        self._before = _enabled
        _enabled = _checks.flag("enabled", enabled)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        global _enabled
        _enabled = self._before


def are_on() -> bool:
    """Whether programs are switched on, see :class:`whole_networks`."""
    return _enabled


class Lowered:
    """The program of a module, or the reason why there is none, and what it was made from.

    Args:
        module: what is lowered.
        steps: (builder, module) -> the lanes of the results.
        features, context: how many numbers a row of x and one of the context have.
    """

    def __init__(
        self,
        module: nn.Module,
        steps: Callable[[Builder, Any], Lanes],
        features: int,
        context: int = 0,
    ) -> None:
        builder = Builder(features, context)
        self.sizes = features, context
        self.reason: str | None = None
        try:
            results = steps(builder, module)
            self._check(builder)
            self.steps = len(builder._steps)
            self.results = len(results)
            self.program = builder.build(results)
        except (CannotLower, ValueError) as error:
            self.reason = str(error)
        self.parameters = builder.tensors
        self._made_from = weakref.ref(module)
        self.draws = _Draws(builder)
        self._dicts = [owned for owned, _, _ in builder.entries]
        self._names = [name for _, name, _ in builder.entries]
        self._values = [value for _, _, value in builder.entries]
        # Weakly, as graphs refer to this, and modules to graphs.
        self._looked_at = list(map(weakref.ref, builder.modules))
        self._kinds = list(map(type, builder.modules))
        self._owned = builder.owned
        self._lengths = list(map(len, builder.owned))
        self._hooks = (*builder.hooks, *global_hooks())
        self._read = builder.buffers
        self._versions = [version_of(b) for b in builder.buffers]
        self._shapes = [p.shape for p in self.parameters]
        #: The gradient of all rows' log densities in the last backward pass where that was one
        #: number, and the same if the one before had it, too: then it is likely to come again.
        self.last_grad: float | None = None
        self.expected_grad: float | None = None
        #: What its caller has found out about what it is called with.
        self.seen: Any = None

    def _check(self, builder: Builder) -> None:
        for tensor in (*builder.tensors, *builder.buffers):
            if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_inference():
                raise CannotLower(f"a parameter is {_checks.describe(tensor)}")
        # Others could be replaced without notice.
        owned = {id(value) for values in builder.owned for value in values.values()}
        if not owned.issuperset(map(id, builder.tensors)):
            raise CannotLower("a parameter is none of its module's parameters and buffers")
        most = max((p.numel() for p in builder.tensors), default=0)
        if most > MOST_WEIGHTS:
            raise CannotLower(
                f"a layer has {most} weights, and of more than {MOST_WEIGHTS} torch's products are "
                "faster"
            )

    def is_of(self, module: nn.Module) -> bool:
        """Whether it was made from this very module, and not from one that this is a copy of."""
        return self._made_from() is module

    def holds(self) -> bool:
        """Whether the module is what it was."""
        return (
            _cpu.have_entries(self._dicts, self._names, self._values)
            and _cpu.have_sizes(self._owned, self._lengths)
            and _cpu.are_of_types(self._looked_at, self._kinds)
            and list(map(version_of, self._read)) == self._versions
        )

    def obstacle(self, x: Tensor, context: Tensor | None) -> str | None:
        """Why the program cannot run now on x and a context; None if it can."""
        if self.reason is not None:
            return self.reason
        if any(self._hooks):
            return "a module has hooks"
        features, width = self.sizes
        if x.shape[-1] != features or (context is not None and context.shape[-1] != width):
            return "x or the context has another number of columns"
        dtype = x.dtype
        if dtype is not torch.float32 and dtype is not torch.float64:
            return f"x is {dtype}"
        if not self.parameters:
            return "there are no parameters"
        if not self.can_read(dtype):
            return "parameters are no contiguous tensors on the CPU of the dtype of x"
        tensors = (x,) if context is None else (x, context)
        if not x.is_cpu or not runs_eagerly(tensors) or torch.is_autocast_enabled("cpu"):
            return "torch traces or transforms the call, or x is no plain tensor on the CPU"
        if context is not None and context.dtype is not dtype:
            return f"the context is {context.dtype}"
        return None

    def can_read(self, dtype: torch.dtype) -> bool:
        """Whether the memory of all parameters is what the program takes it for."""
        parameters = self.parameters
        return (
            all(map(operator.is_, map(_DTYPE, parameters), itertools.repeat(dtype)))
            and all(map(_IS_CPU, parameters))
            and all(map(Tensor.is_contiguous, parameters))
            and list(map(_SHAPE, parameters)) == self._shapes
        )

    def addresses(self) -> list[int]:
        return list(map(Tensor.data_ptr, self.parameters))

    def parts(self, flat: Tensor, needs: Sequence[bool]) -> Iterator[Tensor | None]:
        """The gradients of the parameters that need one, from those of all in a row."""
        parts = unflatten(flat, self.parameters)
        return (part if need else None for part, need in zip(parts, needs, strict=True))

    def versions(self) -> list[int]:
        """What changes with the parameters: their versions, and addresses, as of ``.data``."""
        return [*map(version_of, self.parameters), *self.addresses()]

    def check_unchanged(self, versions: list[int], dtype: torch.dtype) -> None:
        """Raise RuntimeError unless all parameters are as they were."""
        if versions != self.versions() or not self.can_read(dtype):
            raise RuntimeError(
                "a parameter needed for the gradient of a network has been modified by an inplace "
                "operation, such as a step of an optimizer, after the result was computed"
            )


class _Draws:
    """The seeds and streams of a program, see :class:`Seeds`."""

    def __init__(self, builder: Builder) -> None:
        self.count = len(builder.seeds)
        #: How many seeds a call takes, of draws of weights and of steps.
        self.seeds_per_call = self.count + builder.noises
        first = max(builder.seeds, default=-1) + 1
        self._places = [*builder.seeds, *range(first, first + builder.noises)]
        self._streams = [*builder.streams, *[0] * builder.noises]

    def seeds(self, calls: int = 1) -> Seeds:
        """Seeds for some calls, from torch's generator: as if each call drew its own."""
        if not self._places:
            return [], []
        each = 1 + max(self._places)
        drawn = _checks.seeds(calls * each)
        found = [
            drawn[first + place] for first in range(0, calls * each, each) for place in self._places
        ]
        return found, self._streams


class _Programs(dict[str, Lowered]):
    """The programs of a module. A copy of the module has none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Programs:
        return _Programs()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Programs, ()


def are_lent(module: nn.Module) -> bool:
    """Whether other tensors stand for parameters, as under torch.func.functional_call."""
    return any(
        type(parameter) is not nn.Parameter
        for part in module.modules()
        for parameter in own_parameters(part).values()
        if parameter is not None
    )


def lowered(
    module: nn.Module,
    what: str,
    steps: Callable[[Builder, Any], Lanes],
    sizes: tuple[int, int],
) -> Lowered | None:
    """Return what ``steps`` makes of a module, made again if the module has changed.

    ``sizes`` are how many numbers a row of x and one of the context have. None if the module has
    other parameters for this call alone.
    """
    # With the module, so that both are collected together, whatever refers to them.
    own: _Programs = vars(module).setdefault("_programs", _Programs())
    found = own.get(what)
    if found is not None and found.sizes == sizes and found.is_of(module) and found.holds():
        return found
    if are_lent(module):
        return None
    found = own[what] = Lowered(module, steps, *sizes)
    return found


def is_known_not_to_run(module: nn.Module, what: str, features: int) -> bool:
    """Whether the module has no such program for rows of so many features, as it is now."""
    own: _Programs | None = vars(module).get("_programs")
    found = None if own is None else own.get(what)
    return (
        found is not None
        and found.reason is not None
        and found.sizes[0] == features
        and found.is_of(module)
        and found.holds()
    )


def runnable(
    module: nn.Module,
    what: str,
    steps: Callable[[Builder, Any], Lanes],
    sizes: tuple[int, int],
    x: Tensor,
    context: Tensor | None,
) -> Lowered | None:
    """Return the program of a module if it can run on x and a context, see :func:`run`."""
    if not _enabled or not x.is_cpu or not unwatched() or getattr(_of_thread, "by_ops", False):
        return None
    found = lowered(module, what, steps, sizes)
    return None if found is None or found.obstacle(x, context) is not None else found


def explain(
    module: nn.Module,
    what: str,
    steps: Callable[[Builder, Any], Lanes],
    sizes: tuple[int, int],
    x: Tensor,
) -> str:
    """Whether a call of a module with x and a context like it is a program, or why it is not."""
    if not _enabled:
        return "op by op: bslfast.whole_networks(False)"
    found = lowered(module, what, steps, sizes)
    if found is None:
        return "op by op: the parameters are replaced for this call"
    reason = found.obstacle(x, None)
    if reason is not None:
        return f"op by op: {reason}"
    return f"one call of {found.steps} steps"


def run(
    module: nn.Module,
    what: str,
    steps: Callable[[Builder, Any], Lanes],
    sizes: tuple[int, int],
    by_ops: str,
    x: Tensor,
    context: Tensor | None,
    *,
    value: bool = True,
) -> tuple[Any, Tensor] | None:
    """Run the program of a module on rows x [..., features], or return None if it cannot run.

    Args:
        module: whose program.
        what: which of its programs.
        steps: makes it.
        sizes: how many numbers a row of x and one of the context have.
        by_ops: the method (x, context) -> (vectors or None, logarithms) that does the same by
            ops, for second derivatives.
        x, context: as :func:`bslfast.flows.transform.check_inputs` wants them.
        value: whether the vectors are wanted.

    Returns:
        (vectors [..., features] or None, logarithms [...]).
    """
    found = runnable(module, what, steps, sizes, x, context)
    if found is None or not x.numel():
        return None
    return on_rows(found, (module, by_ops, {}), x, context, value=value)


def on_rows(
    found: Lowered, method: ByMethod, x: Tensor, context: Tensor | None, *, value: bool
) -> tuple[Any, Tensor]:
    """What :func:`run` returns, of a program that can run on ``x`` and ``context``.

    Args:
        found, method: as of :func:`call`.
        x, context, value: as of :func:`run`.
    """
    shape = x.shape[:-1]
    if context is not None:
        context = context.expand(*shape, context.shape[-1]).reshape(-1, context.shape[-1])
    if len(shape) == 1:
        return call(found, method, x, context, value=value)
    vectors, log = call(found, method, x.reshape(-1, x.shape[-1]), context, value=value)
    return None if vectors is None else vectors.view(*shape, -1), log.view(shape)


def call(
    found: Lowered,
    method: ByMethod,
    x: Tensor,
    context: Tensor | None,
    *,
    value: bool,
    seeds: Seeds = ([], []),
) -> tuple[Tensor | None, Tensor]:
    """Vectors [rows, results], if they are wanted, and logarithms [rows], as one node of the graph.

    Args:
        found: a program that can run on rows ``x`` and ``context``.
        method: what does the same by ops, for second derivatives.
        value: whether the vectors are wanted.
        seeds: of the noise.
    """
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (context is not None and context.requires_grad)
        or any(p.requires_grad for p in found.parameters)
    ):
        result: tuple[Tensor | None, Tensor] = _Whole.apply(  # type: ignore[no-untyped-call]
            (found, method, value, seeds), x, context, *found.parameters
        )
        return result
    return _forward(found, x, context, value, seeds)


def _forward(
    found: Lowered, x: Tensor, context: Tensor | None, value: bool, seeds: Seeds
) -> tuple[Tensor | None, Tensor]:
    vectors, log = forward(found, x, context, value=value, seeds=seeds)
    assert log is not None
    return vectors, log


@serial_after_fork
def forward(
    found: Lowered,
    x: Tensor,
    context: Tensor | None,
    *,
    value: bool = True,
    log: bool = True,
    n_draws: int = 1,
    seeds: Seeds = ([], []),
) -> tuple[Tensor | None, Tensor | None]:
    """Vectors [n_draws, rows, results] and logarithms [n_draws, rows], as far as they are wanted.

    Args:
        found: a program that can run on ``x`` and ``context``.
        n_draws: how many draws of all weights; for 1 the results are without that dimension.
        seeds: of the draws.
    """
    x = x.contiguous()
    shape = x.shape[:-1] if n_draws == 1 else (n_draws, *x.shape[:-1])
    vectors = x.new_empty((*shape, found.results)) if value else None
    logarithms = x.new_empty(shape) if log else None
    held = None if context is None else context.contiguous()
    found.program.forward(
        x.dtype is torch.float64,
        *_rows(x),
        n_draws,
        found.addresses(),
        seeds,
        x.data_ptr(),
        _address(held),
        _address(vectors),
        _address(logarithms),
    )
    return vectors, logarithms


@serial_after_fork
def backward(
    found: Lowered,
    x: Tensor,
    context: Tensor | None,
    grads: tuple[Tensor | None, Tensor | None],
    needs: Sequence[bool],
    log: Tensor | None = None,
    *,
    seeds: Seeds = ([], []),
    grad_each: float = 0.0,
    grad_kl: float = 0.0,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Gradients of x, of the context, and of all parameters in a row; the logarithms, too.

    Args:
        found: as of :func:`forward`, as are ``x``, ``context`` and ``seeds``.
        grads: of the vectors and of the logarithms.
        needs: whether x, the context and each parameter need a gradient.
        log: memory for the logarithms, if they are wanted.
        grad_each: the gradient of each logarithm, if ``grads`` has none.
        grad_kl: the gradient of the divergence of the weights.
    """
    x = x.contiguous()
    held = [None if t is None else t.contiguous() for t in (context, *grads)]
    grad_x = torch.empty_like(x) if needs[0] else None
    grad_context = torch.empty_like(held[0]) if needs[1] and held[0] is not None else None
    flat = x.new_empty(found.program.n_gradients)
    found.program.backward(
        x.dtype is torch.float64,
        x.shape[0],
        found.addresses(),
        seeds,
        x.data_ptr(),
        _address(held[0]),
        _address(log),
        *map(_address, held[1:]),
        grad_each,
        grad_kl,
        _address(grad_x),
        _address(grad_context),
        flat.data_ptr(),
        list(needs[2:]),
    )
    return grad_x, grad_context, flat


@serial_after_fork
def loss(
    found: Lowered,
    x: Tensor,
    context: Tensor,
    needs: Sequence[bool],
    *,
    seeds: Seeds,
    kl_weight: float,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
    """The mean negative logarithm with some of the divergence, and gradients as of backward().

    Args:
        found, x, context, needs, seeds: as of :func:`backward`.
        kl_weight: the factor of the divergence of the weights.
    """
    x, context = x.contiguous(), context.contiguous()
    grad_x = torch.empty_like(x) if needs[0] else None
    grad_context = torch.empty_like(context) if needs[1] else None
    flat = x.new_empty(found.program.n_gradients)
    value = found.program.loss(
        x.dtype is torch.float64,
        x.shape[0],
        found.addresses(),
        seeds,
        x.data_ptr(),
        context.data_ptr(),
        kl_weight,
        _address(grad_x),
        _address(grad_context),
        flat.data_ptr(),
        list(needs[2:]),
    )
    # torch.tensor() takes the time of a pass over a small network.
    return x.new_full((), value), grad_x, grad_context, flat


@serial_after_fork
def train(
    found: Lowered,
    x: Tensor,
    context: Tensor | None,
    order: Tensor,
    batch_rows: int,
    states: Sequence[tuple[Tensor | None, Tensor | None] | None],
    optimizer: str,
    numbers: tuple[float, float, float],
    weight_decays: Sequence[float],
    clip: float | None,
    rates: Sequence[float],
    steps_before: int,
    kl_weights: Sequence[float],
) -> tuple[list[float], list[float]]:
    """Take steps that maximise the mean logarithm of mini-batches: see csrc/cpu/optimizer.h.

    Weights are drawn for each step, by seeds from torch's generator.

    Args:
        found: a program that can run on ``x`` and ``context``.
        x, context: all rows.
        order: int64, the rows of all mini-batches one after the other.
        batch_rows: how many rows a mini-batch has; the last one may have fewer.
        states: what the optimizer remembers of each of the program's parameters, contiguous: the
            mean of gradients and that of squares, each None if it has none. None for a parameter
            that stays as it is.
        optimizer: "adam", "adamw", "sgd" or "rmsprop".
        numbers: decay of the mean and of that of squares, epsilon.
        weight_decays: of each of the program's parameters.
        clip: what the norm of all gradients is at most.
        rates: the learning rate of each step.
        steps_before: how many steps the optimizer has taken.
        kl_weights: for each step the factor of the divergence of the weights in the loss.

    Returns:
        (for each step the sum of its rows' negative logarithms, and the divergence).
    """
    x, order = x.contiguous(), order.contiguous()
    held = None if context is None else context.contiguous()
    means, squares = zip(*((None, None) if s is None else s for s in states), strict=True)
    losses: tuple[list[float], list[float]] = found.program.train(
        x.dtype is torch.float64,
        order.shape[0],
        batch_rows,
        order.data_ptr(),
        x.data_ptr(),
        _address(held),
        found.addresses(),
        [state is not None for state in states],
        [*map(_address, means)],
        [*map(_address, squares)],
        optimizer,
        *numbers,
        weight_decays,
        math.inf if clip is None else clip,
        rates,
        steps_before,
        found.draws.seeds(len(rates)),
        kl_weights,
    )
    torch.autograd.graph.increment_version(
        [p for p, state in zip(found.parameters, states, strict=True) if state is not None]
    )
    return losses


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(x: Tensor) -> tuple[int, int]:
    """The number of rows in all, and how many of them are samples of one example."""
    return (x.shape[0], 1) if x.ndim == 2 else (x.shape[0] * x.shape[1], x.shape[0])


class _Whole(torch.autograd.Function):
    """A program as one node: it keeps x and the parameters, and computes the rest again.

    The gradient of a mean or a sum of log densities is the same number for all rows, and often the
    same in each step of training. Where the last two backward passes had the same one, the next
    call computes gradients for it together with the log densities: the network is run once. Both
    ways give the same bits.
    """

    @staticmethod
    def forward(
        ctx: Any,
        call: tuple[Lowered, ByMethod, bool, Seeds],
        x: Tensor,
        context: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        ctx.call = call
        found, _, value, seeds = call
        # Parameters are not saved as tensors are: it would take 1 us for each.
        ctx.save_for_backward(x, context)
        ctx.versions = found.versions()
        ctx.set_materialize_grads(False)
        ctx.grads, ctx.grad_each = None, found.expected_grad
        if value or ctx.grad_each is None:
            return _forward(found, x, context, value, seeds)
        # Off again, unless this call's gradients are asked for.
        found.expected_grad = None
        log = x.new_empty(x.shape[:-1])
        ctx.grads = backward(
            found,
            x,
            context,
            (None, None),
            ctx.needs_input_grad[1:],
            log,
            seeds=seeds,
            grad_each=ctx.grad_each,
        )
        return None, log

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found, method, _, _ = ctx.call
        x, context = ctx.saved_tensors
        found.check_unchanged(ctx.versions, x.dtype)
        if not torch.is_grad_enabled() and runs_eagerly([g for g in grads if g is not None]):
            return _pull_back(ctx, found, x, context, *grads)
        needs = ctx.needs_input_grad[1:]

        def again(x: Tensor, context: Tensor | None, *parameters: Tensor) -> Sequence[Tensor]:
            return _by_ops(method, found, (x, context), parameters)

        return None, *differentiated(again, (x, context, *found.parameters), needs, grads)


@serial_after_fork
def _pull_back(
    ctx: Any,
    found: Lowered,
    x: Tensor,
    context: Tensor | None,
    grad_value: Tensor | None,
    grad_log: Tensor | None,
) -> tuple[Tensor | None, ...]:
    needs, seeds = ctx.needs_input_grad[1:], ctx.call[3]
    each = None if grad_value is not None or grad_log is None else _learn_grad(found, grad_log)
    results, ctx.grads = ctx.grads, None
    if results is None or each != ctx.grad_each:
        results = backward(found, x, context, (grad_value, grad_log), needs, seeds=seeds)
    return None, *results[:2], *found.parts(results[2], needs[2:])


def _learn_grad(found: Lowered, grad: Tensor) -> float | None:
    """The gradient of all rows if it is one number, which the next call then expects."""
    first = grad.flatten()[:1]
    if not torch.equal(grad, first.expand_as(grad)):
        return None
    each = first.item()
    found.expected_grad = each if each == found.last_grad else None
    found.last_grad = each
    return each


def bound(
    found: Lowered, method: ByMethod, x: Tensor, context: Tensor, added: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Importance-weighted bounds [rows], as one node of the graph, and the samples' weights.

    .. math:: \log \frac1S \sum_s \exp(\text{logarithm}_s + \text{added}_s)

    The samples of a row run there and back while their lanes are in the cache, so that nothing of
    the network is kept for them.

    Args:
        found: a program that can run on ``x`` and ``context``, and draws nothing.
        method: what does the same by ops: (x, context, added) -> (bounds,).
        x: [samples, rows, features], up to ``MOST_SAMPLES``.
        context: [rows, context], without a gradient.
        added: to the logarithms, [samples, rows].

    Returns:
        (bounds, weights [samples, rows] that add up to 1 and have no gradient).
    """
    result: tuple[Tensor, Tensor] = _Bound.apply(  # type: ignore[no-untyped-call]
        (found, method), x, context, added, *found.parameters
    )
    return result


def _bounds(found: Lowered, x: Tensor, context: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds and weights, with the bits that :func:`_bound` gives."""
    _, log = forward(found, x, context, value=False)
    assert log is not None
    added = added.contiguous()
    bounds, weights = x.new_empty(x.shape[1]), torch.empty_like(added)
    _cpu.bounds(
        x.dtype is torch.float64,
        *x.shape[:2],
        *map(Tensor.data_ptr, (log, added, bounds, weights)),
    )
    return bounds, weights


@serial_after_fork
def _bound(
    found: Lowered,
    x: Tensor,
    context: Tensor,
    added: Tensor,
    needs: Sequence[bool],
    grad: Tensor | None,
    grad_each: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Bounds, weights, the gradient of x, and those of all parameters in a row.

    ``grad`` is that of the bounds; without it, each has ``grad_each``.
    """
    x, context, added = x.contiguous(), context.contiguous(), added.contiguous()
    grad = None if grad is None else grad.contiguous()
    bounds, weights = x.new_empty(x.shape[1]), torch.empty_like(added)
    grad_x = torch.empty_like(x) if needs[0] else None
    flat = x.new_empty(found.program.n_gradients)
    found.program.bound(
        x.dtype is torch.float64,
        *_rows(x),
        found.addresses(),
        x.data_ptr(),
        context.data_ptr(),
        added.data_ptr(),
        bounds.data_ptr(),
        weights.data_ptr(),
        _address(grad),
        grad_each,
        _address(grad_x),
        flat.data_ptr(),
        list(needs[3:]),
    )
    return bounds, weights, grad_x, flat


class _Bound(torch.autograd.Function):
    """The bound of a program as one node, which expects a gradient as :class:`_Whole` does."""

    @staticmethod
    def forward(
        ctx: Any,
        call: tuple[Lowered, ByMethod],
        x: Tensor,
        context: Tensor,
        added: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.call = call
        found = call[0]
        ctx.versions = found.versions()
        needs = ctx.needs_input_grad[1:]
        ctx.grads, ctx.grad_each = None, found.expected_grad
        if ctx.grad_each is None or not any(needs):
            bounds, weights = _bounds(found, x, context, added)
        else:
            # Off again, unless this call's gradients are asked for.
            found.expected_grad = None
            bounds, weights, *ctx.grads = _bound(
                found, x, context, added, needs, None, ctx.grad_each
            )
        ctx.save_for_backward(x, context, added, weights)
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)
        return bounds, weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        found, method = ctx.call
        x, context, added, weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        found.check_unchanged(ctx.versions, x.dtype)
        if grad is None:
            return None, *[None] * len(needs)
        if not torch.is_grad_enabled() and runs_eagerly([grad]):
            each = _learn_grad(found, grad)
            results, ctx.grads = ctx.grads, None
            if results is None or each != ctx.grad_each:
                results = _bound(found, x, context, added, needs, grad)[2:]
            grad_x, flat = results
            grad_added = grad * weights if needs[2] else None
            return None, grad_x, None, grad_added, *found.parts(flat, needs[3:])

        def again(
            x: Tensor, context: Tensor, added: Tensor, *parameters: Tensor
        ) -> Sequence[Tensor]:
            return _by_ops(method, found, (x, context, added), parameters)

        tensors = (x, context, added, *found.parameters)
        return None, *differentiated(again, tensors, needs, (grad,))


class Method(nn.Module):
    """A method of a module as a module of its own."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *args: Any, **settings: Any) -> Any:
        return getattr(self.module, self.method)(*args, **settings)


def _by_ops(
    by_method: ByMethod,
    found: Lowered,
    given: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
) -> Sequence[Tensor]:
    """What the program computes, by ops, with these tensors in the place of its parameters."""
    module, method, settings = by_method
    called = Method(module, method)
    names = {
        id(tensor): name
        for name, tensor in itertools.chain(called.named_parameters(), called.named_buffers())
    }
    state = {names[id(own)]: given for own, given in zip(found.parameters, parameters, strict=True)}
    _of_thread.by_ops = True
    try:
        results: Sequence[Tensor] = torch.func.functional_call(
            called, state, tuple(given), settings
        )
        return results
    finally:
        _of_thread.by_ops = False
