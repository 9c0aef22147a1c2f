"""Variational autoencoders: bounds, exact cases, gradients, the ways torch may use a module."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from largest_tensor import LargestTensor
from torch import Tensor, nn

import bslfast
from bslfast.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)
from bslfast.vae import (
    VAE,
    Autoencoder,
    GumbelSoftmax,
    VampPrior,
    conv_decoder,
    conv_encoder,
    mlp_decoder,
    mlp_encoder,
)

SHAPE = (1, 8, 8)


def binary(n: int = 6, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return (torch.rand(n, *shape) > 0.5).float()


def mlp(**options: object) -> VAE:
    channels = 2 if options.get("scale") == "decoder" else 1
    return VAE(mlp_encoder(SHAPE, 2, (16,)), mlp_decoder(2, (channels, 8, 8), (16,)), **options)  # type: ignore[arg-type]


def conv() -> VAE:
    return VAE(conv_encoder(SHAPE, 3, (4, 8), (1, 2)), conv_decoder(3, SHAPE, (8, 4), (2, 1)))


# --- values ---------------------------------------------------------------------------------------


class Affine(nn.Module):
    """A linear map, with further outputs that are the same for all inputs."""

    def __init__(self, matrix: Tensor, shift: Tensor, constant: Tensor | None = None) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix), nn.Parameter(shift)
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.matrix.T + self.shift
        if self.constant is None:
            return y
        return torch.cat([y, self.constant.expand(len(x), -1)], dim=1)


def linear_gaussian() -> tuple[VAE, Tensor, Tensor]:
    """x = W z + b + s e with orthogonal columns of W, its exact posterior, and log p(x)."""
    torch.manual_seed(1)
    d, latent, scale = 5, 2, 0.7
    basis = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q[:, :latent]
    w = basis * torch.tensor([1.5, 0.4], dtype=torch.float64)
    b = torch.randn(d, dtype=torch.float64)
    precision = 1 + (w * w).sum(0) / scale**2  # of the posterior, whose dimensions are independent
    gain = (w / scale**2 / precision).T
    decoder = Affine(w, b)
    encoder = Affine(gain, -gain @ b, -precision.log())
    x = torch.randn(40, latent, dtype=torch.float64) @ w.T + b
    x = x + scale * torch.randn_like(x)
    covariance = w @ w.T + scale**2 * torch.eye(d, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(b, covariance).log_prob(x)
    return VAE(encoder, decoder, likelihood="normal", scale=scale), x, exact


def test_exact_posterior_makes_the_bound_exact() -> None:
    """Each importance weight is p(x) itself; the ELBO is log p(x) on average."""
    vae, x, exact = linear_gaussian()
    with torch.no_grad():
        torch.testing.assert_close(vae.log_marginal(x, 3), exact, rtol=1e-12, atol=1e-12)
        elbo = vae.elbo(x, 20_000, seed=0)
    # The standard error of the average: its variance is that of a quadratic form in normals.
    assert (elbo - exact).abs().max() < 0.05


def test_log_marginal_converges_with_a_poor_posterior() -> None:
    vae, x, exact = linear_gaussian()
    assert isinstance(vae.encoder, Affine)
    vae.encoder.constant = torch.zeros(2, dtype=torch.float64)  # wider than the posterior
    with torch.no_grad():
        elbo = vae.elbo(x, 2000, seed=0)
        few = vae.log_marginal(x, 5, seed=0)
        many = vae.log_marginal(x, 20_000, seed=0)
    assert (elbo < exact - 0.1).all()
    assert elbo.mean() < few.mean() < many.mean()
    assert (many - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    "make",
    [
        mlp,
        conv,
        lambda: mlp(likelihood="normal"),
        lambda: mlp(likelihood="normal", scale=0.3),
        lambda: mlp(likelihood="normal", scale="decoder"),
    ],
)
def test_the_bound_lies_below_the_log_likelihood(make: Callable[[], VAE]) -> None:
    vae, x = make().eval(), binary()
    with torch.no_grad():
        elbo, marginal = vae.elbo(x, 500, seed=0), vae.log_marginal(x, 500, seed=1)
    assert elbo.shape == marginal.shape == (6,)
    assert (elbo < marginal).all()


@pytest.mark.parametrize("scale", ["learned", 0.5, "decoder"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_terms_are_those_of_torch_distributions(likelihood: str, scale: float | str) -> None:
    if likelihood == "bernoulli":
        if scale != "learned":
            pytest.skip("it has no scale")
        vae = mlp()
    else:
        vae = mlp(likelihood="normal", scale=scale)
    x = torch.rand(6, *SHAPE)
    mu, log_var = vae.encode(x)
    z = bslfast.functional.normal_rsample(
        mu, log_var, parametrization="log_var", sample_shape=(3,), seed=5
    )
    log_likelihood, kl = vae.terms(x, 3, seed=5)
    prior = torch.distributions.Normal(torch.zeros(2), 1.0)
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * log_var))
    expected_kl = torch.distributions.kl_divergence(posterior, prior).sum(-1)
    torch.testing.assert_close(kl, expected_kl)
    each = []
    for codes in z:
        outputs = vae.decoder(codes)
        if likelihood == "bernoulli":
            p = torch.distributions.ContinuousBernoulli(logits=outputs)
            # The density of grey values without its normalising constant.
            found = p.log_prob(x) - p._cont_bern_log_norm()
        elif scale == "decoder":
            loc, log_variance = outputs.chunk(2, dim=1)
            found = torch.distributions.Normal(loc, (0.5 * log_variance).exp()).log_prob(x)
        else:
            width = vae.likelihood.scale if scale == "learned" else scale
            found = torch.distributions.Normal(outputs, width).log_prob(x)
        each.append(found.flatten(1).sum(1))
    torch.testing.assert_close(log_likelihood, torch.stack(each).mean(0), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(vae.elbo(x, 3, seed=5), log_likelihood - kl)


def test_beta_weighs_the_divergence() -> None:
    vae, x = mlp(beta=4.0), binary()
    log_likelihood, kl = vae.terms(x, seed=0)
    torch.testing.assert_close(vae.elbo(x, seed=0), log_likelihood - 4 * kl)


def test_log_marginal_does_not_depend_on_portions() -> None:
    """All codes at once and codes in portions estimate the same number."""
    vae, x = mlp(), binary()
    seen: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.no_grad():
        whole = vae.log_marginal(x, 1000, seed=0)
        assert seen == [1, 6000]  # the first is measured
        seen.clear()
        # The last module of the decoder, which gives images, takes twice the bytes of one.
        parts = vae.log_marginal(x, 1000, seed=0, max_bytes=600 * x.nbytes)
        assert seen == [1, 1800, 1800, 1800, 600]
        # Not even one code of all examples fits.
        seen.clear()
        few = vae.log_marginal(x, 50, seed=0, max_bytes=8 * x[0].nbytes)
        assert seen == [1] + [4] * 50 + [2] * 50
        assert vae.log_marginal(x[:0], 50).shape == (0,)
    torch.testing.assert_close(parts, whole, rtol=0, atol=0.5)
    torch.testing.assert_close(few, whole, rtol=0, atol=3.0)


@pytest.mark.parametrize("conditional", [False, True])
def test_memory_of_log_marginal_stays_in_bounds(conditional: bool) -> None:
    """The largest tensor made on the way holds the wanted number of bytes at most.

    The networks have much wider values inside than outside.
    """
    context = torch.randn(300, 3) if conditional else None
    options = {"context": 3} if conditional else {}
    encoder, decoder = (make(*of, (2048,), **options) for make, of in (
        (mlp_encoder, ((5,), 2)), (mlp_decoder, (2, (5,))),
    ))  # fmt: skip
    vae, x = VAE(encoder, decoder, likelihood="normal"), torch.randn(300, 5)
    training = [module.training for module in vae.modules()]
    state = torch.get_rng_state()
    with torch.no_grad(), LargestTensor() as largest:
        vae.log_marginal(x, 20, context=context, seed=0, max_bytes=1 << 20)
    assert 1 << 18 < largest.bytes <= 1 << 20
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in vae.modules()] == training
    with torch.no_grad(), LargestTensor() as largest:
        vae.log_marginal(x, 20, context=context, seed=0, max_bytes=1 << 30)
    assert largest.bytes > 1 << 25


def test_log_marginal_measures_without_a_trace() -> None:
    """Statistics of a batch normalisation, which one row has not, are left as they were."""
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 64))
    vae = VAE(mlp_encoder((64,), 2), decoder)
    vae.log_marginal(binary(6, (64,)), 3)
    assert decoder[1].num_batches_tracked == 1


def test_log_marginal_measures_compiled_and_scripted_networks() -> None:
    """Neither is made anew for the row that is measured; what is scripted counts by its outputs."""
    vae, x = mlp(), binary()
    expected = vae.log_marginal(x, 20, seed=0)
    decoder, made = vae.decoder, []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        made.append(graph)
        return graph.forward

    vae.decoder = torch.compile(decoder, backend=backend)
    for _ in range(3):
        torch.testing.assert_close(vae.log_marginal(x, 20, seed=0), expected)
        assert len(made) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated
        vae.decoder = torch.jit.script(decoder)
    torch.testing.assert_close(vae.log_marginal(x, 20, seed=0), expected)


def test_codes_of_a_wrong_width() -> None:
    """The number is that of the posterior's codes, known from the constructor or the encoder."""
    vae = mlp()
    vae.encode(binary())
    categories = VAE(
        mlp_encoder(SHAPE, 2, outputs=6),
        mlp_decoder(6, SHAPE),
        posterior=GumbelSoftmax(3),
        latent=2,
    )
    points = Autoencoder(mlp_encoder(SHAPE, 2, deterministic=True), vae.decoder, latent=2)
    for model, size in ((vae, 2), (mlp(latent=2), 2), (categories, 6), (points, 2)):
        assert model.decode(torch.zeros(4, size)).shape == (4, *SHAPE)
        with pytest.raises(ValueError, match=rf"^z: expected shape \[batch, {size}\], .*\(4, 5\)"):
            model.decode(torch.zeros(4, 5))


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
def test_reference_gives_the_same_numbers(likelihood: str) -> None:
    """Results and gradients agree for the same seed."""
    vae, x = mlp(likelihood=likelihood), torch.rand(6, *SHAPE)

    def run() -> list[Tensor]:
        elbo = vae.elbo(x, 2, seed=3)
        grads = torch.autograd.grad(elbo.sum(), list(vae.parameters()))
        return [elbo.detach(), vae.log_marginal(x, 7, seed=3).detach(), *grads]

    fast = run()
    with bslfast.functional.use_reference():
        plain = run()
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_of_importance_weights() -> None:
    vae, x = mlp(), binary()
    vae.log_marginal(x, 5, seed=0).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())


