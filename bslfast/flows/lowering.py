"""What steps of a program transforms, networks, maps and bases of flows stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bslfast.flows.amortised import Amortised
from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import (
    NormalBase,
    NormalMixtureBase,
    StudentTBase,
    UniformBase,
    VonMisesBase,
)
from bslfast.flows.conditioners import (
    MADE,
    Conditioner,
    _BayesLayer,
    _BayesMaskedLayer,
    _Layer,
    _MaskedLayer,
)
from bslfast.flows.coupling import Coupling
from bslfast.flows.domains import Constraint, nearest_ends
from bslfast.flows.elementwise import (
    Atanh,
    Elementwise,
    Exp,
    LeakyReLU,
    Log,
    Logit,
    Sigmoid,
    Softplus,
    Tanh,
)
from bslfast.flows.linear import Householder, PLULinear
from bslfast.flows.maps import (
    Additive,
    Affine,
    Bernstein,
    DeepSigmoidal,
    Map,
    MixtureLogistic,
    Spline,
)
from bslfast.flows.normalization import ActNorm, BatchNorm, Rescale, Standardize
from bslfast.flows.planar import Planar
from bslfast.flows.radial import Radial
from bslfast.flows.sylvester import Sylvester
from bslfast.flows.transform import DRAWN, Composite, Inverse, Leading, Permutation
from bslfast.functional.affine_coupling import SCALE_FNS
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.functional.rational_quadratic import EXTRA_SLOPES, TAILS
from bslfast.programs import Builder, CannotLower, Lanes, lower, lowers
from bslfast.programs.networks import activated, constant, dense

#: The step, and whether it is turned around.
_ELEMENTWISE: dict[type[Elementwise], tuple[str, bool]] = {
    LeakyReLU: ("leaky_relu_transform", False),
    Tanh: ("tanh_transform", False),
    Atanh: ("tanh_transform", True),
    Sigmoid: ("sigmoid_transform", False),
    Logit: ("sigmoid_transform", True),
    Softplus: ("softplus_transform", False),
    Exp: ("exp_transform", False),
    Log: ("exp_transform", True),
}


# --- flows and transforms: (builder, transform, lanes, inverse) -> lanes --------------------------


def _transformed(builder: Builder, transform: nn.Module, lanes: Lanes, inverse: bool) -> Lanes:
    found: Lanes = lower(builder, transform, lanes, inverse)
    return found


@lowers(Composite)
def _composite(builder: Builder, module: Composite, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module)
    builder.looked_at(module.transforms)
    transforms = list(module.transforms)
    for transform in reversed(transforms) if inverse else transforms:
        lanes = _transformed(builder, transform, lanes, inverse)
    return lanes


@lowers(Inverse)
def _inverse(builder: Builder, module: Inverse, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module)
    return _transformed(builder, module.transform, lanes, not inverse)


@lowers(Leading)
def _leading(builder: Builder, module: Leading, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module)
    first = module.sizes[0]
    return _transformed(builder, module.transform, lanes[:first], inverse) + lanes[first:]


@lowers(Permutation)
def _permutation(builder: Builder, module: Permutation, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module)
    order = builder.read(module.inverse_order if inverse else module.order)
    return [lanes[index] for index in order]


@lowers(Standardize, ActNorm)
def _per_feature(
    builder: Builder, module: Standardize | ActNorm, lanes: Lanes, inverse: bool
) -> Lanes:
    builder.looked_at(module)
    # The first batch sets the parameters.
    if isinstance(module, ActNorm) and not builder.read(module.initialized):
        raise CannotLower("an ActNorm has not seen its first batch")
    loc, raw = (constant(builder, tensor) for tensor in (module.loc, module.log_scale))
    return _affine(builder, lanes, loc, raw, "exp", not inverse)


@lowers(Rescale)
def _rescale(builder: Builder, module: Rescale, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "low", "log_length")
    count = len(lanes)
    low, log_length = (
        builder.step("constant", [], count, numbers=[value] * count)
        for value in (module.low, module.log_length)
    )
    return _affine(builder, lanes, low, log_length, "exp", not inverse)


@lowers(BatchNorm)
def _batch_norm(builder: Builder, module: BatchNorm, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "training", "eps")
    if module.training:
        raise CannotLower("a BatchNorm in training mode looks at the whole batch")
    mean, variance, gain, bias = (
        constant(builder, tensor)
        for tensor in (module.running_mean, module.running_var, module.log_gain, module.bias)
    )
    # log max(variance, eps)
    above = activated(builder, "relu", activated(builder, "linear", variance, 1.0, -module.eps))
    log_scale = activated(builder, "linear", activated(builder, "log", above, module.eps), 0.5, 0.0)
    steps = [(mean, log_scale, not inverse), (bias, gain, inverse)]
    for shift, raw, back in reversed(steps) if inverse else steps:
        lanes = _affine(builder, lanes, shift, raw, "exp", back)
    return lanes


def _amortised(builder: Builder, module: Amortised, own: Sequence[Tensor]) -> Lanes:
    """Parameters, with what the context adds to them."""
    builder.looked_at(module)
    if module.conditioner is None:
        return [lane for parameter in own for lane in constant(builder, parameter)]
    added = _chosen(builder, module.conditioner, [])
    found: Lanes = []
    for parameter in own:
        count = parameter.numel()
        found += builder.dense([], count, None, parameter, added=added[:count])
        added = added[count:]
    return found


@lowers(Planar)
def _planar(builder: Builder, module: Planar, lanes: Lanes, inverse: bool) -> Lanes:
    inputs = _amortised(builder, module, (module.u, module.w, module.b))
    return builder.step("planar_inverse" if inverse else "planar", lanes + inputs, len(lanes))


@lowers(Radial)
def _radial(builder: Builder, module: Radial, lanes: Lanes, inverse: bool) -> Lanes:
    inputs = _amortised(builder, module, (module.x0, module.raw_alpha, module.raw_beta))
    return builder.step("radial_inverse" if inverse else "radial", lanes + inputs, len(lanes))


@lowers(Householder)
def _householder(builder: Builder, module: Householder, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "reflections")
    return builder.step(
        "householder",
        lanes,
        len(lanes),
        parameters=(module.vectors,),
        options=[inverse, module.reflections],
    )


@lowers(Sylvester)
def _sylvester(builder: Builder, module: Sylvester, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "rank")
    if module.context:
        raise CannotLower("matrices of a Sylvester that depend on the context have no steps")
    parameters = (module.r, module.s, module.b)
    within = _transformed(builder, module.rotation, lanes, True)[: module.rank]
    moved = builder.step("sylvester", within, module.rank, parameters=parameters, options=[inverse])
    rest = len(lanes) - module.rank
    moved = moved + builder.step("constant", [], rest, numbers=[0.0] * rest)
    moved = _transformed(builder, module.rotation, moved, False)
    return builder.step("additive", lanes + moved, len(lanes), options=[inverse])


@lowers(PLULinear)
def _plu_linear(builder: Builder, module: PLULinear, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module)
    weight = module.weight
    builder.looked_at(weight)
    order = builder.read(weight.inverse_order if inverse else weight.order)
    if inverse:
        lanes = [lanes[index] for index in order]
    for upper in (False, True) if inverse else (True, False):
        lanes = builder.step(
            "triangular",
            lanes,
            len(lanes),
            parameters=(weight.factors, weight.signs),
            options=[upper, inverse],
        )
    return lanes if inverse else [lanes[index] for index in order]


@lowers(*_ELEMENTWISE)
def _elementwise(builder: Builder, module: Elementwise, lanes: Lanes, inverse: bool) -> Lanes:
    numbers = []
    # A module may have a domain of its own.
    builder.looked_at(module, methods=("domain", "codomain", "_map"))
    if isinstance(module, LeakyReLU):
        builder.looked_at(module, "negative_slope")
        numbers = [module.negative_slope]
    kind, turned = next(_ELEMENTWISE[own] for own in _ELEMENTWISE if isinstance(module, own))
    lanes = _within(builder, lanes, module.codomain if inverse else module.domain)
    return builder.step(kind, lanes, len(lanes), options=[inverse != turned], numbers=numbers)


def _within(builder: Builder, lanes: Lanes, domain: Constraint) -> Lanes:
    """The numbers nearest to these inside, as of :func:`bslfast.flows.domains.mapped_inside`."""
    ends = [nearest_ends(domain, dtype) for dtype in (torch.float32, torch.float64)]
    numbers = [end for pair in ends if pair is not None for end in pair]
    return builder.step("within", lanes, len(lanes), numbers=numbers) if numbers else lanes


@lowers(Coupling)
def _coupling(builder: Builder, module: Coupling, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "map")
    order = list(range(module.features))
    if module.permutation is not None:
        builder.looked_at(module.permutation)
        order = builder.read(module.permutation.order)
    if getattr(module.conditioner, "context", module.context) != module.context:
        raise CannotLower("a coupling and its conditioner differ in their context")
    lanes = _within(builder, lanes, module.map.domain)
    split = module.sizes[0]
    first, second = order[:split], order[split:]
    moved, kept = (first, second) if module.flip else (second, first)
    parameters = _chosen(builder, module.conditioner, [lanes[i] for i in kept])
    found = _mapped(builder, module.map, [lanes[i] for i in moved], parameters, inverse)
    lanes = list(lanes)
    for index, lane in zip(moved, found, strict=True):
        lanes[index] = lane
    return lanes


@lowers(Autoregressive)
def _autoregressive(builder: Builder, module: Autoregressive, lanes: Lanes, inverse: bool) -> Lanes:
    builder.looked_at(module, "map", "order")
    lanes = _within(builder, lanes, module.map.domain)
    if not inverse:
        parameters = _chosen(builder, module.conditioner, lanes)
        return _mapped(builder, module.map, lanes, parameters, False)
    network = module.conditioner
    # A subclass may compute what MADE does, with other degrees.
    computed = getattr(type(network), "forward", None), getattr(type(network), "in_order", None)
    if not isinstance(network, MADE) or computed != (MADE.forward, MADE.in_order):
        raise CannotLower(f"{type(network).__name__} has no steps in order")
    return _solve(builder, module.map, network, lanes)


# --- bases: (builder, base, lanes) ----------------------------------------------------------------


@lowers(NormalBase)
def _normal_base(
    builder: Builder, base: NormalBase, lanes: Lanes, drawn: bool = False
) -> Lanes | None:
    """The log density of lanes; with ``drawn``, what they become as noise."""
    builder.looked_at(base)
    parameters = _chosen(builder, base.conditioner, [])
    count = len(lanes)
    if drawn:
        return _affine(builder, lanes, parameters[:count], parameters[count:], "exp", False)
    standard = _affine(builder, lanes, parameters[:count], parameters[count:], "exp", True)
    builder.step("standard_normal", standard, 0)
    return None


@lowers(StudentTBase)
def _student_t_base(builder: Builder, base: StudentTBase, lanes: Lanes) -> None:
    builder.looked_at(base)
    parameters = _chosen(builder, base.conditioner, [])
    count = len(lanes)
    df = activated(builder, "exp", parameters[:count])
    log_scale = PARAMETRIZATIONS.index("log_scale")
    builder.step("student_t_log_prob", lanes + df + parameters[count:], 0, options=[log_scale])


@lowers(NormalMixtureBase)
def _normal_mixture_base(builder: Builder, base: NormalMixtureBase, lanes: Lanes) -> None:
    builder.looked_at(base, "components")
    parameters = _chosen(builder, base.conditioner, [])
    builder.step("normal_mixture_log_prob", lanes + parameters, 0, options=[base.components])


@lowers(UniformBase)
def _uniform_base(builder: Builder, base: UniformBase, lanes: Lanes) -> None:
    builder.looked_at(base, "low", "high")
    numbers = [base.low, base.high, -math.log(base.high - base.low)]
    builder.step("uniform_log_prob", lanes, 0, options=[0], numbers=numbers)


@lowers(VonMisesBase)
def _von_mises_base(builder: Builder, base: VonMisesBase, lanes: Lanes) -> None:
    builder.looked_at(base)
    lanes = _within(builder, lanes, base.support)
    parameters = _chosen(builder, base.conditioner, [])
    count = len(lanes)
    concentration = activated(builder, "exp", parameters[count:])
    inputs = lanes + parameters[:count] + concentration
    builder.step("von_mises_log_prob", inputs, 0, options=[0])


# --- networks: (builder, network, lanes) -> lanes -------------------------------------------------


def _chosen(builder: Builder, network: nn.Module, lanes: Lanes) -> Lanes:
    found: Lanes = lower(builder, network, lanes)
    return found


@lowers(Conditioner, MADE)
def _conditioner(builder: Builder, network: Conditioner, lanes: Lanes) -> Lanes:
    _look_at_network(builder, network)
    if network.constant is not None:
        return constant(builder, network.constant)
    first, *rest = network.layers
    h = _layer(builder, first, lanes if network.inputs else builder.context)
    of_context = network.context_layers()
    if 0 in of_context:
        h = _layer(builder, of_context[0], builder.context, h)
    if not network.residual:
        for layer in rest:
            h = _layer(builder, layer, _activated(builder, network, h))
        return h
    blocks = len(rest) - 1 - 2 * network.residual
    for layer in rest[:blocks]:
        h = _layer(builder, layer, _activated(builder, network, h))
    for index in range(blocks, len(rest) - 1, 2):
        inner, outer = rest[index : index + 2]
        a = _layer(builder, inner, _activated(builder, network, h))
        if index + 1 in of_context:
            a = _layer(builder, of_context[index + 1], builder.context, a)
        h = _layer(builder, outer, _activated(builder, network, a), h)
    return _layer(builder, rest[-1], h)


def _look_at_network(builder: Builder, network: Conditioner) -> None:
    builder.looked_at(network, "activation", "residual", "inputs")
    builder.looked_at(network.layers)
    layers = list(network.layers)
    layers += network.context_layers().values()
    for layer in layers:
        builder.looked_at(layer)


def _layer(builder: Builder, layer: nn.Module, lanes: Lanes, added: Lanes | None = None) -> Lanes:
    """What a layer makes of lanes, of whatever class it is, with other lanes added to it."""
    if added is not None and isinstance(layer, nn.Linear):
        return lower(builder, layer, lanes, added)  # type: ignore[no-any-return]
    found: Lanes = lower(builder, layer, lanes)
    if added is None:
        return found
    return builder.step("additive", added + found, len(found), options=[False])


@lowers(_Layer)
def _dense_layer(
    builder: Builder, layer: _Layer, lanes: Lanes, added: Lanes | None = None
) -> Lanes:
    builder.looked_at(layer)
    return dense(builder, lanes, layer.weight, layer.bias, added)


@lowers(_MaskedLayer)
def _masked(
    builder: Builder, layer: _MaskedLayer, lanes: Lanes, added: Lanes | None = None
) -> Lanes:
    _check_mask(builder, layer)
    return dense(builder, lanes, layer.weight, layer.bias, added, (layer.seen, layer.sees))


def _check_mask(builder: Builder, layer: _MaskedLayer) -> None:
    if builder.read(layer.mask) != layer.wanted_mask().tolist():
        raise CannotLower("a mask differs from what the degrees say")


@lowers(_BayesLayer, _BayesMaskedLayer)
def _drawn(builder: Builder, layer: nn.Module, lanes: Lanes, added: Lanes | None = None) -> Lanes:
    raise CannotLower(DRAWN)


def _activated(builder: Builder, network: Conditioner, lanes: Lanes) -> Lanes:
    return activated(builder, network.activation, lanes)


# --- maps: (builder, map, lanes, parameters, inverse) -> lanes ------------------------------------


def _mapped(builder: Builder, map: Map, lanes: Lanes, parameters: Lanes, inverse: bool) -> Lanes:
    found: Lanes = lower(builder, map, lanes, parameters, inverse)
    return found


@lowers(Additive)
def _additive(
    builder: Builder, map: Additive, lanes: Lanes, parameters: Lanes, inverse: bool
) -> Lanes:
    return builder.step("additive", lanes + parameters, len(lanes), options=[inverse])


@lowers(Affine)
def _affine_map(
    builder: Builder, map: Affine, lanes: Lanes, parameters: Lanes, inverse: bool
) -> Lanes:
    count = len(lanes)
    return _affine(builder, lanes, parameters[:count], parameters[count:], map.scale_fn, inverse)


def _affine(
    builder: Builder, lanes: Lanes, shift: Lanes, raw: Lanes, scale_fn: str, inverse: bool
) -> Lanes:
    return builder.step(
        "affine_coupling",
        lanes + shift + raw,
        len(lanes),
        options=[2 * SCALE_FNS.index(scale_fn) + inverse],
    )


def _by_rows(
    builder: Builder,
    kind: str,
    lanes: Lanes,
    parameters: Lanes,
    variant: int,
    widths: Sequence[int],
    numbers: Sequence[float] = (),
) -> Lanes:
    return builder.step(
        kind, lanes + parameters, len(lanes), options=[variant, *widths], numbers=numbers
    )


@lowers(Spline)
def _spline(builder: Builder, map: Spline, lanes: Lanes, parameters: Lanes, inverse: bool) -> Lanes:
    return _by_rows(
        builder,
        "rational_quadratic_spline",
        lanes,
        parameters,
        2 * TAILS.index(map.tails) + inverse,
        (map.bins, map.bins, map.bins + EXTRA_SLOPES[map.tails]),
        (map.bound, map.min_bin_width, map.min_bin_height, map.min_derivative),
    )


@lowers(MixtureLogistic, DeepSigmoidal)
def _components(
    builder: Builder,
    map: MixtureLogistic | DeepSigmoidal,
    lanes: Lanes,
    parameters: Lanes,
    inverse: bool,
) -> Lanes:
    name = "mixture_logistic" if isinstance(map, MixtureLogistic) else "deep_sigmoidal"
    widths = (map.components,) * 3
    return _by_rows(builder, f"{name}_transform", lanes, parameters, inverse, widths)


@lowers(Bernstein)
def _bernstein(
    builder: Builder, map: Bernstein, lanes: Lanes, parameters: Lanes, inverse: bool
) -> Lanes:
    return _by_rows(
        builder,
        "bernstein_transform",
        lanes,
        parameters,
        inverse,
        (map.degree + 1,),
        (map.bound,),
    )


# --- the inverse of an autoregressive transform ---------------------------------------------------


def _solve(builder: Builder, map: Map, network: MADE, lanes: Lanes) -> Lanes:
    """One feature after the other, as :meth:`MADE.in_order` does: each weight is used once."""
    _look_at_network(builder, network)
    for layer in network.layers if network.inputs else ():
        if type(layer) is not _MaskedLayer:
            drawn = isinstance(layer, _BayesMaskedLayer)
            raise CannotLower(DRAWN if drawn else f"{type(layer).__name__} has no steps in order")
        _check_mask(builder, layer)
    if not network.inputs:
        return _mapped(builder, map, lanes, _chosen(builder, network, []), True)
    layers: list[Any] = list(network.layers)
    last = len(layers) - 1
    blocks = last - 2 * network.residual
    # The lanes of each layer's inputs, as far as they are known. Features that are not known yet
    # are masked.
    known: list[Lanes] = [list(lanes), *([] for _ in range(last))]
    ends = network._ends
    from_context = {
        index: _layer(builder, layer, builder.context)
        for index, layer in network.context_layers().items()
    }

    def outputs(index: int, place: int, added: Lanes | None = None) -> Lanes:
        """What a layer makes of inputs of which the last ones have just become known."""
        layer = layers[index]
        if index == last:
            rows = [row for row, own in enumerate(network._places) if own == place]
        else:
            rows = list(range(*ends[index][place : place + 2]))
        found: Lanes = []
        for part in _progressions(rows):
            levels = None
            if index == 0:
                levels = (layer.seen, [layer.sees[row] for row in part])
            if index in from_context:
                added = [from_context[index][row] for row in part]
            found += builder.dense(
                known[index],
                len(part),
                layer.weight,
                layer.bias,
                rows=part,
                levels=levels,
                added=added,
            )
        return found

    for place, feature in enumerate(network.order):
        h = outputs(0, place)
        for index in range(1, blocks):
            known[index] += _activated(builder, network, h)
            h = outputs(index, place)
        for index in range(blocks, last, 2):
            known[index] += _activated(builder, network, h)
            known[index + 1] += _activated(builder, network, outputs(index, place))
            h = outputs(index + 1, place, h)
        if last:
            known[last] += h if network.residual else _activated(builder, network, h)
            h = outputs(last, place)
        [known[0][feature]] = _mapped(builder, map, [lanes[feature]], h, True)
    return known[0]


def _progressions(rows: list[int]) -> list[range]:
    """Rising numbers in parts that are evenly spaced."""
    found: list[range] = []
    for row in rows:
        if found and len(found[-1]) == 1:
            found[-1] = range(found[-1].start, row + 1, row - found[-1].start)
        elif found and row == found[-1][-1] + found[-1].step:
            found[-1] = range(found[-1].start, row + 1, found[-1].step)
        else:
            found.append(range(row, row + 1))
    return found
