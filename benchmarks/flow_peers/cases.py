"""The flows to be timed, and their weights in a layout that peers can take."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import flows

HIDDEN = (64, 64)
BINS = 8
BOUND = 3.0
#: Epochs of one call of a training loop.
EPOCHS = 2
#: Parameters of a feature: the slopes of a spline, the log scale of an affine map, and none.
SLOPES, SCALE, NONE = slice(2 * BINS, None), slice(1, None), slice(0, 0)
#: The weights and biases of a conditioner's layers. The last layer's are [moved, size, hidden] and
#: [moved, size]: shift and log scale, or widths, heights and slopes, of each feature that moves.
Network = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A flow: "affine" and "NSF-C" are couplings, "MAF" and "NSF-AR" autoregressive."""

    kind: str
    features: int

    @property
    def name(self) -> str:
        return f"{self.kind} D={self.features}"

    @property
    def transforms(self) -> int:
        return 8 if self.features <= 8 else 10

    @property
    def spline(self) -> bool:
        return self.kind.startswith("NSF")

    @property
    def autoregressive(self) -> bool:
        return self.kind in ("MAF", "NSF-AR")

    def steps(self, batch: int) -> int:
        """Those of an epoch of the training loop: a call takes seconds at most."""
        return max(1, (16384 if self.features <= 8 else 5120) // batch)

    def moves(self, step: int) -> list[bool]:
        """Whether each feature is moved by a coupling."""
        half = self.features // 2
        return [(feature >= half) == (step % 2 == 0) for feature in range(self.features)]


CASES = [
    *(Case(kind, features) for kind in ("affine", "NSF-C") for features in (2, 8, 43)),
    Case("NSF-AR", 43),
    Case("MAF", 43),
]


def ours(case: Case) -> flows.Flow:
    """bslfast's flow, as its users make it."""
    options: dict[str, Any] = {"transforms": case.transforms, "hidden": HIDDEN}
    if case.spline:
        return flows.NSF(
            case.features, bins=BINS, bound=BOUND, autoregressive=case.autoregressive, **options
        )
    model = flows.MAF if case.autoregressive else flows.RealNVP
    return model(case.features, scale_fn="exp", **options)


def without_minima(flow: flows.Flow, case: Case) -> flows.Flow:
    """The same flow with bins that may be of any size, as zuko's are."""
    if not case.spline:
        return flow
    spline = flows.Spline(BINS, BOUND, min_bin_width=1e-12, min_bin_height=1e-12)
    steps: list[flows.Transform] = []
    for step in range(case.transforms):
        if case.autoregressive:
            order = list(range(case.features))[:: -1 if step % 2 else 1]
            network = flows.MADE(case.features, spline, hidden=HIDDEN, order=order)
            steps.append(flows.Autoregressive(spline, network))
            continue
        moves = case.moves(step)
        moved = sum(moves)
        conditioner = flows.Conditioner(
            case.features - moved, moved * spline.size, hidden=HIDDEN, start=spline.start
        )
        steps.append(flows.Coupling(spline, moves, conditioner))
    found = flows.Flow(flows.Composite(steps))
    found.load_state_dict(flow.state_dict())
    return found


@torch.no_grad()
def draw(flow: flows.Flow, case: Case, constant: slice) -> None:
    """Give the flow random weights.

    Args:
        flow: one of bslfast.
        case: which.
        constant: the parameters of each feature's map that depend on no other feature.
    """
    for conditioner in _conditioners(flow):
        _, second, last = conditioner.layers
        last.weight.normal_(0, 0.05)
        weight, bias = (_by_feature(case, p) for p in (last.weight, last.bias))
        weight[:, constant] = 0
        bias += torch.randn_like(bias) * 0.1
        if not case.spline:
            # Less than 1: nflows' affine couplings have no other scales.
            bias[:, SCALE].uniform_(-0.5, -0.1)
        if case.autoregressive:
            units = _matched(conditioner, case)
            unmatched = sorted(set(range(HIDDEN[0])) - set(units))
            second.weight[:, unmatched] = 0
            last.weight[:, unmatched] = 0


@torch.no_grad()
def networks(flow: flows.Flow, case: Case) -> list[Network]:
    """The conditioners of all steps, for peers. Weights that a mask hides are 0."""
    found = []
    for conditioner in _conditioners(flow):
        layers = [(w.weight * getattr(w, "mask", 1), w.bias.detach()) for w in conditioner.layers]
        (w1, b1), (w2, b2), (w3, b3) = layers
        w3, b3 = _by_feature(case, w3), _by_feature(case, b3)
        if case.autoregressive:
            # -1 is the zero that padding appends.
            units = torch.tensor(_matched(conditioner, case))
            w1, b1 = F.pad(w1, (0, 0, 0, 1))[units], F.pad(b1, (0, 1))[units]
            w2, b2 = F.pad(w2, (0, 1, 0, 1))[units][:, units], F.pad(b2, (0, 1))[units]
            w3 = F.pad(w3, (0, 1))[..., units]
        found.append([(w1, b1), (w2, b2), (w3, b3)])
    return found


def multiply_adds(flow: flows.Flow) -> int:
    """Those of the dense layers for a row, zeros of masks included."""
    return sum(p.numel() for p in flow.parameters() if p.dim() == 2)


def _conditioners(flow: flows.Flow) -> list[Any]:
    steps: Any = flow.transform.transforms
    return [step.conditioner for step in steps]


def _by_feature(case: Case, parameter: Tensor) -> Tensor:
    """A view [moved, parameters of a feature, ...] of the last layer's weights or biases."""
    if case.spline:
        return parameter.unflatten(0, (-1, 3 * BINS - 1))
    return parameter.unflatten(0, (2, -1)).transpose(0, 1)


def _matched(conditioner: Any, case: Case) -> list[int]:
    """For each hidden unit of a peer, one of ours that sees as many features; -1 for none left.

    Peers give a layer's units the degrees 1 to features - 1 again and again; ours rise, and other
    degrees have a second unit. Units without a partner are cut off by zeros.
    """
    seen = conditioner.layers[0].mask.sum(dim=1).tolist()
    with_degree = defaultdict(list)
    for unit, degree in enumerate(seen):
        with_degree[degree].append(unit)
    degrees = [1 + unit % (case.features - 1) for unit in range(len(seen))]
    return [with_degree[degree].pop(0) if with_degree[degree] else -1 for degree in degrees]
