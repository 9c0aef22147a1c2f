"""blitz's layers as bslfast's, where it is installed: as it is under the GPL, CI has it not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import bslfast
from bslfast import patch
from bslfast.nn import at_means, kl, priors

pytest.importorskip("blitz")
from blitz.models import vgg11
from blitz.modules import (
    BayesianConv1d,
    BayesianConv2d,
    BayesianConv3d,
    BayesianEmbedding,
    BayesianGRU,
    BayesianLinear,
    BayesianLSTM,
)
from blitz.utils import variational_estimator


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sides", [0, 1, 2, 3])
def test_layers(sides: int, bias: bool) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"bias": bias, "posterior_rho_init": -30.0}
    options |= {"prior_pi": 0.3, "prior_sigma_1": 0.5, "prior_sigma_2": 0.1}
    layer: Any = BayesianLinear(5, 4, **options)
    x = torch.randn(6, 5)
    if sides:
        kind = (BayesianConv1d, BayesianConv2d, BayesianConv3d)[sides - 1]
        size: Any = 3 if sides == 1 else (3,) * sides
        layer = kind(4, 6, size, stride=2, padding=1, groups=2, **options)
        x = torch.randn(2, 4, *[7] * sides)
    ours: Any = patch.convert(layer)
    assert ours.priors["weight"] == priors.ScaleMixture(0.3, 0.5, 0.1)
    wanted = layer(x)
    torch.testing.assert_close(ours(x), wanted, rtol=1e-4, atol=1e-5)
    with at_means(ours):
        torch.testing.assert_close(ours(x), wanted, rtol=1e-4, atol=1e-5)


def test_the_divergence() -> None:
    """An estimate of the sum there, of the closed form where pi is 1."""
    torch.manual_seed(0)
    for options in (
        {"prior_pi": 1, "prior_sigma_1": 0.5},
        {"prior_dist": torch.distributions.Normal(0.0, 0.5)},
    ):
        layer = BayesianLinear(5, 4, posterior_rho_init=-1.0, **options)
        ours: Any = patch.convert(layer)
        assert ours.priors["bias"] == priors.Normal(0.0, 0.5)
        estimates = []
        for _ in range(300):
            layer(torch.ones(1, 5))
            estimates.append(float(layer.log_variational_posterior - layer.log_prior))
        found = torch.tensor(estimates)
        assert abs(found.mean() - kl(ours)) < 4 * found.std() / 300**0.5
        torch.testing.assert_close(
            ours.weights()[0].stddev(), torch.nn.functional.softplus(layer.weight_rho)
        )


@variational_estimator
class Model(nn.Module):
    """A model as blitz wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BayesianLinear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_methods_of_the_estimator() -> None:
    model: Any = Model()
    ours: Any = patch.convert(model)
    assert isinstance(ours.layer, bslfast.nn.BayesLinear)
    x, y = torch.randn(4, 5), torch.zeros(4, 1)
    ours(x)
    assert ours.nn_kl_divergence() == kl(ours) > 0
    loss = ours.sample_elbo(x, y, nn.MSELoss(), 3, complexity_cost_weight=1e6)
    torch.testing.assert_close(loss / 1e6, kl(ours), rtol=1e-3, atol=0)
    with pytest.raises(RuntimeError, match=r"freeze_: expected .*at_means"):
        ours.freeze_()
    assert model.nn_kl_divergence() == 0  # no pass yet: it is as it was


def test_ready_made_models() -> None:
    """They stay, with bslfast's layers inside."""
    torch.manual_seed(0)
    model: Any = vgg11().eval()
    for name, parameter in model.named_parameters():
        if "rho" in name:
            parameter.data.fill_(-30.0)
    ours: Any = patch.convert(model)
    assert type(ours) is type(model)
    assert sum(isinstance(m, bslfast.nn.BayesianLayer) for m in ours.modules()) == 11
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), model(x), rtol=1e-3, atol=1e-4)
    assert ours.nn_kl_divergence() == kl(ours) > 0


