"""nflows, zuko and flowjax: their installation, and their flows with bslfast's weights.

Their code is used as it is. Where a peer makes a scale or a slope of a number by another function
than bslfast, the number is a bias that depends on no feature, and is translated.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from beside import Peer, Remote
from flow_peers.cases import BINS, BOUND, EPOCHS, HIDDEN, NONE, SCALE, SLOPES, Case, Network
from torch import Tensor, nn

import bslfast
from bslfast.flows import Flow

HERE = Path(__file__).parent
MIN_SLOPE = 1e-3
TRAIN, ADAM, LOOP, DENSITY, SAMPLE = PASSES = (
    "train step",
    "with Adam",
    "training loop",
    "log_prob",
    "sample",
)
SAMPLES = 512
#: Of learning. So small that weights stay where they are: at 1e-4 a MAF with random weights, whose
#: scales have no bounds, diverges in a few hundred steps.
RATE = 1e-6
#: Rows whose densities are compared.
COMPARED = 64


class Implementation(Protocol):
    """A flow that can be timed."""

    def seconds(self, what: str, batch: int, calls: int) -> float:
        """The time of so many calls of one of :data:`PASSES`."""

    def steps(self, what: str, batch: int) -> int:
        """The steps of a call."""


class Torch:
    """A flow in this process.

    Args:
        module: its parameters.
        log_prob, sample: its functions.
        x: data, whose first rows are the batches.
    """

    def __init__(
        self,
        module: nn.Module,
        log_prob: Callable[[Tensor], Tensor],
        sample: Callable[[int], Tensor],
        x: Tensor,
    ) -> None:
        self.module, self.log_prob, self.sample, self.x = module, log_prob, sample, x
        self.optimizer = torch.optim.Adam(module.parameters(), RATE, fused=True)

    def _train(self, x: Tensor) -> Tensor:
        self.module.zero_grad()
        loss = -self.log_prob(x).mean()
        loss.backward()
        return loss

    def _with_adam(self, x: Tensor) -> Tensor:
        loss = self._train(x)
        self.optimizer.step()
        return loss

    def _log_prob(self, x: Tensor) -> None:
        with torch.no_grad():
            self.log_prob(x)

    def _sample(self, x: Tensor) -> None:
        with torch.no_grad():
            self.sample(SAMPLES)

    def seconds(self, what: str, batch: int, calls: int) -> float:
        """See :class:`Implementation`."""
        # All that there is for a loop over batches is the step.
        step = self._with_adam
        functions = (self._train, step, step, self._log_prob, self._sample)
        by_pass: dict[str, Callable[[Tensor], Any]] = dict(zip(PASSES, functions, strict=True))
        function, x = by_pass[what], self.x[:batch]
        begin = time.perf_counter()
        for _ in range(calls):
            function(x)
        return time.perf_counter() - begin

    def steps(self, what: str, batch: int) -> int:
        """See :class:`Implementation`."""
        return 1

    def losses(self, x: Tensor, count: int) -> list[float]:
        """Those of so many steps on a batch."""
        return [self._with_adam(x).item() for _ in range(count)]


class Ours(Torch):
    """bslfast's flow, with a training loop of its own.

    Args:
        case: which.
        flow: its parameters.
        x: data, whose first rows are the batches and the data sets of loops.
    """

    def __init__(self, case: Case, flow: Flow, x: Tensor) -> None:
        super().__init__(flow, flow.log_prob, flow.sample, x)
        self.case, self.flow = case, flow

    def seconds(self, what: str, batch: int, calls: int) -> float:
        """See :class:`Implementation`."""
        if what != LOOP:
            return super().seconds(what, batch, calls)
        x = self.x[: self.case.steps(batch) * batch]
        begin = time.perf_counter()
        for _ in range(calls):
            _fit(self.flow, x, batch, EPOCHS)
        seconds = time.perf_counter() - begin
        _check_whole(self.flow)
        return seconds

    def steps(self, what: str, batch: int) -> int:
        """See :class:`Implementation`."""
        return EPOCHS * self.case.steps(batch) if what == LOOP else 1

    def losses_of_loop(self, batch: int, count: int) -> list[float]:
        """Those of the first steps if all rows are as the first one."""
        flow = copy.deepcopy(self.flow)
        found = _fit(flow, self.x[:1].expand(batch, -1), batch, count)
        _check_whole(flow)
        return found.loss


def _fit(flow: Flow, x: Tensor, batch: int, epochs: int) -> bslfast.training.History:
    return bslfast.training.fit(
        flow, (x,), objective=Flow.log_prob, epochs=epochs, batch_size=batch, lr=RATE
    )


def _check_whole(flow: Flow) -> None:
    """Assert that the steps of ``fit`` were one call. Steps by ops leave gradients."""
    way = flow.explain().splitlines()[0]
    by_ops = any(parameter.grad is not None for parameter in flow.parameters())
    if by_ops or not way.startswith("log_prob: one call"):
        raise AssertionError(f"training.fit: expected steps in one call, got steps by ops ({way})")


class FlowPeer(Peer):
    """A library with flows."""

    def has(self, case: Case) -> bool:
        """Whether this peer is of interest for the case."""
        return True

    def constant(self, case: Case) -> slice:
        """The parameters of maps that must be constant for both to compute the same."""
        raise NotImplementedError

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Any:
        """The flow with these weights."""
        raise NotImplementedError


class NFlows(FlowPeer):
    """nflows, with a plain MLP: its ResidualNet would be three times as expensive."""

    def __init__(self) -> None:
        super().__init__("nflows", HERE / "nflows.txt")

    def constant(self, case: Case) -> slice:
        return NONE if case.spline else SCALE

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Torch:
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms import CompositeTransform, ReversePermutation

        steps: list[nn.Module] = []
        for index, network in enumerate(weights):
            if case.autoregressive:
                step = self._autoregressive(case)
                # It has one order of the features, and turns them around between the steps.
                network = turned(network) if index % 2 else network
                steps += [step, ReversePermutation(case.features)]
            else:
                step = self._coupling(case, case.moves(index))
                steps.append(step)
            (w, b) = network[-1]
            if case.kind == "affine":  # all shifts come first; sigmoid(u + 2) + 1e-3 is the scale
                b = torch.cat((b[:, :1], (b[:, 1:].exp() - 1e-3).logit() - 2), dim=1)
                w, b = w.transpose(0, 1), b.transpose(0, 1)
            elif case.kind == "MAF":  # the scale comes first, softplus(u) + 1e-3
                b = torch.cat(((b[:, 1:].exp() - 1e-3).expm1().log(), b[:, :1]), dim=1)
                w = w.flip(1)
            load(step, [*network[:-1], (w, b)])
        flow = Flow(CompositeTransform(steps), StandardNormal([case.features]))
        return Torch(flow, flow.log_prob, flow.sample, x)

    def _coupling(self, case: Case, moves: list[bool]) -> nn.Module:
        from nflows import transforms as of

        mask = torch.tensor(moves).float()
        if case.spline:
            return of.PiecewiseRationalQuadraticCouplingTransform(
                mask, _Network, num_bins=BINS, tails="linear", tail_bound=BOUND
            )
        return of.AffineCouplingTransform(mask, _Network)

    def _autoregressive(self, case: Case) -> nn.Module:
        from nflows.transforms import autoregressive as of

        # Its first layer and a block make two hidden layers.
        options = {"hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
        if case.spline:
            return of.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                case.features, num_bins=BINS, tails="linear", tail_bound=BOUND, **options
            )
        return of.MaskedAffineAutoregressiveTransform(case.features, **options)


class _Network(nn.Sequential):
    """What nflows calls with a context."""

    def __init__(self, inputs: int, outputs: int) -> None:
        first, second = HIDDEN
        super().__init__(
            nn.Linear(inputs, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(),
            nn.Linear(second, outputs),
        )  # fmt: skip

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        return super().forward(x)


class Zuko(FlowPeer):
    """zuko, with an infinite `slope`: it then bounds no log scale.

    Args:
        passes: make couplings of splines as zuko documents it, by an autoregressive transform with
            two passes. Its network is masked and as wide as all features, and the features that
            should stay have a spline as well, with learned parameters: here it is the identity.
    """

    def __init__(self, *, passes: bool) -> None:
        super().__init__("zuko passes=2" if passes else "zuko", HERE / "zuko.txt")
        self.passes = passes

    def has(self, case: Case) -> bool:
        return case.kind == "NSF-C" or not self.passes

    def constant(self, case: Case) -> slice:
        return SLOPES if case.spline else NONE

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Torch:
        from zuko.distributions import DiagNormal
        from zuko.flows import GeneralCouplingTransform, MaskedAutoregressiveTransform
        from zuko.lazy import Flow, UnconditionalDistribution
        from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

        map: dict[str, Any] = {
            "univariate": partial(MonotonicAffineTransform, slope=math.inf),
            "shapes": [(), ()],
            "hidden_features": HIDDEN,
        }
        if case.spline:
            map["univariate"] = partial(MonotonicRQSTransform, bound=BOUND, slope=math.inf)
            map["shapes"] = [(BINS,), (BINS,), (BINS - 1,)]
        steps: list[nn.Module] = []
        for index, network in enumerate(weights):
            moves = torch.tensor(case.moves(index))
            if case.autoregressive:
                order = torch.arange(case.features)
                order = order.flip(0) if index % 2 else order
                step = MaskedAutoregressiveTransform(case.features, order=order, **map)
            elif self.passes:
                order = moves * math.ceil(case.features / 2)  # which zuko divides by it
                step = MaskedAutoregressiveTransform(case.features, passes=2, order=order, **map)
            else:
                step = GeneralCouplingTransform(case.features, mask=~moves, **map)
            if case.spline:  # the slope is exp(u)
                w, b = network[-1]
                slopes = (MIN_SLOPE + F.softplus(b[:, SLOPES])).log()
                network = [*network[:-1], (w, torch.cat((b[:, : 2 * BINS], slopes), dim=1))]
            load(step, _widened(network, moves) if self.passes else network)
            steps.append(step)
        zeros = torch.zeros(case.features)
        base = UnconditionalDistribution(DiagNormal, loc=zeros, scale=zeros + 1, buffer=True)
        flow = Flow(steps, base)
        return Torch(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), x)


class FlowJax(Remote, FlowPeer):
    """flowjax (worker.py).

    Its splines have two slopes more, of which one knows no tails: the weights make them 1.
    """

    def __init__(self) -> None:
        super().__init__("flowjax", HERE / "flowjax.txt", HERE / "worker.py")

    def constant(self, case: Case) -> slice:
        return NONE

    def build(self, case: Case, weights: list[Network], x: Tensor) -> Remotely:
        arrays = {"x": x.numpy(), "spline": case.spline, "autoregressive": case.autoregressive}
        arrays |= {"transforms": case.transforms, "bins": BINS, "bound": BOUND}
        for index, network in enumerate(weights):
            if case.autoregressive and index % 2:
                network = turned(network)
            if case.spline:
                # Slopes at both ends; flowjax adds to all of them what makes a slope of 1.
                w, b = network[-1]
                slopes = b[:, SLOPES] - math.log(math.expm1(1 - MIN_SLOPE))
                b = torch.cat((b[:, : 2 * BINS], F.pad(slopes, (1, 1))), dim=1)
                w = torch.cat((w[:, : 2 * BINS], F.pad(w[:, SLOPES], (0, 0, 1, 1))), dim=1)
                network = [*network[:-1], (w, b)]
            for layer, (w, b) in enumerate(network):
                arrays[f"w{layer} of {index}"] = w.flatten(0, w.dim() - 2).numpy()
                arrays[f"b{layer} of {index}"] = b.flatten().numpy()
        np.savez(self.file, **arrays)
        return Remotely(self, case)


class Remotely:
    """A flow of the process, and its densities of the first rows.

    Args:
        peer: whose file has the flow.
        case: which.
    """

    def __init__(self, peer: FlowJax, case: Case) -> None:
        self.peer, self.case = peer, case
        found = peer.ask({"load": str(peer.file)} | self._options(COMPARED))
        self.log_prob = torch.tensor(found["log_prob"]).double()

    def _options(self, batch: int) -> dict[str, Any]:
        rows = self.case.steps(batch) * batch
        return {
            "batch": batch, "rows": rows, "epochs": EPOCHS, "rate": RATE, "samples": SAMPLES,
        }  # fmt: skip

    def seconds(self, what: str, batch: int, calls: int) -> float:
        """See :class:`Implementation`."""
        return self.peer.seconds({"time": what, "calls": calls} | self._options(batch))

    def steps(self, what: str, batch: int) -> int:
        """See :class:`Implementation`."""
        return EPOCHS * self.case.steps(batch) if what == LOOP else 1

    def losses_of_loop(self, batch: int, count: int) -> list[float]:
        """See :class:`Ours`."""
        found: list[float] = self.peer.ask({"losses": count} | self._options(batch))["losses"]
        return found


PEERS: list[FlowPeer] = [NFlows(), Zuko(passes=False), Zuko(passes=True), FlowJax()]


def turned(network: Network) -> Network:
    """The network for features that come in the opposite order."""
    (w1, b1), second, (w3, b3) = network
    return [(w1.flip(1), b1), second, (w3.flip(0), b3.flip(0))]


def _widened(network: Network, moves: Tensor) -> Network:
    """The network of a coupling with all features at both ends, and identities for those kept."""
    (w1, b1), second, (w3, b3) = network
    wide = w1.new_zeros(len(w1), len(moves))
    wide[:, ~moves] = w1
    w, b = (t.new_zeros(len(moves), *t.shape[1:]) for t in (w3, b3))
    w[moves], b[moves] = w3, b3
    return [(wide, b1), second, (w, b)]


@torch.no_grad()
def load(module: nn.Module, network: Network) -> None:
    """Copy the weights into the layers of a peer's transform, whose masks must let them pass."""
    layers: Sequence[Any] = [m for m in module.modules() if hasattr(m, "weight")]
    for layer, (weight, bias) in zip(layers, network, strict=True):
        weight, bias = weight.reshape(-1, weight.shape[-1]), bias.flatten()
        assert layer.weight.shape == weight.shape, (layer, weight.shape)
        assert torch.equal(weight * getattr(layer, "mask", 1), weight), layer
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
