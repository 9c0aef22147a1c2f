"""Conditional autoencoders: who gets which row of the context, and an exact model.

Also the capacity and lines between codes.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from bslfast.flows import Base, NormalBase
from bslfast.training import fit
from bslfast.vae import (
    VAE,
    Autoencoder,
    DiagonalNormal,
    FullCovarianceNormal,
    GumbelSoftmax,
    WithContext,
    conv_decoder,
    conv_encoder,
    mlp_decoder,
    mlp_encoder,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


class Calls:
    """What encoder, decoder and prior were called with: x, codes and contexts."""

    def __init__(self) -> None:
        self.seen: dict[str, list[tuple[Tensor, Tensor | None]]] = {}

    def note(self, name: str, x: Tensor, context: Tensor | None) -> None:
        assert context is not None
        if name == "decoder" and len(x) == 1 and not x.any():
            return  # the row whose size is measured
        self.seen.setdefault(name, []).append((x.detach(), context))
        # A row's code and its x say which context belongs to it.
        found = context.expand(*x.shape[:-1], 2)
        torch.testing.assert_close(x[..., :2].detach(), found, rtol=0, atol=1e-6)


class Watched(nn.Module):
    """An encoder with mu = x and next to no variance, or a decoder that returns the codes."""

    def __init__(self, name: str, calls: Calls) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls.note(self.name, x, context)
        if self.name == "decoder":
            return x
        return x if self.name == "points" else torch.cat([x, torch.full_like(x, -60.0)], dim=1)


class WatchedPrior(Base):
    def __init__(self, calls: Calls) -> None:
        super().__init__(2, context=2)
        self.calls = calls

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls.note("prior", z, context)
        return Normal(0.0, 1.0).log_prob(z).sum(-1)

    def rsample(self, like: Tensor, context: Any, seed: Any) -> Tensor:
        assert isinstance(context, Tensor)
        self.calls.seen.setdefault("drawn", []).append((like, context))
        return context.expand(like.shape)


METHODS: dict[str, tuple[Callable[[Any, Tensor, Tensor], Any], set[str]]] = {
    "forward": (lambda v, x, c: v(x, c), {"encoder", "decoder", "prior"}),
    "elbo": (lambda v, x, c: v.elbo(x, 3, context=c), {"encoder", "decoder", "prior"}),
    "elbo_and_kl": (lambda v, x, c: v.elbo_and_kl(x, c), {"encoder", "decoder", "prior"}),
    "terms": (lambda v, x, c: v.terms(x, 2, context=c), {"encoder", "decoder", "prior"}),
    "masked": (
        lambda v, x, c: v.elbo(x, 2, context=c, mask=torch.ones_like(x) > 0),
        {"encoder", "decoder", "prior"},
    ),
    "iwae": (lambda v, x, c: v.iwae(x, 4, context=c), {"encoder", "decoder", "prior"}),
    "dreg": (
        lambda v, x, c: v.iwae(x, 4, context=c, estimator="dreg"),
        {"encoder", "decoder", "prior"},
    ),
    "log_marginal": (
        lambda v, x, c: v.log_marginal(x, 9, context=c),
        {"encoder", "decoder", "prior"},
    ),
    "portions": (
        lambda v, x, c: v.log_marginal(x, 9, context=c, max_bytes=50 * x[0].nbytes),
        {"encoder", "decoder", "prior"},
    ),
    "few rows": (
        lambda v, x, c: v.log_marginal(x, 3, context=c, max_bytes=16 * x[0].nbytes),
        {"encoder", "decoder", "prior"},
    ),
    "encode": (lambda v, x, c: v.encode(x, c), {"encoder"}),
    "decode": (lambda v, x, c: v.decode(x, c), {"decoder"}),
    "reconstruct": (lambda v, x, c: v.reconstruct(x, c), {"encoder", "decoder"}),
    "interpolate": (lambda v, x, c: v.interpolate(x, x, 3, context=c), {"encoder", "decoder"}),
    "sample": (lambda v, x, c: v.sample(6, c), {"drawn", "decoder"}),
}


def watched() -> tuple[VAE, Calls]:
    calls = Calls()
    vae = VAE(
        Watched("encoder", calls), Watched("decoder", calls), likelihood="normal", scale=1.0,
        prior=WatchedPrior(calls),
    )  # fmt: skip
    return vae, calls


@pytest.mark.parametrize("name", METHODS)
def test_each_row_meets_its_own_context(name: str) -> None:
    """Encoder, decoder and prior all get it, for each sample and in each portion."""
    vae, calls = watched()
    x = torch.randn(6, 2, requires_grad=True)
    call, wanted = METHODS[name]
    call(vae, x, x.detach())
    assert calls.seen.keys() == wanted
    rows = sum(len(codes) for codes, _ in calls.seen.get("decoder", []))
    assert rows == {
        "elbo": 18, "terms": 12, "masked": 12, "iwae": 24, "dreg": 24, "log_marginal": 54,
        "portions": 54, "few rows": 18, "interpolate": 18, "encode": 0,
    }.get(name, 6)  # fmt: skip


@pytest.mark.parametrize("name", ["forward", "encode", "decode", "reconstruct", "interpolate"])
def test_each_row_of_an_autoencoder_meets_its_own_context(name: str) -> None:
    calls = Calls()
    model = Autoencoder(
        Watched("points", calls), Watched("decoder", calls), likelihood="normal", scale=1.0
    )
    x = torch.randn(6, 2)
    METHODS[name][0](model, x, x)
    wanted = METHODS[name][1] - {"prior"}
    assert calls.seen.keys() == {"points" if n == "encoder" else n for n in wanted}


# --- an exact model -------------------------------------------------------------------------------


class Linear(nn.Module):
    """x and the context side by side, by a linear map; further outputs are constants."""

    def __init__(self, matrix: Tensor, constant: Tensor) -> None:
        super().__init__()
        self.matrix, self.constant = nn.Parameter(matrix), constant

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = torch.cat([x, context], dim=1) @ self.matrix.T
        return torch.cat([y, self.constant.expand(len(x), -1)], dim=1)


def test_an_exact_conditional_model() -> None:
    """x = W z + V c + s e: log p(x | c) in closed form is each importance weight."""
    w, v, scale = torch.randn(4, 2, **DOUBLE), torch.randn(4, 3, **DOUBLE), 0.6
    covariance = torch.linalg.inv(torch.eye(2, **DOUBLE) + w.T @ w / scale**2)
    gain = covariance @ w.T / scale**2
    tril = torch.linalg.cholesky(covariance)
    constant = torch.cat([tril.diagonal().log(), tril[1, :1]])
    vae = VAE(
        Linear(torch.cat([gain, -gain @ v], 1), constant),
        Linear(torch.cat([w, v], 1), torch.empty(0, **DOUBLE)),
        likelihood="normal", scale=scale, posterior=FullCovarianceNormal(),
    )  # fmt: skip
    x, c = torch.randn(30, 4, **DOUBLE), torch.randn(30, 3, **DOUBLE)
    marginal = MultivariateNormal(
        c @ v.T, (w @ w.T + scale**2 * torch.eye(4, **DOUBLE)).expand(30, 4, 4)
    )
    with torch.no_grad():
        found = vae.log_marginal(x, 3, context=c)
        torch.testing.assert_close(found, marginal.log_prob(x), rtol=1e-11, atol=1e-11)
        # Portions of examples take their own rows of the context.
        found = vae.log_marginal(x, 3, context=c, max_bytes=7 * x[0].nbytes)
        torch.testing.assert_close(found, marginal.log_prob(x), rtol=1e-11, atol=1e-11)
        assert (vae.log_marginal(x, 3, context=c + 1) - marginal.log_prob(x)).abs().min() > 1e-3
        elbo = vae.elbo(x, 20_000, context=c, seed=1)
    assert (elbo - marginal.log_prob(x)).abs().max() < 0.05


# --- networks -------------------------------------------------------------------------------------


def conditional(kind: str = "mlp", **options: Any) -> VAE:
    if kind == "conv":
        return VAE(
            conv_encoder((1, 8, 8), 2, (4,), (2,), context=3),
            conv_decoder(2, (1, 8, 8), (4,), (2,), context=3),
            **options,
        )
    posterior = options.get("posterior", DiagonalNormal())
    outputs = {GumbelSoftmax: 8, FullCovarianceNormal: 5}.get(type(posterior), 4)
    return VAE(
        mlp_encoder((1, 8, 8), 2, (8,), outputs=outputs, context=3),
        mlp_decoder(posterior.code_size(2), (1, 8, 8), (8,), context=3),
        **options,
    )


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_networks_with_a_context(kind: str) -> None:
    vae, x = conditional(kind).eval(), torch.rand(6, 1, 8, 8)
    context = torch.eye(3).repeat(2, 1)
    expected = vae.elbo(x, 2, context=context, seed=1)
    assert expected.shape == (6,)
    # One row does not see the context of another; its own matters.
    changed = torch.cat([context[:3], context[3:].roll(1, 0)])
    other = vae.elbo(x, 2, context=changed, seed=1)
    torch.testing.assert_close(other[:3], expected[:3])
    assert ((other[3:] - expected[3:]).abs() > 1e-5).all()
    for model in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae))):
        assert torch.equal(model.elbo(x, 2, context=context, seed=1), expected)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x, c: vae.elbo(x, 2, context=c, seed=1), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(compiled(x, context), expected)
    with torch.autocast("cpu", torch.bfloat16):
        low = vae.elbo(x, 2, context=context, seed=1)
    torch.testing.assert_close(low, expected, rtol=0.02, atol=0.1)
    vae.train()
    vae(x, context).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    line = vae.eval().interpolate(x[:3], x[3:], 4, context=context[:3])
    assert line.shape == (4, 3, 1, 8, 8)
    torch.testing.assert_close(line[0], vae.reconstruct(x[:3], context[:3]))
    torch.testing.assert_close(line[-1], vae.reconstruct(x[3:], context[:3]))
    assert vae.sample(5, context[:1], seed=1).shape == (5, 1, 8, 8)
    assert torch.equal(
        vae.sample(5, context[:1], seed=1), vae.sample(5, context[:1].expand(5, 3), seed=1)
    )


def test_fit_trains_a_conditional_one() -> None:
    """By fit's (x, context); the label says which of two images it is."""
    images = (torch.rand(2, 1, 8, 8) > 0.5).float()
    labels = torch.arange(200) % 2
    context = nn.functional.one_hot(labels, 3).float()
    # So weighted, codes say nothing, and what the label says must come from the context.
    vae = conditional(beta=20.0)
    history = fit(vae, (images[labels], context), epochs=40, objective=VAE.elbo_and_kl, lr=0.03)
    assert history.loss[-1] < 5 < history.loss[0]
    drawn = vae.sample(40, context[:1])
    assert ((drawn - images[0]).abs() < 0.5).float().mean() > 0.95
    assert history.kl[-1] < 0.1


