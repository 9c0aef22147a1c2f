"""Time bslfast's VAEs beside their networks alone, torch and pythae.

python benchmarks/vae_peers --results benchmarks/results --out runs/bench-vae

Installs pythae into build/peers, asserts that all compute the same, and times. A peer that cannot
be installed is left out; if --peers names it, the exit code is 1. Writes a table and a picture,
named after device, date and instruction set, into RESULTS, and results.json into OUT.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from beside import Implementation, Row, begin, end, measured, parser, picture, stem, table
from vae_peers.cases import CASES, Case, Exact, draw
from vae_peers.parts import FUNCTIONS, PARTS, Part
from vae_peers.peers import BOUND, MARGINAL, PASSES, PEERS, STEP, Estimates, VaePeer, all_ours
from vae_peers.report import AIMS, PLAIN, TEXT

EVERY: list[Case | Part] = [*CASES, *PARTS]
NAMES = {case.name: case for case in EVERY}
#: For each pass, implementations by their names.
Built = dict[str, dict[str, Implementation]]


def built(case: Case, peers: list[VaePeer], estimates: Estimates) -> tuple[Built, Built]:
    """Ours and those of peers, after comparisons of what they compute."""
    torch.manual_seed(0)
    data = case.data(max(case.dataset_size, estimates.images))
    exact = Exact(case, draw(case), data[: case.batch])
    theirs: Built = {what: {} for what in PASSES}
    for peer in peers:
        print(f"{case.name}: {peer.name} is compared", file=sys.stderr)
        for what, own in peer.build(case, exact, data, estimates).items():
            theirs[what][peer.name] = own
    if case.apart:
        theirs = {BOUND: theirs[BOUND]}
    return all_ours(case, exact, data, estimates), theirs


def parts(part: Part, peers: list[VaePeer]) -> tuple[Built, Built]:
    """The same of a part."""
    torch.manual_seed(0)
    tensors = part.tensors()
    names = [peer.name for peer in peers if peer.name in FUNCTIONS]
    theirs = {name: part.build(tensors, name) for name in names}
    return {STEP: {part.ours.__name__: part.build(tensors, "bslfast")}}, {STEP: theirs}


def described(case: Case | Part, what: str, estimates: Estimates) -> Row:
    """What is measured, for the rows."""
    if isinstance(case, Part):
        of = " x ".join(map(str, case.shape))
    elif what == MARGINAL:
        of = f"{estimates.samples} samples of {estimates.images} rows"
    else:
        of = f"batch {case.batch}" + (f", {case.samples} samples" if what == BOUND else "")
    return {"network": case.name, "pass": what, "of": f", {of}"}


def main() -> None:
    arguments = parser(__doc__, NAMES, PEERS, 4)
    arguments.add_argument("--results", type=Path, required=True)
    arguments.add_argument("--passes", nargs="+", choices=PASSES, default=list(PASSES))
    arguments.add_argument("--rounds", type=int, default=3, help="of each measurement, at least")
    known = Estimates()
    arguments.add_argument("--images", type=int, default=known.images, help="of log_marginal")
    arguments.add_argument("--samples", type=int, default=known.samples, help="of log_marginal")
    arguments.add_argument("--batch-size", type=int, default=known.batch_size, help="of get_nll")
    chosen = arguments.parse_args()
    # Until glibc has freed a large block, it gives freed memory back at once (conftest.py).
    torch.empty(31 << 20, dtype=torch.uint8)
    peers, about = begin(chosen, PEERS)
    estimates = Estimates(chosen.images, chosen.samples, chosen.batch_size)
    rows: list[Row] = []
    bar = tqdm(chosen.cases, unit="case")
    for name in bar:
        case = NAMES[name]
        bar.set_description(name)
        if isinstance(case, Part):
            ours, theirs = parts(case, peers)
        else:
            ours, theirs = built(case, peers, estimates)
        for what in chosen.passes:
            if not (ours.get(what) and theirs.get(what)):
                continue
            bar.set_postfix_str(what)
            facts = described(case, what, estimates)
            # One call of get_nll takes seconds.
            wanted = (0.0, 1) if what == MARGINAL else (chosen.seconds, chosen.rounds)
            rows += measured(ours[what], theirs[what], facts, *wanted)
    chosen.out.mkdir(parents=True, exist_ok=True)
    everything = {"about": about, "rows": rows}
    (chosen.out / "results.json").write_text(json.dumps(everything, indent=1))
    text = table(about, rows, AIMS, PLAIN, TEXT)
    print(text)
    place = stem("vae", about, chosen.results)
    place.with_suffix(".md").write_text(text + "\n")
    if rows:
        picture(rows, AIMS, place.with_suffix(".png"))
    end(chosen, about)


if __name__ == "__main__":
    main()
