"""normflows' flows as bslfast's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bslfast import patch

nf: Any = pytest.importorskip("normflows")
of = nf.flows

D, C = 5, 3
MASK = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
Make = Callable[[], list[Any]]


def mlp(*sizes: int, **options: Any) -> Any:
    return nf.nets.MLP(list(sizes), **options)


#: The context, whether it runs as one call, and the flows.
FLOWS: dict[str, tuple[int, bool, Make]] = {
    "masked": (0, True, lambda: [of.MaskedAffineFlow(MASK, mlp(D, 9, D), mlp(D, 8, 7, D))]),
    "masked, shifts": (0, True, lambda: [of.MaskedAffineFlow(MASK, mlp(D, 9, D))]),
    "masked, scales": (0, True, lambda: [of.MaskedAffineFlow(MASK, None, mlp(D, 9, D))]),
    "masked, leaky": (
        0,
        False,
        lambda: [of.MaskedAffineFlow(MASK, mlp(D, 9, D), mlp(D, 9, D, leaky=0.1))],
    ),
    "blocks": (
        0,
        True,
        lambda: [
            of.AffineCouplingBlock(mlp(3, 8, 4)),
            of.AffineCouplingBlock(mlp(2, 8, 6), split_mode="channel_inv"),
            of.AffineCouplingBlock(mlp(3, 8, 4), scale_map="sigmoid"),
            of.AffineCouplingBlock(mlp(3, 8, 4), scale_map="sigmoid_inv"),
            of.AffineCouplingBlock(mlp(3, 8, 2), scale=False),
        ],
    ),
    "blocks, tanh": (
        0,
        False,
        lambda: [of.AffineCouplingBlock(mlp(3, 8, 4, output_fn="tanh"))],
    ),
    "spline": (
        0,
        True,
        lambda: [of.CoupledRationalQuadraticSpline(D, 2, 16, num_bins=5, reverse_mask=True)],
    ),
    "spline, context": (
        C,
        True,
        lambda: [of.CoupledRationalQuadraticSpline(D, 1, 16, num_context_channels=C)],
    ),
    "spline, autoregressive": (
        0,
        True,
        lambda: [of.AutoregressiveRationalQuadraticSpline(D, 2, 18, num_bins=5)],
    ),
    "spline, autoregressive, any order": (
        0,
        True,
        lambda: [of.AutoregressiveRationalQuadraticSpline(D, 1, 18, permute_mask=True)],
    ),
    "spline, autoregressive, context": (
        C,
        False,
        lambda: [of.AutoregressiveRationalQuadraticSpline(D, 1, 18, num_context_channels=C)],
    ),
    "masked autoregressive": (
        0,
        True,
        lambda: [of.MaskedAffineAutoregressive(D, 16, num_blocks=1)],
    ),
    "masked autoregressive, plain": (
        0,
        False,
        lambda: [of.MaskedAffineAutoregressive(D, 16, use_residual_blocks=False)],
    ),
    "mixing": (
        0,
        True,
        lambda: [of.Permute(D), of.LULinearPermute(D), of.Permute(D, "swap"), constant()],
    ),
    "one scale": (0, True, lambda: [of.affine.coupling.AffineConstFlow(D, shift=False)]),
}


def constant() -> Any:
    flow = of.ActNorm(D)
    flow.data_dep_init_done = torch.tensor(1.0)
    return flow


def flow_of(make: Make, context: int = 0, trainable: bool = False) -> Any:
    torch.manual_seed(0)
    kind = nf.ConditionalNormalizingFlow if context else nf.NormalizingFlow
    flow = kind(nf.distributions.DiagGaussian(D, trainable=trainable), make())
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return flow.double()


@pytest.mark.parametrize("name", FLOWS)
def test_flows(name: str, compare: Any) -> None:
    context, steps, make = FLOWS[name]
    flow = flow_of(make, context, trainable=name == "blocks")

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        found = flow.log_prob(x) if c is None else flow.log_prob(x, c)
        return found.double()

    compare(flow, log_prob, D, context, steps=steps)


@pytest.mark.parametrize("name", ["Planar", "Radial"])
def test_what_has_no_inverse_there(name: str) -> None:
    """From noise to data."""
    flow = flow_of(lambda: [getattr(of, name)((D,)) for _ in range(2)])
    ours: Any = patch.convert(flow)
    z = torch.randn(30, D).double()
    wanted, log_det = flow.forward_and_log_det(z)
    x, found = ours.transform.inverse(z)
    torch.testing.assert_close(x, wanted)
    torch.testing.assert_close(found, log_det.double(), rtol=1e-5, atol=1e-6)
    back, _ = ours.transform(x)
    torch.testing.assert_close(back, z)
    own = [p for n, p in ours.named_parameters() if n.endswith((".w", ".x0"))]
    their = [p for n, p in flow.named_parameters() if n.endswith((".w", ".z_0"))]
    grads = [torch.autograd.grad(y.square().sum(), ps) for y, ps in ((x, own), (wanted, their))]
    for first, second in zip(grads[0], grads[1][::-1], strict=True):
        torch.testing.assert_close(first, second.reshape(first.shape))


def test_act_norm() -> None:
    flow = flow_of(lambda: [of.ActNorm(D)])
    ours: Any = patch.convert(flow)
    x = 3 + 2 * torch.randn(500, D).double()
    wanted = flow.log_prob(x)  # the first batch, whose deviations it corrects for its size
    torch.testing.assert_close(ours.log_prob(x), wanted, rtol=0, atol=0.05)
    torch.testing.assert_close(patch.convert(flow).log_prob(x), wanted)
    with pytest.raises(patch.CannotConvert, match="seen no batch"):
        patch.convert(flow_of(lambda: [of.ActNorm(D)]).eval())


def test_one_network_for_both_is_refused() -> None:
    network = mlp(D, 9, D)
    with pytest.raises(patch.CannotConvert, match=r"flows\.0: layers of both networks") as found:
        patch.convert(flow_of(lambda: [of.MaskedAffineFlow(MASK, network, network)]))
    assert list(found.value.reasons) == ["flows.0"]


def test_what_is_refused() -> None:
    steps = [
        of.BatchNorm(),
        of.Planar((D,), act="leaky_relu"),
        of.InvertibleAffine(D),
        of.AffineCouplingBlock(mlp(3, 4), split_mode="checkerboard"),
        of.CoupledRationalQuadraticSpline(D, 1, 8, tails="circular"),
        of.AutoregressiveRationalQuadraticSpline(D, 1, 8, tail_bound=torch.ones(D)),
    ]
    base = nf.distributions.GaussianMixture(2, D)
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(nf.NormalizingFlow(base, steps))
    assert sorted(found.value.reasons) == [*(f"flows.{i}" for i in range(6)), "q0"]
