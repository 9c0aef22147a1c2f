"""A made-up file of wines, in the format of the real ones."""

from __future__ import annotations

from pathlib import Path

import torch

from bslfast.data import wine


def write(path: Path, rows: int = 600) -> None:
    """Write a wine quality file in which the first measurement decides the grade, and noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(rows, 11, generator=generator)
    y = (4 + 3 * x[:, 0] + 0.5 * torch.randn(rows, generator=generator)).round()
    cells = [[*map(str, row), str(int(grade))] for row, grade in zip(x.tolist(), y, strict=True)]
    lines = [";".join(f'"{name}"' for name in (*wine.QUALITY_FEATURES, "quality"))]
    lines += [";".join(row) for row in cells]
    path.write_text("\n".join(lines) + "\n")
