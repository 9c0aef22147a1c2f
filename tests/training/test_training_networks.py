"""Epochs of networks as one call: what training by ops does, up to rounding."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trained_both_ways import assert_same_training

import bslfast
from bslfast import likelihoods, programs
from bslfast.bnn import BayesianMLP
from bslfast.nn import BayesLinear, posteriors, priors
from bslfast.training import fit
from bslfast.training.schedules import LinearWarmup

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(130, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.stack([X[:, 0] * X[:, 1], X[:, 2].sin()], 1)
# 100 = 48 + 48 + 4: batches of more than one tile, the last with fewer rows than a tile.
SETTING: dict[str, Any] = {"batch_size": 48, "lr": 0.01, "seed": 3, "epochs": 3}
TARGETS: dict[str, tuple[Any, Tensor]] = {
    "normal": ("normal", Y),
    "fixed normal": (likelihoods.Normal(2, scale=0.3), Y),
    "normal, log_scale": (likelihoods.Normal(2, parametrization="log_scale"), Y),
    "heteroscedastic": ("heteroscedastic_normal", Y),
    "heteroscedastic, log_var": (
        likelihoods.HeteroscedasticNormal(2, parametrization="log_var"),
        Y,
    ),
    "laplace": (likelihoods.Laplace(2), Y),
    "laplace, log_scale": (likelihoods.Laplace(2, parametrization="log_scale"), Y),
    "student_t": (likelihoods.StudentT(2), Y),
    "student_t, learned df": (likelihoods.StudentT(2, learn_df=True, scale="outputs"), Y),
    "bernoulli": ("bernoulli", (Y > 0).double()),
    "poisson": ("poisson", Y.abs().mul(4).round()),
    "negative_binomial": ("negative_binomial", Y.abs().mul(4).round()),
    "categorical": (likelihoods.Categorical(2), (Y[:, 0] > 0).long()),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam, clip": {"clip": 0.5},
    "adamw, decay": {"optimizer": "adamw", "weight_decay": 0.3},
    "sgd, momentum": {"optimizer": "sgd", "momentum": 0.8, "lr": 0.003},
    "rmsprop, cosine": {"optimizer": "rmsprop", "schedule": "cosine", "beta": 0.1},
    "beta 0": {"beta": 0.0},
    "rising beta": {"beta": LinearWarmup(2)},
    "one step a call": {"batch_size": 1000},
}


WEIGHT_DECAYS: dict[str, dict[str, Any]] = {
    "adam": {},
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd", "momentum": 0.8, "lr": 0.003},
    "rmsprop": {"optimizer": "rmsprop"},
}


def mlp(likelihood: Any = "normal", **options: Any) -> BayesianMLP:
    torch.manual_seed(0)
    return BayesianMLP(3, (9, 5), 2, likelihood=likelihood, **options).double()


def assert_same(model: nn.Module, y: Tensor, **setting: Any) -> None:
    assert_same_training(model, (X[:100], y[:100]), (X[100:], y[100:]), **SETTING | setting)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("change", WEIGHT_DECAYS.values(), ids=WEIGHT_DECAYS)
def test_weight_decay_is_for_means_of_weights(
    change: dict[str, Any], once: bool, calls: list[int]
) -> None:
    """Scales, biases and the likelihood's noise take the steps that they take without it."""
    setting = {"batch_size": 100, "lr": 0.01, "seed": 3, "epochs": 1, **change}
    with_decay, without = mlp(), mlp()
    with bslfast.whole_networks(once):
        fit(with_decay, (X[:100], Y[:100]), weight_decay=0.3, **setting)
        fit(without, (X[:100], Y[:100]), **setting)
    assert sum(calls) == (2 if once else 0)
    decayed = ("layers.0.weight_loc", "layers.1.weight_loc", "layers.2.weight_loc")
    for (name, value), other in zip(
        with_decay.named_parameters(), without.parameters(), strict=True
    ):
        assert torch.equal(value, other) == (name not in decayed)


@pytest.mark.parametrize(("likelihood", "y"), TARGETS.values(), ids=TARGETS)
def test_each_likelihood(likelihood: Any, y: Tensor, calls: list[int]) -> None:
    assert_same(mlp(copy.deepcopy(likelihood)), y)
    assert sum(calls) == 9


