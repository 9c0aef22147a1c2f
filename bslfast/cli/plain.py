"""The network that a job is compared with: what one writes by hand in torch.

Not :func:`bslfast.functional.use_reference`: the reference draws the kernels' own random bits with
integer arithmetic in torch, so that results can be compared number by number. That costs several
times what ``torch.randn`` does, and a ratio to it would flatter us.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast.nn import BayesLinear


class PlainBayesLinear(BayesLinear):
    """:class:`bslfast.nn.BayesLinear` in plain torch, for parametrization "softplus"."""

    def forward(self, x: Tensor, *, seed: None = None) -> Tensor:  # type: ignore[override]
        """Return ``x @ W.T + b`` for one draw of W and b."""
        weight_scale, bias_scale = (
            F.softplus(self.weight_raw_scale),
            F.softplus(self.bias_raw_scale),
        )
        weight = self.weight_loc + weight_scale * torch.randn_like(weight_scale)
        bias = self.bias_loc + bias_scale * torch.randn_like(bias_scale)
        self._kl = self._divergence(self.weight_loc, weight_scale) + self._divergence(
            self.bias_loc, bias_scale
        )
        return F.linear(x, weight, bias)

    def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
        """Return outputs for ``n_samples`` draws, [n_samples, batch, out_features]."""
        weight_scale, bias_scale = (
            F.softplus(self.weight_raw_scale),
            F.softplus(self.bias_raw_scale),
        )
        weight = (
            self.weight_loc
            + weight_scale * weight_scale.new_empty(n_samples, *weight_scale.shape).normal_()
        )
        bias = (
            self.bias_loc
            + bias_scale * bias_scale.new_empty(n_samples, 1, self.out_features).normal_()
        )
        return x @ weight.transpose(1, 2) + bias

    def kl(self) -> Tensor:
        """Return the KL divergence that the last forward pass has computed."""
        return self._kl

    def _divergence(self, loc: Tensor, scale: Tensor) -> Tensor:
        ratio, distance = scale / self.prior_scale, (loc - self.prior_loc) / self.prior_scale
        return (0.5 * (ratio**2 + distance**2 - 1) - ratio.log()).sum()


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose BayesLinear layers run in plain torch, weights kept."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if type(module) is BayesLinear:
            module.__class__ = PlainBayesLinear
    return twin
