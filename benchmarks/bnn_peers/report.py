"""The table and the picture of `python benchmarks/bnn_peers`, with the aims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beside import Row, bars, by_line, header, ms


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


#: For networks and passes; a library's aims hold for all that its name begins.
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
#: Of the largest network, in copies of its weights.
MEMORY_AIM = 1.0
#: The peers whose column has bslfast's time as a multiple of theirs.
PLAIN = "nn.Linear"


def aim(row: Row) -> Aim | None:
    """What is aimed at, if anything."""
    aims = AIMS.get((row["network"], row["pass"]), {})
    text = aims.get(row["peer"].split(" (")[0])
    return None if text is None else Aim.parse(text)


def table(about: dict[str, Any], rows: list[Row], memory: dict[str, float]) -> str:
    """Markdown: a line for each measurement of ours, with all peers.

    Args:
        about: the machine and the versions.
        rows: times.
        memory: of the largest network, in copies of its weights.
    """
    peers = list(about["peers"])
    found = [(row["ratio"], wanted.ratio) for row in rows if (wanted := aim(row))]
    reached = sum(ratio >= wanted for ratio, wanted in found)
    if "bslfast" in memory:
        found.append((MEMORY_AIM, memory["bslfast"]))
        reached += memory["bslfast"] <= MEMORY_AIM
    lines = [
        f"{about['device']}, {about['date']}. {header(about)}",
        "",
        "Medians in ms, with quartiles for bslfast. Under nn.Linear: bslfast's time as a multiple "
        "of nn.Linear's, or the reverse where the aim is [≥]. Under other peers: their time as a "
        "multiple of bslfast's. Both are medians over rounds in which all take turns. Then [the "
        "aim] and the peer's time. In a training loop, times are of one step; those of peers in "
        "torch are their steps with Adam. BSLFAST_ISA limits bslfast alone.",
        f"Aims reached: {reached} of {len(found)} (bold).",
        "",
        "| network | pass | bslfast | ms | " + " | ".join(peers) + " |",
        "|---" * (4 + len(peers)) + "|",
    ]
    for line, (low, middle, high) in by_line(rows, "network", "pass", "way"):
        first = next(iter(line.values()))
        cells = [_cell(line[peer]) if peer in line else "" for peer in peers]
        lines.append(
            f"| {first['network']} | {first['pass']}{first['of']} | {first['way']} "
            f"| {ms(middle)} ({ms(low)} to {ms(high)}) | " + " | ".join(cells) + " |"
        )
    if memory:
        lines += ["", _memory(memory)]
    return "\n".join(lines)


def _cell(row: Row) -> str:
    wanted, time = aim(row), ms(row["theirs"][1])
    if wanted is not None:
        return f"{wanted.shown(row['ratio'])} {time}"
    return f"{1 / row['ratio'] if row['peer'].startswith(PLAIN) else row['ratio']:.3g} {time}"


def _memory(memory: dict[str, float]) -> str:
    cells = []
    for name, copies in memory.items():
        text = f"{copies:.2f}"
        if name == "bslfast":
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
    passes = list(dict.fromkeys(row["pass"] for row in rows))

    def ratio(row: Row) -> float | None:
        wanted = aim(row)
        return None if wanted is None else wanted.ratio

    bars(rows, passes, lambda row: f"{row['network']}\n{row['way']}{row['of']}", ratio, path)
