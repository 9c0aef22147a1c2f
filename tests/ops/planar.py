"""Record of planar maps, and what it shares with that of radial ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant


def record(
    name: str,
    rows: Sequence[str],
    numbers: Sequence[str],
    wide: Sequence[str],
    extremes: list[Extreme],
) -> OpRecord:
    """The record of a map that takes rows, ``z`` first, and numbers for each row.

    ``wide``: the tensors that have one more dimension in one of the layouts.
    """

    def variant(layout: str) -> Variant:
        def inputs(draw: Draw, shape: Shape) -> Call:
            *leading, width = shape
            tensors = {}
            for key in (*rows, *numbers):
                first: Shape = tuple(leading)
                if layout == "shared" and key != "z":
                    first = ()
                elif layout == "wide" and key in wide:
                    first = (2, *leading)
                elif layout == "column" and key in ("z", "raw_alpha") and leading:
                    first = (*leading[:-1], 1)
                # Products of rows and planes are of order 1, whatever the width.
                std = 1 / math.sqrt(max(width, 1)) if key == "w" else 1.0
                tensors[key] = draw.normal((*first, width) if key in rows else first, std=std)
            return Call(tensors)

        return Variant(inputs, min_dims=1)

    ones = torch.ones
    row, number = rows[1], numbers[0]
    errors = [
        Error(
            "width",
            {row: ones(2, 4)},
            ValueError,
            rf"^{row}: expected a last dimension of 3, as z has, got 4",
        ),
        Error(
            "row_number",
            {row: torch.tensor(1.0)},
            ValueError,
            rf"^{row}: expected shape \[..., D\], got \[\]",
        ),
        Error("z_number", {"z": torch.tensor(1.0)}, ValueError, r"^z: expected shape \[..., D\]"),
        Error(
            "rows",
            {number: ones(3)},
            ValueError,
            rf"^{number}: expected leading dimensions .*\[2\], got \[3\]",
        ),
    ]
    return OpRecord(
        name,
        {layout: variant(layout) for layout in ("full", "shared", "wide", "column")},
        # Dot products of up to 4097 numbers; float32's are added up in float64.
        tolerance={torch.float32: Tolerance(8, 16), torch.float64: Tolerance(64, 128)},
        extremes=extremes,
        errors=errors,
    )


# Products of u and w, and what goes into tanh.
_PAIRS = [(p, a) for p in (-80.0, -20.0, 0.0, 20.0, 100.0) for a in (0.0, 1e-8, 9.1, -40.0)]

RECORDS = [
    record(
        "planar",
        ("z", "u", "w"),
        ("b",),
        ("u", "b"),
        [
            Extreme(
                "tails",
                {
                    "z": [[a, 0.5] for _, a in _PAIRS],
                    "u": [[p, 0.25] for p, _ in _PAIRS],
                    "w": [[1.0, 0.0]] * len(_PAIRS),
                    "b": [0.0] * len(_PAIRS),
                },
            ),
            Extreme(
                "no_plane",
                {"z": [[1.0, 2.0]], "u": [[0.5, -1.0]], "w": [[0.0, 0.0]], "b": [0.25]},
            ),
        ],
    )
]
