"""Posteriors and priors: samples, divergences, and where a layer has them from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
import torch.distributions as td
import torch.nn.functional as F
from scipy import integrate, special, stats
from torch import Tensor, nn

import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast.nn import (
    BayesLinear,
    Weight,
    kl,
    one_draw,
    posteriors,
    priors,
)
from bslfast.nn.weight import DIVERGENCES

LOC, SCALE = 0.4, 0.3
EVERY_PRIOR: dict[type[priors.Prior], tuple[priors.Prior, Callable[[float], float]]] = {
    priors.Normal: (
        priors.Normal(0.1, 0.5),
        lambda z: math.log(_normal((z - 0.1) / 0.5) / 0.5),
    ),
    priors.LearnedNormal: (
        priors.LearnedNormal(0.5, loc=0.1).double(),
        lambda z: math.log(_normal((z - 0.1) / 0.5) / 0.5),
    ),
    priors.CentredNormal: (
        priors.CentredNormal(torch.full((1,), 0.1, dtype=torch.float64), 0.5),
        lambda z: math.log(_normal((z - 0.1) / 0.5) / 0.5),
    ),
    priors.ScaleMixture: (
        priors.ScaleMixture(0.3, 1.5, 0.2),
        lambda z: math.log(0.3 * _normal(z / 1.5) / 1.5 + 0.7 * _normal(z / 0.2) / 0.2),
    ),
    priors.Laplace: (priors.Laplace(0.7), lambda z: -abs(z) / 0.7 - math.log(1.4)),
    priors.StudentT: (
        priors.StudentT(4.0, 0.6),
        lambda z: float(stats.t.logpdf(z, 4.0, scale=0.6)),
    ),
    priors.LogUniform: (priors.LogUniform(), lambda z: -math.log(abs(z))),
    priors.Horseshoe: (
        priors.Horseshoe(0.8),
        lambda z: math.log(
            special.exp1(z * z / 1.28)
            * math.exp(z * z / 1.28)
            / (math.pi * math.sqrt(2 * math.pi) * 0.8)
        ),
    ),
}
EVERY_PRIOR[priors.LearnedNormal][0].reset_parameters()  # type: ignore[attr-defined]  # to float64
CLOSED = (priors.Normal, priors.LearnedNormal, priors.CentredNormal, priors.Laplace)
ESTIMATED = [prior for prior in EVERY_PRIOR if prior not in CLOSED]


def _normal(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def parameters(n: int = 1) -> tuple[Tensor, Tensor]:
    """The parameters of a posterior with parametrization "scale"."""
    return (
        torch.full((n,), LOC, dtype=torch.float64, requires_grad=True),
        torch.full((n,), SCALE, dtype=torch.float64, requires_grad=True),
    )


def expected_kl(density: td.Distribution, log_prior: Callable[[float], float]) -> float:
    def integrand(z: float) -> float:
        log_q = density.log_prob(torch.tensor([z], dtype=torch.float64)).item()
        return math.exp(log_q) * (log_q - log_prior(z))

    found, _ = integrate.quad(integrand, LOC - 35 * SCALE, LOC + 35 * SCALE, points=[0.0, LOC])
    return float(found)


@pytest.mark.parametrize("pair", DIVERGENCES, ids=lambda pair: "-".join(k.__name__ for k in pair))
def test_every_divergence_is_the_integral(pair: Any) -> None:
    """That of a point is -log p; estimates are on average right."""
    kind, prior_kind = pair
    prior, log_prior = EVERY_PRIOR[prior_kind]
    if kind is posteriors.Deterministic:
        divergence = Weight(kind(), prior, parameters()[:1]).kl()
        assert divergence.item() == pytest.approx(-log_prior(LOC), rel=1e-12)
        return
    if kind is posteriors.MCDropout:
        if prior_kind is priors.CentredNormal:
            prior = priors.CentredNormal(torch.full((1, 1), 0.1, dtype=torch.float64), 0.5)
        divergence = Weight(kind(0.2), prior, (parameters()[0].view(1, 1),)).kl()
        expected = -0.8 * log_prior(LOC / 0.8) - 0.2 * log_prior(0.0)
        assert divergence.item() == pytest.approx(expected, rel=1e-12)
        return
    density = (td.Laplace if kind is posteriors.Laplace else td.Normal)(
        *(t.detach() for t in parameters())
    )
    estimated = prior_kind in ESTIMATED
    n, repeats = (1, 1) if not estimated else (500, 80) if kind.joint else (40_000, 1)
    posterior, made = kind(parametrization="scale"), parameters(n)
    if kind.joint:  # independent weights; tests/nn/test_posteriors.py has others
        made = (*made, torch.zeros_like(posterior.allocate(made[0])[-1]))
    torch.manual_seed(0)
    found = [Weight(posterior, prior, made).kl().item() / n for _ in range(repeats)]
    # The ratio of densities varies by less than 2 about its mean here: 5 sigma.
    tolerance = 5 * 2 / math.sqrt(n * repeats) if estimated else 1e-8
    assert sum(found) / repeats == pytest.approx(expected_kl(density, log_prior), abs=tolerance)


def exact_kl(kind: Any, loc: float, log_scale: float, prior: float) -> float:
    """Between a normal and a Laplace distribution, in 60 digits; ``prior``: the scale of one."""
    with mpmath.workdps(60):
        m, s, b = mpmath.mpf(loc), mpmath.exp(mpmath.mpf(log_scale)), mpmath.mpf(prior)
        if kind is posteriors.Normal:
            z = m / (s * mpmath.sqrt(2))
            absolute = s * mpmath.sqrt(2 / mpmath.pi) * mpmath.exp(-z * z) + m * mpmath.erf(z)
            found = (
                absolute / b + mpmath.log(2 * b) - mpmath.log(2 * mpmath.pi * mpmath.e * s**2) / 2
            )
        else:
            spread = (m**2 + 2 * s**2) / (2 * b**2)
            found = spread + mpmath.log(2 * mpmath.pi * b**2) / 2 - 1 - mpmath.log(2 * s)
        return float(found)


BETWEEN = [(posteriors.Normal, priors.Laplace), (posteriors.Laplace, priors.Normal)]


@pytest.mark.parametrize(("kind", "prior_kind"), BETWEEN)
@pytest.mark.parametrize("log_scale", [-800.0, -300.0, -20.0, -3.0, 0.0, 4.0, 100.0])
def test_normal_and_laplace_keep_their_digits(kind: Any, prior_kind: Any, log_scale: float) -> None:
    """For scales that are tiny, large, or underflow; distributions have the same values."""
    for loc, prior in itertools.product((0.0, -1e-9, 0.3, -40.0, 1e6), (1e-6, 0.7, 1e6)):
        made = [
            torch.full((1,), value, dtype=torch.float64, requires_grad=True)
            for value in (loc, log_scale)
        ]
        found = Weight(kind("log_scale"), prior_kind(scale=prior), tuple(made)).kl()
        expected = exact_kl(kind, loc, log_scale, prior)
        assert found.item() == pytest.approx(expected, rel=1e-13, abs=1e-13)
        assert all(slope.isfinite() for slope in torch.autograd.grad(found, made))
        of = {"Normal": bd.Normal, "Laplace": bd.Laplace}
        one = of[kind.__name__].from_log_scale(*made)
        scale = torch.full((1,), prior, dtype=torch.float64)
        other = of[prior_kind.__name__](torch.zeros_like(scale), scale)
        assert bd.kl_divergence(one, other).item() == pytest.approx(found.item(), rel=1e-13)


@pytest.mark.parametrize(("kind", "prior_kind"), BETWEEN)
@pytest.mark.parametrize("parametrization", ["softplus", "scale", "log_scale", "log_var"])
def test_normal_and_laplace_gradients(kind: Any, prior_kind: Any, parametrization: str) -> None:
    loc = torch.tensor([0.3, -1.2, 0.0, 30.0], dtype=torch.float64, requires_grad=True)
    raw = torch.tensor([0.4, 1.5, 0.2, 0.3], dtype=torch.float64, requires_grad=True)

    def divergence(*made: Tensor) -> Tensor:
        return Weight(kind(parametrization), prior_kind(scale=0.7), made).kl()

    assert torch.autograd.gradcheck(divergence, (loc, raw))
    assert torch.autograd.gradgradcheck(divergence, (loc, raw))
    narrow = [t.detach().to(torch.bfloat16) for t in (loc, raw)]
    wide = [t.float() for t in narrow]
    assert torch.equal(divergence(*narrow), divergence(*wide))
    assert divergence(*narrow).dtype == torch.float32


@pytest.mark.parametrize("prior", [priors.LearnedNormal(0.5), priors.Normal(0.2, 0.5)])
def test_a_laplace_posterior_with_a_normal_prior(prior: Any) -> None:
    """The default prior serves, and a learned one learns."""
    layer = BayesLinear(3, 2, posterior=posteriors.Laplace(init_scale=0.1), prior=prior)
    samples = [
        td.Laplace(w.loc, w.posterior.scale(w.parameters)).sample((200_000,))  # type: ignore[attr-defined]
        for w in layer.weights()
    ]
    expected = 0.0
    for w, sample in zip(layer.weights(), samples, strict=True):
        density = td.Laplace(w.loc, w.posterior.scale(w.parameters))  # type: ignore[attr-defined]
        log_q = density.log_prob(sample).sum().item()
        expected += (log_q - w.prior.log_prob(sample.double()).item()) / len(sample)
    divergence = kl(layer)
    assert divergence.item() == pytest.approx(expected, abs=0.05)
    divergence.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert torch.equal(kl(layer), kl(layer))


@pytest.mark.parametrize("prior", EVERY_PRIOR)
def test_log_densities(prior: Any) -> None:
    of_one, log_prior = EVERY_PRIOR[prior]
    for z in (-2.5, -0.3, 0.02, 0.9):
        value = torch.tensor([z], dtype=torch.float64)
        assert of_one.log_prob(value).item() == pytest.approx(log_prior(z), rel=1e-9)


def test_the_table_is_complete() -> None:
    assert {prior for _, prior in DIVERGENCES} == set(EVERY_PRIOR)
    names = set(posteriors.__all__) - {"Posterior"}
    assert {kind.__name__ for kind, _ in DIVERGENCES} == names
    assert {prior.__name__ for prior in EVERY_PRIOR} == set(priors.__all__) - {"Prior"}


@pytest.mark.parametrize("parametrization", ["softplus", "scale", "log_scale", "log_var"])
@pytest.mark.parametrize("kind", [posteriors.Normal, posteriors.Laplace, posteriors.Deterministic])
def test_samples_have_the_spread_of_their_posterior(kind: Any, parametrization: str) -> None:
    deterministic = kind is posteriors.Deterministic
    posterior = kind() if deterministic else kind(parametrization, init_scale=0.2)
    loc = torch.full((3,), LOC, dtype=torch.float64)
    made = (loc, *posterior.allocate(loc))
    posterior.reset(made)
    assert len(made) == len(posterior.names)
    weight = Weight(posterior, priors.Normal(), made)
    spread = {posteriors.Normal: 0.2, posteriors.Laplace: 0.2 * math.sqrt(2)}.get(kind, 0.0)
    torch.testing.assert_close(weight.stddev(), torch.full_like(loc, spread))
    samples = weight.rsample(sample_shape=(20_000,), seed=1)
    assert samples.shape == (20_000, 3)
    assert (samples.mean(0) - LOC).abs().max() <= 5 * spread / math.sqrt(20_000) + 1e-12
    assert (samples.std(0) - spread).abs().max() <= 0.05 * spread + 1e-12


def of_its_own(layer: BayesLinear, seed: int) -> Tensor:
    """The estimate at the sample that a pass with this seed draws."""
    return sum(
        BF.normal_rsample_mc_kl(
            getattr(layer, f"{name}_loc"),
            getattr(layer, f"{name}_raw_scale"),
            seed=seed,
            stream=stream,
            **layer.priors[name].estimated(),
        )[1]
        for stream, name in enumerate(("weight", "bias"))
    )  # type: ignore[return-value]


@pytest.mark.parametrize("prior", ESTIMATED)
@pytest.mark.parametrize("together", [False, True])
def test_an_estimate_is_that_of_the_same_sample(prior: Any, together: bool) -> None:
    layer, x = BayesLinear(4, 3, prior=prior(), dtype=torch.float64), torch.randn(5, 4).double()
    leaves = list(layer.parameters())

    def outputs() -> Tensor:
        if not together:
            return layer(x, seed=3)
        with one_draw(layer, seed=3):
            return layer(x)

    y, divergence = outputs(), kl(layer)
    expected = of_its_own(layer, 3)
    torch.testing.assert_close(divergence, expected)
    weight, bias = (
        BF.normal_rsample(*(getattr(layer, f"{name}_{p}") for p in ("loc", "raw_scale")), seed=3,
                          stream=stream)
        for stream, name in enumerate(("weight", "bias"))
    )  # fmt: skip
    separate = torch.autograd.grad(F.linear(x, weight, bias).square().sum() + expected, leaves)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum() + divergence, leaves), separate)
    # A pass can be used once; after it, each estimate has a sample of its own.
    assert kl(layer).item() != kl(layer).item()


def test_an_estimate_is_never_a_stale_one() -> None:
    layer = BayesLinear(4, 3, prior=priors.Horseshoe(), dtype=torch.float64)
    layer(torch.ones(1, 4).double(), seed=3)
    layer.weight_loc.data.add_(1)
    moved = kl(layer)
    torch.testing.assert_close(moved, of_its_own(layer, 3))
    expected = torch.autograd.grad(of_its_own(layer, 3), layer.weight_loc)
    torch.testing.assert_close(torch.autograd.grad(moved, layer.weight_loc), expected)
    layer(torch.ones(1, 4).double(), seed=3)
    layer.priors["bias"] = priors.StudentT()
    assert kl(layer).isfinite()
    layer(torch.ones(1, 4).double()).sum().backward()
    kl(layer).backward()


def test_a_layer_of_several_kinds() -> None:
    """One draw and one divergence for what is fused, estimated and neither."""
    model = nn.Sequential(
        BayesLinear(4, 3, posterior={"bias": posteriors.Deterministic()}),
        BayesLinear(3, 3, posterior=posteriors.Laplace(), prior={"bias": priors.Laplace(0.5)}),
        BayesLinear(3, 2, prior={"weight": priors.StudentT()}, prior_scale=0.5),
    )
    assert model[2].priors == {"weight": priors.StudentT(), "bias": priors.Normal(0.0, 0.5)}
    assert "bias_raw_scale" not in model[0].state_dict()
    torch.manual_seed(0)
    with one_draw(model):
        y, divergence = model(torch.ones(2, 4)), kl(model)
        assert torch.equal(model(torch.ones(2, 4)), y)
    closed = [w.kl() for i in (0, 1) for w in model[i].weights()] + [model[2].weights()[1].kl()]
    rest = (divergence - sum(closed)).item()
    assert abs(rest) < 50  # 6 ratios of densities
    (y.sum() + divergence).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert isinstance(model[0].deterministic_twin(), nn.Linear)
    assert torch.equal(model[0].deterministic_twin().bias, model[0].bias_loc)
    model[0].reset_parameters()
    compiled = torch.compile(lambda x: model(x).sum() + kl(model), backend="aot_eager")
    assert compiled(torch.ones(2, 4)).isfinite()


def linear(**options: Any) -> BayesLinear:
    return BayesLinear(3, 2, **options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: posteriors.Normal("rho"), ValueError, "parametrization: expected one of"),
        (lambda: posteriors.Laplace(init_scale=0), ValueError, "init_scale: expected a finite nu"),
        (lambda: priors.Normal(scale=-1.0), ValueError, "scale: expected a finite number above 0"),
        (lambda: priors.Normal("0"), TypeError, "loc: expected a finite number"),  # type: ignore[arg-type]
        (lambda: priors.ScaleMixture(pi=1.0), ValueError, "pi: expected a finite number above 0 a"),
        (lambda: priors.ScaleMixture(sigma2=0.0), ValueError, "sigma2: expected a finite number"),
        (lambda: priors.StudentT(df=0), ValueError, "df: expected a finite number above 0"),
        (lambda: priors.Horseshoe(math.inf), ValueError, "scale: expected a finite number above"),
        (lambda: linear(prior=2.0), TypeError, "prior: expected None, a Prior, or some by name"),
        (lambda: linear(posterior={"bias": 1}), TypeError, "posterior: expected None, a Posterior"),
        (
            lambda: linear(posterior={"wieght": posteriors.Normal()}),
            ValueError,
            "posterior: expected names among weight, bias, got 'wieght'",
        ),
        (
            lambda: linear(prior=priors.Laplace(), prior_scale=2.0),
            ValueError,
            r"prior: expected None beside the numbers of Normal\(loc=0.0, scale=2.0\), got Lap",
        ),
        (
            lambda: linear(posterior=posteriors.Deterministic(), prior=priors.Horseshoe()),
            ValueError,
            "prior: expected Normal or .* or StudentT for a posterior Deterministic, got Horseshoe",
        ),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
