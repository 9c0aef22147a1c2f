"""The common part of all tests: a seeded generator, and a header that names versions."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import torch


def pytest_report_header() -> list[str]:
    """Versions, instruction sets and threads, for comparing a failure with other machines."""
    import bslfast
    from bslfast import _native
    from bslfast._native import _cpu

    return [
        f"bslfast {bslfast.__version__} at {Path(bslfast.__file__).parent}, torch "
        f"{torch.__version__}, Python {platform.python_version()}, {platform.machine()}",
        f"instruction set {_cpu.isa()} of {', '.join(_cpu.isa_levels())} "
        f"(BSLFAST_ISA={os.environ.get('BSLFAST_ISA', '')})",
        f"threads: {torch.get_num_threads()} of {os.cpu_count()}, {_native.THREADS}",
    ]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, so that a test has the same random numbers alone or with all other tests."""
    torch.manual_seed(0)
