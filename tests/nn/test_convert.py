"""Plain networks as Bayesian ones."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bslfast
from bslfast.nn import BayesianLayer, kl, posteriors, priors, to_bayesian


class Network(nn.Module):
    """A layer of every kind, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.convolutions = nn.ModuleDict(
            {f"{kind}{n}d": getattr(nn, f"{kind}{n}d")(1, 1, 1, padding_mode="zeros")
             for kind in ("Conv", "ConvTranspose") for n in (1, 2, 3)}
        )  # fmt: skip
        self.norm = nn.BatchNorm1d(4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        for name, layer in self.convolutions.items():
            shape = (len(h), 1, *[1] * (int(name[-2]) - 1), 4)
            h = layer(h.view(shape)).view(h.shape)
        return self.linear(self.linear(self.norm(h)))


def test_every_layer_keeps_its_weights() -> None:
    plain, x = Network().double().eval(), torch.tensor([1, 4, 0])
    before = copy.deepcopy(plain.state_dict())
    plain.linear.bias.requires_grad_(False)
    seen = []
    plain.linear.register_forward_hook(lambda *_: seen.append(True))
    model = to_bayesian(plain, init_scale=1e-9)
    layers = [m for m in model.modules() if isinstance(m, BayesianLayer)]
    assert len(layers) == 8
    assert not model.training
    torch.testing.assert_close(model(x), plain(x), rtol=1e-6, atol=1e-6)
    assert len(seen) == 4
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, before[name])
        owner = name.rpartition(".")[0]
        bayesian = isinstance(model.get_submodule(owner), BayesianLayer)
        assert torch.equal(model.state_dict()[f"{name}_loc" if bayesian else name], value)
    assert not model.linear.bias_loc.requires_grad
    assert not model.linear.bias_raw_scale.requires_grad
    assert model.linear.weight_raw_scale.requires_grad
    kl(model).backward()
    assert kl(to_bayesian(plain.float())).item() > 0


def test_only_what_is_selected() -> None:
    plain = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    model = to_bayesian(plain, lambda name, layer: name == "2", posterior=posteriors.Laplace(),
                        prior=bslfast.nn.priors.Laplace())  # fmt: skip
    assert type(model[0]) is nn.Linear
    assert isinstance(model[2].posteriors["weight"], posteriors.Laplace)
    assert type(to_bayesian(nn.Linear(2, 1))) is bslfast.nn.BayesLinear
    usual = to_bayesian(plain, posterior=posteriors.Laplace())
    assert usual[0].priors["weight"] == bslfast.nn.priors.Normal()
    assert torch.equal(kl(usual), kl(usual))
    prediction = bslfast.predict(
        model, torch.ones(3, 2), 7, likelihood=bslfast.likelihoods.Normal(1)
    )
    assert (prediction.epistemic > 0).all()


def two() -> nn.Module:
    return nn.ModuleDict({
        "encoder": nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Linear(4, 3)),
        "head": nn.Linear(3, 1),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (None, {"encoder.0", "encoder.2", "head"}),
        (nn.Module, {"encoder.0", "encoder.2", "head"}),
        (nn.Linear, {"encoder.2", "head"}),
        ("head", {"head"}),
        ("encoder.*", {"encoder.0", "encoder.2"}),
        ("*[!.2]", {"encoder.0", "head"}),
        (("head", nn.Conv1d), {"encoder.0", "head"}),
        ({"encoder.0", "encoder.2"}, {"encoder.0", "encoder.2"}),
        ([lambda name, layer: name == "head", "*.0"], {"encoder.0", "head"}),
        (lambda name, layer: isinstance(layer, nn.Conv1d), {"encoder.0"}),
    ],
)
def test_select(select: Any, expected: set[str]) -> None:
    model = to_bayesian(two(), select)
    found = {name for name, m in model.named_modules() if isinstance(m, BayesianLayer)}
    assert found == expected


def test_a_layer_in_two_places_is_selected_by_either_name() -> None:
    layer = nn.Linear(3, 3)
    model = to_bayesian(nn.Sequential(layer, nn.ReLU(), layer), "2")
    assert model[0] is model[2]
    assert type(model[0]) is bslfast.nn.BayesLinear


