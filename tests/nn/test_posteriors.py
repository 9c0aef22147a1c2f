"""Posteriors of all weights of a layer jointly, and MC dropout."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.distributions as td
from ops.record import threads
from torch import Tensor, nn

import bslfast
import bslfast.nn as bnn
from bslfast.nn import kl, one_draw, posteriors, priors

F64 = torch.float64
JOINT = [posteriors.FullCovariance(init_scale=0.3), posteriors.LowRank(2, init_scale=0.3)]
LAYERS: list[tuple[Any, dict[str, Any], Callable[[], Tensor]]] = [
    (bnn.BayesLinear, {"in_features": 3, "out_features": 2}, lambda: torch.randn(5, 3, dtype=F64)),
    (
        bnn.BayesConv2d,
        {"in_channels": 2, "out_channels": 2, "kernel_size": 2, "groups": 2},
        lambda: torch.randn(3, 2, 4, 4, dtype=F64),
    ),
    (
        bnn.BayesConvTranspose1d,
        {"in_channels": 2, "out_channels": 3, "kernel_size": 2, "bias": False},
        lambda: torch.randn(3, 2, 4, dtype=F64),
    ),
]
joint = pytest.mark.parametrize("posterior", JOINT, ids=lambda p: type(p).__name__)
of_layers = pytest.mark.parametrize("made", LAYERS, ids=lambda m: m[0].__name__)


def layer_of(made: Any, posterior: posteriors.Posterior, **options: Any) -> Any:
    """A layer whose weights are correlated."""
    torch.manual_seed(0)
    layer = made[0](**made[1], posterior=posterior, dtype=F64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def distribution(layer: Any) -> td.MultivariateNormal:
    """That of the flat vector of weights, by the parameters' meaning, with torch."""
    names = [name for name in ("weight", "bias") if getattr(layer, f"{name}_loc", None) is not None]
    loc = torch.cat([getattr(layer, f"{name}_loc").flatten() for name in names])
    scale = nn.functional.softplus(layer.raw_scale)
    if hasattr(layer, "lower"):
        below = torch.ones_like(layer.lower).tril(-1)
        return td.MultivariateNormal(loc, scale_tril=layer.lower * below + torch.diag(scale))
    covariance = torch.diag(scale.square()) + layer.factor @ layer.factor.T
    return td.MultivariateNormal(loc, covariance)


def split(layer: Any, flat: Tensor) -> list[Tensor]:
    weight = layer.weight_loc
    parts = [flat[: weight.numel()].view(weight.shape)]
    return parts if len(flat) == weight.numel() else [*parts, flat[weight.numel() :]]


@joint
@of_layers
def test_a_pass_is_torchs_with_the_drawn_weights(made: Any, posterior: Any) -> None:
    """The divergence is that of multivariate normals, with its gradients."""
    layer, x = layer_of(made, posterior, prior_loc=0.1, prior_scale=0.7), made[2]()
    assert len(layer.weights()) == 1
    parameters = list(layer.parameters())
    loss = layer(x, seed=3).square().sum() + kl(layer)
    found = torch.autograd.grad(loss, parameters)
    density = distribution(layer)
    flat = layer.weights()[0].rsample(seed=3)
    n = len(flat)
    prior = td.MultivariateNormal(torch.full((n,), 0.1, dtype=F64), 0.49 * torch.eye(n, dtype=F64))
    plain = made[0].__mro__[[c.__module__.startswith("torch") for c in made[0].__mro__].index(True)]
    tensors = dict(zip(("weight", "bias"), split(layer, flat), strict=False))
    y = torch.func.functional_call(plain(**made[1], dtype=F64), tensors, (x,))
    expected = y.square().sum() + td.kl_divergence(density, prior)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, parameters))
    with one_draw(layer, seed=3):
        torch.testing.assert_close(layer(x), y)
        torch.testing.assert_close(kl(layer), td.kl_divergence(density, prior))
    assert not torch.equal(layer(x), layer(x))
    outputs = layer.sample_outputs(x, 4)
    assert outputs.shape == (4, *y.shape)
    assert len(outputs.flatten(1).unique(dim=0)) == 4


