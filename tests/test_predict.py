"""Predictions: closed forms, modes, seeds, units."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from largest_tensor import LargestTensor
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bslfast import nn as bnn
from bslfast.bnn import BayesianMLP
from bslfast.data import Standardizer
from bslfast.likelihoods import Categorical, HeteroscedasticNormal, Normal
from bslfast.nn import samples
from bslfast.predict import Prediction, predict


class Noisy(nn.Module):
    """Outputs N(2, 3^2), one draw per call for the whole batch: the posterior is known."""

    def __init__(self) -> None:
        super().__init__()
        self.likelihood = Normal(1, init_scale=4.0)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return (2 + 3 * torch.randn(())).expand(x.shape[0], 1)


def test_regression_against_the_closed_form() -> None:
    n = 4000
    prediction = predict(Noisy(), torch.zeros(5, 1), n, seed=0)
    assert prediction.samples.shape == (n, 5, 1)
    five = 5 / math.sqrt(n)  # five standard errors in units of the standard deviation
    torch.testing.assert_close(prediction.mean, torch.full((5, 1), 2.0), atol=3 * five, rtol=0)
    torch.testing.assert_close(
        prediction.epistemic, torch.full((5, 1), 3.0), atol=3 * five / math.sqrt(2), rtol=0
    )
    torch.testing.assert_close(prediction.aleatoric, torch.full((5, 1), 4.0))
    # The predictive distribution is N(2, 3^2 + 4^2).
    lower, upper = prediction.interval(0.95)
    torch.testing.assert_close(lower, torch.full((5, 1), 2 - 1.96 * 5), atol=0.6, rtol=0)
    torch.testing.assert_close(upper, torch.full((5, 1), 2 + 1.96 * 5), atol=0.6, rtol=0)
    y = torch.tensor([[-8.0], [-3.0], [2.0], [7.0], [12.0]])
    expected = torch.distributions.Normal(2.0, 5.0).log_prob(y).squeeze(1)
    torch.testing.assert_close(prediction.log_prob(y), expected, atol=0.12, rtol=0)
    cdf = torch.distributions.Normal(2.0, 5.0).cdf(y).double()
    torch.testing.assert_close(prediction.cdf(y), cdf, atol=0.05, rtol=0)


def test_log_prob_is_the_log_of_the_mean_probability() -> None:
    model = BayesianMLP(3, (8,), 4, likelihood="categorical")
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])
    prediction = predict(model, x, 20)
    expected = prediction.mean[torch.arange(6), y].log()
    torch.testing.assert_close(prediction.log_prob(y), expected)


def test_model_mode_gradients_and_generators_stay_as_they_were() -> None:
    model = Noisy()
    model.likelihood.eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = predict(model, torch.zeros(2, 1), 3, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert model.modes == [False] * 3
    assert model.training
    assert not model.likelihood.training
    assert not first.samples.requires_grad
    second = predict(model, torch.zeros(2, 1), 3, seed=1)
    other = predict(model, torch.zeros(2, 1), 3, seed=2)
    assert torch.equal(first.samples, second.samples)
    assert not torch.equal(first.samples, other.samples)
    torch.manual_seed(5)
    drawn = predict(model, torch.zeros(2, 1), 3)
    torch.manual_seed(5)
    assert torch.equal(drawn.samples, predict(model, torch.zeros(2, 1), 3).samples)


def test_sample_outputs_is_used_where_there_is_one() -> None:
    class Batched(Noisy):
        def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
            return torch.full((n_samples, x.shape[0], 1), 7.0)

    prediction = predict(Batched(), torch.zeros(3, 1), 11)
    assert prediction.samples.shape == (11, 3, 1)
    assert torch.equal(prediction.mean, torch.full((3, 1), 7.0))


def test_batched_samples_and_single_calls_agree_in_distribution() -> None:
    torch.manual_seed(0)
    model = BayesianMLP(2, (16,), 1, activation="tanh")
    x = torch.randn(4, 2)
    if not hasattr(model, "sample_outputs"):
        pytest.skip("this model has no batched route")
    batched = predict(model, x, 4000, seed=0)
    with torch.no_grad():
        single = torch.stack([model.eval()(x) for _ in range(4000)])
    bound = 6 * single.std(0).max().item() / math.sqrt(4000)
    torch.testing.assert_close(batched.samples.mean(0), single.mean(0), atol=bound, rtol=0)
    torch.testing.assert_close(batched.samples.std(0), single.std(0), atol=bound, rtol=0.05)


def test_a_deterministic_model_has_no_epistemic_part() -> None:
    prediction = predict(nn.Linear(2, 2), torch.randn(5, 2), 1, likelihood=HeteroscedasticNormal(1))
    assert prediction.epistemic.abs().max() == 0
    assert prediction.mean.shape == (5, 1)


def test_target_scaler_gives_everything_in_the_original_unit() -> None:
    torch.manual_seed(0)
    y = 10 * torch.randn(40, 2) + torch.tensor([100.0, -5.0])
    scaler = Standardizer.fit(y)
    likelihood, samples = Normal(2, init_scale=0.5), torch.randn(30, 40, 2)
    plain = Prediction(*likelihood.predictive(samples), samples, likelihood)

    class Fixed(nn.Module):
        def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
            return samples[:n_samples]

    x = torch.zeros(40, 1)
    scaled = predict(Fixed(), x, 30, likelihood=likelihood, target_scaler=scaler)
    torch.testing.assert_close(scaled.mean, plain.mean * scaler.scale + scaler.mean)
    torch.testing.assert_close(scaled.aleatoric, plain.aleatoric * scaler.scale)
    torch.testing.assert_close(scaled.epistemic, plain.epistemic * scaler.scale)
    # The density as the mixture has it in the original unit.
    loc, scale = samples * scaler.scale + scaler.mean, likelihood.scale * scaler.scale
    each = torch.distributions.Normal(loc, scale).log_prob(y).sum(-1)
    torch.testing.assert_close(scaled.log_prob(y), each.logsumexp(0) - math.log(30))
    lower, upper = scaled.interval(0.8)
    torch.testing.assert_close(
        scaled.cdf(lower), torch.full((40, 2), 0.1).double(), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        scaled.cdf(upper), torch.full((40, 2), 0.9).double(), atol=1e-5, rtol=0
    )


# --- any leading dimensions -----------------------------------------------------------------------


class OneByOne(nn.Module):
    """The same network without a batched route."""

    def __init__(self, network: BayesianMLP) -> None:
        super().__init__()
        self.network, self.likelihood = network, network.likelihood

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (6, 4), (10, 4), (2, 3, 2), (0,), (3, 0)])
@pytest.mark.parametrize("likelihood", ["normal", "heteroscedastic_normal", "categorical"])
def test_leading_dimensions_are_those_of_the_outputs(
    batched: bool, shape: tuple[int, ...], likelihood: str
) -> None:
    """Each input has its prediction of a flat batch: 10 draws, also of 10 inputs."""
    torch.manual_seed(0)
    network = BayesianMLP(3, (5,), 2, likelihood=likelihood, init_scale=0.5)
    model = network if batched else OneByOne(network)
    x, rows = torch.randn(*shape, 3), math.prod(shape)
    classes = likelihood == "categorical"
    y = torch.randint(0, 2, shape) if classes else torch.randn(*shape, 2)
    scaler = None if classes else Standardizer(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 9.0]))
    flat = predict(model, x.reshape(rows, 3), 10, seed=1, target_scaler=scaler)
    shaped = predict(model, x, 10, seed=1, target_scaler=scaler)
    assert shaped.samples.shape == (10, *model(x).shape)
    flat_y = y.reshape(rows, *y.shape[len(shape) :])
    pairs = [
        (shaped.samples, flat.samples),
        (shaped.mean, flat.mean),
        (shaped.aleatoric, flat.aleatoric),
        (shaped.epistemic, flat.epistemic),
        (shaped.log_prob(y), flat.log_prob(flat_y)),
    ]
    if rows:  # torch has no quantiles of nothing
        pairs.extend(zip(shaped.interval(0.5), flat.interval(0.5), strict=True))
    if not classes:
        pairs.append((shaped.cdf(y), flat.cdf(flat_y)))
    for one, other in pairs:
        torch.testing.assert_close(one.reshape(other.shape), other)
    per_class = () if classes else (2,)
    assert shaped.mean.shape == (*shape, 2)
    assert shaped.aleatoric.shape == shaped.epistemic.shape == (*shape, *per_class)
    assert shaped.log_prob(y).shape == shape


def test_targets_have_the_leading_dimensions_of_the_predictions() -> None:
    prediction = predict(BayesianMLP(3, (5,), 1), torch.randn(4, 7, 3), 5)
    for shape in ((28, 1), (7, 4, 1), (4, 7), (4, 7, 2)):
        for call in (prediction.log_prob, prediction.cdf):
            with pytest.raises(ValueError, match=r"^y: expected"):
                call(torch.randn(shape))


def test_outputs_that_are_no_draws_are_refused() -> None:
    class Wrong(Noisy):
        def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
            return torch.zeros(x.shape[0], 1)

    with pytest.raises(ValueError, match=r"model.sample_outputs: .*\[5, \.\.\., outputs\], got"):
        predict(Wrong(), torch.zeros(3, 1), 5)
    with pytest.raises(TypeError, match="model: expected a module that returns a tensor, got a tu"):
        predict(nn.LSTM(1, 1), torch.zeros(3, 1), 5, likelihood=Normal(1))


# --- models that torch has wrapped ----------------------------------------------------------------


WRAPPERS = {
    "averaged": AveragedModel,
    "parallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled average": lambda model: torch.compile(AveragedModel(model), backend="eager"),
    "average of compiled": lambda model: AveragedModel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_likelihood_and_the_batched_route_are_found_inside(wrap: Any) -> None:
    torch.manual_seed(0)
    model, x = BayesianMLP(3, (5,), 1), torch.randn(4, 3)
    expected, wrapped = predict(model, x, 6, seed=2), wrap(model)
    found = predict(wrapped, x, 6, seed=2)
    assert torch.equal(found.samples, expected.samples)
    torch.testing.assert_close(found.aleatoric, expected.aleatoric)


def test_a_module_of_ones_own_is_not_looked_into() -> None:
    """A module's own treatment of its network's outputs counts."""

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Noisy()

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.module(x)

    with pytest.raises(TypeError, match=r"likelihood: expected .*got None"):
        predict(Doubled(), torch.zeros(2, 1), 3)
    prediction = predict(AveragedModel(Doubled()), torch.zeros(2, 1), 3, likelihood=Normal(1))
    assert prediction.samples.shape == (3, 2, 1)


# --- quantiles, missing targets, blocks of rows ---------------------------------------------------


def test_quantiles_are_the_ends_of_intervals_and_have_their_probability() -> None:
    torch.manual_seed(0)
    scaler = Standardizer(torch.tensor([3.0]), torch.tensor([2.0]))
    model, x = BayesianMLP(3, (5,), 1, init_scale=0.5), torch.randn(7, 3)
    prediction = predict(model, x, 20, target_scaler=scaler)
    lower, upper = prediction.interval(0.9)
    torch.testing.assert_close(prediction.quantile(0.05), lower)
    torch.testing.assert_close(prediction.quantile(0.95), upper)
    for q in (0.001, 0.3, 0.5, 0.8):
        reached = prediction.cdf(prediction.quantile(q))
        torch.testing.assert_close(reached, torch.full((7, 1), q).double(), atol=1e-6, rtol=1e-4)
    # Far out a level would have no digits: 1 - 2e-18 is 1.
    normal = predict(nn.Identity(), torch.zeros(1, 1).double(), 1, likelihood=Normal(1, scale=1.0))
    assert normal.quantile(1e-18).item() == pytest.approx(-8.757290348782, rel=1e-9)


def test_quantiles_of_classes_are_those_of_the_sampled_probabilities() -> None:
    model = BayesianMLP(3, (5,), 4, likelihood="categorical", init_scale=0.5)
    prediction = predict(model, torch.randn(2, 6, 3), 20)
    expected = prediction.samples.softmax(-1).quantile(0.25, dim=0)
    torch.testing.assert_close(prediction.quantile(0.25), expected)
    torch.testing.assert_close(prediction.quantile(0.25), prediction.interval(0.5)[0])


def test_missing_targets_add_nothing() -> None:
    torch.manual_seed(0)
    scaler = Standardizer(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 9.0]))
    y, mask = torch.randn(4, 3, 2), torch.rand(4, 3, 2) < 0.6
    two = predict(BayesianMLP(3, (5,), 2), torch.randn(4, 3, 3), 9, target_scaler=scaler)
    gaps = torch.where(mask, y, torch.nan)
    # By the density itself, target by target.
    locs = two.samples * scaler.scale + scaler.mean
    each = torch.distributions.Normal(locs, two.likelihood.scale * scaler.scale).log_prob(y)
    expected = torch.where(mask, each, 0.0).sum(-1).logsumexp(0) - math.log(9)
    torch.testing.assert_close(two.log_prob(gaps, mask), expected)
    with pytest.raises(ValueError, match="mask: expected the leading dimensions"):
        two.log_prob(gaps, mask[0])


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_blocks_of_rows_have_the_same_draws(batched: bool, seed: int | None) -> None:
    torch.manual_seed(0)
    network, x = BayesianMLP(3, (50,), 2, init_scale=0.5), torch.randn(23, 2, 3)
    model = network if batched else OneByOne(network)
    seen: list[int] = []
    network.layers[0].register_forward_hook(lambda m, i, o: seen.append(len(o)))

    def call(**more: Any) -> Prediction:
        torch.manual_seed(1)
        return predict(model, x, 6, seed=seed, **more)

    whole, after = call(), torch.get_rng_state()
    seen.clear()
    # A row goes through 2 x 50 + 2 x 50 values of 4 bytes between the layers.
    blocks = call(max_bytes=5 * 800 * 6)
    torch.testing.assert_close(blocks.samples, whole.samples)
    torch.testing.assert_close(blocks.mean, whole.mean)
    assert torch.equal(torch.get_rng_state(), after)
    assert seen == [1] + ([] if batched else [5, 5, 5, 5, 3])
    assert torch.equal(call(max_bytes=1 << 40).samples, whole.samples)
    torch.testing.assert_close(call(max_bytes=1).samples, whole.samples)


@pytest.mark.parametrize("held", [1, 600, 6000, 1 << 22])
def test_blocks_have_the_same_draws_however_many_passes_run_together(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which depends on the size of x: a block has as many as all rows have."""
    monkeypatch.setattr(samples, "_HELD", held)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(6, 1))
    model, x = bnn.to_bayesian(plain, init_scale=0.5), torch.randn(13, 2, 3)
    whole = predict(model, x, 6, seed=1, likelihood=Normal(1))
    for max_bytes in (1, 600, 1500):
        blocks = predict(model, x, 6, seed=1, likelihood=Normal(1), max_bytes=max_bytes)
        torch.testing.assert_close(blocks.samples, whole.samples)


