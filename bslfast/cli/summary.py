"""One table over the jobs that have run: ``bslfast summary``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEADER = ("job", "test metric", "training", "plain torch", "ratio", "per step")


def table(folder: Path) -> str:
    """Read every ``<job>/metrics.json`` in ``folder`` into a table, one row a job.

    ``ratio`` is the time of the same training in plain torch over the time of bslfast. ``per step``
    is this ratio for single steps taken in turns, which varies less.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming a file that does not hold a job's metrics.
    """
    files = sorted(folder.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"folder: expected jobs' metrics.json in {folder}/*/, found none")
    rows = [HEADER, *(_row(path) for path in files)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _row(path: Path) -> tuple[str, ...]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        name, value = next(iter(report["test"].items()))
        reference: dict[str, Any] = report["reference"] if report.get("reference") else {}
        # A long job compares only single steps. A job without a reference compares nothing.
        steps = reference.get("milliseconds_per_step") or {}
        ours, plain = steps.get("bslfast"), steps.get("plain torch")
        return (
            str.strip(report["job"]),  # raises TypeError unless it is text
            f"{name} {value:.4g}",
            f"{report['training']['seconds']:.1f} s",
            f"{reference['seconds']:.1f} s" if "seconds" in reference else "-",
            f"{reference['ratio']:.2f}" if "ratio" in reference else "-",
            f"{plain / ours:.2f}" if ours and plain else "-",
        )
    except Exception as error:  # for example from a number or text where a table should be
        raise ValueError(
            f"{path}: expected the metrics of a job of bslfast train, got {error!r}"
        ) from None
