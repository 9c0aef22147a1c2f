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


def test_what_is_refused() -> None:
    model = nn.ModuleList(
        [
            BayesianLSTM(3, 4),
            BayesianLinear(3, 4, freeze=True),
            BayesianLinear(3, 4, prior_dist=torch.distributions.Laplace(0.0, 1.0)),
        ]
    )
    with pytest.raises(patch.CannotConvert) as found:
        patch.convert(model)
    assert list(found.value.reasons) == ["0", "1", "2"]
