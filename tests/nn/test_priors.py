"""Normal priors with tensors: a scale that is learned, a mean for each weight; weight decay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import bslfast
import bslfast.nn as bnn
from bslfast.nn import kl, posteriors, priors

F64 = torch.float64


def layer_with(prior: Any, **options: Any) -> bnn.BayesLinear:
    torch.manual_seed(0)
    layer = bnn.BayesLinear(4, 3, prior=prior, dtype=F64, **options)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "raw_scale" in name:
                parameter.add_(torch.rand_like(parameter))
    return layer


def divergence(layer: bnn.BayesLinear, loc: Any, scale: Tensor) -> Tensor:
    """That from N(loc, scale) with torch, of a weight and a bias."""
    total = torch.zeros((), dtype=F64)
    for name, center in zip(("weight", "bias"), loc, strict=True):
        mean, raw = (getattr(layer, f"{name}_{p}") for p in ("loc", "raw_scale"))
        density = Normal(mean, nn.functional.softplus(raw))
        total = total + kl_divergence(density, Normal(center, scale)).sum()
    return total


def test_the_divergence_reaches_a_learned_scale() -> None:
    layer = layer_with(priors.LearnedNormal(0.7, loc=0.1))
    prior = layer.priors["weight"]
    assert isinstance(prior, priors.LearnedNormal)
    assert layer.priors["bias"] is prior
    layer(torch.ones(2, 4, dtype=F64))
    center = torch.tensor(0.1, dtype=F64)
    expected = divergence(layer, (center, center), prior.log_scale.exp())
    parameters = list(layer.parameters())
    assert any(p is prior.log_scale for p in parameters)
    torch.testing.assert_close(kl(layer), expected)
    torch.testing.assert_close(
        torch.autograd.grad(kl(layer), parameters), torch.autograd.grad(expected, parameters)
    )


@pytest.mark.parametrize(
    "posterior",
    [
        posteriors.Normal(),
        posteriors.FullCovariance(),
        posteriors.LowRank(2, init_scale=0.3),
        posteriors.MCDropout(0.3),
        posteriors.Deterministic(),
    ],
    ids=lambda p: type(p).__name__,
)
def test_the_best_scale_is_that_of_the_weights(posterior: Any) -> None:
    """The root of the average of (m - loc)^2 + s^2, from far off in both directions."""
    for start in (0.01, 20.0):
        layer = layer_with(priors.LearnedNormal(start, loc=0.1), posterior=posterior)
        (prior,) = set(layer.priors.values())
        assert isinstance(prior, priors.LearnedNormal)
        moments = torch.cat(
            [((w.loc - 0.1).square() + w.stddev().square()).flatten() for w in layer.weights()]
        )
        optimizer = torch.optim.LBFGS(
            [prior.log_scale], max_iter=100, line_search_fn="strong_wolfe"
        )

        def closure(layer: Any = layer, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = kl(layer)
            value.backward()
            return value

        optimizer.step(closure)
        torch.testing.assert_close(prior.scale, moments.mean().sqrt(), rtol=1e-5, atol=0.0)


def test_of_each_layer_or_shared() -> None:
    own = priors.LearnedNormal(0.5)
    model = bslfast.bnn.BayesianMLP(3, (4, 4), 1, prior=own)
    names = [name for name, _ in model.named_parameters() if name.endswith("log_scale")]
    assert names == [f"layers.{i}.weight_prior.log_scale" for i in range(3)]
    assert len({id(layer.priors["bias"]) for layer in model.layers}) == 3
    assert own not in set(model.modules())

    shared = priors.LearnedNormal(0.5, shared=True)
    model = bslfast.bnn.BayesianMLP(3, (4, 4), 1, prior=shared)
    assert sum(p is shared.log_scale for p in model.parameters()) == 1
    keys = [key for key in model.state_dict() if key.endswith("log_scale")]
    assert keys == [f"layers.{i}.{n}_prior.log_scale" for i in range(3) for n in ("weight", "bias")]
    kl(model).backward()
    weights = sum(w.loc.numel() for layer in model.layers for w in layer.weights())
    squares = sum((w.loc.square() + w.stddev().square()).sum() for layer in model.layers
                  for w in layer.weights())  # fmt: skip
    assert shared.log_scale.grad is not None
    torch.testing.assert_close(shared.log_scale.grad, weights - squares / 0.25)
    other = copy.deepcopy(model)
    assert other.layers[0].priors["weight"] is other.layers[2].priors["bias"]
    assert other.layers[0].priors["weight"] is not shared
    plain = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    converted = bnn.to_bayesian(plain, prior=priors.LearnedNormal(shared=True)).double()
    assert sum(name.endswith("log_scale") for name, _ in converted.named_parameters()) == 1
    assert kl(converted).dtype is F64


def test_a_prior_is_a_module_of_its_layer() -> None:
    layer = layer_with({"weight": priors.LearnedNormal(0.5)})
    assert [name for name, _ in layer.named_children()] == ["weight_prior"]
    assert layer.priors["weight"].log_scale.dtype is F64  # type: ignore[attr-defined]
    layer.priors["weight"] = priors.Normal()
    layer.priors["bias"] = centred = priors.CentredNormal(torch.ones(3))
    assert [name for name, _ in layer.named_children()] == ["bias_prior"]
    assert kl(layer).item() == pytest.approx(
        divergence(layer, (torch.zeros((), dtype=F64), centred.loc.double()), torch.ones(())).item()
    )
    other = copy.deepcopy(layer)
    other.priors["bias"] = priors.Normal()
    assert not list(other.children())
    assert layer.bias_prior is centred
    with pytest.raises(ValueError, match="priors: expected a name among weight, bias, got 'joint'"):
        layer.priors["joint"] = priors.Normal()
    again = bnn.BayesLinear(4, 3, prior=priors.LearnedNormal(0.5), device="meta")
    again.to_empty(device="cpu").reset_parameters()
    assert again.priors["bias"].scale.item() == 0.5  # type: ignore[attr-defined]
    twin = layer.deterministic_twin()
    assert type(twin) is nn.Linear
    assert list(twin.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("posterior", [None, posteriors.FullCovariance(), posteriors.LowRank(2)])
def test_moped(posterior: Any) -> None:
    """Priors around the weights of a trained network, posteriors as wide as a share of them."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Conv1d(1, 2, 2, dtype=F64))
    with torch.no_grad():
        plain[0].weight[0, 0] = 0.0
    model = bnn.to_bayesian(plain, posterior=posterior, prior_scale=0.5, moped=0.1)
    for i in (0, 2):
        layer, given = model[i], torch.cat([p.flatten() for p in plain[i].parameters()])
        assert torch.equal(layer.weight_loc, plain[i].weight)
        center = torch.cat([p.loc.flatten() for p in layer.priors.values()])
        assert torch.equal(center, given)
        spread = torch.cat([w.stddev().flatten() for w in layer.weights()])
        expected = (0.1 * given.abs()).clamp_min(1e-6)
        share = 0.1 if isinstance(posterior, posteriors.LowRank) else 1e-5
        torch.testing.assert_close(spread, expected, rtol=share, atol=1e-12)
        exact = kl_divergence(
            Normal(given.double(), spread.double()),
            Normal(given.double(), torch.full_like(given.double(), 0.5)),
        ).sum()
        assert kl(layer).item() == pytest.approx(exact.item(), rel=0.02)
    buffers = [key for key in model.state_dict() if key.endswith("_prior.loc")]
    assert len(buffers) == (4 if posterior is None else 2)
    kl(model).backward()
    moved = model[0].weight_loc.grad
    assert not moved.any()  # the means are where the prior has them
    fresh = bnn.to_bayesian(nn.Sequential(nn.Linear(3, 5)), posterior=posterior, moped=0.3)
    fresh.load_state_dict({k: v for k, v in model.state_dict().items() if k.startswith("0.")})
    assert kl(fresh).item() != kl(model[0]).item()  # the scale is a number of the prior


