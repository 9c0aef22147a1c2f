"""Autoencoders of class labels: values, gradients, both forms of x, and labels that are missing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import metrics
from bslfast.likelihoods import Categorical
from bslfast.training import fit
from bslfast.vae import (
    VAE,
    Autoencoder,
    SemiSupervisedVAE,
    VampPrior,
    mlp_decoder,
    mlp_encoder,
)

CLASSES = 4
#: Shapes of the labels of an example, and of its one-hot rows.
SHAPES = [((5,), (20,)), ((1, 3, 2), (4, 3, 2)), ((3, 2, 2), (12, 2, 2))]


def made(shape: tuple[int, ...], **options: object) -> VAE:
    networks = mlp_encoder(shape, 2, (16,)), mlp_decoder(2, shape, (16,))
    return VAE(*networks, likelihood="categorical", classes=CLASSES, **options).double()  # type: ignore[arg-type]


def labels(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Indices, and the same as one-hot rows with the labels of a class side by side."""
    x = torch.randint(CLASSES, (6, *shape))
    hot = torch.stack([x == label for label in range(CLASSES)], dim=1)
    return x, hot.flatten(1, 2).double()


def by_torch(outputs: Tensor, x: Tensor) -> Tensor:
    """Log probabilities of each label, from outputs [..., batch, classes * channels, ...]."""
    dim = outputs.dim() - x.dim() + 1
    logits = outputs.unflatten(dim, (CLASSES, -1)).movedim(dim, -1)
    return torch.distributions.Categorical(logits=logits).log_prob(x)


@pytest.mark.parametrize(("shape", "wide"), SHAPES)
@pytest.mark.parametrize("n_samples", [1, 3])
def test_terms_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], wide: tuple[int, ...], n_samples: int
) -> None:
    vae, (x, hot) = made(wide), labels(shape)
    found, kl = vae.terms(x, n_samples, seed=5)
    mu, log_var = vae.encoder(hot).chunk(2, 1)
    z = bslfast.functional.normal_rsample(
        mu, log_var, parametrization="log_var", sample_shape=(n_samples,), seed=5
    )
    if n_samples == 1:
        z = bslfast.functional.normal_rsample(mu, log_var, parametrization="log_var", seed=5)[None]
    outputs = torch.stack([vae.decoder(codes) for codes in z])
    expected = by_torch(outputs, x).flatten(2).sum(-1).mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    parameters = list(vae.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        rtol=1e-9,
        atol=1e-12,
    )
    torch.testing.assert_close(vae.elbo(x, n_samples, seed=5), expected - kl)


METHODS: dict[str, Callable[[VAE, Tensor], Tensor]] = {
    "forward": lambda v, x: v(x),
    "elbo": lambda v, x: v.elbo(x, 2),
    "elbo_and_kl": lambda v, x: v.elbo_and_kl(x)[0],
    "iwae": lambda v, x: v.iwae(x, 3),
    "dreg": lambda v, x: v.iwae(x, 3, estimator="dreg"),
    "log_marginal": lambda v, x: v.log_marginal(x, 5),
    "encode": lambda v, x: v.encode(x)[0],
    "codes": lambda v, x: v.codes(x),
    "reconstruct": lambda v, x: v.reconstruct(x),
    "interpolate": lambda v, x: v.interpolate(x, x.flip(0), 3),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("shape", "wide"), SHAPES)
