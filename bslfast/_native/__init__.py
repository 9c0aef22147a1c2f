"""The kernels of ops: allocates outputs, and calls compiled code with tensors or their addresses.

Programs call theirs in :mod:`bslfast.programs`.

Arguments arrive checked (see :mod:`bslfast.functional`); tensors are dense and of one dtype.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

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


_P = ParamSpec("_P")
_R = TypeVar("_R")


def serial_after_fork(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """In a forked process, keep torch's own operations around the kernels to one thread as well.

    Kernels see to it themselves. But a sum of gradients, say, is torch's, whose pool does not
    survive a fork: it would wait for ever.
    """

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if _cpu.has_torch_threads():
            return function(*args, **kwargs)
        n = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(n)

    return wrapper


THREADS = _torch_threads()
#: Whether kernels read what they must know of a tensor themselves, see register_tensors.cpp.
READS_TENSORS = _cpu.set_tensor_types(torch.Tensor, torch.nn.Parameter)
_choose_isa()
