"""nflows: flows, transforms, bases and networks; and its splines by bslfast's op."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import NormalBase
from bslfast.flows.conditioners import Conditioner
from bslfast.flows.coupling import Coupling
from bslfast.flows.elementwise import LeakyReLU, Tanh
from bslfast.flows.flow import Flow
from bslfast.flows.linear import PLULinear
from bslfast.flows.maps import Additive, Map, Spline
from bslfast.flows.normalization import ActNorm, BatchNorm, Standardize
from bslfast.flows.transform import Composite, Inverse, Permutation, Transform
from bslfast.patch import networks
from bslfast.patch.maps import PeerAffine, ScaledSpline
from bslfast.patch.networks import Constant, NoCounterpart
from bslfast.patch.registry import (
    Conversion,
    Kept,
    Refusal,
    agree,
    class_name,
    converts,
    options,
    put,
)

T = "nflows.transforms"
_AFFINE = (f"{T}.standard.PointwiseAffineTransform", f"{T}.standard.AffineTransform")


# --- flows and bases ------------------------------------------------------------------------------


class EmbeddedFlow(nn.Module):
    """A flow whose context a network makes of what is given: nflows' ``embedding_net``.

    Args:
        flow: it, with a context.
        network: makes a context [..., flow.context].

    Shape: x [..., features] and what the network takes -> log densities [...].

    Raises:
        TypeError, ValueError: what the flow raises.

    >>> import torch, bslfast
    >>> flow = bslfast.flows.RealNVP(3, context=2)
    >>> embedded = bslfast.patch.EmbeddedFlow(flow, torch.nn.Linear(7, 2))
    >>> embedded.log_prob(torch.randn(5, 3), torch.randn(5, 7)).shape
    torch.Size([5])
    >>> embedded.sample(4, torch.randn(5, 7)).shape
    torch.Size([5, 4, 3])
    """

    def __init__(self, flow: Flow, network: nn.Module) -> None:
        super().__init__()
        self.flow, self.network = flow, network

    def log_prob(self, x: Tensor, context: Tensor) -> Tensor:
        """See :meth:`bslfast.flows.Flow.log_prob`."""
        return self.flow.log_prob(x, self.network(context))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return :meth:`log_prob`."""
        return self.log_prob(x, context)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor, *, seed: int | Tensor | None = None) -> Tensor:
        """See :meth:`bslfast.flows.Flow.sample`."""
        return self.flow.sample(n, self.network(context), seed=seed)

    def rsample_and_log_prob(
        self, n: int, context: Tensor, *, seed: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`bslfast.flows.Flow.rsample_and_log_prob`."""
        return self.flow.rsample_and_log_prob(n, self.network(context), seed=seed)


@converts(
    "nflows.flows.base.Flow",
    "nflows.flows.autoregressive.MaskedAutoregressiveFlow",
    "nflows.flows.realnvp.SimpleRealNVP",
    becomes="`Flow`; with an `embedding_net`, `patch.EmbeddedFlow`",
)
def _flow(flow: Any, conversion: Conversion) -> nn.Module:
    transform, base = conversion.all([flow._transform, flow._distribution])
    if not isinstance(transform, Composite):
        transform = Composite([transform])
    found = Flow(transform, None if base is STANDARD_NORMAL else base)
    agree(flow, found, _log_probs, (found.features, found.context))
    # A flow without parameters says by this what dtype it has.
    found._empty = found._empty.to(**options(flow._transform))
    if type(flow._embedding_net) is nn.Identity:
        return found
    if not found.context:
        raise Refusal("an embedding_net, but no part that is known to take a context")
    return EmbeddedFlow(found, conversion.kept(flow._embedding_net))


def _log_probs(theirs: Any, ours: Any, x: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    z, log_det = theirs._transform(x, context)
    return theirs._distribution.log_prob(z, context) + log_det, ours.log_prob(x, context)


#: What becomes no module: a flow without a base has standard normal noise.
STANDARD_NORMAL = object()


def _vector(shape: torch.Size) -> int:
    if len(shape) != 1:
        raise Refusal(f"noise of shape {list(shape)}, where bslfast's flows have vectors")
    return shape[0]


@converts("nflows.distributions.normal.StandardNormal", becomes="standard normal noise")
def _standard_normal(base: Any, conversion: Conversion) -> object:
    _vector(base._shape)
    return STANDARD_NORMAL


@converts("nflows.distributions.normal.DiagonalNormal", becomes="`NormalBase`")
def _diagonal_normal(base: Any, conversion: Conversion) -> NormalBase:
    found = NormalBase(_vector(base._shape), **options(base))
    constant = found.conditioner.constant
    assert constant is not None
    if base.mean_.requires_grad != base.log_std_.requires_grad:
        raise Refusal("means and scales of which only one kind is frozen")
    put(constant, base.mean_, base.log_std_, make=networks.side_by_side)
    return found


@converts(
    "nflows.distributions.normal.ConditionalDiagonalNormal",
    becomes="`NormalBase`, of an encoder that is an `nn.Linear`",
)
def _conditional_normal(base: Any, conversion: Conversion) -> NormalBase:
    features, encoder = _vector(base._shape), base._context_encoder
    if type(encoder) is not nn.Linear or encoder.bias is None:
        raise Refusal("a context_encoder that is no nn.Linear with a bias")
    if encoder.out_features != 2 * features:
        raise Refusal(f"a context_encoder with {encoder.out_features} outputs")
    found = NormalBase(features, context=encoder.in_features, **options(encoder))
    own: Any = found.conditioner.layers[0]
    put(own.weight, encoder.weight)
    put(own.bias, encoder.bias)
    return found


# --- transforms -----------------------------------------------------------------------------------


def features_of(module: nn.Module) -> int:
    """The number of features of a transform, as its parts have it."""
    parts: Any = module.modules()
    for part in parts:
        kind = class_name(part)
        found = getattr(part, "features", None)
        if isinstance(part, nn.Linear):
            continue
        if len(getattr(part, "_shape", ())) == 1:
            found = part._shape[0]
        elif hasattr(part, "_permutation"):
            found = len(part._permutation)
        elif kind == f"{T}.made.MADE":
            found = part.initial_layer.in_features
        elif kind == f"{T}.normalization.ActNorm":
            found = len(part.shift)
        elif kind == f"{T}.normalization.BatchNorm":
            found = len(part.bias)
        elif kind in _AFFINE:
            found = part._shift.numel() if part._shift.dim() == 1 else None
        elif hasattr(part, "unnormalized_widths"):
            found = part.unnormalized_widths.shape[0]
        if isinstance(found, int):
            return found
    raise Refusal("it does not say how many features it has")


def _with_features(module: nn.Module, conversion: Conversion) -> int:
    """The same of a part that does not say it: of the whole model."""
    try:
        return features_of(module)
    except Refusal:
        return features_of(conversion.root)


@converts(f"{T}.base.CompositeTransform", becomes="`Composite`")
def _composite(module: Any, conversion: Conversion) -> Transform:
    parts = conversion.all(module._transforms)
    return Composite(parts)


@converts(f"{T}.base.InverseTransform", becomes="`Inverse`")
def _inverse(module: Any, conversion: Conversion) -> Transform:
    return Inverse(conversion.part(module._transform))


@converts(
    f"{T}.permutations.Permutation",
    f"{T}.permutations.RandomPermutation",
    f"{T}.permutations.ReversePermutation",
    becomes="`Permutation`",
)
def _permutation(module: Any, conversion: Conversion) -> Transform:
    if module._dim != 1:
        raise Refusal(f"a permutation of dimension {module._dim}")
    return Permutation(module._permutation, device=module._permutation.device)


@converts(f"{T}.standard.IdentityTransform", becomes="`Permutation`, of nothing")
def _identity(module: Any, conversion: Conversion) -> Transform:
    return Permutation(range(_with_features(module, conversion)))


@converts(*_AFFINE, becomes="`Standardize`")
def _pointwise_affine(module: Any, conversion: Conversion) -> Transform:
    features = _with_features(module, conversion)
    return standardize(features, module._shift, module._scale, **options(module))


def standardize(features: int, shift: Tensor, scale: Tensor, **options: Any) -> Standardize:
    """The map ``scale * x + shift`` of vectors of a size, by numbers that are not learned."""
    found = Standardize(features, **options)

    def loc(shift: Tensor, scale: Tensor) -> Tensor:
        return -(shift.double() / scale.double()).expand(features)

    put(found.loc, shift, scale, make=loc)
    put(found.log_scale, scale, make=lambda s: -s.double().log().expand(features))
    return found


@converts(
    f"{T}.lu.LULinear",
    becomes="`PLULinear`, and an `ActNorm` that shifts; it learns logarithms of the diagonal",
)
def _lu_linear(module: Any, conversion: Conversion) -> Transform:
    return lu_linear(module)


def lu_linear(module: Any) -> Composite:
    """The map by a product of triangles, and a shift."""
    size = module.features
    found, shift = PLULinear(size, **options(module)), ActNorm(size, **options(module))
    entries = (module.lower_entries, module.upper_entries, module.unconstrained_upper_diag)
    if len({p.requires_grad for p in entries if p.numel()}) > 1:
        raise Refusal("triangles of which only one is frozen")
    below, above = torch.tril_indices(size, size, -1), torch.triu_indices(size, size, 1)

    def factors(raw: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        diagonal: Tensor = (F.softplus(raw) + module.eps).double().log().diag()
        entries = diagonal.index_put((below[0], below[1]), lower.double())
        return entries.index_put((above[0], above[1]), upper.double())

    parts = (module.unconstrained_upper_diag, module.lower_entries, module.upper_entries)
    put(found.weight.factors, *parts, make=factors)
    put(shift.loc, module.bias, make=torch.neg)
    shift.log_scale.requires_grad_(False)
    shift.initialized.fill_(True)
    return Composite([found, shift])


@converts(
    f"{T}.normalization.ActNorm",
    becomes="`ActNorm`; the variance of the first batch is not corrected for its size",
)
def _act_norm(module: Any, conversion: Conversion) -> Transform:
    found = ActNorm(len(module.shift), **options(module))

    def loc(shift: Tensor, log_scale: Tensor) -> Tensor:
        return -shift.double() * (-log_scale.double()).exp()

    put(found.log_scale, module.log_scale, make=torch.neg)
    put(found.loc, module.shift, module.log_scale, make=loc)
    found.initialized.copy_(module.initialized)
    return found


@converts(
    f"{T}.normalization.BatchNorm",
    becomes="`BatchNorm`; in training mode the variance of a batch is not corrected for its size",
)
def _batch_norm(module: Any, conversion: Conversion) -> Transform:
    found = BatchNorm(len(module.bias), momentum=module.momentum, eps=module.eps, **options(module))
    put(found.log_gain, module.unconstrained_weight, make=lambda _: module.weight.log())
    put(found.bias, module.bias)
    put(found.running_mean, module.running_mean)
    # There eps is added to the variance, here it is the least one.
    put(found.running_var, module.running_var, make=lambda variance: variance + module.eps)
    return found


@converts(f"{T}.nonlinearities.LeakyReLU", becomes="`LeakyReLU`")
def _leaky_relu(module: Any, conversion: Conversion) -> Transform:
    return LeakyReLU(_with_features(module, conversion), negative_slope=module.negative_slope)


@converts(f"{T}.nonlinearities.Tanh", becomes="`Tanh`")
def _tanh(module: Any, conversion: Conversion) -> Transform:
    return Tanh(_with_features(module, conversion))


@converts(
    f"{T}.nonlinearities.PiecewiseRationalQuadraticCDF",
    becomes="`Coupling` of all features, with learned constants; linear tails",
)
def _cdf(module: Any, conversion: Conversion) -> Transform:
    if module.unnormalized_widths.dim() != 2:
        raise Refusal(f"splines of shape {list(module.unnormalized_widths.shape[:-1])}")
    features, bins = module.unnormalized_widths.shape
    return Coupling(spline_of(module, bins, 1.0), [True] * features, _cdf_values(module))


def _cdf_values(module: Any) -> Constant:
    parts = [
        module.unnormalized_widths,
        module.unnormalized_heights,
        module.unnormalized_derivatives,
    ]
    if len({p.requires_grad for p in parts}) > 1:
        raise Refusal("parameters of splines of which only some are frozen")
    return Constant(*parts, make=lambda *given: torch.cat(given, dim=-1))


def spline_of(module: Any, bins: int, divisor: float) -> Map:
    """The splines of a module; ``divisor`` as of :class:`ScaledSpline`."""
    if isinstance(module.tail_bound, Tensor):
        raise Refusal("splines whose bounds differ between features")
    if module.tails != "linear":
        raise Refusal(f"splines on [0, 1], with tails={module.tails!r}")
    bound = float(module.tail_bound)
    least = (module.min_bin_width, module.min_bin_height, module.min_derivative)
    plain = Spline(bins, bound, "linear", *least)
    return plain if divisor == 1 else ScaledSpline(bins, bound, divisor, *least)


def divisor_of(network: Any) -> float:
    """What the networks' outputs for widths and heights are divided by."""
    for name in ("hidden_features", "hidden_channels"):
        if hasattr(network, name):
            return math.sqrt(getattr(network, name))
    return 1.0


# --- couplings ------------------------------------------------------------------------------------


def coupled(module: Any, map: Map, conversion: Conversion) -> Transform:
    """The coupling that a module is, with this map."""
    moved = set(module.transform_features.tolist())
    mask = [index in moved for index in range(module.features)]
    context = context_of(module.transform_net, conversion)
    network = _network(module.transform_net, len(mask) - len(moved), context)
    coupling: Transform = Coupling(map, mask, network, context=context)
    unconditional = module.unconditional_transform
    if unconditional is None:
        return coupling
    if type(unconditional).__name__ != "PiecewiseRationalQuadraticCDF":
        raise Refusal("an unconditional_transform that is no PiecewiseRationalQuadraticCDF")
    spline = spline_of(unconditional, unconditional.unnormalized_widths.shape[-1], 1.0)
    others = Coupling(spline, [not moves for moves in mask], _cdf_values(unconditional))
    return Composite([coupling, others])


def context_of(network: nn.Module, conversion: Conversion) -> int:
    """The size of the context that a network takes: as it says, or as the rest of the model."""
    for part in (network, conversion.root):
        for module in part.modules():
            layer, size = getattr(module, "context_layer", None), None
            if isinstance(layer, nn.Linear):
                return layer.in_features
            encoder = getattr(module, "_context_encoder", None)
            if isinstance(encoder, nn.Linear):
                return encoder.in_features
            for name in ("context_features", "context_channels"):
                size = getattr(module, name, None)
                if isinstance(size, int):
                    return size
    return 0


def _network(network: Any, inputs: int, context: int) -> nn.Module:
    """The network of a coupling."""
    try:
        kind = class_name(network)
        if kind in ("nflows.nn.nets.resnet.ResidualNet", "normflows.nets.resnet.ResidualNet"):
            return _residual_net(network, inputs, context)
        if kind == "nflows.nn.nets.mlp.MLP" and not network._activate_output:
            layers = [network._input_layer, *network._hidden_layers, network._output_layer]
            name = networks.activation_name(network._activation)
            return networks.conditioner(layers, inputs, 0, name)
        raise NoCounterpart("another class")
    except NoCounterpart as why:
        return Kept(network, why, joined=False, context=context)


def _residual_net(network: Any, inputs: int, context: int) -> Conditioner:
    networks.check_parts(network)
    if getattr(network, "preprocessing", None) is not None:
        raise NoCounterpart("features that are made of others")
    if not len(network.blocks):
        raise NoCounterpart("two layers without an activation between them")
    if (network.context_features or 0) != context or (context and not inputs):
        raise NoCounterpart("a context that is not that of the rest")
    layers = [network.initial_layer]
    for block in network.blocks:
        layers += block.linear_layers
    return networks.conditioner(
        [*layers, network.final_layer],
        inputs,
        context,
        networks.one_activation([block.activation for block in network.blocks]),
        residual=len(network.blocks),
        gates=[block.context_layer for block in network.blocks] if context else (),
    )


@converts(f"{T}.coupling.AffineCouplingTransform", becomes="`Coupling` of an affine map")
def _affine_coupling(module: Any, conversion: Conversion) -> Transform:
    return coupled(module, PeerAffine("sigmoid", 1e-3), conversion)


@converts(f"{T}.coupling.AdditiveCouplingTransform", becomes="`Coupling` of `Additive`")
def _additive_coupling(module: Any, conversion: Conversion) -> Transform:
    return coupled(module, Additive(), conversion)


@converts(
    f"{T}.coupling.PiecewiseRationalQuadraticCouplingTransform",
    becomes="`Coupling` of a spline; linear tails",
)
def _spline_coupling(module: Any, conversion: Conversion) -> Transform:
    spline = spline_of(module, module.num_bins, divisor_of(module.transform_net))
    return coupled(module, spline, conversion)


# --- autoregressive transforms --------------------------------------------------------------------


def autoregressive(module: Any, map: Map, conversion: Conversion) -> Transform:
    """The autoregressive transform that a module is, with this map."""
    network = module.autoregressive_net
    if class_name(network) not in ("nflows.transforms.made.MADE", "normflows.nets.made.MADE"):
        raise Refusal(f"{class_name(network)} as the network, whose order is not known")
    context, order = context_of(network, conversion), _order(network)
    try:
        return Autoregressive(map, _made(network, map, order, context))
    except NoCounterpart as why:
        kept = Kept(network, why, joined=False, context=context, order=order)
        return Autoregressive(map, kept)


def _order(network: Any) -> tuple[int, ...]:
    """The features, from the one whose outputs see no hidden unit to the one that sees most."""
    features, last = network.initial_layer.in_features, network.final_layer
    seen = last.mask[:: last.out_features // features].sum(dim=1)
    return tuple(seen.argsort(stable=True).tolist())


def _made(network: Any, map: Map, order: tuple[int, ...], context: int) -> nn.Module:
    networks.check_parts(network)
    term = getattr(network, "context_layer", None)
    own = getattr(network, "activation", None)  # normflows' networks have none
    residual = getattr(network, "use_residual_blocks", True) and all(
        hasattr(block, "linear_layers") for block in network.blocks
    )
    if residual and not len(network.blocks):
        raise NoCounterpart("two layers without an activation between them")
    if term is not None and own is None:
        raise NoCounterpart("gates that a context opens")
    if type(getattr(network, "preprocessing", None)) not in (type(None), nn.Identity):
        raise NoCounterpart("features that are made of others")
    if not residual and own is None:
        raise NoCounterpart("two layers without an activation between them")
    layers = [network.initial_layer]
    for block in network.blocks:
        layers += block.linear_layers if residual else [block.linear]
    activations = [block.activation for block in network.blocks]
    return networks.made(
        [*layers, network.final_layer],
        map,
        order,
        context if term is not None else 0,
        networks.one_activation(activations if own is None else [own, *activations]),
        [layer.degrees for layer in layers],
        residual=len(network.blocks) if residual else 0,
        context_term=term,
        block_terms=[b.context_layer for b in network.blocks] if residual and term else (),
    )


@converts(
    f"{T}.autoregressive.MaskedAffineAutoregressiveTransform",
    becomes="`Autoregressive` of an affine map",
)
def _masked_affine(module: Any, conversion: Conversion) -> Transform:
    map = PeerAffine("softplus", module._epsilon, "scale, shift")
    return autoregressive(module, map, conversion)


@converts(
    f"{T}.autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform",
    becomes="`Autoregressive` of a spline; linear tails",
)
def _masked_spline(module: Any, conversion: Conversion) -> Transform:
    spline = spline_of(module, module.num_bins, divisor_of(module.autoregressive_net))
    return autoregressive(module, spline, conversion)
