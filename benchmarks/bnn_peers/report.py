"""The table and the picture of `python benchmarks/bnn_peers`, with the aims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import beside
from beside import Row
from bnn_peers.memory import OURS

AIMS = {
    ("784-1200-1200-10", "forward + backward"): {
        "nn.Linear": "at most 1.7", "bayesian-torch": "at least 3", "jax": "at least 2",
    },
    ("784-1200-1200-10", "predictions"): {
        "nn.Linear": "at most 1.8", "bayesian-torch": "at least 4",
    },
    ("11-50-1", "step with Adam"): {"nn.Linear": "at most 1.8"},
    ("11-50-1", "training loop"): {
        "nn.Linear": "at least 10", "bayesian-torch": "at least 60", "jax": "at least 3",
    },
    ("11-50-1", "predictions"): {"torch eager": "at least 30"},
}  # fmt: skip
#: The aim for the memory of the largest network, in copies of its weights.
MEMORY_AIM = 1.0
#: The peers whose column has bslfast's time as a multiple of theirs.
PLAIN = "nn.Linear"


def table(about: dict[str, Any], rows: list[Row], memory: dict[str, float]) -> str:
    """Markdown: a line for each measurement of ours, with all peers.

    Args:
        about: the machine and the versions.
        rows: times.
        memory: of the largest network, in copies of its weights.
    """
    text = (
        "In a training loop, times are of one step; those of peers in torch are their steps with "
        "Adam."
    )
    others = [copies <= MEMORY_AIM for name, copies in memory.items() if name in OURS]
    made = beside.table(about, rows, AIMS, PLAIN, text, others)
    return f"{made}\n\n{_memory(memory)}" if memory else made


def _memory(memory: dict[str, float]) -> str:
    cells = []
    for name, copies in memory.items():
        text = f"{copies:.2f}"
        if name in OURS:
            text = f"{f'**{text}**' if copies <= MEMORY_AIM else text} [≤ {MEMORY_AIM:g}]"
        cells.append(f"{name} {text}")
    return (
        "Peak memory of a step with Adam of 784-1200-1200-10 above parameters, gradients and the "
        f"optimiser's state, in copies of the weights: {', '.join(cells)}. It is the process's "
        "resident memory at its highest less that before the network was made, so activations, "
        "buffers of matrix products and of layers count."
    )


def picture(rows: list[Row], path: Path) -> None:
    """Bars of the ratios for each pass, and a mark where each should be."""
    beside.picture(rows, AIMS, path)
