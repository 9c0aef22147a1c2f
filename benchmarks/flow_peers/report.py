"""The table and the picture of `python benchmarks/flow_peers`, with the ratios aimed at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beside import Row, bars, by_line, header, ms

GOALS_FOR = ("train step", "log_prob", "sample")
#: The passes of the picture.
SHOWN = ("train step", "training loop", "log_prob", "sample")
_SMALL_AFFINE = {"nflows": (8, 8, 8), "zuko": (8, 8, 8), "flowjax": (3, 3, 3)}
_SMALL_SPLINES = {"nflows": (12, 15, 15), "zuko": (12, 15, 20), "flowjax": (3, 3, 3)}
#: Times ours, for each of GOALS_FOR and batches of 64 to 512.
GOALS = {
    ("affine", 2): _SMALL_AFFINE,
    ("affine", 8): _SMALL_AFFINE,
    ("NSF-C", 2): _SMALL_SPLINES,
    ("NSF-C", 8): _SMALL_SPLINES,
    ("NSF-C", 43): {"nflows": (9, 12, 12), "zuko": (10, 14, 28), "flowjax": (4, 4, 4)},
    ("affine", 43): {"nflows": (4, 4, 4), "zuko": (4, 4, 4), "flowjax": (3, 3, 4)},
    ("NSF-AR", 43): {"nflows": (7, 10, 300), "zuko": (4, 6, 250), "flowjax": (4, 3, 100)},
    ("MAF", 43): {"nflows": (6, 7, 150), "zuko": (3, 3, 60), "flowjax": (3, 3, 50)},
}


def goal(row: Row) -> float | None:
    """The ratio aimed at. zuko's goals hold for both of its couplings."""
    if row["pass"] not in GOALS_FOR or not 64 <= row["batch"] <= 512:
        return None
    goals = GOALS[row["kind"], row["features"]][row["peer"].split()[0]]
    return goals[GOALS_FOR.index(row["pass"])]


def table(about: dict[str, Any], rows: list[Row]) -> str:
    """Markdown: a line for each measurement of ours, with all peers."""
    peers = list(about["peers"])
    aims = [(row["ratio"], aim) for row in rows if (aim := goal(row)) is not None]
    lines = [
        header(about),
        "",
        "Medians in ms, with quartiles for bslfast; then each peer's time as a multiple of ours "
        "(the median over rounds of both), [the multiple aimed at], and its time. In a training "
        "loop, times are of one step; those of nflows and zuko are their steps with Adam.",
        f"Aims reached: {sum(found >= aim for found, aim in aims)} of {len(aims)} (bold).",
        "",
        "| flow | batch | pass | bslfast | GFLOP/s | " + " | ".join(peers) + " |",
        "|---" * (5 + len(peers)) + "|",
    ]
    for found, (low, middle, high) in by_line(rows, "kind", "features", "batch", "pass"):
        first = next(iter(found.values()))
        speed = first["flop"] / middle / 1e9
        cells = [_cell(found[peer]) if peer in found else "" for peer in peers]
        lines.append(
            f"| {first['kind']} D={first['features']} | {first['batch']} | {first['pass']} "
            f"| {ms(middle)} ({ms(low)} to {ms(high)}) "
            f"| {speed:.0f} ({speed / about['peak']:.0%}) | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _cell(row: Row) -> str:
    found, aim = row["ratio"], goal(row)
    text = f"{found:.1f}" if aim is None or found < aim else f"**{found:.1f}**"
    return f"{text}{'' if aim is None else f' [{aim}]'} {ms(row['theirs'][1])}"


def picture(rows: list[Row], path: Path) -> None:
    """Bars of the ratios for :data:`SHOWN`, and a mark where each should be."""
    bars(rows, SHOWN, _label, goal, path)


#: What README shows, at batches of 512.
HEADLINES = {
    "NSF, training step": ("NSF-C", "train step"),
    "NSF, density": ("NSF-C", "log_prob"),
    "autoregressive NSF, training step": ("NSF-AR", "train step"),
    "autoregressive NSF, density": ("NSF-AR", "log_prob"),
    "autoregressive NSF, samples": ("NSF-AR", "sample"),
    "RealNVP, training step": ("affine", "train step"),
    "MAF, training step": ("MAF", "train step"),
    "MAF, samples": ("MAF", "sample"),
}


def headlines(rows: list[Row], threads: int, path: Path) -> None:
    """A small picture of the ratios of :data:`HEADLINES`, flows of 43 features."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row["features"] == 43 and row["batch"] == 512]
    if not rows:
        return
    peers = [peer for peer in dict.fromkeys(row["peer"] for row in rows) if " " not in peer]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(peers))
    for k, peer in enumerate(peers):
        found = {(row["kind"], row["pass"]): row["ratio"] for row in rows if row["peer"] == peer}
        places = [place for place, key in enumerate(HEADLINES.values()) if key in found]
        ratios = [found[key] for key in HEADLINES.values() if key in found]
        shifted = [place + (k - (len(peers) - 1) / 2) * height for place in places]
        bars = axes.barh(shifted, ratios, height * 0.95, label=peer)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(HEADLINES)), list(HEADLINES))
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.set_xlabel(f"time / time of bslfast; 43 features, 512 rows, float32, {threads} threads")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def _label(row: Row) -> str:
    return f"{row['kind']} D={row['features']}, {row['batch']}"
