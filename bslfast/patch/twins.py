"""Twins of peers' modules: bslfast's, that compute with the parameters of the originals.

A twin is what :func:`convert` would make, but for its parameters: these are the peer's own memory,
or are computed from it before each call. It runs as one call of a kernel, or not at all.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import programs
from bslfast._torch import (
    is_batched,
    own_buffers,
    own_hooks,
    own_modules,
    own_parameters,
    version_of,
)
from bslfast.flows.flow import Flow
from bslfast.flows.normalization import ActNorm, BatchNorm
from bslfast.flows.transform import Composite, forward_steps, inverse_steps
from bslfast.functional._op import unwatched
from bslfast.patch.registry import (
    CONVERTERS,
    Conversion,
    Link,
    Refusal,
    agree,
    class_name,
    kept_generators,
    noted_links,
)

#: (module, x, context) -> what a method of the twin computes, by the peer's own code.
Original = Callable[[Any, Tensor, Tensor | None], Sequence[Tensor]]
#: By the names of the methods: "forward" and "inverse" of transforms, "log_prob" of flows.
Originals = Mapping[str, Original]
#: A module that has changed more often than this between calls has no twin at once.
MOST_TWINS = 20
#: It gets another one when so many calls have found it unchanged.
CALLS_UNCHANGED = 100
#: Tensors that a twin has read are compared by their numbers before each call up to this size.
MOST_COMPARED = 1024
#: The attribute of modules that holds their twins: so both are freed together, whatever refers to
#: them.
_TWINS = "_bslfast_twins"
#: Attributes of modules on which twins do not depend.
_IGNORED = ("training", _TWINS)

_of_thread = threading.local()
_DATA_PTR = operator.methodcaller("data_ptr")
_KIND = operator.attrgetter("dtype", "is_cpu", "shape", "requires_grad")
_VALUES = operator.methodcaller("values")


@contextlib.contextmanager
def originals() -> Iterator[None]:
    """Inside, modules of peers compute as they would without twins, in this thread."""
    before = getattr(_of_thread, "originals", False)
    _of_thread.originals = True
    try:
        yield
    finally:
        _of_thread.originals = before


class _Part(NamedTuple):
    """A parameter of the twin that is computed from others.

    Attributes:
        target: it.
        places: of what it is made of, among all sources.
        make: as of :func:`put`.
    """

    target: Tensor
    places: tuple[int, ...]
    make: Callable[..., Tensor]

    def values(self, sources: Sequence[Tensor]) -> Tensor:
        made = self.make(*(sources[place].detach() for place in self.places))
        return made.reshape(self.target.shape).to(self.target.dtype)

    def pulled_back(self, sources: Sequence[Tensor], grad: Tensor) -> Sequence[Tensor | None]:
        """The gradients by the sources."""
        with torch.enable_grad():
            own = [sources[place].detach().requires_grad_() for place in self.places]
            made = self.make(*own).reshape(grad.shape).to(grad.dtype)
        return torch.autograd.grad(made, own, grad, allow_unused=True)


class _Gathered:
    """Parameters of the twin that are numbers of the peer's in another order, in one tensor.

    Args:
        links: the sources' places, and which numbers of them each parameter has.
        sources: all.
    """

    def __init__(
        self, links: Sequence[tuple[Tensor, int, Tensor]], sources: Sequence[Tensor]
    ) -> None:
        self.places = list(dict.fromkeys(place for _, place, _ in links))
        self.sizes = [sources[place].numel() for place in self.places]
        first = dict(zip(self.places, itertools.accumulate([0, *self.sizes]), strict=False))
        self.index = torch.cat([index + first[place] for _, place, index in links])
        self.once = len(self.index.unique()) == len(self.index)
        self.flat = self.values(sources)
        self.counts = [target.numel() for target, _, _ in links]
        self.targets = [
            nn.Parameter(part.view(target.shape), sources[place].requires_grad)
            for part, (target, place, _) in zip(self.flat.split(self.counts), links, strict=True)
        ]

    def values(self, sources: Sequence[Tensor]) -> Tensor:
        every = torch.cat([sources[place].detach().flatten() for place in self.places])
        return every.index_select(0, self.index)

    def pulled_back(self, grads: Sequence[Tensor | None]) -> Iterator[tuple[int, Tensor]]:
        """The places of the sources and the gradients by them."""
        rows = [
            self.flat.new_zeros(count) if grad is None else grad.flatten()
            for grad, count in zip(grads, self.counts, strict=True)
        ]
        every = self.flat.new_zeros(sum(self.sizes))
        add = every.index_copy_ if self.once else every.index_add_
        yield from zip(
            self.places, add(0, self.index, torch.cat(rows)).split(self.sizes), strict=True
        )


def _index(link: Link) -> Tensor | None:
    """Which numbers of its source a link takes, if it takes them as they are."""
    if len(link.sources) > 1 or link.make is None:
        return None
    shape = link.sources[0].shape
    options: dict[str, Any] = {"dtype": torch.float64, "device": link.target.device}
    places = torch.arange(1, shape.numel() + 1, **options).view(shape)
    found = link.make(places).flatten()
    index = found.long() - 1
    if not torch.equal(found, found.round()) or len(index.unique()) < len(index):
        return None
    if not len(index) or index.min() < 0 or index.max() >= shape.numel():
        return None
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(shape, generator=generator, dtype=torch.float64).to(link.target.device)
    same = torch.equal(link.make(other).flatten(), other.flatten()[index])
    return index if same else None


def _is_range(index: Tensor, size: int) -> bool:
    """Whether these are all numbers, in their order."""
    return torch.equal(index, torch.arange(size, device=index.device))


def _bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor in a row: its memory if it is contiguous, else a copy."""
    kind = torch.uint8 if tensor.element_size() % 4 else torch.int32
    return tensor.detach().reshape(-1).view(kind)


