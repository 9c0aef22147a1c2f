"""Normal distributions of vectors against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bslfast import distributions

D, RANK, N = 3, 2, 200_000


def pair(
    name: str, batch: tuple[int, ...]
) -> tuple[torch.distributions.Distribution, torch.distributions.Distribution, list[Tensor]]:
    """Our distribution, torch's, and their parameters."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if name == "MultivariateNormal":
        factor = normal(*batch, D, D).tril(-1) + torch.diag_embed(normal(*batch, D).exp())
        arguments = {"loc": normal(D), "scale_tril": factor}
    else:
        arguments = {
            "loc": normal(D),
            "cov_factor": normal(*batch, D, RANK),
            "cov_diag": normal(*batch, D).exp(),
        }
    for value in arguments.values():
        value.requires_grad_()
    ours = getattr(distributions, name)(**arguments)
    return ours, getattr(torch.distributions, name)(**arguments), list(arguments.values())


of_each = pytest.mark.parametrize("name", ["MultivariateNormal", "LowRankMultivariateNormal"])
of_each_batch = pytest.mark.parametrize("batch", [(), (2,)])


@of_each
@of_each_batch
def test_densities_and_shapes_are_those_of_torch(name: str, batch: tuple[int, ...]) -> None:
    ours, theirs, _ = pair(name, batch)
    x = torch.ones(4, *batch, D, dtype=torch.float64)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert ours.rsample((5, 4)).shape == theirs.rsample((5, 4)).shape == (5, 4, *batch, D)
    wider = ours.expand((6, *batch))
    assert wider.rsample().shape == (6, *batch, D)
    assert type(wider) is type(ours)
    torch.testing.assert_close(
        distributions.kl_divergence(ours, theirs),
        torch.zeros(batch, dtype=torch.float64),
        rtol=0,
        atol=1e-9,
    )


@of_each
@of_each_batch
def test_moments_of_samples(name: str, batch: tuple[int, ...]) -> None:
    """Means and covariances are within 6 standard deviations; each fails once in 500 million."""
    ours, theirs, _ = pair(name, batch)
    torch.manual_seed(2)
    x = ours.sample((N,))
    covariance = theirs.covariance_matrix.detach()
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    error = (x.mean(0) - theirs.mean.detach()).abs()
    assert (error < 6 * (variance / N).sqrt()).all()
    z = x - theirs.mean.detach()
    found = torch.einsum("n...i,n...j->...ij", z, z) / N
    # var(z_i z_j) = c_ii c_jj + c_ij^2
    spread = variance[..., :, None] * variance[..., None, :] + covariance.square()
    assert ((found - covariance).abs() < 6 * (spread / N).sqrt()).all()


@of_each
@of_each_batch
def test_gradients_reach_all_parameters(name: str, batch: tuple[int, ...]) -> None:
    """E |x|^2 = |loc|^2 + tr C with C = L L^T or W W^T + D has known derivatives."""
    ours, _, parameters = pair(name, batch)
    torch.manual_seed(3)
    x = ours.rsample((N,))
    loc, *others = torch.autograd.grad(x.square().sum(-1).mean(0).sum(), parameters)
    expected = [2 * parameters[0] * math.prod(batch), 2 * parameters[1]]
    if name == "LowRankMultivariateNormal":
        expected.append(torch.ones_like(parameters[2]))
    else:
        others[0] = others[0].tril()  # nothing above the diagonal is read by densities
    for grad, exact in zip((loc, *others), expected, strict=True):
        # Errors are of the order of |exact| / sqrt(N) = 0.002 |exact|.
        assert (grad - exact).abs().max() < 0.05 * (1 + exact.abs().max())
