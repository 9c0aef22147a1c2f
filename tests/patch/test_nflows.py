"""nflows' flows as bslfast's: values, gradients, inverses, samples, and what is refused."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bslfast
from bslfast import patch

pytest.importorskip("nflows")
from nflows import transforms as of
from nflows.distributions.normal import ConditionalDiagonalNormal, DiagonalNormal, StandardNormal
from nflows.flows.autoregressive import MaskedAutoregressiveFlow
from nflows.flows.base import Flow
from nflows.flows.realnvp import SimpleRealNVP
from nflows.nn.nets import MLP, ResidualNet
from nflows.transforms import autoregressive, coupling

D, C = 5, 3
MASK = torch.tensor([1, 0, 1, 0, 1])
SPLINE: dict[str, Any] = {"num_bins": 6, "tails": "linear", "tail_bound": 3.0}
Make = Callable[[], nn.Module]


def residual(context: int | None = None, **options: Any) -> Callable[[int, int], nn.Module]:
    return lambda n_in, n_out: ResidualNet(
        n_in, n_out, hidden_features=16, context_features=context, num_blocks=2, **options
    )


class Users(nn.Module):
    """A network of a user, with a context."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs + C, outputs)
        self.context_features = C

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        assert x.dim() == context.dim() == 2
        return self.layer(torch.cat((x, context), dim=1)).tanh()


#: The context, whether it runs as one call, and the transform.
TRANSFORMS: dict[str, tuple[int, bool, Make]] = {
    "affine, masked": (
        0,
        True,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(D, 18, num_blocks=1),
    ),
    "affine, masked, plain": (
        0,
        True,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(
            D, 17, use_residual_blocks=False, activation=torch.tanh
        ),
    ),
    "affine, masked, plain, context": (
        C,
        True,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(
            D, 17, context_features=C, use_residual_blocks=False, activation=torch.tanh
        ),
    ),
    "affine, masked, context": (
        C,
        True,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(D, 16, context_features=C),
    ),
    "affine, masked at random": (
        0,
        False,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(
            D, 16, use_residual_blocks=False, random_mask=True
        ),
    ),
    "affine, masked, narrow": (
        0,
        True,
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(D, 3, num_blocks=1),
    ),
    "spline, masked, context": (
        C,
        True,
        lambda: autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            D, 22, context_features=C, **SPLINE
        ),
    ),
    "spline, masked": (
        0,
        True,
        lambda: autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            D, 22, **SPLINE
        ),
    ),
    "affine": (0, True, lambda: coupling.AffineCouplingTransform(MASK, residual())),
    "affine, user's network": (C, False, lambda: coupling.AffineCouplingTransform(MASK, Users)),
    "additive": (0, True, lambda: coupling.AdditiveCouplingTransform(MASK, residual())),
    "spline": (
        0,
        True,
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(MASK, residual(), **SPLINE),
    ),
    "spline, all features": (
        0,
        True,
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(
            MASK, residual(), apply_unconditional_transform=True, **SPLINE
        ),
    ),
    "spline, elu": (
        0,
        False,
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(
            MASK, residual(activation=nn.functional.elu), **SPLINE
        ),
    ),
    "spline, context": (
        C,
        True,
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(MASK, residual(C), **SPLINE),
    ),
    "LU": (0, True, lambda: of.LULinear(D, identity_init=False)),
    "pointwise": (
        0,
        True,
        lambda: of.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5),
    ),
    "pointwise, a number": (0, True, lambda: of.PointwiseAffineTransform(0.5, 2.0)),
    "pointwise, by its old name": (
        0,
        True,
        lambda: of.AffineTransform(torch.randn(D), torch.rand(D) + 0.5),
    ),
    "permutation": (0, True, lambda: of.Permutation(torch.tensor([2, 0, 1, 4, 3]))),
    "constants": (0, True, lambda: of.PiecewiseRationalQuadraticCDF([D], **SPLINE)),
    "inverse": (
        0,
        True,
        lambda: of.InverseTransform(
            autoregressive.MaskedAffineAutoregressiveTransform(D, 16, num_blocks=1)
        ),
    ),
    "identity": (0, True, lambda: of.IdentityTransform()),
}


