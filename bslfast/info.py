"""The parts of this installation, and its choices on this machine."""

from __future__ import annotations

import platform
from importlib import util
from typing import Any

import torch

import bslfast
from bslfast import _native
from bslfast._native import _cpu


def describe() -> dict[str, Any]:
    """Return versions, instruction sets, threads and the state of the CUDA module.

    >>> import bslfast.info
    >>> bslfast.info.describe()["isa"] in bslfast.info.describe()["isa_levels"]
    True
    """
    return {
        "bslfast": bslfast.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "isa_levels": _cpu.isa_levels(),
        "isa": _cpu.isa(),
        "threads": torch.get_num_threads() if _cpu.has_torch_threads() else 1,
        "threads_from": _native.THREADS,
        "cuda": _cuda(),
    }


def _cuda() -> str:
    if util.find_spec("bslfast._native._cuda") is None:
        return "not built (for that, build with BSLFAST_CUDA=ON, or where there is a GPU, and nvcc)"
    if not torch.cuda.is_available():
        return "built; torch sees no CUDA device"
    return f"built; {torch.cuda.get_device_name()}"
