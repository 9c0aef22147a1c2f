"""Networks at the means of their weights, inside a block and as twins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
import bslfast.nn as bnn
from bslfast.nn import at_means, deterministic_twin, kl, one_draw, posteriors, priors


def network(**options: Any) -> nn.Sequential:
    """Layers whose scales are large, some in a tree, one in two places."""
    options = {"init_scale": 0.5, **options}
    twice = bnn.BayesLinear(4, 4, **options)
    return nn.Sequential(
        bnn.BayesConv1d(2, 4, 3, padding=1, **options),
        nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
        bnn.BayesLSTM(4, 4, batch_first=True, **options),
        twice,
        nn.Sequential(nn.Tanh(), twice),
        bnn.BayesTransformerEncoderLayer(4, 2, 8, batch_first=True, **options),
        bslfast.bnn.BayesianMLP(4, (3,), 1, **options),
    )


def batch() -> Tensor:
    return torch.randn(3, 2, 4)


def test_both_ways_are_the_same() -> None:
    model, x = network().eval(), batch()
    with at_means(model):
        found = model(x)
        assert torch.equal(model(x), found)
    twin = deterministic_twin(model)
    torch.testing.assert_close(twin(x), found)
    assert not torch.allclose(model(x), found, atol=1e-2)
    assert not any(isinstance(m, bnn.BayesianModule) for m in twin.modules())
    assert twin[3] is twin[4][1]
    assert type(twin[6]) is bslfast.bnn.DeterministicMLP
    assert not any(m.training for m in twin.modules())
    assert isinstance(model[0], bnn.BayesConv1d)
    assert torch.equal(twin[1][0].running_mean, model[1][0].running_mean)
    for name, value in twin.state_dict().items():
        assert all(value is not p for p in model.parameters()), name


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [(posteriors.Laplace(init_scale=0.5), priors.Laplace()), (None, priors.ScaleMixture())],
    ids=str,
)
def test_any_posterior(posterior: Any, prior: Any) -> None:
    layer, x = bnn.BayesLinear(3, 2, posterior=posterior, prior=prior), torch.ones(4, 3)
    with at_means(layer):
        torch.testing.assert_close(layer(x), x @ layer.weight_loc.T + layer.bias_loc)
        assert kl(layer).isfinite()


def test_gradients_reach_the_means_alone() -> None:
    layer = bnn.BayesLinear(3, 2)
    with at_means(layer):
        layer(torch.ones(4, 3)).sum().backward()
    assert layer.weight_raw_scale.grad is None
    torch.testing.assert_close(layer.weight_loc.grad, torch.full((2, 3), 4.0))


def test_blocks_inside_blocks() -> None:
    model, x = network().eval(), batch()
    with one_draw(model):
        drawn = model(x)
        with at_means(model):
            means = model(x)
            with one_draw(model):
                assert torch.equal(model(x), means)
        assert torch.equal(model(x), drawn)
    assert not torch.equal(means, drawn)
    with pytest.raises(RuntimeError), at_means(model):
        raise RuntimeError
    assert all(m.drawn is None for m in model.modules() if isinstance(m, bnn.BayesianModule))
    with at_means(model):
        assert copy.deepcopy(model)[0].drawn is None


def test_predictions_at_the_means() -> None:
    likelihood = bslfast.likelihoods.Normal(1)
    model = bslfast.bnn.BayesianMLP(3, (8,), 1, init_scale=0.5)
    for m, x in (
        (model, torch.randn(5, 3)),
        (nn.Sequential(*network(), nn.Flatten(0, 1)), batch()),
    ):
        with at_means(m):
            prediction = bslfast.predict(m, x, 3, likelihood=likelihood)
        assert not prediction.epistemic.any()
        expected = bslfast.predict(deterministic_twin(m), x, 1, likelihood=likelihood)
        torch.testing.assert_close(prediction.mean, expected.mean)


def test_hooks_frozen_weights_and_compiled_models() -> None:
    model, seen = nn.Sequential(bnn.BayesLinear(3, 2), bnn.BayesGRU(2, 2)), []
    model[0].weight_loc.requires_grad_(False)
    for layer in model:
        layer.register_forward_hook(lambda module, inputs, y: seen.append(type(module)))
    model[0].register_full_backward_hook(lambda module, *_: seen.append(type(module)))
    twin = deterministic_twin(model)
    twin(torch.ones(4, 3, requires_grad=True)).sum().backward()
    assert seen == [nn.Linear, nn.GRU, nn.Linear]
    assert not twin[0].weight.requires_grad
    assert twin[0].bias.requires_grad
    compiled = deterministic_twin(torch.compile(model))  # type: ignore[arg-type]
    assert type(compiled) is nn.Sequential
    assert torch.equal(compiled(torch.ones(4, 3)), twin(torch.ones(4, 3)))


def test_export_of_the_mean_network() -> None:
    model, x = network().eval(), batch()
    twin = deterministic_twin(model)
    exported = torch.export.export(twin, (x,))
    torch.testing.assert_close(exported.module()(x), twin(x))
    assert not any("bslfast" in str(node.target) for node in exported.graph.nodes)


def test_onnx_of_the_mean_network(tmp_path: Any) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    model = deterministic_twin(nn.Sequential(bnn.BayesConv1d(2, 4, 3), bnn.BayesLinear(4, 1)))
    torch.onnx.export(model.eval(), (torch.ones(1, 2, 6),), str(tmp_path / "network.onnx"))
    onnx.checker.check_model(onnx.load(tmp_path / "network.onnx"))


class _Own(bnn.BayesianModule):
    """Names no weights."""

    def compute_kl(self) -> Tensor:
        return torch.zeros(())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: at_means(3).__enter__(), TypeError, r"model: expected a torch\.nn\.Module"),  # type: ignore[arg-type]
        (lambda: at_means(nn.Tanh()).__enter__(), ValueError, "with Bayesian layers, got a Tanh"),
        (lambda: at_means(_Own()).__enter__(), ValueError, "that name their weights, got a _Own"),
        (lambda: deterministic_twin(3), TypeError, r"model: expected a torch\.nn\.Module"),  # type: ignore[arg-type]
        (lambda: deterministic_twin(nn.Tanh()), ValueError, "with Bayesian layers, got a Tanh"),
        (lambda: deterministic_twin(_Own()), ValueError, "with a deterministic_twin, got a _Own"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