def flow_of(make: Make, base: nn.Module | None = None) -> Any:
    torch.manual_seed(0)
    steps = [make(), of.LULinear(D), of.ReversePermutation(D), of.RandomPermutation(D)]
    flow = Flow(of.CompositeTransform(steps), base or StandardNormal([D]))
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return flow.double()


@pytest.mark.filterwarnings("ignore:Use PointwiseAffineTransform")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str, compare: Any) -> None:
    context, steps, make = TRANSFORMS[name]
    flow = flow_of(make)
    compare(flow, flow.log_prob, D, context, steps=steps)


@pytest.mark.parametrize("context", [None, C])
def test_networks_without_blocks_are_kept(context: int | None, compare: Any) -> None:
    """They have no activation at all."""

    def network(n_in: int, n_out: int) -> nn.Module:
        return ResidualNet(n_in, n_out, 16, context_features=context, num_blocks=0)

    flow = flow_of(lambda: coupling.AffineCouplingTransform(MASK, network))
    compare(flow, flow.log_prob, D, context or 0, steps=False)
    flow = flow_of(lambda: autoregressive.MaskedAffineAutoregressiveTransform(D, 9, num_blocks=0))
    compare(flow, flow.log_prob, D, steps=False)


def test_mlp(monkeypatch: pytest.MonkeyPatch, compare: Any) -> None:
    """nflows itself cannot call it from a coupling, as it takes no context."""

    def mlp(a: int, b: int) -> nn.Module:
        return MLP([a], [b], [9, 8], activation=nn.Tanh())

    flow = flow_of(lambda: coupling.AffineCouplingTransform(MASK, mlp))
    with pytest.raises(patch.CannotConvert, match=r"cannot be compared .*TypeError: .*positional"):
        patch.convert(flow)
    forward = MLP.forward
    monkeypatch.setattr(MLP, "forward", lambda self, x, context=None: forward(self, x))
    ours = compare(flow, flow.log_prob, D, steps=True)
    assert isinstance(ours.transform.transforms[0].conditioner, bslfast.flows.Conditioner)


@pytest.mark.parametrize(
    "name", ["dropout", "batch norm", "weight norm", "own block", "one block twice"]
)
def test_networks_that_are_kept(name: str, compare: Any) -> None:
    def network(n_in: int, n_out: int) -> nn.Module:
        options: dict[str, Any] = {"dropout": {"dropout_probability": 0.5}}
        options["batch norm"] = {"use_batch_norm": True}
        found = residual(**options.get(name, {}))(n_in, n_out)
        if name == "weight norm":
            nn.utils.parametrizations.weight_norm(found.final_layer)
        if name == "own block":
            found.blocks[0].__class__ = type("Own", (type(found.blocks[0]),), {})
        if name == "one block twice":
            found.blocks[1] = found.blocks[0]
        return found

    flow = flow_of(lambda: coupling.AffineCouplingTransform(MASK, network)).eval()
    ours = compare(flow, flow.log_prob, D, steps=False)
    kept = ours.transform.transforms[0].conditioner
    why = {"dropout": "dropout", "batch norm": "batch norm", "own block": "a block of the class"}
    why["one block twice"] = "a layer in two places"
    assert kept.why.startswith(why.get(name, "a layer of the class torch.nn.utils.parametrize"))
    assert "why=" in repr(ours)
    # It is in the mode of the whole, and goes with it from now on.
    assert not kept.network.training
    assert ours.train()
    assert kept.network.training


def test_one_feature(compare: Any) -> None:
    torch.manual_seed(0)
    for steps, make in (
        (False, lambda: autoregressive.MaskedAffineAutoregressiveTransform(1, 8)),
        (True, lambda: of.PiecewiseRationalQuadraticCDF([1], **SPLINE)),
    ):
        flow = Flow(of.CompositeTransform([make()]), StandardNormal([1])).double()
        compare(flow, flow.log_prob, 1, steps=steps)


