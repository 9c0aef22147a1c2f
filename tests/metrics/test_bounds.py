"""Metrics of bounds and codes against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bslfast import metrics
from bslfast.vae import VAE


def test_mean_and_error() -> None:
    found = metrics.mean_and_error(torch.arange(1.0, 11.0))
    assert found.mean == 5.5
    assert found.standard_error == pytest.approx(math.sqrt(55 / 6 / 10))  # s^2 = n (n + 1) / 12
    # Sums of float32 would lose what is left beside a large mean.
    far = metrics.mean_and_error(torch.tensor([1e6, 1e6 + 1, 1e6 + 2]))
    assert far == pytest.approx((1e6 + 1, math.sqrt(1 / 3)))


def test_the_error_covers_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 50, generator=generator) * 3 + 1
    found = [metrics.mean_and_error(row) for row in values]
    inside = sum(abs(mean - 1) < 2 * error for mean, error in found) / len(found)
    # Student's t with 49 degrees of freedom is inside 2 with probability 0.949.
    assert inside == pytest.approx(0.949, abs=4 * math.sqrt(0.05 / 2000))


class _Linear(nn.Module):
    """x = w z + noise of scale s: p(x) = N(0, w^2 + s^2), and the exact posterior of z."""

    def __init__(self, w: float, s: float) -> None:
        super().__init__()
        self.gain = w / (w**2 + s**2)
        self.log_var = math.log(s**2 / (w**2 + s**2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.gain * x, torch.full_like(x, self.log_var)], dim=1)


def test_of_an_importance_sampled_log_likelihood() -> None:
    """With the exact posterior all weights are p(x), the entropy of which is known."""
    w, s = 1.5, 0.8
    decoder = nn.Linear(1, 1, bias=False)
    nn.init.constant_(decoder.weight, w)
    model = VAE(_Linear(w, s), decoder, likelihood="normal", scale=s)
    x = math.hypot(w, s) * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        each = model.log_marginal(x, 3, seed=0)
    found = metrics.mean_and_error(each)
    entropy = 0.5 * math.log(2 * math.pi * math.e * (w**2 + s**2))
    assert found.standard_error == pytest.approx(math.sqrt(0.5 / 20_000), rel=0.05)
    assert abs(found.mean + entropy) < 4 * found.standard_error
    # 0.1 wide bins: the bits of an ideal code.
    bits = metrics.bits_per_dim(each, 1, bin_width=0.1)
    assert bits == pytest.approx((entropy - math.log(0.1)) / math.log(2), abs=0.03)


def test_bits_per_dim_of_levels() -> None:
    """A density over levels and the probability of a level are the same code."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    entropy = -(probabilities * probabilities.log2()).sum().item()
    n_dims, width = 6, 1 / 4
    x = torch.multinomial(probabilities.expand(50_000, -1), n_dims, replacement=True,
                          generator=torch.Generator().manual_seed(0))  # fmt: skip
    log_p = probabilities.log()[x].sum(1)
    bits = metrics.bits_per_dim(log_p, n_dims)
    assert bits == pytest.approx(entropy, abs=0.01)
    density = log_p - n_dims * math.log(width)
    assert metrics.bits_per_dim(density, n_dims, bin_width=width) == pytest.approx(bits)


def test_active_units() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.09, 0.11, 0.0])  # variances 1, 0.0081, 0.0121, 0
    mu = 5 + scale * torch.randn(20_000, 4, generator=generator)
    assert metrics.is_active(mu).tolist() == [True, False, True, False]
    assert metrics.active_units(mu) == 2
    assert metrics.active_units(mu, threshold=0.0) == 3
    assert metrics.active_units(mu, threshold=2.0) == 0
    # The variance is that of the examples: 0.01 is not above it.
    assert metrics.active_units(torch.tensor([[0.125], [-0.125]]), 0.015625) == 0
    assert metrics.active_units(torch.tensor([[0.125], [-0.125]]), 0.0156) == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: metrics.mean_and_error(torch.ones(1)), ValueError, r"^values: .*at least 2"),
        (lambda: metrics.mean_and_error(torch.ones(3, 2)), ValueError, r"^values: .*\[n\]"),
        (lambda: metrics.mean_and_error(torch.ones(3).long()), TypeError, "^values: "),
        (lambda: metrics.mean_and_error([1.0, 2.0]), TypeError, "^values: "),
        (lambda: metrics.mean_and_error(torch.tensor([0.0, math.inf])), ValueError,
         "^values: expected finite values, got infinity"),
        (lambda: metrics.bits_per_dim(torch.ones(0), 2), ValueError, "^log_likelihood: .*at least"),
        (lambda: metrics.bits_per_dim(torch.ones(2), 0), ValueError, "^n_dims: .*got 0"),
        (lambda: metrics.bits_per_dim(torch.ones(2), 1, bin_width=0), ValueError, "^bin_width: "),
        (lambda: metrics.active_units(torch.ones(2)), ValueError, r"^mu: .*\[n, latent\]"),
        (lambda: metrics.active_units(torch.ones(1, 2)), ValueError, r"^mu: .*at least 2"),
        (lambda: metrics.is_active(torch.full((2, 2), math.nan)), ValueError, "^mu: .*NaN"),
        (lambda: metrics.active_units(torch.ones(2, 2), -1.0), ValueError, "^threshold: "),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
