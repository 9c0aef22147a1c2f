"""A Bayesian layer of one's own: the fused op draws the weights and gives their KL in one pass.

python examples/own_layer.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import bslfast
import bslfast.functional as BF


class ScaledFeatures(nn.Module):
    """Multiplies each feature by an uncertain weight with posterior N(loc, softplus(raw_scale))."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.ones(features))
        self.raw_scale = nn.Parameter(torch.full((features,), -2.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return x * w and the KL divergence of w from its prior N(0, 1)."""
        w, kl = BF.normal_rsample_kl(self.loc, self.raw_scale)
        return x * w, kl


def main(steps: int = 2000) -> Tensor:
    """Learn which of four features matter; return the posterior's means."""
    torch.manual_seed(0)
    x = torch.randn(500, 4)
    y = x @ torch.tensor([2.0, -1.0, 0.0, 0.0]) + 0.1 * torch.randn(500)
    layer = ScaledFeatures(4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(steps):
        scaled, kl = layer(x)
        log_likelihood = torch.distributions.Normal(scaled.sum(dim=1), 0.1).log_prob(y)
        loss = bslfast.negative_elbo(log_likelihood, kl, dataset_size=len(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scale = nn.functional.softplus(layer.raw_scale)
    for i, (mean, spread) in enumerate(zip(layer.loc.tolist(), scale.tolist(), strict=True)):
        print(f"feature {i}: {mean:6.3f} +- {spread:.3f}")
    return layer.loc.detach()


if __name__ == "__main__":
    main()
