"""What becomes what: a function for each class of a peer, by the class's full name.

A peer is another library. None is imported here: whoever has a model of a peer has imported it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import itertools
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._torch import has_hooks_of_state, own_buffers, own_hooks, own_modules, own_parameters

#: (module, conversion) -> what takes its place.
Function = Callable[[Any, "Conversion"], Any]
_Function = TypeVar("_Function", bound=Function)


class Converter(NamedTuple):
    """How the objects of a class of a peer are converted.

    Attributes:
        name: of the class, with its module: ``nflows.flows.base.Flow``.
        becomes: what it becomes, for the documentation.
        function: makes it; raises :class:`Refusal` where it cannot.
    """

    name: str
    becomes: str
    function: Function


#: By the names of the classes.
CONVERTERS: dict[str, Converter] = {}
#: The packages whose classes these are.
PEERS: set[str] = set()


def converts(*names: str, becomes: str) -> Callable[[_Function], _Function]:
    """Register a function for classes, named with their modules."""

    def register(function: _Function) -> _Function:
        for name in names:
            CONVERTERS[name] = Converter(name, becomes, function)
            PEERS.add(name.split(".")[0])
        return function

    return register


#: By the names of classes without a conversion, the reason.
REFUSED: dict[str, str] = {}


def refuses(*names: str, because: str) -> None:
    """Register why classes, named with their modules, have no conversion."""
    REFUSED.update(dict.fromkeys(names, because))


#: Packages of peers whose modules are networks like any other: they may stay.
NETWORKS = (
    "bayesian_torch.layers.batchnorm",
    "bayesian_torch.layers.dropout",
    "bayesian_torch.layers.relu",
    "bayesian_torch.models.",
    "blitz.models.",
    "nflows.nn.",
    "normflows.nets.",
    "zuko.nn",
)
#: What is done with a model at last, if it had layers of a peer.
_FINISHERS: dict[str, Callable[[nn.Module], None]] = {}


def finishes(
    peer: str,
) -> Callable[[Callable[[nn.Module], None]], Callable[[nn.Module], None]]:
    """Register what is done with models that had layers of a peer, when all have been converted."""

    def register(function: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
        _FINISHERS[peer] = function
        return function

    return register


class Refusal(Exception):
    """Why a module cannot be converted. Without a text, its parts have said so already."""


class CannotConvert(ValueError):
    """A model has parts of peers that have no counterpart. It is as it was.

    Attributes:
        reasons: by the names of these parts in the model, why.

    >>> from bslfast.patch import CannotConvert
    >>> CannotConvert({"layers.0": "a reason"}).reasons
    {'layers.0': 'a reason'}
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        lines = [f"{name or 'the model itself'}: {why}" for name, why in self.reasons.items()]
        return (
            "model: expected one all of whose parts can be converted, got one with\n  "
            + "\n  ".join(lines)
        )


