"""Outputs for many draws are those of one pass after another with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
import bslfast.nn as bnn
from bslfast.nn import kl, one_draw, posteriors, priors, sample_outputs, samples
from bslfast.nn.estimators import draw

N = 5


class Residual(nn.Module):
    """Two paths, of which one passes no Bayesian layer, and an input that is an option."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)
        self.last = nn.Linear(6, 1)

    def forward(self, x: Tensor, *, shift: Tensor | float = 0.0) -> Tensor:
        outputs: Tensor = self.last(self.norm(x + self.inner(x).tanh())) + shift
        return outputs


class Sequence(nn.Module):
    """torch's recurrent layers have time in the first dimension, and vmap knows none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.recurrent, self.last = nn.Linear(3, 4), nn.LSTM(4, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.recurrent(self.first(x))[0])
        return outputs


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.attention = nn.Embedding(7, 4), nn.MultiheadAttention(4, 2)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x)
        outputs: Tensor = self.last(self.attention(h, h, h, need_weights=False)[0])
        return outputs


class Deciding(nn.Module):
    """It decides by the value of a tensor, which vmap cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        outputs: Tensor = self.last(h if h.sum() > 0 else -h)
        return outputs


def image() -> Tensor:
    return torch.randn(3, 2, 8, 8, dtype=torch.float64)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 3, 2, stride=2),
        nn.GroupNorm(1, 3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 2),
    )


#: How a plain model is made, an input, and whether its passes run together.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], bool]] = {
    "linear": (lambda: nn.Linear(3, 2, bias=False), lambda: torch.randn(4, 3).double(), True),
    "convolutions": (lambda: convolutions().eval(), image, True),
    "convolutions in training": (convolutions, image, False),
    "residual": (Residual, lambda: torch.randn(2, 4, 6).double(), True),
    "sequence": (Sequence, lambda: torch.randn(6, 2, 3).double(), False),
    "attention": (Attention, lambda: torch.randint(7, (5, 2)), True),
    "deciding": (Deciding, lambda: torch.randn(4, 3).double(), False),
}
of_each_model = pytest.mark.parametrize("name", MODELS)


def made(name: str, **options: Any) -> tuple[nn.Module, nn.Module, Tensor]:
    """(a plain model, its Bayesian twin, an input)."""
    make, x, _ = MODELS[name]
    plain = make().double()
    if isinstance(plain, nn.Linear):
        plain = nn.Sequential(plain)
    if "posterior" not in options:
        options["init_scale"] = 0.2
    return plain, bnn.to_bayesian(plain, **options), x()


def one_after_another(plain: nn.Module, model: nn.Module, x: Tensor, n: int) -> Tensor:
    """Passes of the plain model, with draws that are made as those of all passes at once."""
    layers = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, bnn.BayesianLayer)
    }
    alone = draw(list(layers.values())) if n == 1 else {}
    drawn = {}
    for layer_name, layer in layers.items():
        if n == 1:
            found = tuple([t[None] for t in alone[layer]])
        else:
            found = tuple([w.rsample(sample_shape=(n,)) for w in layer.weights()])
        for name, value in zip(layer._shapes, layer.tensors(found), strict=True):
            drawn[f"{layer_name}.{name.replace('out_proj_', 'out_proj.')}"] = value
    assert drawn.keys() <= dict(plain.named_parameters()).keys()
    passes = [
        torch.func.functional_call(plain, {k: v[i] for k, v in drawn.items()}, (x,))
        for i in range(n)
    ]
    return torch.stack(passes)


