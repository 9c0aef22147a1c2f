"""Train bslfast's flows, nflows' and zuko's on the same points, and compare held-out densities.

python benchmarks/flow_peers/quality.py --train train.npy --test test.npy --out runs/flow-quality

Networks of one size, each with its library's initial weights; the same batches in the same order,
the same optimiser. The weights of the epoch with the best density of held-out rows are tested.
Installs the peers into build/peers. Writes results.json and table.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import begin
from flow_peers.cases import Case, networks, ours
from flow_peers.peers import PEERS, Torch

KINDS = ("affine", "MAF", "NSF-C", "NSF-AR")
COMPARED = [peer for peer in PEERS if peer.name in ("nflows", "zuko")]
TRANSFORMS = 5
EPOCHS, BATCH, RATE, HELD_OUT = 60, 256, 1e-3, 0.1


class Shallow(Case):
    """A flow of fewer steps, as there are few points."""

    @property
    def transforms(self) -> int:
        return TRANSFORMS


def log_prob_of(flow: Torch, x: Tensor) -> Tensor:
    """The log densities of all rows."""
    with torch.no_grad():
        return torch.cat([flow.log_prob(part).detach() for part in x.split(1024)])


def train(flow: Torch, x: Tensor, held_out: Tensor, epochs: int, seed: int) -> float:
    """Leave the best epoch's weights in the flow; return the seconds that its steps took."""
    optimizer = torch.optim.Adam(flow.module.parameters(), RATE, fused=True)
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    best, state, seconds = -math.inf, copy.deepcopy(flow.module.state_dict()), 0.0
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        before = time.perf_counter()
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            (-flow.log_prob(x[rows]).mean()).backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - before
        found = log_prob_of(flow, held_out).mean().item()
        if found > best:
            best, state = found, copy.deepcopy(flow.module.state_dict())
    flow.module.load_state_dict(state)
    return seconds


def initialised(flow: Torch) -> Torch:
    """The flow with the weights that its library's layers have at first."""
    for module in flow.module.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return flow


def main() -> None:
    names = [peer.name for peer in COMPARED]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--flows", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument("--installed", type=Path, default=Path("build/peers"))
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", "Inputs to the softmax are not scaled down")
    peers, about = begin(chosen, COMPARED)

    rows, test = (torch.from_numpy(np.load(f)).double() for f in (chosen.train, chosen.test))
    generator = torch.Generator().manual_seed(chosen.seed)
    count = round(HELD_OUT * len(rows))
    held_out, x = rows[torch.randperm(len(rows), generator=generator)].tensor_split([count])
    scale, mean = torch.std_mean(x, dim=0, correction=0)
    x, held_out, test = (((part - mean) / scale).float() for part in (x, held_out, test))
    about |= {"training rows": len(x), "held-out rows": count, "test rows": len(test)}

    chosen.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    lines = ["| flow | library | parameters | test log-likelihood | seconds |", "|" + "---|" * 5]
    bar = tqdm([(kind, peer) for kind in chosen.flows for peer in (None, *peers)], unit="flow")
    for kind, peer in bar:
        name = "bslfast" if peer is None else peer.name
        bar.set_description(f"{kind}, {name}")
        case = Shallow(kind, x.shape[1])
        torch.manual_seed(chosen.seed)
        own = ours(case)
        if peer is None:
            flow = Torch(own, own.log_prob, own.sample, x)
        else:
            with torch.no_grad():
                flow = initialised(peer.build(case, networks(own, case), x))
        seconds = train(flow, x, held_out, chosen.epochs, chosen.seed)
        log_prob = log_prob_of(flow, test).double() - scale.log().sum()
        row = {
            "flow": kind,
            "library": name,
            "parameters": sum(p.numel() for p in flow.module.parameters() if p.requires_grad),
            "log_likelihood": log_prob.mean().item(),
            "standard_error": (log_prob.std() / len(log_prob) ** 0.5).item(),
            "seconds": seconds,
        }
        results.append(row)
        lines.append(
            f"| {kind} | {name} | {row['parameters']} | {row['log_likelihood']:.2f} +- "
            f"{row['standard_error']:.2f} | {seconds:.1f} |"
        )
        # After each, as all take minutes.
        found = json.dumps({"about": about, "rows": results}, indent=1)
        (chosen.out / "results.json").write_text(found)
        (chosen.out / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