class Conversion:
    """The conversion of one model.

    Args:
        model: it.

    Attributes:
        root: the module that is being converted now, with all its parts.
        reasons: see :class:`CannotConvert`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.root = model
        self.reasons: dict[str, str] = {}
        self._names = {module: name for name, module in model.named_modules()}
        self._held = Counter(
            id(p) for m in model.modules() for p in own_parameters(m).values() if p is not None
        )
        self._made: dict[tuple[nn.Module, Any], Any] = {}
        #: By the ids of parameters, the innermost parts of peers that they are in.
        self._parts: dict[int, nn.Module] = {}
        #: Made modules that are in the mode of what they were made of.
        self._in_mode: set[nn.Module] = set()

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        """What takes the place of a module; None, with the reason noted, if nothing can."""
        # A module in several places is one module afterwards, too.
        key = (module, args)
        if key not in self._made:
            try:
                self._made[key] = self._convert(module, *args)
            except Refusal as refusal:
                self._made[key] = None
                if str(refusal):
                    self.reasons[self._names.get(module, "")] = str(refusal)
        return self._made[key]

    def all(self, modules: Iterable[nn.Module], *args: Any) -> list[Any]:
        """The same of several.

        Raises:
            Refusal: if one of them cannot be converted; only after all have been tried.
        """
        found = [self(module, *args) for module in modules]
        if any(made is None for made in found):
            raise Refusal
        return found

    def part(self, module: nn.Module, *args: Any) -> Any:
        """The same of one."""
        return self.all([module], *args)[0]

    def kept(self, network: nn.Module) -> nn.Module:
        """A copy of a network, in which parts of peers have been converted."""
        found = [(module, self(module)) for module in _outermost(network)]
        if any(new is None for _, new in found) or self.check_rest(network):
            raise Refusal
        copied = copy.deepcopy(network, {id(module): new for module, new in found})
        self._in_mode.add(copied)
        return copied

    def _convert(self, module: nn.Module, *args: Any) -> Any:
        kind = class_name(module)
        if kind not in CONVERTERS:
            peer = peer_of(module)
            if kind.split(".")[0] == peer:
                because = f": {REFUSED[kind]}" if kind in REFUSED else ""
                raise Refusal(f"there is no conversion of {kind}{because}")
            if peer is not None:
                raise Refusal(f"{kind} is a subclass of a class of {peer}, of which all may differ")
            raise Refusal(f"{kind} is unknown")
        function: Any = CONVERTERS[kind].function
        check(module, self._held)
        try:
            made = function(module, self, *args)
        except ValueError as error:
            # The error of a constructor of bslfast, which has limits that the peer has not.
            raise Refusal(str(error)) from error
        self._claim(module)
        if isinstance(made, nn.Module):
            self._set_mode(made, module)
        return made

    def _claim(self, module: nn.Module) -> None:
        """Note whose parameters these are; raise Refusal if another part has them, too."""
        if _links.get() is not None:  # No copies are made: two of a kind have the same memory.
            return
        inside = set(module.modules())
        for name, parameter in module.named_parameters():
            other = self._parts.setdefault(id(parameter), module)
            if other not in inside:
                raise Refusal(f"{name} is in {self._names.get(other)!r}, too, and would become two")

    def check_rest(self, model: nn.Module) -> bool:
        """Note where what is no part of a peer is also inside of one; return whether it is so."""
        found = False
        for name, module in _rest(model, self._names.get(model, "")):
            for parameter in own_parameters(module).values():
                part = self._parts.get(id(parameter))
                if part is not None:
                    found, place = True, self._names.get(part)
                    self.reasons[name] = f"it is in {place!r}, too, and would become two"
        return found

    def _set_mode(self, made: nn.Module, like: nn.Module) -> None:
        """Put what was made into the mode of the original; parts and kept networks have theirs."""
        if made in self._in_mode:
            return
        self._in_mode.add(made)
        made.training = like.training
        if not isinstance(made, Kept):
            for child in made.children():
                self._set_mode(child, like)


def check(module: nn.Module, held: Counter[int]) -> None:
    """Raise Refusal if something about a module would get lost."""
    for place, part in module.named_modules():
        what = f"a {type(part).__name__}" + (f" ({place})" if place else "")
        if any(own_hooks(part)):
            raise Refusal(f"{what} has hooks, which would get lost")
        package = type(part).__module__.split(".")[0]
        if package in PEERS or type(part) is nn.Linear:
            _check_additions(part, what)
        for name, parameter in own_parameters(part).items():
            if parameter is not None and held[id(parameter)] > 1:
                raise Refusal(f"the parameter {name} of {what} is in two places")


def _check_additions(part: nn.Module, what: str) -> None:
    """Raise Refusal if somebody has added something to a module that its class knows nothing of."""
    kind: Any = type(part)
    for name in vars(part):
        if callable(getattr(kind, name, None)):
            raise Refusal(f"{what} has its own {name}, which would get lost")
    if has_hooks_of_state(part):
        raise Refusal(f"{what} has hooks of its state, which would get lost")
    words = _words(kind)
    # What a class of zuko is given by name it keeps a list of.
    lists = [value for value in vars(part).values() if isinstance(value, list)]
    for name in (*own_parameters(part), *own_buffers(part), *own_modules(part)):
        # The code has numbered names without their numbers.
        known = name in words or name.rstrip("0123456789") in words
        if not known and not any(name in names for names in lists):
            raise Refusal(f"{what} has {name!r}, which its class has not and which would get lost")


@functools.cache
def _words(kind: Any) -> frozenset[str]:
    """The names and texts in the code of a class and its bases, torch.nn.Module aside."""
    own = [vars(base).values() for base in kind.__mro__ if base is not nn.Module]
    functions = [value for values in own for value in values if inspect.isfunction(value)]
    found = {""}  # The names in a list of modules are numbers.
    seen: list[Any] = [function.__code__ for function in functions]
    while seen:
        value = seen.pop()
        if isinstance(value, types.CodeType):
            found.update(value.co_names)
            seen += value.co_consts
        elif isinstance(value, str):
            found.add(value)
        elif isinstance(value, tuple):
            seen += value
    return frozenset(found)


def class_name(value: object) -> str:
    """The name of an object's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def peer_of(module: nn.Module) -> str | None:
    """The peer that a module's class, or one of its bases, comes from."""
    for kind in type(module).__mro__:
        package = kind.__module__.split(".")[0]
        if package in PEERS:
            return None if kind.__module__.startswith(NETWORKS) else package
    return None


