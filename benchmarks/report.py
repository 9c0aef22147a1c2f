"""Make a table (Markdown) and a picture of the ratios from pytest-benchmark's JSON.

python benchmarks/report.py results.json --table results.md --picture results.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
OURS = "bslfast"


def rows(results: Path) -> list[Row]:
    """One row for each benchmark, with its case and its median in seconds."""
    data = json.loads(results.read_text())
    return [b["extra_info"] | {"median": b["stats"]["median"]} for b in data["benchmarks"]]


def groups(all_rows: list[Row]) -> dict[tuple[str, str, str, int], dict[str, Row]]:
    """The implementations of each (case, size, mode, threads)."""
    found: dict[tuple[str, str, str, int], dict[str, Row]] = {}
    for row in all_rows:
        key = (row["case"], row["size"], row["mode"], row["threads"])
        found.setdefault(key, {})[row["implementation"]] = row
    return found


def table(all_rows: list[Row]) -> str:
    """Times, and each peer's as a multiple of ours."""
    lines = [
        "| op | size | pass | threads | bslfast | peers (time, times ours) | saved for backward |",
        "|---|---|---|---|---|---|---|",
    ]
    for (case, size, mode, threads), found in groups(all_rows).items():
        if OURS not in found:
            continue
        ours = found[OURS]["median"]
        peers = ", ".join(
            f"{name} {_time(row['median'])} ({row['median'] / ours:.2f})"
            for name, row in found.items()
            if name != OURS
        )
        saved = ""
        if "saved_bytes" in found[OURS]:
            saved = ", ".join(f"{name} {_bytes(row['saved_bytes'])}" for name, row in found.items())
        lines.append(
            f"| {case} | {size} | {mode} | {threads} | {_time(ours)} | {peers} | {saved} |"
        )
    return "\n".join(lines)


def picture(all_rows: list[Row], path: Path) -> None:
    """Bars of each peer's time in multiples of ours, forward + backward, at the most threads."""
    from matplotlib.figure import Figure

    most = max(row["threads"] for row in all_rows)
    chosen = {
        f"{case}  {size}": found
        for (case, size, mode, threads), found in groups(all_rows).items()
        if mode == "both" and threads == most and OURS in found
    }
    peers = sorted({name for found in chosen.values() for name in found} - {OURS})
    figure = Figure(figsize=(9, 1.2 + 0.45 * len(chosen)), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / max(1, len(peers))
    for k, peer in enumerate(peers):
        positions, ratios = [], []
        for i, found in enumerate(chosen.values()):
            if peer in found:
                positions.append(i + (k - (len(peers) - 1) / 2) * height)
                ratios.append(found[peer]["median"] / found[OURS]["median"])
        bars = axes.barh(positions, ratios, height=height * 0.95, label=peer)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(chosen)), list(chosen))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(f"time / time of bslfast, forward + backward, {most} threads (log scale)")
    axes.set_title("How much longer the others take (right of 1: bslfast is faster)")
    axes.legend(loc="lower right", fontsize=8)
    axes.margins(x=0.12, y=0.005)
    figure.savefig(path, dpi=120)


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _bytes(count: int) -> str:
    return f"{count} B" if count < 1 << 20 else f"{count / (1 << 20):.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    all_rows = rows(arguments.results)
    text = table(all_rows)
    print(text)
    arguments.table.write_text(text + "\n")
    picture(all_rows, arguments.picture)


if __name__ == "__main__":
    main()
