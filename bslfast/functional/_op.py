"""Ops with one definition, for every way in which torch may call them.

An op is a pair of kernels and a reference in plain torch. From these, :class:`Op` builds

* the eager route: the leanest ``autograd.Function``, which calls the kernels directly;
* an operator in ``torch.ops.bslfast`` with a fake kernel, a batching rule and an autograd formula,
  for ``torch.compile``, ``torch.export``, fake tensors and dispatch modes;
* a ``setup_context`` Function around that operator, for ``torch.func`` transforms, which do not
  look into an operator's autograd formula;
* second derivatives, by differentiating the reference twice.

Devices without kernels run the reference.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import READS_TENSORS, _cpu, cuda, serial_after_fork
from bslfast._native._operands import unbroadcast
from bslfast._precision import SIXTEEN_BITS, in_float32
from bslfast._torch import (
    WATCHERS,
    autograd_kernel,
    dispatch_keys,
    has_tangents,
    is_batched,
    is_zero_tensor,
    parse_schema,
    transforms_active,
)
from bslfast.functional._vmap import Folding, Rule, one_by_one

_LIBRARY = torch.library.Library("bslfast", "FRAGMENT")
# Any, because torch's own annotations are too narrow.
_vjp: Any = torch.func.vjp
_KERNEL_DEVICES = ("cpu", "meta")
#: A constant, because torch.compile cannot trace the call.
HAS_CUDA = cuda.is_built()
#: Dtypes that kernels compute in. Autocast leaves them as they are.
NATIVE = (torch.float32, torch.float64)
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)
_use_reference = False
_cpu.set_watchers(*WATCHERS)
# A constant for the compiler, which cannot trace what the kernels' module tells. Bound once, as the
# smallest op takes only a few microseconds and each look-up in torch counts.
is_traced = torch.compiler.is_dynamo_compiling


def _keys_of_plain_tensors() -> frozenset[int]:
    """The dispatch keys of plain strided tensors on the CPU.

    Other keys belong to lazy negation (z.conj().imag), lazy zeros, the batches of is_grads_batched
    and of vmap, and layouts other than strided.
    """
    found = set()
    for inference in (False, True):
        with torch.inference_mode(inference):
            found.add(dispatch_keys(torch.empty(0, device="cpu")).raw_repr())
    return frozenset(found)


_PLAIN_KEYS = _keys_of_plain_tensors()


@contextlib.contextmanager
def use_reference() -> Iterator[None]:
    """Run every op of :mod:`bslfast.functional` by its twin in :mod:`bslfast.reference`.

    It serves to compare speed and results: the same seeds give the same noise. It holds for all
    threads.

    >>> import torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(3), torch.zeros(3)
    >>> fast = BF.normal_rsample(loc, raw_scale, seed=1)
    >>> with BF.use_reference():
    ...     plain = BF.normal_rsample(loc, raw_scale, seed=1)
    >>> torch.allclose(fast, plain)
    True
    """
    global _use_reference
    before = _use_reference
    _use_reference = True
    try:
        yield
    finally:
        _use_reference = before


class Op:
    """A differentiable op.

    Args:
        schema: as in ``torch.library.define``. Tensors come first; all are differentiable except
            those called ``seed`` and ``index``.
        forward: takes the schema's arguments and returns its results, by kernels.
        backward: takes the gradients of the results (None for one that has none), the arguments and
            ``needs``, a bool per differentiable argument; returns their gradients or None.
        fake: like ``forward``, but the results are only allocated.
        reference: the op in plain differentiable torch; gets the arguments by their names.
        rounded: None if the kernels take bfloat16 and float16. If they do not, the number of
            leading results that are values, to be rounded; see :mod:`bslfast._precision`.
        has_cuda: whether the CUDA module, if it is built, has kernels for this op.
        folding: how vmap makes one call of all examples; None to call the op for each.
    """

    def __init__(
        self,
        schema: str,
        *,
        forward: Callable[..., Any],
        backward: Callable[..., Sequence[Tensor | None]],
        fake: Callable[..., Any],
        reference: Callable[..., Any],
        rounded: int | None = None,
        has_cuda: bool = False,
        folding: Folding | None = None,
    ) -> None:
        parsed = parse_schema(f"bslfast::{schema}")
        self.name = parsed.name.removeprefix("bslfast::")
        self.schema = schema
        self.forward = serial_after_fork(forward)
        self.backward = serial_after_fork(backward)
        self.fake = fake
        names = [a.name for a in parsed.arguments]

        def by_name(*args: Any) -> Any:
            return reference(**dict(zip(names, args, strict=True)))

        self.reference = by_name
        self.in_float32 = None if rounded is None else in_float32(values=rounded)(self.__call__)
        self.has_cuda = has_cuda and HAS_CUDA
        self.n_results = len(parsed.returns)
        self.n_tensors = sum("Tensor" in str(a.type) for a in parsed.arguments)
        tensor_names = [a.name for a in parsed.arguments[: self.n_tensors]]
        self.differentiable = [
            i for i, name in enumerate(tensor_names) if name not in ("seed", "index")
        ]
        self._define(folding)

    def __call__(self, *args: Any) -> Any:
        tensors = [a for a in args[: self.n_tensors] if a is not None]
        if self.in_float32 is not None and tensors[0].dtype in SIXTEEN_BITS:
            return self.in_float32(*args)
        if runs_eagerly(tensors, on_cuda=self.has_cuda):
            if torch.is_grad_enabled():
                for t in tensors:
                    if t.requires_grad:
                        return self._eager(*args)
            return self.forward(*args)
        if _use_reference or not self._has_kernels(tensors[0].device):
            return self.reference(*args)
        if not torch.compiler.is_compiling():
            if has_tangents():  # kernels would drop tangents in silence
                return self.reference(*args)
            if self.differentiable and transforms_active():
                return self._transformable.apply(*args)
        return self.operator(*args)

    def directly(
        self,
        forward: Callable[[Any, tuple[Any, ...]], Any],
        backward: Callable[..., tuple[Tensor | None, ...]],
    ) -> Callable[[], Callable[..., Any]]:
        """Return what makes the op a function of (its tensors, call), for tensors that are PLAIN.

        This is the eager route at half the time for a call of few elements. ``call`` holds the
        facts about the arguments, which are found once and serve forward and backward.

        Args:
            forward: (call, tensors) -> the results.
            backward: (call, gradients of these results, tensors, which tensors need a gradient) ->
                gradients of all tensors, and a None.

        ``call`` is a tuple. Its first item are the arguments of ``_cpu.pointwise_results`` before
        the tensors, or None if that does not serve the op. Its last item is a tuple of the op's
        arguments after the tensors. The other items are free.
        """
        return functools.cache(lambda: self._make_direct_function(forward, backward))

    def _has_kernels(self, device: torch.device) -> bool:
        return device.type in _KERNEL_DEVICES or (self.has_cuda and device.type == "cuda")

    # --- the operator in torch.ops.bslfast --------------------------------------------------------

    def _define(self, folding: Folding | None) -> None:
        backward_name = f"{self.name}_backward"
        arguments = self.schema[self.schema.index("(") + 1 : self.schema.rindex("->")].strip()[:-1]
        grads = ", ".join(f"Tensor? grad_{i}" for i in range(self.n_results))
        results = ", ".join("Tensor" for _ in self.differentiable)
        self.operator = self._register(
            self.schema,
            self.forward,
            self.fake,
            lambda operator: (
                folding.forward(operator) if folding else one_by_one(operator, self.n_tensors)
            ),
        )
        if not self.differentiable:
            return
        self.backward_operator = self._register(
            f"{backward_name}({grads}, {arguments}, bool[] needs) -> ({results})",
            self._backward_without_none,
            self._fake_backward,
            lambda operator: (
                folding.backward(operator, self.differentiable)
                if folding
                else one_by_one(operator, self.n_results + self.n_tensors)
            ),
        )
        self._differentiate(self.operator, self._operator_backward, self._setup_context)
        self._differentiate(
            self.backward_operator, self._operator_double_backward, self._setup_double_context
        )

    def _differentiate(
        self, operator: Any, backward: Callable[..., Any], setup_context: Callable[..., Any]
    ) -> None:
        """Give an operator its autograd formula, as ``torch.library.register_autograd`` does.

        The formula's classes are made at the first call: for all ops together they would take half
        of the time of ``import bslfast``.
        """

        @functools.cache
        def kernel() -> Callable[..., Any]:
            return autograd_kernel(operator, backward, setup_context)

        def autograd(keyset: Any, *args: Any) -> Any:
            return kernel()(keyset, *args)

        _LIBRARY.impl(operator._opname, autograd, "Autograd", with_keyset=True)

    def _register(
        self,
        schema: str,
        kernel: Callable[..., Any],
        fake: Callable[..., Any],
        batching: Callable[[Any], Rule],
    ) -> Any:
        name = schema[: schema.index("(")]
        _LIBRARY.define(schema)
        operator = getattr(torch.ops.bslfast, name).default
        _LIBRARY.impl(name, kernel, "CPU")
        if self.has_cuda:
            _LIBRARY.impl(name, kernel, "CUDA")
        torch.library.register_fake(f"bslfast::{name}", fake, lib=_LIBRARY)
        rule = batching(self._leanly(operator, kernel))
        torch.library.register_vmap(f"bslfast::{name}", rule, lib=_LIBRARY)
        return operator

    def _leanly(self, operator: Any, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The operator, without torch's dispatcher where that has nothing to do.

        Under vmap the dispatcher takes ten times as long as a kernel for a few hundred numbers.
        """

        def call(*args: Any) -> Any:
            tensors = [a for a in args if isinstance(a, Tensor)]
            graph = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
            if graph or not runs_eagerly(tensors, on_cuda=self.has_cuda, in_rule=True):
                return operator(*args)
            return kernel(*args)

        return call

    def _backward_without_none(self, *args: Any) -> Tensor | tuple[Tensor, ...]:
        # An operator returns tensors: an empty one stands for an unwanted gradient. It may not
        # return its arguments, which kernels may hand through, so these are copied.
        empty: Callable[[int], Tensor] = args[self.n_results].new_empty
        given = [id(a) for a in args[: self.n_results]]

        def result(grad: Tensor | None) -> Tensor:
            if grad is None:
                return empty(0)
            if id(grad) in given:
                return grad.clone(memory_format=torch.contiguous_format)
            return grad

        return _results(tuple(map(result, self.backward(*args))))

    def _fake_backward(self, *args: Any) -> Tensor | tuple[Tensor, ...]:
        tensors, needs = args[self.n_results :], args[-1]
        like = tensors[0]
        return _results(
            tuple(
                like.new_empty(tensors[i].shape if need and tensors[i] is not None else 0)
                for i, need in zip(self.differentiable, needs, strict=True)
            )
        )

    def _setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[: self.n_tensors])
        ctx.constants = inputs[self.n_tensors :]

    def _setup_double_context(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        width = self.n_results + self.n_tensors
        ctx.save_for_backward(*inputs[:width])
        ctx.constants = inputs[width:]

    def _needs(self, ctx: Any) -> list[bool]:
        needed = ctx.needs_input_grad
        return [needed[i] for i in self.differentiable]

    def _scatter(
        self, grads: Tensor | Sequence[Tensor | None], ctx: Any
    ) -> tuple[Tensor | None, ...]:
        """Return gradients for all arguments, given those of the differentiable ones."""
        if isinstance(grads, Tensor):
            grads = (grads,)
        result: list[Tensor | None] = [None] * (self.n_tensors + len(ctx.constants))
        needed = ctx.needs_input_grad
        for i, grad in zip(self.differentiable, grads, strict=True):
            if needed[i]:
                result[i] = grad
        return tuple(result)

    def _operator_backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        results = self.backward_operator(
            *grads, *ctx.saved_tensors, *ctx.constants, self._needs(ctx)
        )
        return self._scatter(results, ctx)

    def _operator_double_backward(
        self, ctx: Any, *grads: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """The derivative of the reference's gradient, with the noise as a constant."""
        *constants, needs = ctx.constants
        inputs = list(ctx.saved_tensors)
        n = self.n_results
        wanted = [i for i, t in enumerate(inputs) if t is not None and self._moves(i - n)]
        needed = [k for k, need in enumerate(needs) if need]

        def gradient(*moving: Tensor) -> tuple[Tensor, ...]:
            full = list(inputs)
            for i, value in zip(wanted, moving, strict=True):
                full[i] = value
            result = self._reference_gradient(full[:n], full[n:], constants)
            return tuple(g for k, g in enumerate(result) if k in needed and g is not None)

        output, pullback = _vjp(gradient, *(inputs[i] for i in wanted))
        given = [grads[k] for k in needed if inputs[n + self.differentiable[k]] is not None]
        cotangents = tuple(
            torch.zeros_like(o) if g is None else g for o, g in zip(output, given, strict=True)
        )
        result: list[Tensor | None] = [None] * (len(inputs) + len(ctx.constants))
        for i, grad in zip(wanted, pullback(cotangents), strict=True):
            result[i] = grad
        return tuple(result)

    def _moves(self, index: int) -> bool:
        """Whether tensor ``index`` can have a derivative; negative indices are gradients."""
        return index < 0 or index in self.differentiable

    def _reference_gradient(
        self, grads: Sequence[Tensor | None], tensors: Sequence[Tensor | None], constants: list[Any]
    ) -> list[Tensor | None]:
        present = [i for i in self.differentiable if tensors[i] is not None]

        def function(*moving: Tensor) -> Any:
            full = list(tensors)
            for i, value in zip(present, moving, strict=True):
                full[i] = value
            return self.reference(*full, *constants)

        output, pullback = _vjp(function, *(tensors[i] for i in present))
        outputs = output if self.n_results > 1 else (output,)
        cotangents = tuple(
            torch.zeros_like(o) if g is None else g for o, g in zip(outputs, grads, strict=True)
        )
        found = dict(
            zip(present, pullback(cotangents if self.n_results > 1 else cotangents[0]), strict=True)
        )
        return [found.get(i) for i in self.differentiable]

    # --- autograd Functions -----------------------------------------------------------------------

    # These classes are made at their first use, because making them takes long.

    @functools.cached_property
    def _eager(op) -> Callable[..., Any]:
        class Eager(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                ctx.save_for_backward(*args[: op.n_tensors])
                ctx.constants = args[op.n_tensors :]
                ctx.set_materialize_grads(False)
                return op.forward(*args)

            @staticmethod
            def backward(ctx: Any, *grads: Tensor | None) -> Any:
                # With create_graph=True, or with gradients that kernels cannot read, such as
                # batched ones, the operator does it.
                given = [g for g in grads if g is not None]
                if torch.is_grad_enabled() or not runs_eagerly(given, on_cuda=op.has_cuda):
                    return op._operator_backward(ctx, *grads)
                results = op.backward(*grads, *ctx.saved_tensors, *ctx.constants, op._needs(ctx))
                return op._scatter(results, ctx)

        Eager.__name__ = Eager.__qualname__ = op.name
        return apply_of(Eager)

    def _make_direct_function(
        op, forward: Callable[..., Any], backward: Callable[..., Any]
    ) -> Callable[..., Any]:
        n = op.n_tensors + 1

        class Direct(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                tensors = args[:-1]
                ctx.call = call = args[-1]
                ctx.save_for_backward(*tensors)
                ctx.set_materialize_grads(False)
                if call[0] is not None:
                    found = _cpu.pointwise_results(*(*call[0], tensors))
                    if found is not None:
                        return found
                return forward(call, tensors)

            @staticmethod
            def backward(ctx: Any, *grads: Tensor | None) -> Any:
                if torch.is_grad_enabled() or not common(grads):
                    ctx.constants = ctx.call[-1]
                    return (*op._operator_backward(ctx, *grads), None)[:n]
                call, tensors, needs = ctx.call, ctx.saved_tensors, ctx.needs_input_grad
                if call[0] is not None and grads[0] is not None and grads[-1] is not None:
                    facts = (*call[0], tensors, grads, needs, unbroadcast)
                    found = _cpu.pointwise_gradients(*facts)
                    if found is not None:
                        return found
                return backward(call, grads, tensors, needs)

        Direct.__name__ = Direct.__qualname__ = op.name
        return apply_of(Direct)

    @functools.cached_property
    def _transformable(op) -> Any:
        class Backward(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(*args: Any) -> Any:
                return op.backward_operator(*args)

            setup_context = staticmethod(op._setup_double_context)
            backward = staticmethod(op._operator_double_backward)

        class Forward(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(*args: Any) -> Any:
                return op.operator(*args)

            setup_context = staticmethod(op._setup_context)

            @staticmethod
            def backward(ctx: Any, *grads: Tensor | None) -> Any:
                apply: Any = Backward.apply
                results = apply(*grads, *ctx.saved_tensors, *ctx.constants, op._needs(ctx))
                return op._scatter(results, ctx)

        return Forward


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return the C++ part of ``apply``, for calls where :func:`runs_eagerly` is true.

    The Python part around it only looks for transforms and for tensors left over from them.
    """
    apply: Callable[..., Any] = super(torch.autograd.Function, function).apply  # type: ignore[misc]
    return apply


def _results(results: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Return the results as operators do: in a tuple only if there are several."""
    return results if len(results) > 1 else results[0]


def unwatched(*, in_rule: bool = False) -> bool:
    """Whether torch runs op by op: no tracing, transform, dispatch mode or reference is active.

    In a rule for vmap the transform is still active, but it has let go of its tensors.
    """
    return not _use_reference and not is_traced() and _cpu.is_unwatched(in_rule)


#: What the tensors of a call have in common, if torch runs op by op. A level includes those before
#: it. PLAIN: strided tensors on the CPU, or None. ONE_DTYPE: one native dtype, and none is None.
#: ONE_SHAPE: one shape, too. A forked process has NOTHING, as :func:`serial_after_fork` must guard
#: torch's ops there.
NOTHING, PLAIN, ONE_DTYPE, ONE_SHAPE = 0, _cpu.PLAIN, _cpu.ONE_DTYPE, _cpu.ONE_SHAPE


def _in_common_by_attributes(tensors: tuple[Tensor | None, ...]) -> int:
    """What ``_cpu.in_common`` finds, where torch has no table of C functions."""
    if not _cpu.has_torch_threads():
        return NOTHING
    found = ONE_SHAPE
    first = None
    for t in tensors:
        if t is None:
            found = PLAIN
            continue
        if type(t) not in _PLAIN_TYPES or dispatch_keys(t).raw_repr() not in _PLAIN_KEYS:
            return NOTHING
        first = t if first is None else first
        if t.dtype not in NATIVE or t.dtype is not first.dtype:
            found = PLAIN
        elif found == ONE_SHAPE and t.shape != first.shape:
            found = ONE_DTYPE
    return found


in_common: Callable[[tuple[Tensor | None, ...]], int] = (
    _cpu.in_common if READS_TENSORS else _in_common_by_attributes
)


def common(tensors: tuple[Tensor | None, ...]) -> int:
    """What the tensors have in common, if :func:`unwatched`; else NOTHING."""
    if _use_reference or is_traced() or not _cpu.is_unwatched(False):
        return NOTHING
    return in_common(tensors)


def runs_eagerly(
    tensors: Sequence[Tensor], *, on_cuda: bool = False, in_rule: bool = False
) -> bool:
    """Whether kernels may be called on these tensors directly, outside torch's dispatcher."""
    if not unwatched(in_rule=in_rule):
        return False
    if in_common(tuple(tensors)):
        return True
    for t in tensors:
        if type(t) not in _PLAIN_TYPES:
            return False
        if dispatch_keys(t).raw_repr() not in _PLAIN_KEYS and not (
            on_cuda and t.is_cuda and not t.is_neg() and not is_zero_tensor(t) and not is_batched(t)
        ):
            return False
    return True


def differentiated(
    function: Callable[..., Sequence[Tensor]],
    inputs: Sequence[Tensor | None],
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Return torch's gradients of the inputs that need one; differentiable in grad mode."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views cut the graph: an input may be made from another or be the same, and gradients must
        # not flow along such paths.
        needed = {i: t.view_as(t) for i, t in enumerate(inputs) if t is not None and needs[i]}
        outputs = function(*(needed.get(i, t) for i, t in enumerate(inputs)))
    given = [
        (o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad
    ]
    if not given:  # constants, such as the log-determinant of a map that keeps volumes
        return [None] * len(inputs)
    found = torch.autograd.grad(
        [o for o, _ in given],
        list(needed.values()),
        [g for _, g in given],
        create_graph=create_graph,
        allow_unused=True,
    )
    result: list[Tensor | None] = [None] * len(inputs)
    for i, grad in zip(needed, found, strict=True):
        result[i] = grad
    return result
