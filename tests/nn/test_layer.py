"""Layers made from torch's: each is that layer, with weights that are drawn."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import bslfast
import bslfast.nn as bnn
from bslfast.nn import kl, one_draw


@dataclass(frozen=True)
class Case:
    """A layer: its class, torch's, how both are made, and an input."""

    bayesian: Any
    plain: Any
    options: dict[str, Any]
    x: Callable[[], Tensor]

    def __str__(self) -> str:
        return "-".join([self.bayesian.__name__, *map(str, self.options)])

    def make_plain(self, **options: Any) -> Any:
        ours = {k: v for k, v in self.options.items() if k != "return_state"}
        return self.plain(**ours, **options)

    def make(self, **options: Any) -> Any:
        return self.bayesian(**self.options, **options)

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.plain is not nn.MultiheadAttention:
            return (x,)
        return tuple(x[..., : self.options.get(k)] if k in self.options else x
                     for k in ("embed_dim", "kdim", "vdim"))  # fmt: skip


def flat(name: str) -> str:
    """What a parameter of torch is called in the Bayesian layer."""
    return name.replace("out_proj.", "out_proj_")


def tensor(outputs: Any) -> Tensor:
    """The first of what a layer returns."""
    found: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return found


def convolution(n: int, **options: Any) -> dict[str, Any]:
    return {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}


def image(n: int, size: int = 6) -> Callable[[], Tensor]:
    return lambda: torch.randn(2, 4, *(size - i for i in range(n)), dtype=torch.float64)


def sequence() -> Tensor:
    return torch.randn(2, 5, 4, dtype=torch.float64)


def indices() -> Tensor:
    return torch.tensor([[1, 0, 4], [1, 1, 2]])


