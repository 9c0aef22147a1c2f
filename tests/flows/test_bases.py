"""Flows whose noise is not standard normal."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

import bslfast
from bslfast import flows
from bslfast.flows import (
    AffineCoupling,
    Base,
    Composite,
    Flow,
    Householder,
    NormalBase,
    NormalMixtureBase,
    SplineCoupling,
    StudentTBase,
    UniformBase,
    VonMisesBase,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
BASES: dict[str, Callable[[int], Base]] = {
    "normal": lambda c: NormalBase(2, context=c, hidden=(4,), **DOUBLE),
    "student_t": lambda c: StudentTBase(2, df=3.0, context=c, **DOUBLE),
}


def stir(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


def law_of(name: str, parameters: Tensor) -> Any:
    """The distribution as scipy has it, of rows of parameters."""
    *log_df, loc, log_scale = parameters.detach().split(2, dim=-1)
    options = {"loc": loc.numpy(), "scale": log_scale.exp().numpy()}
    if name == "normal":
        return scipy.stats.norm(**options)
    return scipy.stats.t(log_df[0].exp().numpy(), **options)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("c", [0, 3])
def test_log_densities_are_those_of_scipy(name: str, c: int) -> None:
    base = stir(BASES[name](c))
    z, context = torch.randn(5, 2, **DOUBLE), torch.randn(5, c, **DOUBLE) if c else None
    law = law_of(name, base.conditioner(z[:, :0], context))
    expected = torch.from_numpy(law.logpdf(z.numpy())).sum(-1)
    torch.testing.assert_close(base.log_prob(z, context).detach(), expected)


@pytest.mark.parametrize("name", BASES)
def test_samples_follow_the_law(name: str) -> None:
    base = stir(BASES[name](0))
    z = base.rsample(torch.empty(20_000, 2, **DOUBLE), None, 0).detach()
    uniform = law_of(name, base.conditioner.constant).cdf(z.numpy())
    for i in range(2):
        assert scipy.stats.kstest(uniform[:, i], "uniform").pvalue > 1e-4


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("c", [0, 3])
@pytest.mark.parametrize("also", [0, 3])
def test_samples_of_flows_and_their_densities_agree(name: str, c: int, also: int) -> None:
    """Whether transform, base, both or none take the context."""
    base = stir(BASES[name](c))
    flow = Flow(stir(AffineCoupling(2, context=also, hidden=(4,), **DOUBLE)), base)
    assert flow.context == max(c, also)
    context = torch.randn(4, 3, **DOUBLE) if flow.context else None
    x, log_prob = flow.rsample_and_log_prob(6, context, seed=1)
    assert x.shape == (*(() if context is None else (4,)), 6, 2)
    per_sample = None if context is None else context.unsqueeze(1)
    torch.testing.assert_close(flow.log_prob(x, per_sample), log_prob)
    assert torch.equal(flow.sample(6, context, seed=1), x)
    assert torch.equal(copy.deepcopy(flow).sample(6, context, seed=1), x)
    grads = torch.autograd.grad(log_prob.sum() + x.sin().sum(), list(flow.parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)
    distribution = flow.distribution(context)
    y = distribution.rsample((3,))
    torch.testing.assert_close(distribution.log_prob(y), flow.log_prob(y, context))
    y, log_prob = distribution.rsample_and_log_prob((3,), seed=2)
    torch.testing.assert_close(log_prob, distribution.log_prob(y))
    assert torch.equal(distribution.sample((3,), seed=2), y)


def test_a_density_on_the_torus() -> None:
    """It integrates to one, its samples stay there, and both ends are one point."""
    options: dict[str, Any] = {"bound": math.pi, "tails": "circular", "hidden": (8,), **DOUBLE}
    couplings = [SplineCoupling(2, flip=flip, **options) for flip in (False, True)]
    flow = stir(Flow(Composite(couplings), UniformBase(2, -math.pi, math.pi)))
    side = (torch.arange(600, **DOUBLE) + 0.5) / 600 * 2 * math.pi - math.pi
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(side, side)).exp()
        assert density.std() > 0.001
        assert density.mean().item() * (2 * math.pi) ** 2 == pytest.approx(1.0, abs=1e-3)
    x, log_prob = flow.rsample_and_log_prob(500, seed=0)
    assert x.abs().max() <= math.pi
    torch.testing.assert_close(flow.log_prob(x), log_prob)
    outside = flow.log_prob(torch.tensor([[0.0, 4.0], [0.0, math.nan]], **DOUBLE))
    assert outside[0] == -math.inf
    assert outside[1].isnan()


@pytest.mark.parametrize("c", [0, 3])
def test_mixtures_are_those_of_torch(c: int) -> None:
    """Densities and their gradients, with weights, locations and scales of each context."""
    base = stir(NormalMixtureBase(2, 4, context=c, hidden=(5,) if c else (), **DOUBLE))
    z, context = torch.randn(5, 2, **DOUBLE), torch.randn(5, c, **DOUBLE) if c else None
    logits, loc, log_scale = base._parameters_at(z, context)
    normal = torch.distributions.Normal(loc, log_scale.exp())
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits.expand(5, 4)),
        torch.distributions.Independent(normal.expand((5, 4, 2)), 1),
    )
    found, expected = base.log_prob(z, context), law.log_prob(z)
    torch.testing.assert_close(found, expected)
    parameters = list(base.parameters())
    for a, b in zip(
        torch.autograd.grad(found.sum(), parameters, retain_graph=True),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_samples_of_a_mixture() -> None:
    """They follow its law, and those of a flow have the densities of its base."""
    base = NormalMixtureBase(1, 2, **DOUBLE)
    with torch.no_grad():
        base.conditioner.constant.copy_(torch.tensor([0.0, 1.0, -2.0, 1.0, -1.0, 0.3]))
        z = base.rsample(torch.empty(20_000, 1, **DOUBLE), None, 0)[:, 0]
    low, high = scipy.stats.norm(-2, math.exp(-1)), scipy.stats.norm(1, math.exp(0.3))
    weight = 1 / (1 + math.e)

    def cdf(x: Any) -> Any:
        return weight * low.cdf(x) + (1 - weight) * high.cdf(x)

    assert scipy.stats.kstest(z.numpy(), cdf).pvalue > 1e-4
    flow = Flow(AffineCoupling(2, context=3, **DOUBLE), NormalMixtureBase(2, context=3, **DOUBLE))
    context = torch.randn(4, 3, **DOUBLE)
    with torch.no_grad():
        x, log_prob = flow.rsample_and_log_prob(6, context, seed=1)
        torch.testing.assert_close(flow.log_prob(x, context.unsqueeze(1)), log_prob)
    assert torch.equal(flow.sample(6, context, seed=1), x)
    with pytest.raises(RuntimeError, match=r"^rsample: expected torch\.no_grad"):
        flow.rsample_and_log_prob(6, context)


def test_uniform_samples() -> None:
    base = UniformBase(1, 2.0, 5.0)
    z = base.rsample(torch.empty(20_000, 1), None, 0)
    assert z.dtype == torch.float32
    assert scipy.stats.kstest(z[:, 0].numpy(), scipy.stats.uniform(2, 3).cdf).pvalue > 1e-4
    assert torch.equal(base.rsample(torch.empty(20_000, 1), None, 0), z)
    log_prob = base.log_prob(torch.tensor([[2.0], [5.0], [5.1], [math.inf], [math.nan]]))
    expected = torch.tensor([-math.log(3), -math.log(3), -math.inf, -math.inf, math.nan])
    torch.testing.assert_close(log_prob, expected, equal_nan=True)


class Doubled(Base):
    """What a user might write."""

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.distributions.Normal(0.0, 2.0).log_prob(z).sum(-1)

    def rsample(self, like: Tensor, context: Any, seed: Any) -> Tensor:
        return 2 * torch.ones_like(like)


def test_a_base_of_ones_own() -> None:
    flow = Flow(AffineCoupling(2), Doubled(2))
    assert flow.sample(3).tolist() == [[2.0, 2.0]] * 3
    log_prob = flow.log_prob(torch.zeros(1, 2))
    torch.testing.assert_close(log_prob, torch.tensor([-math.log(8 * math.pi)]))


def test_the_state_of_flows_without_a_base_stays() -> None:
    assert not [key for key in flows.RealNVP(2).state_dict() if "base" in key]
    keys = [key for key in flows.NICE(2).state_dict() if "base" in key]
    assert keys == ["base.conditioner.constant"]


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TypeError, "base: expected an instance", lambda: Flow(AffineCoupling(2), 1)),
        (ValueError, "base: expected one of 2 f", lambda: Flow(AffineCoupling(2), NormalBase(3))),
        (
            ValueError,
            "base: expected context=1 or 0",
            lambda: Flow(AffineCoupling(2, context=1), NormalBase(2, context=2)),
        ),
        (
            ValueError,
            "transform: expected one that leads",
            lambda: Flow(flows.Tanh(2), UniformBase(2, -2.0, 2.0)),
        ),
        (
            ValueError,
            r"context: expected a tensor of shape \[..., 3\].*NormalBase.*got None",
            lambda: Flow(AffineCoupling(2), NormalBase(2, context=3)).sample(1),
        ),
        (ValueError, "high: expected a finite number above 2", lambda: UniformBase(2, 2.0, 2.0)),
        (ValueError, "df: expected a finite number above 0", lambda: StudentTBase(2, df=0.0)),
        (ValueError, "features: expected an integer", lambda: NormalBase(0)),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()


# --- von Mises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0, 3])
def test_von_mises_densities_are_those_of_scipy(c: int) -> None:
    base = stir(VonMisesBase(2, context=c, hidden=(4,), **DOUBLE))
    z = torch.rand(5, 2, **DOUBLE) * 6 - 3
    context = torch.randn(5, c, **DOUBLE) if c else None
    loc, log_k = base.conditioner(z[:, :0], context).detach().split(2, dim=-1)
    law = scipy.stats.vonmises(kappa=log_k.exp().numpy(), loc=loc.numpy())
    expected = torch.from_numpy(law.logpdf(z.numpy())).sum(-1)
    torch.testing.assert_close(base.log_prob(z, context).detach(), expected)
    z[0, 0], z[1, 0] = 3.2, math.nan
    found = base.log_prob(z, context)
    assert found[0] == -math.inf
    assert found[1].isnan()


def test_the_von_mises_density_ends_where_the_circle_does() -> None:
    """Also in one call, behind maps that are not bounded."""
    flow = Flow(Composite([Householder(2)]), VonMisesBase(2))
    z = torch.tensor([[0.0, 4.0], [0.0, 3.0]])
    x = flow.transform.inverse(z)[0].detach()
    found = flow.log_prob(x)
    assert "one call" in flow.explain()
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, flow.log_prob(x))
    assert found[0] == -math.inf


def test_von_mises_samples() -> None:
    """They follow the law; a seed has its samples, and torch's generator does not notice."""
    base = stir(VonMisesBase(2, **DOUBLE))
    like = torch.empty(20_000, 2, **DOUBLE)
    state = torch.get_rng_state()
    z = base.rsample(like, None, 5).detach()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(base.rsample(like, None, torch.tensor(5)), z)
    assert not torch.equal(base.rsample(like, None, None), z)
    assert z.abs().max() <= math.pi
    loc, log_k = base.conditioner.constant.detach().split(2)
    for i in range(2):
        law = scipy.stats.vonmises(kappa=log_k[i].exp().item(), loc=loc[i].item())
        low = law.cdf(-math.pi)
        assert scipy.stats.kstest(law.cdf(z[:, i].numpy()) - low, "uniform").pvalue > 1e-4


