"""The common part of all tests: a seeded generator, and a header that names versions."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

# A thread that waits sleeps. By default it spins for milliseconds, which takes the core from the
# other process that runs tests. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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


def pytest_collection_finish() -> None:
    """Take what lives to the end from the garbage collector.

    torch.compile calls it often, and each time it would go through all that makes up the tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, so that a test has the same random numbers alone or with all other tests."""
    torch.manual_seed(0)


@pytest.fixture
def run_program(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[ModuleType, Mapping[str, object]], None]:
    """Run a program's main() with options; the number of threads stays as it was."""

    def run(program: ModuleType, options: Mapping[str, object]) -> None:
        given = [str(each) for option in options.items() for each in option]
        monkeypatch.setattr(sys, "argv", [program.__name__, *given])
        threads = torch.get_num_threads()
        try:
            program.main()
        finally:
            torch.set_num_threads(threads)

    return run