def test_indices_and_one_hot_rows_are_the_same(
    shape: tuple[int, ...], wide: tuple[int, ...], name: str
) -> None:
    vae, found = made(wide), []
    for x in labels(shape):
        torch.manual_seed(2)
        found.append(METHODS[name](vae, x))
    assert found[0].isfinite().all()
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(("shape", "wide"), SHAPES)
def test_probabilities_modes_and_samples(shape: tuple[int, ...], wide: tuple[int, ...]) -> None:
    vae, (x, hot) = made(wide), labels(shape)
    z = torch.randn(7, 2, dtype=torch.float64)
    probabilities = vae.decode(z)
    assert probabilities.shape == (7, *wide)
    by_class = probabilities.unflatten(1, (CLASSES, -1))
    torch.testing.assert_close(by_class.sum(1), torch.ones(7, *shape, dtype=torch.float64))
    outputs = vae.decoder(z)
    for label in range(CLASSES):
        of_label = torch.full((7, *shape), label)
        torch.testing.assert_close(by_class[:, label], by_torch(outputs, of_label).exp())
    assert vae.reconstruct(x).shape == hot.shape
    assert vae.sample(3).shape == (3, *wide)
    law = vae.likelihood.distribution(outputs, dim=1)
    assert torch.equal(law.mode, by_class.argmax(1))
    # 5 standard errors of a frequency among 20,000, in each of 8 to 48 numbers and 4 classes.
    drawn = vae.likelihood.sample(outputs[:1].expand(20_000, *wide), dim=1, seed=3)
    assert drawn.shape == (20_000, *shape)
    for label in range(CLASSES):
        share, p = (drawn == label).double().mean(0), by_class[0, label]
        assert ((share - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt() + 1e-9).all()


@pytest.mark.parametrize(("shape", "wide"), SHAPES)
def test_missing_labels(shape: tuple[int, ...], wide: tuple[int, ...]) -> None:
    """The encoder sees zeros, and the likelihood is that of the others."""
    vae, (x, hot) = made(wide), labels(shape)
    mask = torch.rand(6, *shape) > 0.4
    wide_mask = mask.repeat(1, CLASSES, *[1] * (len(shape) - 1))
    found = vae.terms(x.masked_fill(~mask, -1), 2, mask=mask, seed=1)
    also = vae.terms(hot.masked_fill(~wide_mask, math.nan), 2, mask=mask, seed=1)
    torch.testing.assert_close(found, also)
    mu, log_var = vae.encoder(hot * wide_mask).chunk(2, 1)
    z = bslfast.functional.normal_rsample(
        mu, log_var, parametrization="log_var", sample_shape=(2,), seed=1
    )
    each = by_torch(torch.stack([vae.decoder(codes) for codes in z]), x) * mask
    torch.testing.assert_close(found[0], each.flatten(2).sum(-1).mean(0))
    for bound in (vae.iwae(x, 3, mask=mask), vae.log_marginal(x, 3, mask=mask)):
        bound.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    with pytest.raises(ValueError, match=r"^mask: expected the shape of x"):
        vae.elbo(x, mask=mask[:3])
    with pytest.raises(ValueError, match=r"^mask: expected one for each value of x"):
        vae.elbo(hot, mask=wide_mask[:, : 1 + len(hot[0])])
    with pytest.raises(TypeError, match=r"^mask: expected a bool tensor"):
        vae.elbo(hot, mask=mask.double())
    with pytest.raises(ValueError, match=r"^x: expected one-hot rows, or a mask"):
        vae.elbo(0 * hot, mask=mask)


def test_an_instance_and_the_law_of_uniform_labels() -> None:
    """A decoder of zeros gives each label log(1 / 4): two bits."""
    decoder = nn.Linear(2, 20)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    encoder = mlp_encoder((20,), 2, (8,))
    x = torch.randint(CLASSES, (6, 5))
    vae = VAE(encoder, decoder, likelihood=Categorical(CLASSES))
    log_p = vae.log_marginal(x, 4)
    log_likelihood, _ = vae.terms(x)
    torch.testing.assert_close(log_likelihood, torch.full((6,), -5 * math.log(4)))
    assert metrics.bits_per_dim(log_likelihood, 5) == pytest.approx(2.0)
    assert log_p.shape == (6,)
    assert "classes=4" in repr(vae)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_16_bits_are_float32(dtype: torch.dtype) -> None:
    vae = made((20,)).to(dtype)
    x = torch.randint(CLASSES, (6, 5))
    assert vae.elbo(x).dtype is torch.float32
    outputs = vae.decoder(torch.randn(6, 2, dtype=dtype))
    exact = by_torch(outputs.double(), x).sum(1)
    torch.testing.assert_close(
        vae.likelihood.log_prob(outputs, x).double(), exact, rtol=1e-5, atol=1e-5
    )


def test_autoencoder_prior_and_training() -> None:
    x = torch.randint(2, (1, 1, 3, 2)).repeat(100, 1, 1, 1)
    shape = (CLASSES, 3, 2)
    model = Autoencoder(
        mlp_encoder(shape, 2, (8,), deterministic=True), mlp_decoder(2, shape, (8,)),
        likelihood="categorical", classes=CLASSES,
    )  # fmt: skip
    expected = by_torch(model.decoder(model.encode(x)), x).flatten(1).sum(1)
    torch.testing.assert_close(model(x), expected)
    vae = made(shape, prior=VampPrior(3, shape), latent=2).float()
    for trained, objective in ((model, Autoencoder.forward), (vae, VAE.elbo_and_kl)):
        history = fit(trained, (x,), (x[:9],), epochs=10, batch_size=10, objective=objective)  # type: ignore[arg-type]
        assert history.loss[-1] < 0.5 * history.loss[0]
    assert torch.equal(model.reconstruct(x[:1]).argmax(1, keepdim=True), x[:1])


def test_the_compiler_and_the_reference() -> None:
    vae, (x, _) = made((20,)), labels((5,))
    expected = vae.elbo(x, seed=1)
    with bslfast.functional.use_reference():
        torch.testing.assert_close(vae.elbo(x, seed=1), expected)
    compiled = torch.compile(lambda x: vae.elbo(x, seed=1), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)
    # Compiled code, as code on an accelerator, does not stop for wrong labels.
    assert compiled(x + 4).isnan().all()
    assert compiled(torch.zeros(6, 20, dtype=torch.float64)).isnan().all()


def test_labels_in_a_semi_supervised_model() -> None:
    networks = mlp_encoder((20,), 2, (8,), context=3), mlp_decoder(2, (20,), (8,), context=3)
    vae = VAE(*networks, likelihood=Categorical(CLASSES), latent=2)
    classifier = mlp_encoder((20,), 2, (8,), outputs=3)
    model = SemiSupervisedVAE(vae, classifier, classes=3, labelled=0.5).double()
    (x, hot), y = labels((5,)), torch.tensor([0, 1, 2, -1, -1, -1])
    mask = torch.rand(6, 5) > 0.4
    for given in ({}, {"mask": mask}):
        found = model.objective(x, y, seed=1, **given)
        torch.testing.assert_close(model.objective(hot, y, seed=1, **given), found)
        assert found.isfinite().all()
    torch.testing.assert_close(model.log_marginal(x, 3, seed=1), model.log_marginal(hot, 3, seed=1))
    torch.testing.assert_close(model.classify(x), model.classify(hot))


X, HOT = torch.zeros(6, 5, dtype=torch.int64), torch.zeros(6, 20, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (X + 4, ValueError, r"^x: expected class indices from 0 to 3, got 4 to 4"),
        (X - 1, ValueError, r"^x: expected class indices from 0 to 3, got -1 to -1"),
        (X[0], ValueError, r"^x: expected int64 indices \[batch, \.\.\.\], or one-hot rows of 4"),
        (X.int(), TypeError, r"^x: expected int64 indices .* int32"),
        (X.double(), ValueError, r"^x: expected int64 indices .*\(6, 5\)"),
        (HOT + 0.25, ValueError, r"^x: .* with other values"),
        (HOT + 1, ValueError, r"^x: .* with other values"),
        (HOT + math.nan, ValueError, r"^x: .* with other values"),
        (HOT, ValueError, r"^x: expected one-hot rows, or a mask"),
        (torch.zeros(6, 6, dtype=torch.int64), ValueError, r"^decoder: expected outputs of shape"),
    ],
)
def test_wrong_labels(x: Tensor, error: type[Exception], match: str) -> None:
    networks = nn.LazyLinear(4), nn.Linear(2, 20)
    vae = VAE(*networks, likelihood="categorical", classes=CLASSES, latent=2).double()
    with pytest.raises(error, match=match):
        vae.elbo(x)
    with pytest.raises(error, match=match):
        vae.elbo(x, 2)
