"""What flow_peers, bnn_peers and vae_peers share: installing, measuring in turns, and reporting.

Implementations take turns, and each peer's time is divided by ours of the same round, so that other
work on the machine weighs on both.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

import bslfast.info
from bslfast.cli.compare import STAMP, is_installed, stamped

Row = dict[str, Any]
#: For networks and passes, what is aimed at beside peers, as :class:`Aim` reads it.
Aims = Mapping[tuple[str, str], Mapping[str, str]]
#: Seconds of a block of calls.
BLOCK = 0.02


class Peer:
    """A library.

    Args:
        name: in the report.
        requirements: the file that pip gets, named after the package; None needs no installation.
        module: what is imported, if it is not called as the package is.

    Attributes:
        environment: whether the package has a virtual environment of its own. Others need nothing
            that is not in bslfast's, and must not bring a torch.
        version: of the package; empty for what is in torch.
    """

    environment = False

    def __init__(self, name: str, requirements: Path | None, module: str = "") -> None:
        self.name, self.requirements, self.version = name, requirements, ""
        self.package = requirements.stem if requirements else ""
        self.module = module or self.package

    def start(self, place: Path, threads: int) -> None:
        """Make the installed package usable; ImportError says that it is not."""
        if self.requirements is None:
            return
        if str(place) not in sys.path:
            sys.path.append(str(place))
        importlib.import_module(self.module)
        self.version = metadata.version(self.package)


class Remote(Peer):
    """A library in a process of its own (served.py), as XLA and torch have threads of their own.

    Args:
        name, requirements: as of :class:`Peer`.
        worker: the process's program.
    """

    environment = True
    process: subprocess.Popen[str]

    def __init__(self, name: str, requirements: Path, worker: Path) -> None:
        super().__init__(name, requirements)
        self.worker = worker

    def start(self, place: Path, threads: int) -> None:
        """See :class:`Peer`."""
        command = [place / "bin" / "python", self.worker, str(threads), place / "cache"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.file = place / "weights.npz"
        self.version = self.ask(None)["version"]

    def ask(self, request: dict[str, Any] | None) -> dict[str, Any]:
        """Send a line of JSON, if any, and read one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if request is not None:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise ImportError("its process ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def seconds(self, request: dict[str, Any]) -> float:
        """What the process measures."""
        time.sleep(0.01)  # torch's threads wait busily for a moment
        return float(self.ask(request)["seconds"])


AnyPeer = TypeVar("AnyPeer", bound=Peer)


def start(peers: Sequence[AnyPeer], root: Path, threads: int) -> list[AnyPeer]:
    """Install those whose requirements are new, and start all; say which are left out."""
    places: dict[Path | None, Path | None] = {None: root}
    found = []
    for peer in peers:
        if peer.requirements not in places:
            assert peer.requirements is not None
            places[peer.requirements] = _installed(peer.requirements, root, peer.environment)
        place = places[peer.requirements]
        try:
            if place is None:
                raise ImportError("its installation failed")
            peer.start(place, threads)
            found.append(peer)
        except ImportError as error:
            print(f"{peer.name} is left out: {error}", file=sys.stderr)
    return found


def _installed(requirements: Path, root: Path, environment: bool) -> Path | None:
    """A folder with the package: a virtual environment, or only the package itself."""
    place = root.absolute() / requirements.stem
    if is_installed(requirements, place):
        return place
    print(f"installing {requirements.stem} into {place}", file=sys.stderr)
    shutil.rmtree(place, ignore_errors=True)
    python, options = Path(sys.executable), ["--no-deps", "--target", place]
    try:
        if environment:
            subprocess.run([python, "-m", "venv", place], check=True)
            python, options = place / "bin" / "python", []
        command = [python, "-m", "pip", "install", "--quiet", *options, "-r", requirements]
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError:
        return None
    (place / STAMP).write_text(stamped(requirements))
    return place


def parser(
    description: str | None, cases: Iterable[str], peers: Iterable[Peer], seconds: float
) -> argparse.ArgumentParser:
    """The arguments that both benchmarks take."""
    made, names = argparse.ArgumentParser(description=description), list(cases)
    known = [peer.name for peer in peers]
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--cases", nargs="+", choices=names, default=names)
    made.add_argument("--peers", nargs="+", choices=known, help="(all that can be used)")
    made.add_argument("--seconds", type=float, default=seconds, help="of each measurement")
    made.add_argument("--installed", type=Path, default=Path("build/peers"))
    return made


def begin(
    chosen: argparse.Namespace, peers: Iterable[AnyPeer]
) -> tuple[list[AnyPeer], dict[str, Any]]:
    """Start the chosen peers; they, and what a table of theirs is measured with."""
    torch.set_num_threads(chosen.threads)
    wanted = [peer for peer in peers if chosen.peers is None or peer.name in chosen.peers]
    started = start(wanted, chosen.installed, chosen.threads)
    if not started:
        raise SystemExit("no peer can be used")
    return started, bslfast.info.describe() | {
        "threads": chosen.threads,
        "peak": peak(),
        "load": os.getloadavg()[0],
        "device": device(),
        "date": datetime.date.today().isoformat(),
        "peers": {peer.name: peer.version for peer in started},
    }


def end(chosen: argparse.Namespace, about: dict[str, Any]) -> None:
    """End the process with code 1 if a peer was asked for by name and left out."""
    absent = [name for name in chosen.peers or () if name not in about["peers"]]
    if absent:
        raise SystemExit(f"--peers: expected some that can be used, left out {', '.join(absent)}")


def alternate(
    timers: Sequence[Callable[[int], float]], seconds: float, rounds: int = 1
) -> list[list[float]]:
    """The times of a call of each, from blocks in the order A B B A until the time is over.

    Args:
        timers: each returns the seconds of so many calls.
        seconds: of the whole measurement, warm-up not counted.
        rounds: how many there are at least.
    """
    calls = []
    for timer in timers:
        timer(1)  # it may compile
        once = timer(1)
        if once < 1:
            once = timer(1)
        calls.append(max(1, min(1000, round(BLOCK / once))))
    times: list[list[float]] = [[] for _ in timers]
    order = [*range(len(timers)), *reversed(range(len(timers)))]
    begin = time.perf_counter()
    while len(times[0]) < 2 * rounds or time.perf_counter() - begin < seconds:
        for k in order:
            times[k].append(timers[k](calls[k]) / calls[k])
    return times


class Implementation(Protocol):
    """A network that can be timed."""

    def seconds(self, what: str, calls: int) -> float:
        """The time of so many calls of a pass."""

    def steps(self, what: str) -> int:
        """The steps of a call."""


def measured(
    ours: Mapping[str, Implementation],
    theirs: Mapping[str, Implementation],
    facts: Row,
    seconds: float,
    rounds: int,
) -> list[Row]:
    """Rows for each of ours and each peer, from turns of all.

    Args:
        ours: by the way in which each computes.
        theirs: by peer.
        facts: "network", "pass" and "of": what is measured, for the rows.
        seconds, rounds: as of :func:`alternate`.
    """
    what, every = facts["pass"], [*ours.values(), *theirs.values()]
    found = alternate([partial(one.seconds, what) for one in every], seconds, rounds)
    times = [[t / one.steps(what) for t in own] for one, own in zip(every, found, strict=True)]
    return [
        facts
        | {
            "way": way, "peer": peer, "ours": quartiles(own), "theirs": quartiles(other),
            "ratio": ratio(own, other),
        }
        for way, own in zip(ours, times, strict=False)
        for peer, other in zip(theirs, times[len(ours) :], strict=True)
    ]  # fmt: skip


def close_on_average(found: Tensor, wanted: Tensor, what: str, *, relative: float) -> None:
    """Assert that the means of two samples agree within six standard errors and a part of them.

    Args:
        found, wanted: independent draws; one number is an exact mean.
        what: for the message.
        relative: the part of ``wanted`` that means may differ by in any case.
    """
    found, wanted = found.double(), wanted.double()
    variance = sum(t.var().item() / len(t) for t in (found, wanted) if len(t) > 1)
    bound = 6 * variance**0.5 + relative * wanted.mean().abs().item()
    if not (found.mean() - wanted.mean()).abs().item() <= bound:
        raise AssertionError(
            f"{what}: expected {wanted.mean():.6g} within {bound:.2g}, got {found.mean():.6g}"
        )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds A B B A, in which other work on the machine weighs on both."""
    rounds = range(0, len(ours), 2)
    return statistics.median(sum(theirs[k : k + 2]) / sum(ours[k : k + 2]) for k in rounds)


def quartiles(times: Sequence[float]) -> list[float]:
    return statistics.quantiles(times, n=4, method="inclusive")


def peak() -> float:
    """The best GFLOP/s of torch at a product of matrices."""
    a, best = torch.randn(1024, 1024), float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - begin)
    return 2 * 1024**3 / best / 1e9


@dataclass(frozen=True)
class Aim:
    """What bslfast's time should be beside a peer's.

    Attributes:
        kind: "at most" so many times the peer's, or "at least" so many times less.
        factor: how many.
    """

    kind: str
    factor: float

    @classmethod
    def parse(cls, text: str) -> Aim:
        """The aim that a text such as "at most 1.7" says."""
        kind, _, number = text.rpartition(" ")
        if kind not in ("at most", "at least"):
            raise ValueError(f"text: expected 'at most ...' or 'at least ...', got {text!r}")
        return cls(kind, float(number))

    @property
    def ratio(self) -> float:
        """The peer's time as a multiple of bslfast's that is aimed at."""
        return 1 / self.factor if self.kind == "at most" else self.factor

    def shown(self, ratio: float) -> str:
        """A ratio of the peer's time to bslfast's as the aim counts it, bold if reached."""
        number = 1 / ratio if self.kind == "at most" else ratio
        sign = "≤" if self.kind == "at most" else "≥"
        text = f"{number:.3g}"
        return f"{f'**{text}**' if ratio >= self.ratio else text} [{sign} {self.factor:g}]"


def aim(row: Row, aims: Aims) -> Aim | None:
    """What is aimed at, if anything; a library's aims hold for all that its name begins."""
    text = aims.get((row["network"], row["pass"]), {}).get(row["peer"].split(" (")[0])
    return None if text is None else Aim.parse(text)


def by_line(
    rows: Iterable[Row], *key: str
) -> Iterator[tuple[dict[str, Row], tuple[float, float, float]]]:
    """For each line of a table: its rows by peer, and the quartiles of our times in all of them."""
    lines: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row[part] for part in key), {})[row["peer"]] = row
    for line in lines.values():
        low, middle, high = (
            statistics.median(row["ours"][k] for row in line.values()) for k in range(3)
        )
        yield line, (low, middle, high)


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def header(about: dict[str, Any]) -> str:
    """What a table was measured with."""
    versions = [f"{name} {version}" for name, version in about["peers"].items() if version]
    packages = [
        f"bslfast {about['bslfast']} ({about['isa']})",
        f"torch {about['torch']}",
        *versions,
    ]
    return (
        f"{', '.join(packages)}; "
        f"float32, {about['threads']} threads, {about['peak']:.0f} GFLOP/s at matrix products; "
        f"the machine's load before was {about['load']:.1f}."
    )


