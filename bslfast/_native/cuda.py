"""The module with the CUDA kernels, which is loaded with the first CUDA tensor."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from importlib import util
from typing import Any

import torch
from torch import Tensor


@functools.cache
def is_built() -> bool:
    """Whether this installation has the module."""
    return util.find_spec("bslfast._native._cuda") is not None


@functools.cache
def module() -> Any:
    """The module: csrc/bindings/module_cuda.cpp."""
    return importlib.import_module("bslfast._native._cuda")


@functools.cache
def pointwise_ops() -> dict[str, Any]:
    """The table of csrc/bindings/register_pointwise.cpp."""
    ops: dict[str, Any] = module().pointwise_ops()
    return ops


def holds(tensor: Tensor) -> bool:
    """Whether a tensor's op is one for these kernels. Tests let them run on the CPU's tensors."""
    return tensor.is_cuda


def launching(tensor: Tensor) -> contextlib.AbstractContextManager[int]:
    """The device of ``tensor`` as the current one, and the handle of its current stream."""
    index = tensor.get_device()
    if index == torch.cuda.current_device():  # as nearly always; to change devices takes longer
        return contextlib.nullcontext(torch.cuda.current_stream(index).cuda_stream)
    return _launching_elsewhere(index)


@contextlib.contextmanager
def _launching_elsewhere(index: int) -> Iterator[int]:
    with torch.cuda.device(index):
        yield torch.cuda.current_stream(index).cuda_stream
