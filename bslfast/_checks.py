"""Argument checks shared by the Python layers.

Each raises a TypeError or ValueError whose text names the argument, what was expected and what
came. They look at dtype, shape and Python type only, never at the values of a tensor, so they
cost no device synchronisation.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def describe(value: Any) -> str:
    """Return what came, in words: the type, and for a tensor its dtype and shape."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a tensor of shape {tuple(value.shape)} and dtype {dtype}"
    if isinstance(value, bool | int | float | str | None):
        return f"{value!r} ({type(value).__name__})"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def tensor(name: str, value: Any, what: str = "a tensor") -> Tensor:
    """Return ``value`` if it is a tensor, else raise TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected {what}, got {describe(value)}")
    return value


def floating(name: str, value: Any, ndim: int | None = None, shape: str = "") -> Tensor:
    """Return ``value`` if it is a floating-point tensor with ``ndim`` dimensions.

    ``shape`` is the expected shape in words, such as ``"[batch, features]"``.
    """
    what = "a floating-point tensor" + (f" of shape {shape}" if shape else "")
    result = tensor(name, value, what)
    if not result.is_floating_point():
        raise TypeError(f"{name}: expected {what}, got {describe(value)}")
    if ndim is not None and result.ndim != ndim:
        raise ValueError(f"{name}: expected {what}, got {describe(value)}")
    return result


def integer(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number (no bool) of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected an integer of at least {minimum}, got {describe(value)}")
    result = int(value)
    if result < minimum:
        raise ValueError(f"{name}: expected an integer of at least {minimum}, got {value}")
    return result


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
) -> float:
    """Return ``value`` as a float if it is a finite number inside the given bounds."""
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("at least", minimum), ("below", below))
        if bound is not None
    ]
    what = "a finite number" + (" " + " and ".join(bounds) if bounds else "")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected {what}, got {describe(value)}")
    result = float(value)
    inside = (
        math.isfinite(result)
        and (above is None or result > above)
        and (minimum is None or result >= minimum)
        and (below is None or result < below)
    )
    if not inside:
        raise ValueError(f"{name}: expected {what}, got {value!r}")
    return result


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of the strings in ``choices``."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {', '.join(choices)}, got {describe(value)}")
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def device(name: str, value: Any) -> torch.device:
    """Return ``value`` as a CPU or CUDA device that this torch can use."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"{name}: expected a name such as 'cpu' or 'cuda', got {describe(value)}"
        ) from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"{name}: expected a cpu or cuda device, got {str(found)!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name}: expected a device that this torch ({torch.__version__}) can use, got "
            f"{str(found)!r} with {torch.cuda.device_count()} CUDA devices to be seen"
        )
    return found


def class_indices(name: str, value: Any, classes: int, batch: int | None = None) -> Tensor:
    """Return ``value`` if it is an int64 tensor [batch] of class indices in [0, classes).

    The range is read on the CPU only: on an accelerator that would wait for the device.
    """
    what = f"an int64 tensor of shape [{'batch' if batch is None else batch}]"
    labels = tensor(name, value, what)
    if labels.dtype != torch.int64:
        raise TypeError(f"{name}: expected {what} with class indices, got {describe(value)}")
    if labels.ndim != 1 or (batch is not None and labels.shape[0] != batch):
        raise ValueError(f"{name}: expected {what}, got {describe(value)}")
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        low, high = (int(v) for v in labels.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(
                f"{name}: expected class indices from 0 to {classes - 1}, got {low} to {high}"
            )
    return labels
