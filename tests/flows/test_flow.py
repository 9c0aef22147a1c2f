"""Flows: tests made from one table of transforms, then tests of whole flows."""

from __future__ import annotations

import copy
import functools
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import bslfast
from bslfast import flows
from bslfast.flows import (
    IAF,
    MADE,
    MAF,
    NICE,
    NSF,
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Atanh,
    Autoregressive,
    BatchNorm,
    BernsteinCoupling,
    Composite,
    Conditioner,
    Coupling,
    DeepSigmoidalCoupling,
    Exp,
    Flow,
    Householder,
    Images,
    Inverse,
    InvertibleConv1x1,
    Leading,
    LeakyReLU,
    Log,
    Logit,
    MixtureLogisticCoupling,
    Permutation,
    PerPixel,
    Planar,
    PLULinear,
    Radial,
    RealNVP,
    Reverse,
    Sigmoid,
    Softplus,
    SplineCoupling,
    Squeeze,
    Standardize,
    Sylvester,
    Tanh,
    Transform,
)

CONTEXT = 3
DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def batch_norm(d: int) -> BatchNorm:
    """Make it in evaluation mode: in training mode examples see each other, without an inverse."""
    return BatchNorm(d, **DOUBLE).eval()


def images(d: int, c: int) -> Images:
    """Images of d channels and 2 x 4 pixels, from 8 d features."""
    steps = [
        PerPixel(ActNorm(d, **DOUBLE)),
        InvertibleConv1x1(d, **DOUBLE),
        Squeeze(d),
        PerPixel(AffineCoupling(4 * d, context=c, hidden=(8,), **DOUBLE)),
        InvertibleConv1x1(4 * d, **DOUBLE),
    ]
    return Images((d, 2, 4), steps)


def masked(map: flows.Map, d: int, c: int, **options: Any) -> Coupling:
    """A coupling that moves every other feature, from the first on."""
    mask = [i % 2 == 0 for i in range(d)]
    size = sum(mask) * map.size
    network = Conditioner(d - sum(mask), size, context=c, start=map.start, **options, **DOUBLE)
    return Coupling(map, mask, network, context=c)


#: Every map in an autoregressive transform, with its conditioner's settings.
AUTOREGRESSIVE: dict[str, tuple[flows.Map, dict[str, Any]]] = {
    "additive": (flows.Additive(), {"hidden": ()}),
    "affine": (flows.Affine(), {"hidden": (16,), "activation": "silu"}),
    "affine exp": (flows.Affine("exp"), {"hidden": (8,), "residual": 1}),
    "affine sigmoid": (flows.Affine("sigmoid"), {"hidden": (8,)}),
    "spline": (flows.Spline(bins=4), {"hidden": (16, 16)}),
    "spline affine": (flows.Spline(bins=4, tails="affine", bound=1.0), {"hidden": (8,)}),
    "spline circular": (flows.Spline(bins=4, tails="circular"), {"activation": "tanh"}),
    "spline without tails": (flows.Spline(bins=4, tails=None, bound=2.0), {"residual": 2}),
    "mixture": (flows.MixtureLogistic(3), {"hidden": (8,)}),
    "deep sigmoidal": (flows.DeepSigmoidal(3), {"hidden": (16, 16)}),
    "bernstein": (flows.Bernstein(5), {"hidden": (8,)}),
}


def autoregressive(name: str, d: int, c: int) -> Autoregressive:
    """With the features in an order that is neither rising nor falling."""
    map, options = AUTOREGRESSIVE[name]
    order = torch.randperm(d, generator=torch.Generator().manual_seed(d))
    return Autoregressive(map, MADE(d, map, context=c, order=order, **options, **DOUBLE))


