"""Bayesian MLPs of bslfast, torch, bayesian-torch, blitz, torchbnn and JAX, and the plain one.

The code of libraries is used as it is. Posteriors are normal, priors are N(0, 1).
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from beside import Implementation, Peer, Remote
from bnn_peers.cases import (
    EPOCHS,
    STEPS,
    Case,
    Exact,
    Weights,
    certain,
    ours,
)
from eager import EagerLinear
from torch import Tensor, nn

import bslfast

HERE = Path(__file__).parent
STEP, ADAM, LOOP, PREDICTIONS = PASSES = (
    "forward + backward",
    "step with Adam",
    "training loop",
    "predictions",
)
#: How bslfast computes the loss.
BY_PARTS, WHOLE, BY_OPS = WAYS = (
    "log_prob(model(x)), kl(model)",
    "model.negative_elbo(x, y)",
    "log_prob and kl by ops",
)
Data = tuple[Tensor, Tensor]


class Torch:
    """A network in this process.

    Args:
        case: which.
        module: its parameters.
        loss: the loss of a batch x, y.
        predict: outputs [samples, rows, outputs] for x.
        data: the whole data set, whose first rows are the batch.
    """

    def __init__(
        self,
        case: Case,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        predict: Callable[[Tensor], Tensor],
        data: Data,
    ) -> None:
        self.module, self.loss, self.predict, self.data = module, loss, predict, data
        self.batch = data[0][: case.batch], data[1][: case.batch]
        self.asked = data[0][: case.rows]
        self.optimizer = torch.optim.Adam(module.parameters(), 1e-4, fused=True)

    def step(self) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        self.loss(*self.batch).backward()

    def step_with_adam(self) -> None:
        """A whole step."""
        self.step()
        self.optimizer.step()

    def train(self) -> None:
        """What there is for a loop over batches: here only the step."""
        self.step_with_adam()

    @torch.no_grad()
    def predictions(self) -> Tensor:
        """Outputs [samples, rows, outputs]."""
        return self.predict(self.asked)

    def seconds(self, what: str, calls: int) -> float:
        """See :class:`beside.Implementation`."""
        functions = (self.step, self.step_with_adam, self.train, self.predictions)
        function: Callable[[], Any] = dict(zip(PASSES, functions, strict=True))[what]
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return time.perf_counter() - begin

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return 1

    def losses(self, draws: int) -> Tensor:
        """Draws of the loss, each with its graph, as a step has it."""
        return torch.stack([self.loss(*self.batch).detach().reshape(()) for _ in range(draws)])

    def gradient(self, parameter: Tensor) -> Tensor:
        """The gradient of the loss by a parameter."""
        self.step()
        assert parameter.grad is not None
        return parameter.grad


class Ours(Torch):
    """bslfast's network.

    Args:
        case, data: as of :class:`Torch`.
        model: a network of its own.
        way: of :data:`WAYS`.
    """

    def __init__(self, case: Case, model: bslfast.bnn.BayesianMLP, way: str, data: Data) -> None:
        self.way = way
        self.options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": case.batch, "lr": 1e-4}
        size = case.dataset_size

        def by_parts(x: Tensor, y: Tensor) -> Tensor:
            log_likelihood = model.likelihood.log_prob(model(x), y)
            return bslfast.negative_elbo(log_likelihood, bslfast.nn.kl(model), dataset_size=size)

        def whole(x: Tensor, y: Tensor) -> Tensor:
            return model.negative_elbo(x, y, dataset_size=size)

        def by_ops(x: Tensor, y: Tensor) -> Tensor:
            with bslfast.whole_networks(False):
                return by_parts(x, y)

        loss = dict(zip(WAYS, (by_parts, whole, by_ops), strict=True))[way]
        super().__init__(case, model, loss, lambda x: model.sample_outputs(x, case.samples), data)

    def train(self) -> None:
        """The epochs of one call of the training loop."""
        bslfast.training.fit(self.module, self.data, **self.options)

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return STEPS * EPOCHS if what == LOOP else 1

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take the posterior."""
        layers: Any = self.module.get_submodule("layers")
        for layer, (w, w_scale, b, b_scale) in zip(layers, weights, strict=True):
            layer.weight_loc.copy_(w)
            layer.weight_raw_scale.copy_(raw_scale(w_scale))
            layer.bias_loc.copy_(b)
            layer.bias_raw_scale.copy_(raw_scale(b_scale))


def all_ours(case: Case, exact: Exact, data: Data) -> dict[str, dict[str, Ours]]:
    """For each pass bslfast's implementations by their names, after comparisons with float64."""
    model = ours(case)
    found = [Ours(case, copy.deepcopy(model), way, data) for way in WAYS]
    for own in found:
        own.load(certain(exact.weights))
        at_means = own.predictions()
        exact.check_gradient(own.gradient(own.module.get_parameter("layers.0.weight_loc")))
        own.load(exact.weights)
        exact.check_predictions(at_means, own.predictions())
        kl = exact.check_divergence(bslfast.nn.kl(own.module).detach())
        exact.check_nll(own.losses(exact.draws) - kl / case.dataset_size)
    ways, loops = {own.way: own for own in found}, {"training.fit": found[0]}
    if not model.explain().splitlines()[-1].endswith("steps"):
        # It is too large for most programs: parts go by ops, and a loop saves nothing.
        ways, loops = {way: ways[way] for way in WAYS[:2]}, {}
    return {STEP: ways, ADAM: ways, LOOP: loops, PREDICTIONS: {"sample_outputs": found[0]}}