def test_act_norm(compare: Any) -> None:
    flow = flow_of(lambda: of.ActNorm(D))
    assert not patch.convert(flow).transform.transforms[0].initialized
    # The variances of the first n vectors differ by the factor n / (n - 1).
    ours, x = patch.convert(flow).transform.transforms[0], 3 + torch.randn(50, D).double()
    ours(x)
    flow.log_prob(x)
    assert compare(flow, flow.log_prob, D, steps=True).transform.transforms[0].initialized
    own, theirs = ours.log_scale, patch.convert(flow).transform.transforms[0].log_scale
    torch.testing.assert_close(theirs - own, torch.full_like(own, 0.5 * math.log(50 / 49)))


def test_batch_norm(compare: Any) -> None:
    flow = flow_of(lambda: of.BatchNorm(D, eps=1e-3))
    flow.log_prob(3 + torch.randn(50, D).double())
    compare(flow.eval(), flow.log_prob, D)
    # In training mode the variances of n vectors differ by the factor n / (n - 1).
    ours: Any = patch.convert(flow.train())
    x = 3 + 100 * torch.randn(5000, D).double()
    torch.testing.assert_close(ours.log_prob(x), flow.log_prob(x), rtol=0, atol=5 * D / 5000)
    running = flow._transform._transforms[0].running_var
    own = ours.transform.transforms[0].running_var
    torch.testing.assert_close(own - 1e-3, running, rtol=0, atol=1.1e-3)


@pytest.mark.parametrize("kind", ["learned", "conditional"])
def test_bases(kind: str, compare: Any) -> None:
    if kind == "learned":
        base, context = DiagonalNormal([D]), 0
    else:
        base, context = ConditionalDiagonalNormal([D], nn.Linear(C, 2 * D)), C
    network = residual(context or None)
    flow = flow_of(lambda: coupling.AffineCouplingTransform(MASK, network), base)
    compare(flow, flow.log_prob, D, context)


def test_a_network_of_the_context() -> None:
    make = TRANSFORMS["affine, masked, plain, context"][2]
    flow = flow_of(make)
    embedded = Flow(flow._transform, flow._distribution, nn.Linear(4, C)).double()
    ours: Any = patch.convert(embedded)
    assert isinstance(ours, patch.EmbeddedFlow)
    x, context = torch.randn(6, D).double(), torch.randn(6, 4).double()
    wanted = embedded.log_prob(x, context)
    torch.testing.assert_close(ours.log_prob(x, context), wanted)
    torch.testing.assert_close(ours(x, context), wanted)
    assert ours.sample(2, context).shape == (6, 2, D)
    samples, log_prob = ours.rsample_and_log_prob(1, context)
    torch.testing.assert_close(embedded.log_prob(samples[:, 0], context), log_prob[:, 0])


def test_float32_and_modes() -> None:
    flow = flow_of(TRANSFORMS["spline"][2]).float().eval()
    flow._transform._transforms[0].transform_net.initial_layer.weight.requires_grad_(False)
    ours: Any = patch.convert(flow)
    x = torch.randn(100, D)
    torch.testing.assert_close(ours.log_prob(x), flow.log_prob(x), rtol=1e-4, atol=1e-4)
    assert not any(module.training for module in ours.modules())
    frozen = [name for name, p in ours.named_parameters() if not p.requires_grad]
    assert frozen == [
        "transform.transforms.0.conditioner.layers.0.weight",
        "transform.transforms.1.transforms.1.log_scale",
    ]


def test_parts_keep_their_own_modes() -> None:
    """Such as a normalisation whose averages stay, while the rest trains; and kept networks."""
    steps = [of.BatchNorm(D), of.CompositeTransform([of.BatchNorm(D), of.LULinear(D)])]
    embedding = nn.Sequential(nn.Linear(2, C), nn.Dropout(0.5))
    make = TRANSFORMS["affine, user's network"][2]
    flow = Flow(of.CompositeTransform([*steps, make()]), StandardNormal([D]), embedding)
    steps[1]._transforms[0].eval()
    embedding[1].eval()
    flow._transform._transforms[2].transform_net.eval()
    ours: Any = patch.convert(flow)
    first, second, third = ours.flow.transform.transforms
    parts = [ours, ours.flow, first, second, *second.transforms, third, *ours.network]
    modes = [True, True, True, True, False, True, True, True, False]
    assert [part.training for part in parts] == modes
    assert not third.conditioner.network.training
    steps[0].eval()
    x, context = torch.randn(20, D), torch.randn(20, 2)
    first.eval()
    torch.testing.assert_close(ours.log_prob(x, context), flow.log_prob(x, context))
    assert torch.equal(second.transforms[0].running_mean, torch.zeros(D))