def convert(model: nn.Module) -> nn.Module:
    """Return the same model with bslfast's layers, flows and ops in place of a peer's.

    The weights are copied. The model itself stays as it is. What is no peer's is copied, too, and
    holds what its parts have become. A flow becomes a :class:`bslfast.flows.Flow` and is called as
    that, a layer one of :mod:`bslfast.nn`. Parameters that were frozen are so afterwards, and
    devices, dtypes and the training modes of all parts stay. Torch's generators stay as they are.

    All or nothing: where one part of a peer has no counterpart, nothing is converted. Hooks,
    methods, parameters, buffers and modules that someone has put on a peer's instance have none,
    nor has a network or a parameter in two places. The networks inside of couplings are not parts
    in this sense. Those that bslfast has no network for, or that come from the user, are copied as
    they are (:class:`Kept`). docs/migration.md has the table of all classes, and says what their
    log densities and divergences agree to.

    Args:
        model: a module of nflows, zuko, normflows, bayesian-torch, blitz or torchbnn, or one that
            holds such modules.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: it has no part that comes from a peer.
        CannotConvert: it has parts that cannot be converted; they are listed, with the reasons.

    docs/migration.md has a script for each peer. With zuko installed::

        theirs = zuko.flows.NSF(3, context=2)
        ours = bslfast.patch.convert(theirs)
        ours.log_prob(x, context)  # is theirs(context).log_prob(x)

    >>> import torch, bslfast
    >>> bslfast.patch.convert(torch.nn.Linear(2, 3))
    Traceback (most recent call last):
        ...
    ValueError: model: expected one with parts of bayesian_torch, blitz, nflows, normflows, \
torchbnn, zuko, got a Linear without
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {_checks.describe(model)}")
    outermost = list(_outermost(model))
    if not outermost:
        names = ", ".join(sorted(PEERS))
        raise ValueError(
            f"model: expected one with parts of {names}, got a {type(model).__name__} without"
        )
    conversion = Conversion(model)
    made = []
    for module in outermost:
        conversion.root = module
        with kept_generators(module):
            made.append((module, conversion(module)))
    conversion.check_rest(model)
    if conversion.reasons:
        raise CannotConvert(conversion.reasons)
    # Whatever refers to a module, refers to what it has become.
    memo = {id(module): new for module, new in made}
    result: nn.Module = copy.deepcopy(model, memo)
    for peer in dict.fromkeys(map(peer_of, outermost)):
        if peer in _FINISHERS:
            _FINISHERS[peer](result)
    return result


def _outermost(module: nn.Module) -> Iterable[nn.Module]:
    """The modules of peers that are inside of no other."""
    if isinstance(module, Kept):  # of an earlier conversion
        return
    if peer_of(module) is not None:
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _rest(module: nn.Module, name: str) -> Iterable[tuple[str, nn.Module]]:
    """The modules that are inside of none of these, and their names."""
    if peer_of(module) is None:
        yield name, module
        for own, child in module.named_children():
            yield from _rest(child, f"{name}.{own}" if name else own)


# --- for the files of the peers -------------------------------------------------------------------


def options(module: nn.Module) -> dict[str, Any]:
    """The device and the dtype of a module."""
    tensors = (*module.parameters(), *module.buffers())
    like = next((t for t in tensors if t.is_floating_point()), None)
    if like is None:
        return {"device": tensors[0].device if tensors else None}
    return {"device": like.device, "dtype": like.dtype}


class Link(NamedTuple):
    """What a parameter of bslfast's was made of.

    Attributes:
        target: it.
        sources: the peer's.
        make: see :func:`put`.
    """

    target: Tensor
    sources: tuple[Tensor, ...]
    make: Callable[..., Tensor] | None


#: Where links are noted; nowhere if None.
_links: ContextVar[list[Link] | None] = ContextVar("_links", default=None)


def kept_generators(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Modules made inside take their first weights from generators that then are as they were."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return torch.random.fork_rng({t.device.index for t in tensors if t.is_cuda})


@contextlib.contextmanager
def noted_links() -> Iterator[list[Link]]:
    """Note, inside, what each parameter is made of."""
    found: list[Link] = []
    token = _links.set(found)
    try:
        yield found
    finally:
        _links.reset(token)


@torch.no_grad()
def put(target: Tensor, *sources: Tensor, make: Callable[..., Tensor] | None = None) -> None:
    """Copy a parameter, or what is made of several, and whether the first one is frozen.

    Args:
        target: where to.
        sources: parameters of the peer.
        make: makes the values of the sources by ops that can be differentiated; None for the
            source itself.
    """
    values = sources[0] if make is None else make(*sources)
    target.copy_(values.reshape(target.shape))
    if isinstance(target, nn.Parameter):
        target.requires_grad_(sources[0].requires_grad)
    links = _links.get()
    if links is not None:
        links.append(Link(target, sources, make))


class Kept(nn.Module):
    """A network that has been copied as it is: it takes rows alone, and a context as it did.

    Args:
        network: it.
        why: there is nothing of bslfast's in its place.
        joined: whether it takes the context behind x in one tensor, and not as a second argument.
        order: of the features, see :class:`bslfast.flows.Autoregressive`.
        context: size of the context vectors, 0 for none.
    """

    def __init__(
        self,
        network: nn.Module,
        why: object,
        *,
        joined: bool,
        context: int,
        order: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if _links.get() is not None:
            raise Refusal(f"a network that is kept as it is: {why}")
        self.network, self.why = copy.deepcopy(network), str(why)
        self.joined, self.context, self.order = joined, context, order

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return what the network makes of x [..., inputs]."""
        lead = x.shape[:-1]
        if context is not None:
            lead = torch.broadcast_shapes(lead, context.shape[:-1])
            context = context.expand(*lead, context.shape[-1]).reshape(-1, context.shape[-1])
        rows = x.expand(*lead, x.shape[-1]).reshape(lead.numel(), x.shape[-1])
        if self.joined:
            found = self.network(rows if context is None else torch.cat((rows, context), dim=-1))
        else:
            found = self.network(rows, context)
        shaped: Tensor = found.reshape(*lead, found.shape[-1])
        return shaped

    def extra_repr(self) -> str:
        return f"why={self.why!r}"


