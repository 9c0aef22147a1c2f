"""normflows: flows of couplings, splines, planar and radial transforms.

Its transforms lead from noise to data, bslfast's from data to noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import NormalBase
from bslfast.flows.coupling import Coupling
from bslfast.flows.flow import Flow
from bslfast.flows.maps import Additive, Map
from bslfast.flows.normalization import ActNorm
from bslfast.flows.planar import Planar
from bslfast.flows.radial import Radial
from bslfast.flows.transform import Composite, Inverse, Permutation, Transform
from bslfast.patch import networks, nflows
from bslfast.patch.maps import PeerAffine
from bslfast.patch.networks import NoCounterpart
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
from bslfast.programs import Builder, Lanes, lower, lowers

F = "normflows.flows"


@converts(
    "normflows.core.NormalizingFlow",
    "normflows.core.ConditionalNormalizingFlow",
    becomes="`Flow`, without the target `p`; `sample` returns no densities",
)
def _flow(flow: Any, conversion: Conversion) -> nn.Module:
    base, *steps = conversion.all([flow.q0, *flow.flows])
    found = Flow(Composite(steps[::-1]), None if base is nflows.STANDARD_NORMAL else base)
    # Before its first batch an ActNorm there takes any for that, also in evaluation mode.
    if all(part.initialized for part in found.modules() if isinstance(part, ActNorm)):
        agree(flow, found, _log_probs, (found.features, found.context))
    return found


def _log_probs(theirs: Any, ours: Any, x: Tensor, context: Any) -> tuple[Tensor, Tensor]:
    given = (x,) if context is None else (x, context)
    return theirs.log_prob(*given), ours.log_prob(*given)


@converts(
    "normflows.distributions.base.DiagGaussian",
    becomes="standard normal noise, or `NormalBase`",
)
def _base(base: Any, conversion: Conversion) -> Any:
    if len(base.shape) != 1 or base.temperature is not None:
        raise Refusal("noise of several dimensions, or with a temperature")
    parts = base.loc, base.log_scale
    learned = [part.requires_grad for part in parts]
    if not any(learned) and not any(part.any() for part in parts):
        return nflows.STANDARD_NORMAL
    if learned[0] != learned[1]:
        raise Refusal("locations and scales of which only one kind is frozen")
    found = NormalBase(base.shape[0], **options(base))
    constant = found.conditioner.constant
    assert constant is not None
    put(constant, *parts, make=networks.side_by_side)
    return found


# --- elementary transforms ------------------------------------------------------------------------


@converts(f"{F}.mixing.Permute", becomes="`Permutation`")
def _permute(module: Any, conversion: Conversion) -> Transform:
    count = module.num_channels
    if module.mode == "shuffle":
        return Permutation(module.inv_perm, device=module.inv_perm.device)
    half = (count + 1) // 2
    return Permutation([*range(half, count), *range(half)])


@converts(
    f"{F}.mixing.LULinearPermute",
    becomes="`Permutation`, `PLULinear` and an `ActNorm` that shifts; as `LULinear` of nflows",
)
def _lu_linear(module: Any, conversion: Conversion) -> Transform:
    order = module.permutation._permutation
    return Composite(
        [Permutation(order, device=order.device), *nflows.lu_linear(module.linear).transforms]
    )


@converts(
    f"{F}.normalization.ActNorm",
    f"{F}.affine.coupling.AffineConstFlow",
    becomes="`ActNorm`; the variance of the first batch is not corrected for its size",
)
def _act_norm(module: Any, conversion: Conversion) -> Transform:
    if module.s.dim() != 2:
        raise Refusal(f"scales of shape {list(module.s.shape[1:])}")
    found = ActNorm(module.s.shape[1], **options(module))
    put(found.loc, module.t)
    put(found.log_scale, module.s)
    done = bool(getattr(module, "data_dep_init_done", 1.0) > 0)
    if not done and not module.training:
        raise Refusal("an ActNorm in evaluation mode that has seen no batch")
    found.initialized.fill_(done)
    return found


@converts(f"{F}.planar.Planar", becomes="`Inverse` of a `Planar`, with an inverse; tanh")
def _planar(module: Any, conversion: Conversion) -> Transform:
    if module.act != "tanh" or module.w.dim() != 2:
        raise Refusal(f"planar transforms by {module.act}, of shape {list(module.w.shape[1:])}")
    found = Planar(module.w.shape[1], **options(module))
    for own, their in ((found.u, module.u), (found.w, module.w), (found.b, module.b)):
        put(own, their)
    return Inverse(found)


def _raw_alpha(alpha: Tensor) -> Tensor:
    """What softplus makes the size of alpha of."""
    size = alpha.double().abs()
    return size + (-torch.expm1(-size)).log()


@converts(
    f"{F}.radial.Radial",
    becomes="`Inverse` of a `Radial`, with an inverse; it learns another function of alpha",
)
def _radial(module: Any, conversion: Conversion) -> Transform:
    if module.z_0.dim() != 2:
        raise Refusal(f"radial transforms of shape {list(module.z_0.shape[1:])}")
    if not module.alpha.abs() > 0:
        raise Refusal("a radial transform with alpha = 0")
    found = Radial(module.z_0.shape[1], **options(module))
    put(found.x0, module.z_0)
    put(found.raw_alpha, module.alpha, make=_raw_alpha)
    put(found.raw_beta, module.beta)
    return Inverse(found)


# --- affine couplings -----------------------------------------------------------------------------


class Scattered(nn.Module):
    """A network that takes all features and makes as many numbers, of which some count.

    Args:
        network, why: as of :class:`Kept`.
        kept: the features that it sees; the others are 0.
        moved: the numbers that count.
    """

    kept: Tensor
    moved: Tensor

    def __init__(self, network: nn.Module, why: object, kept: Tensor, moved: Tensor) -> None:
        super().__init__()
        self.network = Kept(network, why, joined=True, context=0)
        self.register_buffer("kept", kept)
        self.register_buffer("moved", moved)

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers that count."""
        whole = x.new_zeros(*x.shape[:-1], len(self.kept) + len(self.moved))
        found: Tensor = self.network(whole.index_copy(-1, self.kept, x))
        return found.index_select(-1, self.moved)


