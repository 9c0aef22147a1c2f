"""Time bslfast's flows beside those of nflows, zuko and flowjax with the same weights.

python benchmarks/flow_peers --out runs/bench-flows

Installs the peers into build/peers, asserts that densities are equal, and times. A peer that cannot
be installed is left out; if --peers names it, the exit code is 1. Writes results.json, table.md,
ratios.png and speed.png.
"""

from __future__ import annotations

import copy
import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import alternate, begin, end, parser, quartiles, ratio
from flow_peers.cases import CASES, Case, draw, multiply_adds, networks, ours, without_minima
from flow_peers.peers import (
    COMPARED,
    DENSITY,
    LOOP,
    PASSES,
    PEERS,
    SAMPLE,
    SAMPLES,
    FlowPeer,
    Implementation,
    Ours,
    Remotely,
    Torch,
)
from flow_peers.report import headlines, picture, table

NAMES = {case.name.replace(" D=", "-"): case for case in CASES}
#: Those of a training loop whose losses are compared.
STEPS_COMPARED = 5


def built(
    case: Case, peer: FlowPeer, batches: list[int], passes: list[str]
) -> tuple[Ours, Implementation]:
    """Both flows with the same weights, after comparisons of what they compute."""
    torch.manual_seed(0)
    rows = max(COMPARED, *(case.steps(batch) * batch for batch in batches))
    flow, x = ours(case), torch.randn(rows, case.features)
    draw(flow, case, peer.constant(case))
    with torch.no_grad():
        found = peer.build(case, networks(flow, case), x)
        few = x[:COMPARED].double()
        exact = without_minima(flow, case) if peer.package == "zuko" else flow
        wanted = copy.deepcopy(exact).double().log_prob(few)
        if isinstance(found, Torch):
            # Translated biases have float32's digits.
            log_prob, tolerance = found.module.double() and found.log_prob(few), 1e-7
            found.module.float()
        else:  # it computes in float32
            log_prob, tolerance = found.log_prob, 1e-6
        torch.testing.assert_close(log_prob, wanted, rtol=tolerance, atol=20 * tolerance)
    own = Ours(case, flow, x)
    if LOOP in passes:
        compare_loops(own, found, batches[0])
    return own, found


def compare_loops(own: Ours, other: Implementation, batch: int) -> None:
    """Compare the losses of loops' first steps with those of torch's Adam in float64.

    All rows are the same, so their order does not matter. An autoregressive network of a peer has
    units that are cut off by zeros, which the first step makes different from ours.
    """
    flow, row = copy.deepcopy(own.flow).double(), own.x[:1].double()
    wanted = Torch(flow, flow.log_prob, flow.sample, row).losses(row, STEPS_COMPARED)
    for one in (own, other):
        if isinstance(one, Ours | Remotely):
            equal = 1 if one is other and own.case.autoregressive else STEPS_COMPARED
            losses = torch.tensor([one.losses_of_loop(batch, equal), wanted[:equal]])
            torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def measurements(
    cases: list[Case], peers: list[FlowPeer], passes: list[str], batches: list[int]
) -> Iterator[tuple[Case, FlowPeer, str, int]]:
    for case, peer, what in itertools.product(cases, peers, passes):
        for batch in [SAMPLES] if what == SAMPLE else batches:
            if peer.has(case) and (batch <= 512 or case.features > 8):
                yield case, peer, what, batch


def main() -> None:
    arguments = parser(__doc__, NAMES, PEERS, 0.3)
    arguments.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    arguments.add_argument("--batches", nargs="+", type=int, default=[64, 512])
    chosen = arguments.parse_args()
    # nflows says that its splines' networks are not scaled, as ours are not either.
    warnings.filterwarnings("ignore", "Inputs to the softmax are not scaled down")
    peers, about = begin(chosen, PEERS)
    cases = [NAMES[name] for name in chosen.cases]
    rows: list[dict[str, Any]] = []
    pair_of, pair = None, None
    bar = tqdm(list(measurements(cases, peers, chosen.passes, chosen.batches)), unit="pair")
    for case, peer, what, batch in bar:
        bar.set_description(f"{case.name}, {peer.name}, {what}, {batch}")
        if pair_of != (case, peer):
            pair_of, pair = (case, peer), built(case, peer, chosen.batches, chosen.passes)
        assert pair is not None
        timers = [partial(one.seconds, what, batch) for one in pair]
        found = alternate(timers, chosen.seconds)
        times = [
            [t / one.steps(what, batch) for t in each]
            for one, each in zip(pair, found, strict=True)
        ]
        work = 2 * multiply_adds(pair[0].module) * batch
        rows.append(
            {
                "kind": case.kind, "features": case.features, "pass": what, "batch": batch,
                "peer": peer.name, "flop": work * (1 if what in (DENSITY, SAMPLE) else 3),
                "ours": quartiles(times[0]), "theirs": quartiles(times[1]), "ratio": ratio(*times),
            }
        )  # fmt: skip
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "results.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    text = table(about, rows)
    print(text)
    (chosen.out / "table.md").write_text(text + "\n")
    picture(rows, chosen.out / "ratios.png")
    headlines(rows, chosen.threads, chosen.out / "speed.png")
    end(chosen, about)


if __name__ == "__main__":
    main()
