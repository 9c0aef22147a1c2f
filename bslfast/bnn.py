"""Bayesian neural networks."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from bslfast import _checks, likelihoods
from bslfast.nn import BayesLinear
from bslfast.nn.estimators import Estimator, WeightSample, draw
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}

# Draws of a layer's weights that are held at a time when predicting: enough for one batched product
# over small networks, while those of large ones stay in the cache.
_HELD_WEIGHTS = 1 << 20
# Up to so many weights, a step on the CPU costs Python and nodes of the graph more than memory, of
# which a layer that draws by itself takes less. On CUDA devices launches are what layers cost.
_DRAWN_TOGETHER = 1 << 18


class BayesianMLP(nn.Module):
    """A dense network whose weights and biases are distributions.

    Args:
        in_features: number of inputs.
        hidden: widths of the hidden layers; may be empty.
        out_features: number of targets, or of classes for ``likelihood="categorical"``. The network
            has as many outputs as the likelihood needs for them.
        activation: "relu", "tanh", "sigmoid", "silu" or "gelu".
        likelihood: "normal" (learned noise, the same for all inputs), "heteroscedastic_normal"
            (noise that depends on the input), "categorical", another name or a Likelihood: see
            :mod:`bslfast.likelihoods`.
        posterior, prior, prior_scale, init_scale, parametrization, estimator, device, dtype: as in
            :class:`bslfast.nn.BayesLinear`.

    Shape: x [..., in_features] -> [..., outputs].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch, bslfast
    >>> model = bslfast.bnn.BayesianMLP(11, (50,), 1)
    >>> x, y = torch.randn(8, 11), torch.randn(8, 1)
    >>> loss = bslfast.negative_elbo(
    ...     model.likelihood.log_prob(model(x), y), bslfast.nn.kl(model), dataset_size=8
    ... )
    >>> loss.backward()
    >>> bslfast.predict(model, x, n_samples=20).mean.shape
    torch.Size([8, 1])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        activation: str = "relu",
        likelihood: str | likelihoods.Likelihood = "normal",
        posterior: Posterior | Mapping[str, Posterior] | None = None,
        prior: Prior | Mapping[str, Prior] | None = None,
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        parametrization: str = "softplus",
        estimator: str | Estimator = "weight_sample",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _checks.choice("activation", activation, tuple(ACTIVATIONS))
        self.likelihood = likelihoods.get(likelihood, out_features)
        self.likelihood.to(device=device, dtype=dtype)
        self.activation = ACTIVATIONS[activation]()
        options: dict[str, Any] = {
            "posterior": posterior,
            "prior": prior,
            "prior_scale": prior_scale,
            "init_scale": init_scale,
            "parametrization": parametrization,
            "estimator": estimator,
            "device": device,
            "dtype": dtype,
        }
        widths = _widths(in_features, hidden, self.likelihood.n_outputs(out_features))
        self.layers = nn.ModuleList(BayesLinear(n_in, n_out, **options) for n_in, n_out in widths)
        self._n_weights = sum(n_in * n_out for n_in, n_out in widths)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for one draw of all weights."""
        if self._n_weights <= _DRAWN_TOGETHER or (isinstance(x, Tensor) and x.is_cuda):
            layers: Any = self.layers
            sampled = [
                m for m in layers if m.drawn is None and isinstance(m.estimator, WeightSample)
            ]
            return _output(self, x, draw(sampled))
        return _output(self, x, {})

    def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
        """Outputs for ``n_samples`` draws of all weights, [n_samples, ..., outputs].

        Args:
            x: [..., in_features].
            n_samples: number of draws; each serves all of x.
        """
        n_samples = _checks.integer("n_samples", n_samples)
        largest = max(cast(BayesLinear, layer).weight_loc.numel() for layer in self.layers)
        held = max(1, _HELD_WEIGHTS // largest)
        outputs = []
        for start in range(0, n_samples, held):
            h = x
            for index, layer in enumerate(self.layers):
                h = cast(BayesLinear, layer).sample_outputs(
                    self.activation(h) if index else h,
                    min(held, n_samples - start),
                    per_draw=index > 0,
                )
            outputs.append(h)
        return torch.cat(outputs)

    def deterministic_twin(self) -> DeterministicMLP:
        """The same network with plain weights, at the means of the posterior."""
        return DeterministicMLP(self)


class DeterministicMLP(nn.Module):
    """``nn.Linear`` layers in the place of a :class:`BayesianMLP`'s, for comparison."""

    def __init__(self, bayesian: BayesianMLP) -> None:
        super().__init__()
        self.likelihood = copy.deepcopy(bayesian.likelihood)
        self.activation = bayesian.activation
        self.layers = nn.ModuleList()
        for layer in bayesian.layers:
            self.layers.append(cast(BayesLinear, layer).deterministic_twin())
        self.train(bayesian.training)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the plain network."""
        return _output(self, x, {})


def _output(
    network: BayesianMLP | DeterministicMLP, x: Tensor, drawn: Mapping[Any, tuple[Tensor, ...]]
) -> Tensor:
    for index, layer in enumerate(network.layers):
        h = network.activation(x) if index else x
        x = layer(h, drawn=drawn[layer]) if layer in drawn else layer(h)
    if nn.parallel.DistributedDataParallel._get_active_ddp_module() is not None:
        x = _Reaches.apply(x, *network.likelihood.parameters())  # type: ignore[no-untyped-call]
    return x


class _Reaches(torch.autograd.Function):
    """Return the first tensor as it is, whose graph then reaches the others too.

    DistributedDataParallel looks for unused parameters from the outputs of the forward pass. Those
    of the likelihood come in with the loss, and would take part though they had been given up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, *(None,) * (len(ctx.needs_input_grad) - 1)


def _widths(in_features: int, hidden: Sequence[int], outputs: int) -> list[tuple[int, int]]:
    widths = [
        _checks.integer("in_features", in_features),
        *_checks.widths("hidden", hidden),
        outputs,
    ]
    return list(itertools.pairwise(widths))