@pytest.mark.parametrize("make", [lambda: of.LeakyReLU(0.3), of.Tanh], ids=["leaky", "tanh"])
def test_nonlinearities(make: Make) -> None:
    """Some compute in float32 in part. tanh has no inverse at noise, so it is turned around."""
    steps = [of.InverseTransform(make()), of.LULinear(D)]
    flow = Flow(of.CompositeTransform(steps), StandardNormal([D]))
    x = 0.9 - 1.8 * torch.rand(50, D)
    ours: Any = patch.convert(flow)
    torch.testing.assert_close(ours.log_prob(x), flow.log_prob(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(patch.CannotConvert, match="has an inverse for all noise"):
        patch.convert(Flow(of.CompositeTransform([of.Tanh(), *steps[1:]]), StandardNormal([D])))


def test_inside_of_another_model() -> None:
    """A flow in two places is one flow afterwards; the rest is copied."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow_of(TRANSFORMS["affine"][2])
            self.again, self.scale = self.flow, nn.Parameter(torch.ones(()))
            self.transform = of.CompositeTransform([of.LULinear(D)])

        def loss(self, x: torch.Tensor) -> torch.Tensor:
            z, log_det = self.transform(x)
            return self.scale * (self.again.log_prob(z) + log_det)

    model = Model().double()
    ours: Any = patch.convert(model)
    assert ours.flow is ours.again
    assert isinstance(ours.transform, bslfast.flows.Composite)
    assert ours.scale is not model.scale
    x = torch.randn(4, D).double()
    torch.testing.assert_close(ours.loss(x), model.loss(x))


def test_flows_of_its_own(compare: Any) -> None:
    torch.manual_seed(0)
    for flow in (
        SimpleRealNVP(D, 12, 3, 1, batch_norm_between_layers=True),
        SimpleRealNVP(D, 12, 2, 1, use_volume_preserving=True),
        MaskedAutoregressiveFlow(D, 12, 2, 1),
    ):
        for parameter in flow.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
        flow.double()
        flow.log_prob(torch.randn(50, D).double())
        compare(flow.eval(), flow.log_prob, D)


def test_other_versions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flow_of(TRANSFORMS["affine"][2])
    monkeypatch.setattr(
        coupling.AffineCouplingTransform,
        "_scale_and_shift",
        lambda self, u: (u[:, 3:].exp(), u[:, :3]),
    )
    with pytest.raises(patch.CannotConvert, match="the model itself: its log densities are not"):
        patch.convert(flow)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_no_other_version(dtype: torch.dtype) -> None:
    """nflows rounds the constant of its noise."""
    for name in ("affine", "LU", "spline"):
        flow = flow_of(TRANSFORMS[name][2]).to(dtype)
        assert {p.dtype for p in patch.convert(flow).parameters()} == {dtype}
    flow._distribution._log_z += 1.0
    with pytest.raises(patch.CannotConvert, match="the model itself: its log densities are not"):
        patch.convert(flow)


def test_what_cannot_be_compared() -> None:
    """It is not converted unseen, be it in float32 alone or broken."""

    class Single(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)

        def forward(self, x: torch.Tensor, context: Any = None) -> torch.Tensor:
            return nn.functional.linear(x, self.layer.weight.float(), self.layer.bias.float())

    flow = flow_of(lambda: coupling.AffineCouplingTransform(MASK, Single)).float()
    ours, x = patch.convert(flow), torch.randn(9, D)
    torch.testing.assert_close(ours(x), flow.log_prob(x))
    flow._distribution._log_z += 1.0
    with pytest.raises(patch.CannotConvert, match="the model itself: its log densities are not"):
        patch.convert(flow)
    del flow._transform._transforms[0].transform_net.layer.bias
    with pytest.raises(patch.CannotConvert, match=r"cannot be compared .*AttributeError: .*bias"):
        patch.convert(flow)


def test_networks_of_peers_may_stay() -> None:
    model = nn.ModuleList([flow_of(TRANSFORMS["LU"][2]), ResidualNet(2, 3, 4)])
    ours: Any = patch.convert(model)
    assert isinstance(ours[0], bslfast.flows.Flow)
    assert isinstance(ours[1], ResidualNet)
    with pytest.raises(ValueError, match="got a ResidualNet without"):
        patch.convert(model[1])


REFUSED: dict[str, tuple[Make, str]] = {
    "unit interval": (
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(MASK, residual()),
        r"transforms\.0: splines on \[0, 1\], with tails=None",
    ),
    "cubic": (
        lambda: coupling.PiecewiseCubicCouplingTransform(MASK, residual(), tails="linear"),
        "no conversion of nflows.transforms.coupling.PiecewiseCubicCouplingTransform",
    ),
    "subclass": (
        lambda: type("Own", (of.LULinear,), {})(D),
        "Own is a subclass of a class of nflows",
    ),
    "many bins": (
        lambda: of.PiecewiseRationalQuadraticCDF([D], num_bins=200, tails="linear"),
        "bins: expected at most 128, got 200",
    ),
    "no least width": (
        lambda: coupling.PiecewiseRationalQuadraticCouplingTransform(
            MASK, residual(), min_bin_width=0.0, **SPLINE
        ),
        "min_bin_width: expected a finite number above 0",
    ),
    "a module of torch": (lambda: nn.Identity(), "torch.nn.modules.linear.Identity is unknown"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    flow = flow_of(make)
    with pytest.raises(patch.CannotConvert, match=reason) as found:
        patch.convert(flow)
    assert list(found.value.reasons) == ["_transform._transforms.0"]


def test_all_reasons_are_listed() -> None:
    steps = [make() for make, _ in REFUSED.values()]
    flow = Flow(of.CompositeTransform([*steps, of.LULinear(D)]), StandardNormal([D, 1]))
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(flow)
    places = [f"_transform._transforms.{i}" for i in range(len(steps))]
    assert sorted(found.value.reasons) == ["_distribution", *places]
    assert all(f"{place}: " in str(found.value) for place in places)


def test_nothing_gets_lost() -> None:
    flow = flow_of(TRANSFORMS["LU"][2])
    handle = flow._transform._transforms[0].register_forward_hook(lambda *_: None)
    with pytest.raises(patch.CannotConvert, match="hooks"):
        patch.convert(flow)
    handle.remove()
    patch.convert(flow)
    flow._transform._transforms[1].bias = flow._transform._transforms[0].bias
    with pytest.raises(patch.CannotConvert, match="in two places"):
        patch.convert(flow)


#: What users may put on an instance, and what the reason calls it.
ADDED: dict[str, tuple[Callable[[Any], object], str]] = {
    "forward": (
        lambda part: setattr(part, "forward", types.MethodType(type(part).forward, part)),
        "its own forward",
    ),
    "method": (lambda part: setattr(part, "train", part.train), "its own train"),
    "parameter": (
        lambda part: part.register_parameter("own", nn.Parameter(torch.ones(()))),
        "'own', which its class",
    ),
    "buffer": (lambda part: part.register_buffer("own2", torch.ones(())), "'own2', which its"),
    "module": (lambda part: part.add_module("own", nn.Linear(2, 2)), "'own', which its class"),
    "saving": (
        lambda part: part.register_state_dict_post_hook(lambda *_: None),
        "hooks of its state",
    ),
    "loading": (
        lambda part: part.register_load_state_dict_post_hook(lambda *_: None),
        "hooks of its state",
    ),
}


@pytest.mark.parametrize("place", ["", "_transform", "_transform._transforms.0"])
@pytest.mark.parametrize("name", ADDED)
def test_what_users_add_does_not_get_lost(name: str, place: str) -> None:
    add, reason = ADDED[name]
    flow = flow_of(TRANSFORMS["affine"][2])
    part = flow.get_submodule(place)
    add(part)
    before = dict(vars(part))
    what = f"a {type(part).__name__}" + (f" ({place})" if place else "")
    with pytest.raises(patch.CannotConvert, match=re.escape(f"{what} has {reason}")):
        patch.convert(flow)
    assert vars(part) == before


def test_additions_in_networks() -> None:
    """Those of a network that is kept are kept, too."""
    flow = flow_of(TRANSFORMS["affine"][2])
    layer = flow._transform._transforms[0].transform_net.initial_layer
    layer.register_buffer("own", torch.ones(()))
    with pytest.raises(patch.CannotConvert, match=r"a Linear \(.*\.initial_layer\) has 'own'"):
        patch.convert(flow)
    flow = flow_of(TRANSFORMS["affine, user's network"][2])
    flow._transform._transforms[0].transform_net.register_buffer("own", torch.ones(()))
    ours: Any = patch.convert(flow)
    assert torch.equal(ours.transform.transforms[0].conditioner.network.own, torch.ones(()))


def test_what_has_been_converted_may_stay() -> None:
    """Also where it has kept a network of a peer."""
    flow = flow_of(
        lambda: autoregressive.MaskedAffineAutoregressiveTransform(D, 8, dropout_probability=0.2)
    )
    ours: Any = patch.convert(flow)
    assert isinstance(ours.transform.transforms[0].conditioner, patch.Kept)
    both: Any = patch.convert(nn.ModuleList([ours, flow]))
    assert type(both[0]) is type(both[1]) is bslfast.flows.Flow
    for first, second in zip(both[0].parameters(), ours.parameters(), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(ValueError, match="got a Flow without"):
        patch.convert(ours)


@pytest.mark.parametrize("kind", [residual(C), Users], ids=["converted", "kept"])
def test_one_network_in_two_places_is_refused(kind: Any) -> None:
    """It would become two."""
    network = kind(2, 6)

    def affine() -> nn.Module:
        return coupling.AffineCouplingTransform(MASK, lambda *_: network)

    base = ConditionalDiagonalNormal([D], nn.Linear(C, 2 * D))
    flow = Flow(of.CompositeTransform([affine(), affine()]), base)
    with pytest.raises(
        patch.CannotConvert, match=r"is in '_transform._transforms.0', too"
    ) as found:
        patch.convert(flow)
    assert list(found.value.reasons) == ["_transform._transforms.1"]
    steps = of.CompositeTransform([affine()])
    inner = "_transform._transforms.0"
    embedded = Flow(steps, base, nn.Sequential(nn.Linear(3, 2), network))
    beside = nn.ModuleDict({"flow": Flow(steps, base), "own": network})
    for model, part, place in (
        (embedded, inner, "_embedding_net.1"),
        (beside, f"flow.{inner}", "own"),
    ):
        with pytest.raises(patch.CannotConvert, match=f"it is in '{part}', too") as found:
            patch.convert(model)
        places = [name for name, _ in model.named_modules(remove_duplicate=False)]
        reasons = found.value.reasons
        assert reasons
        assert all(name in places and name.startswith(place) for name in reasons)
    # One transform in two places is one afterwards.
    once = affine()
    ours: Any = patch.convert(Flow(of.CompositeTransform([once, once]), base))
    first, second = ours.transform.transforms
    assert first is second


@pytest.mark.parametrize(
    "make",
    [
        lambda: of.Permutation(torch.tensor([2, 0, 1, 4, 3])),
        lambda: of.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5),
        lambda: of.AffineTransform(torch.randn(D), torch.rand(D) + 0.5),
    ],
    ids=["permutation", "pointwise", "affine"],
)
@pytest.mark.filterwarnings("ignore:Use PointwiseAffineTransform")
def test_transforms_by_themselves(make: Make) -> None:
    """They say how many features they have; log determinants and inverses are the same."""
    torch.manual_seed(0)
    theirs = make().double()
    ours: Any = patch.convert(theirs)
    x = torch.randn(7, D).double()
    wanted, log_det = theirs(x)
    found, own_log_det = ours(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own_log_det, log_det)
    torch.testing.assert_close(ours.inverse(wanted)[0], x)


def test_permutations_of_other_dimensions() -> None:
    with pytest.raises(patch.CannotConvert, match="a permutation of dimension 2"):
        patch.convert(of.Permutation(torch.tensor([1, 0]), dim=2))