@of_each_model
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, about attention
@pytest.mark.parametrize("held", [None, 1])
def test_values_and_gradients(name: str, held: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if held is not None:
        monkeypatch.setattr(samples, "_HELD", held)
    compare(name, N if held is None else 1)


OTHERS: list[dict[str, Any]] = [
    {"posterior": posteriors.FullCovariance(init_scale=0.2)},
    {"posterior": posteriors.LowRank(2, init_scale=0.2), "prior": priors.Laplace()},
    {"posterior": posteriors.MCDropout(0.5)},
    {"prior": priors.LearnedNormal(0.5)},
]


@of_each_model
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, about attention
@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_other_posteriors_and_priors(name: str, options: dict[str, Any]) -> None:
    compare(name, N, **options)


def compare(name: str, n: int, **options: Any) -> None:
    """Values, gradients and statistics with those of one pass after another."""
    torch.manual_seed(0)
    plain, model, x = made(name, **options)
    together = MODELS[name][2]
    layers = [m for m in model.modules() if isinstance(m, bnn.BayesianLayer)]
    leaves = [p for layer in layers for p in layer.parameters(recurse=False)]
    if x.is_floating_point():
        leaves.append(x.requires_grad_())
    calls: list[Any] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(1)
    y = sample_outputs(model, x, n_samples=n)
    assert len(calls) == (1 if together else n)
    torch.manual_seed(1)
    # What keeps statistics has them from one pass after another, draws included.
    parts = [1] * n if name == "convolutions in training" else [n]
    expected = torch.cat([one_after_another(plain, model, x, part) for part in parts])
    torch.testing.assert_close(y, expected)
    distinct = len(y.flatten(1).unique(dim=0))  # few inputs are often dropped alike
    assert 1 < distinct <= n if "MCDropout" in str(options) else distinct == n
    torch.testing.assert_close(
        torch.autograd.grad(y.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves),
    )
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)
    assert all(m.drawn is None for m in model.modules() if isinstance(m, bnn.BayesianModule))


def test_many_passes_are_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has as many passes as may be held. Its draws are those of so many at once."""
    plain, model, x = made("residual")
    monkeypatch.setattr(samples, "_together", lambda *_: 2)
    torch.manual_seed(1)
    y = sample_outputs(model, x, n_samples=N)
    torch.manual_seed(1)
    parts = [one_after_another(plain, model, x, n) for n in (2, 2, 1)]
    torch.testing.assert_close(y, torch.cat(parts))


@pytest.mark.parametrize("held", [1, 4])
def test_the_divergence_counts_once(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = nn.Sequential(bnn.BayesLinear(3, 4)), torch.ones(2, 3)
    monkeypatch.setattr(samples, "_together", lambda *_: held)
    leaves = list(model.parameters())
    y = sample_outputs(model, x, n_samples=4).square().sum()
    separate = [a + b for a, b in zip(
        torch.autograd.grad(y, leaves, retain_graph=True),
        torch.autograd.grad(model[0].compute_kl(), leaves), strict=True,
    )]  # fmt: skip
    y = y + kl(model)
    torch.testing.assert_close(torch.autograd.grad(y, leaves), tuple(separate))


def test_options_are_the_models() -> None:
    _, model, x = made("residual")
    torch.manual_seed(1)
    y = sample_outputs(model, x, n_samples=2)
    torch.manual_seed(1)
    shifted = sample_outputs(model, x, n_samples=2, shift=torch.tensor(3.0))
    torch.testing.assert_close(shifted, y + 3.0)


def test_a_method_of_the_model_is_used() -> None:
    model, x = bslfast.bnn.BayesianMLP(3, (4,), 1), torch.randn(6, 3)
    torch.manual_seed(1)
    y = sample_outputs(model, x, n_samples=4)
    torch.manual_seed(1)
    assert torch.equal(y, model.sample_outputs(x, 4))


class Noisy(bnn.BayesianModule):
    """A layer that does not name its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(()) + bslfast.functional.standard_normal(())


def test_what_draws_by_itself_draws_for_each_pass() -> None:
    x = torch.ones(3, 4)
    for model in (
        Noisy(),
        nn.Sequential(nn.Dropout(0.5), bnn.BayesLinear(4, 4, estimator="flipout"), Noisy()),
    ):
        y = sample_outputs(model, x, n_samples=N)
        assert y.shape == (N, 3, 4)
        assert len(y.flatten(1).unique(dim=0)) == N


@pytest.mark.parametrize("estimator", ["local_reparametrization", "flipout"])
def test_one_draw_serves_the_whole_batch(estimator: str) -> None:
    model = nn.Sequential(bnn.BayesLinear(3, 4, estimator=estimator), nn.ReLU())
    y = sample_outputs(model, torch.ones(6, 3), n_samples=N)
    assert torch.equal(y, y[:, :1].expand_as(y))


