"""The Bayesian linear layer."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.functional.bayes_linear import checked_input, drawn_linear
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.nn.bayesian import BayesianModule, NormalWeight, Remembered

_NAMES = ("weight_loc", "weight_raw_scale", "bias_loc", "bias_raw_scale")


class BayesLinear(BayesianModule):
    r"""``y = x @ W.T + b`` with a normal distribution for every weight and bias.

    The posterior is mean-field, q(w) = N(loc, scale); each forward pass, in training and in
    evaluation mode, draws one W and one b for the whole batch, unless :func:`bslfast.nn.one_draw`
    has. Sample and KL divergence come from one fused kernel
    (:func:`bslfast.functional.bayes_linear`).

    Args:
        in_features, out_features: sizes, >= 1.
        bias: whether there is a bias.
        prior_loc, prior_scale: the prior N(prior_loc, prior_scale) of every weight and bias.
        init_scale: the posterior's standard deviation at the start.
        parametrization: of the scale, as in :func:`bslfast.functional.normal_rsample`.
        device, dtype: of the parameters.

    Shape: x [..., in_features] -> [..., out_features].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2)
    >>> y = layer(torch.ones(5, 3))
    >>> loss = y.square().mean() + bslfast.nn.kl(layer) / 1000
    >>> loss.backward()
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        prior_loc: float = 0.0,
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        parametrization: str = "softplus",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _checks.integer("in_features", in_features)
        self.out_features = _checks.integer("out_features", out_features)
        self.prior_loc = _checks.number("prior_loc", prior_loc)
        self.prior_scale = _checks.number("prior_scale", prior_scale, above=0.0)
        self.init_scale = _checks.number("init_scale", init_scale, above=0.0)
        self.parametrization = _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        shape = (out_features, in_features)
        self.weight_loc = nn.Parameter(torch.empty(shape, **options))
        self.weight_raw_scale = nn.Parameter(torch.empty(shape, **options))
        if bias:
            self.bias_loc = nn.Parameter(torch.empty(out_features, **options))
            self.bias_raw_scale = nn.Parameter(torch.empty(out_features, **options))
        else:
            self.register_parameter("bias_loc", None)
            self.register_parameter("bias_raw_scale", None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the means as ``torch.nn.Linear`` draws its weights; set all scales to init_scale."""
        bound = 1 / math.sqrt(self.in_features)
        raw_scale = raw_scale_of(self.init_scale, self.parametrization)
        nn.init.uniform_(self.weight_loc, -bound, bound)
        nn.init.constant_(self.weight_raw_scale, raw_scale)
        if self.bias_loc is not None:
            nn.init.uniform_(self.bias_loc, -bound, bound)
            nn.init.constant_(self.bias_raw_scale, raw_scale)

    def forward(
        self,
        x: Tensor,
        *,
        seed: int | Tensor | None = None,
        drawn: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """Outputs for one draw of the weights.

        Args:
            x: [..., in_features].
            seed: as in :func:`bslfast.functional.normal_rsample`.
            drawn: samples of :meth:`normal_weights` to use, if there are any already.
        """
        if drawn is None and seed is None:
            drawn = self.drawn
        if drawn is not None:
            return F.linear(checked_input(x, self.weight_loc), *drawn)
        y, kl = drawn_linear(
            x,
            self.weight_loc,
            self.weight_raw_scale,
            self.bias_loc,
            self.bias_raw_scale,
            prior_loc=self.prior_loc,
            prior_scale=self.prior_scale,
            parametrization=self.parametrization,
            seed=seed,
        )
        if kl is not None and kl.requires_grad:
            Remembered([(kl, self.normal_weights())], (self,))
        return y

    def sample_outputs(self, x: Tensor, n_samples: int, *, per_draw: bool = False) -> Tensor:
        """Outputs for ``n_samples`` draws of the weights at once.

        Args:
            x: [..., in_features], the input of every draw.
            n_samples: number of draws.
            per_draw: whether each draw has an input of its own: x [n_samples, ..., in_features].

        Returns:
            [n_samples, ..., out_features].

        Raises:
            TypeError, ValueError: a wrong input or number.
        """
        n_samples = _checks.integer("n_samples", n_samples)
        x = checked_input(x, self.weight_loc)
        if per_draw and (x.dim() < 2 or x.shape[0] != n_samples):
            raise ValueError(
                f"x: expected one input for each of {n_samples} draws, got {_checks.describe(x)}"
            )
        shape = (n_samples, *x.shape[per_draw:-1], self.out_features)
        options: dict[str, Any] = {
            "parametrization": self.parametrization,
            "sample_shape": (n_samples,),
        }
        weight = BF.normal_rsample(self.weight_loc, self.weight_raw_scale, **options)
        rows = math.prod(shape[1:-1])
        if per_draw:
            y = x.reshape(n_samples, rows, self.in_features) @ weight.transpose(1, 2)
        else:
            # One product for all draws, as they share the input.
            y = x.reshape(rows, self.in_features) @ weight.flatten(0, 1).t()
            y = y.view(rows, n_samples, self.out_features).transpose(0, 1)
        if self.bias_loc is not None:
            bias = BF.normal_rsample(self.bias_loc, self.bias_raw_scale, **options)
            y = y + bias.unsqueeze(1)
        return y.reshape(shape)

    def normal_weights(self) -> list[NormalWeight]:
        """The weight, and the bias if there is one."""
        constants = (self.prior_loc, self.prior_scale, self.parametrization)
        loc, raw_scale, bias_loc, bias_raw_scale = map(self._own, _NAMES)
        weights = [NormalWeight(loc, raw_scale, *constants)]
        if bias_loc is not None:
            weights.append(NormalWeight(bias_loc, bias_raw_scale, *constants))
        return weights

    def _own(self, name: str) -> Any:
        # Past __getattr__, which small models would notice at every step; but a parametrization of
        # torch.nn.utils is no parameter.
        value = self._parameters.get(name)
        return getattr(self, name) if value is None else value

    def compute_kl(self) -> Tensor:
        """The KL divergence of weight and bias, from the parameters."""
        divergences = [
            BF.normal_kl(w.loc, w.raw_scale, w.prior_loc, w.prior_scale, parametrization=w[-1])
            for w in self.normal_weights()
        ]
        return divergences[0] if len(divergences) == 1 else divergences[0] + divergences[1]

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias_loc is not None}, prior_scale={self.prior_scale}, "
            f"parametrization={self.parametrization!r}"
        )


def raw_scale_of(scale: float, parametrization: str) -> float:
    """The raw parameter that stands for a standard deviation ``scale`` > 0."""
    if parametrization == "softplus":
        return scale + math.log(-math.expm1(-scale))
    if parametrization == "scale":
        return scale
    return math.log(scale) * (2.0 if parametrization == "log_var" else 1.0)