def test_gradients_of_von_mises_samples() -> None:
    """Means of cos(z - loc) move with the concentration as I1 / I0 does; those of z with loc."""
    base = VonMisesBase(1, **DOUBLE)
    with torch.no_grad():
        base.conditioner.constant.copy_(torch.tensor([0.4, math.log(3.0)]))
    z = base.rsample(torch.empty(100_000, 1, **DOUBLE), None, 1)
    found = torch.autograd.grad(torch.cos(z - 0.4).mean(), base.conditioner.constant)[0]
    k = torch.tensor(3.0, **DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.special.i1(k) / torch.special.i0(k), k)
    assert found[1].item() == pytest.approx(3.0 * slope.item(), abs=0.005)
    found = torch.autograd.grad(
        base.rsample(torch.empty(10, 1, **DOUBLE), None, 1).sum(), base.conditioner.constant
    )[0]
    assert found[0].item() == pytest.approx(10.0)


def test_a_density_on_the_circle() -> None:
    options: dict[str, Any] = {"bound": math.pi, "tails": "circular", "hidden": (), **DOUBLE}
    flow = stir(Flow(SplineCoupling(1, **options), VonMisesBase(1, **DOUBLE)))
    x = ((torch.arange(5000, **DOUBLE) + 0.5) / 5000 * 2 - 1) * math.pi
    with torch.no_grad():
        density = flow.log_prob(x.unsqueeze(-1)).exp()
    assert density.mean().item() * 2 * math.pi == pytest.approx(1.0, abs=1e-4)
    x, log_prob = flow.rsample_and_log_prob(500, seed=0)
    torch.testing.assert_close(flow.log_prob(x), log_prob)


def test_a_von_mises_base_wants_a_transform_onto_the_circle() -> None:
    with pytest.raises(ValueError, match=r"transform: .* maps onto \(-0.5, 0.5\)"):
        Flow(SplineCoupling(2, bound=0.5, tails="circular"), VonMisesBase(2))
    with pytest.raises(ValueError, match="features: expected"):
        VonMisesBase(0)


def test_degrees_of_freedom_that_vanish_for_one_context() -> None:
    """Such a row takes no other along."""
    flow = Flow(AffineCoupling(2), StudentTBase(2, context=1))
    with torch.no_grad():
        flow.base.conditioner.layers[0].weight.fill_(1.0)  # type: ignore[union-attr, index]
    x, context = torch.randn(2, 2), torch.tensor([[0.5], [-1e4]])
    with bslfast.whole_networks(False):
        assert flow.log_prob(x, context)[0] == flow.log_prob(x[:1], context[:1])
        assert flow.sample(3, context, seed=0)[0].isfinite().all()