@joint
def test_samples_have_the_covariance(posterior: Any) -> None:
    layer = layer_of(LAYERS[0], posterior)
    (weight,) = layer.weights()
    density, n = distribution(layer), 40_000
    covariance = density.covariance_matrix.detach()
    torch.testing.assert_close(posterior.covariance(weight.parameters), covariance)
    torch.testing.assert_close(weight.stddev(), covariance.diagonal().sqrt())
    torch.testing.assert_close(posterior.entropy(weight.parameters), density.entropy())
    samples = weight.rsample(sample_shape=(n // 4, 4), seed=1).detach().flatten(0, 1)
    variances = covariance.diagonal()
    # 8 means and 36 covariances at 5 sigma.
    assert ((samples.mean(0) - weight.loc) / (variances / n).sqrt()).abs().max() < 5
    error = (variances.outer(variances) + covariance.square()) / n
    assert ((samples.T.cov() - covariance) / error.sqrt()).abs().max() < 5
    outputs = layer.sample_outputs(torch.ones(1, 3, dtype=F64), n).detach()[:, 0]
    sums = torch.zeros(2, 8, dtype=F64)
    sums[0, [0, 1, 2, 6]] = sums[1, [3, 4, 5, 7]] = 1
    expected = sums @ covariance @ sums.T
    error = (expected.diagonal().outer(expected.diagonal()) + expected.square()) / n
    assert ((outputs.T.cov() - expected) / error.sqrt()).abs().max() < 5


@joint
def test_gradients(posterior: Any) -> None:
    layer = layer_of(LAYERS[0], posterior)
    prior = priors.LearnedNormal(0.7, loc=0.1).double()

    def of(log_scale: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight = bnn.Weight(posterior, prior, parameters)
        value = torch.func.functional_call(_Divergence(prior), {"prior.log_scale": log_scale},
                                           (weight,))  # fmt: skip
        return weight.rsample(seed=2), value, weight.stddev()

    inputs = [prior.log_scale, *layer.weights()[0].parameters]
    inputs = [p.detach().requires_grad_() for p in inputs]
    assert torch.autograd.gradcheck(of, inputs)
    assert torch.autograd.gradgradcheck(of, inputs)


class _Divergence(nn.Module):
    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, weight: bnn.Weight) -> Tensor:
        return weight.kl()


WITHOUT_BIAS: Any = (
    bnn.BayesLinear,
    {"in_features": 3, "out_features": 2, "bias": False},
    lambda: torch.randn(5, 2, 3, dtype=F64),
)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("made", "parametrization"),
    [*((m, "softplus") for m in (*LAYERS, WITHOUT_BIAS)), (LAYERS[0], "log_var")],
)
def test_a_full_covariance_is_one_node(made: Any, parametrization: str, dtype: torch.dtype) -> None:
    """Outputs, the divergence and all gradients are those of separate ops, also second ones."""
    posterior = posteriors.FullCovariance(parametrization, init_scale=0.3)
    layer, x = layer_of(made, posterior, prior_loc=0.1, prior_scale=0.7).to(dtype), made[2]()
    x = x.to(dtype).requires_grad_()
    inputs, tolerance = [x, *layer.parameters()], {torch.float32: 1e-5, F64: 1e-12}[dtype]
    with torch.no_grad():
        layer.lower[0, 1] = math.nan  # which does not count

    def found(**options: Any) -> list[Tensor]:
        """By the draw of a pass, which is one node with a linear map, and by that of all layers."""
        total = layer(x, seed=3).square().sum() + 0.3 * kl(layer)
        with one_draw(layer, seed=3):
            total = total + layer(x).square().sum() + 0.2 * kl(layer)
        alone = layer.compute_kl()
        first = torch.autograd.grad(total, inputs, **options)
        second: Any = ()
        if options:
            second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [total, alone, *first, *second, *torch.autograd.grad(alone, inputs[1:])]

    with one_draw(layer):
        (sample,) = layer.drawn
        assert sample.grad_fn is kl(layer).grad_fn
    if type(layer) is bnn.BayesLinear:
        assert layer(x).grad_fn is kl(layer).grad_fn
    many: dict[str, Any] = {"sample_shape": (2, 3), "seed": 4}
    # Second ones of float32 have few digits left.
    for options in ({}, {"create_graph": True})[: 2 if dtype == F64 else 1]:
        with bslfast.functional.use_reference():
            by_ops = found(**options)
        torch.testing.assert_close(found(**options), by_ops, rtol=tolerance, atol=tolerance)
    results = []
    for context in (contextlib.nullcontext(), bslfast.functional.use_reference()):
        with context:
            samples = layer.weights()[0].rsample(**many)
        grads = torch.autograd.grad(samples.square().sum(), inputs[1:])
        results.append([samples, *grads])
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


def test_a_full_covariance_with_several_threads() -> None:
    """The same bits, for a draw that is cut into several chunks."""
    layer, x = bnn.BayesLinear(40, 15, posterior=JOINT[0]), torch.randn(5, 40)
    with torch.no_grad():
        layer.lower.normal_(std=0.1)
    results = []
    for n in (1, 2, 3):
        with threads(n), one_draw(layer, seed=2):
            loss = layer(x).square().sum() + kl(layer)
            results.append([loss, *torch.autograd.grad(loss, list(layer.parameters()))])
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_the_divergence_of_a_full_covariance_is_that_of_now() -> None:
    """Whatever has changed the parameters since the draw."""
    layer = bnn.BayesLinear(3, 2, posterior=JOINT[0])
    layer(torch.ones(1, 3))
    layer.lower.data.fill_(0.5)
    expected = kl(copy.deepcopy(layer))
    torch.testing.assert_close(kl(layer), expected)
    layer(torch.ones(1, 3))
    layer.raw_scale.data.add_(0.5)
    found = kl(layer)
    assert found.item() != pytest.approx(expected.item())
    torch.testing.assert_close(found, kl(copy.deepcopy(layer)))


def test_a_full_covariance_of_wrong_shapes() -> None:
    """No kernel reads past the end of a tensor."""
    loc, raw_scale, lower = torch.zeros(4), torch.zeros(4), torch.zeros(4, 4)
    for wrong in ((loc, raw_scale, lower[:3]), (loc, raw_scale[:3], lower)):
        with pytest.raises((RuntimeError, ValueError)):
            bnn.Weight(JOINT[0], priors.Normal(), wrong).rsample()
    scales = posteriors.FullCovariance("scale")
    negative = bnn.Weight(scales, priors.Normal(), (loc, raw_scale - 1, lower))
    with pytest.raises(ValueError, match="raw_scale: expected scales >= 0, got -1"):
        negative.rsample()


@joint
def test_other_priors_are_estimated_at_the_same_sample(posterior: Any) -> None:
    layer, x = layer_of(LAYERS[0], posterior, prior=priors.StudentT(4.0, 0.5)), LAYERS[0][2]()
    density, (weight,) = distribution(layer), layer.weights()
    four, zero = torch.tensor(4.0, dtype=F64), torch.zeros((), dtype=F64)

    def at(sample: Tensor) -> Tensor:
        return -density.entropy() - td.StudentT(four, zero, 0.5).log_prob(sample).sum()

    parameters = list(layer.parameters())
    y = layer(x, seed=5)
    total = y.sum() + kl(layer)
    expected = at(weight.rsample(seed=5))
    torch.testing.assert_close(total - y.sum(), expected)
    again = nn.functional.linear(x, *split(layer, weight.rsample(seed=5))).sum() + expected
    torch.testing.assert_close(
        torch.autograd.grad(total, parameters), torch.autograd.grad(again, parameters)
    )
    layer(x, seed=5)
    layer.raw_scale.data.add_(0.5)
    stale, density = expected, distribution(layer)
    found = kl(layer)
    assert found.item() != stale.item()
    torch.testing.assert_close(found, at(weight.rsample(seed=5)))
    # On average: a quadrature of each weight by itself.
    loc, scale = weight.loc.detach(), weight.stddev().detach()
    z = torch.linspace(-12, 12, 4801, dtype=F64).unsqueeze(1)
    density_at = td.StudentT(four, zero, 0.5).log_prob(loc + scale * z)
    log_prior = (td.Normal(zero, 1.0).log_prob(z).exp() * density_at).sum() * 0.005
    exact = -density.entropy() - log_prior
    estimates = torch.stack([weight.kl().detach() for _ in range(500)])
    assert (estimates.mean() - exact).abs() < 5 * estimates.std() / math.sqrt(500)


@joint
@of_layers
def test_a_laplace_prior_has_a_closed_form(made: Any, posterior: Any) -> None:
    """The entropy of all weights together, and E |w| of each by itself."""
    layer = layer_of(made, posterior, prior=priors.Laplace(0.5))
    density, (weight,) = distribution(layer), layer.weights()
    loc, scale = density.mean, density.covariance_matrix.diagonal().sqrt()
    normal = td.Normal(torch.zeros((), dtype=F64), 1.0)
    ratio = loc / scale
    size = 2 * scale * normal.log_prob(ratio).exp() + loc * (1 - 2 * normal.cdf(-ratio))
    exact = -density.entropy() + (size / 0.5 + math.log(2 * 0.5)).sum()
    torch.testing.assert_close(kl(layer), exact)
    parameters = list(layer.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(kl(layer), parameters), torch.autograd.grad(exact, parameters)
    )
    layer(made[2](), seed=5)
    assert torch.equal(kl(layer), weight.kl())
    draws = weight.rsample(sample_shape=(100_000,), seed=1).detach()
    sampled = density.log_prob(draws) - td.Laplace(loc.new_zeros(()), 0.5).log_prob(draws).sum(1)
    assert (sampled.mean() - exact).abs() < 5 * sampled.std() / math.sqrt(100_000)


@joint
def test_a_laplace_prior_of_tiny_and_large_scales(posterior: Any) -> None:
    """Squares and scales that underflow leave value and gradients finite."""
    # LowRank divides by its scales, which must not be 0.
    lowest = -60.0 if isinstance(posterior, posteriors.LowRank) else -150.0
    for log_scale in (lowest, -50.0, 0.0, 30.0):
        q = type(posterior)(parametrization="log_scale")
        loc = torch.tensor([0.0, 1e-30, 0.5])
        made = (loc, torch.full((3,), log_scale), torch.zeros_like(q.allocate(loc)[-1]))
        made = tuple(t.requires_grad_() for t in made)
        found = bnn.Weight(q, priors.Laplace(0.5), made).kl()
        independent = bnn.Weight(posteriors.Normal("log_scale"), priors.Laplace(0.5), made[:2]).kl()
        torch.testing.assert_close(found, independent)
        torch.testing.assert_close(
            torch.autograd.grad(found, made[:2], retain_graph=True),
            torch.autograd.grad(independent, made[:2]),
        )
        assert torch.autograd.grad(found, made[2])[0].isfinite().all()


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_with_factors_far_larger_than_scales(rank: int) -> None:
    layer = bnn.BayesLinear(40, 10, posterior=posteriors.LowRank(rank, init_scale=1e-3))
    with torch.no_grad():
        layer.factor.fill_(1.0).add_(1e-3 * torch.randn_like(layer.factor))
    exact = copy.deepcopy(layer).double()
    density = distribution(exact)
    n = len(exact.raw_scale)
    prior = td.MultivariateNormal(torch.zeros(n, dtype=F64), torch.eye(n, dtype=F64))
    assert kl(layer).item() == pytest.approx(td.kl_divergence(density, prior).item(), rel=1e-4)


@joint
@pytest.mark.parametrize("prior", [None, priors.LearnedNormal(0.5), priors.ScaleMixture()])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(posterior: Any, prior: Any, dtype: torch.dtype) -> None:
    """The divergence is a float32 sum of the rounded parameters."""
    layer = bnn.BayesLinear(30, 20, posterior=posterior, prior=prior, dtype=dtype)
    wide = copy.deepcopy(layer).float()
    y = layer(torch.ones(4, 30, dtype=dtype), seed=1)
    assert y.dtype == dtype
    error = (y - wide(torch.ones(4, 30), seed=1)).abs().max()
    assert error < 64 * torch.finfo(dtype).eps  # 31 terms of about 0.3, rounded three times
    torch.manual_seed(0)
    found = layer.compute_kl()
    torch.manual_seed(0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wide.compute_kl().item(), rel=3e-3)


EVERY: list[dict[str, Any]] = [
    {"posterior": JOINT[0]},
    {"posterior": JOINT[1], "prior": priors.ScaleMixture()},
    {"posterior": JOINT[0], "prior": priors.LearnedNormal(0.5)},
    {"posterior": posteriors.MCDropout(0.2)},
    {"posterior": posteriors.MCDropout(0.2), "prior": priors.LearnedNormal(shared=True)},
    {"prior": priors.LearnedNormal(0.5)},
    {"prior": priors.LearnedNormal(shared=True)},
]


def described(options: dict[str, Any]) -> str:
    return "-".join(type(value).__name__ for value in options.values())


@pytest.mark.parametrize("options", EVERY, ids=described)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_networks(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Training, prediction, copies and files, of a network in either precision."""
    torch.manual_seed(0)
    model = bslfast.bnn.BayesianMLP(3, (8,), 1, dtype=dtype, **options)
    x = torch.randn(64, 3, dtype=dtype)
    y = x[:, :1] - 2 * x[:, 1:2]
    bslfast.training.fit(model, (x, y), epochs=2, lr=0.01, progress=False)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        log_prob = model.likelihood.log_prob(model(x), y)
        loss = bslfast.negative_elbo(log_prob, kl(model), dataset_size=64)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert model.sample_outputs(x, 5).shape == (5, 64, 1)
    with one_draw(model, seed=1):
        expected, value = model(x), kl(model).item()
        assert torch.equal(model(x), expected)
    fresh = bslfast.bnn.BayesianMLP(3, (8,), 1, dtype=dtype, **options)
    fresh.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh):
        assert len(list(other.parameters())) == len(list(model.parameters()))
        with one_draw(other, seed=1):
            assert torch.equal(other(x), expected)
            if not isinstance(options.get("prior"), priors.ScaleMixture):
                assert kl(other).item() == pytest.approx(value, rel=1e-6)
    prediction = bslfast.predict(model, x, 20)
    assert (prediction.epistemic > 0).all()
    twin = model.deterministic_twin()
    means = [p for name, p in model.named_parameters() if name.endswith("_loc")]
    assert [p.shape for p in twin.layers.parameters()] == [p.shape for p in means]
    assert all(torch.equal(a, b) for a, b in zip(twin.layers.parameters(), means, strict=True))


@joint
def test_it_starts_independent(posterior: Any) -> None:
    options: dict[str, Any] = {"in_features": 4, "out_features": 3, "posterior": posterior}
    torch.manual_seed(0)
    plain = nn.Linear(4, 3)
    torch.manual_seed(0)
    layer = bnn.BayesLinear(**options)
    torch.manual_seed(0)
    again = bnn.BayesLinear(**options, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.fill_(torch.nan)
    again.reset_parameters()
    for made in (layer, again):
        assert torch.equal(made.weight_loc, plain.weight)
        assert torch.equal(made.bias_loc, plain.bias)
        torch.testing.assert_close(
            made.weights()[0].stddev(), torch.full((15,), 0.3), rtol=0.1, atol=0.0
        )
        correlation = posterior.covariance(made.weights()[0].parameters) / 0.09
        assert (correlation - torch.eye(15)).abs().max() < 0.15
    assert list(layer.state_dict()) == [
        "weight_loc",
        "bias_loc",
        *("raw_scale", posterior.names[2]),
    ]
    without = bnn.BayesLinear(4, 3, bias=False, posterior=posterior)
    assert list(without.state_dict()) == ["weight_loc", "raw_scale", posterior.names[2]]
    assert without.bias_loc is None
    assert without(torch.ones(2, 4)).shape == (2, 3)
    assert without.deterministic_twin().bias is None
    converted = bnn.to_bayesian(nn.Sequential(plain, nn.Tanh()), posterior=posterior)
    assert torch.equal(converted[0].weight_loc, plain.weight)
    assert repr(layer).startswith(f"Bayes{repr(plain)[:-1]}, posterior={posterior}, prior=Normal(")


def test_compiled_in_one_graph() -> None:
    torch._dynamo.reset()
    for options in EVERY[2:4]:
        model, x = bnn.BayesLinear(3, 1, **options), torch.ones(2, 3)
        compiled = torch.compile(
            lambda m, x: m(x).sum() + kl(m), fullgraph=True, backend="aot_eager"
        )
        value = compiled(model, x)
        assert value.isfinite()
        value.backward()


N = 20_000


@pytest.mark.parametrize(
    ("layer", "dim"),
    [
        (bnn.BayesLinear(3, 2, posterior=posteriors.MCDropout(0.3)), 1),
        (bnn.BayesConv1d(4, 2, 2, groups=2, posterior=posteriors.MCDropout(0.3, groups=1)), 1),
        (bnn.BayesConv2d(3, 2, 2, posterior=posteriors.MCDropout(0.3, dim=0)), 0),
        (bnn.BayesConvTranspose1d(3, 2, 2, posterior=posteriors.MCDropout(0.3)), 0),
        (bnn.BayesConvTranspose2d(4, 4, 2, groups=2, posterior=posteriors.MCDropout(0.3)), 0),
        (bnn.to_bayesian(nn.Embedding(5, 3), posterior=posteriors.MCDropout(0.3)), 0),
        (bnn.BayesGRU(3, 2, posterior=posteriors.MCDropout(0.3)), 1),
        (bnn.BayesMultiheadAttention(4, 2, posterior=posteriors.MCDropout(0.3)), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_dropout_drops_inputs(layer: Any, dim: int) -> None:
    weight = layer.weights()[0]
    samples = weight.rsample(sample_shape=(N,), seed=3).detach()
    kept = (samples != 0).movedim(dim + 1, 1).flatten(2)
    assert torch.equal(kept.all(2), kept.any(2))  # all weights of an input or none
    torch.testing.assert_close(samples, torch.where(samples == 0, 0, (weight.loc / 0.7).detach()))
    share = kept.all(2).float().mean(0)
    assert (share - 0.7).abs().max() < 5 * math.sqrt(0.3 * 0.7 / N)
    together = kept.all(2).float().T.cov()[0, 1]
    assert together.abs() < 5 * 0.3 * 0.7 / math.sqrt(N)  # inputs are independent
    error = 5 * weight.stddev() / math.sqrt(N)
    assert ((samples.mean(0) - weight.loc).abs() <= error + 1e-6).all()
    torch.testing.assert_close(samples.std(0), weight.stddev(), rtol=0.03, atol=1e-6)
    assert torch.equal(weight.rsample(seed=3), weight.rsample(seed=3))
    for other in (w for w in layer.weights() if w.loc.dim() == 1):
        assert torch.equal(other.rsample(), other.loc)
        assert not other.stddev().any()


def test_dropout_drops_inputs_of_each_group() -> None:
    """An input of a grouped convolution reaches the outputs of its own group alone."""
    layer = bnn.BayesConv1d(4, 6, 3, groups=2, posterior=posteriors.MCDropout(0.3), bias=False)
    assert layer.posteriors["weight"] == posteriors.MCDropout(0.3, dim=1, groups=2)
    (weight,) = layer.weights()
    samples = weight.rsample(sample_shape=(N,), seed=3).detach()
    kept = (samples != 0).view(N, 2, 3, 2, 3).transpose(2, 3).flatten(3)  # [N, groups, inputs, ...]
    assert torch.equal(kept.all(3), kept.any(3))
    each = kept.all(3).flatten(1).float()
    assert (each.mean(0) - 0.7).abs().max() < 5 * math.sqrt(0.3 * 0.7 / N)
    covariance = each.T.cov() - 0.21 * torch.eye(4)
    assert covariance.abs().max() < 5 * 0.3 * 0.7 / math.sqrt(N)
    # What is dropped is what a pass without those inputs has.
    x, some = torch.randn(2, 4, 5), ~kept.any(3).flatten(1)
    sample, drop = next((t, d) for t, d in zip(samples, some, strict=True) if 0 < d.sum() < 4)
    expected = nn.functional.conv1d(torch.where(drop[:, None], 0.0, x), weight.loc / 0.7, groups=2)
    torch.testing.assert_close(layer(x, drawn=(sample,)), expected)


def test_dropout_of_a_transposed_convolution_drops_inputs_of_its_outputs() -> None:
    layer = bnn.BayesConvTranspose1d(3, 2, 2, posterior=posteriors.MCDropout(0.5), bias=False)
    (weight,) = layer.weights()
    samples, x = weight.rsample(sample_shape=(20,), seed=1).detach(), torch.randn(2, 3, 5)
    some = (samples == 0).flatten(2).all(2)
    sample, drop = next((t, d) for t, d in zip(samples, some, strict=True) if 0 < d.sum() < 3)
    expected = nn.functional.conv_transpose1d(torch.where(drop[:, None], 0.0, x), weight.loc / 0.5)
    torch.testing.assert_close(layer(x, drawn=(sample,)), expected)


def test_the_dimension_of_dropout_is_the_layers_wherever_it_comes_from() -> None:
    layer = bnn.BayesConvTranspose1d(3, 2, 2, posterior=posteriors.MCDropout(0.3))
    expected = posteriors.MCDropout(0.3, dim=0, groups=1)
    assert layer.posteriors == {"weight": expected, "bias": expected}
    layer.posteriors["weight"] = posteriors.MCDropout(0.5)
    assert layer.posteriors["weight"] == posteriors.MCDropout(0.5, dim=0, groups=1)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert again.posteriors == layer.posteriors
        again.posteriors["bias"] = posteriors.MCDropout(0.1)
        assert again.posteriors["bias"].dim == 0
    plain = nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Conv2d(2, 4, 2, groups=2))
    made = bnn.to_bayesian(plain, posterior=posteriors.MCDropout(0.3))
    found = [made[i].posteriors["weight"] for i in (0, 1)]
    assert [(p.dim, p.groups) for p in found] == [(0, 1), (1, 2)]


def test_the_penalty_of_dropout_is_that_of_the_paper() -> None:
    """(1 - rate) / 2 |M|^2 + |b|^2 / 2 with M = loc / (1 - rate), the weights that are kept."""
    layer = bnn.BayesLinear(3, 2, posterior=posteriors.MCDropout(0.3), prior_scale=0.5, dtype=F64)
    weight, bias = layer.weight_loc, layer.bias_loc
    found = kl(layer)
    expected = (0.7 * (weight / 0.7).square().sum() + bias.square().sum()) / (2 * 0.25)
    constant = 8 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    torch.testing.assert_close(found, expected + constant)
    torch.testing.assert_close(
        torch.autograd.grad(found, [weight, bias]), torch.autograd.grad(expected, [weight, bias])
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: bnn.BayesLinear(200, 50, posterior=posteriors.FullCovariance()),
            ValueError,
            "posterior: expected at most 10000 weights in a layer with a full .* number, got 10050",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, posterior={"weight": JOINT[0]}),
            ValueError,
            "posterior: expected one for all weights, as the posterior is joint, got {'weight': Fu",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, posterior=JOINT[1], prior={"bias": priors.Laplace()}),
            ValueError,
            "prior: expected one for all weights, as the posterior is joint, got {'weight': Norm",
        ),
        (lambda: posteriors.LowRank(0), ValueError, "rank: expected an integer of at least 1, got"),
        (lambda: posteriors.LowRank(init_scale=0.0), ValueError, "init_scale: expected a finite"),
        (lambda: posteriors.FullCovariance("rho"), ValueError, "parametrization: expected one of"),
        (lambda: posteriors.MCDropout(1.0), ValueError, "rate: expected a finite number above 0 a"),
        (lambda: posteriors.MCDropout(dim=-1), ValueError, "dim: expected an integer of at least"),
        (
            lambda: bnn.BayesLinear(3, 2, posterior=posteriors.MCDropout(dim=2)),
            ValueError,
            "dim: expected less than 2, got 2",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, posterior=posteriors.MCDropout(groups=3)),
            ValueError,
            "groups: expected 1, or with a dim above 0 a divisor of 2, got 3 with dim 1",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, posterior=posteriors.MCDropout(dim=0, groups=2)),
            ValueError,
            "groups: expected 1, or with a dim above 0 a divisor of 2, got 2 with dim 0",
        ),
        (lambda: posteriors.MCDropout(groups=0), ValueError, "groups: expected an integer of at"),
        (
            lambda: bnn.BayesLayerNorm((3, 4), posterior=posteriors.MCDropout()),
            ValueError,
            "posterior: expected another than MCDropout for weight of a BayesLayerNorm, which has",
        ),
        (
            lambda: bnn.BayesMultiheadAttention(
                4, 2, add_bias_kv=True, posterior=posteriors.MCDropout()
            ),
            ValueError,
            "posterior: expected another than MCDropout for bias_k of a BayesMultiheadAttention",
        ),
        (
            lambda: bnn.BayesLSTM(2, 3, posterior={"weight_hh_l0": JOINT[0]}),
            ValueError,
            "posterior: expected one for all weights, as the posterior is joint, got {'weight_ih",
        ),
        (
            lambda: bnn.BayesLinear(
                3, 2, posterior=posteriors.MCDropout(), prior=priors.LogUniform()
            ),
            ValueError,
            "for a posterior MCDropout, got LogUniform",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_factor_of_ones_own() -> None:
    @dataclasses.dataclass(frozen=True)
    class Diagonal(posteriors.FullCovariance):
        def mixing(self, parameters: Sequence[Tensor]) -> Tensor:
            return torch.zeros_like(parameters[-1])

    parameters = torch.zeros(3), torch.full((3,), -1.0), torch.ones(3, 3)
    drawn = Diagonal().rsample(parameters, sample_shape=(2000,), seed=1)
    assert drawn.T.corrcoef().tril(-1).abs().max() < 0.1
    full = posteriors.FullCovariance().rsample(parameters, sample_shape=(2000,), seed=1)
    assert full.T.corrcoef()[2, 1] > 0.5
