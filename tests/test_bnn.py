"""Bayesian MLPs and their deterministic twins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
import bslfast.functional as BF
from bslfast.bnn import BayesianMLP


def test_shapes_and_likelihoods() -> None:
    x = torch.randn(5, 4)
    for likelihood, outputs in (("normal", 3), ("heteroscedastic_normal", 6), ("categorical", 3)):
        model = BayesianMLP(4, (8, 7), 3, likelihood=likelihood)
        assert model(x).shape == (5, outputs)
        for n_samples in (6, 1):
            sampled = model.sample_outputs(x, n_samples)
            assert sampled.shape == (n_samples, 5, outputs)
            sampled.sum().backward()
            assert all(p.grad is not None for p in model.layers.parameters())
    assert BayesianMLP(4, (), 3)(x).shape == (5, 3)


def test_kl_is_the_sum_over_its_layers() -> None:
    model = BayesianMLP(4, (8,), 3)
    expected = sum(layer.compute_kl().item() for layer in model.layers)
    assert bslfast.nn.kl(model).item() == pytest.approx(expected, rel=1e-6)


def test_sampled_outputs_have_the_distribution_of_single_passes() -> None:
    torch.manual_seed(0)
    model = BayesianMLP(2, (5,), 1, init_scale=0.3, activation="tanh")
    x = torch.randn(3, 2)
    with torch.no_grad():
        batched = model.sample_outputs(x, 4000)
        single = torch.stack([model(x) for _ in range(4000)])
    spread = (single.var(dim=0) / 4000 * 2).sqrt()
    assert ((batched.mean(dim=0) - single.mean(dim=0)).abs() < 5 * spread).all()
    ratio = batched.var(dim=0) / single.var(dim=0)
    assert (ratio - 1).abs().max() < 0.2


def test_other_posteriors_and_priors() -> None:
    model = BayesianMLP(
        4,
        (8,),
        3,
        posterior={"bias": bslfast.nn.posteriors.Deterministic()},
        prior=bslfast.nn.priors.Laplace(0.5),
    )
    x = torch.randn(5, 4)
    assert model.sample_outputs(x, 2).shape == (2, 5, 3)
    (model(x).sum() + bslfast.nn.kl(model)).backward()
    assert all(p.grad is not None for p in model.layers.parameters())
    twin = model.deterministic_twin()
    assert torch.equal(twin.layers[0].bias, model.layers[0].bias_loc)


def test_sampling_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BayesianMLP(4, (8,), 3)
    monkeypatch.setattr(bslfast.bnn, "_HELD_WEIGHTS", 2 * 4 * 8)
    samples = model.sample_outputs(torch.randn(5, 4), 7)
    assert samples.shape == (7, 5, 3)
    assert len(torch.unique(samples[:, 0, 0])) == 7


def test_deterministic_twin_is_the_network_at_the_posterior_means() -> None:
    model = BayesianMLP(4, (8, 7), 3, likelihood="categorical", dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "raw_scale" in name:
                parameter.fill_(-1000.0)  # softplus: a standard deviation of 0
    x = torch.randn(5, 4, dtype=torch.float64)
    twin = model.deterministic_twin()
    torch.testing.assert_close(twin(x), model(x))
    assert not any(isinstance(m, bslfast.nn.BayesianModule) for m in twin.modules())
    assert any(isinstance(m, nn.Linear) for m in twin.modules())
    twin(x).sum().backward()


def test_learns_a_line_with_its_noise() -> None:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 400).unsqueeze(1)
    y = 2 * x + 0.3 * torch.randn_like(x)
    model = BayesianMLP(1, (), 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(600):
        loss = bslfast.negative_elbo(
            model.likelihood.log_prob(model(x), y), bslfast.nn.kl(model), dataset_size=len(x)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    layer = model.layers[0]
    # The exact posterior of this conjugate model with the noise known to be 0.3.
    precision = (x.square().sum() / 0.09 + 1).item()
    mean = ((x * y).sum() / 0.09).item() / precision
    assert layer.weight_loc.item() == pytest.approx(mean, abs=0.05)
    scale = torch.nn.functional.softplus(layer.weight_raw_scale).item()
    assert scale == pytest.approx(precision**-0.5, rel=0.3)
    assert model.likelihood.scale.item() == pytest.approx(0.3, rel=0.1)


def test_compiles_in_one_graph() -> None:
    model = BayesianMLP(4, (8,), 3)

    def loss(x: Tensor) -> Tensor:
        return model(x).square().mean() + bslfast.nn.kl(model)

    torch.compile(loss, fullgraph=True, backend="aot_eager")(torch.randn(5, 4)).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "layers" in n)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": 50}, TypeError, "hidden: expected a tuple of widths"),
        ({"hidden": (0,)}, ValueError, "hidden: expected an integer of at least 1"),
        ({"hidden": (2.0,)}, TypeError, "hidden: expected an integer"),
        ({"in_features": -1}, ValueError, "in_features"),
        ({"activation": "rleu"}, ValueError, "activation: expected one of 'relu'"),
        ({"likelihood": "gauss"}, ValueError, "likelihood: expected one of"),
        ({"likelihood": "categorical", "out_features": 1}, ValueError, "at least 2, got 1"),
    ],
)
def test_construction_errors(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BayesianMLP(**{"in_features": 3, "hidden": (4,), "out_features": 2, **options})


@pytest.mark.parametrize("hidden", [(8,), (600, 600)])
def test_reference_mode_has_the_same_noise(hidden: tuple[int, ...]) -> None:
    """The noise is the same, whether all weights are drawn together or not."""
    model, x = BayesianMLP(3, hidden, 1, init_scale=0.3), torch.ones(2, 3)
    torch.manual_seed(3)
    expected = model(x)
    torch.manual_seed(3)
    with BF.use_reference():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_passes_in_several_threads_share_no_draw() -> None:
    model, x = BayesianMLP(3, (8,), 1, init_scale=0.3), torch.ones(1, 3)

    def outputs(_: int) -> list[float]:
        with torch.no_grad():
            return [model(x).item() for _ in range(300)]

    with ThreadPoolExecutor(4) as pool:
        found = [value for part in pool.map(outputs, range(4)) for value in part]
    assert len(set(found)) > 0.99 * len(found)


def test_hooks_see_layers_that_are_drawn_together() -> None:
    model, seen = BayesianMLP(3, (8,), 1), []
    model.layers[0].register_forward_hook(lambda *_: seen.append(True))
    model(torch.ones(2, 3))
    assert seen


def test_a_layer_with_a_pass_of_its_own_is_called() -> None:
    class Zeros(bslfast.nn.BayesLinear):
        def forward(self, x: Tensor, **options: Any) -> Tensor:  # type: ignore[override]
            return super().forward(x, **options) * 0

    model, x = BayesianMLP(3, (8,), 2), torch.ones(5, 3)
    model.layers[1] = Zeros(8, 2)
    assert "Zeros has no steps" in model.explain()
    with torch.no_grad():
        assert model(x).count_nonzero() == 0
    train = x, torch.ones(5, 2)
    history = bslfast.training.fit(model, train, epochs=1, likelihood=model.likelihood)
    assert history.steps == 1
