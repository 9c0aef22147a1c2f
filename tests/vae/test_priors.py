"""Priors that are learned: densities and divergences by quadrature, samples, gradients."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from largest_tensor import LargestTensor
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import bslfast
from bslfast.flows import NSF, Flow, NormalBase, NormalMixtureBase, Planar, SplineCoupling
from bslfast.vae import (
    VAE,
    DiagonalNormal,
    FlowPosterior,
    FullCovarianceNormal,
    GumbelSoftmax,
    VampPrior,
    mlp_decoder,
    mlp_encoder,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def stirred(module: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
    return module


def mixed(latent: int, context: int = 0) -> Flow:
    """A flow whose noise is a mixture."""
    base = NormalMixtureBase(latent, 3, context=context)
    return Flow(SplineCoupling(latent, hidden=(8,)), base)


PRIORS: dict[str, Callable[[int], Any]] = {
    "vamp": lambda _: VampPrior(4, (5,)),
    "normal": NormalBase,
    "mixture": lambda latent: NormalMixtureBase(latent, 3),
    "flow": lambda latent: NSF(latent, transforms=1, hidden=(8,)),
    "flow of a mixture": mixed,
}


def vae_with(name: str, latent: int = 2, **options: Any) -> VAE:
    """With parameters other than at the start, where the prior may be N(0, I)."""
    posterior = options.get("posterior")
    outputs = {FullCovarianceNormal: 5, FlowPosterior: 4}.get(type(posterior), 2 * latent)
    vae = VAE(
        mlp_encoder((5,), latent, (8,), outputs=outputs),
        mlp_decoder(latent, (5,), (8,)),
        prior=PRIORS[name](latent),
        **options,
    )
    stirred(vae.prior)
    return vae


# --- by quadrature --------------------------------------------------------------------------------

GRID = torch.linspace(-12, 12, 4801, **DOUBLE)


def density(vae: VAE, z: Tensor) -> Tensor:
    """log p(z) of codes of one number, of what torch.distributions has where it has it."""
    prior = vae.prior
    if isinstance(prior, VampPrior):
        mu, log_var = vae.encode(prior.pseudo_inputs)
        logits, loc, scale = torch.zeros(prior.n, **DOUBLE), mu, (0.5 * log_var).exp()
    elif isinstance(prior, NormalMixtureBase):
        raw = prior.conditioner(z[:1, None][..., :0]).flatten()
        logits, loc, scale = raw[:3], raw[3:6, None], raw[6:, None].exp()
    elif isinstance(prior, NormalBase):
        logits = torch.zeros(1, **DOUBLE)
        loc, raw = prior.conditioner(z[:1, None][..., :0]).view(2, 1, 1)
        scale = raw.exp()
    else:
        assert isinstance(prior, Flow)
        return prior.log_prob(z[:, None])
    mixture = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(loc, scale), 1))
    found: Tensor = mixture.log_prob(z[:, None])
    return found


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "flow of a mixture"])
def test_codes_of_one_number(name: str) -> None:
    """The prior's density, the divergence, log p(x) and the law of samples, all by sums."""
    n = 20_000
    vae = vae_with(name, latent=1, likelihood="normal", scale=1.0).double()
    x = torch.rand(2, 5, **DOUBLE)
    step = GRID[1] - GRID[0]
    with torch.no_grad():
        log_p = density(vae, GRID)
        assert log_p.exp().sum() * step == pytest.approx(1, abs=1e-4)
        torch.testing.assert_close(vae._log_prior(GRID[:, None], None), log_p)
        mu, log_var = vae.encode(x)
        log_q = Normal(mu, (0.5 * log_var).exp()).log_prob(GRID)
        each = log_q - log_p
        expected = (log_q.exp() * each).sum(1) * step
        spread = ((log_q.exp() * each.square()).sum(1) * step - expected.square()).sqrt()
        _, kl = vae.terms(x, n, seed=1)
        assert ((kl - expected).abs() < 5 * spread / n**0.5 + 1e-6).all()
        # The mean over the batch of one sample each, as training has it.
        _, single = vae.terms(x[:1].expand(n, 5), seed=2)
        assert (single.mean() - expected[0]).abs() < 5 * spread[0] / n**0.5 + 1e-6

        likelihood = Normal(vae.decoder(GRID[:, None])[:, None], 1.0).log_prob(x).sum(-1)
        marginal = (likelihood + log_p[:, None]).logsumexp(0) + step.log()
        assert (vae.log_marginal(x, n, seed=3) - marginal).abs().max() < 0.05
        assert (vae.elbo(x, n, seed=4) < marginal).all()

        vae.decoder = nn.Identity()
        vae.latent = 1
        drawn = vae.sample(5000, seed=5)[:, 0]
        cumulative = (log_p.exp() * step).cumsum(0).numpy()
        law = lambda z: cumulative[((z + 12) / step.item()).clip(0, 4800).astype(int)]  # noqa: E731
        assert scipy.stats.kstest(drawn.numpy(), law).pvalue > 1e-4


