"""Estimators: outputs have the mean, the variance and the covariance that theory says."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast.functional as BF
import bslfast.nn as bnn
from bslfast.bnn import BayesianMLP
from bslfast.nn import kl, one_draw, posteriors, priors, set_estimator
from bslfast.nn.estimators import ESTIMATORS, Estimator

LOCAL, FLIPOUT = bnn.LocalReparametrization(), bnn.Flipout()
both = pytest.mark.parametrize("estimator", [LOCAL, FLIPOUT], ids=repr)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def with_spread(layer: Any) -> Any:
    """The layer in float64, each weight with a scale of its own."""
    layer.double()
    for name, parameter in layer.named_parameters():
        if name.endswith("raw_scale"):
            nn.init.uniform_(parameter, -2.0, 0.5)
    return layer


LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "linear": (lambda **o: bnn.BayesLinear(3, 2, **o), (2, 3)),
    "linear of sequences": (lambda **o: bnn.BayesLinear(3, 2, bias=False, **o), (2, 4, 3)),
    "conv1d": (lambda **o: bnn.BayesConv1d(2, 4, 3, groups=2, **o), (2, 2, 5)),
    "conv2d": (
        lambda **o: bnn.BayesConv2d(2, 3, 3, padding=1, padding_mode="reflect", stride=2, **o),
        (2, 2, 4, 4),
    ),
    "conv2d without batch": (lambda **o: bnn.BayesConv2d(2, 3, 2, bias=False, **o), (2, 3, 3)),
    "conv3d": (lambda **o: bnn.BayesConv3d(1, 2, 2, **o), (2, 1, 2, 3, 2)),
    "transpose1d": (lambda **o: bnn.BayesConvTranspose1d(2, 3, 2, stride=2, **o), (2, 2, 3)),
    "transpose2d": (lambda **o: bnn.BayesConvTranspose2d(2, 3, 2, bias=False, **o), (2, 2, 2, 3)),
    "transpose3d": (lambda **o: bnn.BayesConvTranspose3d(1, 2, 2, **o), (2, 1, 2, 1, 2)),
}
of_each_layer = pytest.mark.parametrize("name", LAYERS)


def plain(layer: Any, tensors: Any, x: Tensor) -> Tensor:
    """torch's layer with these parameters."""
    names = layer.posteriors
    outputs: Tensor = torch.func.functional_call(
        layer.deterministic_twin(), dict(zip(names, tensors, strict=True)), (x,)
    )
    return outputs