def test_of_a_network_that_is_partly_bayesian() -> None:
    once = to_bayesian(two(), "head", prior_scale=0.5)
    model = to_bayesian(once)
    priors = [m.priors["weight"].scale for m in model.modules() if isinstance(m, BayesianLayer)]
    assert priors == [1.0, 1.0, 0.5]


def test_layers_that_share_scales_alone_have_weights_of_their_own() -> None:
    model: Any = to_bayesian(nn.Sequential(*(nn.Linear(3, 3) for _ in range(2))), init_scale=1e-3)
    model[1].weight_raw_scale = model[0].weight_raw_scale
    with bslfast.nn.one_draw(model):
        for layer in model:
            torch.testing.assert_close(layer.drawn[0], layer.weight_loc, atol=0.01, rtol=0)
    torch.testing.assert_close(kl(model), model[0].kl() + model[1].kl())


def test_a_sample_of_a_shared_weight_serves_layers_of_an_outer_draw() -> None:
    model: Any = to_bayesian(tied(), init_scale=0.5)
    with bslfast.nn.one_draw(model.embedding):
        (outer,) = model.embedding.drawn
        rows = bslfast.nn.sample_outputs(model, torch.arange(7), n_samples=3)
        with bslfast.nn.one_draw(model):
            assert model.head.drawn[0] is outer
        assert torch.allclose(rows.diff(dim=0), rows.diff(dim=0)[:, :1])  # biases differ


@pytest.mark.parametrize("width", [4, 600])
def test_networks_whose_layers_were_tied_by_hand(width: int) -> None:
    torch.manual_seed(0)
    model = bslfast.bnn.BayesianMLP(2, (width,) * 3, 1, init_scale=0.5)
    first, second = model.layers[1:3]
    for name in first._parameters:
        setattr(second, name, getattr(first, name))
    own = sum(model.layers[i].kl() for i in (0, 1, 3))
    x, y = torch.ones(5, 2), torch.ones(5, 1)
    torch.testing.assert_close(kl(model), own)
    loss = model.negative_elbo(x, y, dataset_size=1, beta=1e6)
    torch.testing.assert_close(loss / 1e6, own, rtol=0.01, atol=0)
    twin = model.deterministic_twin()
    assert twin.layers[1].weight is twin.layers[2].weight
    if width == 4:
        drawn = model.sample_outputs(x, 400)[:, 0, 0]
        passes = torch.stack([model(x)[0, 0] for _ in range(400)])
        error = (drawn.var() + passes.var()).sqrt() / 20
        assert (drawn.mean() - passes.mean()).abs() < 5 * error


def test_fit_draws_a_shared_weight_once() -> None:
    model: Any = to_bayesian(tied())
    seen = []
    for layer in (model.embedding, model.head):
        layer.register_forward_hook(lambda layer, *_: seen.append(layer.drawn[0]))
    x = torch.arange(6)
    bslfast.training.fit(
        model,
        (x, x),
        likelihood=bslfast.likelihoods.Categorical(7),
        batch_size=2,
        epochs=2,
        progress=False,
    )
    assert len(seen) == 12
    assert all(table is head for table, head in zip(seen[::2], seen[1::2], strict=True))
    assert not torch.equal(seen[0], seen[2])


