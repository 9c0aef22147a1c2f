"""bayesian-torch's layers as bslfast's: means, scales, divergences, outputs at the means."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

import bslfast
from bslfast import patch
from bslfast.nn import at_means, kl, priors

pytest.importorskip("bayesian_torch")
from bayesian_torch import layers
from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss

PRIOR: dict[str, Any] = {
    "prior_mean": 0.1,
    "prior_variance": 0.3,
    "posterior_mu_init": 0.0,
    "posterior_rho_init": -2.0,
}
KINDS = [
    f"{kind}{how}"
    for kind in ("Linear", *(f"Conv{t}{n}d" for t in ("", "Transpose") for n in (1, 2, 3)))
    for how in ("Reparameterization", "Flipout")
]


def made(kind: str, bias: bool = True) -> tuple[Any, torch.Tensor]:
    """A layer, and an input for it."""
    torch.manual_seed(0)
    make = getattr(layers, kind)
    if kind.startswith("Linear"):
        return make(5, 4, bias=bias, **PRIOR), torch.randn(6, 5)
    sides = int(kind[kind.index("d") - 1])
    more = {"output_padding": 1} if "Transpose" in kind else {}
    # Transposed layers of flipout have priors of a wrong shape there, unless channels are as many.
    layer = make(4, 4 if more else 6, 3, stride=2, padding=1, groups=2, bias=bias, **more, **PRIOR)
    return layer, torch.randn(3, 4, *[7] * sides)


def with_scale(layer: Any, rho: float) -> None:
    for name, parameter in layer.named_parameters():
        if "rho" in name:
            parameter.data.fill_(rho)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind: str, bias: bool) -> None:
    layer, x = made(kind, bias)
    ours: Any = patch.convert(layer)
    assert isinstance(ours, patch.WithKL)
    name = "flipout" if kind.endswith("Flipout") else "weight_sample"
    assert ours.layer.estimator == bslfast.nn.BayesLinear(1, 1, estimator=name).estimator
    weights = ours.layer.weights()
    theirs = [p for n, p in layer.named_parameters() if n.startswith("mu_")]
    for weight, mu, rho in zip(
        weights, theirs, [p for n, p in layer.named_parameters() if "rho_" in n], strict=True
    ):
        assert torch.equal(weight.loc, mu)
        torch.testing.assert_close(weight.stddev(), torch.log1p(torch.exp(rho)))
        assert weight.prior == priors.Normal(*(torch.tensor(v).item() for v in (0.1, 0.3)))
    # prior_variance is the standard deviation, and the divergences of tensors are averaged.
    torch.testing.assert_close(ours.kl_loss(), layer.kl_loss())
    torch.testing.assert_close(get_kl_loss(ours), layer.kl_loss())
    whole = torch.distributions.kl_divergence
    normal = torch.distributions.Normal
    sums = [whole(normal(w.loc, w.stddev()), normal(0.1, 0.3)).sum() for w in weights]
    torch.testing.assert_close(kl(ours), sum(sums[1:], sums[0]))
    # Nearly without noise.
    with_scale(layer, -30.0)
    ours = patch.convert(layer)
    wanted = layer(x)[0]
    y, divergence = ours(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(x, return_kl=False), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(divergence, ours.kl_loss())


def test_the_spread_of_outputs_is_theirs() -> None:
    for kind in ("LinearReparameterization", "LinearFlipout"):
        layer, x = made(kind)
        ours: Any = patch.convert(layer)
        theirs = torch.stack([layer(x, return_kl=False) for _ in range(400)])
        own = torch.stack([ours(x, return_kl=False) for _ in range(400)])
        torch.testing.assert_close(own.mean(0), theirs.mean(0), rtol=0, atol=0.15)
        torch.testing.assert_close(own.std(0), theirs.std(0), rtol=0.25, atol=0)


def test_models_of_dnn_to_bnn() -> None:
    """They return no divergences, which ``get_kl_loss`` finds all the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    settings = {"prior_mu": 0.0, "prior_sigma": 0.5, "type": "Reparameterization"}
    moped = {"moped_enable": True, "moped_delta": 0.1}
    start = {"posterior_mu_init": 0.0, "posterior_rho_init": -3.0}
    dnn_to_bnn(model, settings | moped | start)
    model.eval()
    ours: Any = patch.convert(model)
    assert type(ours[0].layer) is bslfast.nn.BayesConv2d
    assert type(ours[3].layer) is bslfast.nn.BayesLinear
    assert not any(module.training for module in ours.modules())
    loss, wanted = get_kl_loss(ours), get_kl_loss(model)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours[3].layer.weight_loc.grad, model[3].mu_weight.grad)
    x = torch.randn(3, 1, 8, 8)
    with at_means(ours):
        means = ours(x)
    for layer in (model[0], model[3]):
        with_scale(layer, -30.0)
    torch.testing.assert_close(means, model(x), rtol=1e-4, atol=1e-5)
    assert all(p.requires_grad for p in ours.parameters())


@pytest.mark.parametrize(
    ("name", "kind", "shape", "layers_inside"),
    [
        ("bayesian.simple_cnn_variational", "SCNN", (1, 28, 28), 4),
        ("flipout.simple_cnn", "SCNN", (1, 28, 28), 4),
        ("bayesian.resnet_variational", "resnet20", (3, 32, 32), 20),
        ("bayesian.resnet_variational_large", "resnet18", (3, 224, 224), 21),
    ],
)
@pytest.mark.filterwarnings("ignore:dropout2d")
def test_ready_made_models(
    name: str, kind: str, shape: tuple[int, ...], layers_inside: int
) -> None:
    """They stay, with bslfast's layers inside, and return the same sums of divergences."""
    torch.manual_seed(0)
    made_there = getattr(importlib.import_module(f"bayesian_torch.models.{name}"), kind)
    model = made_there().eval()
    ours: Any = patch.convert(model)
    assert type(ours) is type(model)
    assert sum(isinstance(m, patch.WithKL) for m in ours.modules()) == layers_inside
    for layer in model.modules():
        if hasattr(layer, "kl_loss"):
            with_scale(layer, -30.0)
    x = torch.randn(3, *shape)
    ours = patch.convert(model)
    with torch.no_grad():
        wanted, found = model(x), ours(x)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=0)


def test_priors_around_weights() -> None:
    """As MOPED makes them."""
    layer, _ = made("LinearReparameterization")
    layer.prior_weight_mu.copy_(layer.mu_weight.detach())
    ours: Any = patch.convert(layer)
    assert isinstance(ours.layer.priors["weight"], priors.CentredNormal)
    torch.testing.assert_close(ours.kl_loss(), layer.kl_loss())
    layer.prior_weight_sigma[0, 0] = 2.0
    with pytest.raises(patch.CannotConvert, match="scale differs between weights"):
        patch.convert(layer)


def test_what_is_refused() -> None:
    model = nn.ModuleList([layers.LSTMReparameterization(3, 4), made("LinearFlipout")[0]])
    with pytest.raises(patch.CannotConvert, match=r"\n  0: there is no conversion of .*LSTM"):
        patch.convert(model)