OF_RECURRENT: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True},
]
OF_ATTENTION: list[dict[str, Any]] = [
    {"batch_first": True},
    {"add_bias_kv": True, "bias": False},
    {"kdim": 3, "vdim": 2, "add_zero_attn": True},
]
OF_CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "padding_mode": "reflect", "groups": 2, "bias": False},
    {"padding": "same", "padding_mode": "circular", "dilation": 2},
]
OF_TRANSPOSES: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "bias": False, "dilation": 2},
]
CASES = [
    Case(bnn.BayesLinear, nn.Linear, {"in_features": 4, "out_features": 3}, image(1, 4)),
    *(
        Case(getattr(bnn, f"Bayes{name}{n}d"), getattr(nn, f"{name}{n}d"), convolution(n, **o), x)
        for n in (1, 2, 3)
        for name, many in (("Conv", OF_CONVOLUTIONS), ("ConvTranspose", OF_TRANSPOSES))
        for o, x in ((o, image(n)) for o in many)
    ),
    Case(bnn.BayesEmbedding, nn.Embedding, {"num_embeddings": 5, "embedding_dim": 3}, indices),
    Case(
        bnn.BayesEmbedding,
        nn.Embedding,
        {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": 1, "scale_grad_by_freq": True},
        indices,
    ),
    *(
        Case(bayesian, plain, {"input_size": 4, "hidden_size": 3, **o}, sequence)
        for bayesian, plain in ((bnn.BayesLSTM, nn.LSTM), (bnn.BayesGRU, nn.GRU))
        for o in OF_RECURRENT
    ),
    Case(
        bnn.BayesLSTM,
        nn.LSTM,
        {"input_size": 4, "hidden_size": 3, "proj_size": 2, "return_state": True},
        sequence,
    ),
    *(
        Case(bnn.BayesMultiheadAttention, nn.MultiheadAttention, {"embed_dim": 4, **o}, sequence)
        for o in ({"num_heads": 2, **o} for o in OF_ATTENTION)
    ),
    Case(bnn.BayesLayerNorm, nn.LayerNorm, {"normalized_shape": (4,)}, sequence),
    Case(bnn.BayesLayerNorm, nn.LayerNorm, {"normalized_shape": 4, "bias": False}, sequence),
]
every = pytest.mark.parametrize("case", CASES, ids=str)


@every
def test_a_pass_is_torchs_with_the_drawn_weights(case: Case) -> None:
    """Outputs, gradients and divergence, alone and inside one_draw."""
    layer, x = case.make(init_scale=0.3, dtype=torch.float64), case.x()
    parameters = list(layer.parameters())
    xs = case.inputs(x)
    loss = tensor(layer(*xs, seed=3)).square().sum() + kl(layer)
    found = torch.autograd.grad(loss, parameters)
    plain = case.make_plain(dtype=torch.float64)
    names = [name for name, p in plain.named_parameters() if p is not None]
    samples, expected_kl = {}, torch.zeros((), dtype=torch.float64)
    for stream, name in enumerate(names):
        loc, raw = (getattr(layer, f"{flat(name)}_{p}") for p in ("loc", "raw_scale"))
        samples[name] = bslfast.functional.normal_rsample(loc, raw, seed=3, stream=stream)
        posterior = Normal(loc, nn.functional.softplus(raw))
        expected_kl = expected_kl + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
    y = tensor(torch.func.functional_call(plain, samples, xs))
    padding = case.options.get("padding_idx")
    if padding is not None:
        y = torch.where((x == padding).unsqueeze(-1), 0.0, y)
    expected = torch.autograd.grad(y.square().sum() + expected_kl, parameters)
    torch.testing.assert_close(loss, y.square().sum() + expected_kl)
    torch.testing.assert_close(found, expected)
    with one_draw(layer, seed=3):
        torch.testing.assert_close(tensor(layer(*xs)), y)
        torch.testing.assert_close(kl(layer), expected_kl)
    if padding is None:
        assert not torch.equal(tensor(layer(*xs)), tensor(layer(*xs)))


@every
@pytest.mark.parametrize("joint", [bnn.posteriors.FullCovariance(), bnn.posteriors.LowRank(2)])
def test_a_pass_with_all_weights_drawn_jointly(case: Case, joint: Any) -> None:
    """Outputs, gradients, divergence, means, and the way from torch's layer and back."""
    torch.manual_seed(0)
    layer, x = case.make(posterior=joint, prior_scale=0.7, dtype=torch.float64), case.x()
    parameters, xs = list(layer.parameters()), case.inputs(x)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    (weight,) = layer.weights()
    plain = case.make_plain(dtype=torch.float64)
    shapes = {name: p.shape for name, p in plain.named_parameters()}
    padding = case.options.get("padding_idx")

    def outputs(vector: Tensor) -> Tensor:
        """torch's, with the parts of a vector as its parameters."""
        parts = vector.split([shape.numel() for shape in shapes.values()])
        tensors = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        y = tensor(torch.func.functional_call(plain, tensors, xs))
        if padding is not None:
            y = torch.where((x == padding).unsqueeze(-1), layer.weight_loc[padding].detach(), y)
        return y

    y = outputs(weight.rsample(seed=3))
    n = len(weight.loc)
    # A covariance with a root that is known is not factorised, as it is close to singular.
    if isinstance(joint, bnn.posteriors.FullCovariance):
        root = joint.mixing(weight.parameters) + joint.scale(weight.parameters).diag()
        density = MultivariateNormal(weight.loc, scale_tril=root)
    else:
        density = MultivariateNormal(weight.loc, joint.covariance(weight.parameters))
    prior = MultivariateNormal(weight.loc.new_zeros(n), 0.49 * torch.eye(n, dtype=torch.float64))
    expected = y.square().sum() + kl_divergence(density, prior)
    loss = tensor(layer(*xs, seed=3)).square().sum() + kl(layer)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    )
    with one_draw(layer, seed=3):
        torch.testing.assert_close(tensor(layer(*xs)), y)
    if len(xs) == 1 or not {"kdim", "vdim"} & case.options.keys():
        found = layer.sample_outputs(x, 3)
        assert found.shape == (3, *y.shape)
        assert padding is not None or len(found.flatten(1).unique(dim=0)) == 3
    twin = layer.deterministic_twin()
    assert list(twin.state_dict()) == list(plain.state_dict())
    assert torch.equal(torch.cat([p.flatten() for p in twin.parameters()]), weight.loc)
    with bnn.at_means(layer):
        means = tensor(layer(*xs))
        torch.testing.assert_close(means, outputs(weight.loc))
        torch.testing.assert_close(tensor(twin(*xs)), means)
        reached = torch.autograd.grad(means.sum(), parameters, allow_unused=True)
        assert sum(grad is not None for grad in reached) == len(shapes)
    again = bnn.to_bayesian(twin, posterior=joint, prior_scale=0.7)
    assert type(again) is case.bayesian
    again.load_state_dict(layer.state_dict())
    torch.testing.assert_close(tensor(again(*xs, seed=3)), y)
    for key, value in bnn.deterministic_twin(again).state_dict().items():
        assert torch.equal(value, twin.state_dict()[key])


