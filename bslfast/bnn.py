"""Bayesian neural networks."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks, likelihoods, programs
from bslfast._activations import ACTIVATIONS
from bslfast._torch import active_ddp
from bslfast.elbo import negative_elbo
from bslfast.functional import normal_rsample_kl
from bslfast.likelihoods.lowering import in_rows
from bslfast.nn import BayesLinear
from bslfast.nn.estimators import Estimator, WeightSample, draw, drawn_by
from bslfast.nn.estimators.weight_sample import MOST_DRAWN_TOGETHER
from bslfast.nn.lowering import drawn_dense
from bslfast.nn.many_draws import ManyDraws
from bslfast.nn.means import share_means
from bslfast.nn.module import BayesianModule, bayesian_layers, kl, remember, share_weights
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior
from bslfast.nn.weight import Weight, normal_part
from bslfast.programs import MOST_TRAINED, Builder, CannotLower, Lanes, lower, lowers

# Predictions hold at most so many weights of a layer, those of several draws. Draws of one call
# share the scales, which are worked out once. More would need new memory in each call.
_HELD_WEIGHTS = 1 << 22
# Up to so many weights, a forward pass as one node of the graph pays. Its backward pass draws them
# and runs the network again. negative_elbo, which runs it once, and training.fit have limits of
# their own; predictions have none.
_ONE_NODE = 1 << 16
# negative_elbo is faster as one node up to this many products of a weight and a row. Beyond it
# matrix products dominate, and torch's are a little faster.
_MOST_PRODUCTS = 1 << 29


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
        self._n_outputs = widths[-1][1]

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for one draw of all weights."""
        if self._n_weights <= _ONE_NODE or not torch.is_grad_enabled():
            found = self._program(x)
            if found is not None:
                return self._at_once(found, x)
        if self._n_weights <= MOST_DRAWN_TOGETHER or (isinstance(x, Tensor) and x.is_cuda):
            layers: Any = self.layers
            # Not those of a joint posterior, which a layer draws in the node of its product.
            sampled = [
                m
                for m in layers
                if m.drawn is None and isinstance(m.estimator, WeightSample) and not m._joint
            ]
            return _output(self, x, draw(sampled))
        return _output(self, x, {})

    def negative_elbo(
        self, x: Tensor, y: Tensor, *, dataset_size: int, beta: float = 1.0
    ) -> Tensor:
        """The loss of a mini-batch, for one draw of all weights: a step's cheapest way to it.

        The same as ``bslfast.negative_elbo(self.likelihood.log_prob(self(x), y), kl(self), ...)``
        up to rounding. On the CPU it is one node of the graph, which has all gradients when it
        returns, for up to 2^29 products of a weight and a row: beyond, torch's are faster.

        Args:
            x: inputs [batch, in_features].
            y: targets, as the likelihood takes them.
            dataset_size, beta: as of :func:`bslfast.negative_elbo`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        >>> import torch, bslfast
        >>> model = bslfast.bnn.BayesianMLP(11, (50,), 1)
        >>> loss = model.negative_elbo(torch.randn(8, 11), torch.randn(8, 1), dataset_size=8)
        >>> loss.backward()
        """
        program = self._loss_program(x, y) if torch.is_grad_enabled() else None
        if program is None:
            outputs, divergence = self._outputs_and_kl(x)
            log_likelihood = self.likelihood.log_prob(outputs, y)
            return negative_elbo(log_likelihood, divergence, dataset_size=dataset_size, beta=beta)
        _checks.integer("dataset_size", dataset_size)
        beta = _checks.number("beta", beta, minimum=0.0)
        self.likelihood.check(y)
        found, context = program
        layers = [cast(BayesLinear, layer) for layer in self.layers]
        by_ops = functools.partial(
            _loss_by_ops,
            self.likelihood,
            functools.partial(_by_ops, self.activation, [layer.weights() for layer in layers]),
            found.parameters,
            {"dataset_size": dataset_size, "beta": beta},
        )
        return programs.loss(found, by_ops, x, context, beta / dataset_size)

    def sample_outputs(self, x: Tensor, n_samples: int) -> Tensor:
        """Outputs for ``n_samples`` draws of all weights, [n_samples, ..., outputs].

        Args:
            x: [..., in_features].
            n_samples: number of draws; each serves all of x.
        """
        n_samples = _checks.integer("n_samples", n_samples)
        layers: Any = self.layers
        draws = ManyDraws()
        if share_weights(layers):
            return self._with_shared_weights(draws, x, n_samples)
        largest = max(cast(BayesLinear, layer).weight_loc.numel() for layer in self.layers)
        held = max(1, _HELD_WEIGHTS // largest)
        outputs = []
        found = None if torch.is_grad_enabled() else self._program(x)
        for start in range(0, n_samples, held):
            if found is not None:
                outputs.append(programs.samples(found, x, min(held, n_samples - start)))
                continue
            h = x
            for index, layer in enumerate(self.layers):
                h = cast(BayesLinear, layer).outputs_for(
                    draws,
                    self.activation(h) if index else h,
                    min(held, n_samples - start),
                    per_draw=index > 0,
                )
            outputs.append(h)
        draws.remember(layers)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _with_shared_weights(self, draws: ManyDraws, x: Tensor, n_samples: int) -> Tensor:
        """Outputs of one pass after another, in which a weight has one sample in all its places."""
        outputs, layers = [], cast("list[BayesianModule]", [*self.layers])
        for _ in range(n_samples):
            samples = drawn_by([layer for layer in layers if layer.drawn is not None])
            drawn = {}
            for layer in layers:
                for weight in layer.weights():
                    if weight.identity not in samples:
                        samples[weight.identity] = draws.of((weight,), 1)[0][0]
                drawn[layer] = tuple([samples[weight.identity] for weight in layer.weights()])
            outputs.append(_output(self, x, drawn))
        draws.remember(layers)
        return torch.stack(outputs)

    def _program(self, x: Any) -> programs.Lowered | None:
        """What computes outputs for draws of all weights at once, if it can for this x."""
        if not programs.are_on() or not self._fits(x):
            return None
        return programs.runnable(self, "outputs", _steps, (x.shape[-1], 0), x, None)

    def _loss_program(self, x: Any, y: Any) -> tuple[programs.Lowered, Tensor] | None:
        """What computes the loss at once and its context, if it can for this batch."""
        if not programs.are_on() or not self._fits(x) or not isinstance(y, Tensor) or x.ndim != 2:
            return None
        # A tile has 32 rows, if there are as many or not.
        if self._n_weights * max(32, len(x)) > _MOST_PRODUCTS:
            return None
        context = in_rows(self.likelihood, y, x.dtype)
        if context is None or len(x) != len(y):
            return None
        sizes = x.shape[1], context.shape[1]
        found = programs.runnable(self, "loss", _loss_steps, sizes, x, context)
        return None if found is None else (found, context)

    def _fits(self, x: Any) -> bool:
        first, drawn = cast(BayesLinear, self.layers[0]), [m.drawn for m in self.layers]
        return (
            isinstance(x, Tensor)
            and x.ndim > 1
            and x.shape[-1] == first.in_features
            and x.numel() > 0
            and all(samples is None for samples in drawn)
        )

    def _at_once(self, found: programs.Lowered, x: Tensor) -> Tensor:
        layers = [cast(BayesLinear, layer) for layer in self.layers]
        weights = [layer.weights() for layer in layers]
        y, place = programs.outputs(found, functools.partial(_by_ops, self.activation, weights), x)
        if place is not None:
            remember((normal_part(place, [w for own in weights for w in own]),), layers)
        return _reaching(self, y)

    def _outputs_and_kl(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs for one draw of all weights, and their divergence, op by op."""
        together = (
            self._n_weights <= MOST_DRAWN_TOGETHER or not isinstance(x, Tensor) or not x.is_cpu
        )
        if together or share_weights(cast(Any, self.layers)):
            return self(x), kl(self)
        outputs, parts = x, []
        for index, layer in enumerate(self.layers):
            inputs = self.activation(outputs) if index else outputs
            found = cast(BayesLinear, layer).outputs_and_kl(inputs)
            if found is None:
                return self(x), kl(self)
            outputs, part = found
            parts.append(part)
        return _reaching(self, outputs), sum(parts[1:], parts[0])

    def explain(self) -> str:
        """Say how the network runs now: as one call of a kernel, or op by op, and then why.

        Networks of the usual weights run as one call on the CPU in eager mode where it pays, unless
        something watches their parts, such as hooks; :class:`bslfast.whole_networks` switches that
        off. :func:`bslfast.training.fit` then takes the steps of an epoch in one call.

        >>> import bslfast
        >>> print(bslfast.bnn.BayesianMLP(11, (50,), 1).explain())
        forward, sample_outputs: one call of 3 steps
        negative_elbo, training.fit: one call of 6 steps
        """
        first = cast(BayesLinear, self.layers[0])
        x = first.weight_loc.new_empty(1, first.in_features)
        classes = isinstance(self.likelihood, likelihoods.Categorical)
        targets = 1 if classes else self._n_outputs // len(self.likelihood.parts)
        loss = programs.explain(self, "loss", _loss_steps, (first.in_features, targets), x)
        outputs = programs.explain(self, "outputs", _steps, (first.in_features, 0), x)
        weights = "op by op: {} weights, more than {}".format
        layers = cast(Any, self.layers)
        tensors = [weight.parameters[0] for own in layers for weight in own.weights()]
        read = sum(p.numel() for p in (*tensors, *self.likelihood.parameters()))
        fit = loss if read <= MOST_TRAINED else weights(read, MOST_TRAINED)
        if self._n_weights > _ONE_NODE:
            outputs += f", but with a graph {weights(self._n_weights, _ONE_NODE)}"
        if loss.startswith("one call") and self._n_weights > MOST_DRAWN_TOGETHER:
            loss += f", for up to {_MOST_PRODUCTS // self._n_weights} rows"
        losses = f"negative_elbo: {loss}\ntraining.fit: {fit}"
        if fit == loss:
            losses = f"negative_elbo, training.fit: {loss}"
        return f"forward, sample_outputs: {outputs}\n{losses}"

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
        share_means(dict(zip(bayesian.layers, self.layers, strict=True)))
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
    return _reaching(network, x)


def _reaching(network: BayesianMLP | DeterministicMLP, y: Tensor) -> Tensor:
    if active_ddp() is None:
        return y
    reached: Tensor = _Reaches.apply(  # type: ignore[no-untyped-call]
        y, *network.likelihood.parameters()
    )
    return reached


def _steps(builder: Builder, network: BayesianMLP) -> Lanes:
    outputs: Lanes = lower(builder, network, builder.x)
    return outputs


def _loss_steps(builder: Builder, network: BayesianMLP) -> Lanes:
    if len(bayesian_layers(network)) != len(network.layers):
        raise CannotLower("the network has Bayesian layers that it does not use")
    outputs = _steps(builder, network)
    lower(builder, network.likelihood, outputs, builder.context)
    return outputs


@lowers(BayesianMLP, DeterministicMLP)
def _network(builder: Builder, network: BayesianMLP | DeterministicMLP, lanes: Lanes) -> Lanes:
    builder.looked_at(network)
    builder.looked_at(network.layers)
    together = isinstance(network, BayesianMLP) and network._n_weights <= MOST_DRAWN_TOGETHER
    seed, first = max(builder.seeds, default=-1) + 1, len(builder.seeds)
    kinds = set()
    for index, layer in enumerate(network.layers):
        if index:
            lanes = lower(builder, network.activation, lanes)
        if together:
            # As draw() does for weights of one kind.
            drawn = cast(BayesLinear, layer)
            stream = len(builder.seeds) - first
            lanes = drawn_dense(builder, drawn, lanes, seed=seed, stream=stream)
            kinds |= {cast(Any, weight.posterior).parametrization for weight in drawn.weights()}
        else:
            lanes = lower(builder, layer, lanes)
    if len(kinds) > 1:
        raise CannotLower("weights of several parametrizations are drawn by several seeds")
    return lanes


def _by_ops(
    activation: nn.Module,
    weights: Sequence[Sequence[Weight]],
    seeds: programs.Seeds,
    x: Tensor,
    *parameters: Tensor,
) -> tuple[Tensor, Tensor]:
    """The outputs for a draw and the divergence, with these parameters.

    Args:
        activation: of the network; not the network itself, which refers to the graph.
        weights: of each layer.
        seeds, x, parameters: as of :func:`bslfast.programs.outputs`; locs come first, and raw
            scales last.
    """
    every: list[Any] = [weight for own in weights for weight in own]
    samples, parts = [], []
    for weight, loc, raw_scale, seed, stream in zip(
        every, parameters[: len(every)], parameters[-len(every) :], *seeds, strict=True
    ):
        sample, part = normal_rsample_kl(
            loc,
            raw_scale,
            prior_loc=weight.prior.loc,
            prior_scale=weight.prior.scale,
            parametrization=weight.posterior.parametrization,
            seed=seed,
            stream=stream,
        )
        samples.append(sample)
        parts.append(part)
    left = iter(samples)
    for index, own in enumerate(weights):
        x = F.linear(activation(x) if index else x, *(next(left) for _ in own))
    return x, torch.stack(parts).sum()


def _loss_by_ops(
    likelihood: likelihoods.Likelihood,
    network: Callable[..., tuple[Tensor, Tensor]],
    own: Sequence[Tensor],
    settings: dict[str, Any],
    seeds: programs.Seeds,
    x: Tensor,
    y: Tensor,
    *parameters: Tensor,
) -> tuple[Tensor]:
    """The loss for a draw, with these in the place of its ``own`` parameters."""
    names = {id(p): f"module.{name}" for name, p in likelihood.named_parameters()}
    of_likelihood = {
        names[id(p)]: t for p, t in zip(own, parameters, strict=True) if id(p) in names
    }
    outputs, divergence = network(seeds, x, *parameters)
    if isinstance(likelihood, likelihoods.Categorical):
        y = y[:, 0].long()
    method = programs.Method(likelihood, "log_prob")
    log_likelihood = torch.func.functional_call(method, of_likelihood, (outputs, y))
    return (negative_elbo(log_likelihood, divergence, **settings),)


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