class Pair(nn.Module):
    """Shifts by a network, and what scales are made of by another one.

    Args:
        shift, scale: the networks; None for zeros.
        outputs: of each.
    """

    def __init__(self, shift: nn.Module | None, scale: nn.Module | None, outputs: int) -> None:
        super().__init__()
        self.shift, self.scale, self.outputs = shift, scale, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return both, side by side."""
        zeros = x.new_zeros(*x.shape[:-1], self.outputs)
        parts = [zeros if part is None else part(x) for part in (self.shift, self.scale)]
        return torch.cat(parts, dim=-1)


@lowers(Pair)
def _pair(builder: Builder, module: Pair, lanes: Lanes) -> Lanes:
    builder.looked_at(module, "outputs")
    found: Lanes = []
    for part in (module.shift, module.scale):
        # Lanes of nothing: a dense layer without weights.
        zeros = builder.dense([], module.outputs, None, None) if part is None else None
        found += lower(builder, part, lanes) if zeros is None else zeros
    return found


@converts(f"{F}.affine.coupling.MaskedAffineFlow", becomes="`Inverse` of an affine `Coupling`")
def _masked_affine(module: Any, conversion: Conversion) -> Transform:
    mask = module.b.flatten()
    if module.b.dim() != 2 or not bool(((mask == 0) | (mask == 1)).all()):
        raise Refusal("masks that are no vectors of zeros and ones")
    kept, moved = (mask == 1).nonzero().flatten(), (mask == 0).nonzero().flatten()
    of_shift, of_scale = (
        {id(p) for p in part.parameters()} if isinstance(part, nn.Module) else set()
        for part in (module.t, module.s)
    )
    if of_shift & of_scale:
        raise Refusal("layers of both networks, which would become two")
    shift, scale = (
        _scattered(part, kept, moved) if isinstance(part, nn.Module) else None
        for part in (module.t, module.s)
    )
    pair = Pair(shift, scale, len(moved))
    return Inverse(Coupling(PeerAffine("exp"), (mask == 0).tolist(), pair))


def _scattered(network: nn.Module, kept: Tensor, moved: Tensor) -> nn.Module:
    try:
        layers = _mlp(network)
        made = networks.part_of(layers, kept, moved, "relu")
    except NoCounterpart as why:
        return Scattered(network, why, kept, moved)
    return made


def _mlp(network: Any) -> list[Any]:
    """The dense layers of a network with relu between them."""
    if class_name(network) != "normflows.nets.mlp.MLP":
        raise NoCounterpart("another network")
    layers, activations = list(network.net)[::2], list(network.net)[1::2]
    leaky = all(type(a) is nn.LeakyReLU and a.negative_slope == 0 for a in activations)
    if not leaky or not all(type(layer) is nn.Linear for layer in layers):
        raise NoCounterpart("an activation that is no relu, or something behind the last layer")
    return layers


@converts(
    f"{F}.affine.coupling.AffineCouplingBlock",
    becomes="`Inverse` of an affine `Coupling` or of one of `Additive`; splits of channels",
)
def _coupling_block(module: Any, conversion: Conversion) -> Transform:
    split, coupling, _ = module.flows
    if split.mode not in ("channel", "channel_inv"):
        raise Refusal(f"the split {split.mode!r}")
    features = _features(conversion)
    first = (features + 1) // 2
    moves = [(index >= first) == (split.mode == "channel") for index in range(features)]
    map: Map = Additive()
    if coupling.scale:
        kind = {"exp": "exp", "sigmoid": "sigmoid_inverse", "sigmoid_inv": "sigmoid"}
        map = PeerAffine(kind[coupling.scale_map], layout="shift, scale")
    try:
        kept = features - sum(moves)
        network: nn.Module = networks.conditioner(_mlp(coupling.param_map), kept, 0, "relu")
    except NoCounterpart as why:
        network = Kept(coupling.param_map, why, joined=True, context=0)
    return Inverse(Coupling(map, moves, network))


def _features(conversion: Conversion) -> int:
    for module in conversion.root.modules():
        if class_name(module) == "normflows.distributions.base.DiagGaussian":
            shape: Any = module.shape
            return int(shape[0])
    raise Refusal("it does not say how many features it has")


# --- splines and autoregressive transforms --------------------------------------------------------


@converts(
    f"{F}.neural_spline.wrapper.CoupledRationalQuadraticSpline",
    becomes="`Coupling` of a spline, for either part of the features; linear tails",
)
def _coupled_spline(module: Any, conversion: Conversion) -> Transform:
    inner = module.prqct
    spline = nflows.spline_of(inner, inner.num_bins, nflows.divisor_of(inner.transform_net))
    return nflows.coupled(inner, spline, conversion)


@converts(
    f"{F}.neural_spline.wrapper.AutoregressiveRationalQuadraticSpline",
    becomes="`Autoregressive` of a spline",
)
def _autoregressive_spline(module: Any, conversion: Conversion) -> Transform:
    inner = module.mprqat
    spline = nflows.spline_of(inner, inner.num_bins, nflows.divisor_of(inner.autoregressive_net))
    return nflows.autoregressive(inner, spline, conversion)


@converts(
    f"{F}.affine.autoregressive.MaskedAffineAutoregressive",
    becomes="`Inverse` of an `Autoregressive` of an affine map",
)
def _masked_autoregressive(module: Any, conversion: Conversion) -> Transform:
    map = PeerAffine("sigmoid", 1e-3, "scale, shift")
    transform = nflows.autoregressive(module, map, conversion)
    assert isinstance(transform, Autoregressive)
    return Inverse(transform)