@pytest.mark.parametrize("case", {case.bayesian: case for case in CASES}.values(), ids=str)
def test_priors_around_the_weights_of_torchs_layer(case: Case) -> None:
    torch.manual_seed(0)
    plain = case.make_plain(dtype=torch.float64)
    layer = bnn.to_bayesian(plain, prior_scale=0.5, moped=0.1)
    expected = torch.zeros((), dtype=torch.float64)
    for name, given in plain.named_parameters():
        weight = dict(zip(layer._shapes, layer.weights(), strict=True))[flat(name)]
        assert torch.equal(weight.loc, given)
        spread = (0.1 * given.abs()).clamp_min(1e-6)
        torch.testing.assert_close(weight.stddev(), spread)
        expected = expected + kl_divergence(Normal(given, spread), Normal(given, 0.5)).sum()
    torch.testing.assert_close(kl(layer), expected)
    joint = bnn.to_bayesian(plain, posterior=bnn.posteriors.FullCovariance(), prior_scale=0.5,
                            moped=0.1)  # fmt: skip
    torch.testing.assert_close(kl(joint), expected)
    buffers = dict(joint.named_buffers())
    assert buffers.keys() == {"joint_prior.loc"}
    assert torch.equal(buffers["joint_prior.loc"], joint.weights()[0].loc)


@pytest.mark.parametrize("case", {case.bayesian: case for case in CASES}.values(), ids=str)
@pytest.mark.parametrize("posterior", [None, bnn.posteriors.LowRank(2)])
def test_a_learned_prior_is_no_parameter_of_torchs_layer(case: Case, posterior: Any) -> None:
    """Nor do sequences, resets and twins take it for one."""
    prior = bnn.priors.LearnedNormal(0.5)
    torch.manual_seed(0)
    layer = case.make(posterior=posterior, prior=prior, dtype=torch.float64)
    (learned,) = set(layer.priors.values())
    (tensor(layer(*case.inputs(case.x()))).sum() + kl(layer)).backward()
    loc = torch.cat([w.loc.flatten() for w in layer.weights()])
    spread = torch.cat([w.stddev().flatten() for w in layer.weights()])
    expected = (1 - (loc.square() + spread.square()) / 0.25).sum()
    torch.testing.assert_close(learned.log_scale.grad, expected.detach())
    with torch.no_grad():
        learned.log_scale.add_(1.0)
    plain = case.make_plain(dtype=torch.float64)
    torch.manual_seed(1)
    again, state = case.make_plain(dtype=torch.float64), torch.get_rng_state()
    torch.manual_seed(1)
    layer.reset_parameters()
    assert posterior is not None or torch.equal(torch.get_rng_state(), state)
    assert learned.scale.item() == pytest.approx(0.5)
    twin = layer.deterministic_twin()
    assert repr(twin) == repr(plain)
    for key, value in again.state_dict().items():
        assert torch.equal(twin.state_dict()[key], value)