def test_a_draw_that_there_is_stays() -> None:
    model = nn.Sequential(bnn.BayesLinear(3, 4), bnn.BayesLinear(4, 2))
    x = torch.ones(6, 3)
    with one_draw(model):
        y = model(x)
        found = sample_outputs(model, x, n_samples=N)
        torch.testing.assert_close(found, y.expand(N, 6, 2))
        assert torch.equal(model(x), y)
    with one_draw(model[0]):
        assert len(sample_outputs(model, x, n_samples=N).flatten(1).unique(dim=0)) == N
        with pytest.raises(ValueError, match="x: expected shape"):
            sample_outputs(model, torch.ones(6, 2), n_samples=N)
        assert model[0].drawn is not None
        assert model[1].drawn is None
    assert not torch.equal(model(x), y)


def test_several_threads() -> None:
    model, x = nn.Sequential(bnn.BayesLinear(3, 4, init_scale=0.5)), torch.ones(2, 3)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sample_outputs(model, x, n_samples=N), range(40)))
    assert len(torch.cat(found).flatten(1).unique(dim=0)) == 40 * N


@pytest.mark.parametrize("whole", [True, False])
def test_of_and_inside_what_is_compiled(whole: bool) -> None:
    torch._dynamo.reset()
    model, x = nn.Sequential(bnn.BayesLinear(3, 4), nn.ReLU()), torch.ones(2, 3)
    torch.manual_seed(1)
    expected = sample_outputs(model, x, n_samples=N)

    def outputs(model: nn.Module) -> Tensor:
        torch.manual_seed(1)
        return sample_outputs(model, x, n_samples=N)

    if whole:
        found = torch.compile(outputs, backend="eager")(model)
    else:
        found = outputs(torch.compile(model, backend="aot_eager"))  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_predictions_are_one_pass() -> None:
    model = bnn.to_bayesian(convolutions(), init_scale=0.3).double()
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    x, likelihood = image(), bslfast.likelihoods.Normal(2)
    prediction = bslfast.predict(model, x, 10, likelihood=likelihood, seed=0)
    assert len(calls) == 1
    assert prediction.samples.shape == (10, 3, 2)
    assert (prediction.epistemic > 0).all()
    again = bslfast.predict(model, x, 10, likelihood=likelihood, seed=0)
    assert torch.equal(again.samples, prediction.samples)
    assert model.training
    # Copies and compiled code have no attributes to put draws into.
    calls.clear()
    bslfast.predict(nn.DataParallel(model), x, 4, likelihood=likelihood)
    assert len(calls) == 4


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = bnn.BayesLinear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.layer(x)


