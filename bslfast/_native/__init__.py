"""The only place that touches ``data_ptr()``: allocates outputs and calls compiled kernels.

Arguments arrive checked (see :mod:`bslfast.functional`); tensors are dense and of one dtype.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from bslfast._native import _cpu as _cpu


def _torch_threads() -> str:
    """Hand torch's own parallel loop to the kernels, and say where their threads come from."""
    library = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        if not (library / name).exists():
            continue
        try:
            # Already loaded by torch: this only looks up the symbol (torch >= 2.10).
            function = ctypes.CDLL(str(library / name)).torch_parallel_for
        except (OSError, AttributeError) as error:
            return f"one thread: {error}"
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        _cpu.set_torch_parallel_for(address)
        return "torch's own pool (torch.set_num_threads)"
    return "one thread: libtorch_cpu was not found beside torch"


def _choose_isa() -> None:
    wanted = os.environ.get("BSLFAST_ISA")
    if wanted:
        try:
            _cpu.set_isa(wanted)
        except ValueError as error:
            raise ImportError(f"BSLFAST_ISA={wanted}: {error}") from None


THREADS = _torch_threads()
_choose_isa()