@every
def test_it_starts_as_torchs_layer_does(case: Case) -> None:
    torch.manual_seed(0)
    plain = case.make_plain()
    torch.manual_seed(0)
    layer = case.make()
    twin = layer.deterministic_twin()
    assert type(twin) is case.plain
    assert repr(twin) == repr(plain)
    assert list(twin.state_dict()) == list(plain.state_dict())
    torch.manual_seed(0)
    again = case.make(device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.fill_(torch.nan)
    again.reset_parameters()
    assert isinstance(layer, case.plain)
    if case.plain is not nn.MultiheadAttention:  # of which torch shows nothing
        assert repr(layer).startswith(f"Bayes{repr(plain)[:-1]}, posterior=Normal(")
    for name, value in plain.named_parameters():
        for made in (layer, again):
            torch.testing.assert_close(getattr(made, f"{flat(name)}_loc"), value)
            start = nn.functional.softplus(getattr(made, f"{flat(name)}_raw_scale"))
            torch.testing.assert_close(start, torch.full_like(value, 0.02))
    x = case.x()
    x = x.float() if x.is_floating_point() else x
    xs = case.inputs(x)
    torch.testing.assert_close(tensor(twin(*xs)), tensor(plain(*xs)))
    keys = [f"{flat(name)}_{p}" for name in plain.state_dict() for p in ("loc", "raw_scale")]
    assert list(layer.state_dict()) == keys


@every
def test_copies_and_files(case: Case) -> None:
    layer, x = case.make(dtype=torch.float64), case.inputs(case.x())
    layer(*x)
    expected = tensor(layer(*x, seed=1))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._remembered is None
        assert torch.equal(tensor(other(*x, seed=1)), expected)
        assert kl(other).item() == kl(layer).item()
    fresh = case.make(dtype=torch.float64)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(tensor(fresh(*x, seed=1)), expected)
    moved = {k: v.detach() + 1 for k, v in layer.named_parameters()}
    elsewhere = tensor(torch.func.functional_call(layer, moved, x, {"seed": 1}))
    fresh.load_state_dict(moved)
    torch.testing.assert_close(elsewhere, tensor(fresh(*x, seed=1)))


@pytest.mark.parametrize("case", [CASES[i] for i in (7, 8, 16)], ids=str)
def test_compiled_in_one_graph(case: Case) -> None:
    torch._dynamo.reset()
    layer, x = case.make(dtype=torch.float64), case.x()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x: Tensor) -> Tensor:
        return layer(x, seed=1).square().sum() + kl(layer)

    compiled = loss(x)
    expected = layer(x, seed=1).square().sum() + layer.compute_kl()
    torch.testing.assert_close(compiled, expected)
    compiled.backward()
    assert all(p.grad is not None for p in layer.parameters())


@every
def test_predictions(case: Case) -> None:
    layer, x = case.make(init_scale=0.3, dtype=torch.float64), case.x()
    if "kdim" in case.options:  # it cannot attend from x to x
        with pytest.raises(ValueError, match="key: expected shape"):
            layer.sample_outputs(x, 3)
        return
    torch.manual_seed(1)
    outputs = layer.sample_outputs(x, 3)
    assert outputs.shape == (3, *tensor(layer(*case.inputs(x))).shape)
    if case.options.get("padding_idx") is None:
        assert len(outputs.flatten(1).unique(dim=0)) == 3
    torch.manual_seed(1)
    own = layer.sample_outputs(torch.stack([x] * 3), 3, per_draw=True)
    torch.testing.assert_close(own, outputs)
    with one_draw(layer):
        drawn = layer.sample_outputs(x, 2)
        torch.testing.assert_close(drawn[0], tensor(layer(*case.inputs(x))))
        torch.testing.assert_close(drawn[0], drawn[1])
    with pytest.raises(ValueError, match="x: expected one input for each of 4 draws, got"):
        layer.sample_outputs(torch.stack([x] * 3), 4, per_draw=True)
    with pytest.raises(ValueError, match="n_samples: expected an integer of at least 1, got 0"):
        layer.sample_outputs(x, 0)