# --- what all share -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("posterior", [DiagonalNormal, FullCovarianceNormal, "planar"])
def test_priors_beside_posteriors(name: str, posterior: Any) -> None:
    """The divergence is log q - log p of the codes; all parameters have gradients."""
    if name == "vamp" and posterior is not DiagonalNormal:
        return  # refused, see below
    made = FlowPosterior(stirred(Planar(2))) if posterior == "planar" else posterior()
    vae, x = vae_with(name, posterior=made).double(), torch.rand(6, 5, **DOUBLE)
    for n in (1, 3):
        log_likelihood, kl = vae.terms(x, n, seed=1)
        z, log_q = made.rsample_and_log_prob(vae.encode(x), () if n == 1 else (n,), 1)
        expected = log_q - vae._log_prior(z, None)
        torch.testing.assert_close(kl, expected if n == 1 else expected.mean(0))
        torch.testing.assert_close(vae.elbo(x, n, seed=1), log_likelihood - kl)
    torch.testing.assert_close(vae.iwae(x, 9, seed=3), vae.log_marginal(x, 9, seed=3))
    bounds = [vae(x), vae.iwae(x, 3), vae.log_marginal(x, 3)]
    if posterior != "planar":
        bounds.append(vae.iwae(x, 3, estimator="dreg"))
    for bound in bounds:
        for grad in torch.autograd.grad(bound.sum(), list(vae.parameters())):
            assert grad.isfinite().all()
            assert grad.abs().sum() > 0
    with torch.no_grad():
        assert (vae.elbo(x, 3000, seed=1) < vae.log_marginal(x, 3000, seed=2)).all()


@pytest.mark.parametrize("name", PRIORS)
def test_doubly_reparametrised_gradients_have_the_same_mean(name: str) -> None:
    """Gradients of encoder and prior: 2000 draws, 5.5 standard errors for each number."""
    torch.manual_seed(2)
    vae = vae_with(name).double()
    x = torch.rand(1, 5, **DOUBLE).expand(20, 5)
    parameters = list(vae.parameters())
    found = {}
    for estimator in ("iwae", "dreg"):
        grads = []
        for seed in range(50):
            bound = vae.iwae(x, 8, estimator=estimator, seed=seed + 1000 * (estimator == "dreg"))
            grads.append(
                torch.cat([g.flatten() for g in torch.autograd.grad(bound.mean(), parameters)])
            )
        found[estimator] = torch.stack(grads)
    error = sum(g.var(0) / 50 for g in found.values())
    assert isinstance(error, Tensor)
    difference = (found["iwae"].mean(0) - found["dreg"].mean(0)).abs()
    assert (difference <= 5.5 * error.sqrt() + 1e-12).all()


@pytest.mark.parametrize("name", PRIORS)
def test_copies_seeds_and_compiled_graphs(name: str) -> None:
    vae, x = vae_with(name), torch.rand(6, 5)
    expected = vae.elbo(x, 2, seed=1)
    fresh = vae_with(name)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(vae.state_dict())
    for other in (copy.deepcopy(vae), pickle.loads(pickle.dumps(vae)), fresh):
        assert torch.equal(other.elbo(x, 2, seed=1), expected)
        assert torch.equal(other.sample(4, seed=1), vae.sample(4, seed=1))
    assert not torch.equal(vae.sample(4, seed=1), vae.sample(4, seed=2))
    assert vae.sample(4).shape == (4, 5)
    assert not vae.sample(4).requires_grad
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: vae.elbo(x, 2, seed=1), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), expected)
    with bslfast.functional.use_reference():
        torch.testing.assert_close(vae.elbo(x, 2, seed=1), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = vae.elbo(x, 2, seed=1)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, rtol=0.05, atol=0.1)
    mask = torch.rand(6, 5) > 0.5
    hidden = vae.elbo(x.masked_fill(~mask, math.nan), 2, mask=mask)
    assert hidden.isfinite().all()
    line = vae.interpolate(x[:3], x[3:], 4)
    torch.testing.assert_close(line[0], vae.reconstruct(x[:3]))
    torch.testing.assert_close(line[-1], vae.reconstruct(x[3:]))


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_a_prior_learns_the_codes(name: str) -> None:
    """With codes in two heaps, the divergence falls to what a mixture of two leaves."""
    mu = torch.tensor([[-1.5], [1.5]]).repeat(100, 1)
    encoder = nn.Linear(1, 2)
    with torch.no_grad():
        encoder.weight.copy_(torch.tensor([[1.0], [0.0]]))
        encoder.bias.copy_(torch.tensor([0.0, -4.0]))
    prior = NormalMixtureBase(1, 2) if name == "mixture" else NSF(1, transforms=2)
    vae = VAE(encoder, nn.Identity(), likelihood="normal", scale=1.0, prior=prior)
    optimizer = torch.optim.Adam(prior.parameters(), 0.05)
    kls = []
    for _ in range(200):
        optimizer.zero_grad()
        _, kl = vae.terms(mu)
        kl.mean().backward()
        kls.append(kl.mean().item())
        optimizer.step()
    # log 2 nats say which heap.
    assert kls[0] > 1.5
    assert sum(kls[-20:]) / 20 == pytest.approx(math.log(2), abs=0.15)


