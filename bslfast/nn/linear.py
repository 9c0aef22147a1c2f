"""The Bayesian linear layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks
from bslfast._torch import global_hooks, own_hooks
from bslfast.functional.bayes_linear import checked_input, drawn_linear, drawn_vector_linear
from bslfast.nn import posteriors, priors
from bslfast.nn.estimators import WeightSample
from bslfast.nn.layer import BayesianLayer, one_for_each
from bslfast.nn.many_draws import ManyDraws
from bslfast.nn.weight import Part, Weight, normal_part, vector, vector_part

_TENSORS = {Tensor}


class BayesLinear(BayesianLayer, nn.Linear):
    r"""``y = x @ W.T + b`` with a distribution for every weight and bias.

    By default the posterior is mean-field, q(w) = N(loc, scale); each forward pass, in training and
    in evaluation mode, draws one W and one b for the whole batch, unless
    :func:`bslfast.nn.one_draw` has. Samples and KL divergence then come from one fused kernel
    (:func:`bslfast.functional.bayes_linear`).

    Args:
        in_features, out_features: sizes, >= 1.
        bias: whether there is a bias.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.
        device, dtype: of the parameters.

    Shape: x [..., in_features] -> [..., out_features].

    Parameters: ``weight_loc``, ``weight_raw_scale``, [out_features, in_features]; ``bias_loc``,
    ``bias_raw_scale``, [out_features]; those of another posterior as it says.

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2)
    >>> y = layer(torch.ones(5, 3))
    >>> loss = y.square().mean() + bslfast.nn.kl(layer) / 1000
    >>> loss.backward()
    """

    feature_dim = -1
    weight_loc: Tensor
    weight_raw_scale: Tensor
    # None without a bias, as torch's own bias.
    bias_loc: Tensor
    bias_raw_scale: Tensor

    def forward(  # type: ignore[override]
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
            drawn: samples of :meth:`weights` to use, if there are any already.
        """
        if drawn is not None:
            # Networks of the package hand over what is right, at the cost of no Python function.
            if (
                self._joint
                or type(drawn) is not tuple
                or {*map(type, drawn)} != _TENSORS
                or [*map(Tensor.size, drawn)] != [*self._shapes.values()]
            ):
                self.check_drawn(drawn)
        elif seed is None:
            drawn = self.drawn
        if drawn is None:
            return self.estimator(self, x, seed=seed)
        return self.function(drawn, x)

    def function(self, drawn: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """Outputs for this weight, and this bias if there is one."""
        if self._joint:
            drawn = self.tensors(drawn)
        return F.linear(checked_input(x, self.weight_loc), *drawn)

    def fused(  # type: ignore[override]
        self, weights: Sequence[Weight], x: Tensor, *, seed: int | Tensor | None
    ) -> tuple[Tensor, Part | None] | None:
        """Outputs for one draw in one node of the graph, if all is normal and of one kind."""
        posterior, prior, _ = weights[0]
        if type(posterior) is posteriors.FullCovariance and type(prior) is priors.Normal:
            locs, raw_scale, lower, of_normals = vector(weights[0])
            drawn = drawn_vector_linear(x, locs, raw_scale, lower, seed=seed, **of_normals)
            return None if drawn is None else (drawn[0], vector_part(drawn[1], weights[0]))
        found = self._one_node(weights, x, seed, has_value=False)
        if found is None:
            return None
        y, kl = found
        return y, None if kl is None else normal_part(kl, weights)

    def outputs_and_kl(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Outputs for one draw and the divergence, in one node of the graph, if the layer has one.

        The divergence is worked out along with the samples, and so with their scales. That of
        :meth:`kl` takes them again, as parameters may have changed since the draw.
        """
        if (
            type(self) is not BayesLinear
            or type(self.estimator) is not WeightSample
            or self.drawn is not None
            or any((*own_hooks(self), *global_hooks()))
        ):
            return None
        found: Any = self._one_node(self.weights(), x, None, has_value=True)
        return found  # type: ignore[no-any-return]

    def _one_node(
        self, weights: Sequence[Weight], x: Tensor, seed: int | Tensor | None, *, has_value: bool
    ) -> tuple[Tensor, Tensor | None] | None:
        posterior, prior, _ = weights[0]
        if type(posterior) is not posteriors.Normal or type(prior) is not priors.Normal:
            return None
        parameters: list[Any] = []
        for weight in weights:
            if weight.posterior != posterior or weight.prior != prior:
                return None
            parameters += weight.parameters
        return drawn_linear(
            x,
            *(parameters if len(parameters) == 4 else (*parameters, None, None)),
            prior_loc=prior.loc,
            prior_scale=prior.scale,
            parametrization=posterior.parametrization,
            seed=seed,
            has_value=has_value,
        )

    def sample_outputs(self, x: Tensor, n_samples: int, *, per_draw: bool = False) -> Tensor:
        """Outputs for ``n_samples`` draws of the weights at once, or for :attr:`drawn`.

        Args:
            x: [..., in_features], the input of every draw.
            n_samples: number of draws.
            per_draw: whether each draw has an input of its own: x [n_samples, ..., in_features].

        Returns:
            [n_samples, ..., out_features].

        Raises:
            TypeError, ValueError: a wrong input or number.
        """
        draws = ManyDraws()
        y = self.outputs_for(draws, x, _checks.integer("n_samples", n_samples), per_draw=per_draw)
        draws.remember((self,))
        return y

    def outputs_for(
        self, draws: ManyDraws, x: Tensor, n_samples: int, *, per_draw: bool = False
    ) -> Tensor:
        """As :meth:`sample_outputs`; the divergence is what ``draws`` remembers."""
        x = checked_input(x, self.weight_loc)
        if per_draw and (x.dim() < 2 or x.shape[0] != n_samples):
            raise one_for_each(x, n_samples)
        shape = (n_samples, *x.shape[per_draw:-1], self.out_features)
        drawn = self.drawn
        if drawn is None:
            drawn = draws.of(self.weights(), n_samples)
        else:
            drawn = tuple([t.expand(n_samples, *t.shape) for t in drawn])
        weight, *bias = self.tensors(drawn)
        rows = math.prod(shape[1:-1])
        if per_draw:
            y = x.reshape(n_samples, rows, self.in_features) @ weight.transpose(1, 2)
        else:
            # One product for all draws, as they share the input.
            y = x.reshape(rows, self.in_features) @ weight.flatten(0, 1).t()
            y = y.view(rows, n_samples, self.out_features).transpose(0, 1)
        if bias:
            y = y + bias[0].unsqueeze(1)
        return y.reshape(shape)