@every
def test_signatures_are_torchs_and_ours(case: Case) -> None:
    names = list(inspect.signature(case.bayesian).parameters)
    plain = nn.RNNBase if issubclass(case.plain, nn.RNNBase) else case.plain
    theirs = [k for k in inspect.signature(plain).parameters if k != "mode"]
    if case.plain is nn.GRU:
        theirs.remove("proj_size")
    if plain is nn.RNNBase:
        theirs.append("return_state")
    assert names[: len(theirs)] == theirs
    assert names[len(theirs) :] == [
        *("posterior", "prior", "prior_loc", "prior_scale", "init_scale", "parametrization"),
        "estimator",
    ]


def network() -> nn.Sequential:
    return nn.Sequential(
        bnn.BayesConv2d(1, 3, 3, padding=1, init_scale=0.2),
        nn.ReLU(),
        bnn.BayesConvTranspose2d(3, 2, 2, stride=2, bias=False),
        nn.Flatten(),
        bnn.BayesLinear(2 * 8 * 8, 2),
    )


def test_predictions_and_training_of_a_model_of_them() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(12, 1, 4, 4)
    likelihood = bslfast.likelihoods.Normal(2)
    prediction = bslfast.predict(model, x, 50, likelihood=likelihood, seed=0)
    assert prediction.mean.shape == (12, 2)
    assert (prediction.epistemic > 0).all()
    targets = x.flatten(1)[:, :2]
    history = bslfast.training.fit(
        model, (x, targets), likelihood=likelihood, epochs=5, lr=0.01, progress=False
    )
    assert history.loss[-1] < history.loss[0]
    with one_draw(model):
        assert torch.equal(model(x), model(x))


def test_passes_in_several_threads_share_no_draw() -> None:
    from concurrent.futures import ThreadPoolExecutor

    layer, x = bnn.BayesConv1d(1, 1, 1, bias=False, init_scale=0.3), torch.ones(1, 1, 1)

    def outputs(_: int) -> list[float]:
        with torch.no_grad():
            return [layer(x).item() for _ in range(200)]

    with ThreadPoolExecutor(4) as pool:
        found = [value for part in pool.map(outputs, range(4)) for value in part]
    assert len(set(found)) > 0.99 * len(found)


def test_another_layer_of_torch() -> None:
    class BayesBilinear(bnn.BayesianLayer, nn.Bilinear):
        pass

    layer = BayesBilinear(3, 4, 2, posterior={"bias": bnn.posteriors.Deterministic()})
    assert list(layer.state_dict()) == ["weight_loc", "weight_raw_scale", "bias_loc"]
    assert layer(torch.ones(5, 3), torch.ones(5, 4)).shape == (5, 2)
    kl(layer).backward()


def linear(**options: Any) -> bnn.BayesLinear:
    return bnn.BayesLinear(3, 2, **options)


def test_arguments_that_layers_take() -> None:
    """What is at the edge of what is refused, as torch takes it."""
    wide = bnn.BayesConv2d(2, 4, [2, 3], padding=(0, 1), dilation=2)
    assert wide(torch.ones(2, 3, 3)).shape == (4, 1, 1)
    assert bnn.BayesConv1d(2, 4, 5, padding="same")(torch.ones(2, 3)).shape == (4, 3)
    spread = bnn.BayesConvTranspose2d(2, 2, 3, dilation=2, output_padding=1)
    assert spread(torch.ones(2, 1, 1)).shape == (2, 6, 6)
    grown = bnn.BayesConvTranspose2d(2, 2, 3, stride=2, output_padding=1)
    assert grown(torch.ones(2, 1, 1), output_size=(3, 4)).shape == (2, 3, 4)
    assert bnn.BayesEmbedding(4, 2, padding_idx=-4).padding_idx == 0
    assert bnn.BayesLayerNorm([3, 4], eps=0)(torch.randn(2, 3, 4)).shape == (2, 3, 4)
    layer = linear(device=torch.device("cpu"), dtype=torch.float64)
    x, samples = torch.randn(4, 3).double(), tuple(w.rsample() for w in layer.weights())
    torch.testing.assert_close(layer(x, drawn=samples), x @ samples[0].T + samples[1])


