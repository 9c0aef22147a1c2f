"""Time bslfast's Bayesian networks beside the plain one and those of other libraries.

python benchmarks/bnn_peers --results benchmarks/results --out runs/bench-bnn

Installs the peers into build/peers, asserts that all compute the same, and times. A peer that
cannot be installed is left out; if --peers names it, the exit code is 1. Writes a table and a
picture, named after device, date and instruction set, into RESULTS, and results.json into OUT.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import Implementation, Row, begin, end, measured, parser, stem
from bnn_peers.cases import CASES, Case, Exact, draw
from bnn_peers.memory import OURS, copies
from bnn_peers.peers import PASSES, PEERS, PREDICTIONS, BnnPeer, TorchPeer, all_ours
from bnn_peers.report import picture, table

NAMES = {case.name: case for case in CASES}


class Group:
    """All implementations of a network, after comparisons of what they compute."""

    def __init__(self, case: Case, peers: list[BnnPeer]) -> None:
        torch.manual_seed(0)
        self.case, data = case, case.data(case.dataset_size)
        exact = Exact(case, draw(case), data)
        self.ours = all_ours(case, exact, data)
        self.theirs: dict[str, Implementation] = {}
        for peer in peers:
            if peer.has(case):
                print(f"{case.name}: {peer.name} is compared", file=sys.stderr)
                self.theirs[peer.name] = peer.build(case, exact, data)

    def measure(self, what: str, seconds: float, rounds: int) -> list[Row]:
        """Rows for each of ours and each peer, from turns of all."""
        if not self.ours[what]:
            return []
        case = self.case
        predictions = f", {case.samples} of {case.rows} rows" if what == PREDICTIONS else ""
        facts = {
            "network": case.name,
            "pass": what,
            "of": predictions or f", batch {case.batch}",
        }
        return measured(self.ours[what], self.theirs, facts, seconds, rounds)


def memory(peers: list[BnnPeer], installed: Path, threads: int) -> dict[str, float]:
    """The peaks of those that run in torch, without a compiler."""
    plain = [p.name for p in peers if isinstance(p, TorchPeer) and not p.compiled]
    names = [*OURS, *(name for name in plain if "MSE" not in name)]
    found = {name: copies(name, installed, threads) for name in names}
    return {name: number for name, number in found.items() if number is not None}


def main() -> None:
    arguments = parser(__doc__, NAMES, PEERS, 4)
    arguments.add_argument("--results", type=Path, required=True)
    arguments.add_argument("--passes", nargs="+", choices=[*PASSES, "memory"])
    arguments.add_argument("--rounds", type=int, default=3, help="of each measurement, at least")
    chosen = arguments.parse_args()
    # Until glibc has freed a large block, it gives freed memory back at once (conftest.py).
    torch.empty(31 << 20, dtype=torch.uint8)
    peers, about = begin(chosen, PEERS)
    passes = chosen.passes or [*PASSES, "memory"]
    # First, as the process is small: a new one is made for each.
    copied = memory(peers, chosen.installed, chosen.threads) if "memory" in passes else {}
    rows: list[Row] = []
    times = [what for what in PASSES if what in passes]
    group: Group | None = None
    bar = tqdm(list(itertools.product(chosen.cases, times)), unit="measurement")
    for name, what in bar:
        bar.set_description(f"{name}, {what}")
        if group is None or group.case.name != name:
            group = Group(NAMES[name], peers)
        rows += group.measure(what, chosen.seconds, chosen.rounds)
    chosen.out.mkdir(parents=True, exist_ok=True)
    everything: dict[str, Any] = {"about": about, "rows": rows, "memory": copied}
    (chosen.out / "results.json").write_text(json.dumps(everything, indent=1))
    text = table(about, rows, copied)
    print(text)
    place = stem("bnn", about, chosen.results)
    place.with_suffix(".md").write_text(text + "\n")
    if rows:
        picture(rows, place.with_suffix(".png"))
    end(chosen, about)


if __name__ == "__main__":
    main()
