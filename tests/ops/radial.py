"""Record of radial maps."""

from __future__ import annotations

from ops.planar import record
from ops.record import Extreme

_POINTS = [
    (a, b, z) for a in (-30.0, 0.0, 30.0) for b in (-30.0, 0.0, 30.0) for z in (1e-6, 1.0, 1e6)
]

RECORDS = [
    record(
        "radial",
        ("z", "z0"),
        ("raw_alpha", "raw_beta"),
        ("z0", "raw_beta"),
        [
            Extreme(
                "tails",
                {
                    "z": [[z, -0.5 * z] for _, _, z in _POINTS],
                    "z0": [[0.0, 0.0]] * len(_POINTS),
                    "raw_alpha": [a for a, _, _ in _POINTS],
                    "raw_beta": [b for _, b, _ in _POINTS],
                },
            ),
            Extreme(
                "centre",
                {"z": [[1.0, 2.0]], "z0": [[1.0, 2.0]], "raw_alpha": [0.5], "raw_beta": [-1.0]},
            ),
        ],
    )
]