def test_the_padding_row_is_its_mean() -> None:
    layer = bnn.BayesEmbedding(4, 3, padding_idx=2, init_scale=1.0)
    rows = layer(torch.tensor([[2, 1], [0, 2]]))
    assert rows[0, 0].abs().sum() == rows[1, 1].abs().sum() == 0
    rows.sum().backward()
    assert layer.weight_loc.grad is not None
    assert layer.weight_raw_scale.grad is not None
    assert not layer.weight_loc.grad[2].any()
    assert not layer.weight_raw_scale.grad[2].any()
    assert torch.equal(layer.weight_loc.grad[1], torch.ones(3))


def test_a_table_that_is_given() -> None:
    table = torch.randn(4, 3)
    layer = bnn.BayesEmbedding.from_pretrained(table, freeze=False)
    assert torch.equal(layer.weight_loc, table)
    assert layer.weight_raw_scale.requires_grad
    frozen = bnn.BayesEmbedding.from_pretrained(table)
    assert not any(p.requires_grad for p in frozen.parameters())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bnn.BayesConv2d(0, 2, 3), ValueError, "in_channels: expected an integer of at"),
        (lambda: bnn.BayesConv2d(2, 2.0, 3), TypeError, "out_channels: expected an integer of at"),
        (lambda: bnn.BayesConv2d(2, 2, 3, prior_scale=0), ValueError, "prior_scale: expected a"),
        (lambda: bnn.BayesConv2d(2, 2), TypeError, "kernel_size"),
        (lambda: bnn.BayesConv2d(2, 2, 3, dtype=torch.complex64), TypeError, "dtype: .*complex64"),
        (lambda: bnn.BayesConv2d(2, 2, 3, dtype=torch.int64), TypeError, "dtype: .* got int64"),
        (lambda: linear(dtype="float32"), TypeError, "dtype: expected torch.float32, .*'float32'"),
        (lambda: linear(device="gpu"), ValueError, "device: expected a name such as .*'gpu'"),
        (lambda: linear(bias="yes"), TypeError, "bias: expected a bool, got 'yes'"),
        (lambda: bnn.BayesConv1d(2, 2, 3, bias=None), TypeError, "bias: expected a bool, got Non"),
        (lambda: bnn.BayesConv2d(2, 2, 0), ValueError, "kernel_size: expected an integer of at l"),
        (lambda: bnn.BayesConv2d(2, 2, "a"), TypeError, "kernel_size: expected an integer of at"),
        (
            lambda: bnn.BayesConv2d(2, 2, (3, 3, 3)),
            ValueError,
            r"kernel_size: expected an integer or 2 of them, at least 1, got \(3, 3, 3\)",
        ),
        (lambda: bnn.BayesConv2d(2, 2, 3, stride=0), ValueError, "stride: .*at least 1, got 0"),
        (lambda: bnn.BayesConv2d(2, 2, 3, (1, -1)), ValueError, "stride: .*at least 1, got -1"),
        (lambda: bnn.BayesConv1d(2, 2, 3, dilation=0), ValueError, "dilation: .*at least 1, got"),
        (lambda: bnn.BayesConv3d(2, 2, 3, padding=-1), ValueError, "padding: .*at least 0, got"),
        (
            lambda: bnn.BayesConv2d(2, 2, 3, padding="full"),
            ValueError,
            "padding: expected one of 'valid', 'same', got 'full'",
        ),
        (
            lambda: bnn.BayesConv2d(2, 2, 3, (1, 2), padding="same"),
            ValueError,
            "padding: expected 'valid', an integer .* with a stride above 1, got 'same'",
        ),
        (
            lambda: bnn.BayesConvTranspose2d(2, 2, 3, padding="same"),
            TypeError,
            "padding: expected an integer of at least 0, got 'same'",
        ),
        (
            lambda: bnn.BayesConv2d(2, 2, 3, padding_mode="mirror"),
            ValueError,
            "padding_mode: expected one of 'zeros', 'reflect', .*got 'mirror'",
        ),
        (
            lambda: bnn.BayesConvTranspose1d(2, 2, 3, padding_mode="circular"),
            ValueError,
            "padding_mode: expected one of 'zeros', got 'circular'",
        ),
        (
            lambda: bnn.BayesConv2d(3, 4, 3, groups=2),
            ValueError,
            "groups: expected a divisor of in_channels, 3, got 2",
        ),
        (
            lambda: bnn.BayesConvTranspose2d(4, 3, 3, groups=2),
            ValueError,
            "groups: expected a divisor of out_channels, 3, got 2",
        ),
        (
            lambda: bnn.BayesConvTranspose2d(2, 2, 3, (1, 2), output_padding=1),
            ValueError,
            "output_padding: expected less than stride or dilation, 1, got 1",
        ),
        (
            lambda: bnn.BayesConv2d(2, 2, (2, 3), padding=(0, 1), dilation=2)(torch.ones(2, 3, 2)),
            ValueError,
            r"x: expected height, width of at least 3, 3, which the kernel covers, got \[2, 3, 2\]",
        ),
        (
            lambda: bnn.BayesEmbedding(4, 2, padding_idx=4),
            ValueError,
            "padding_idx: expected None or an integer from -4 to 3, got 4",
        ),
        (lambda: bnn.BayesEmbedding(4, 2, -5), ValueError, "padding_idx: .*at least -4, got -5"),
        (lambda: bnn.BayesEmbedding(4, 2, 1.0), TypeError, "padding_idx: expected an integer"),
        (lambda: bnn.BayesLayerNorm(0), ValueError, "normalized_shape: expected an integer of at"),
        (lambda: bnn.BayesLayerNorm(()), ValueError, "normalized_shape: expected at least 1 size"),
        (lambda: bnn.BayesLayerNorm("a"), TypeError, "normalized_shape: expected an integer of"),
        (lambda: bnn.BayesLayerNorm(3, -1.0), ValueError, "eps: .*at least 0, got -1.0"),
        (
            lambda: linear()(torch.ones(1, 3), drawn=(torch.ones(2, 3),)),
            ValueError,
            r"drawn: expected .* of shapes \[2, 3\] and \[2\], got \[2, 3\]",
        ),
        (lambda: linear()(torch.ones(1, 3), drawn=3), TypeError, r"drawn: .*, got 3 \(int\)"),
        (
            lambda: bnn.BayesConv1d(2, 3, 1)(torch.ones(2, 4), drawn=()),
            ValueError,
            r"drawn: expected .* of shapes \[3, 2, 1\] and \[3\], got none",
        ),
        (
            lambda: bnn.BayesConv1d(2, 3, 1)(torch.ones(2, 4), drawn=(torch.ones(3, 2, 1), None)),
            TypeError,
            "drawn: expected a tuple of samples of weights",
        ),
        (lambda: bnn.BayesEmbedding(3, 2, max_norm=1.0), ValueError, "max_norm: expected None"),
        (lambda: bnn.BayesEmbedding(3, 2, sparse=True), ValueError, "sparse: expected False"),
        (lambda: bnn.BayesEmbedding(3, 2)(torch.ones(3)), TypeError, "x: expected a tensor of i"),
        (
            lambda: bnn.BayesConv2d(2, 4, 3)(torch.ones(1, 3, 5, 5)),
            ValueError,
            r"x: expected shape \[batch, 2, height, width\] or \[2, height, width\], got \[1, 3",
        ),
        (
            lambda: bnn.BayesConv1d(2, 4, 3)(torch.ones(2, 5).double()),
            TypeError,
            "x: expected the dtype of weight_loc, float32, got float64",
        ),
        (lambda: bnn.BayesConv1d(2, 4, 3)(5), TypeError, r"x: expected a torch\.Tensor, got int"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
