"""Runs the tests of peers twice, as they are and inside of ``bslfast.patch.using``.

Usage: python tools/peer_tests.py [nflows zuko=FOLDER ...] [--out TABLE.md]

The tests come from the source distributions of PyPI, which are unpacked in build/peers/sources, or
from a FOLDER with a peer's sources. Nothing is installed into the environment. The exit code is 1
if a test fails on the patched peer alone, if bslfast took no call, or if pytest could not run the
tests. A test that fails by chance, as its bounds are at the limit of float32, is run with other
random numbers, too: if it fails about as often on the peer itself, it is counted as unsteady.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import bslfast.info
from bslfast import patch
from bslfast.patch import swapped, twins
from bslfast.patch.swapped import SWAPS

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
#: What tests import beside torch and numpy, without its dependencies.
TOOLS = ("torchtestcase==2018.2",)
#: Which peer the tests are of, for this file as a plugin; a file that gets the number of calls.
VARIABLES = ("BSLFAST_PATCHED", "BSLFAST_PATCHED_OUTCOMES", "BSLFAST_PATCHED_SEEDS")
#: How many seeds a test is run with that fails when patched.
SEEDS = 60


Outcomes = dict[str, Any]
_outcomes: Outcomes = {"calls": {}, "tests": {}}
_runs: Counter[str] = Counter()


# --- as a plugin of pytest ------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Swap for all tests, and count what bslfast computes instead."""
    peer, written = os.environ.get(VARIABLES[0]), os.environ[VARIABLES[1]]
    config.add_cleanup(lambda: Path(written).write_text(json.dumps(_outcomes)) and None)
    if not peer:
        return
    swap = patch.using(peer)
    swap.__enter__()
    config.add_cleanup(lambda: swap.__exit__(None, None, None))

    def counted(kind: str, owner: Any, name: str) -> None:
        function = getattr(owner, name)
        _outcomes["calls"][kind] = 0

        def counting(*args: Any, **named: Any) -> Any:
            _outcomes["calls"][kind] += 1
            return function(*args, **named)

        setattr(owner, name, counting)

    counted("twins", twins.Twin, "compute")
    if any(swap.name in swapped._SPLINES for swap in SWAPS[peer]):
        counted("splines", swapped, "_spline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run each test as often as there are seeds."""
    items[:] = [item for item in items for _ in range(int(os.environ[VARIABLES[2]]))]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let both runs have the same random numbers."""
    torch.manual_seed(_runs[item.nodeid])
    _runs[item.nodeid] += 1


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count outcomes; those of set-up and of parts of a test count if they are no success."""
    if report.when == "call" or report.outcome != "passed":
        own = _outcomes["tests"].setdefault(report.nodeid, {})
        own[report.outcome] = own.get(report.outcome, 0) + 1


# --- as a program ---------------------------------------------------------------------------------


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


def sources(peer: str) -> Path:
    """The unpacked source distribution, of the version that tests/patch/peers.txt has."""
    lines = (ROOT / "tests" / "patch" / "peers.txt").read_text().splitlines()
    wanted = next(line for line in lines if line.startswith(f"{peer}=="))
    place = PEERS / "sources"
    found = place / wanted.replace("==", "-")
    if not found.is_dir():
        pip("download", "--no-binary", ":all:", "--no-deps", "--dest", place, wanted)
        with tarfile.open(f"{found}.tar.gz") as archive:
            archive.extractall(place, filter="data")
    return found


def tools() -> Path:
    place = PEERS / "test-tools"
    if not place.is_dir():
        pip("install", "--no-deps", "--target", place, *TOOLS)
    return place


def results(
    folder: Path, peer: str, patched: bool, tests: Sequence[str] = (), seeds: int = 1
) -> Outcomes:
    """The outcomes of each test by its name, and the calls that bslfast has taken by their kind."""
    written = PEERS / f"{peer}-{'patched' if patched else 'plain'}.json"
    path = [folder, tools(), ROOT / "tools", os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, path))),
        VARIABLES[0]: peer if patched else "",
        VARIABLES[1]: str(written),
        VARIABLES[2]: str(seeds),
        "OMP_NUM_THREADS": "1",  # the calls are small
    }
    written.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "peer_tests", "-p", "no:cacheprovider"]
    command += ["-o", "python_files=*_test.py test_*.py", "-o", "addopts=", "--tb=short"]
    command += [f"--rootdir={folder}", *(tests or ["."])]
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    (written.with_suffix(".log")).write_text(ended.stdout)
    found: Outcomes = json.loads(written.read_text()) if written.is_file() else {"tests": {}}
    if ended.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not (
        found["tests"].keys() >= set(tests) and found["tests"]
    ):
        raise SystemExit(f"the tests of {peer} could not be run:\n{ended.stdout}")
    return found


def is_unsteady(alone: int, patched: int) -> bool:
    """Whether a test fails by chance alone, and not much more often patched, with all seeds."""
    return alone > 0 and patched <= alone + 3 * math.sqrt(alone * (1 - alone / SEEDS))


def kinds(found: Outcomes) -> dict[str, str]:
    """The worst outcome of each test."""
    order = ("failed", "skipped", "passed")
    return {name: next(k for k in order if k in own) for name, own in found["tests"].items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="*", default=sorted(SWAPS), metavar="PEER[=FOLDER]")
    parser.add_argument("--out", type=Path, help="a file that gets the table, too")
    given = parser.parse_args()
    named = dict((*text.split("=", 1), "")[:2] for text in given.peers)
    if unknown := named.keys() - SWAPS.keys():
        parser.error(f"peers: expected some of {', '.join(SWAPS)}, got {', '.join(unknown)}")
    about = bslfast.info.describe()
    lines = [
        "The peers' own tests, on the peer alone and inside of `bslfast.patch.using`: bslfast "
        f"{about['bslfast']} ({about['isa']}), torch {torch.__version__}.",
        "",
        "| peer | alone: passed, failed, skipped | patched | calls that bslfast took | unsteady: "
        f"failures with {SEEDS} seeds alone, and patched | fails more often when patched |",
        "|---|---|---|---|---|---|",
    ]
    broken = 0
    for peer, folder in named.items():
        # Through a link, pytest would call the tests of a folder and a single one differently.
        place = (Path(folder) if folder else sources(peer)).resolve()
        both = [results(place, peer, patched) for patched in (False, True)]
        plain, patched = map(kinds, both)
        suspects = [n for n in plain if plain[n] == "passed" and patched.get(n) != "passed"]
        unsteady, worse = [], []
        if suspects:
            again = [results(place, peer, p, suspects, SEEDS)["tests"] for p in (False, True)]
            for name in suspects:
                counts = [own.get(name, {}).get("failed", 0) for own in again]
                shown = f"`{name}`: {counts[0]}, {counts[1]}"
                (unsteady if is_unsteady(*counts) else worse).append(shown)
        calls = both[1]["calls"]
        unused = [kind for kind, count in calls.items() if not count]
        if unused:
            print(f"{peer}: expected calls that bslfast takes, got no {', '.join(unused)}")
        broken += len(worse) + len(unused)
        cells = [
            ", ".join(str(Counter(own.values())[kind]) for kind in ("passed", "failed", "skipped"))
            for own in (plain, patched)
        ]
        cells += [
            ", ".join(f"{count} {kind}" for kind, count in calls.items()),
            *("; ".join(names) or "none" for names in (unsteady, worse)),
        ]
        lines.append(f"| {place.name} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