def closed_form(layer: nn.Module, samplers: list[str], scale: float) -> torch.Tensor:
    """The divergence from N(0, scale), summed over what these attributes of a layer draw."""
    normal, total = torch.distributions.Normal, torch.zeros(())
    for sampler in [getattr(layer, name) for name in samplers]:
        posterior = normal(sampler.mu, nn.functional.softplus(sampler.rho))
        total = total + torch.distributions.kl_divergence(posterior, normal(0.0, scale)).sum()
    return total


def test_lstm() -> None:
    """Gates in the same order, one bias, and states without a dimension of layers."""
    torch.manual_seed(0)
    layer: Any = BayesianLSTM(5, 4, posterior_rho_init=-1.0, prior_pi=1, prior_sigma_1=0.5)
    ours: Any = patch.convert(layer)
    assert isinstance(ours, patch.WithFinalState)
    samplers = ["weight_ih_sampler", "weight_hh_sampler", "bias_sampler"]
    torch.testing.assert_close(kl(ours), closed_form(layer, samplers, 0.5))
    frozen = [name for name, p in ours.named_parameters() if not p.requires_grad]
    assert frozen == ["layer.bias_hh_l0_loc"]
    # Draws are those of whole sequences.
    x = torch.randn(3, 7, 5)
    theirs, own = (torch.stack([m(x)[0] for _ in range(500)]).detach() for m in (layer, ours))
    torch.testing.assert_close(own.mean(0), theirs.mean(0), rtol=0, atol=0.15)
    torch.testing.assert_close(own.std(0), theirs.std(0), rtol=0.25, atol=0)
    # Nearly without noise.
    for name, parameter in layer.named_parameters():
        if "rho" in name:
            parameter.data.fill_(-30.0)
    ours = patch.convert(layer)
    start = torch.randn(3, 4), torch.randn(3, 4)
    for state in (None, start):
        wanted, (h, c) = layer(x, state)
        found, (own_h, own_c) = ours(x, state)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_h, h, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_c, c, rtol=1e-4, atol=1e-5)
    ours(x)[0].sum().backward()
    assert ours.layer.weight_hh_l0_loc.grad.abs().sum() > 0


def test_mixtures_of_the_lstm() -> None:
    layer: Any = BayesianLSTM(5, 4, prior_pi=0.3, prior_sigma_1=0.5, prior_sigma_2=0.1)
    ours: Any = patch.convert(layer)
    mixed = [f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih")]
    assert {ours.layer.priors[name] for name in mixed} == {priors.ScaleMixture(0.3, 0.5, 0.1)}
    assert torch.equal(ours.layer.weight_ih_l0_loc, layer.weight_ih_mu.T)
    assert torch.equal(ours.layer.weight_hh_l0_raw_scale, layer.weight_hh_rho.T)


def test_embedding() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"prior_pi": 1, "prior_sigma_1": 0.5}
    layer: Any = BayesianEmbedding(6, 3, posterior_rho_init=-1.0, **options)
    ours: Any = patch.convert(layer)
    assert isinstance(ours, bslfast.nn.BayesEmbedding)
    torch.testing.assert_close(kl(ours), closed_form(layer, ["weight_sampler"], 0.5))
    x = torch.tensor([[0, 5, 2], [1, 1, 3]])
    with at_means(ours):
        torch.testing.assert_close(ours(x), layer.weight_mu[x])
    for options in ({"padding_idx": 0}, {"max_norm": 1.0}, {"sparse": True}, {"freeze": True}):
        (name,) = options
        with pytest.raises(patch.CannotConvert, match=name):
            patch.convert(BayesianEmbedding(6, 3, **options))


def test_what_is_refused() -> None:
    model = nn.ModuleList(
        [
            BayesianLSTM(3, 4, bias=False),
            BayesianLinear(3, 4, freeze=True),
            BayesianLinear(3, 4, prior_dist=torch.distributions.Laplace(0.0, 1.0)),
            BayesianLSTM(3, 4, peephole=True),
            BayesianLSTM(3, 4, sharpen=True),
            BayesianLSTM(3, 4, freeze=True),
            BayesianGRU(3, 4),
        ]
    )
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(model)
    assert list(found.value.reasons) == [str(i) for i in range(7)]