def test_groups_of_parameters() -> None:
    model = nn.Sequential(
        bnn.BayesConv2d(1, 2, 3),
        nn.LayerNorm([2, 4, 4]),  # its factors have three dimensions
        nn.Flatten(),
        bnn.BayesLinear(32, 4, posterior=posteriors.LowRank(2)),
        nn.Linear(4, 3, bias=False),
        bnn.BayesLinear(3, 3, posterior=posteriors.FullCovariance(), prior=priors.LearnedNormal()),
        bnn.BayesLinear(3, 3, posterior=posteriors.MCDropout()),
    )
    model[6].weight_loc = model[5].weight_loc
    decayed, others = bnn.parameter_groups(model, weight_decay=0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    found = [names[id(p)] for p in decayed["params"]]
    assert found == ["0.weight_loc", "3.weight_loc", "4.weight", "5.weight_loc"]
    every = [id(p) for group in (decayed, others) for p in group["params"]]
    assert sorted(every) == sorted(names)
    assert decayed["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([decayed, others], lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.state_dict().items():
        factor = 0.95 if name in (*found, "6.weight_loc") else 1.0
        torch.testing.assert_close(value, factor * before[name])


def test_groups_of_recurrent_layers_and_attention() -> None:
    """Biases of keys have three dimensions, and gains of normalisations may have."""
    attention: dict[str, Any] = {"embed_dim": 4, "num_heads": 2, "add_bias_kv": True, "kdim": 3}
    model = nn.Sequential(
        bnn.BayesLSTM(4, 4, proj_size=2, prior=priors.LearnedNormal()),
        bnn.BayesGRU(2, 4, bidirectional=True, posterior=posteriors.LowRank(2)),
        bnn.BayesLayerNorm((3, 4), posterior=posteriors.FullCovariance()),
        bnn.BayesMultiheadAttention(**attention, posterior=posteriors.FullCovariance()),
        nn.MultiheadAttention(**attention),
        bnn.BayesTransformerEncoderLayer(4, 2, 3, posterior=posteriors.MCDropout()),
    )
    groups = bnn.parameter_groups(model, weight_decay=0.1)
    decayed = {id(p) for p in groups[0]["params"]}
    projections = ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj")
    assert [name for name, p in model.named_parameters() if id(p) in decayed] == [
        *(f"0.weight_{kind}_l0_loc" for kind in ("ih", "hh", "hr")),
        *(f"1.weight_{kind}_l0{way}_loc" for way in ("", "_reverse") for kind in ("ih", "hh")),
        *(f"3.{name}{'' if 'weight' in name else '_weight'}_loc" for name in projections),
        *(f"4.{name}{'' if 'weight' in name else '.weight'}" for name in projections),
        *("5.self_attn.in_proj_weight_loc", "5.self_attn.out_proj_weight_loc"),
        *("5.linear1.weight_loc", "5.linear2.weight_loc"),
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: priors.LearnedNormal(0.0), ValueError, "scale: expected a finite number above 0"),
        (lambda: priors.LearnedNormal(loc="0"), TypeError, "loc: expected a finite number"),  # type: ignore[arg-type]
        (lambda: priors.LearnedNormal(shared=1), TypeError, "shared: expected a bool, got 1"),  # type: ignore[arg-type]
        (lambda: priors.CentredNormal(0.0), TypeError, r"loc: expected a torch\.Tensor, got float"),  # type: ignore[arg-type]
        (lambda: priors.CentredNormal(torch.ones(1), -1), ValueError, "scale: expected a finite"),
        (
            lambda: bnn.BayesLinear(3, 2, prior=priors.CentredNormal(torch.ones(2, 3))).kl(),
            ValueError,
            r"prior: expected loc to have the shape of the weights, \[2\], got \[2, 3\]",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, prior=priors.Laplace()).centre_priors(0.1),
            ValueError,
            r"prior: expected Normal around 0 to be centred, got Laplace\(scale=1.0\)",
        ),
        (
            lambda: bnn.to_bayesian(nn.Linear(1, 1), prior_loc=1.0, moped=0.1),
            ValueError,
            "prior: expected Normal around 0 to be centred, got Normal",
        ),
        (lambda: bnn.to_bayesian(nn.Linear(1, 1), moped=0.0), ValueError, "delta: expected a fini"),
        (lambda: bnn.parameter_groups(3, weight_decay=0.1), TypeError, "model: expected a torch"),  # type: ignore[arg-type]
        (
            lambda: bnn.parameter_groups(nn.Linear(1, 1), weight_decay=-0.1),
            ValueError,
            "weight_decay: expected a finite number at least 0, got -0.1",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