def moments(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of outputs, of a map that is linear in x and its weights."""
    weights = layer.weights()
    mean = plain(layer, [w.loc for w in weights], x)
    variance = plain(layer, [w.stddev() ** 2 for w in weights], x * x)
    return mean.detach(), variance.detach()


@torch.no_grad()
def draws(layer: Any, x: Tensor, n: int) -> Tensor:
    return torch.stack([layer(x, seed=i) for i in range(n)])


def check_moments(layer: Any, x: Tensor, n: int, kurtosis: float) -> None:
    y, (mean, variance) = draws(layer, x, n), moments(layer, x)
    # 5 sigma; the variance of a sample's variance follows from the fourth moment.
    assert ((y.mean(0) - mean).abs() / (variance / n).sqrt()).max() < 5
    assert (y.var(0) / variance - 1).abs().max() < 5 * math.sqrt((kurtosis - 1) / n)


@of_each_layer
@both
def test_mean_and_variance(name: str, estimator: Estimator) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    check_moments(with_spread(make(estimator=estimator)), image(*shape), 1000, 3.0)


@pytest.mark.parametrize("kind", [posteriors.Laplace, posteriors.Deterministic])
def test_mean_and_variance_of_other_posteriors(kind: Any) -> None:
    torch.manual_seed(0)
    deterministic = kind is posteriors.Deterministic
    options: dict[str, Any] = {"prior": priors.Normal() if deterministic else priors.Laplace()}
    options["posterior"] = {"bias": kind()} if deterministic else kind()
    layer = with_spread(bnn.BayesLinear(3, 2, estimator=FLIPOUT, **options))
    check_moments(layer, image(2, 3), 1500, 6.0)
    if deterministic:
        layer.estimator = LOCAL
        check_moments(layer, image(2, 3), 1500, 3.0)
        point = bnn.BayesLinear(3, 2, posterior=posteriors.Deterministic(), estimator=LOCAL)
        assert torch.equal(
            point(torch.ones(1, 3)), plain(point, point.parameters(), torch.ones(3))[None]
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_covariance_of_two_examples(estimator: str) -> None:
    """The covariance of the deviations d from the mean, and of their squares.

    A weight's noise is in both examples. Local reparametrisation has none in common. Flipout's
    signs make deviations uncorrelated; given the weights, the mean square of one is
    sum_j (w_j - m_j)^2 x_j^2, so that squares are not.
    """
    torch.manual_seed(0)
    n, outputs = 1500, 40
    layer = bnn.BayesLinear(2, outputs, estimator=estimator, dtype=torch.float64)
    scale = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)  # of both weights and the bias
    with torch.no_grad():
        layer.weight_raw_scale.copy_(scale[:2].expm1().log())
        layer.bias_raw_scale.fill_(scale[2].expm1().log())
    x = torch.tensor([[1.0, -0.8], [0.7, 1.2]], dtype=torch.float64)
    mean, variance = moments(layer, x)
    d = draws(layer, x, n) - mean
    both = torch.cat([x, torch.ones(2, 1, dtype=torch.float64)], dim=1).prod(0) * scale**2
    covariance = {"weight_sample": both.sum().item()}.get(estimator, 0.0)
    of_squares = {
        "weight_sample": 2 * both.sum().item() ** 2,
        "flipout": 2 * both.square().sum().item(),
    }.get(estimator, 0.0)
    squares = d.square() - variance
    for products, expected in ((d.prod(1), covariance), (squares.prod(1), of_squares)):
        per_call = products.mean(-1)  # whose outputs share signs
        error = (per_call.mean() - expected).abs() / (per_call.std() / math.sqrt(n))
        assert error < 5, (per_call.mean(), expected)
        # The bound tells the three apart.
        assert 5 * per_call.std() / math.sqrt(n) < 0.4 * 2 * both.square().sum()


def by_formula(layer: Any, x: Tensor, seed: int) -> Tensor:
    """Outputs in plain torch, with the noise of a pass with this seed."""
    weights = layer.weights()
    means = [w.loc for w in weights]
    scales = [nn.functional.softplus(w.parameters[1]) for w in weights]
    mean = plain(layer, means, x)
    if layer.estimator == LOCAL:
        variance = plain(layer, [s * s for s in scales], x * x)
        return mean + variance.sqrt() * BF.standard_normal(mean.shape, seed=seed, dtype=x.dtype)
    noise = [
        s * BF.standard_normal(s.shape, seed=seed, stream=i, dtype=x.dtype)
        for i, s in enumerate(scales)
    ]

    def signs(like: Tensor, stream: int) -> Tensor:
        sides = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
        shape = like.shape[: like.dim() - sides] + (1,) * sides
        u = BF.standard_uniform(shape, seed=seed, stream=stream)
        return torch.where(u < 0.5, -1.0, 1.0).to(x.dtype)

    n = len(weights)
    return mean + plain(layer, noise, x * signs(x, n)) * signs(mean, n + 1)


@of_each_layer
@both
def test_values_and_gradients_are_those_of_the_formula(name: str, estimator: Estimator) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[name]
    layer, x = with_spread(make(estimator=estimator)), image(*shape).requires_grad_()
    leaves = [x, *layer.parameters()]
    y = layer(x, seed=3)
    expected = by_formula(layer, x, 3)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        torch.autograd.grad(y.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves),
    )
    assert torch.equal(y, layer(x, seed=3))
    assert torch.equal(y, layer(x, seed=torch.tensor(3)))
    assert not torch.equal(y, layer(x, seed=4))
    torch.manual_seed(0)
    y = layer(x)
    assert not torch.equal(y, layer(x))
    torch.manual_seed(0)
    assert torch.equal(y, layer(x))


@both
def test_gradients_vary_less_than_with_one_draw_for_all(estimator: Estimator) -> None:
    """In the mean over a batch: the noise that examples share does not average out.

    Flipout's examples still share the sizes of the deviations.
    """
    torch.manual_seed(0)
    layer = with_spread(bnn.BayesLinear(5, 3))
    x, y = image(64, 5), image(64, 3)
    total = {}
    for how in (bnn.WeightSample(), estimator):
        layer.estimator = how
        found = []
        for seed in range(200):
            loss = (layer(x, seed=seed) - y).square().mean()
            found.append(
                torch.cat(
                    [g.flatten() for g in torch.autograd.grad(loss, list(layer.parameters()))]
                )
            )
        total[how] = torch.stack(found).var(0).sum()
    assert total[estimator] < (0.2 if estimator == LOCAL else 0.5) * total[bnn.WeightSample()]


@both
def test_an_input_of_zeros_has_finite_gradients(estimator: Estimator) -> None:
    layer = bnn.BayesLinear(3, 2, bias=False, estimator=estimator)
    x = torch.zeros(4, 3, requires_grad=True)
    y = layer(x)
    assert y.abs().max() < 1e-15
    y.sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


@both
def test_the_divergence_is_that_of_the_weights(estimator: Estimator) -> None:
    layer, x = bnn.BayesLinear(3, 2, prior_scale=0.5), torch.ones(4, 3)
    layer(x)
    layer.estimator = estimator
    layer(x)
    expected = layer.compute_kl()
    assert kl(layer).item() == pytest.approx(expected.item(), rel=1e-6)
    layer(x)
    (layer(x).sum() + kl(layer)).backward()
    # There is no closed form: a sample of the weights serves.
    estimated = bnn.BayesLinear(3, 2, prior=priors.Horseshoe(), estimator=estimator)
    found = []
    for _ in range(2):
        estimated(x)
        found.append(kl(estimated).item())
    assert found[0] != found[1]


@both
def test_one_draw_has_drawn_the_weights(estimator: Estimator) -> None:
    model, x = BayesianMLP(3, (4,), 1, estimator=estimator, init_scale=0.3), torch.ones(20, 3)
    assert len(model(x).unique()) > 1
    with one_draw(model):
        assert len(model(x).unique()) == 1
        assert torch.equal(model(x), model(x))
        assert not torch.equal(model.layers[0](x, seed=1), model.layers[0](x))


@both
def test_compiled_in_one_graph(estimator: Estimator) -> None:
    torch._dynamo.reset()
    layer = bnn.BayesConv1d(2, 3, 2, estimator=estimator, dtype=torch.float64)
    x = image(4, 2, 5)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(x: Tensor) -> Tensor:
        return layer(x, seed=1).square().sum() + kl(layer)

    torch.testing.assert_close(loss(x), layer(x, seed=1).square().sum() + layer.compute_kl())
    loss(x).backward()
    assert all(p.grad is not None for p in layer.parameters())


@both
def test_bfloat16_and_autocast(estimator: Estimator) -> None:
    """The noise is that of float32."""
    torch.manual_seed(0)
    layer, x = bnn.BayesLinear(64, 8, estimator=estimator, init_scale=0.1), torch.randn(100, 64)
    expected = layer(x, seed=1)
    for given, how in ((x.bfloat16(), copy.deepcopy(layer).bfloat16()), (x, layer)):
        with torch.autocast("cpu", torch.bfloat16, enabled=given is x):
            y = how(given, seed=1)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)
        y.float().square().sum().backward()


def test_where_an_estimator_may_be_named() -> None:
    layer = bnn.BayesLinear(3, 2, estimator="flipout")
    assert layer.estimator == FLIPOUT
    layer.estimator = "local_reparametrization"
    assert layer.estimator == LOCAL
    assert repr(layer).endswith("estimator=LocalReparametrization())")
    assert "estimator" not in repr(bnn.BayesLinear(3, 2))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.estimator == LOCAL
    assert "_estimator" not in vars(layer.deterministic_twin())
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 1))
    model = bnn.to_bayesian(plain, estimator="flipout")
    assert [m.estimator for m in (model[0], model[2])] == [FLIPOUT] * 2
    set_estimator(model, LOCAL)
    assert [m.estimator for m in (model[0], model[2])] == [LOCAL] * 2
    set_estimator(model[2], "weight_sample")
    assert [m.estimator for m in (model[0], model[2])] == [LOCAL, bnn.WeightSample()]


def test_an_estimator_of_ones_own() -> None:
    class Mean(Estimator):
        def __call__(self, layer: Any, *inputs: Any, seed: Any, **options: Any) -> Tensor:
            outputs: Tensor = layer.function([w.loc for w in layer.weights()], *inputs, **options)
            return outputs

    model, x = BayesianMLP(3, (4,), 1), torch.ones(2, 3)
    set_estimator(model, Mean())
    assert torch.equal(model(x), model.deterministic_twin()(x))


def test_a_model_is_changed_as_a_whole_or_not() -> None:
    model = nn.Sequential(bnn.BayesLinear(2, 2), BayesBilinear(2, 2, 1))
    with pytest.raises(ValueError, match="for a BayesBilinear"):
        set_estimator(model, LOCAL)
    assert model[0].estimator == bnn.WeightSample()


def other_posterior() -> Any:
    layer = bnn.BayesLinear(3, 2, prior=priors.Laplace(), estimator=LOCAL)
    for name in layer.posteriors:
        layer.posteriors[name] = posteriors.Laplace()
    return layer


@pytest.mark.parametrize("estimator", [LOCAL, FLIPOUT])
@pytest.mark.parametrize(
    "posterior", [posteriors.FullCovariance(), posteriors.LowRank(1), posteriors.MCDropout()]
)
def test_posteriors_that_are_not_of_independent_weights_are_refused(
    posterior: Any, estimator: Any
) -> None:
    message = rf"estimator: expected WeightSample\(\) .*, got {type(estimator).__name__}\(\) for a "
    message += type(posterior).__name__
    layer = bnn.BayesConv1d(3, 2, 1, posterior=posterior)
    for make in (
        lambda: bnn.BayesLinear(3, 2, posterior=posterior, estimator=estimator),
        lambda: BayesianMLP(3, (4,), 1, posterior=posterior, estimator=estimator),
        lambda: bnn.to_bayesian(nn.Linear(3, 2), posterior=posterior, estimator=estimator),
        lambda: set_estimator(layer, estimator),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    assert layer.estimator == bnn.WeightSample()


@pytest.mark.parametrize("estimator", [LOCAL, FLIPOUT])
def test_the_divergence_from_a_learned_prior(estimator: Any) -> None:
    layer = bnn.BayesLinear(3, 2, prior=priors.LearnedNormal(0.5), estimator=estimator)
    (layer(torch.ones(4, 3)).sum() + bnn.kl(layer)).backward()
    moments = torch.cat([(w.loc**2 + w.stddev() ** 2).flatten() for w in layer.weights()])
    prior: Any = layer.priors["weight"]
    torch.testing.assert_close(prior.log_scale.grad, (1 - moments / 0.25).sum().detach())


class Own(bnn.BayesianModule):
    pass


class BayesBilinear(bnn.BayesianLayer, nn.Bilinear):
    pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: bnn.BayesLinear(3, 2, estimator="lrt"),
            ValueError,
            "estimator: expected one of 'weight_sample', 'local_reparametrization', 'flipout', got",
        ),
        (lambda: bnn.BayesLinear(3, 2, estimator=1), TypeError, "estimator: expected one of"),  # type: ignore[arg-type]
        (
            lambda: BayesianMLP(3, (), 1, estimator=bnn.Flipout),  # type: ignore[arg-type]
            TypeError,
            "estimator: expected one of .*, got",
        ),
        (
            lambda: BayesBilinear(3, 2, 1, estimator="flipout"),
            ValueError,
            r"estimator: expected WeightSample\(\) for a BayesBilinear, which is no linear map",
        ),
        (
            lambda: bnn.BayesLinear(
                3, 2, posterior=posteriors.Laplace(), prior=priors.Laplace(), estimator=LOCAL
            ),
            ValueError,
            r"estimator: expected WeightSample\(\) unless all posteriors are Normal or Determinis",
        ),
        (
            lambda: other_posterior()(torch.ones(1, 3)),
            ValueError,
            r"got LocalReparametrization\(\) for a Laplace",
        ),
        (
            lambda: bnn.BayesLinear(3, 2, estimator=LOCAL).half()(torch.ones(1, 3).half()),
            TypeError,
            r"estimator: expected WeightSample\(\) or Flipout\(\) in float16, got LocalR",
        ),
        (
            lambda: bnn.BayesConv1d(3, 2, 1, estimator=LOCAL)(5),
            TypeError,
            r"x: expected a torch\.Tensor, got int",
        ),
        (
            lambda: bnn.BayesConv1d(3, 2, 1, estimator=FLIPOUT)(input=torch.ones(1, 2, 3)),
            ValueError,
            r"x: expected shape \[batch, 3, length\]",
        ),
        (lambda: set_estimator(Own(), FLIPOUT), ValueError, "estimator: expected layers that are"),
        (lambda: set_estimator(nn.Linear(1, 1), FLIPOUT), ValueError, "model: expected a module w"),
        (lambda: set_estimator(3, FLIPOUT), TypeError, "model: expected a torch.nn.Module"),  # type: ignore[arg-type]
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
