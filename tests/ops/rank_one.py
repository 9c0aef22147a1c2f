"""Records of planar and radial maps."""

from __future__ import annotations

import math

import torch

from ops.record import Call, Draw, Error, Extreme, OpRecord, Shape, Tolerance, Variant

INF, NAN = math.inf, math.nan
# The tensors that have one number for each row; the others are rows.
NUMBERS = {"planar": ("b",), "radial": ("raw_alpha", "raw_beta")}
ROWS = {"planar": ("z", "u", "w"), "radial": ("z", "z0")}


def _variant(name: str, layout: str) -> Variant:
    def inputs(draw: Draw, shape: Shape) -> Call:
        *leading, width = shape
        tensors = {}
        for key in (*ROWS[name], *NUMBERS[name]):
            rows: Shape = tuple(leading)
            if layout == "shared" and key != "z":
                rows = ()
            elif layout == "wide" and key in ("u", "z0", "b", "raw_beta"):
                rows = (2, *leading)
            elif layout == "column" and key in ("z", "raw_alpha") and leading:
                rows = (*leading[:-1], 1)
            # Products of rows and planes are of order 1, whatever the width.
            std = 1 / math.sqrt(max(width, 1)) if key == "w" else 1.0
            tensors[key] = draw.normal((*rows, width) if key in ROWS[name] else rows, std=std)
        return Call(tensors)

    return Variant(inputs, min_dims=1)


def _extremes(name: str) -> list[Extreme]:
    if name == "planar":
        # Products of u and w, and what goes into tanh.
        pairs = [(p, a) for p in (-80.0, -20.0, 0.0, 20.0, 100.0) for a in (0.0, 1e-8, 9.1, -40.0)]
        rows = {
            "z": [[a, 0.5] for _, a in pairs],
            "u": [[p, 0.25] for p, _ in pairs],
            "w": [[1.0, 0.0]] * len(pairs),
            "b": [0.0] * len(pairs),
        }
        flat = {"z": [[1.0, 2.0]], "u": [[0.5, -1.0]], "w": [[0.0, 0.0]], "b": [0.25]}
        return [Extreme("tails", rows), Extreme("no_plane", flat)]
    points = [
        (a, b, z) for a in (-30.0, 0.0, 30.0) for b in (-30.0, 0.0, 30.0) for z in (1e-6, 1.0, 1e6)
    ]
    rows = {
        "z": [[z, -0.5 * z] for _, _, z in points],
        "z0": [[0.0, 0.0]] * len(points),
        "raw_alpha": [a for a, _, _ in points],
        "raw_beta": [b for _, b, _ in points],
    }
    centre = {"z": [[1.0, 2.0]], "z0": [[1.0, 2.0]], "raw_alpha": [0.5], "raw_beta": [-1.0]}
    return [Extreme("tails", rows), Extreme("centre", centre)]


def _errors(name: str) -> list[Error]:
    ones = torch.ones
    row, number = ROWS[name][1], NUMBERS[name][0]
    return [
        Error(
            "width",
            {row: ones(2, 4)},
            ValueError,
            rf"^{row}: expected a last dimension of 3, as z has, got shape \[2, 4\]",
        ),
        Error("row_number", {row: torch.tensor(1.0)}, ValueError, rf"^{row}: expected a last"),
        Error("z_number", {"z": torch.tensor(1.0)}, ValueError, r"^z: expected shape \[..., D\]"),
        Error(
            "rows",
            {number: ones(3)},
            ValueError,
            rf"^{number}: expected leading dimensions .*\[2\], got \[3\]",
        ),
    ]


RECORDS = [
    OpRecord(
        name,
        {layout: _variant(name, layout) for layout in ("full", "shared", "wide", "column")},
        # Dot products of up to 4097 numbers; float32's are added up in float64.
        tolerance={torch.float32: Tolerance(8, 16), torch.float64: Tolerance(64, 128)},
        extremes=_extremes(name),
        errors=_errors(name),
    )
    for name in ROWS
]
