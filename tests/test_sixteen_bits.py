"""Likelihoods, models and flows in 16 bits and under autocast: their logarithms are float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bslfast
import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast import flows, likelihoods
from bslfast.vae import VAE, Autoencoder, VampPrior, mlp_decoder, mlp_encoder

of_each_low = pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)


def _narrow(x: Tensor, low: torch.dtype) -> Tensor:
    return x.to(low) if x.is_floating_point() else x


# --- likelihoods ----------------------------------------------------------------------------------


HEADS: dict[str, tuple[Callable[[], likelihoods.Likelihood], Callable[[], tuple[Tensor, Tensor]]]]
HEADS = {
    "normal": (
        lambda: likelihoods.Normal(2, init_scale=0.37),
        lambda: (torch.randn(50, 2), torch.randn(50, 2)),
    ),
    "heteroscedastic_normal": (
        lambda: likelihoods.HeteroscedasticNormal(2),
        lambda: (torch.randn(50, 4), torch.randn(50, 2)),
    ),
    "laplace": (
        lambda: likelihoods.Laplace(2, init_scale=0.37),
        lambda: (torch.randn(50, 2), torch.randn(50, 2)),
    ),
    "student_t": (
        lambda: likelihoods.StudentT(2, init_scale=0.37, learn_df=True),
        lambda: (torch.randn(50, 2), torch.randn(50, 2)),
    ),
    "bernoulli": (
        lambda: likelihoods.Bernoulli(2),
        lambda: (torch.randn(50, 2), torch.rand(50, 2)),
    ),
    "continuous_bernoulli": (
        lambda: likelihoods.ContinuousBernoulli(2),
        lambda: (torch.randn(50, 2), torch.rand(50, 2)),
    ),
    "poisson": (
        lambda: likelihoods.Poisson(2),
        lambda: (torch.randn(50, 2), torch.randint(5, (50, 2)).float()),
    ),
    "negative_binomial": (
        lambda: likelihoods.NegativeBinomial(2, total_count=3.0),
        lambda: (torch.randn(50, 2), torch.randint(5, (50, 2)).float()),
    ),
    "discretized_logistic_mixture": (
        lambda: likelihoods.DiscretizedLogisticMixture(2),
        lambda: (torch.randn(50, 30), torch.rand(50, 2)),
    ),
    "categorical": (
        lambda: likelihoods.Categorical(3),
        lambda: (torch.randn(50, 3), torch.randint(3, (50,))),
    ),
}


@of_each_low
@pytest.mark.parametrize("name", HEADS)
def test_likelihoods(name: str, low: torch.dtype) -> None:
    """16-bit outputs count as float32 numbers, also with float32 targets."""
    make, data = HEADS[name]
    head = make()
    output, y = data()
    output = output.to(low)
    expected = head.log_prob(output.float(), y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.log_prob(output, y), expected)
    narrow = _narrow(y, low)
    expected = head.log_prob(output.float(), _narrow(narrow, torch.float32))
    leaf = output.clone().requires_grad_()
    log_prob = head.log_prob(leaf, narrow)
    assert torch.equal(log_prob, expected)
    log_prob.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == low
    if name != "categorical":
        with pytest.raises(TypeError, match="y: expected the dtype of output"):
            head.log_prob(output, y)
        with (
            torch.autocast("cpu", torch.bfloat16),
            pytest.raises(TypeError, match="y: expected the dtype of output"),
        ):
            head.log_prob(output, y.double())


@pytest.mark.parametrize("name", HEADS)
def test_a_training_step_under_autocast(name: str) -> None:
    y = HEADS[name][1]()[1]
    targets = 3 if name == "categorical" else 2
    model = bslfast.bnn.BayesianMLP(4, (8,), targets, likelihood=name)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(50, 4))
        log_prob = model.likelihood.log_prob(output, y)
        loss = bslfast.negative_elbo(log_prob, bslfast.nn.kl(model), dataset_size=50)
    assert output.dtype == torch.bfloat16
    assert (log_prob.dtype, loss.dtype) == (torch.float32, torch.float32)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- autoencoders ---------------------------------------------------------------------------------


class _Fixed(nn.Module):
    """A network with the same outputs for all inputs, so that only the model's part shows."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.randn(shape).bfloat16().float())

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.outputs.expand(len(x), *self.outputs.shape)
        return outputs.bfloat16() if torch.is_autocast_enabled("cpu") else outputs


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": "normal"},
        {"likelihood": "normal", "scale": 0.1},
        {"likelihood": "normal", "scale": "decoder"},
    ],
    ids=str,
)
def test_vae_under_autocast(options: dict[str, object]) -> None:
    """The bound is that of the networks' outputs, in float32, also with a scale as a number."""
    wide = 2 if options.get("scale") == "decoder" else 1
    vae = VAE(_Fixed(4), _Fixed(6 * wide), **options)  # type: ignore[arg-type]
    x = torch.rand(5, 6)
    for method in (vae.elbo, vae.log_marginal, vae.iwae):
        expected = method(x, 3, seed=1)
        with torch.autocast("cpu", torch.bfloat16):
            actual = method(x, 3, seed=1)
        assert torch.equal(actual, expected)
        assert actual.dtype == torch.float32
    autoencoder = Autoencoder(_Fixed(4), _Fixed(6 * wide), **options)  # type: ignore[arg-type]
    expected = autoencoder(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(autoencoder(x), expected)


@of_each_low
def test_vae_in_sixteen_bits(low: torch.dtype) -> None:
    """Bounds are float32, and far beyond the range of float16; gradients come back."""
    shape = (230, 230)
    networks = mlp_encoder(shape, 2, (4,)), mlp_decoder(2, shape, (4,))
    for prior in (None, VampPrior(3, shape)):
        vae = VAE(*networks, latent=2, prior=prior).to(low)
        x = torch.rand(2, *shape).to(low)
        for estimator in ("iwae", "dreg"):
            bound = vae.iwae(x, 2, estimator=estimator)
            (-bound.mean() - vae(x).mean()).backward()
            for found in (bound, vae(x), vae.log_marginal(x, 2)):
                assert found.dtype == torch.float32
                assert found.isfinite().all()
        assert vae(x).sum() < -66_000
        assert all(p.grad is not None and p.grad.dtype == low for p in vae.parameters())


# --- flows ----------------------------------------------------------------------------------------


def _transforms(features: int) -> list[flows.Transform]:
    squeezed = flows.Squeeze(1), flows.InvertibleConv1x1(4), flows.PerPixel(flows.ActNorm(4))
    return [
        flows.Reverse(features),
        flows.Permutation.random(features),
        flows.AdditiveCoupling(features),
        flows.AffineCoupling(features),
        flows.SplineCoupling(features),
        flows.MixtureLogisticCoupling(features),
        flows.DeepSigmoidalCoupling(features),
        flows.BernsteinCoupling(features),
        flows.Autoregressive(
            flows.Spline(), flows.MADE(features, flows.Spline(), hidden=(16,), residual=1)
        ),
        flows.LeakyReLU(features),
        flows.Inverse(flows.Softplus(features)),
        flows.Inverse(flows.Sigmoid(features)),
        flows.Atanh(features),
        flows.Logit(features),
        flows.Log(features),
        flows.Inverse(flows.Tanh(features)),
        flows.Inverse(flows.Exp(features)),
        flows.Standardize(features),
        flows.ActNorm(features),
        flows.BatchNorm(features).eval(),
        flows.Planar(features),
        flows.Radial(features),
        flows.Images((1, 2, features // 2), squeezed),
    ]


@of_each_low
@pytest.mark.parametrize("index", range(len(_transforms(8))))
def test_transforms(index: int, low: torch.dtype) -> None:
    """z keeps the dtype, its log-determinant is float32, forward and backward."""
    transform = _transforms(8)[index].to(low)
    if isinstance(transform, flows.Images):
        return  # its matrices are solved in float32 at least: see below
    z, log_det = transform((0.8 * torch.rand(5, 8) + 0.1).to(low))
    assert (z.dtype, log_det.dtype) == (low, torch.float32)
    x, log_det = transform.inverse(z)
    assert (x.dtype, log_det.dtype) == (low, torch.float32)
    flow = flows.Flow(transform).to(low)
    assert flow.log_prob(torch.rand(5, 8).to(low)).dtype == torch.float32


@of_each_low
def test_transforms_with_matrices(low: torch.dtype) -> None:
    """Only forward is tested, as torch solves no triangular system in 16 bits."""
    for transform in (flows.PLULinear(8, seed=0), _transforms(8)[-1]):
        z, log_det = transform.to(low)(torch.rand(5, 8).to(low))
        assert (z.dtype, log_det.dtype) == (low, torch.float32)


def test_log_determinants_beyond_float16() -> None:
    """Those of exponentials and logarithms, both ways."""
    x = torch.full((1, 8000), 9.0).half()
    z, log_det = flows.Exp(8000)(x)
    assert log_det.item() == 72000
    for log_det in (flows.Exp(8000).inverse(z)[1], flows.Log(8000)(z)[1]):
        torch.testing.assert_close(log_det, torch.tensor([-72000.0]), rtol=1e-3, atol=0)
    assert flows.Log(8000).inverse(x)[1].item() == 72000


def test_log_density_of_a_long_float16_flow_is_finite() -> None:
    """The flow has 100,000 features, each at 2 standard deviations."""
    flow = flows.Flow(flows.ActNorm(100_000)).half().eval()
    expected = 100_000 * torch.distributions.Normal(0, 1).log_prob(torch.tensor(2.0))
    actual = flow.log_prob(torch.full((1, 100_000), 2.0).half())
    torch.testing.assert_close(actual, expected.expand(1))


@pytest.mark.parametrize(
    "make", [flows.PLULinear, flows.Householder, flows.Sylvester, flows.Planar]
)
def test_flows_under_autocast(make: Callable[[int], flows.Transform]) -> None:
    """The base density is float32 too, though a matrix product leaves the noise in 16 bits."""
    flow = flows.Flow(make(4))
    x = torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = flow.log_prob(x)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob, flow.log_prob(x), rtol=0.05, atol=0.05)


# --- distributions --------------------------------------------------------------------------------


DISTRIBUTIONS: dict[str, Callable[[Tensor], torch.distributions.Distribution]] = {
    "Normal": lambda t: bd.Normal(t, t.exp()),
    "Laplace": lambda t: bd.Laplace(t, t.exp()),
    "Gumbel": lambda t: bd.Gumbel(t, t.exp()),
    "LogNormal": lambda t: bd.LogNormal(t, t.exp()),
    "HalfCauchy": lambda t: bd.HalfCauchy(t.exp()),
    "StudentT": lambda t: bd.StudentT(t.exp(), t, t.exp()),
    "Bernoulli": bd.Bernoulli,
    "Categorical": bd.Categorical,
    "Poisson": bd.Poisson,
    "NegativeBinomial": lambda t: bd.NegativeBinomial(t, t),
    "RelaxedBernoulli": lambda t: bd.RelaxedBernoulli(0.7, logits=t),
    "RelaxedOneHotCategorical": lambda t: bd.RelaxedOneHotCategorical(
        0.7, logits=t, validate_args=False
    ),
}


@of_each_low
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str, low: torch.dtype) -> None:
    """Log densities of 16-bit samples are those of float32 on the same numbers."""
    parameter = torch.tensor([0.25, -0.5, 0.75], dtype=low)
    narrow = DISTRIBUTIONS[name](parameter)
    wide = DISTRIBUTIONS[name](parameter.float())
    x = narrow.sample()
    actual = narrow.log_prob(x)
    assert actual.dtype == torch.float32
    if x.is_floating_point():
        assert x.dtype == low
    # exp(parameter) is rounded.
    expected = wide.log_prob(x if name == "Categorical" else x.float())
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)
    if name in ("Normal", "Laplace", "HalfCauchy"):
        other = DISTRIBUTIONS[name](-parameter)
        assert torch.distributions.kl_divergence(narrow, other).dtype == torch.float32


def test_numbers_beside_tensors_are_not_rounded_under_autocast() -> None:
    loc = torch.zeros(3)
    expected = BF.laplace_kl(loc, loc, 0.1, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(BF.laplace_kl(loc.bfloat16(), loc, 0.1, 0.3), expected)
