"""zuko: flows, with couplings and autoregressive transforms of affine maps and splines."""

from __future__ import annotations

import functools
import inspect
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import NormalBase
from bslfast.flows.coupling import Coupling
from bslfast.flows.flow import Flow
from bslfast.flows.maps import Additive, Map
from bslfast.flows.transform import Composite, Inverse, Permutation, Transform
from bslfast.patch import networks
from bslfast.patch.maps import ClippedSpline, PeerAffine
from bslfast.patch.networks import Constant, NoCounterpart
from bslfast.patch.nflows import standardize
from bslfast.patch.registry import (
    Conversion,
    Kept,
    Refusal,
    agree,
    class_name,
    converts,
    put,
    refuses,
)

T = "zuko.transforms"
F = "zuko.flows"
_TORCH = "torch.distributions.transforms"


class Passes(Autoregressive):
    """An autoregressive transform whose inverse takes fewer passes than there are features.

    Args:
        map, conditioner: as of :class:`bslfast.flows.Autoregressive`.
        passes: how many features depend on each other in a row at most.
    """

    def __init__(self, map: Map, conditioner: nn.Module, passes: int) -> None:
        super().__init__(map, conditioner)
        self.passes = passes

    def _mapped(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        if not inverse:
            return super()._mapped(x, context, inverse)
        found, log_det = torch.zeros_like(x), None
        for _ in range(self.passes):
            found, log_det = self.map._map(x, self._chosen(found, context), True)
        assert log_det is not None
        return found, log_det


@converts(
    "zuko.lazy.Flow",
    *(f"{F}.{name}" for name in ("autoregressive.MAF", "spline.NSF")),
    *(f"{F}.coupling.{name}" for name in ("NICE", "RealNVP")),
    becomes="`Flow`: `flow.distribution(context)` is what `flow(context)` was",
)
def _flow(flow: Any, conversion: Conversion) -> nn.Module:
    transform, base = conversion.all([flow.transform, flow.base])
    if base.features != transform.features:
        raise Refusal(f"{base.features} features of noise where there are {transform.features}")
    if not isinstance(transform, Composite):
        transform = Composite([transform])
    found = Flow(transform, None if _is_standard(flow.base) else base)
    agree(flow, found, _log_probs, (found.features, found.context))
    return found


def _log_probs(theirs: Any, ours: Any, x: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    return theirs(context).log_prob(x), ours.log_prob(x, context)


@converts(
    "zuko.lazy.UnconditionalDistribution",
    becomes="standard normal noise or `NormalBase`, of a `DiagNormal`",
)
def _base(base: Any, conversion: Conversion) -> NormalBase:
    loc, scale = _of_diag_normal(base)
    found = NormalBase(loc.shape[0], device=loc.device, dtype=loc.dtype)
    constant = found.conditioner.constant
    assert constant is not None
    if loc.requires_grad != scale.requires_grad:
        raise Refusal("locations and scales of which only one kind is frozen")
    put(constant, loc, scale, make=lambda loc, scale: torch.cat((loc, scale.log())))
    return found


def _of_diag_normal(base: Any) -> tuple[Tensor, Tensor]:
    """Its parameters, by the constructor's arguments."""
    if not inspect.isclass(base.f) or base.f.__module__ != "zuko.distributions":
        raise Refusal("a base that is no DiagNormal")
    if base.f.__name__ != "DiagNormal":
        raise Refusal(f"a {base.f.__name__} as the base")
    bound = inspect.signature(base.f).bind(*base.args, **base.kwargs).arguments
    loc, scale = torch.as_tensor(bound["loc"]), torch.as_tensor(bound["scale"])
    if loc.dim() != 1 or scale.shape != loc.shape or bound.get("ndims", 1) != 1:
        raise Refusal(f"noise of shape {list(loc.shape)}, where bslfast's flows have vectors")
    return loc, scale


def _is_standard(base: Any) -> bool:
    loc, scale = _of_diag_normal(base)
    learned = loc.requires_grad or scale.requires_grad
    return not learned and bool((loc == 0).all()) and bool((scale == 1).all())


@converts("zuko.lazy.LazyComposedTransform", becomes="`Composite`")
def _composed(module: Any, conversion: Conversion) -> Transform:
    parts = conversion.all(module.transforms)
    return Composite(parts)


@converts("zuko.lazy.LazyInverse", becomes="`Inverse`")
def _inverse(module: Any, conversion: Conversion) -> Transform:
    return Inverse(conversion.part(module.transform))


@converts(
    "zuko.lazy.UnconditionalTransform",
    becomes="`Permutation`, of a `PermutationTransform`; `Standardize`, of torch's "
    "`AffineTransform` with buffers",
)
def _unconditional(module: Any, conversion: Conversion) -> Transform:
    name = getattr(module.f, "__name__", type(module.f).__name__)
    kind = (getattr(module.f, "__module__", ""), name)
    if kind not in ((T, "PermutationTransform"), (_TORCH, "AffineTransform")):
        raise Refusal(f"an UnconditionalTransform of {name}")
    given = inspect.signature(module.f).bind(*module.args, **module.kwargs).arguments
    if name == "AffineTransform":
        return _affine(given)
    order = torch.as_tensor(given["order"])
    if order.dim() != 1:
        raise Refusal("a permutation that differs between vectors")
    return Permutation(given["order"], device=order.device)


def _affine(given: dict[str, Any]) -> Transform:
    """The map that sbi puts before its flows: it brings data to mean 0 and deviation 1."""
    shift, scale = torch.as_tensor(given["loc"]), torch.as_tensor(given["scale"])
    if shift.requires_grad or scale.requires_grad:
        raise Refusal("an AffineTransform that is learned")
    if shift.dim() != 1 or scale.dim() > 1 or scale.numel() not in (1, len(shift)):
        raise Refusal("an AffineTransform of other shapes than vectors")
    if not bool((scale > 0).all()):
        raise Refusal("an AffineTransform whose scale is not positive")
    return standardize(len(shift), shift, scale, device=shift.device, dtype=shift.dtype)


# --- maps -----------------------------------------------------------------------------------------


def _map(module: Any) -> Map:
    """The map that a transform's ``univariate`` makes."""
    function: Any = module.univariate
    given: dict[str, Any] = {}
    if isinstance(function, functools.partial):
        if function.args:
            raise Refusal("a univariate with positional arguments of its own")
        function, given = function.func, function.keywords
    shapes = [tuple(shape) for shape in module.shapes]
    name = getattr(function, "__name__", "")
    if getattr(function, "__module__", "") != T:
        name = ""
    if name == "MonotonicAffineTransform" and shapes == [(), ()] and set(given) <= {"slope"}:
        return PeerAffine("softclip", abs(math.log(_slope(given))), "shift, scale")
    if name == "AdditiveTransform" and shapes == [()] and not given:
        return Additive()
    if name == "MonotonicRQSTransform" and set(given) <= {"slope", "bound"} and len(shapes) == 3:
        (bins,) = shapes[0]
        if shapes == [(bins,), (bins,), (bins - 1,)]:
            spline = ClippedSpline(bins, float(given.get("bound", 5.0)), _slope(given))
            _ = spline.spline  # that there is one
            return spline
    shown = getattr(function, "__name__", function)
    raise Refusal(f"the univariate {shown} with shapes {shapes} and {given or 'no arguments'}")


def _slope(given: dict[str, Any]) -> float:
    slope = float(given.get("slope", 1e-3))
    if not slope > 0 or slope == 1:
        raise Refusal(f"slope={slope}")
    return slope


# --- transforms -----------------------------------------------------------------------------------


@converts(
    f"{F}.gaussianization.ElementWiseTransform",
    becomes="`Coupling` of all features, of an affine map or a spline",
)
def _element_wise(module: Any, conversion: Conversion) -> Transform:
    map = _map(module)
    if hasattr(module, "phi"):
        if len({p.requires_grad for p in module.phi}) > 1:
            raise Refusal("parameters of which only some are frozen")
        features = module.phi[0].shape[0]

        def rows(*phi: Tensor) -> Tensor:
            return torch.cat([p.reshape(features, -1) for p in phi], dim=-1)

        return Coupling(map, [True] * features, Constant(*module.phi, make=rows))
    context = module.hyper.in_features
    features = module.hyper.out_features // module.total
    network = _dense(module.hyper, 0, context)
    return Coupling(map, [True] * features, network, context=context)


@converts(
    f"{F}.coupling.GeneralCouplingTransform",
    becomes="`Coupling` of an affine map, `Additive` or a spline",
)
def _coupling(module: Any, conversion: Conversion) -> Transform:
    moves = [not keeps for keeps in module.mask.tolist()]
    kept = len(moves) - sum(moves)
    context = module.hyper.in_features - kept
    network = _dense(module.hyper, kept, context)
    return Coupling(_map(module), moves, network, context=context)


def _dense(network: Any, inputs: int, context: int) -> nn.Module:
    try:
        if class_name(network) != "zuko.nn.MLP":
            raise NoCounterpart("another network")
        layers, activations = list(network)[::2], list(network)[1::2]
        if any(class_name(layer) != "zuko.nn.Linear" for layer in layers):
            raise NoCounterpart("normalised layers")
        if any(layer.weight.dim() != 2 for layer in layers):
            raise NoCounterpart("stacked layers")
        name = networks.one_activation(activations)
        return networks.conditioner(layers, inputs, context, name)
    except NoCounterpart as why:
        return Kept(network, why, joined=True, context=context)


@converts(
    f"{F}.autoregressive.MaskedAutoregressiveTransform",
    becomes="`Autoregressive` of an affine map, `Additive` or a spline; `Coupling` with `passes=2`",
)
def _masked(module: Any, conversion: Conversion) -> Transform:
    map, hyper = _map(module), module.hyper
    features = hyper.out_features // module.total
    context = hyper.in_features - features
    if module.order is None:
        # The passes make up for an order.
        why: object = "any graph of features"
        kept = Kept(hyper, why, joined=True, context=context, order=tuple(range(features)))
        return Passes(map, kept, module.passes)
    places = module.order.tolist()
    order = sorted(range(features), key=places.__getitem__)
    try:
        if module.passes == features:
            return Autoregressive(map, _made(hyper, map, order, context))
        if module.passes == 2 and not context:
            return _two_passes(hyper, map, [place > 0 for place in places])
        raise NoCounterpart("passes of several features")
    except NoCounterpart as error:
        kept = Kept(hyper, error, joined=True, context=context, order=tuple(order))
    if module.passes == features:
        return Autoregressive(map, kept)
    return Passes(map, kept, module.passes)


def _layers(hyper: Any) -> tuple[list[Any], str]:
    """The masked layers of a network, and its activation."""
    layers, activations = list(hyper)[::2], list(hyper)[1::2]
    kinds = {class_name(hyper): "zuko.nn.MaskedMLP"}
    kinds |= {class_name(layer): "zuko.nn.MaskedLinear" for layer in layers}
    if any(found != wanted for found, wanted in kinds.items()):
        raise NoCounterpart("residual blocks")
    return layers, networks.one_activation(activations)


def _made(hyper: Any, map: Map, order: Sequence[int], context: int) -> nn.Module:
    layers, name = _layers(hyper)
    degrees = [layers[0].mask[:, : len(order)].sum(dim=1)]
    for layer in layers[1:-1]:
        seen = torch.where(layer.mask.bool(), degrees[-1], 0)
        degrees.append(seen.amax(dim=1))
    return networks.made(layers, map, order, context, name, degrees[: len(layers) - 1])


def _two_passes(hyper: Any, map: Map, moves: list[bool]) -> Transform:
    """Features that nothing moves but a constant, and those that all of these move.

    The former have outputs that see no unit, so that only their biases count.
    """
    layers, name = _layers(hyper)
    owners = map.owners(len(moves))
    of_moved = torch.tensor([moves[owner] for owner in owners])
    kept = torch.tensor([not moved for moved in moves])
    first, last = layers[0], layers[-1]
    if len(layers) < 2 or not all(bool(layer.mask.bool().all()) for layer in layers[1:-1]):
        raise NoCounterpart("masks of another kind")
    if not torch.equal(first.mask.bool().cpu(), kept.expand_as(first.mask)):
        raise NoCounterpart("masks of another kind")
    if not torch.equal(last.mask.bool().cpu(), of_moved.unsqueeze(1).expand_as(last.mask)):
        raise NoCounterpart("masks of another kind")
    network = networks.part_of(layers, kept.nonzero().flatten(), of_moved.nonzero().flatten(), name)
    constant = Constant(last.bias, make=operator.itemgetter(~of_moved))
    coupling = Coupling(map, moves, network)
    return Composite([coupling, Coupling(map, [not moved for moved in moves], constant)])


# --- what has no conversion -----------------------------------------------------------------------

refuses(
    f"{F}.spline.NCSF",
    because="its noise is uniform on a circle, and its splines have slopes of 1 where it closes",
)
refuses(f"{F}.polynomial.SOSPF", because="there are no sums of squared polynomials")
refuses(
    f"{F}.polynomial.BPF",
    because="its Bernstein polynomials have slopes of 1 at both ends, unlike `Bernstein`",
)
refuses(
    f"{F}.neural.NAF",
    because="monotonic networks of several layers; `DeepSigmoidal` has one",
)
refuses(f"{F}.neural.UNAF", because="there are no integrals of networks")
refuses(
    f"{F}.continuous.CNF",
    f"{F}.continuous.FFJTransform",
    because="there are no differential equations",
)
refuses(
    f"{F}.gaussianization.GF",
    because="mixtures of normal distribution functions; `MixtureLogistic` has logistic ones",
)
refuses("zuko.mixtures.GMM", because="a mixture and no flow; see `NormalMixtureBase`")