class Permuted(nn.Module):
    """A model of [batch, length, features], with torch's own order inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda **more: bnn.BayesLSTM(3, 4, **more),
        lambda **more: bnn.BayesGRU(3, 4, **more),
        lambda **more: bnn.BayesTransformerEncoderLayer(3, 1, 8, **more),
        lambda **more: nn.Sequential(bnn.BayesLinear(3, 3), bnn.BayesGRU(3, 4, **more)),
        lambda **more: nn.TransformerEncoderLayer(3, 1, 8, **more),
    ],
    ids=["lstm", "gru", "transformer", "after a layer", "plain transformer"],
)
def test_sequences_are_not_cut(make: Any) -> None:
    """Cut along their length, sequences would be others; along the batch they are the same."""
    x = torch.randn(12, 2, 3)
    first, second = make(batch_first=True), make(batch_first=False)
    likelihood = Normal(3 if "Transformer" in type(first).__name__ else 4)

    def call(model: nn.Module, x: Tensor, max_bytes: int | None) -> Tensor:
        return predict(model, x, 3, seed=1, likelihood=likelihood, max_bytes=max_bytes).samples

    torch.testing.assert_close(call(first, x, 200), call(first, x, None))
    for model in (second, Permuted(second)):
        with pytest.raises(ValueError, match=r"^max_bytes: .* got one with a .*batch_first=False"):
            call(model, x, 200)
        assert torch.equal(call(model, x, 1 << 40), call(model, x, None))
    if not isinstance(first, nn.TransformerEncoderLayer):
        with pytest.raises(ValueError, match=r"^max_bytes: .* for one sequence without a batch"):
            call(first, x[:, 0], 200)
    assert call(second, x[:, 0], None).shape[:2] == (3, 12)


def test_memory_stays_in_bounds() -> None:
    """The largest tensor made on the way holds the wanted number of bytes at most."""
    model, x = BayesianMLP(4, (256,), 1), torch.randn(2000, 4)
    with LargestTensor() as largest:
        predict(model, x, 10, max_bytes=1 << 20)
    assert 1 << 18 < largest.bytes <= 1 << 20
    with LargestTensor() as largest:
        predict(model, x, 10)
    assert largest.bytes > 1 << 24


def test_a_progress_bar(capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tqdm")
    predict(BayesianMLP(3, (5,), 1), torch.randn(8, 3), 4, max_bytes=1, progress=True)
    assert "predicting: 100%" in capsys.readouterr().err


X = torch.zeros(2, 1)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: predict(lambda x: x, X),
            TypeError,
            "model: expected a torch.nn.Module, got a fun",
        ),
        (lambda: predict(Noisy(), [[0.0]]), TypeError, "x: expected a tensor, got a list"),
        (lambda: predict(Noisy(), X, 0), ValueError, "n_samples: .*at least 1, got 0"),
        (lambda: predict(Noisy(), X, 2.5), TypeError, "n_samples: expected an integer"),
        (lambda: predict(Noisy(), X, seed=-1), ValueError, "seed: .*got -1"),
        (lambda: predict(Noisy(), X, seed=2**64), ValueError, r"seed: expected .* below 2\^64"),
        (lambda: predict(Noisy(), X, seed=1.0), TypeError, "seed: expected an integer"),
        (lambda: predict(nn.Linear(1, 1), X), TypeError, "likelihood: expected .*got None"),
        (
            lambda: predict(
                nn.Linear(1, 2),
                X,
                likelihood=Categorical(2),
                target_scaler=Standardizer.fit(torch.randn(5, 2)),
            ),
            ValueError,
            "target_scaler: expected None for class labels",
        ),
        (lambda: predict(Noisy(), X, 2).interval(1.0), ValueError, "level: .*below 1, got 1.0"),
        (lambda: predict(Noisy(), X, 2).quantile(0.0), ValueError, "q: .*above 0.*, got 0.0"),
        (
            lambda: predict(Noisy(), X, progress="no"),
            TypeError,
            "progress: expected a bool, got 'n",
        ),
        (
            lambda: predict(Noisy(), X, target_scaler=3),
            TypeError,
            r"target_scaler: expected None or a bslfast.data.Standardizer, got 3 \(int\)",
        ),
        (lambda: predict(Noisy(), X, max_bytes=0), ValueError, "max_bytes: .*at least 1, got 0"),
        (lambda: predict(Noisy(), X, 2).log_prob(X[:, 0]), ValueError, r"y: .*\(2,\)"),
        (
            lambda: predict(nn.Linear(1, 2), X, likelihood=Categorical(2)).cdf(X),
            TypeError,
            "cdf: expected a regression",
        ),
    ],
)
def test_predict_refuses(call: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