class _Constants:
    """Tensors whose numbers a twin has read.

    Args:
        tensors: they are compared by their memory and version, and small ones by their numbers,
            too, as ``tensor.data`` has a version of its own.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self._numbers = [_bits(t).clone() for t in tensors]
        self._remember()

    def _look(self) -> tuple[list[int], list[int]]:
        return list(map(_DATA_PTR, self.tensors)), list(map(version_of, self.tensors))

    def _remember(self) -> None:
        self._seen = self._look()
        small = [
            (_bits(t), numbers)
            for t, numbers in zip(self.tensors, self._numbers, strict=True)
            if t.numel() <= MOST_COMPARED and t.is_contiguous()
        ]
        self._now = [now for now, _ in small]
        self._then = torch.cat([then for _, then in small]) if small else None

    def hold(self) -> bool:
        """Whether the numbers are what they were."""
        if self._look() == self._seen:
            return self._then is None or torch.equal(torch.cat(self._now), self._then)
        if not all(map(torch.equal, map(_bits, self.tensors), self._numbers)):
            return False
        self._remember()
        return True


class _Structure:
    """What a module is made of, but for the numbers in its parameters and whether it trains.

    Nothing of what has a twin depends on the latter.
    """

    def __init__(self, root: nn.Module) -> None:
        modules = list(root.modules())
        # Weakly, so that a module is freed as soon as nobody else has it.
        self._looked_at = list(map(weakref.ref, modules))
        self._kinds = list(map(type, modules))
        self._owned = [
            owned for m in modules for owned in (own_parameters(m), own_modules(m), own_buffers(m))
        ]
        owned = self._all(modules)
        self._lengths = list(map(len, owned))
        self._values = list(itertools.chain.from_iterable(map(_VALUES, owned)))
        self.hooks = [hooks for m in modules for hooks in own_hooks(m)]
        self._trained = [t for m in modules for t in own_parameters(m).values() if t is not None]
        tensors = [t for m in modules for t in (*own_buffers(m).values(), *vars(m).values())]
        self._read = [t for t in tensors if isinstance(t, Tensor)]
        self._seen = self._look()
        self.read_but(self._trained)

    def read_but(self, sources: Sequence[Tensor]) -> None:
        """Numbers of all tensors have been read, but for those of some parameters."""
        free = set(map(id, sources))
        read = [t for t in self._trained if id(t) not in free]
        self._constants = _Constants(read + self._read)

    def _all(self, modules: Sequence[Any]) -> list[dict[str, Any]]:
        """What modules have: other attributes, then parameters, modules and buffers."""
        return [*(_lasting(m.__dict__) for m in modules), *self._owned]

    def _look(self) -> tuple[Any, ...]:
        contiguous = list(map(Tensor.is_contiguous, self._trained))
        return contiguous, list(map(_KIND, self._trained + self._read))

    def holds(self) -> bool:
        """Whether all is as it was."""
        modules = [m() for m in self._looked_at]
        if list(map(type, modules)) != self._kinds:
            return False
        owned = self._all(modules)
        values = itertools.chain.from_iterable(map(_VALUES, owned))
        return (
            list(map(len, owned)) == self._lengths
            and all(map(operator.is_, values, self._values))
            and self._look() == self._seen
            and self._constants.hold()
        )


def _lasting(attributes: dict[str, Any]) -> dict[str, Any]:
    """Those attributes of a module on which a twin may depend."""
    kept = attributes.copy()
    for name in _IGNORED:
        kept.pop(name, None)
    return kept


class Twin:
    """A transform or a flow of bslfast with the parameters of a peer's.

    Args:
        root: the peer's; it is not kept.
        density: whether it is a flow.
        peers: see :data:`Originals`.
    """

    def __init__(self, root: nn.Module, density: bool, peers: Originals) -> None:
        self.lock = threading.Lock()
        conversion = Conversion(root)
        with originals(), noted_links() as links:
            made = conversion(root)
            if conversion.reasons or made is None:
                raise Refusal(str(conversion.reasons))
            if not density and not isinstance(made, Composite):
                made = Composite([made])
        if not isinstance(made, Flow if density else Composite):
            raise Refusal(f"a {type(made).__name__}")
        self.module: Any = made
        if any(
            isinstance(m, BatchNorm) or (isinstance(m, ActNorm) and not bool(m.initialized))
            for m in made.modules()
        ):
            raise Refusal("a part with a state")
        self._take(root, links)
        if not density:  # whose conversion has compared them
            with originals():
                agree(root, made, _both(peers["forward"]), (made.features, made.context))

    def _take(self, root: nn.Module, links: list[Link]) -> None:
        """Let parameters be the peer's memory where they are the same numbers."""
        own = {id(t) for t in itertools.chain(root.parameters(), root.buffers())}
        by_target = {id(link.target): link for link in links}
        places: dict[int, int] = {}
        self.sources: list[Tensor] = []
        self.shared: list[tuple[Tensor, int]] = []
        self.parts: list[_Part] = []
        gathered: list[tuple[Tensor, int, Tensor]] = []
        holders: list[tuple[nn.Module, str]] = []
        for module in self.module.modules():
            for name, target in own_parameters(module).items():
                if target is None:
                    continue
                link = by_target.get(id(target))
                if link is None:
                    if target.requires_grad:
                        raise Refusal(f"{name}, which is made of nothing")
                    continue
                for source in link.sources:
                    if id(source) not in own:
                        raise Refusal(f"{name}, which is made of no parameter")
                    if source.dtype != target.dtype or source.device != target.device:
                        raise Refusal(f"{name}, of another dtype or device")
                    if places.setdefault(id(source), len(places)) == len(self.sources):
                        self.sources.append(source)
                where = tuple(places[id(source)] for source in link.sources)
                first, index = link.sources[0], _index(link)
                if link.make is None or (index is not None and _is_range(index, first.numel())):
                    if not first.is_contiguous():
                        raise Refusal(f"{name}, which is not contiguous")
                    shared = nn.Parameter(first.detach().view(target.shape), first.requires_grad)
                    own_parameters(module)[name] = shared
                    self.shared.append((shared, where[0]))
                elif index is not None:
                    gathered.append((target, where[0], index))
                    holders.append((module, name))
                else:
                    target.requires_grad_(any(source.requires_grad for source in link.sources))
                    self.parts.append(_Part(target, where, link.make))
        self.gathered = _Gathered(gathered, self.sources) if gathered else None
        moved = [] if self.gathered is None else self.gathered.targets
        for (module, name), parameter in zip(holders, moved, strict=True):
            own_parameters(module)[name] = parameter
        self.parameters = [t for t, _ in self.shared] + moved + [p.target for p in self.parts]
        self._pointers = self.pointers()

    def pointers(self) -> list[int]:
        """Where the sources are in memory."""
        return list(map(_DATA_PTR, self.sources))

    def update(self) -> None:
        """Take over what has changed of the peer's parameters."""
        with torch.no_grad():
            pointers = self.pointers()
            if pointers != self._pointers:
                for shared, place in self.shared:
                    shared.data = self.sources[place].detach().view(shared.shape)
                self._pointers = pointers
            pairs = [(part.target, part.values(self.sources)) for part in self.parts]
            if self.gathered is not None:
                pairs.append((self.gathered.flat, self.gathered.values(self.sources)))
            for target, values in pairs:
                # A copy is a new version of the target, for graphs that are still to be used.
                if not torch.equal(_bits(values), _bits(target)):
                    target.copy_(values)

    def can_run(self, what: str, x: Tensor, context: Tensor | None) -> bool:
        """Whether a method runs as one call of a kernel."""
        if what == "log_prob":
            return self.module._program(x, context) is not None
        steps = forward_steps if what == "forward" else inverse_steps
        sizes = self.module.features, self.module.context
        return programs.runnable(self.module, what, steps, sizes, x, context) is not None

    def compute(self, what: str, x: Tensor, context: Tensor | None) -> list[Tensor]:
        """The results of a method."""
        with self.lock:
            self.update()
            found = getattr(self.module, what)(x, context)
        return [found] if isinstance(found, Tensor) else list(found)

    def pulled_back(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients by the peer's parameters of those by the twin's."""
        found: list[Tensor | None] = [None] * len(self.sources)

        def add(place: int, grad: Tensor | None) -> None:
            before = found[place]
            if grad is not None:
                grad = grad.view(self.sources[place].shape)
                found[place] = grad if before is None else before + grad

        for (_, place), grad in zip(self.shared, grads, strict=False):
            add(place, grad)
        first, last = len(self.shared), len(grads) - len(self.parts)
        if self.gathered is not None and any(g is not None for g in grads[first:last]):
            for place, grad in self.gathered.pulled_back(grads[first:last]):
                add(place, grad)
        for part, grad in zip(self.parts, grads[last:], strict=True):
            if grad is not None:
                pulled = part.pulled_back(self.sources, grad)
                for place, own in zip(part.places, pulled, strict=True):
                    add(place, own)
        return found


def _both(original: Original) -> Callable[..., tuple[Tensor, Tensor]]:
    """What :func:`agree` compares of transforms: vectors and logarithms."""

    def both(theirs: Any, ours: Any, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        wanted, found = (
            torch.cat([z, log_det.unsqueeze(1)], dim=1)
            for z, log_det in (original(theirs, x, context), ours(x, context))
        )
        return wanted, found

    return both


class _Called(torch.autograd.Function):
    """A method of a twin, with gradients by the peer's parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        call: tuple[Twin, Any, str, Original],
        x: Tensor,
        context: Tensor | None,
        *sources: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.call = call
        ctx.save_for_backward(x, context)
        ctx.set_materialize_grads(False)
        twin, _, what, _ = call
        ctx.versions = twin.pointers(), list(map(version_of, sources))
        needs = ctx.needs_input_grad[1:3]
        inputs = [
            None if t is None else t.detach().requires_grad_(need)
            for t, need in zip((x, context), needs, strict=True)
        ]
        with torch.enable_grad():
            assert inputs[0] is not None
            ctx.results = twin.compute(what, inputs[0], inputs[1])
        ctx.inputs = inputs
        return tuple(result.detach() for result in ctx.results)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        twin, root, _, original = ctx.call
        x, context = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        if ctx.versions != (twin.pointers(), list(map(version_of, twin.sources))):
            raise RuntimeError(
                "a parameter needed for the gradient of a transform has been modified by an "
                "inplace operation, such as a step of an optimizer, after the result was computed"
            )
        # The peer's code is for second derivatives, and for gradients that only vmap's rules take.
        again = torch.is_grad_enabled()
        if again or any(grad is not None and is_batched(grad) for grad in grads):
            with originals(), torch.enable_grad():
                results = original(root, x, context)
            tensors = [x, context, *twin.sources]
            return None, *_gradients(results, tensors, needs, grads, create_graph=again)
        tensors = [*ctx.inputs, *twin.parameters]
        wanted = [t is not None and t.requires_grad for t in tensors]
        by_x, by_context, *rest = _gradients(ctx.results, tensors, wanted, grads, retain_graph=True)
        return None, by_x, by_context, *twin.pulled_back(rest)


def _gradients(
    results: Sequence[Tensor],
    tensors: Sequence[Tensor | None],
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
    **settings: bool,
) -> list[Tensor | None]:
    """The gradients by those tensors that need one."""
    pairs = [
        (result, grad)
        for result, grad in zip(results, grads, strict=True)
        if grad is not None and result.requires_grad
    ]
    found: list[Tensor | None] = [None] * len(tensors)
    by = [t for t, need in zip(tensors, needs, strict=True) if need and t is not None]
    if not pairs or not by:
        return found
    outputs, given = zip(*pairs, strict=True)
    own = iter(torch.autograd.grad(outputs, by, given, allow_unused=True, **settings))
    return [next(own) if need else None for need in needs]


class _Entry:
    """The twin of a module, or that it has none.

    Args:
        structure: of the module.
        made: how many twins it has had.
    """

    def __init__(self, structure: _Structure, made: int) -> None:
        self.structure, self.made = structure, made
        self.waits = 0 if made < MOST_TWINS else CALLS_UNCHANGED
        self._is_made = False
        self._twin: Twin | None = None

    def twin(self, root: nn.Module, density: bool, peers: Originals) -> Twin | None:
        """Return it, made at the first call, or after a while if the module changes often."""
        if self.waits:
            self.waits -= 1
            return None
        if not self._is_made:
            self._is_made, self.made = True, self.made + 1
            # Whatever it is: the peer's own code computes the same. A twin also serves later calls,
            # in other modes.
            with contextlib.suppress(Exception), torch.inference_mode(False), kept_generators(root):
                twin = Twin(root, density, peers)
                self.structure.read_but(twin.sources)
                self._twin = twin
        return self._twin


class _Entries(dict[bool, _Entry]):
    """The twins of a module. Its copies have none, and what is pickled needs no bslfast."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = weakref.ref(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()


_lock = threading.RLock()


def _twin(root: nn.Module, density: bool, peers: Originals) -> Twin | None:
    if class_name(root) not in CONVERTERS:
        return None
    with _lock:
        own = vars(root).get(_TWINS)
        if type(own) is not _Entries or own.root() is not root:
            own = vars(root)[_TWINS] = _Entries(root)
        entry = own.get(density)
        if entry is None or not entry.structure.holds():
            made = 0 if entry is None else entry.made
            structure = _Structure(root)
            if any(structure.hooks) or programs.are_lent(root):
                return None
            entry = own[density] = _Entry(structure, made)
        return None if any(entry.structure.hooks) else entry.twin(root, density, peers)


def compute(root: Any, what: str, x: Any, context: Any, peers: Originals) -> list[Tensor] | None:
    """What a module's twin computes; None if there is none, or it does not run on x and context.

    Args:
        root: a module of a peer.
        what: "forward" or "inverse" of the transform that it becomes, or "log_prob" of the flow.
        x: [rows, features].
        context: [rows, context], or None.
        peers: see :data:`Originals`; for second derivatives, and for a comparison at a few vectors.
    """
    if getattr(_of_thread, "originals", False) or not programs.are_on():
        return None
    if type(x) is not Tensor or not x.is_cpu or x.dim() != 2 or not x.numel():
        return None
    if not unwatched():
        return None
    try:
        twin = _twin(root, what == "log_prob", peers)
    except Exception:  # of tensors that have no memory, no version or another layout
        return None
    if twin is None or x.shape[1] != twin.module.features:
        return None
    if (context is None) != (twin.module.context == 0):
        return None
    if context is not None and (
        type(context) is not Tensor or context.shape != (len(x), twin.module.context)
    ):
        return None
    if not twin.can_run(what, x, context):
        return None
    given = [x, *twin.sources] + ([] if context is None else [context])
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in given):
        return twin.compute(what, x, context)
    call = (twin, root, what, peers[what])
    return list(_Called.apply(call, x, context, *twin.sources))  # type: ignore[no-untyped-call]