def test_training_improves_the_bound() -> None:
    torch.manual_seed(0)
    vae, x = mlp(), binary(4).repeat(8, 1, 1, 1)
    optimizer = torch.optim.Adam(vae.parameters(), lr=0.01)
    before = vae(x).mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        loss = -vae(x).mean()
        loss.backward()
        optimizer.step()
    assert vae(x).mean().item() > before + 20


# --- the other methods ----------------------------------------------------------------------------


def test_shapes_and_ranges() -> None:
    for vae in (mlp(), conv()):
        x = binary()
        mu, log_var = vae.encode(x)
        assert mu.shape == log_var.shape == (6, vae.latent)
        for images in (vae.reconstruct(x), vae.sample(6), vae.decode(mu)):
            assert images.shape == x.shape
            assert 0 <= images.min() <= images.max() <= 1
        assert vae(x).shape == (6,)
        assert vae.elbo(x, 3).shape == (6,)


def test_empty_batches() -> None:
    vae = mlp()
    assert vae.elbo(binary(0)).shape == (0,)
    assert vae.log_marginal(binary(0), 3).shape == (0,)


def test_seeds_and_manual_seed() -> None:
    vae, x = mlp(), binary()
    assert torch.equal(vae.elbo(x, seed=1), vae.elbo(x, seed=1))
    assert not torch.equal(vae.elbo(x, seed=1), vae.elbo(x, seed=2))
    assert torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    torch.manual_seed(1)
    first = vae(x)
    torch.manual_seed(1)
    assert torch.equal(vae(x), first)


