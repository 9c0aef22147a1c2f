"""zuko's flows as bslfast's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import patch

pytest.importorskip("zuko")
import zuko
from zuko.flows import MAF, NCSF, NICE, NSF, GeneralCouplingTransform, RealNVP
from zuko.lazy import Flow, UnconditionalDistribution, UnconditionalTransform

D, C = 5, 3
SMALL: dict[str, Any] = {"transforms": 2, "hidden_features": (13, 9)}
ADJACENCY = torch.tensor(
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]
)


def additive() -> Any:
    shift = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
    return NICE(D, hidden_features=(8,), **shift)


def standardised(flow: Any, buffer: bool, **changed: Any) -> Any:
    """A flow behind an affine map of the data, as sbi makes it."""
    numbers = {"loc": torch.linspace(-1, 2, D), "scale": torch.linspace(0.5, 3, D)} | changed
    kind = torch.distributions.AffineTransform
    first = UnconditionalTransform(kind, **numbers, buffer=buffer)
    return Flow([first, *flow.transform.transforms], flow.base)


#: The context, whether it runs as one call, and the flow.
FLOWS: dict[str, tuple[int, bool, Callable[[], Any]]] = {
    "MAF": (0, True, lambda: MAF(D, **SMALL)),
    "MAF, context": (C, True, lambda: MAF(D, C, activation=nn.Tanh, **SMALL)),
    "MAF, any order": (0, True, lambda: MAF(D, randperm=True, **SMALL)),
    "MAF, residual": (0, False, lambda: MAF(D, residual=True, **SMALL)),
    "MAF, elu": (C, False, lambda: MAF(D, C, activation=nn.ELU, **SMALL)),
    "MAF, 2 passes": (0, True, lambda: MAF(D, passes=2, randperm=True, **SMALL)),
    "MAF, 2 passes, context": (C, False, lambda: MAF(D, C, passes=2, **SMALL)),
    "MAF, 3 passes": (0, False, lambda: MAF(D, passes=3, **SMALL)),
    "MAF, graph": (0, False, lambda: MAF(D, adjacency=ADJACENCY, **SMALL)),
    "MAF, slopes": (
        0,
        True,
        lambda: MAF(
            D,
            univariate=functools.partial(zuko.transforms.MonotonicAffineTransform, slope=0.1),
            **SMALL,
        ),
    ),
    "NSF": (0, True, lambda: NSF(D, bins=5, **SMALL)),
    "NSF, context": (C, True, lambda: NSF(D, C, bins=5, slope=1e-2, **SMALL)),
    "NSF, 2 passes": (0, True, lambda: NSF(D, bins=5, passes=2, **SMALL)),
    "NSF, one feature": (0, True, lambda: NSF(1, bins=5, **SMALL)),
    "NSF, one feature, context": (C, True, lambda: NSF(1, C, bins=5, **SMALL)),
    "NICE": (0, True, lambda: NICE(D, **SMALL)),
    "RealNVP, context": (C, True, lambda: RealNVP(D, C, randmask=True, **SMALL)),
    "RealNVP, normalised": (C, False, lambda: RealNVP(D, C, normalize=True, **SMALL)),
    "additive": (0, True, additive),
    "NSF, standardised": (C, True, lambda: standardised(NSF(D, C, bins=5, **SMALL), True)),
}


def made(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    flow = make()
    for parameter in flow.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return flow.double()


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name: str, compare: Any) -> None:
    context, steps, make = FLOWS[name]
    flow = made(make)

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        return flow(c).log_prob(x)

    features = 1 if "one" in name else D
    ours = compare(flow, log_prob, features, context, steps=steps)
    c = torch.randn(4, context).double() if context else None
    assert ours.distribution(c).sample((6,)).shape == flow(c).sample((6,)).shape


def test_other_parts(compare: Any) -> None:
    """A base that is not standard, a permutation, and a transform that is turned around."""
    base = UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.randn(D), torch.rand(D) + 0.5
    )
    permutation = UnconditionalTransform(
        zuko.transforms.PermutationTransform, torch.randperm(D), buffer=True
    )
    coupling = GeneralCouplingTransform(D, hidden_features=(8,))
    flow = Flow([coupling, permutation, coupling.inv], base).double()
    ours = compare(flow, lambda x, c: flow(c).log_prob(x), D, steps=True)
    assert ours.transform.transforms[2].transform is ours.transform.transforms[0]


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "circular": (lambda: NCSF(D), "no conversion of zuko.flows.spline.NCSF"),
    "polynomials": (lambda: zuko.flows.SOSPF(D), "no conversion of zuko.flows.polynomial.SOSPF"),
    "another map": (
        lambda: MAF(D, univariate=zuko.transforms.BernsteinTransform, shapes=[(5,)]),
        r"transform.transforms.0: the univariate BernsteinTransform with shapes \[\(5,\)\]",
    ),
    "another base": (
        lambda: Flow(
            [GeneralCouplingTransform(D)],
            UnconditionalDistribution(
                zuko.distributions.BoxUniform, torch.zeros(D), torch.ones(D), buffer=True
            ),
        ),
        "base: a BoxUniform as the base",
    ),
    "rotation": (
        lambda: Flow(
            [UnconditionalTransform(zuko.transforms.RotationTransform, torch.randn(D, D))],
            MAF(D).base,
        ),
        "an UnconditionalTransform of RotationTransform",
    ),
    "learned map": (lambda: standardised(MAF(D), False), "an AffineTransform that is learned"),
    "map of a number": (
        lambda: standardised(MAF(D), True, loc=torch.tensor(0.0)),
        "an AffineTransform of other shapes than vectors",
    ),
    "map that turns around": (
        lambda: standardised(MAF(D), True, scale=-torch.ones(D)),
        "an AffineTransform whose scale is not positive",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(patch.CannotConvert, match=reason):
        patch.convert(make())


def test_float32() -> None:
    flow = made(FLOWS["NSF, context"][2])
    x, c = torch.randn(500, D).double(), torch.randn(500, C).double()
    wanted = flow(c).log_prob(x)
    ours: Any = patch.convert(flow.float())
    for on in (True, False):
        with bslfast.whole_networks(on):
            found = ours.log_prob(x.float(), c.float())
            torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