#: Where a peer computes no density at random vectors: on a bounded domain, or without an inverse.
_NOT_THERE = {"builtins.NotImplementedError", "nflows.transforms.base.InputOutsideDomain"}


def agree(
    theirs: nn.Module,
    ours: nn.Module,
    log_probs: Callable[[Any, Any, Tensor, Tensor | None], tuple[Tensor, Tensor]],
    sizes: tuple[int, int],
) -> None:
    """Compare flows at a few vectors: other versions of a peer may compute something else.

    Args:
        theirs, ours: the flows; what is called are copies in float64, in evaluation mode. Where
            these fail, as a network of float32 alone does, they are copies in their own dtype.
        log_probs: (theirs, ours, x, context) -> the log densities of both.
        sizes: the features and the numbers of the context.

    Raises:
        Refusal: if they differ by more than rounding, or cannot be compared.
    """
    tensors = itertools.chain(theirs.parameters(), theirs.buffers())
    dtypes = {t.dtype for t in tensors if t.is_floating_point()} or {torch.get_default_dtype()}
    dtype = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    def computed(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        x, context = (torch.randn(16, n, generator=generator).to(dtype) for n in sizes)
        first, second = (copy.deepcopy(flow).cpu().to(dtype).eval() for flow in (theirs, ours))
        with torch.no_grad():
            return log_probs(first, second, x, context if sizes[1] else None)

    try:
        try:
            wanted, found = computed(torch.float64)
        except RuntimeError:
            wanted, found = computed(dtype)
    except Exception as error:
        if class_name(error) in _NOT_THERE:
            return
        raise Refusal(
            "its log densities cannot be compared with those of the conversion: "
            f"{type(error).__name__}: {error}"
        ) from error
    # The peer's constants are rounded, and parameters that are made of several.
    bound = max(1e-4, 8 * torch.finfo(dtype).eps)
    wanted, found = wanted.double(), found.double()
    # Where a step overflows, peers have NaN. Here the density is 0.
    wanted = torch.where(wanted.isnan() & found.isneginf(), found, wanted)
    if not torch.allclose(found, wanted, rtol=bound, atol=bound, equal_nan=True):
        worst = (found - wanted).abs().max().item()
        raise Refusal(
            f"its log densities are not those of the conversion, by {worst:.2g}: perhaps another "
            "version than the one that this is made for"
        )