def test_autoencoder_is_the_vae_without_noise() -> None:
    encoder, decoder = (
        mlp_encoder(SHAPE, 2, (16,), deterministic=True),
        mlp_decoder(2, SHAPE, (16,)),
    )
    model, x = Autoencoder(encoder, decoder), binary()
    assert model.encode(x).shape == (6, 2)
    torch.testing.assert_close(model.reconstruct(x), decoder(encoder(x)).sigmoid())
    expected = torch.distributions.Bernoulli(logits=decoder(encoder(x))).log_prob(x)
    torch.testing.assert_close(model(x), expected.flatten(1).sum(1))
    model(x).sum().backward()


def test_float64() -> None:
    vae, x = conv().double(), binary().double()
    assert vae.elbo(x, 2).dtype == vae.log_marginal(x, 2).dtype == torch.float64


# --- the ways torch may use a module --------------------------------------------------------------


def test_copies_pickles_and_state_dicts() -> None:
    vae, x = mlp(likelihood="normal", beta=0.5), binary()
    vae(x).sum().backward()
    expected = vae.elbo(x, seed=0)
    fresh = mlp(likelihood="normal", beta=0.5)
    fresh.load_state_dict(vae.state_dict())
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae)), fresh):
        assert torch.equal(other.elbo(x, seed=0), expected)
        assert other.sample(2).shape == (2, *SHAPE)


def test_compile() -> None:
    """Forward and backward are one graph, with the numbers of eager mode."""
    vae, x = mlp(), binary()
    expected = vae.elbo(x, seed=0)
    expected_grads = torch.autograd.grad(expected.sum(), list(vae.parameters()))
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: vae.elbo(x, seed=0), fullgraph=True, backend="aot_eager")
    actual = compiled(x)
    torch.testing.assert_close(actual, expected)
    for a, e in zip(
        torch.autograd.grad(actual.sum(), list(vae.parameters())), expected_grads, strict=True
    ):
        torch.testing.assert_close(a, e)
    assert torch.compile(vae, backend="aot_eager")(x).shape == (6,)


# --- errors ---------------------------------------------------------------------------------------


