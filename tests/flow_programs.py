"""Flows that become programs, and what tests compare of them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from bslfast import programs
from bslfast.flows import (
    IAF,
    MADE,
    MAF,
    NICE,
    NSF,
    ActNorm,
    Additive,
    Affine,
    AffineCoupling,
    Atanh,
    Autoregressive,
    Base,
    BatchNorm,
    Bernstein,
    Composite,
    Conditioner,
    Coupling,
    DeepSigmoidal,
    Exp,
    Flow,
    Householder,
    Inverse,
    Leading,
    LeakyReLU,
    Log,
    Logit,
    Map,
    MixtureLogistic,
    NormalBase,
    NormalMixtureBase,
    Permutation,
    Planar,
    PLULinear,
    Radial,
    RealNVP,
    Sigmoid,
    Softplus,
    Spline,
    SplineCoupling,
    Standardize,
    StudentTBase,
    Sylvester,
    Tanh,
    Transform,
    UniformBase,
    VonMisesBase,
)
from bslfast.flows.flow import _density_steps
from bslfast.flows.transform import forward_steps, inverse_steps

MAPS: tuple[Map, ...] = (
    Additive(),
    Affine("tanh"),
    Affine("exp"),
    Affine("sigmoid"),
    Spline(4),
    Spline(5, bound=2.0, tails="affine"),
    MixtureLogistic(3),
    DeepSigmoidal(3),
    Bernstein(5),
)


ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "gelu")


def mixed(map: Map, features: int, context: int, activation: str, residual: int) -> Flow:
    """A flow with each kind of transform that has steps, of one map."""
    network: dict[str, Any] = {
        "context": context,
        "activation": activation,
        "residual": residual,
        "hidden": (13, 6),
    }
    mask = [index % 2 == 0 for index in range(features)]
    kept = features - sum(mask)
    order = torch.randperm(features).tolist()
    standardize = Standardize.from_data(torch.randn(50, features).double() * 3)
    transforms = [
        standardize,
        Coupling(
            map,
            mask,
            Conditioner(kept, sum(mask) * map.size, start=map.start, **network),
            context=context,
        ),
        Permutation(torch.randperm(features)),
        Autoregressive(map, MADE(features, map, order=order, **network)),
        ActNorm(features),
        PLULinear(features, seed=1),
        LeakyReLU(features, negative_slope=0.7),
        Inverse(Autoregressive(map, MADE(features, map, order=order, **network))),
    ]
    if features > 1:
        leading: dict[str, Any] = {"context": context, "hidden": ()}
        transforms.append(Leading(AffineCoupling(features - 1, **leading), features))
    return Flow(Composite(transforms))


def inside(tails: str | None, context: int, base: Base) -> Flow:
    """A flow of splines on an interval."""
    spline = Spline(4, bound=math.pi, tails=tails)
    network: dict[str, Any] = {"context": context, "hidden": (8,)}
    coupling = SplineCoupling(3, bins=5, bound=math.pi, tails=tails, **network)
    transforms = [
        coupling,
        Permutation([2, 0, 1]),
        Autoregressive(spline, MADE(3, spline, **network)),
        Inverse(Autoregressive(spline, MADE(3, spline, **network))),
    ]
    return Flow(Composite(transforms), base)


def elementwise() -> Flow:
    """From numbers between 0 and 1, by every map of single numbers and its inverse."""
    maps = (Logit, Exp, Log, Tanh, Atanh, Softplus, Log, LeakyReLU, Sigmoid, Logit)
    return Flow(Composite([kind(2) for kind in maps] + [AffineCoupling(2, hidden=())]))


def rotated(features: int) -> Flow:
    """Maps that move all features of a row, and their inverses."""
    maps = [
        Planar(features),
        Radial(features),
        Householder(features, reflections=3),
        Sylvester(features, rank=(features + 1) // 2),
        BatchNorm(features, eps=0.2),
        Sylvester(features),
    ]
    return Flow(Composite([*maps, *(Inverse(kept) for kept in copy.deepcopy(maps))]))


def amortised(features: int) -> Flow:
    """Maps whose parameters depend on the context, and their inverses."""
    maps = [
        Planar(features, context=2, hidden=(5,)),
        Radial(features, context=2),
        Planar(features),
        Radial(features, context=2, hidden=(4,), activation="tanh"),
    ]
    return Flow(Composite([*maps, *(Inverse(kept) for kept in copy.deepcopy(maps))]))


def with_base(kind: Callable[..., Base], *args: Any, context: int) -> Flow:
    """A flow with noise of a law whose parameters depend on the context, if there is one."""
    base = kind(3, *args, context=context, hidden=(5,) if context else ())
    return Flow(RealNVP(3, transforms=2, hidden=(8,), context=context).transform, base)


BASES: dict[str, tuple[Any, ...]] = {
    "normal": (NormalBase,),
    "student-t": (StudentTBase,),
    "mixture": (NormalMixtureBase, 3),
    "mixture of one": (NormalMixtureBase, 1),
}
CASES: dict[str, Callable[[], Flow]] = {
    "circular": lambda: inside("circular", 0, UniformBase(3, -math.pi, math.pi)),
    "circular-context": lambda: inside("circular", 2, VonMisesBase(3, context=2)),
    "no-tails": lambda: inside(None, 0, VonMisesBase(3)),
    "elementwise": elementwise,
    "rotated-1": lambda: rotated(1),
    "rotated-5": lambda: rotated(5),
    "amortised-1": lambda: amortised(1),
    "amortised-4": lambda: amortised(4),
    **{
        f"base-{name}-{context}": (
            lambda given=given, context=context: with_base(*given, context=context)
        )
        for name, given in BASES.items()
        for context in (0, 2)
    },
    "realnvp-1": lambda: RealNVP(1, hidden=(8,)),
    "realnvp-1-context": lambda: RealNVP(1, hidden=(8,), context=2),
    "realnvp-wide": lambda: RealNVP(7, hidden=(33, 70), transforms=2),
    "nsf-autoregressive": lambda: NSF(3, hidden=(9,), autoregressive=True, transforms=2),
    "maf-no-hidden": lambda: MAF(4, hidden=(), transforms=2, context=1),
    "maf-narrow": lambda: MAF(6, hidden=(3,), transforms=2),
    "iaf": lambda: IAF(3, hidden=(9, 5), transforms=2),
    "random": lambda: RealNVP(3, hidden=(9,), permutation="random", support="positive"),
    "plu": lambda: MAF(3, hidden=(9,), transforms=2, permutation="plu", support=(-1.0, 4.0)),
    "none": lambda: NSF(3, hidden=(9,), transforms=2, permutation="none", support=(0, 1)),
    "nice": lambda: NICE(3, hidden=(9,), context=2),
    **{
        f"{map!r}-{features}-{context}": (
            lambda map=map, features=features, context=context, index=index: mixed(
                map, features, context, ACTIVATIONS[index % 5], index % 3
            )
        )
        for index, (map, (features, context)) in enumerate(
            itertools.product(MAPS, ((1, 0), (4, 0), (5, 2)))
        )
    },
}


def made(name: str, dtype: torch.dtype = torch.float64) -> Flow:
    """A flow with weights all over the place."""
    torch.manual_seed(0)
    flow = CASES[name]().double()
    for module in flow.modules():
        if isinstance(module, ActNorm):
            module.initialized.fill_(True)
        if isinstance(module, BatchNorm):
            module.eval()
            module.running_mean.normal_()
            module.running_var.uniform_(0.0, 2.0)[0] = 0.0
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return flow.to(dtype)


def inputs(flow: Flow, rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Any]:
    x = torch.randn(rows, flow.features, dtype=dtype)
    if flow.transform.domain is not constraints.real_vector:
        x = 0.05 + 0.9 * x.sigmoid()
    x.requires_grad_()
    if not flow.context:
        return x, None
    return x, torch.randn(rows, flow.context, dtype=dtype, requires_grad=True)


def sizes(module: Flow | Transform) -> tuple[int, int]:
    return module.features, module.context


def programs_of(flow: Flow) -> list[programs.Lowered]:
    return [
        programs.lowered(flow, "density", _density_steps, sizes(flow)),
        programs.lowered(flow.transform, "forward", forward_steps, sizes(flow.transform)),
        programs.lowered(flow.transform, "inverse", inverse_steps, sizes(flow.transform)),
    ]


def everything(flow: Flow, x: Tensor, context: Any) -> list[Tensor]:
    """Values of all calls, and gradients of everything that has one."""
    wanted = [t for t in (x, context, *flow.parameters()) if t is not None and t.requires_grad]
    found: list[Tensor] = []
    weights = torch.linspace(-1, 1, max(len(x), 1), dtype=x.dtype)[: len(x)]
    for values in (
        (flow.log_prob(x, context),),
        flow.transform(x, context),
        flow.transform.inverse(x, context),
    ):
        total = sum((value.sin().view(len(x), -1).sum(1) * weights).sum() for value in values)
        assert isinstance(total, Tensor)
        found += values
        found += [g for g in torch.autograd.grad(total, wanted, allow_unused=True) if g is not None]
    return found