class Tied(nn.Module):
    """A language model in small, whose last layer has the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 3), nn.Linear(3, 7)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.embedding(x).tanh())
        return outputs


def tied() -> nn.Module:
    return Tied()


@pytest.mark.parametrize("prior", [None, priors.LearnedNormal(0.5), priors.Laplace(0.3)])
def test_layers_that_share_a_weight_share_its_posterior(prior: priors.Prior | None) -> None:
    model: Any = to_bayesian(tied(), prior=prior, init_scale=0.3)
    embedding, head = model.embedding, model.head
    assert head.weight_loc is embedding.weight_loc
    assert head.weight_raw_scale is embedding.weight_raw_scale
    assert head.priors["weight"] is embedding.priors["weight"]
    x = torch.arange(7)
    with bslfast.nn.one_draw(model, seed=3):
        # One random variable, with the gradient of both of its uses.
        weight, bias = head.drawn
        assert weight is embedding.drawn[0]
        torch.testing.assert_close(model(x), F.linear(weight.tanh(), weight, bias))
        if prior is None:
            torch.testing.assert_close(kl(model), embedding.kl() + head.weights()[1].kl())
    if prior is None:
        for _ in range(2):  # remembered of passes, layer by layer, or of none
            torch.testing.assert_close(kl(model), embedding.kl() + head.weights()[1].kl())
            model(x)
        kl(model).backward()
        grads = [p.grad.clone() for p in embedding.parameters()]
        model.zero_grad()
        embedding.compute_kl().backward()
        torch.testing.assert_close(grads, [p.grad for p in embedding.parameters()])


def test_samples_of_a_shared_weight_are_one() -> None:
    """E tanh(w) w of one w is not E tanh(w) v of two."""
    model: Any = to_bayesian(tied(), init_scale=0.6)
    x, n = torch.arange(7), 400
    outputs = bslfast.nn.sample_outputs(model, x, n_samples=n).detach()
    assert len(outputs) == n
    w = model.embedding.weights()[0].rsample(sample_shape=(100_000,)).detach()
    expected = (w.tanh() * w).mean(0).sum(1) + model.head.bias_loc.detach()
    apart = w.tanh().mean(0).mul(w.mean(0)).sum(1) + model.head.bias_loc.detach()
    found = outputs.diagonal(dim1=1, dim2=2)
    error = found.std(0) / n**0.5
    assert ((found.mean(0) - expected).abs() < 5 * error).all()
    assert ((expected - apart) > 0.1).all()
    assert ((expected - apart).mean() > 4 * error.mean()).all()


def test_copies_and_twins_of_layers_that_share_a_weight() -> None:
    model: Any = to_bayesian(tied(), moped=0.1)
    assert model.head.priors["weight"] is model.embedding.priors["weight"]
    plain: Any = bslfast.nn.deterministic_twin(model)
    assert plain.head.weight is plain.embedding.weight
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)).double()):
        other.load_state_dict(model.state_dict())
        assert other.head.weight_loc is other.embedding.weight_loc
        torch.testing.assert_close(kl(other), kl(model), check_dtype=False)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: to_bayesian(3), TypeError, r"model: expected a torch\.nn\.Module, got 3"),  # type: ignore[arg-type]
        (lambda: to_bayesian(nn.Tanh()), ValueError, "model: expected a module with one of Linear"),
        (lambda: to_bayesian(nn.Linear(1, 1), lambda *_: False), ValueError, "selected by <functi"),
        (
            lambda: to_bayesian(tied(), "embedding"),
            ValueError,
            r"be a parameter of so many selected layers, got embedding\.weight in 2 places",
        ),
        (
            lambda: to_bayesian(tied(), posterior=posteriors.FullCovariance()),
            ValueError,
            "posterior: expected one for the weight that layers share, as weight and weight",
        ),
        (
            lambda: to_bayesian(nn.utils.spectral_norm(nn.Linear(2, 2))),
            ValueError,
            "to have weight and bias, got weight_orig",
        ),
        (
            lambda: to_bayesian(nn.utils.spectral_norm(nn.LSTM(2, 3), "weight_hh_l0")),
            ValueError,
            "to have weight_ih_l0 and weight_hh_l0 .*, got weight_hh_l0_orig",
        ),
        (lambda: to_bayesian(two(), "encoder.1"), ValueError, "selected by 'encoder.1', got a Mod"),
        (lambda: to_bayesian(two(), ("head", nn.Conv2d)), ValueError, "selected by <class '.*2d'>"),
        (lambda: to_bayesian(two(), ()), ValueError, "select: expected classes of modules, names"),
        (lambda: to_bayesian(two(), 3), TypeError, "select: expected classes of modules, .* got 3"),  # type: ignore[arg-type]
        (lambda: to_bayesian(two(), int), TypeError, "select: expected .* got a type"),  # type: ignore[arg-type]
        (lambda: to_bayesian(nn.Linear(1, 1), prior_scale=-1), ValueError, "prior_scale: expected"),
        (
            lambda: type("BayesRNN", (BayesianLayer, nn.RNN), {})(2, 3),
            TypeError,
            "BayesRNN: expected a class of torch that finds its parameters by their names",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