class Fixed(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(self.shape)


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [
        (lambda v: v(torch.zeros(6, *SHAPE, dtype=torch.int64)), TypeError, r"^x: .*int64"),
        (lambda v: v([0.0]), TypeError, r"^x: expected .* got a list"),
        (lambda v: v(torch.zeros(6)), ValueError, r"^x: expected shape \[batch, \.\.\.\]"),
        (lambda v: v(2 * torch.ones(6, *SHAPE)), ValueError, r"^x: .*\[0, 1\].* got 2 to 2"),
        (lambda v: v(-torch.ones(6, *SHAPE)), ValueError, r"^x: .*\[0, 1\].* got -1 to -1"),
        (lambda v: v(torch.full((6, *SHAPE), math.nan)), ValueError, r"^x: .* got nan to nan"),
        (lambda v: v.elbo(binary(), 0), ValueError, r"^n_samples: .* got 0"),
        (lambda v: v.elbo(binary(), 2.0), TypeError, r"^n_samples: .* got 2\.0"),
        (lambda v: v.log_marginal(binary(), 0), ValueError, r"^n_samples: .* got 0"),
        (lambda v: v.elbo(binary(), seed=0.5), TypeError, r"^seed: .* got 0\.5"),
        (lambda v: v.sample(0), ValueError, r"^n: .* got 0"),
        (lambda v: v.sample(2), ValueError, r"^latent: .* got None"),
        (lambda v: v.decode(torch.zeros(2)), ValueError, r"^z: .*\[batch, latent\]"),
        (lambda v: mlp(latent=2).decode(torch.zeros(2)), ValueError, r"^z: .*\[batch, 2\]"),
        (lambda v: vamp((64,))(binary()), ValueError,
         r"^prior: expected pseudo-inputs of the shape of an example, \(1, 8, 8\), got \(64,\)"),
        (lambda v: vamp((2, 8, 8)).iwae(binary()), ValueError, r"^prior: .*got \(2, 8, 8\)"),
        (lambda v: vamp((2, 8, 8)).log_marginal(binary()), ValueError, r"^prior: .*\(2, 8, 8\)"),
        (lambda v: VAE(Fixed(6, 3), v.decoder)(binary()), ValueError, r"^encoder: .*even.*, 3\)"),
        (lambda v: VAE(Fixed(6, 2, 2), v.decoder)(binary()), ValueError, r"^encoder: .*, 2, 2\)"),
        (lambda v: VAE(Fixed(5, 4), v.decoder)(binary()), ValueError, r"^encoder: .*\(5, 4\)"),
        (lambda v: VAE(v.encoder, v.decoder, latent=3)(binary()), ValueError,
         r"^encoder: expected .* 3 latent dimensions, got one for 2, of shape \(6, 4\)"),
        (lambda v: VAE(v.encoder, Fixed(6, 1, 8, 7))(binary()), ValueError,
         r"^decoder: expected outputs of shape \(6, 1, 8, 8\) .*\(6, 1, 8, 7\)"),
        (lambda v: VAE(v.encoder, Fixed(6, 64))(binary()), ValueError, r"^decoder: .*\(6, 64\)"),
        (lambda v: VAE(v.encoder, v.decoder, likelihood="normal", scale="decoder")(binary()),
         ValueError, r"^decoder: .* dimension 1, an even number.*\(6, 1, 8, 8\)"),
        (lambda v: VAE(len, v.decoder), TypeError, r"^encoder: expected a torch.nn.Module"),
        (lambda v: VAE(v.encoder, None), TypeError, r"^decoder: expected a torch.nn.Module"),
        (lambda v: VAE(v.encoder, v.decoder, likelihood="gauss"), ValueError,
         r"^likelihood: expected one of 'bernoulli', 'normal', .* got 'gauss'"),
        (lambda v: VAE(v.encoder, v.decoder, likelihood="normal", scale=0.0), ValueError,
         r"^scale: .* got 0\.0"),
        (lambda v: VAE(v.encoder, v.decoder, likelihood="normal", scale="fixed"), ValueError,
         r"^scale: expected one of 'learned', 'decoder', got 'fixed'"),
        (lambda v: VAE(v.encoder, v.decoder, scale=1.0), ValueError, r"^scale: .* got 1\.0"),
        (lambda v: VAE(v.encoder, v.decoder, beta=-1.0), ValueError, r"^beta: .* got -1\.0"),
        (lambda v: VAE(v.encoder, v.decoder, latent=0), ValueError, r"^latent: .* got 0"),
        (lambda v: mlp_encoder((), 2), ValueError, r"^shape: .* got \(\)"),
        (lambda v: mlp_encoder((8,), 0), ValueError, r"^latent: .* got 0"),
        (lambda v: mlp_encoder((8,), 2, (0,)), ValueError, r"^hidden: .* got 0"),
        (lambda v: mlp_decoder(2, (8,), 16), TypeError, r"^hidden: .* got 16"),
        (lambda v: conv_encoder((8, 8), 2), ValueError, r"^shape: .*\(8, 8\)"),
        (lambda v: conv_encoder((1, 10, 10), 2), ValueError, r"^shape: .* multiples of 4"),
        (lambda v: conv_encoder(SHAPE, 2, (4, 8)), ValueError, r"^strides: .* 2, got 4"),
        (lambda v: conv_decoder(2, SHAPE, ()), ValueError, r"^channels: .* got none"),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[VAE], object], exception: type[Exception], match: str) -> None:
    with pytest.raises(exception, match=match):
        call(mlp())


def test_values_of_x_are_free_for_the_normal_likelihood() -> None:
    assert mlp(likelihood="normal")(5 * torch.randn(6, *SHAPE)).isfinite().all()


# --- the likelihoods of bslfast.likelihoods -------------------------------------------------------

SCALED = {"normal": Normal, "laplace": Laplace, "student_t": StudentT}