def raw_scale(scale: Tensor) -> Tensor:
    """What softplus makes a scale of."""
    return scale.double().expm1().log()


class BnnPeer(Peer):
    """An implementation that is not ours."""

    def has(self, case: Case) -> bool:
        """Whether this peer is of interest for the case."""
        return True

    def build(self, case: Case, exact: Exact, data: Data) -> Implementation:
        """The network with these weights, after comparisons with float64."""
        raise NotImplementedError


class Network(nn.Module):
    """A dense network of layers of a library.

    A subclass says how a layer is made, and how the outputs and the divergence are computed.

    Args:
        case: which.
    """

    #: The parameters of a layer, as in :data:`bnn_peers.cases.Weights`; empty for what it has not.
    names: ClassVar[tuple[str, str, str, str]]
    #: Whether the divergence is averaged over the elements of each tensor.
    averaged: ClassVar[bool] = False
    #: The second and the fourth of the parameters, made of scales.
    raw: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(raw_scale)

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.layers = nn.ModuleList(self.layer(*shape) for shape in case.shapes)
        self.log_noise = None if case.classes else nn.Parameter(torch.zeros(()))

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """A layer."""
        raise NotImplementedError

    def outputs(self, x: Tensor) -> Tensor:
        """The outputs for one draw."""
        for index, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if index else x)
        return x

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs and the divergence of all weights."""
        raise NotImplementedError

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch."""
        found, kl = self.both(x)
        return self.case.nll(found, y, self.log_noise) + kl / self.case.dataset_size

    def predict(self, x: Tensor) -> Tensor:
        """Outputs [samples, rows, outputs]."""
        return torch.stack([self.outputs(x) for _ in range(self.case.samples)])

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        """Take the posterior, or the means only."""
        for layer, values in zip(self.layers, weights, strict=True):
            for index, (name, value) in enumerate(zip(self.names, values, strict=True)):
                if name:
                    made = type(self).raw(value) if index % 2 else value
                    layer.get_parameter(name).copy_(made)


class TorchPeer(BnnPeer):
    """A peer in this process.

    Args:
        name, requirements, module: as of :class:`Peer`.
        network: its class.
        compiled: whether by torch.compile.
        regression: whether it is only of interest for targets that are numbers.
    """

    def __init__(
        self,
        name: str,
        package: str,
        network: type[Network],
        *,
        module: str = "",
        compiled: bool = False,
        regression: bool = False,
    ) -> None:
        super().__init__(name, HERE / f"{package}.txt" if package else None, module)
        self.network, self.compiled, self.regression = network, compiled, regression

    def has(self, case: Case) -> bool:
        """See :class:`BnnPeer`."""
        return not (self.regression and case.classes)

    def build(self, case: Case, exact: Exact, data: Data) -> Torch:
        """See :class:`BnnPeer`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated parts of torch
            network = self.network(case)
        loss: Callable[..., Tensor] = network.loss
        if self.compiled:
            torch._dynamo.reset()
            loss = torch.compile(network.loss)
            network.outputs = torch.compile(network.outputs)  # type: ignore[method-assign]
        found = Torch(case, network, loss, network.predict, data)
        network.load(certain(exact.weights))
        at_means = found.predictions()
        if isinstance(network, PlainSquares):
            exact.check_predictions(at_means, None)
            return found
        locs = network.layers[0].get_parameter(network.names[0])
        exact.check_gradient(found.gradient(locs))
        if isinstance(network, Plain):
            exact.check_predictions(at_means, None)
            exact.check_nll(found.losses(1), at_means=True)
            return found
        network.load(exact.weights)
        exact.check_predictions(at_means, found.predictions())
        with torch.no_grad():
            kls = [network.both(found.batch[0])[1].reshape(()) for _ in range(exact.draws)]
        kl = exact.check_divergence(torch.stack(kls), averaged=network.averaged)
        exact.check_nll(found.losses(exact.draws) - kl / case.dataset_size)
        return found


class Plain(Network):
    """``nn.Linear``, with the same likelihood."""

    names = ("weight", "", "bias", "")

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """See :class:`Network`."""
        return nn.Linear(n_in, n_out)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """See :class:`Network`."""
        return self.case.nll(self.outputs(x), y, self.log_noise)


class PlainSquares(Plain):
    """``nn.Linear`` with the squared error, which has no noise to learn."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.log_noise = None

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """See :class:`Network`."""
        return F.mse_loss(self.outputs(x), y)


