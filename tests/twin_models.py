"""Flows of peers that run as twins of bslfast, and what is compared of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bslfast import patch

D, C = 5, 3
Results = Callable[[Tensor, Tensor | None], list[Tensor]]


def nflows_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("nflows.transforms")
    autoregressive: Any = importlib.import_module("nflows.transforms.autoregressive")
    nets: Any = importlib.import_module("nflows.nn.nets")
    spline: dict[str, Any] = {"num_bins": 4, "tails": "linear", "tail_bound": 3.0}
    mask = torch.arange(D) % 2

    def network(n_in: int, n_out: int) -> nn.Module:
        return nets.ResidualNet(n_in, n_out, 16, context_features=context, num_blocks=1)  # type: ignore[no-any-return]

    def step(turn: int) -> nn.Module:
        if kind == "spline":
            moved = mask if turn else 1 - mask
            return of.PiecewiseRationalQuadraticCouplingTransform(moved, network, **spline)  # type: ignore[no-any-return]
        if kind == "affine":
            return of.AffineCouplingTransform(mask if turn else 1 - mask, network)  # type: ignore[no-any-return]
        options: dict[str, Any] = {"context_features": context, "num_blocks": 1}
        if kind == "masked spline":
            of_kind = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            return of_kind(D, 16, **options, **spline)  # type: ignore[no-any-return]
        return autoregressive.MaskedAffineAutoregressiveTransform(D, 16, **options)  # type: ignore[no-any-return]

    steps = [of.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5)]
    for turn in range(2):
        steps += [step(turn), of.RandomPermutation(D)]
        if kind == "spline":
            steps.append(of.LULinear(D, identity_init=False))
    base = importlib.import_module("nflows.distributions.normal").DiagonalNormal([D])
    flow = importlib.import_module("nflows.flows.base").Flow(of.CompositeTransform(steps), base)
    return flow  # type: ignore[no-any-return]


def nflows_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    back = flow._transform.inverse(x, c)
    return [flow.log_prob(x, c), *flow._transform(x, c), *back]


def zuko_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("zuko.flows")
    options: dict[str, Any] = {"transforms": 2, "hidden_features": (16, 16)}
    if kind == "spline":
        return of.NSF(D, context or 0, bins=4, **options)  # type: ignore[no-any-return]
    if kind == "affine":
        return of.RealNVP(D, context or 0, **options)  # type: ignore[no-any-return]
    flow = of.MAF(D, context or 0, **options)
    # As sbi standardises.
    numbers = {"loc": torch.randn(D), "scale": torch.rand(D) + 0.5, "buffer": True}
    first = of.UnconditionalTransform(torch.distributions.AffineTransform, **numbers)
    return of.Flow([first, *flow.transform.transforms], flow.base)  # type: ignore[no-any-return]


def zuko_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    found = flow(c)
    turned = found.transform.inv
    assert turned.inv.inv(x).equal(turned(x))
    return [
        found.log_prob(x),
        *found.transform.call_and_ladj(x),
        *turned.call_and_ladj(x),
        turned(x),
        found.transform(x),
    ]


def normflows_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("normflows")
    steps = []
    for turn in range(2):
        if kind == "spline":
            options = {"num_context_channels": context}
            kinds = (
                of.flows.AutoregressiveRationalQuadraticSpline,
                of.flows.CoupledRationalQuadraticSpline,
            )
            steps.append(kinds[turn](D, 1, 16, num_bins=4, **options))
            steps.append(of.flows.LULinearPermute(D))
        elif kind == "affine":
            mask = (torch.arange(D) + turn) % 2
            nets = [of.nets.MLP([D, 16, D], init_zeros=False) for _ in range(2)]
            steps.append(of.flows.MaskedAffineFlow(mask.float(), *nets))
        else:
            options = {"context_features": context}
            steps.append(of.flows.MaskedAffineAutoregressive(D, 16, num_blocks=1, **options))
    kinds = of.NormalizingFlow, of.ConditionalNormalizingFlow
    return kinds[context is not None](of.distributions.DiagGaussian(D), steps)  # type: ignore[no-any-return]


def normflows_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    given = (x,) if c is None else (x, c)
    found = [flow.log_prob(*given), flow.forward_kld(*given).view(1)]
    for step in flow.flows:
        if type(step).__name__ != "LULinearPermute":
            found += [*step.inverse(*given), *step.forward(*given)]
    return found


MODELS: dict[str, tuple[Any, Any]] = {
    "nflows": (nflows_model, nflows_results),
    "normflows": (normflows_model, normflows_results),
    "zuko": (zuko_model, zuko_results),
}
CASES = [
    (peer, kind, context)
    for peer, kinds in {
        "nflows": ("spline", "affine", "masked", "masked spline"),
        "normflows": ("spline", "affine", "masked"),
        "zuko": ("spline", "affine", "masked"),
    }.items()
    for kind in kinds
    for context in (None, C)
    if (peer, kind, context) not in {("normflows", "affine", C), ("normflows", "masked", C)}
]


def model_of(peer: str, kind: str, context: int | None = None) -> Any:
    pytest.importorskip(peer)
    torch.manual_seed(0)
    model = MODELS[peer][0](kind, context).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def inputs(context: int | None, rows: int = 20) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    x = torch.randn(rows, D, **options).requires_grad_()
    c = None if context is None else torch.randn(rows, context, **options).requires_grad_()
    return x, c


def gradients(model: nn.Module, results: list[Tensor], given: Any, **more: Any) -> list[Tensor]:
    """Those of a number made of all results."""
    loss = sum(((i + 1.0) * t.sin()).sum() for i, t in enumerate(results))
    tensors = [t for t in given if t is not None] + list(model.parameters())
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    return list(torch.autograd.grad(loss, tensors, **options, **more))


def both(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Densities, by nflows and with the swap."""
    wanted = model.log_prob(x)
    with patch.using("nflows"):
        return model.log_prob(x), wanted


def agree(model: Any, x: Tensor) -> None:
    torch.testing.assert_close(*both(model, x), rtol=1e-8, atol=1e-8)


def nflows_of(steps: list[Any]) -> Any:
    of: Any = importlib.import_module("nflows.transforms")
    base = importlib.import_module("nflows.distributions.normal").StandardNormal([D])
    return importlib.import_module("nflows.flows.base").Flow(of.CompositeTransform(steps), base)