# --- with a context -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NormalMixtureBase, NSF])
def test_a_prior_with_a_context(kind: Any) -> None:
    """Each row's own context, whatever samples stand in front."""
    prior = stirred(kind(2, context=3)).double()
    vae = VAE(
        mlp_encoder((5,), 2, (8,), context=3),
        mlp_decoder(2, (5,), (8,), context=3),
        prior=prior,
    ).double()
    x, context = torch.rand(6, 5, **DOUBLE), torch.randn(6, 3, **DOUBLE)
    _, kl = vae.terms(x, 4, context=context, seed=1)
    z, log_q = vae.posterior.rsample_and_log_prob(vae.encode(x, context), (4,), 1)
    for i in range(6):
        log_p = prior.log_prob(z[:, i], context[i].expand(4, 3))
        torch.testing.assert_close(kl[i], (log_q[:, i] - log_p).mean())
    one = torch.zeros(1, 3, **DOUBLE)
    assert vae.sample(7, one, seed=1).shape == (7, 5)
    torch.testing.assert_close(vae.sample(7, one, seed=1), vae.sample(7, one.expand(7, 3), seed=1))
    # Codes of a row depend on its own context alone.
    other = torch.cat([context[:3], context[3:] + 1])
    a, b = vae.sample(6, context, seed=2), vae.sample(6, other, seed=2)
    assert torch.equal(a[:3], b[:3])
    assert (a[3:] != b[3:]).all()
    with pytest.raises(ValueError, match=r"^context: expected a tensor of shape \[\.\.\., 3\]"):
        vae._log_prior(z, None)


@pytest.mark.parametrize("prior", [VampPrior(2000, (5,)), NormalMixtureBase(2, 2000)])
def test_memory_of_log_marginal_stays_in_bounds(prior: Any) -> None:
    """A mixture's components take more than the decoder; pseudo-inputs are encoded once."""
    vae = VAE(
        mlp_encoder((5,), 2, (8,)), mlp_decoder(2, (5,), (8,)), prior=prior, likelihood="normal"
    )
    x, encoded = torch.randn(20, 5), []
    with torch.no_grad():
        vae.encode(x)
        vae.encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0])))
        with LargestTensor() as largest:
            vae.log_marginal(x, 50, seed=0, max_bytes=1 << 20)
    assert 1 << 18 < largest.bytes <= 1 << 20
    assert encoded.count(2000) == isinstance(prior, VampPrior)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [
        (lambda: vae_with("vamp", posterior=FullCovarianceNormal()), ValueError,
         r"^prior: expected no VampPrior beside a FullCovarianceNormal"),
        (lambda: vae_with("mixture", posterior=GumbelSoftmax(4)), ValueError,
         r"^prior: expected None beside a GumbelSoftmax, which has its own"),
        (lambda: vae_with("flow", free_bits=0.5), ValueError, r"^free_bits: expected 0 with a NSF"),
        (lambda: vae_with("mixture").terms(torch.rand(6, 5), reduction="none"), ValueError,
         r"^reduction: expected 'row' with a NormalMixtureBase"),
        (lambda: VAE(nn.Identity(), nn.Identity(), latent=3, prior=NSF(2)), ValueError,
         r"^prior: expected one of 3 features, as codes have, got 2"),
        (lambda: VAE(nn.Identity(), nn.Identity(), prior=NormalMixtureBase), TypeError,
         r"^prior: expected None, a VampPrior, a flow or a base of flows, got"),
        (lambda: VAE(nn.Identity(), nn.Identity(), prior=NSF(2))(torch.rand(6, 6)), ValueError,
         r"^encoder: expected an output for 2 latent dimensions, got one for 3"),
        (lambda: vae_with("vamp").elbo(torch.rand(6, 5), context=torch.rand(6, 3)), TypeError,
         r"^context: expected None, as the encoder"),
        (lambda: NormalMixtureBase(2, 0), ValueError, r"^components: .* got 0"),
        (lambda: vae_with("mixture").sample(3, torch.rand(2, 3)), ValueError,
         r"^context: expected shape \[3, \.\.\.\] or \[1, \.\.\.\]"),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[], object], exception: type[Exception], match: str) -> None:
    with pytest.raises(exception, match=match):
        call()
