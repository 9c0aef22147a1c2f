"""Flows whose conditioners are Bayesian networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast.bnn import BayesianMLP
from bslfast.flows import (
    IAF,
    MAF,
    NSF,
    Affine,
    Autoregressive,
    Composite,
    Conditioner,
    Coupling,
    Flow,
    RealNVP,
)
from bslfast.nn import BayesLinear, deterministic_twin, kl, one_draw, to_bayesian

SETTINGS = {"hidden": (8,), "transforms": 2, "dtype": torch.float64}
#: How a flow is made, and the size of its context.
MODELS: dict[str, tuple[Callable[[], Flow], int]] = {
    "RealNVP": (lambda: RealNVP(3, **SETTINGS), 0),
    "RealNVP with residual blocks": (lambda: RealNVP(3, residual=1, context=2, **SETTINGS), 2),
    "NSF": (lambda: NSF(3, context=2, **SETTINGS), 2),
    "MAF": (lambda: MAF(3, **SETTINGS), 0),
    "NSF, autoregressive": (lambda: NSF(3, autoregressive=True, context=2, **SETTINGS), 2),
    "IAF": (lambda: IAF(3, **SETTINGS), 0),
}


def made(name: str) -> tuple[Flow, Tensor, Tensor | None]:
    torch.manual_seed(0)
    make, context = MODELS[name]
    flow = make()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    x = torch.randn(6, 3, dtype=torch.float64)
    return flow, x, torch.randn(6, context, dtype=torch.float64) if context else None


@pytest.mark.parametrize("name", MODELS)
def test_a_flow_becomes_bayesian(name: str) -> None:
    plain, x, context = made(name)
    flow = to_bayesian(plain, init_scale=0.1)
    assert type(flow) is type(plain)
    first, second = flow.log_prob(x, context), flow.log_prob(x, context)
    assert not torch.equal(first, second)  # each call has a draw of its own
    with one_draw(flow):
        log_prob = flow.log_prob(x, context)
        assert torch.equal(log_prob, flow.log_prob(x, context))
        z, log_det = flow.transform(x, context)
        back, inverse_log_det = flow.transform.inverse(z, context)
        sample, density = flow.rsample_and_log_prob(4, context)
        known = None if context is None else context.unsqueeze(1)
        torch.testing.assert_close(density, flow.log_prob(sample, known))
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse_log_det, -log_det)
    assert flow.explain().count("op by op: weights of Bayesian layers are drawn") == 3


@pytest.mark.parametrize("name", MODELS)
def test_the_inverse_has_one_draw(name: str) -> None:
    """Also outside of one_draw: autoregressive inverses call their network for each feature."""
    plain, x, context = made(name)
    flow = to_bayesian(plain, init_scale=0.5)
    z = x.repeat(2, 1)
    again = None if context is None else context.repeat(2, 1)
    found = flow.transform.inverse(z, again)[0]
    torch.testing.assert_close(found[:6], found[6:], rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_divergence(name: str) -> None:
    plain, x, context = made(name)
    flow = to_bayesian(plain, init_scale=0.1, prior_scale=0.5)
    loss = bslfast.negative_elbo(flow.log_prob(x, context), kl(flow), dataset_size=100)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    expected = 0.0
    for parameter in plain.parameters():
        count, squares = parameter.numel(), parameter.detach().square().sum().item()
        ratio = 0.1 / 0.5
        expected += 0.5 * (count * (ratio**2 - 1 - 2 * math.log(ratio)) + squares / 0.25)
    assert kl(flow).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_twin_of_the_means(name: str) -> None:
    plain, x, context = made(name)
    twin = deterministic_twin(to_bayesian(plain))
    assert torch.equal(twin.log_prob(x, context), plain.log_prob(x, context))
    assert twin.state_dict().keys() == plain.state_dict().keys()


def test_masks_hold_for_drawn_weights() -> None:
    flow, x, _ = made("MAF")
    flow = to_bayesian(flow, init_scale=1.0)
    with one_draw(flow):
        jacobian = torch.func.jacrev(lambda row: flow.transform.transforms[0](row)[0])(x[0])
    order = flow.transform.transforms[0].order
    later = jacobian[list(order)][:, list(order)].triu(1)
    assert (later == 0).all()
    assert (jacobian != 0).any()


def net() -> nn.Module:
    return nn.Sequential(BayesLinear(1, 8), nn.ReLU(), BayesLinear(8, 4))


@pytest.mark.parametrize("conditioner", [net, lambda: BayesianMLP(1, (8,), 4)])
@pytest.mark.parametrize("composite", [True, False])
def test_networks_of_ones_own(conditioner: Callable[[], nn.Module], composite: bool) -> None:
    torch.manual_seed(0)
    step = Coupling(Affine(), [True, False, True], conditioner())
    flow, x = Flow(Composite([step]) if composite else step), torch.randn(5, 3)
    with one_draw(flow):
        z, log_det = flow.transform(x)
        torch.testing.assert_close(flow.transform.inverse(z)[0], x)
        expected = log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
        torch.testing.assert_close(flow.log_prob(x), expected)
        values, density = flow.rsample_and_log_prob(3)
        torch.testing.assert_close(flow.log_prob(values), density)
    assert flow.sample(3).shape == (3, 3)
    assert "weights of Bayesian layers are drawn" in flow.explain()
    bslfast.negative_elbo(flow.log_prob(x), kl(flow), dataset_size=5).backward()
    # A BayesianMLP has a likelihood, too.
    drawn = [p for name, p in flow.named_parameters() if "likelihood" not in name]
    assert all(p.grad is not None for p in drawn)


@pytest.mark.parametrize("context", [0, 2])
def test_a_bayesian_layer_in_a_conditioner(context: int) -> None:
    """The other layers are plain. What comes of the context is added to its outputs."""
    torch.manual_seed(0)
    network = Conditioner(1, 4, context=context, hidden=(8, 8))
    network.layers[0] = BayesLinear(1, 8)
    step = Coupling(Affine(), [True, False, True], network, context=context)
    flow, x = Flow(Composite([step])), torch.randn(5, 3)
    given = torch.randn(5, context) if context else None
    assert flow.explain().startswith("log_prob: op by op: weights of Bayesian layers are drawn")
    assert flow.log_prob(x, given).isfinite().all()


def test_fit_adds_the_divergence() -> None:
    torch.manual_seed(0)
    flow = to_bayesian(RealNVP(2, transforms=2, hidden=(8,)), init_scale=0.05)
    x = torch.randn(512, 2) * torch.tensor([2.0, 0.5])
    before, divergence = flow.log_prob(x).mean().item(), kl(flow).item()
    bslfast.training.fit(flow, (x,), epochs=30, lr=1e-2, objective=Flow.log_prob)
    assert flow.log_prob(x).mean().item() > before + 0.1
    assert kl(flow).item() < divergence


def test_autoregressive_of_ones_own() -> None:
    class Network(nn.Module):
        order = (0, 1)

        def __init__(self) -> None:
            super().__init__()
            self.layer = BayesLinear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            scale, shift = self.layer(x * torch.tensor([1.0, 0.0])).split(2, -1)
            return torch.cat(
                [scale * torch.tensor([0.0, 1.0]), shift * torch.tensor([0.0, 1.0])], -1
            )

    torch.manual_seed(0)
    transform = Autoregressive(Affine(), Network())
    x = torch.randn(5, 2)
    with one_draw(transform):
        torch.testing.assert_close(transform.inverse(transform(x)[0])[0], x)
    z = torch.ones(2, 2)
    found = transform.inverse(z)[0]
    assert torch.equal(found[0], found[1])
