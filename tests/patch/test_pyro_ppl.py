"""Distributions and flows in Pyro's models and guides."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from bslfast import distributions, flows, patch

pytest.importorskip("pyro")
import pyro
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam

Normal: Any = patch.pyro(distributions.Normal)
RANDOM = [
    distributions.Bernoulli(torch.randn(4, 3)),
    distributions.Categorical(torch.randn(4, 3, 5)),
    distributions.Gumbel(torch.zeros(4, 3), 1.0),
    distributions.Laplace.from_softplus(torch.zeros(4, 3), torch.zeros(3)),
    distributions.LogNormal(torch.zeros(4, 3), 1.0),
    distributions.Normal.from_softplus(torch.zeros(4, 3), torch.zeros(3)),
    distributions.Poisson(torch.rand(4, 3)),
    distributions.StudentT(torch.tensor(3.0), torch.zeros(4, 3)),
    distributions.MultivariateNormal(torch.zeros(4, 3, 2), torch.eye(2)),
    torch.distributions.Independent(distributions.Normal(torch.zeros(4, 3, 2), 1.0), 1),
]


@pytest.fixture(autouse=True)
def clear() -> Iterator[None]:
    """Forget parameters, and start from a seed."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@pytest.mark.parametrize("given", RANDOM, ids=lambda given: type(given).__name__)
def test_shapes(given: Any) -> None:
    made: Any = patch.pyro(given)
    event = given.event_shape
    assert isinstance(made, type(given))
    assert type(made).__name__ == type(given).__name__
    assert patch.pyro(made) is not made
    assert type(patch.pyro(made)) is type(made)
    assert made.has_enumerate_support == given.has_enumerate_support
    assert made.shape() == (4, 3, *event)
    assert made((2,)).shape == made.shape((2,)) == (2, 4, 3, *event)
    x = made()
    assert torch.equal(made.log_prob(x), given.log_prob(x))
    assert made.expand_by((2,)).log_prob(x).shape == (2, 4, 3)
    assert type(made.expand((2, 4, 3))) is type(made)
    grouped = made.to_event(1)
    assert (grouped.batch_shape, grouped.event_shape) == ((4,), (3, *event))
    torch.testing.assert_close(grouped.log_prob(x), given.log_prob(x).sum(-1))
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(made.mask(mask).log_prob(x), given.log_prob(x) * mask)
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(again) is type(made)
        assert torch.equal(again.log_prob(x), made.log_prob(x))
    # In a model, with a plate for each dimension of the batch.
    with pyro.plate("b", 4, dim=-2), pyro.plate("a", 3, dim=-1):
        trace = poutine.trace(lambda: pyro.sample("x", made)).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (4, 3)


def test_plates_expand() -> None:
    """A distribution without a batch, in a plate, of which a part is observed."""

    def model() -> Any:
        with pyro.plate("rows", 5):
            return pyro.sample("x", Normal(0.0, torch.ones(3)).to_event(1))

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["value"].shape == (5, 3)
    assert trace.nodes["x"]["log_prob"].shape == (5,)


@pytest.mark.parametrize("kind", [Trace_ELBO, TraceMeanField_ELBO])
def test_a_posterior_in_closed_form(kind: Any) -> None:
    """The law of z ~ N(0, 1) after numbers of N(z, 1): normal, with mean sum(y) / (n + 1)."""
    y = torch.tensor([1.0, 2.5, 0.5, 2.0, 1.5, 0.0, 1.0])
    n = len(y)

    def model() -> None:
        z = pyro.sample("z", Normal(torch.tensor(0.0), torch.tensor(1.0)))
        with pyro.plate("rows", n):
            pyro.sample("y", Normal(z, torch.tensor(1.0)), obs=y)

    def guide() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        raw_scale = pyro.param("raw_scale", torch.tensor(0.0))
        pyro.sample("z", patch.pyro(distributions.Normal.from_softplus(loc, raw_scale)))

    elbo = kind(num_particles=256, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(model, guide, Adam({"lr": 0.05}), elbo)
    for _ in range(100):
        svi.step()
    loc, scale = pyro.param("loc").item(), softplus(pyro.param("raw_scale")).item()
    assert loc == pytest.approx(y.sum().item() / (n + 1), abs=0.03)
    assert scale == pytest.approx(1 / math.sqrt(n + 1), abs=0.03)


def test_a_flow_as_guide() -> None:
    """A flow of affine couplings has a correlated normal posterior, and so the evidence."""
    a = torch.tensor([[1.0, 0.8], [0.5, 1.5], [-0.7, 0.4]])
    y = torch.tensor([1.0, 0.5, -0.5])
    eye, zeros = torch.eye(3), torch.zeros(3)
    evidence = torch.distributions.MultivariateNormal(zeros, a @ a.T + eye).log_prob(y).item()
    precision = a.T @ a + torch.eye(2)
    mean = torch.linalg.solve(precision, a.T @ y)
    flow = flows.RealNVP(2, transforms=2, hidden=(8,))

    def model() -> None:
        z = pyro.sample("z", Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        located = (a @ z.unsqueeze(-1)).squeeze(-1)
        pyro.sample("y", Normal(located, torch.ones(3)).to_event(1), obs=y)

    def guide() -> None:
        pyro.module("flow", flow)
        pyro.sample("z", patch.pyro(flow))

    options: dict[str, Any] = {"vectorize_particles": True, "max_plate_nesting": 0}
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO(num_particles=256, **options))
    for _ in range(80):
        svi.step()
    bound = -Trace_ELBO(num_particles=4000, **options).loss(model, guide)
    assert evidence - 0.05 < bound < evidence + 0.02
    x = flow.sample(20000)
    torch.testing.assert_close(x.mean(0), mean, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), precision.inverse(), atol=0.1, rtol=0)


def test_a_flow_with_a_context() -> None:
    flow = flows.NSF(2, context=3, transforms=1, hidden=(8,))
    context, seen = torch.randn(5, 3), torch.randn(5, 2)
    found: Any = patch.pyro(flow, context)
    assert (found.batch_shape, found.event_shape) == ((5,), (2,))

    def model(y: Tensor | None) -> Any:
        with pyro.plate("rows", 5):
            return pyro.sample("x", patch.pyro(flow, context), obs=y)

    assert model(None).shape == (5, 2)
    trace = poutine.trace(model).get_trace(seen)
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], flow.log_prob(seen, context))
    wide = found.expand((4, 5))
    assert wide.log_prob(seen).shape == (4, 5)
    keeps = torch.tensor([True, False, True, True, False])
    torch.testing.assert_close(
        found.mask(keeps).log_prob(seen), flow.log_prob(seen, context) * keeps
    )


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="distribution: expected a torch"):
        patch.pyro(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="context: expected None"):
        patch.pyro(distributions.Normal(0.0, 1.0), torch.ones(2))  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="context: expected a tensor"):
        patch.pyro(flows.RealNVP(2, context=3))
    monkeypatch.setitem(sys.modules, "pyro.distributions.torch_distribution", None)
    with pytest.raises(ImportError, match="pip install pyro-ppl"):
        patch.pyro(distributions.Normal(0.0, 1.0))
