"""Checks of arguments. Every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64)
REDUCTIONS = ("none", "row", "sum")
_INT64 = 2**63


def tensor(name: str, value: Any) -> Tensor:
    """A floating-point tensor of a dtype that the kernels know."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {layout}")
    if value.dtype in DTYPES:
        return value
    if value.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(
        value.device.type
    ):
        # Divergences and log-determinants are sums of many terms: autocast runs them in float32.
        return value.float()
    raise TypeError(f"{name}: expected dtype float32 or float64, got {_dtype(value)}")


def alike(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Same dtype and device: nothing is promoted or moved in silence."""
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name}: expected the dtype of {other_name}, {_dtype(other)}, got {_dtype(value)}"
        )
    if value.device != other.device:
        raise ValueError(
            f"{name}: expected the device of {other_name}, {other.device}, got {value.device}"
        )


def choice(name: str, value: Any, options: Sequence[str | None]) -> str:
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def reduction(value: Any, shape: Sequence[int]) -> str:
    choice("reduction", value, REDUCTIONS)
    if value == "row" and len(shape) == 0:
        raise ValueError(
            "reduction: 'row' sums over the last dimension, but the arguments have none"
        )
    return str(value)


def broadcast(**tensors: Tensor | None) -> torch.Size:
    """The shape that the named tensors broadcast to."""
    return broadcast_shapes({k: t.shape for k, t in tensors.items() if t is not None})


def broadcast_shapes(shapes: dict[str, torch.Size], what: str = "a shape") -> torch.Size:
    """The shape that these shapes of named tensors broadcast to; ``what`` says what they are."""
    shape: torch.Size | None = None
    for name, value in shapes.items():
        if value == shape:
            continue
        if shape is None:
            shape = value
            continue
        try:
            shape = torch.broadcast_shapes(shape, value)
        except RuntimeError:
            names = list(shapes)
            before = " and ".join(names[: names.index(name)])
            raise ValueError(
                f"{name}: expected {what} that broadcasts with that of {before}, {list(shape)}, "
                f"got {list(value)}"
            ) from None
    assert shape is not None
    return shape


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {value!r}")
    return value


def number(name: str, value: Any, *, positive: bool = False) -> float:
    # float first: checks against abstract classes are slow.
    if type(value) is not float and (
        isinstance(value, bool) or not isinstance(value, numbers.Real)
    ):
        raise TypeError(f"{name}: expected a number or a torch.Tensor, got {type(value).__name__}")
    result = float(value)
    # Comparisons rather than math.isfinite, which torch.compile does not trace.
    low = 0.0 if positive else -math.inf
    if not low < result < math.inf:
        wanted = "a finite number > 0" if positive else "a finite number"
        raise ValueError(f"{name}: expected {wanted}, got {value}")
    return result


def sample_shape(value: Any) -> tuple[int, ...]:
    if type(value) is tuple and not value:
        return ()
    if type(value) is int:
        value = (value,)
    if not isinstance(value, (tuple, list)) or not all(
        isinstance(n, (int, torch.SymInt)) and not isinstance(n, bool) for n in value
    ):
        raise TypeError(f"sample_shape: expected a tuple of ints, got {value!r}")
    for n in value:
        if n < 0:
            raise ValueError(f"sample_shape: expected sizes >= 0, got {tuple(value)}")
    return tuple(value)


def seed(value: Any, device: torch.device) -> Tensor:
    """The seed as a 0-dimensional int64 tensor; None draws one from torch's generator."""
    if value is None:
        return torch.randint(0, _INT64 - 1, (), dtype=torch.int64, device=device)
    if isinstance(value, Tensor):
        if value.dtype != torch.int64 or value.numel() != 1:
            raise TypeError(
                "seed: expected None, an int, or an int64 tensor of one element, got a tensor of "
                f"dtype {_dtype(value)} and shape {list(value.shape)}"
            )
        if value.device != device:
            raise ValueError(f"seed: expected a tensor on {device}, got one on {value.device}")
        return value.reshape(())
    wrapped = _integer("seed", "None, an int or an int64 tensor", value)
    if not -_INT64 <= wrapped < 2 * _INT64:
        raise ValueError(f"seed: expected a 64-bit integer, got {value}")
    if wrapped >= _INT64:
        wrapped -= 2 * _INT64
    return torch.tensor(wrapped, dtype=torch.int64, device=device)


def stream(value: Any) -> int:
    result = _integer("stream", "an int", value)
    if not 0 <= result < _INT64:
        raise ValueError(f"stream: expected an integer in [0, 2**63), got {value}")
    return result


def _integer(name: str, wanted: str, value: Any) -> int:
    if type(value) is int:  # first, as checks against abstract classes are slow
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    return int(value)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
