"""The Bayesian linear layer as one writes it by hand in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EagerLinear(nn.Module):
    """The usual hand-written layer."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight_loc = nn.Parameter(torch.randn(n_out, n_in) / n_in**0.5)
        self.weight_rho = nn.Parameter(torch.full((n_out, n_in), -4.0))
        self.bias_loc = nn.Parameter(torch.zeros(n_out))
        self.bias_rho = nn.Parameter(torch.full((n_out,), -4.0))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the divergence."""
        w_scale, b_scale = F.softplus(self.weight_rho), F.softplus(self.bias_rho)
        kl = self._kl(self.weight_loc, w_scale) + self._kl(self.bias_loc, b_scale)
        return self._output(x, w_scale, b_scale), kl

    def forward(self, x: Tensor) -> Tensor:
        """The outputs."""
        return self._output(x, F.softplus(self.weight_rho), F.softplus(self.bias_rho))

    def _output(self, x: Tensor, w_scale: Tensor, b_scale: Tensor) -> Tensor:
        weight = self.weight_loc + w_scale * torch.randn_like(w_scale)
        return F.linear(x, weight, self.bias_loc + b_scale * torch.randn_like(b_scale))

    @staticmethod
    def _kl(loc: Tensor, scale: Tensor) -> Tensor:
        return (0.5 * (scale * scale + loc * loc - 1) - scale.log()).sum()