@pytest.mark.parametrize("scale", ["learned", "decoder", 0.3])
@pytest.mark.parametrize(
    "name",
    [
        *("bernoulli", "continuous_bernoulli", "poisson", "negative_binomial"),
        *("normal", "laplace", "student_t"),
    ],
)
def test_names_stand_for_likelihoods(name: str, scale: float | str) -> None:
    """A name gives the numbers, means and gradients of the module that it stands for."""
    torch.manual_seed(0)
    if name in SCALED:
        how = "log_var" if name == "normal" else "log_scale"
        given = {"scale": "outputs"} if scale == "decoder" else {"scale": scale}
        how = how if scale == "decoder" else "log_scale"
        head: Likelihood = SCALED[name](None, parametrization=how, **given)
        vae = mlp(likelihood=name, scale=scale)
    else:
        if scale != "learned":
            with pytest.raises(ValueError, match=rf"^scale: expected none for likelihood '{name}'"):
                mlp(likelihood=name, scale=scale)
            return
        head = {"bernoulli": Bernoulli, "continuous_bernoulli": ContinuousBernoulli,
                "poisson": Poisson, "negative_binomial": NegativeBinomial}[name](None)  # fmt: skip
        vae = mlp(likelihood=name)
    assert type(vae.likelihood) is type(head)
    other = VAE(vae.encoder, vae.decoder, likelihood=head)
    assert other.likelihood is head
    x = binary()
    assert torch.equal(vae.elbo(x, 3, seed=1), other.elbo(x, 3, seed=1))
    assert torch.equal(vae.iwae(x, 3, seed=1), other.iwae(x, 3, seed=1))
    (-vae(x).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert vae.reconstruct(x).shape == vae.sample(6).shape == x.shape
    assert Autoencoder(mlp_encoder(SHAPE, 2, deterministic=True), vae.decoder, likelihood=head)(
        x
    ).shape == (6,)


def test_mixtures_of_discretized_logistics() -> None:
    torch.manual_seed(0)
    networks = mlp_encoder(SHAPE, 2, (16,)), mlp_decoder(2, (15, 8, 8), (16,))
    vae = VAE(*networks, likelihood="discretized_logistic_mixture")
    x = torch.randint(256, (6, *SHAPE)) / 127.5 - 1
    z = bslfast.functional.normal_rsample(*vae.encode(x), parametrization="log_var", seed=1)
    parts = vae.decoder(z).unflatten(1, (3, 5)).flatten(3)  # one channel: kind, component, pixel
    expected = bslfast.functional.discretized_logistic_mixture_log_prob(
        x.flatten(1), *(part.movedim(1, -1) for part in parts.unbind(1))
    )
    torch.testing.assert_close(vae.terms(x, seed=1)[0], expected)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.reconstruct(x).abs().max() <= 1
    (-vae(x).mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    few = VAE(networks[0], mlp_decoder(2, SHAPE, (16,)), likelihood="discretized_logistic_mixture")
    match = r"^decoder: .* logits and locs and log scales .* a multiple of 15 in all, got .*\(6, 1,"
    with pytest.raises(ValueError, match=match):
        few(x)


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal", "poisson"])
@pytest.mark.parametrize("options", [{}, {"free_bits": 0.1}, {"prior": VampPrior(3, SHAPE)}])
def test_missing_values(likelihood: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    vae, x = mlp(likelihood=likelihood, **options).double(), binary().double()
    mask = torch.rand(6, *SHAPE) > 0.3
    whole = vae.elbo(x, 2, mask=torch.ones_like(mask), seed=1)
    torch.testing.assert_close(whole, vae.elbo(x, 2, seed=1))
    # Without observations, only the divergence from the code of an empty image is left.
    log_likelihood, _ = vae.terms(x, mask=torch.zeros_like(mask))
    assert log_likelihood.count_nonzero() == 0
    hidden = x.masked_fill(~mask, math.nan)
    found = vae.terms(hidden, 2, mask=mask, seed=1)[0]
    z = bslfast.functional.normal_rsample(
        *vae.encode(x * mask), parametrization="log_var", sample_shape=(2,), seed=1
    )
    outputs = vae.decoder(z.flatten(0, 1)).unflatten(0, (2, 6))
    each = {
        "bernoulli": lambda: torch.distributions.Bernoulli(logits=outputs),
        "normal": lambda: torch.distributions.Normal(outputs, 1.0),
        "poisson": lambda: torch.distributions.Poisson(outputs.exp()),
    }[likelihood]().log_prob(x)
    log_p = (each * mask).flatten(2).sum(-1)
    torch.testing.assert_close(found, log_p.mean(0))
    if not options:
        parameters = vae.encode(x * mask)
        scale = parameters[1].div(2).exp()
        log_q = torch.distributions.Normal(parameters[0], scale).log_prob(z).sum(-1)
        log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
        bound = (log_p + log_prior - log_q).logsumexp(0) - math.log(2)
        torch.testing.assert_close(vae.iwae(hidden, 2, mask=mask, seed=1), bound)
        torch.testing.assert_close(vae.log_marginal(hidden, 2, mask=mask, seed=1), bound)
    in_portions = vae.log_marginal(hidden, 5, mask=mask, max_bytes=2 * x[0].nbytes)
    assert in_portions.isfinite().all()
    vae.iwae(hidden, 2, mask=mask, estimator="dreg").sum().backward()
    vae.elbo(hidden, 2, mask=mask).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in vae.parameters())
    with pytest.raises(ValueError, match=r"^mask: expected the shape of x, \(6, 1, 8, 8\), got"):
        vae.elbo(x, mask=mask[:3])


def test_states_of_before_the_likelihood_was_a_module() -> None:
    vae = mlp(likelihood="normal")
    state = vae.state_dict()
    del state["likelihood.raw_scale"]
    state["log_scale"] = torch.tensor(0.7)
    vae.load_state_dict(state)
    assert vae.likelihood.raw_scale.item() == pytest.approx(0.7)
    holder = nn.ModuleDict({"a": mlp(likelihood="normal")})
    holder.load_state_dict({f"a.{key}": value for key, value in state.items()})
    assert holder["a"].likelihood.raw_scale.item() == pytest.approx(0.7)
    vae.reset_parameters()
    assert vae.likelihood.raw_scale.item() == 0


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [
        (lambda: mlp(likelihood=Categorical(2), scale=0.3), ValueError, r"^scale: .* got 0\.3"),
        (lambda: mlp(likelihood="normal", classes=3), ValueError,
         r"^classes: expected None for a likelihood 'normal', got 3"),
        (lambda: mlp(likelihood="categorical"), ValueError, r"^classes: expected their number"),
        (lambda: mlp(likelihood="categorical", classes=1), ValueError, r"^classes: .* got 1"),
        (lambda: mlp(likelihood=Normal(None), scale=0.3), ValueError, r"^scale: .* got 0\.3"),
        (lambda: mlp(likelihood=Normal(1))(binary()), ValueError,
         r"^x: expected shape \[batch, 1\] for Normal\(targets=1.*\(6, 1, 8, 8\)"),
        (lambda: mlp(likelihood="poisson")(0.5 * binary()), ValueError,
         r"^x: expected whole numbers for likelihood 'poisson', got 0\.5"),
        (lambda: mlp(likelihood="continuous_bernoulli")(2 + binary()), ValueError,
         r"^x: expected values in \[0, 1\] for likelihood 'continuous_bernoulli', got 2 to 3"),
    ],
)  # fmt: skip
def test_likelihoods_are_refused(
    call: Callable[[], object], exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        call()


# --- importance-weighted bounds -------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_iwae_is_the_bound_of_log_marginal(estimator: str) -> None:
    vae, x = mlp(), binary()
    found = vae.iwae(x, 7, estimator=estimator, seed=5)
    torch.testing.assert_close(found, vae.log_marginal(x, 7, seed=5), rtol=1e-5, atol=1e-5)
    one = vae.iwae(x, 1, estimator=estimator, seed=5)
    torch.testing.assert_close(one, vae.log_marginal(x, 1, seed=5), rtol=1e-5, atol=1e-5)


def plain_log_weights(vae: VAE, x: Tensor, eps: Tensor, score: bool) -> tuple[Tensor, Tensor]:
    """log w and z by torch.distributions; with ``score``, log q depends on its parameters directly,
    too.
    """
    mu, log_var = vae.encode(x)
    z = mu + (0.5 * log_var).exp() * eps
    given = (mu, log_var) if score else (mu.detach(), log_var.detach())
    posterior = torch.distributions.Normal(given[0], (0.5 * given[1]).exp())
    logits = vae.decoder(z.flatten(0, 1)).reshape(*z.shape[:2], *x.shape[1:])
    likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(x).flatten(2).sum(-1)
    prior = torch.distributions.Normal(torch.zeros_like(mu), 1.0).log_prob(z).sum(-1)
    return likelihood + prior - posterior.log_prob(z).sum(-1), z


@pytest.mark.parametrize("samples", [5, 1])
def test_iwae_gradients_are_those_of_plain_torch(samples: int) -> None:
    vae, x = mlp().double(), binary().double()
    zeros = torch.zeros(6, 2, dtype=torch.float64)
    eps = bslfast.functional.normal_rsample(
        zeros, zeros, parametrization="log_var", sample_shape=(samples,), seed=3
    )
    parameters = list(vae.parameters())
    expected = torch.autograd.grad(
        plain_log_weights(vae, x, eps, True)[0].logsumexp(0).sum(), parameters
    )
    found = torch.autograd.grad(vae.iwae(x, samples, seed=3).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    # Doubly reparametrised: the encoder by squared weights through z alone, the decoder as before.
    log_weights, z = plain_log_weights(vae, x, eps, False)
    weights = log_weights.softmax(0).detach()
    by_z = torch.autograd.grad(log_weights, z, weights.square(), retain_graph=True)[0]
    encoder, decoder = list(vae.encoder.parameters()), list(vae.decoder.parameters())
    expected = torch.autograd.grad(z, encoder, by_z, retain_graph=True)
    expected += torch.autograd.grad(log_weights, decoder, weights)
    bound = vae.iwae(x, samples, estimator="dreg", seed=3)
    found = torch.autograd.grad(bound.sum(), encoder + decoder)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


class Given(nn.Module):
    """An encoder with given outputs."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs


class Narrow(nn.Module):
    """An encoder with mu = x, one variance for every x above 0, and variance 1 for those below."""

    def __init__(self, log_var: float) -> None:
        super().__init__()
        self.log_var = log_var

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.where(x > 0, self.log_var, 0.0)], dim=1)


LOG_VARS = [10.0, 0.0, -20.0, -28.0, -32.0, -40.0, -100.0, -160.0]
LOG_2_PI = math.log(2 * math.pi)


@pytest.mark.parametrize("log_var", LOG_VARS)
def test_log_weights_however_small_the_variance(log_var: float) -> None:
    """Weights come from the noise: z - mu with a rounded z has no digits from log_var = -32 on."""
    x = torch.rand(64, 3) * 3 + 0.1
    vae = VAE(Narrow(log_var), nn.Identity(), likelihood="normal", scale=1.0)
    e = bslfast.functional.standard_normal((5, 64, 3), seed=1).double()
    z = bslfast.functional.normal_rsample(
        x, torch.full_like(x, log_var), parametrization="log_var", sample_shape=(5,), seed=1
    ).double()
    log_q = -0.5 * (e.square() + log_var + LOG_2_PI).sum(-1)
    likelihood = -0.5 * ((x.double() - z).square() + LOG_2_PI).sum(-1)
    prior = -0.5 * (z.square() + LOG_2_PI).sum(-1)
    expected = (likelihood + prior - log_q).logsumexp(0) - math.log(5)
    for found in (
        vae.log_marginal(x, 5, seed=1),
        vae.iwae(x, 5, seed=1),
        vae.iwae(x, 5, estimator="dreg", seed=1),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)

    vae.prior = VampPrior(4, (3,), bounded=False, examples=-1 - torch.rand(4, 3))
    _, kl = vae.terms(x, 5, seed=1)
    u = vae.prior.raw.detach().double()
    components = -0.5 * ((z.unsqueeze(-2) - u).square() + LOG_2_PI).sum(-1)
    expected = (log_q - components.logsumexp(-1) + math.log(4)).mean(0)
    torch.testing.assert_close(kl.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("log_var", [-10.0, -20.0, -40.0, -100.0])
def test_log_marginal_of_one_sample_is_the_bound_on_average(log_var: float) -> None:
    x = torch.rand(4096, 4) * 6 + 0.1
    vae = VAE(Narrow(log_var), nn.Identity(), likelihood="normal", scale=1.0)
    difference = vae.log_marginal(x, 1, seed=1).mean() - vae.elbo(x, seed=2).mean()
    # The mean of 16,384 numbers e^2 / 2, whose variance is 1/2.
    assert abs(difference.item()) < 6 * 4 * (0.5 / 16384) ** 0.5


@pytest.mark.parametrize("log_var", LOG_VARS)
def test_dreg_gradients_however_small_the_variance(log_var: float) -> None:
    """In closed form, log p(x, z) has the derivative x - 2 z, and -log q(z) has e / scale."""
    x = torch.randn(16, 3)
    mu_and_log_var = torch.cat([x, torch.full_like(x, log_var)], dim=1).requires_grad_()
    vae = VAE(Given(mu_and_log_var), nn.Identity(), likelihood="normal", scale=1.0)
    bound = vae.iwae(x, 5, estimator="dreg", seed=1)
    weight = torch.linspace(0.5, 2.0, 16)
    (found,) = torch.autograd.grad((bound * weight).sum(), mu_and_log_var)

    e = bslfast.functional.standard_normal((5, 16, 3), seed=1).double()
    z = bslfast.functional.normal_rsample(
        x, torch.full_like(x, log_var), parametrization="log_var", sample_shape=(5,), seed=1
    ).double()
    scale = math.exp(log_var / 2)
    log_weights = (0.5 * (e.square() - z.square() - (x - z).square())).sum(-1)
    weights = log_weights.softmax(0).square().unsqueeze(-1) * weight.double().unsqueeze(-1)
    by_z = weights * (x - 2 * z + e / scale)
    expected = torch.cat([by_z.sum(0), (by_z * (0.5 * scale * e)).sum(0)], dim=1)
    for a, b in zip(found.double().chunk(2, 1), expected.chunk(2, 1), strict=True):
        size = b.abs().max().item()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5 * size)


def test_both_estimators_have_the_same_mean() -> None:
    """The encoder's gradient has the same mean and, doubly reparametrised, a smaller spread.

    There are 4000 draws, and 5.5 standard errors for each of four numbers (false alarms: 2e-7).
    """
    torch.manual_seed(3)
    vae, x = mlp(), binary(1).expand(4000, *SHAPE).contiguous()
    found = {}
    for estimator in ("iwae", "dreg"):
        each = vae.encoder(x).detach().requires_grad_()
        given = VAE(Given(each), vae.decoder)
        found[estimator] = torch.autograd.grad(given.iwae(x, 20, estimator=estimator).sum(), each)[
            0
        ]
    mean = {k: g.mean(0) for k, g in found.items()}
    variance = {k: g.var(0) for k, g in found.items()}
    error = ((variance["iwae"] + variance["dreg"]) / 4000).sqrt()
    assert ((mean["iwae"] - mean["dreg"]).abs() < 5.5 * error).all()
    assert variance["dreg"].sum() < variance["iwae"].sum()


@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_iwae_trains_and_runs_without_gradients(estimator: str) -> None:
    vae, x = mlp(), binary()
    with torch.no_grad():
        assert vae.iwae(x, 3, estimator=estimator).shape == (6,)
    vae.iwae(x, 3, estimator=estimator).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    with pytest.raises(ValueError, match=r"^samples: .* got 0"):
        vae.iwae(x, 0)
    with pytest.raises(ValueError, match=r"^estimator: .*'iwae', 'dreg', got 'vimco'"):
        vae.iwae(x, estimator="vimco")


# --- free bits, weights, another prior ------------------------------------------------------------


def test_free_bits_formula() -> None:
    kl = torch.rand(7, 5, dtype=torch.float64, requires_grad=True)
    for minimum in (0.0, 0.4, 0.5, 0.6, 2.0):
        found = bslfast.free_bits(kl, minimum).mean()
        expected = kl.mean(0).clamp_min(minimum).sum()
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad(y, kl, allow_unused=True)[0] for y in (found, expected)]
        torch.testing.assert_close(*grads)
    weights = torch.rand(7, dtype=torch.float64)
    found = bslfast.free_bits(kl, 0.5, weights=weights)
    mean = (weights @ kl) / weights.sum()
    expected = mean.clamp_min(0.5).sum()
    torch.testing.assert_close((weights * found).sum() / weights.sum(), expected)
    for wrong, exception, match in (
        ((kl[0], 0.5), ValueError, r"^kl: .*\[batch, dimensions\]"),
        ((kl, -0.5), ValueError, r"^minimum: .* got -0\.5"),
        ((kl, None), TypeError, r"^minimum: "),
    ):
        with pytest.raises(exception, match=match):
            bslfast.free_bits(*wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^weights: expected one for each of 7"):
        bslfast.free_bits(kl, 0.5, weights=weights[1:])


def test_elbo_with_free_bits() -> None:
    vae, x = mlp(beta=0.5), binary()
    mu, log_var = vae.encode(x)
    kl = bslfast.functional.normal_kl(mu, log_var, parametrization="log_var", reduction="none")
    log_likelihood, _ = vae.terms(x, seed=1)
    minimum = kl.mean(0).mean().item()  # between those of the two dimensions
    vae.free_bits = minimum
    expected = log_likelihood.mean() - 0.5 * kl.mean(0).clamp_min(minimum).sum()
    found = vae.elbo(x, seed=1).mean()
    torch.testing.assert_close(found, expected)
    parameters = list(vae.parameters())
    for a, b in zip(
        torch.autograd.grad(found, parameters),
        torch.autograd.grad(expected, parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert vae.elbo(x, 3, seed=1).shape == (6,)


def test_elbo_and_kl() -> None:
    vae, x = mlp(beta=0.5), binary()
    for free in (0.0, 0.3):
        vae.free_bits = free
        elbo, kl = vae.elbo_and_kl(x, n_samples=3, seed=2)
        assert torch.equal(elbo, vae.elbo(x, 3, seed=2))
        torch.testing.assert_close(kl, vae.terms(x, 3, seed=2)[1])


def test_weights_of_examples() -> None:
    vae, x, weights = mlp(), binary(), torch.rand(6)
    expected = weights * vae.elbo(x, seed=2)
    torch.testing.assert_close(vae.elbo(x, weights=weights, seed=2), expected)
    log_likelihood = torch.randn(6)
    found = bslfast.negative_elbo(log_likelihood, 3.0, dataset_size=10, weights=weights)
    torch.testing.assert_close(found, 0.3 - (weights * log_likelihood).mean())
    with pytest.raises(ValueError, match=r"^weights: expected one for each of 6 examples"):
        vae.elbo(x, weights=weights[1:])
    with pytest.raises(TypeError, match=r"^weights: "):
        bslfast.negative_elbo(log_likelihood, 3.0, dataset_size=10, weights=weights.long())
    for bad, shown in ((weights - 2, "-"), (weights * math.nan, "nan")):
        for call in (
            lambda bad=bad: vae.elbo(x, weights=bad),
            lambda bad=bad: bslfast.negative_elbo(
                log_likelihood, 3.0, dataset_size=10, weights=bad
            ),
            lambda bad=bad: bslfast.free_bits(torch.rand(6, 3), 0.5, weights=bad),
        ):
            with pytest.raises(ValueError, match=f"^weights: expected .* least 0, got {shown}"):
                call()
    assert bslfast.negative_elbo(log_likelihood, 3.0, dataset_size=1, weights=weights * 0) == 3.0


def vamp(shape: tuple[int, ...] = SHAPE, **options: object) -> VAE:
    return VAE(
        mlp_encoder(SHAPE, 2, (16,)), mlp_decoder(2, SHAPE, (16,)), prior=VampPrior(5, shape),
        **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("n_samples", [1, 3])
def test_vamp_prior_is_a_mixture_of_posteriors(n_samples: int) -> None:
    vae, x = vamp().double(), binary().double()
    assert vae.prior is not None
    log_likelihood, kl = vae.terms(x, n_samples, seed=4)
    mu, log_var = vae.encode(x)
    shape = () if n_samples == 1 else (n_samples,)
    z = bslfast.functional.normal_rsample(
        mu, log_var, parametrization="log_var", sample_shape=shape, seed=4
    )
    posterior = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    u_mu, u_log_var = vae.encode(vae.prior.pseudo_inputs)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(5, dtype=torch.float64)),
        torch.distributions.Independent(
            torch.distributions.Normal(u_mu, (0.5 * u_log_var).exp()), 1
        ),
    )
    expected = posterior.log_prob(z).sum(-1) - mixture.log_prob(z)
    expected = expected if n_samples == 1 else expected.mean(0)
    torch.testing.assert_close(kl, expected)
    parameters = [*vae.encoder.parameters(), vae.prior.raw]
    for a, b in zip(
        torch.autograd.grad(kl.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(vae.elbo(x, n_samples, seed=4), log_likelihood - kl)


def test_vamp_prior_in_every_method() -> None:
    vae, x = vamp(), binary()
    assert vae.sample(4, seed=1).shape == (4, *SHAPE)
    assert torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=1))
    assert not torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=2))
    torch.testing.assert_close(vae.iwae(x, 7, seed=5), vae.log_marginal(x, 7, seed=5))
    for bound in (vae(x), vae.iwae(x, 3, estimator="dreg")):
        vae.zero_grad()
        bound.mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert isinstance(vae.prior, VampPrior)
    assert 0 < vae.prior.pseudo_inputs.min() <= vae.prior.pseudo_inputs.max() < 1
    fresh = vamp()
    fresh.load_state_dict(vae.state_dict())
    assert torch.equal(fresh.elbo(x, seed=0), vae.elbo(x, seed=0))


def test_vamp_prior_begins_with_examples() -> None:
    x = binary(5)
    torch.testing.assert_close(VampPrior(5, SHAPE, examples=x).pseudo_inputs, x.clamp(0.01, 0.99))
    assert torch.equal(VampPrior(5, SHAPE, examples=x, bounded=False).pseudo_inputs, x)
    for wrong, exception, match in (
        (lambda: VampPrior(0, SHAPE), ValueError, r"^n: .* got 0"),
        (lambda: VampPrior(5, ()), ValueError, r"^shape: .* got \(\)"),
        (lambda: VampPrior(5, SHAPE, bounded=1), TypeError, r"^bounded: "),  # type: ignore[arg-type]
        (lambda: VampPrior(4, SHAPE, examples=x), ValueError, r"^examples: .*\(5, 1, 8, 8\)"),
        (
            lambda: mlp(prior=nn.Identity()),
            TypeError,
            r"^prior: expected None, a VampPrior, a flow",
        ),
        (lambda: mlp(free_bits=-1.0), ValueError, r"^free_bits: .* got -1\.0"),
        (lambda: vamp(free_bits=0.5), ValueError, r"^free_bits: expected 0 with a VampPrior"),
    ):
        with pytest.raises(exception, match=match):
            wrong()
