"""``bslfast bench --compare``: the benchmarks beside other libraries, in their small form."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bslfast.cli.runner import positive_int


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


#: The file that benchmarks/beside.py leaves in the folder of an installed peer.
STAMP = ".installed"
#: What the options of a comparison are if they are not given.
_DEFAULTS: dict[str, Any] = {
    "install": False,
    "installed": Path("build/peers"),
    "threads": 2,
    "out": Path("runs/compare"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison; only those that are given get into the namespace."""
    parser.add_argument(
        "--compare", nargs="+", choices=tuple(COMPARISONS), metavar="PEER",
        help=f"measure beside other libraries instead, in about a minute each: "
        f"{', '.join(COMPARISONS)}",
    )  # fmt: skip

    def add(name: str, help: str, **options: Any) -> None:
        text = help.format(_DEFAULTS[name])
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=text, **options)

    add("install", "install those of --compare that are missing", action="store_true")
    add("installed", "where those of --compare are ({})", type=Path)
    add("threads", "of --compare ({})", type=positive_int)
    add("out", "of --compare ({})", type=Path)


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with code 2 if an option would have no effect; set those that are not given."""
    if arguments.compare and arguments.pytest:
        parser.error(f"--compare: expected no arguments for pytest, got {arguments.pytest}")
    given = [f"--{name}" for name in _DEFAULTS if hasattr(arguments, name)]
    if given and not arguments.compare:
        parser.error(f"{', '.join(given)}: expected --compare beside it")
    for name, value in _DEFAULTS.items():
        setattr(arguments, name, getattr(arguments, name, value))


def run(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the benchmarks that have the peers, each of which prints a table; the worst exit code."""
    chosen = {name: COMPARISONS[name] for name in arguments.compare}
    folders = list(dict.fromkeys(each.folder for each in chosen.values()))
    if absent := [name for name in folders if not (folder / name / "__main__.py").is_file()]:
        raise FileNotFoundError(
            f"--folder: expected the benchmarks of a clone of the repository, got {str(folder)!r} "
            f"without {', '.join(absent)}"
        )
    missing = [name for name in chosen if not _is_installed(chosen[name], arguments, folder)]
    if missing and not arguments.install:
        raise FileNotFoundError(
            f"--compare: expected {', '.join(missing)} to be installed in "
            f"{str(arguments.installed)!r} by this Python, as {str(folder)!r} asks for; this "
            "installs it, apart from the environment: bslfast bench --compare "
            f"{' '.join(chosen)} --install"
        )
    codes: dict[str, int] = {}
    for name in folders:
        of_folder = [each for each in chosen.values() if each.folder == name]
        codes[name] = subprocess.call(_command(arguments, folder / name, of_folder))
    if failed := [f"{name} (exit code {code})" for name, code in codes.items() if code]:
        print(f"bslfast: failed: {', '.join(failed)}", file=sys.stderr)
    # A process that a signal has ended has a negative code, of which shells make this one.
    return max(code if code >= 0 else 128 - code for code in codes.values())


def is_installed(requirements: Path, place: Path) -> bool:
    """Whether this Python has installed these requirements, as they are now, in a folder."""
    stamp = place / STAMP
    return stamp.is_file() and stamp.read_text() == stamped(requirements)


def stamped(requirements: Path) -> str:
    """What the folder's :data:`STAMP` says."""
    return sys.version + requirements.read_text()


def _command(
    arguments: argparse.Namespace, folder: Path, chosen: Sequence[Comparison]
) -> list[str]:
    command = [sys.executable, str(folder), "--out", str(arguments.out / folder.name)]
    if folder.name != "flow_peers":
        command += ["--results", str(arguments.out)]
    command += ["--threads", str(arguments.threads), "--installed", str(arguments.installed)]
    command += ["--peers", *(peer for each in chosen for peer in each.peers)]
    return [*command, *chosen[0].options]


def _is_installed(found: Comparison, arguments: argparse.Namespace, folder: Path) -> bool:
    if not found.package:
        return True
    requirements = folder / found.folder / f"{found.package}.txt"
    return is_installed(requirements, arguments.installed / found.package)
