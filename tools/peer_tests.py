"""Runs the tests of peers twice, as they are and inside of ``bslfast.patch.using``.

Usage: python tools/peer_tests.py [nflows zuko=FOLDER ...] [--out TABLE.md]

The tests come from the source distributions of PyPI, which are unpacked in build/peers/sources, or
from a FOLDER with a peer's sources. Nothing is installed into the environment. The exit code is 1
if a test passes on the peer alone but not on the patched one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import bslfast.info
from bslfast import patch
from bslfast.patch import twins
from bslfast.patch.swapped import SWAPS

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "build" / "peers"
#: What tests import beside torch and numpy, without its dependencies.
TOOLS = ("torchtestcase==2018.2",)
#: Which peer the tests are of, for this file as a plugin; a file that gets the number of calls.
VARIABLES = ("BSLFAST_PATCHED", "BSLFAST_PATCHED_CALLS")


# --- as a plugin of pytest ------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Swap for all tests, and count what bslfast computes instead."""
    peer = os.environ.get(VARIABLES[0])
    if not peer:
        return
    swap = patch.using(peer)
    swap.__enter__()
    config.add_cleanup(lambda: swap.__exit__(None, None, None))
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counting(*args: Any, **named: Any) -> Any:
            calls[name] += 1
            return function(*args, **named)

        setattr(owner, name, counting)

    counted(twins.Twin, "compute")
    counted(patch.swapped, "_spline")

    def write() -> None:
        Path(os.environ[VARIABLES[1]]).write_text(str(sum(calls.values())))

    config.add_cleanup(write)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let both runs have the same random numbers."""
    torch.manual_seed(0)


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


def results(folder: Path, peer: str, patched: bool) -> tuple[dict[str, str], int]:
    """The outcome of each test by its name, and the calls that bslfast has taken."""
    written = PEERS / f"{peer}-{'patched' if patched else 'plain'}.xml"
    count = written.with_suffix(".calls")
    path = [folder, tools(), ROOT / "tools", os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, path))),
        VARIABLES[0]: peer if patched else "",
        VARIABLES[1]: str(count),
        "OMP_NUM_THREADS": "1",  # the calls are small
    }
    for old in (written, count):
        old.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "peer_tests", "-p", "no:cacheprovider"]
    command += ["-o", "python_files=*_test.py test_*.py", "-o", "addopts=", "--tb=short"]
    command += [f"--junitxml={written}", str(folder)]
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if not written.is_file():
        raise SystemExit(f"the tests of {peer} could not be run:\n{ended.stdout}")
    (written.with_suffix(".log")).write_text(ended.stdout)
    found = {}
    for case in ET.parse(written).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = "failed" if kinds - {"skipped"} else "skipped" if kinds else "passed"
    return found, int(count.read_text()) if count.is_file() else 0


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
        f"The peers' own tests, on the peer alone and inside of `bslfast.patch.using`: bslfast "
        f"{about['bslfast']} ({about['isa']}), torch {torch.__version__}.",
        "",
        "| peer | alone: passed, failed, skipped | patched | calls that bslfast took | fails only "
        "when patched |",
        "|---|---|---|---|---|",
    ]
    broken = 0
    for peer, folder in named.items():
        place = Path(folder).absolute() if folder else sources(peer)
        plain, _ = results(place, peer, False)
        patched, calls = results(place, peer, True)
        worse = sorted(n for n in plain if plain[n] == "passed" and patched.get(n) != "passed")
        broken += len(worse)
        cells = [
            ", ".join(str(Counter(r.values())[kind]) for kind in ("passed", "failed", "skipped"))
            for r in (plain, patched)
        ]
        shown = ", ".join(f"`{name}`" for name in worse) or "none"
        lines.append(f"| {place.name} | {cells[0]} | {cells[1]} | {calls} | {shown} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
