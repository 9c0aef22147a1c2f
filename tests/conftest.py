"""What every test relies on: a seeded generator, and a header that says what is being tested."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import torch


def pytest_report_header() -> list[str]:
    """Versions, instruction sets and threads: what a failure elsewhere must be compared with."""
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
    """The same random numbers whatever ran before, alone or with all other tests."""
    torch.manual_seed(0)
