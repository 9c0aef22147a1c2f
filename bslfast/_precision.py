"""The rule for 16-bit tensors in all ops.

Ops compute in float32. Values (samples, transformed x) are rounded to the dtype of the arguments.
Logarithms (log densities, divergences, log-determinants, bounds) stay float32, because they are
sums: float16 holds none beyond 65504, and bfloat16 keeps two digits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

SIXTEEN_BITS = (torch.bfloat16, torch.float16)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def log_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of logarithms that are computed from tensors of ``dtype``."""
    return torch.float32 if dtype in SIXTEEN_BITS else dtype


def wide(value: Any) -> Any:
    """Return a 16-bit tensor in float32, and anything else as it is."""
    if isinstance(value, Tensor) and value.dtype in SIXTEEN_BITS:
        return value.float()
    return value


def in_float32(*, values: int) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let a function compute with its 16-bit tensors in float32.

    Args:
        values: number of leading results that are values; the others are logarithms.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            narrow = None
            for a in (*args, *kwargs.values()):
                if isinstance(a, Tensor) and a.dtype in SIXTEEN_BITS:
                    narrow = a.dtype
            if narrow is None:
                return function(*args, **kwargs)
            call: Any = function
            results = call(*map(wide, args), **{k: wide(a) for k, a in kwargs.items()})
            if isinstance(results, Tensor):
                return results.to(narrow) if values else results  # type: ignore[return-value]
            return tuple(  # type: ignore[return-value]
                r.to(narrow) if i < values else r for i, r in enumerate(results)
            )

        return wrapper

    return decorate