def table(
    about: dict[str, Any],
    rows: list[Row],
    aims: Aims,
    plain: str,
    text: str,
    others: Sequence[bool] = (),
) -> str:
    """Markdown: a line for each of the rows that :func:`measured` makes of ours, with all peers.

    Args:
        about: the machine and the versions.
        rows: times.
        aims: of ratios.
        plain: how peers are called whose column has bslfast's time as a multiple of theirs.
        text: what was measured.
        others: whether further aims are reached.
    """
    peers = list(about["peers"])
    reached = [row["ratio"] >= wanted.ratio for row in rows if (wanted := aim(row, aims))]
    reached += others
    lines = [
        f"{about['device']}, {about['date']}. {header(about)}",
        "",
        f"Medians in ms, with quartiles for bslfast. Under {plain}: bslfast's time as a multiple "
        f"of {plain}'s, or the reverse where the aim is [≥]. Under other peers: their time as a "
        "multiple of bslfast's. Both are medians over rounds in which all take turns. Then [the "
        f"aim] and the peer's time. {text} BSLFAST_ISA limits bslfast alone.",
        f"Aims reached: {sum(reached)} of {len(reached)} (bold).",
        "",
        "| network | pass | bslfast | ms | " + " | ".join(peers) + " |",
        "|---" * (4 + len(peers)) + "|",
    ]
    for line, (low, middle, high) in by_line(rows, "network", "pass", "way"):
        first = next(iter(line.values()))
        cells = [_cell(line[peer], aims, plain) if peer in line else "" for peer in peers]
        lines.append(
            f"| {first['network']} | {first['pass']}{first['of']} | {first['way']} "
            f"| {ms(middle)} ({ms(low)} to {ms(high)}) | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _cell(row: Row, aims: Aims, plain: str) -> str:
    wanted, time = aim(row, aims), ms(row["theirs"][1])
    if wanted is not None:
        return f"{wanted.shown(row['ratio'])} {time}"
    return f"{1 / row['ratio'] if row['peer'].startswith(plain) else row['ratio']:.3g} {time}"


def picture(rows: list[Row], aims: Aims, path: Path) -> None:
    """Bars of the ratios for each pass, and a mark where each should be."""
    passes = list(dict.fromkeys(row["pass"] for row in rows))

    def aimed(row: Row) -> float | None:
        wanted = aim(row, aims)
        return None if wanted is None else wanted.ratio

    bars(rows, passes, lambda row: f"{row['network']}\n{row['way']}{row['of']}", aimed, path)


def device() -> str:
    """The processor and how many of its cores this process may use."""
    name = "CPU"
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        name = re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b|@.*", "", found[1]) if found else name
    return f"{' '.join(name.split())} {len(os.sched_getaffinity(0))} cores"


def stem(kind: str, about: dict[str, Any], folder: Path) -> Path:
    """Where a table and a picture go, without the ending: named after machine, date and code."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{kind} {about['device']} {about['date']} {about['isa']}".lower()
    return folder / re.sub("[^a-z0-9]+", "-", name)


def bars(
    rows: list[Row],
    passes: Sequence[str],
    label: Callable[[Row], str],
    aim: Callable[[Row], float | None],
    path: Path,
) -> None:
    """Draw bars of the ratios for each pass, and a mark where each should be."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    rows = [row for row in rows if row["pass"] in passes]
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    passes = [what for what in passes if any(row["pass"] == what for row in rows)]
    if not passes:
        return
    labels = {
        what: list(dict.fromkeys(label(row) for row in rows if row["pass"] == what))
        for what in passes
    }
    most = max(len(found) for found in labels.values())
    # Each bar has room for its number.
    each = max(0.6, 0.11 * len(peers))
    figure = Figure(figsize=(6 * len(passes), 1.5 + each * most), layout="constrained")
    for axes, what in zip(figure.subplots(1, len(passes), squeeze=False)[0], passes, strict=True):
        height = 0.8 / len(peers)
        for k, peer in enumerate(peers):
            chosen = [row for row in rows if row["peer"] == peer and row["pass"] == what]
            places = [
                labels[what].index(label(row)) + (k - (len(peers) - 1) / 2) * height
                for row in chosen
            ]
            drawn = axes.barh(places, [row["ratio"] for row in chosen], height * 0.95, label=peer)
            axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7)
            for place, row in zip(places, chosen, strict=True):
                if (at := aim(row)) is not None:
                    axes.vlines(at, place - height / 2, place + height / 2, color="black")
        axes.axvline(1, color="grey", linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(labels[what])), labels[what])
        axes.invert_yaxis()
        axes.margins(x=0.1, y=0.01)
        axes.set_title(what)
        axes.set_xlabel("time / time of bslfast (black: aim)")
    # A peer may lack some passes.
    handles = {
        text: handle
        for axes in figure.axes
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        if len(handle)
    }
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=len(handles)
    )
    figure.savefig(path, dpi=110)
