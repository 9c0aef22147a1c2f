"""Laplace and logistic distributions against torch's, and against their own densities."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import SigmoidTransform, TransformedDistribution, Uniform

from bslfast.distributions import Laplace, LocationScale, Logistic, kl_divergence

CONSTRUCTORS = ("scale", "from_softplus", "from_log_scale", "from_log_var")
LOC = torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
RAW = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)


def make(family: type[LocationScale], constructor: str) -> LocationScale:
    if constructor == "scale":
        return family(LOC, RAW)
    made: LocationScale = getattr(family, constructor)(LOC, RAW)
    return made


def torch_twin(q: LocationScale) -> torch.distributions.Distribution:
    if isinstance(q, Laplace):
        return torch.distributions.Laplace(q.loc, q.scale)
    zero, one = torch.zeros_like(q.loc), torch.ones_like(q.loc)
    affine = torch.distributions.AffineTransform(q.loc, q.scale)
    return TransformedDistribution(Uniform(zero, one), [SigmoidTransform().inv, affine])


of_each_family = pytest.mark.parametrize("family", [Laplace, Logistic])


@of_each_family
@pytest.mark.parametrize("constructor", CONSTRUCTORS)
def test_densities_are_those_of_torch(family: type[LocationScale], constructor: str) -> None:
    q = make(family, constructor)
    twin = torch_twin(q)
    x = torch.linspace(-3, 3, 7, dtype=torch.float64).reshape(7, 1, 1)
    torch.testing.assert_close(q.log_prob(x), twin.log_prob(x))
    torch.testing.assert_close(q.cdf(x), twin.cdf(x))
    u = torch.tensor([0.01, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(q.cdf(q.icdf(u)), u.expand(2, 3))
    assert q.batch_shape == (2, 3)
    assert q.expand((4, 2, 3)).log_prob(x[:, None]).shape == (7, 4, 2, 3)


@of_each_family
def test_samples_are_of_the_distribution(family: type[LocationScale]) -> None:
    """Kolmogorov-Smirnov test and variance; a fresh seed fails once in 500 million."""
    q = make(family, "from_softplus")
    torch.manual_seed(1)
    x = q.sample((100_000,))
    for i in range(2):
        for j in range(3):
            name = "laplace" if family is Laplace else "logistic"
            scale = q.scale[i, j].item()
            assert stats.kstest(x[:, i, j].numpy(), name, (LOC[i, 0].item(), scale)).pvalue > 2e-9
    torch.testing.assert_close(x.var(0), q.variance, rtol=0.1, atol=0)
    torch.testing.assert_close(-q.log_prob(x).mean(0), q.entropy(), rtol=0.02, atol=0.02)


@of_each_family
def test_gradients_reach_the_raw_parameter(family: type[LocationScale]) -> None:
    """The entropy as a mean over samples has the entropy's gradient, also along the path."""
    raw = RAW.clone().requires_grad_()
    q = family.from_softplus(LOC, raw)
    torch.manual_seed(2)
    (found,) = torch.autograd.grad(-q.log_prob(q.rsample((1000,))).mean(0).sum(), raw)
    (exact,) = torch.autograd.grad(q.entropy().sum(), raw)
    torch.testing.assert_close(found, exact)  # x - loc is a multiple of scale: no noise is left


def test_kl_of_laplace() -> None:
    p = Laplace.from_log_var(LOC, RAW)
    q = Laplace(torch.zeros(3, dtype=torch.float64), torch.full((3,), 1.5, dtype=torch.float64))
    expected: Tensor = kl_divergence(torch_twin(p), torch_twin(q))
    torch.testing.assert_close(kl_divergence(p, q), expected)


def test_validation() -> None:
    with pytest.raises(ValueError, match="scale"):
        Logistic(LOC, -RAW, validate_args=True)
    with pytest.raises(ValueError, match=r"parametrization: expected one of"):
        Laplace(LOC, RAW, parametrization="sigma")