@pytest.mark.parametrize("posterior", [FullCovarianceNormal, lambda: GumbelSoftmax(4)])
def test_other_posteriors_with_a_context(posterior: Callable[[], Any]) -> None:
    vae, x, context = conditional(posterior=posterior()), torch.rand(6, 1, 8, 8), torch.rand(6, 3)
    for bound in (
        vae(x, context),
        vae.elbo(x, 3, context=context),
        vae.iwae(x, 3, context=context),
        vae.log_marginal(x, 3, context=context),
    ):
        assert bound.shape == (6,)
        bound.sum().backward()
    assert vae.reconstruct(x, context).shape == vae.sample(6, context).shape == x.shape


# --- the capacity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"beta": 3.0}, {"free_bits": 0.3, "beta": 0.5}])
def test_capacity(options: dict[str, float]) -> None:
    """|KL - C| in the place of KL, with its gradient; the divergence itself is left alone."""
    vae = VAE(mlp_encoder((5,), 2, (8,)), mlp_decoder(2, (5,), (8,)), **options).double()  # type: ignore[arg-type]
    x = torch.rand(6, 5, **DOUBLE)
    plain = vae.elbo(x, seed=1)
    log_likelihood, kl = vae.terms(x, seed=1)
    beta = options.get("beta", 1.0)
    counted = (log_likelihood - plain) / beta
    for capacity in (0.0, counted.mean().item(), 25.0):
        vae.capacity = capacity
        found, divergence = vae.elbo_and_kl(x, seed=1)
        torch.testing.assert_close(divergence, kl)
        expected = log_likelihood - beta * (counted - capacity).abs()
        torch.testing.assert_close(found, expected)
        parameters = list(vae.parameters())
        grads = [
            torch.autograd.grad(y.sum(), parameters, retain_graph=True) for y in (found, expected)
        ]
        torch.testing.assert_close(*grads)
        weights = torch.rand(6, **DOUBLE)
        if "free_bits" not in options:
            torch.testing.assert_close(vae.elbo(x, weights=weights, seed=1), weights * found)
    for wrong, exception in ((-1.0, ValueError), ("1", TypeError), (float("nan"), ValueError)):
        with pytest.raises(exception, match=r"^capacity: "):
            VAE(nn.Identity(), nn.Identity(), capacity=wrong)  # type: ignore[arg-type]