X, PAIR = torch.ones(2, 3), Pair()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sample_outputs(Pair(), X, n_samples=2),
            TypeError,
            "model: expected a module that",
        ),
        (
            lambda: sample_outputs(nn.Linear(3, 2), X, n_samples=2),
            ValueError,
            "model: expected a m",
        ),
        (lambda: sample_outputs(3, X, n_samples=2), TypeError, "model: expected a torch.nn.Module"),  # type: ignore[arg-type]
        (
            lambda: sample_outputs(nn.Sequential(bnn.BayesLinear(3, 2)), X, n_samples=0),
            ValueError,
            "n_samples: expected an integer of at least 1, got 0",
        ),
        (
            lambda: sample_outputs(nn.Sequential(bnn.BayesConv1d(3, 2, 1)), X, n_samples=2),
            ValueError,
            r"x: expected shape \[batch, 3, length\] or \[3, length\], got \[2, 3\]",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


ESTIMATED: dict[str, tuple[posteriors.Posterior, priors.Prior]] = {
    "scale mixture": (posteriors.Normal(init_scale=0.3), priors.ScaleMixture()),
    "student t": (posteriors.Normal("log_scale", 0.3), priors.StudentT(3.0, 0.5)),
    "joint": (posteriors.FullCovariance(init_scale=0.3), priors.StudentT(3.0)),
    "low rank": (posteriors.LowRank(2, init_scale=0.3), priors.ScaleMixture()),
}


def estimate(weight: bnn.Weight, samples: Tensor) -> Tensor:
    """The mean over samples of log q(w) - log p(w); of joint posteriors E log q(w) is known."""
    posterior: Any = weight.posterior
    if isinstance(posterior, posteriors.Joint):
        log_q = -posterior.entropy(weight.parameters)
    else:
        law = torch.distributions.Normal(weight.loc, weight.stddev())
        log_q = law.log_prob(samples).sum() / len(samples)
    log_p = torch.stack([weight.prior.log_prob(sample) for sample in samples]).mean()
    return log_q - log_p


@pytest.mark.parametrize("kind", ESTIMATED)
@pytest.mark.parametrize("held", [1, 2, 5])
@pytest.mark.parametrize("made_by_us", [False, True])
def test_estimated_divergences_are_those_of_the_draws(
    kind: str, held: int, made_by_us: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, too, whose means count as often as they have draws."""
    posterior, prior = ESTIMATED[kind]
    torch.manual_seed(0)
    options: Any = {"posterior": posterior, "prior": prior}
    if made_by_us:
        model: Any = bslfast.bnn.BayesianMLP(3, (4,), 2, **options).double()
        layers = list(model.layers)
        monkeypatch.setattr("bslfast.bnn._HELD_WEIGHTS", held * layers[0].weight_loc.numel())
    else:
        model = bnn.Sequential(
            bnn.BayesLinear(3, 4, **options), nn.Tanh(), bnn.BayesLinear(4, 2, prior_scale=0.5)
        ).double()
        layers = [model[0], model[2]]
        monkeypatch.setattr(samples, "_together", lambda *_: held)
    leaves = [p for layer in layers for p in layer.parameters()]
    x = torch.randn(4, 3, dtype=torch.float64)
    torch.manual_seed(1)
    y = sample_outputs(model, x, n_samples=N)
    found = kl(model)
    assert kl(model) != found  # which is that of the draws once, as it is of a pass
    torch.manual_seed(1)
    drawn: dict[int, list[Tensor]] = {}
    weights = [weight for layer in layers for weight in layer.weights()]
    for start in range(0, N, held):
        for i, weight in enumerate(weights):
            n = min(held, N - start)
            drawn.setdefault(i, []).append(weight.rsample(sample_shape=(n,)))
    expected = torch.zeros((), dtype=torch.float64)
    for i, weight in enumerate(weights):
        closed = isinstance(weight.prior, priors.Normal)
        expected = expected + (weight.kl() if closed else estimate(weight, torch.cat(drawn[i])))
    torch.testing.assert_close(found, expected)
    total = torch.autograd.grad(found + 0 * y.sum(), leaves)
    torch.testing.assert_close(total, torch.autograd.grad(expected, leaves))


@pytest.mark.parametrize("kind", ESTIMATED)
@pytest.mark.parametrize("n_samples", [None, 1, 3])
def test_an_estimate_after_backward_has_a_sample_of_its_own(
    kind: str, n_samples: int | None
) -> None:
    posterior, prior = ESTIMATED[kind]
    model = nn.Sequential(bnn.BayesLinear(3, 2, posterior=posterior, prior=prior))
    x = torch.ones(1, 3)
    y = model(x) if n_samples is None else sample_outputs(model, x, n_samples=n_samples)
    y.sum().backward()
    kl(model).backward()


def test_estimates_follow_the_parameters() -> None:
    """They are those of the parameters as they are, at the same noise."""
    model: Any = nn.Sequential(bnn.BayesLinear(3, 2, prior=priors.StudentT(3.0)))
    x = torch.ones(1, 3)
    torch.manual_seed(1)
    sample_outputs(model, x, n_samples=N)
    with torch.no_grad():
        model[0].weight_loc.data.add_(1.0)
    found = kl(model)
    torch.manual_seed(1)
    weights = model[0].weights()
    expected = sum(estimate(w, w.rsample(sample_shape=(N,))) for w in weights)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    sample_outputs(model, x, n_samples=N)
    with torch.no_grad():
        assert torch.isfinite(kl(model))


def test_a_shared_weight_is_drawn_once_for_outputs_and_estimate() -> None:
    torch.manual_seed(0)
    model: Any = bslfast.bnn.BayesianMLP(2, (2,), 2, prior=priors.StudentT(3.0), init_scale=0.3)
    model.double().layers[0].share("weight", model.layers[1], "weight")
    x = torch.randn(3, 2, dtype=torch.float64)
    torch.manual_seed(1)
    model.sample_outputs(x, 3)
    found = kl(model)
    torch.manual_seed(1)
    every = {w.identity: w for layer in model.layers for w in layer.weights()}
    drawn: Any = {key: [] for key in every}
    for _ in range(3):
        for key, weight in every.items():
            drawn[key].append(weight.rsample(sample_shape=(1,)))
    expected = sum(estimate(w, torch.cat(drawn[key])) for key, w in every.items())
    torch.testing.assert_close(found, expected)
