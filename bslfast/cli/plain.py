"""The networks that jobs are compared with, as one writes them by hand in torch.

:func:`bslfast.functional.use_reference` would not be a fair comparison. The reference draws the
kernels' own random bits with integer arithmetic in torch, so that results can be compared number by
number. That costs several times as much as ``torch.randn``.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast.flows import Affine, Spline
from bslfast.flows.coupling import Mapped
from bslfast.likelihoods import Normal
from bslfast.nn import BayesLinear, Weight, priors
from bslfast.nn.many_draws import ManyDraws
from bslfast.vae import VAE


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

    def outputs_for(
        self, draws: ManyDraws, x: Tensor, n_samples: int, *, per_draw: bool = False
    ) -> Tensor:
        """Return outputs for draws of x [batch, in_features], or of one x for each draw."""
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

    def weights(self) -> list[Weight]:
        """None that a kernel could draw."""
        return []

    def compute_kl(self) -> Tensor:
        """Return the KL divergence from the last forward pass."""
        return self._kl

    def _divergence(self, loc: Tensor, scale: Tensor) -> Tensor:
        prior = self.priors["weight"]
        assert isinstance(prior, priors.Normal)
        ratio, distance = scale / prior.scale, (loc - prior.loc) / prior.scale
        return (0.5 * (ratio**2 + distance**2 - 1) - ratio.log()).sum()


class PlainVAE(VAE):
    """:class:`bslfast.vae.VAE` in plain torch, for one sample.

    Likelihoods are the Bernoulli and the normal one.
    """

    def terms(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        reduction: str = "row",
    ) -> tuple[Tensor, Tensor]:
        """Return the expected log likelihood and the divergence, each [batch]."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        kl = -0.5 * (1 + log_var - mu.square() - log_var.exp()).sum(dim=1)
        outputs = self.decoder(z)
        if isinstance(self.likelihood, Normal):
            loc, scale = self.likelihood.loc_scale(outputs, dim=1)
            variance = scale.square().expand_as(loc)
            surprise = F.gaussian_nll_loss(loc, x, variance, full=True, reduction="none")
        else:
            surprise = F.binary_cross_entropy_with_logits(outputs, x, reduction="none")
        return -surprise.flatten(1).sum(dim=1), kl


class PlainAffine(Affine):
    """:class:`bslfast.flows.Affine` in plain torch, for scale_fn "tanh"."""

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, raw_scale = parameters.chunk(2, dim=-1)
        log_scale = 2 * torch.tanh(0.5 * raw_scale)
        if inverse:
            return (x - shift) * torch.exp(-log_scale), -log_scale.sum(dim=-1)
        return x * log_scale.exp() + shift, log_scale.sum(dim=-1)


class PlainSpline(Spline):
    """:class:`bslfast.flows.Spline` in plain torch, forward, as zuko and others have it."""

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        assert not inverse, "training needs the map alone"
        bins, bound = self.bins, self.bound
        # A single feature without context has the same parameters in all rows.
        rows = parameters.expand(*x.shape[:-1], parameters.shape[-1])
        widths, heights, derivatives = rows.unflatten(-1, (x.shape[-1], -1)).split(
            (bins, bins, bins - 1), dim=-1
        )
        width_knots = self._knots(widths, self.min_bin_width)
        height_knots = self._knots(heights, self.min_bin_height)
        slopes = F.softplus(derivatives) + self.min_derivative
        slopes = F.pad(slopes, (1, 1), value=1.0)
        inside = (x >= -bound) & (x <= bound)
        inner = x.clamp(-bound, bound).unsqueeze(-1)
        index = torch.searchsorted(width_knots[..., 1:-1].contiguous(), inner, right=True)
        x0, x1 = width_knots.gather(-1, index), width_knots.gather(-1, index + 1)
        y0, y1 = height_knots.gather(-1, index), height_knots.gather(-1, index + 1)
        d0, d1 = slopes.gather(-1, index), slopes.gather(-1, index + 1)
        s = (y1 - y0) / (x1 - x0)
        t = (inner - x0) / (x1 - x0)
        rest = t * (1 - t)
        denominator = s + (d0 + d1 - 2 * s) * rest
        y = y0 + (y1 - y0) * (s * t**2 + d0 * rest) / denominator
        slope = s**2 * (d1 * t**2 + 2 * s * rest + d0 * (1 - t) ** 2) / denominator**2
        log_det = torch.where(inside, slope.squeeze(-1).log(), 0.0)
        return torch.where(inside, y.squeeze(-1), x), log_det.sum(dim=-1)

    def _knots(self, logits: Tensor, minimum: float) -> Tensor:
        sizes = minimum + (1 - minimum * self.bins) * torch.softmax(logits, dim=-1)
        bound = self.bound
        return 2 * bound * F.pad(sizes.cumsum(dim=-1), (1, 0)) - bound


_MODULES: dict[type, type] = {BayesLinear: PlainBayesLinear, VAE: PlainVAE}
_MAPS: dict[type, type] = {Affine: PlainAffine, Spline: PlainSpline}


def plain(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose Bayesian layers, VAEs and flows run in plain torch."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        module.__class__ = _MODULES.get(type(module), type(module))
        if isinstance(module, Mapped):
            ours: Any = module.map
            if type(ours) in _MAPS:
                module.map = _MAPS[type(ours)](**dataclasses.asdict(ours))
    return twin