def test_the_divergence_is_kept_at_the_capacity() -> None:
    x = (torch.rand(200, 5) > 0.5).float()
    vae = VAE(mlp_encoder((5,), 2, (16,)), mlp_decoder(2, (5,), (16,)), beta=20.0, capacity=1.5)
    fit(vae, (x,), epochs=60, objective=VAE.elbo_and_kl, lr=0.01)
    assert vae.terms(x)[1].mean().item() == pytest.approx(1.5, abs=0.2)


def test_free_bits_of_categories() -> None:
    vae = VAE(
        mlp_encoder((5,), 2, (8,), outputs=8), mlp_decoder(8, (5,), (8,)),
        posterior=GumbelSoftmax(4), free_bits=0.05,
    ).double()  # fmt: skip
    x = torch.rand(6, 5, **DOUBLE)
    log_likelihood, each = vae.terms(x, seed=1, reduction="none")
    assert each.shape == (6, 2)
    expected = log_likelihood.mean() - each.mean(0).clamp_min(0.05).sum()
    torch.testing.assert_close(vae.elbo(x, seed=1).mean(), expected)


# --- errors ---------------------------------------------------------------------------------------

X = torch.rand(6, 1, 8, 8)


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [
        (lambda v: v(X), ValueError, r"^context: expected shape \[6, 3\], got None"),
        (lambda v: v(X, torch.rand(5, 3)), ValueError, r"^context: expected shape \[6, \.\.\.\]"),
        (lambda v: v(X, torch.rand(6, 4)), ValueError, r"^context: expected shape \[6, 3\].*6, 4"),
        (lambda v: v(X, torch.rand(6)), ValueError, r"^context: expected shape \[6, 3\], got"),
        (lambda v: v(X, torch.tensor(1.0)), ValueError, r"^context: expected shape \[6, "),
        (lambda v: v(X, torch.zeros(6, dtype=torch.int64)), TypeError, r"^context: .*int64"),
        (lambda v: v(X, [1.0]), TypeError, r"^context: .* got a list"),
        (lambda v: v.log_marginal(X, context=torch.rand(5, 3)), ValueError, r"^context: "),
        (lambda v: v.iwae(X, context=torch.rand(5, 3)), ValueError, r"^context: "),
        (lambda v: v.reconstruct(X, torch.rand(5, 3)), ValueError, r"^context: "),
        (lambda v: v.decode(torch.rand(6, 2), torch.rand(5, 3)), ValueError,
         r"^context: expected shape \[6, \.\.\.\], as z has so many rows, got .*5, 3"),
        (lambda v: v.decode(torch.rand(6, 2)), ValueError, r"^context: .* got None"),
        (lambda v: v.sample(4, torch.rand(3, 3)), ValueError, r"^context: expected shape \[4, "),
        (lambda v: v.sample(4, torch.tensor(1.0)), ValueError, r"^context: expected shape \[4, "),
        (lambda v: v.interpolate(X, X[:5], context=torch.rand(6, 3)), ValueError, r"^to:"),
        (lambda v: v.interpolate(X, X, 1, context=torch.rand(6, 3)), ValueError, r"^n: .* got 1"),
        (lambda v: VAE(mlp_encoder((1, 8, 8), 2), v.decoder)(X, torch.rand(6, 3)),
         TypeError, r"^context: expected None, as the encoder, a Sequential, takes one, got"),
        (lambda v: VAE(v.encoder, mlp_decoder(2, (1, 8, 8)))(X, torch.rand(6, 3)), TypeError,
         r"^context: expected None, as the decoder, a Sequential, takes one, got"),
        (lambda v: VAE(v.encoder, v.decoder, prior=NormalBase(2, context=4))(X, torch.rand(6, 3)),
         ValueError, r"^context: expected a tensor of shape \[\.\.\., 4\]"),
        (lambda v: mlp_encoder((8,), 2, context=-1), ValueError, r"^context: .* got -1"),
        (lambda v: conv_decoder(2, (1, 8, 8), context=0.5), TypeError, r"^context: .* got 0\.5"),
        (lambda v: mlp_encoder((8,), 2, outputs=0), ValueError, r"^outputs: .* got 0"),
        (lambda v: VAE(mlp_encoder((8,), 2), mlp_decoder(2, (8,))).interpolate(
            torch.rand(6, 8), torch.rand(5, 8)), ValueError, r"^to: expected the shape of x"),
        (lambda v: WithContext(nn.Flatten(), nn.Linear(7, 2))(torch.rand(5, 4), torch.rand(5)),
         ValueError, r"^context: expected shape \[5, \.\.\.\]"),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[VAE], object], exception: type[Exception], match: str) -> None:
    vae = conditional()
    vae.latent = 2
    with pytest.raises(exception, match=match):
        call(vae)