class Eager(Network):
    """Written by hand in torch."""

    names = ("weight_loc", "weight_rho", "bias_loc", "bias_rho")

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """See :class:`Network`."""
        return EagerLinear(n_in, n_out)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Network`."""
        kl = x.new_zeros(())
        layers: Sequence[Any] = list(self.layers)
        for index, layer in enumerate(layers):
            x, own = layer.both(torch.relu(x) if index else x)
            kl = kl + own
        return x, kl


class BayesianTorch(Network):
    """bayesian-torch."""

    averaged = True
    names = ("mu_weight", "rho_weight", "mu_bias", "rho_bias")
    kind: ClassVar[str] = "LinearReparameterization"

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """See :class:`Network`."""
        from bayesian_torch import layers

        found: nn.Module = getattr(layers, self.kind)(n_in, n_out)
        return found

    def outputs(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        for index, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if index else x, return_kl=False)
        return x

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Network`."""
        kl = x.new_zeros(())
        for index, layer in enumerate(self.layers):
            x, own = layer(torch.relu(x) if index else x)
            kl = kl + own
        return x, kl


class Flipout(BayesianTorch):
    """Its other estimator."""

    kind = "LinearFlipout"


class Blitz(Network):
    """blitz, whose divergence is that of the sampled weights."""

    names = ("weight_sampler.mu", "weight_sampler.rho", "bias_sampler.mu", "bias_sampler.rho")

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """See :class:`Network`."""
        from blitz.modules import BayesianLinear

        found: nn.Module = BayesianLinear(n_in, n_out, prior_sigma_1=1.0, prior_pi=1)
        return found

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Network`."""
        from blitz.losses import kl_divergence_from_nn

        return self.outputs(x), kl_divergence_from_nn(self)


class TorchBnn(Network):
    """torchbnn, which has logarithms of scales."""

    names = ("weight_mu", "weight_log_sigma", "bias_mu", "bias_log_sigma")
    raw = staticmethod(torch.log)

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        from torchbnn.modules.loss import BKLLoss

        self.kl = BKLLoss(reduction="sum")

    def layer(self, n_in: int, n_out: int) -> nn.Module:
        """See :class:`Network`."""
        from torchbnn.modules import BayesLinear

        found: nn.Module = BayesLinear(0.0, 1.0, n_in, n_out)
        return found

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Network`."""
        return self.outputs(x), self.kl(self).reshape(())


class Jax(Remote, BnnPeer):
    """JAX and optax (worker.py): every pass is compiled, and a loop is one call of lax.scan.

    Predictions are lax.map's over keys, which takes half of vmap's time on CPUs.
    """

    def __init__(self) -> None:
        super().__init__("jax", HERE / "jax.txt", HERE / "worker.py")

    def build(self, case: Case, exact: Exact, data: Data) -> _Remote:
        """See :class:`BnnPeer`."""
        found = self._load(case, certain(exact.weights), exact.draws, data)
        at_means = found["predictions"]
        exact.check_gradient(found["gradient"])
        found = self._load(case, exact.weights, exact.draws, data)
        exact.check_predictions(at_means, found["predictions"])
        exact.check_divergence(found["kl"])
        exact.check_nll(found["nll"])
        return _Remote(self)

    def _load(self, case: Case, weights: Weights, draws: int, data: Data) -> dict[str, Tensor]:
        """Hand weights and data over; returns what the process computes with them."""
        x, y = data
        arrays: dict[str, Any] = {"every x": x.numpy(), "every y": y.numpy()}
        arrays |= {"batch": case.batch, "rows": case.rows, "samples": case.samples}
        arrays |= {"epochs": EPOCHS, "draws": draws}
        for layer, (w, w_scale, b, b_scale) in enumerate(weights):
            arrays |= {f"w of {layer}": w.numpy(), f"b of {layer}": b.numpy()}
            arrays[f"w raw of {layer}"] = raw_scale(w_scale).float().numpy()
            arrays[f"b raw of {layer}"] = raw_scale(b_scale).float().numpy()
        np.savez(self.file, **arrays)
        with np.load(self.ask({"load": str(self.file)})["results"]) as results:
            return {name: torch.from_numpy(results[name]) for name in results}


class _Remote:
    """The network of the process."""

    def __init__(self, peer: Jax) -> None:
        self.peer = peer

    def seconds(self, what: str, calls: int) -> float:
        """See :class:`beside.Implementation`."""
        return self.peer.seconds({"time": what, "calls": calls})

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return STEPS * EPOCHS if what == LOOP else 1


PEERS: list[BnnPeer] = [
    TorchPeer("nn.Linear", "", Plain),
    TorchPeer("nn.Linear (MSE)", "", PlainSquares, regression=True),
    TorchPeer("torch eager", "", Eager),
    TorchPeer("torch.compile", "", Eager, compiled=True),
    TorchPeer("bayesian-torch", "bayesian-torch", BayesianTorch, module="bayesian_torch"),
    TorchPeer("bayesian-torch (flipout)", "bayesian-torch", Flipout, module="bayesian_torch"),
    TorchPeer("blitz", "blitz-bayesian-pytorch", Blitz, module="blitz"),
    TorchPeer("torchbnn", "torchbnn", TorchBnn),
    Jax(),
]