@pytest.mark.parametrize("change", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_optimizer(change: dict[str, Any], calls: list[int]) -> None:
    assert_same(mlp(), Y, **change)
    assert calls


MODELS: dict[str, Callable[[], nn.Module]] = {
    "networks in a row": lambda: nn.Sequential(
        BayesLinear(3, 4),
        BayesianMLP(4, (5,), 3, parametrization="log_scale"),
        BayesianMLP(3, (5,), 2),
    ),
    "layers with seeds of their own": lambda: nn.Sequential(
        BayesLinear(3, 6, bias=False), nn.Tanh(), BayesLinear(6, 5), nn.SiLU(), nn.Linear(5, 2)
    ),
    "plain": lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Identity(), nn.Linear(6, 2)),
    "nested": lambda: nn.Sequential(
        nn.Sequential(BayesLinear(3, 4), nn.Sigmoid()), nn.Linear(4, 2)
    ),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_networks_of_torch(model: Callable[[], nn.Module], calls: list[int]) -> None:
    torch.manual_seed(0)
    assert_same(model().double(), Y, likelihood=likelihoods.Normal(2).double())
    assert calls


def test_frozen_parameters_stay(calls: list[int]) -> None:
    model = mlp()
    frozen = [
        model.layers[0].weight_raw_scale,
        model.layers[1].bias_loc,
        model.likelihood.raw_scale,
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    assert_same(model, Y, clip=0.1)
    assert calls


def test_float32(calls: list[int]) -> None:
    model = mlp().float()
    history = fit(model, (X.float(), Y.float()), epochs=60, batch_size=32, lr=0.02)
    assert len(calls) >= 1
    assert history.loss[-1] < history.loss[0] - 0.3


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "a posterior": lambda: mlp(posterior={"bias": posteriors.Deterministic()}),
    "a prior": lambda: mlp(prior=priors.Laplace()),
    "a parametrization": lambda: mlp(parametrization="scale"),
    "a likelihood": lambda: mlp("continuous_bernoulli"),
    "a layer that is not used": lambda: _with_more(mlp()),
    "a layer used twice": lambda: _twice(),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)).double(),
}


def _with_more(model: BayesianMLP) -> BayesianMLP:
    model.more = BayesLinear(2, 2, dtype=torch.float64)
    return model


def _twice() -> nn.Module:
    layer = BayesLinear(3, 3, dtype=torch.float64)
    return nn.Sequential(layer, layer, nn.Linear(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_what_has_no_steps_goes_by_ops(model: Callable[[], nn.Module], calls: list[int]) -> None:
    made = model()
    own = getattr(made, "likelihood", None)
    extra = {} if own is not None else {"likelihood": likelihoods.Normal(2).double()}
    y = Y.sigmoid() if isinstance(own, likelihoods.ContinuousBernoulli) else Y
    history = fit(made, (X, y), **(SETTING | {"lr": 1e-3}), **extra)
    assert not calls
    assert history.steps == 9


def test_inside_one_draw_it_is_the_draw_that_counts(calls: list[int]) -> None:
    model = mlp()
    with bslfast.nn.one_draw(model):
        assert programs.are_on()
        # The graph of the draw is spent after the first step.
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            fit(model, (X, Y), **SETTING)
    assert not calls


def test_layers_without_inputs() -> None:
    model = nn.Sequential(nn.Linear(0, 2)).double()
    head = likelihoods.Normal(2).double()
    history = fit(model, (torch.ones(8, 0).double(), Y[:8]), epochs=2, likelihood=head)
    assert history.steps == 2


def test_large_networks_go_by_ops(calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    for most, expected in ((1, False), (2**10, True)):
        monkeypatch.setattr("bslfast.programs.MOST_TRAINED", most)
        fit(model, (X[:8].float(), Y[:8].float()), epochs=1, likelihood=likelihoods.Normal(2))
        assert bool(calls) == expected


def test_errors_are_those_by_ops() -> None:
    with pytest.raises(TypeError, match="x: expected the dtype of weight_loc"):
        fit(mlp(), (X.float(), Y), **SETTING)


def test_targets_that_the_likelihood_does_not_have() -> None:
    with pytest.raises(ValueError, match="expected values"):
        fit(mlp("bernoulli"), (X, Y * 10), **SETTING)
    with pytest.raises(ValueError, match="y: expected"):
        fit(mlp(), (X, Y[:, :1]), **SETTING)
    with pytest.raises(ValueError, match="y: expected"):
        fit(mlp(likelihoods.Categorical(2)), (X, torch.full((130,), 2)), **SETTING)


def test_masks_go_by_ops(calls: list[int]) -> None:
    fit(mlp(), (X, Y, Y > 0), **SETTING)
    assert not calls


def test_resumed_training_is_the_same(tmp_path: Path, calls: list[int]) -> None:
    whole, parts = mlp(), mlp()
    train = functools.partial(fit, train=(X, Y), batch_size=48, seed=3)
    train(whole, epochs=4)
    train(parts, epochs=2, checkpoint=tmp_path / "half")
    again = mlp()
    train(again, epochs=4, checkpoint=tmp_path / "half", resume=True)
    for first, second in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    assert calls


def test_bits_do_not_depend_on_threads() -> None:
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = mlp().float()
        fit(model, (X.float(), Y.float()), **(SETTING | {"batch_size": 100}))
        found.append([p.detach() for p in model.parameters()])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