# Name to (how to make it for so many features and context features, whether it takes a context).
# The number is that of features but for the images.
TRANSFORMS: dict[str, tuple[Callable[[int, int], Transform], bool]] = {
    "reverse": (lambda d, c: Reverse(d), False),
    "permutation": (lambda d, c: Permutation.random(d, seed=1), False),
    "additive": (lambda d, c: AdditiveCoupling(d, context=c, hidden=(16,), **DOUBLE), True),
    "additive flipped": (
        lambda d, c: AdditiveCoupling(d, context=c, flip=True, hidden=(), **DOUBLE),
        True,
    ),
    "leaky relu": (lambda d, c: LeakyReLU(d, negative_slope=0.3), False),
    "tanh": (lambda d, c: Tanh(d), False),
    "sigmoid": (lambda d, c: Sigmoid(d), False),
    "logit": (lambda d, c: Logit(d), False),
    "softplus": (lambda d, c: Softplus(d), False),
    "atanh": (lambda d, c: Atanh(d), False),
    "exp": (lambda d, c: Exp(d), False),
    "log": (lambda d, c: Log(d), False),
    "inverse of softplus": (lambda d, c: Inverse(Softplus(d)), False),
    "inverse of affine": (lambda d, c: Inverse(AffineCoupling(d, context=c, **DOUBLE)), True),
    "standardize": (lambda d, c: Standardize(d, **DOUBLE), False),
    "rescale": (lambda d, c: flows.Rescale(d, -2.0, 0.5), False),
    "act norm": (lambda d, c: ActNorm(d, **DOUBLE), False),
    "batch norm": (lambda d, c: batch_norm(d), False),
    "plu": (lambda d, c: PLULinear(d, **DOUBLE), False),
    "plu rotation": (lambda d, c: PLULinear(d, seed=1, **DOUBLE), False),
    "householder": (lambda d, c: Householder(d, **DOUBLE), False),
    "householder odd": (lambda d, c: Householder(d, reflections=3, **DOUBLE), False),
    "planar": (lambda d, c: Planar(d, context=c, hidden=(4,), **DOUBLE), True),
    "radial": (lambda d, c: Radial(d, context=c, **DOUBLE), True),
    "sylvester": (lambda d, c: Sylvester(d, context=c, hidden=(4,), **DOUBLE), True),
    "sylvester of low rank": (
        lambda d, c: Sylvester(d, rank=(d + 1) // 2, context=c, **DOUBLE),
        True,
    ),
    "images": (images, True),
    "affine tanh": (lambda d, c: AffineCoupling(d, context=c, hidden=(16,), **DOUBLE), True),
    "affine flipped": (
        lambda d, c: AffineCoupling(d, context=c, flip=True, hidden=(16, 16), **DOUBLE),
        True,
    ),
    "affine exp": (lambda d, c: AffineCoupling(d, context=c, scale_fn="exp", **DOUBLE), True),
    "affine sigmoid": (
        lambda d, c: AffineCoupling(d, context=c, hidden=(), scale_fn="sigmoid", **DOUBLE),
        True,
    ),
    "spline": (lambda d, c: SplineCoupling(d, context=c, hidden=(16,), **DOUBLE), True),
    "spline affine": (
        lambda d, c: SplineCoupling(d, context=c, tails="affine", bound=1.0, **DOUBLE),
        True,
    ),
    "spline flipped": (
        lambda d, c: SplineCoupling(d, context=c, flip=True, bins=4, bound=2.0, **DOUBLE),
        True,
    ),
    "spline without tails": (
        lambda d, c: SplineCoupling(d, context=c, tails=None, bound=2.0, **DOUBLE),
        True,
    ),
    "mixture": (
        lambda d, c: MixtureLogisticCoupling(d, context=c, hidden=(16,), **DOUBLE),
        True,
    ),
    "mixture flipped": (
        lambda d, c: MixtureLogisticCoupling(d, context=c, flip=True, components=3, **DOUBLE),
        True,
    ),
    "deep sigmoidal": (
        lambda d, c: DeepSigmoidalCoupling(d, context=c, hidden=(16,), **DOUBLE),
        True,
    ),
    "deep sigmoidal flipped": (
        lambda d, c: DeepSigmoidalCoupling(d, context=c, flip=True, components=3, **DOUBLE),
        True,
    ),
    "bernstein": (
        lambda d, c: BernsteinCoupling(d, context=c, hidden=(16,), **DOUBLE),
        True,
    ),
    "bernstein flipped": (
        lambda d, c: BernsteinCoupling(d, context=c, flip=True, degree=5, bound=2.0, **DOUBLE),
        True,
    ),
    "masked affine": (
        lambda d, c: masked(flows.Affine(), d, c, hidden=(8,), activation="silu", residual=1),
        True,
    ),
    "masked spline": (
        lambda d, c: masked(flows.Spline(bins=4, tails="circular"), d, c, activation="tanh"),
        True,
    ),
    **{
        f"autoregressive {name}": (lambda d, c, name=name: autoregressive(name, d, c), True)
        for name in AUTOREGRESSIVE
    },
    "leading": (
        lambda d, c: Leading(SplineCoupling((d + 1) // 2, context=c, bins=4, **DOUBLE), d),
        True,
    ),
    "inverse of autoregressive": (lambda d, c: Inverse(autoregressive("affine", d, c)), True),
    "composite of bounded ones": (
        lambda d, c: Composite(
            [
                Reverse(d),
                SplineCoupling(d, context=c, tails=None, bound=1.0, hidden=(16,), **DOUBLE),
                Atanh(d),
                AffineCoupling(d, flip=True, hidden=(16,), **DOUBLE),
            ]
        ),
        True,
    ),
    "composite": (
        lambda d, c: Composite(
            [
                SplineCoupling(d, context=c, hidden=(16,), **DOUBLE),
                Permutation.random(d, seed=2),
                AffineCoupling(d, hidden=(16,), flip=True, **DOUBLE),
                Reverse(d),
                SplineCoupling(d, context=c, hidden=(16,), flip=True, **DOUBLE),
            ]
        ),
        True,
    ),
}
FEATURES = (1, 2, 3, 43)
# Transforms that are not the identity at the start.
ELEMENTWISE = {
    "rescale",
    "leaky relu",
    "tanh",
    "sigmoid",
    "logit",
    "softplus",
    "atanh",
    "exp",
    "log",
    "inverse of softplus",
    "composite of bounded ones",
}
MIXTURES = {"mixture", "mixture flipped", "deep sigmoidal", "deep sigmoidal flipped"}
MIXTURES |= {"autoregressive mixture", "autoregressive deep sigmoidal"}
ORTHOGONAL = {"plu rotation", "householder odd", "images"}
REFLECTIONS = {"householder", "householder odd", "sylvester", "sylvester of low rank"}
# Functions into the domains of transforms that are not defined everywhere; then numbers outside.
DOMAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": torch.sigmoid,
    "atanh": torch.tanh,
    "log": torch.exp,
    "inverse of softplus": torch.exp,
    "spline without tails": lambda x: 2 * torch.tanh(x),
    "masked spline": lambda x: 3 * torch.tanh(x),
    "autoregressive spline circular": lambda x: 3 * torch.tanh(x),
    "autoregressive spline without tails": lambda x: 2 * torch.tanh(x),
    "composite of bounded ones": torch.tanh,
}
INF = math.inf
OUTSIDE: dict[str, tuple[float, ...]] = {
    "logit": (0.0, 1.0, 1.5, -1e-30, -INF, INF),
    "atanh": (-1.0, 1.0, 1.5, -INF, INF),
    "log": (0.0, -1e-30, -3.0, -INF, INF),
    "inverse of softplus": (0.0, -1e-30, -3.0, -INF),
    "spline without tails": (2.1, -3.0, -INF, INF),
    "masked spline": (3.1, -4.0, -INF, INF),
    "autoregressive spline circular": (3.1, -4.0, -INF, INF),
    "autoregressive spline without tails": (2.1, -3.0, -INF, INF),
    "composite of bounded ones": (1.1, -1.5, -INF, INF),
}
# Numbers outside the domains of inverses.
OUTSIDE_OF_CODOMAIN: dict[str, tuple[float, ...]] = {
    "tanh": OUTSIDE["atanh"],
    "sigmoid": OUTSIDE["logit"],
    "softplus": OUTSIDE["inverse of softplus"],
    "exp": OUTSIDE["log"],
    "spline without tails": OUTSIDE["spline without tails"],
    "masked spline": OUTSIDE["masked spline"],
    "autoregressive spline circular": OUTSIDE["autoregressive spline circular"],
    "autoregressive spline without tails": OUTSIDE["autoregressive spline without tails"],
}


def cases(features: tuple[int, ...] = FEATURES) -> Any:
    """All transforms at all sizes, with and without context."""
    return pytest.mark.parametrize(
        ("name", "d", "c"),
        [
            (name, d, c)
            for name, (_, takes_context) in TRANSFORMS.items()
            for d in features
            for c in ((0, CONTEXT) if takes_context else (0,))
        ],
    )


def make(name: str, d: int, c: int, noise: float = 0.3) -> Transform:
    """A transform of the table, away from the identity."""
    transform = TRANSFORMS[name][0](d, c)
    return stir(transform, noise)


def stir(module: Any, noise: float = 0.3) -> Any:
    """Move every parameter at random; the more parameters there are, the less each one moves."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan = parameter.shape[-1] if parameter.dim() > 1 else 1
            parameter += noise / math.sqrt(max(fan, 1)) * torch.randn_like(parameter)
    return module


def points(name: str, transform: Transform, batch: int = 7) -> tuple[Tensor, Tensor | None]:
    """Ordinary inputs of a transform of the table."""
    x, context = inputs(transform.features, transform.context, batch)
    return DOMAINS.get(name, lambda x: x)(x), context


def inputs(d: int, c: int, batch: int = 7) -> tuple[Tensor, Tensor | None]:
    x = 1.5 * torch.randn(batch, d, **DOUBLE)
    return x, torch.randn(batch, c, **DOUBLE) if c else None


# --- the table ------------------------------------------------------------------------------------


@cases()
def test_inverse_undoes_forward(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    x, context = points(name, transform)
    z, log_det = transform(x, context)
    back, back_log_det = transform.inverse(z, context)
    assert z.shape == x.shape
    assert log_det.shape == back_log_det.shape == (7,)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back_log_det, -log_det, rtol=1e-8, atol=1e-8)


@cases((1, 2, 3))
def test_log_det_is_that_of_the_jacobian(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    x, context = points(name, transform)
    z = transform(x, context)[0].detach()
    for function, where in ((transform, x), (transform.inverse, z)):
        log_det = function(where, context)[1]
        for i in range(len(x)):
            row = None if context is None else context[i]
            jacobian = torch.autograd.functional.jacobian(
                lambda v, row=row, f=function: f(v, row)[0], where[i]
            )
            expected = torch.linalg.slogdet(jacobian).logabsdet
            torch.testing.assert_close(log_det[i], expected, rtol=1e-8, atol=1e-8)


def test_every_map_is_in_the_table() -> None:
    """In couplings and autoregressive, with all that its options say."""
    kinds = {getattr(flows, name) for name in flows.__all__}
    kinds = {kind for kind in kinds if issubclass(kind, flows.Map) and kind is not flows.Map}
    seen: dict[type, set[tuple[type, str | None]]] = {Coupling: set(), Autoregressive: set()}
    for make, _ in TRANSFORMS.values():
        transform = make(2, 0)
        for of_maps, maps in seen.items():
            if isinstance(transform, of_maps):
                map: Any = transform.map
                maps.add((type(map), getattr(map, "scale_fn", getattr(map, "tails", None))))
    plain = {(kind, None) for kind in kinds - {flows.Affine}}
    affine = {(flows.Affine, scale_fn) for scale_fn in ("tanh", "exp", "sigmoid")}
    splines = {(flows.Spline, tails) for tails in ("linear", "affine", "circular")}
    for maps in seen.values():
        assert maps == plain | affine | splines


@cases()
def test_identity_at_the_start(name: str, d: int, c: int) -> None:
    if name in ELEMENTWISE | ORTHOGONAL | MIXTURES:
        return
    transform = TRANSFORMS[name][0](d, c).eval()
    x, context = points(name, transform)
    order = torch.arange(d)
    for step in transform.transforms if isinstance(transform, Composite) else [transform]:
        if isinstance(step, Permutation):
            order = order[step.order]
    for function, where in ((transform, order), (transform.inverse, order.argsort())):
        z, log_det = function(x, context)
        torch.testing.assert_close(z, x[:, where], rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_near_the_identity_at_the_start(name: str) -> None:
    """Components differ, so that their gradients do."""
    for d in FEATURES:
        transform = TRANSFORMS[name][0](d, 0)
        x, _ = points(name, transform)
        for function in (transform, transform.inverse):
            z, log_det = function(x)
            assert ((z - x).abs() <= 0.5).all()
            assert not torch.equal(z, x)
        log_det.sum().backward()
        assert isinstance(transform, Coupling | Autoregressive)
        assert isinstance(transform.conditioner, Conditioner)
        grad = transform.conditioner.output_bias.grad
        assert grad is not None
        moved = transform.moved if isinstance(transform, Coupling) else d
        assert grad.unique().numel() > moved


@pytest.mark.parametrize("name", sorted(ORTHOGONAL))
def test_orthogonal_at_the_start(name: str) -> None:
    for d in FEATURES:
        transform = TRANSFORMS[name][0](d, 0).eval()
        x, _ = points(name, transform)
        for function in (transform, transform.inverse):
            z, log_det = function(x)
            torch.testing.assert_close(z @ z.mT, x @ x.mT, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-12)


@cases((1, 3))
def test_examples_do_not_see_each_other(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    x, context = points(name, transform)
    z, log_det = transform(x, context)
    for shape in ((1, 7), (7, 1)):
        batched = None if context is None else context.reshape(*shape, c)
        again, again_log_det = transform(x.unflatten(0, shape), batched)
        torch.testing.assert_close(again, z.unflatten(0, shape))
        torch.testing.assert_close(again_log_det, log_det.reshape(shape))
    one, one_log_det = transform(x[2], None if context is None else context[2])
    torch.testing.assert_close(one, z[2])
    torch.testing.assert_close(one_log_det, log_det[2])
    assert one_log_det.shape == ()


@cases((1, 2, 43))
def test_context_matters(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    assert transform.context == c
    if not c:
        return
    x, context = points(name, transform)
    assert context is not None
    assert not torch.allclose(transform(x, context)[0], transform(x, context + 1)[0])
    shared = context[:1]  # broadcasts
    torch.testing.assert_close(
        transform(x, shared)[0], transform(x, shared.expand_as(context))[0], rtol=1e-12, atol=1e-12
    )


@cases((1, 3))
def test_gradcheck(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    x, context = points(name, transform, batch=2)
    z = transform(x, context)[0].detach()
    for function, where in ((transform, x), (transform.inverse, z)):
        tensors = [t.requires_grad_() for t in (where, context) if t is not None]
        assert torch.autograd.gradcheck(function, tensors)


@cases((1, 2))
def test_outside_the_density_is_zero(name: str, d: int, c: int) -> None:
    """Gradients are finite, alone and in front of a map that would spread a NaN. NaN stays NaN."""
    transform = make(name, d, c)
    x, context = points(name, transform)
    z = transform(x, context)[0].detach()
    for one, inside, outside in (
        (transform, x, OUTSIDE.get(name, ())),
        (Inverse(transform), z, OUTSIDE_OF_CODOMAIN.get(name, ())),
    ):
        assert one.domain.check(inside).all()
        assert one.codomain.check(one(inside, context)[0]).all()
        whole = Composite([one, stir(AffineCoupling(one.features, hidden=(8,), **DOUBLE))])
        for value in outside:
            wrong = inside.clone()
            wrong[:3, 0] = value
            wrong.requires_grad_()
            if math.isfinite(value):  # torch takes infinity for a positive number
                assert (one.domain.check(wrong) == (torch.arange(7) >= 3)).all(), value
            for function in (one, whole):
                y, log_det = function(wrong, context)
                assert (log_det[:3] == -INF).all(), value
                assert log_det[3:].isfinite().all()
                assert y.isfinite().all()
                tensors = [wrong, *function.parameters()]
                loss = (log_det - y.square().sum(-1)).sum()
                for grad in torch.autograd.grad(loss, tensors, allow_unused=True):
                    assert grad is None or grad.isfinite().all(), value
        inside = inside.clone()
        inside[0, 0] = math.nan
        y, log_det = one(inside, context)
        assert not y[0].isfinite().all()
        assert log_det[0] != -INF


@cases((1, 2))
def test_every_parameter_gets_its_gradient(name: str, d: int, c: int) -> None:
    transform = make(name, d, c)
    if not list(transform.parameters()) or (d == 1 and name in REFLECTIONS):
        return  # a line has only one reflection
    x, context = points(name, transform, batch=64)
    z, log_det = transform(x, context)
    (z.square().sum() + z.sin().sum() - log_det.sum()).backward()
    for key, parameter in transform.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


# --- flows ----------------------------------------------------------------------------------------

KINDS: dict[str, Callable[..., Flow]] = {
    "RealNVP": RealNVP,
    "NSF": NSF,
    "NICE": NICE,
    "MAF": MAF,
    "IAF": IAF,
    "NSF-AR": functools.partial(NSF, autoregressive=True),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def flow_of(kind: str, d: int, c: int = 0, **options: Any) -> Flow:
    defaults: dict[str, Any] = {"transforms": 3, "hidden": (16, 16), **DOUBLE}
    return stir(KINDS[kind](d, context=c, **(defaults | options)))


@kinds
def test_starts_as_the_standard_normal(kind: str) -> None:
    for d in FEATURES:
        x = torch.randn(5, d, **DOUBLE)
        expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
        torch.testing.assert_close(KINDS[kind](d, **DOUBLE).log_prob(x), expected)


@kinds
@pytest.mark.parametrize("c", [0, CONTEXT])
def test_the_density_integrates_to_one(kind: str, c: int) -> None:
    side = torch.linspace(-9, 9, 301 if kind in ("MAF", "IAF", "NICE") else 601, **DOUBLE)
    cell = (side[1] - side[0]).item()
    context = torch.randn(c, **DOUBLE) if c else None
    with torch.no_grad():
        for d in (1, 2):
            grid = torch.cartesian_prod(*[side] * d).reshape(-1, d)
            density = flow_of(kind, d, c).log_prob(grid, context).exp()
            assert density.sum().item() * cell**d == pytest.approx(1.0, abs=2e-3)


@kinds
def test_learned_density_integrates_to_one_and_has_learned(kind: str) -> None:
    torch.manual_seed(1)
    angle = 2 * math.pi * torch.rand(2000, 1)
    x = 1.5 * torch.cat([angle.cos(), angle.sin()], dim=1) + 0.15 * torch.randn(2000, 2)
    # In float64 another order of sums does not make another flow of it.
    x = x.double()
    flow = KINDS[kind](2, transforms=4, hidden=(32, 32)).double()
    before = -flow(x).mean().item()
    optimizer = torch.optim.Adam(flow.parameters(), 5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -flow(x).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < before - 0.4
    side = torch.linspace(-6, 6, 500, **DOUBLE)
    with torch.no_grad():
        density = flow(torch.cartesian_prod(side, side)).double().exp()
    assert density.sum().item() * (12 / 499) ** 2 == pytest.approx(1.0, abs=0.02)
    radius = flow.sample(2000, seed=0).norm(dim=1)
    assert radius.mean().item() == pytest.approx(1.5, abs=0.1)


@kinds
@pytest.mark.parametrize("d", FEATURES)
@pytest.mark.parametrize("c", [0, CONTEXT])
def test_samples_and_their_densities_agree(kind: str, d: int, c: int) -> None:
    flow = flow_of(kind, d, c)
    context = torch.randn(4, c, **DOUBLE) if c else None
    x, log_prob = flow.rsample_and_log_prob(6, context, seed=3)
    assert x.shape == ((4, 6, d) if c else (6, d))
    assert log_prob.shape == x.shape[:-1]
    per_sample = None if context is None else context.unsqueeze(1)
    torch.testing.assert_close(flow.log_prob(x, per_sample), log_prob, rtol=1e-9, atol=1e-9)
    assert torch.equal(flow.sample(6, context, seed=3), x)
    assert not flow.sample(6, context).requires_grad
    grads = torch.autograd.grad(log_prob.sum() + x.sum(), list(flow.parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)


@kinds
def test_samples_follow_the_density(kind: str) -> None:
    """The mean of log p over samples is minus the entropy by quadrature."""
    flow = flow_of(kind, 1, transforms=2)
    grid = torch.linspace(-10, 10, 20001, **DOUBLE).unsqueeze(1)
    with torch.no_grad():
        log_prob = flow.log_prob(grid)
        expected = (log_prob.exp() * log_prob).sum().item() * 1e-3
        found = flow.rsample_and_log_prob(100_000, seed=0)[1]
    error = found.std().item() / math.sqrt(len(found))
    assert found.mean().item() == pytest.approx(expected, abs=5 * error)


def test_seeds() -> None:
    flow = flow_of("NSF", 3)
    assert torch.equal(flow.sample(5, seed=1), flow.sample(5, seed=1))
    assert not torch.equal(flow.sample(5, seed=1), flow.sample(5, seed=2))
    torch.testing.assert_close(flow.sample(5, seed=1), flow.sample(9, seed=1)[:5])
    torch.manual_seed(5)
    first = flow.sample(5)
    torch.manual_seed(5)
    assert torch.equal(flow.sample(5), first)
    assert not torch.equal(flow.sample(5), first)
    assert flow.sample(0).shape == (0, 3)


@kinds
@pytest.mark.parametrize("c", [0, CONTEXT])
def test_distribution(kind: str, c: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.compile, once used anywhere, turns the default off for the process.
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)
    flow = flow_of(kind, 2, c)
    context = torch.randn(4, c, **DOUBLE) if c else None
    distribution = flow.distribution(context)
    batch = (4,) if c else ()
    assert isinstance(distribution, torch.distributions.Distribution)
    assert distribution.batch_shape == batch
    assert distribution.event_shape == (2,)
    assert distribution.has_rsample
    x = distribution.rsample((5, 6))
    assert x.shape == (5, 6, *batch, 2)
    assert x.requires_grad
    assert not distribution.sample((5,)).requires_grad
    assert distribution.sample().shape == (*batch, 2)
    torch.testing.assert_close(distribution.log_prob(x), flow.log_prob(x, context))
    y, log_prob = distribution.rsample_and_log_prob((5,), seed=0)
    torch.testing.assert_close(distribution.log_prob(y), log_prob)
    wider = distribution.expand((3, *batch))
    assert wider.batch_shape == (3, *batch)
    assert wider.sample((2,)).shape == (2, 3, *batch, 2)
    assert wider.log_prob(x[0, 0]).shape == (3, *batch)
    independent = torch.distributions.Independent(wider, 1)
    assert independent.log_prob(wider.sample()).shape == wider.batch_shape[:-1]
    with pytest.raises(ValueError, match="within the support"):
        distribution.log_prob(torch.full((2,), math.nan, **DOUBLE))


# --- what torch does with modules -----------------------------------------------------------------


@kinds
def test_compiles_as_one_graph(kind: str) -> None:
    flow = flow_of(kind, 3, CONTEXT, transforms=2)
    x, context = inputs(3, CONTEXT)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    found = compiled(x, context)
    torch.testing.assert_close(found, flow.log_prob(x, context))
    grads = torch.autograd.grad(found.sum(), list(flow.parameters()))
    expected = torch.autograd.grad(flow(x, context).sum(), list(flow.parameters()))
    torch.testing.assert_close(grads, expected)


@kinds
def test_torch_func(kind: str) -> None:
    flow = flow_of(kind, 3, transforms=2)
    x, _ = inputs(3, 0)
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), flow(x))
    scores = torch.func.vmap(torch.func.grad(flow.log_prob))(x)
    x.requires_grad_()
    torch.testing.assert_close(scores, torch.autograd.grad(flow(x).sum(), x)[0])
    parameters = dict(flow.named_parameters())

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(flow, parameters, (row,))

    per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    total = torch.autograd.grad(flow(x).sum(), list(flow.parameters()))
    for (name, grad), expected in zip(per_example.items(), total, strict=True):
        torch.testing.assert_close(grad.sum(0), expected, msg=name)


def test_second_derivatives() -> None:
    flow = flow_of("NSF", 2, transforms=2)
    x = inputs(2, 0, batch=2)[0].requires_grad_()
    assert torch.autograd.gradgradcheck(flow.log_prob, (x,))


@kinds
def test_copies_and_files(kind: str) -> None:
    flow = flow_of(kind, 3)
    x, _ = inputs(3, 0)
    expected = flow(x)
    torch.testing.assert_close(copy.deepcopy(flow)(x), expected, rtol=0, atol=0)
    assert torch.equal(pickle.loads(pickle.dumps(flow))(x), expected)
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    other = KINDS[kind](3, transforms=3, hidden=(16, 16), **DOUBLE)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), expected)
    state = {name for name in flow.state_dict() if not name.endswith(".mask")}
    assert state == {name for name, _ in flow.named_parameters()}
    single = flow.float()
    torch.testing.assert_close(single(x.float()).double(), expected, rtol=1e-3, atol=1e-3)
    assert single.sample(2).dtype == torch.float32


@kinds
def test_threads_do_not_matter(kind: str) -> None:
    flow = KINDS[kind](5, transforms=2, hidden=())
    stir(flow)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = flow.sample(3000, seed=0)
        torch.set_num_threads(2)
        torch.testing.assert_close(flow.sample(3000, seed=0), one)
    finally:
        torch.set_num_threads(before)


def test_reference_agrees() -> None:
    flow = flow_of("NSF", 3)
    x, _ = inputs(3, 0)
    fast = flow(x)
    with bslfast.functional.use_reference():
        torch.testing.assert_close(flow(x), fast)


def test_plain_twins_agree() -> None:
    from bslfast.cli.plain import plain

    for kind in KINDS:
        flow = flow_of(kind, 3)
        x = 2 * torch.randn(50, 3, **DOUBLE)  # inside and outside of the splines' interval
        twin = plain(flow)
        torch.testing.assert_close(twin(x), flow(x))
        for a, b in zip(
            torch.autograd.grad(twin(x).sum(), list(twin.parameters())),
            torch.autograd.grad(flow(x).sum(), list(flow.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


def test_odd_sizes_move_every_feature() -> None:
    for d in (3, 43):
        flow = flow_of("NSF", d, transforms=2)
        first, second = flow.transform.transforms
        assert (first.kept, first.moved) == (d // 2, d - d // 2)
        assert (second.kept, second.moved) == (d - d // 2, d // 2)
        x = inputs(d, 0)[0]
        assert (flow.transform(x)[0] != x).any(0).all()


# --- bad input ------------------------------------------------------------------------------------

FLOW = NSF(2, hidden=(4,), transforms=2)
CONDITIONAL = RealNVP(2, context=3, hidden=(4,), transforms=2)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TypeError, "x: .*float.*got a list", lambda: FLOW.log_prob([0.0, 1.0])),
        (TypeError, "x: expected a floating", lambda: FLOW.log_prob(torch.ones(3, 2).long())),
        (ValueError, r"x: .*\[..., 2\].*\(3, 4\)", lambda: FLOW.log_prob(torch.ones(3, 4))),
        (ValueError, r"x: .*\[..., 2\]", lambda: FLOW.log_prob(torch.ones(()))),
        (TypeError, "x: expected torch.float32", lambda: FLOW.log_prob(torch.ones(3, 2).double())),
        (
            ValueError,
            "context: expected None, as this Composite",
            lambda: FLOW.log_prob(torch.ones(3, 2), torch.ones(3, 1)),
        ),
        (
            ValueError,
            r"context: expected a tensor of shape \[..., 3\].*got None",
            lambda: CONDITIONAL.log_prob(torch.ones(3, 2)),
        ),
        (ValueError, r"context: .*\[..., 3\]", lambda: CONDITIONAL.sample(2, torch.ones(2, 2))),
        (TypeError, "context: .*got a str|context: .*'a'", lambda: CONDITIONAL.sample(2, "a")),
        (
            TypeError,
            "context: expected torch.float32",
            lambda: CONDITIONAL.sample(2, torch.ones(3).double()),
        ),
        (
            ValueError,
            r"context: expected leading dimensions .*\[4\], got \[5\]",
            lambda: CONDITIONAL.log_prob(torch.ones(4, 2), torch.ones(5, 3)),
        ),
        (ValueError, "context: .*got None", lambda: CONDITIONAL.distribution()),
        (ValueError, "n: expected an integer of at least 0", lambda: FLOW.sample(-1)),
        (TypeError, "n: expected an integer", lambda: FLOW.sample(2.5)),
        (TypeError, "seed: ", lambda: FLOW.sample(2, seed="a")),
        (ValueError, "transforms: expected an integer of at least 1", lambda: NSF(2, transforms=0)),
        (ValueError, "features: expected an integer of at least 1", lambda: RealNVP(0)),
        (TypeError, "features: expected an integer", lambda: RealNVP(2.0)),
        (ValueError, "context: expected an integer of at least 0", lambda: NSF(2, context=-1)),
        (TypeError, "hidden: expected a tuple", lambda: NSF(2, hidden=64)),
        (ValueError, "hidden: expected an integer of at least 1", lambda: NSF(2, hidden=(4, 0))),
        (ValueError, "bins: expected an integer of at least 2", lambda: NSF(2, bins=1)),
        (ValueError, "bound: expected a finite number above 0", lambda: NSF(2, bound=0.0)),
        (TypeError, "autoregressive: expected a bool", lambda: NSF(2, autoregressive=1)),
        (ValueError, "scale_fn: expected one of", lambda: RealNVP(2, scale_fn="cube")),
        (TypeError, "flip: expected a bool", lambda: AffineCoupling(2, flip=1)),
        (
            ValueError,
            "components: expected at most 64",
            lambda: MixtureLogisticCoupling(2, components=65),
        ),
        (ValueError, "degree: expected at most 63", lambda: BernsteinCoupling(2, degree=64)),
        (ValueError, "bound: expected a finite number", lambda: BernsteinCoupling(2, bound=-1.0)),
        (ValueError, "min_bin_width: ", lambda: SplineCoupling(2, min_bin_width=0.2)),
        (ValueError, "tails: ", lambda: SplineCoupling(2, tails="square")),
        (ValueError, "order: expected each of 0 to 2 once", lambda: Permutation([0, 2, 2])),
        (ValueError, "order: expected", lambda: Permutation([0.0, 1.0])),
        (ValueError, "transforms: expected at least one", lambda: Composite([])),
        (TypeError, "transforms: expected instances", lambda: Composite([torch.nn.ReLU()])),
        (
            ValueError,
            r"transforms: expected the same number of features, got \[2, 3\]",
            lambda: Composite([Reverse(2), Reverse(3)]),
        ),
        (
            ValueError,
            r"transforms: expected the same number of context .*\[1, 2\]",
            lambda: Composite([AffineCoupling(2, context=1), AffineCoupling(2, context=2)]),
        ),
        (TypeError, "transform: expected an instance", lambda: Flow(torch.nn.ReLU())),
        (TypeError, "flow: expected a bslfast.flows.Flow", lambda: flows.FlowDistribution(1)),
        (ValueError, "z: .*2 features", lambda: FLOW.transform.inverse(torch.ones(3))),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()


def test_autocast_keeps_log_det_in_float32() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob = FLOW.log_prob(torch.randn(4, 2))
    assert log_prob.dtype == torch.float32


# --- options of ready-made flows ------------------------------------------------------------------

READY: dict[str, Callable[..., flows.Flow]] = {
    "RealNVP": flows.RealNVP,
    "NICE": flows.NICE,
    "NSF": flows.NSF,
    "NSF autoregressive": lambda d, **options: flows.NSF(d, autoregressive=True, **options),
    "MAF": flows.MAF,
    "IAF": flows.IAF,
}
SMALL: dict[str, Any] = {"transforms": 3, "hidden": (6,), **DOUBLE}


@pytest.mark.parametrize("kind", READY)
def test_what_comes_between_transforms(kind: str) -> None:
    def kinds(**options: Any) -> list[str]:
        made = READY[kind](4, **SMALL, **options)
        assert torch.autograd.gradcheck(made.log_prob, torch.randn(2, 4, **DOUBLE).requires_grad_())
        return [type(step).__name__ for step in made.transform.transforms]

    own = kinds()
    assert len(own) == 3
    assert kinds(permutation="reverse") == kinds(permutation="none") == own
    for name, found in (
        ("random", "Permutation"),
        ("plu", "PLULinear"),
        (lambda index: ActNorm(4, **DOUBLE), "ActNorm"),
    ):
        assert kinds(permutation=name) == [own[0], found, own[1], found, own[2]]
    torch.manual_seed(0)
    state = READY[kind](4, **SMALL).state_dict()
    torch.manual_seed(0)
    again = READY[kind](4, permutation="none", **SMALL).state_dict()
    assert list(state) == list(again)
    # The first orders are others, and the same in each flow.
    first, second = (READY[kind](9, permutation="random", **SMALL) for _ in range(2))
    orders = [step.order for step in first.transform.transforms if isinstance(step, Permutation)]
    assert not torch.equal(orders[0], orders[1])
    others = [step.order for step in second.transform.transforms if isinstance(step, Permutation)]
    assert all(torch.equal(a, b) for a, b in zip(orders, others, strict=True))


@pytest.mark.parametrize("permutation", ["random", "plu"])
@pytest.mark.parametrize("kind", READY)
def test_density_is_normal_at_the_start_whatever_comes_between(kind: str, permutation: str) -> None:
    x = torch.randn(5, 4, **DOUBLE)
    made = READY[kind](4, permutation=permutation, **SMALL)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(made.log_prob(x), expected)


@pytest.mark.parametrize("support", ["positive", (0, 1), (-2.0, 5.0)], ids=str)
@pytest.mark.parametrize("kind", READY)
def test_supports(kind: str, support: Any) -> None:
    """Samples lie inside, the density outside is 0, and the integral of that of one number is 1."""
    torch.manual_seed(0)
    low, high = (0.0, math.inf) if support == "positive" else support
    made = stir(READY[kind](3, support=support, **SMALL), 0.2)
    x, log_prob = made.rsample_and_log_prob(50, seed=0)
    assert ((x > low) & (x < high)).all()
    torch.testing.assert_close(made.log_prob(x), log_prob)
    outside = x.detach().clone()
    outside[:, 1] = low - 1e-3
    assert (made.log_prob(outside) == -math.inf).all()
    one = stir(READY[kind](1, support=support, **SMALL), 0.2)
    if support == "positive":
        logs = torch.linspace(-12, 12, 40_001, **DOUBLE)
        weights, grid = logs.exp() * 24 / 40_000, logs.exp()
    else:
        grid = low + (high - low) * (torch.arange(40_000, **DOUBLE) + 0.5) / 40_000
        weights = torch.full_like(grid, (high - low) / 40_000)
    total = (one.log_prob(grid.unsqueeze(1)).exp() * weights).sum().item()
    assert total == pytest.approx(1.0, abs=1e-4)
