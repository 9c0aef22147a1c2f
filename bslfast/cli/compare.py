"""``bslfast bench --compare``: the benchmarks beside other libraries, in their small form."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Comparison(NamedTuple):
    """What is measured beside a peer.

    Attributes:
        folder: of the benchmark.
        package: what is installed; empty for what comes with torch.
        peers: their names there.
        options: of a run that takes about a minute.
    """

    folder: str
    package: str
    peers: tuple[str, ...]
    options: tuple[str, ...]


_FLOWS = (
    "--cases", "NSF-C-8", "affine-8", "MAF-43",
    "--passes", "train step", "log_prob", "sample", "--batches", "512",
)  # fmt: skip
_NETWORKS = ("--cases", "11-50-1", "--seconds", "2", "--passes", "step with Adam", "predictions")
_VAES = ("--cases", "64-64-2", "--seconds", "2", "--passes", "step with Adam")
#: By the names that ``--compare`` takes.
COMPARISONS: dict[str, Comparison] = {
    "bayesian-torch": Comparison("bnn_peers", "bayesian-torch", ("bayesian-torch",), _NETWORKS),
    "blitz": Comparison("bnn_peers", "blitz-bayesian-pytorch", ("blitz",), _NETWORKS),
    "flowjax": Comparison("flow_peers", "flowjax", ("flowjax",), _FLOWS),
    "jax": Comparison("bnn_peers", "jax", ("jax",), _NETWORKS),
    "nflows": Comparison("flow_peers", "nflows", ("nflows",), _FLOWS),
    "pythae": Comparison("vae_peers", "pythae", ("pythae",), _VAES),
    "torch": Comparison("bnn_peers", "", ("nn.Linear", "torch eager"), _NETWORKS),
    "torchbnn": Comparison("bnn_peers", "torchbnn", ("torchbnn",), _NETWORKS),
    "zuko": Comparison("flow_peers", "zuko", ("zuko",), _FLOWS),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison."""
    add = parser.add_argument
    add(
        "--compare", nargs="+", choices=tuple(COMPARISONS), metavar="PEER",
        help=f"measure beside other libraries instead, in about a minute each: "
        f"{', '.join(COMPARISONS)}",
    )  # fmt: skip
    add("--install", action="store_true", help="install those of --compare that are missing")
    add("--installed", default=Path("build/peers"), type=Path, help="where to (%(default)s)")
    add("--threads", default=2, type=int, help="of --compare (%(default)s)")
    add("--out", default=Path("runs/compare"), type=Path, help="of --compare (%(default)s)")


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the benchmarks that have the peers, each of which prints a table."""
    chosen = list(dict.fromkeys(arguments.compare))
    missing = [name for name in chosen if not _is_installed(arguments.installed, name)]
    if missing and not arguments.install:
        raise FileNotFoundError(
            f"--compare: expected {', '.join(missing)} to be installed in "
            f"{str(arguments.installed)!r}, found nothing there; this installs it, apart from the "
            f"environment: bslfast bench --compare {' '.join(chosen)} --install"
        )
    code = 0
    for name in dict.fromkeys(COMPARISONS[each].folder for each in chosen):
        of_folder = [COMPARISONS[each] for each in chosen if COMPARISONS[each].folder == name]
        code = code or subprocess.call(_command(arguments, folder / name, of_folder))
    return code


def _command(
    arguments: argparse.Namespace, folder: Path, chosen: Sequence[Comparison]
) -> list[str]:
    command = [sys.executable, str(folder), "--out", str(arguments.out / folder.name)]
    if folder.name != "flow_peers":
        command += ["--results", str(arguments.out)]
    command += ["--threads", str(arguments.threads), "--installed", str(arguments.installed)]
    command += ["--peers", *(peer for each in chosen for peer in each.peers)]
    return [*command, *chosen[0].options]


def _is_installed(place: Path, name: str) -> bool:
    package = COMPARISONS[name].package
    return not package or (place / package / ".installed").is_file()
