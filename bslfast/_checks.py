"""Checks of arguments.

Each raises a TypeError or ValueError whose text names the argument, what was expected and what
came. Most look only at dtype, shape and Python type, which costs no synchronisation with an
accelerator; :func:`finite` reads a tensor's values. Checks in every call of an op come first. They
are written for speed, and so that torch.compile can trace them.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
REDUCTIONS = ("none", "row", "sum")
_INT64 = 2**63


def operand(name: str, value: Any) -> Tensor:
    """Return ``value`` if it is a floating-point tensor of a dtype that the kernels know."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {layout}")
    dtype = value.dtype
    if dtype == torch.float32 or dtype == torch.float64:
        return value
    if dtype not in DTYPES:
        raise TypeError(
            f"{name}: expected dtype float32, float64, bfloat16 or float16, got {_dtype(value)}"
        )
    # Autocast runs these ops in float32: divergences and log-determinants are sums of many terms.
    return value.float() if torch.is_autocast_enabled(value.device.type) else value


def alike(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Require the same dtype and device: nothing is promoted or moved in silence."""
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name}: expected the dtype of {other_name}, {_dtype(other)}, got {_dtype(value)}"
        )
    if value.device != other.device:
        raise ValueError(
            f"{name}: expected the device of {other_name}, {other.device}, got {value.device}"
        )


def reduction(value: Any, shape: Sequence[int]) -> str:
    choice("reduction", value, REDUCTIONS)
    if value == "row" and len(shape) == 0:
        raise ValueError(
            "reduction: 'row' sums over the last dimension, but the arguments have none"
        )
    return str(value)


def floating_dtype(name: str, value: Any) -> torch.dtype:
    """Return ``value`` if it is a dtype that the kernels know."""
    if not isinstance(value, torch.dtype) or value not in DTYPES:
        got = str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else repr(value)
        raise TypeError(f"{name}: expected torch.float32, float64, bfloat16 or float16, got {got}")
    return value


def broadcast(**tensors: Tensor | None) -> torch.Size:
    """Return the shape that the named tensors broadcast to."""
    return broadcast_shapes({k: t.shape for k, t in tensors.items() if t is not None})


def broadcast_shapes(shapes: dict[str, torch.Size], what: str = "a shape") -> torch.Size:
    """Return what the shapes of named tensors broadcast to; ``what`` describes them in errors."""
    shape: torch.Size | None = None
    for name, value in shapes.items():
        if value == shape:
            continue
        if shape is None or shape == value[len(value) - len(shape) :]:
            shape = value
            continue
        if value == shape[len(shape) - len(value) :]:  # numbers and rows; torch's function is slow
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


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """Return ``value``, an int or a tuple of ints, as a shape."""
    if type(value) is tuple and not value:
        return ()
    if type(value) is int:
        value = (value,)
    if isinstance(value, tuple):  # the common case, without the cost of a generator
        for n in value:
            if type(n) is not int or not 0 <= n < _INT64:
                break
        else:
            return tuple(value)
    if not isinstance(value, (tuple, list)) or not all(
        isinstance(n, (int, torch.SymInt)) and not isinstance(n, bool) for n in value
    ):
        raise TypeError(f"{name}: expected a tuple of ints, got {value!r}")
    for n in value:
        if not 0 <= n < _INT64:
            raise ValueError(f"{name}: expected sizes >= 0, got {tuple(value)}")
    return tuple(value)


def sample_shape(value: Any) -> tuple[int, ...]:
    """Return a distribution's ``sample_shape``; as in torch, it may not be a number."""
    if not isinstance(value, (tuple, list)):
        shape = f", such as ({value},)" if isinstance(value, int) else ""
        raise TypeError(f"sample_shape: expected a shape{shape}, got {describe(value)}")
    return sizes("sample_shape", tuple(value))


def widths(name: str, value: Any, *, at_least: int = 0) -> tuple[int, ...]:
    """Return widths of layers, or an example's shape: ``at_least`` or more integers from 1 on."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of widths, got {describe(value)}")
    if len(value) < at_least:
        raise ValueError(f"{name}: expected at least {at_least} sizes, got {tuple(value)}")
    return tuple(integer(name, n) for n in value)


def seed(value: Any, device: torch.device) -> Tensor:
    """Return the seed as a 0-dimensional int64 tensor; None draws it from torch's generator."""
    if value is None:
        return torch.randint(_INT64 - 1, (), device=device)
    if isinstance(value, Tensor) and not value.is_nested:
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
    # Filled on the device: torch.tensor() would copy, and wait for the copy.
    return torch.full((), wrapped, dtype=torch.int64, device=device)


def seeds(count: int) -> list[int]:
    """What ``count`` calls of :func:`seed` with None would return on the CPU."""
    drawn: list[int] = torch.randint(_INT64 - 1, (count,)).tolist()
    return drawn


def generator_seed(value: Any) -> int:
    """Return ``value`` if torch's generators take it as a seed."""
    result = integer("seed", value, 0)
    if result >= 2 * _INT64:
        raise ValueError(f"seed: expected an integer below 2^64, got {value}")
    return result


def stream(value: Any) -> int:
    result = _integer("stream", "an int", value)
    if not 0 <= result < _INT64:
        raise ValueError(f"stream: expected an integer in [0, 2**63), got {value}")
    return result


def _integer(name: str, wanted: str, value: Any) -> int:
    if type(value) is int:  # the fast check first: those against abstract classes are slow
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected {wanted}, got {value!r}")
    return int(value)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def describe(value: Any) -> str:
    """Return ``value`` in words: its type, and for a tensor its dtype and shape."""
    if isinstance(value, Tensor):
        dtype = _dtype(value)
        if value.is_nested:  # nested tensors have no shape
            return f"a nested tensor of dtype {dtype}"
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
    above: float = -math.inf,
    minimum: float = -math.inf,
    below: float = math.inf,
    dtype: torch.dtype | None = None,
) -> float:
    """Return ``value`` as a float if it is a finite number inside the given bounds.

    With ``dtype``, the number must also fit that dtype.
    """
    # The check for float comes first: those against abstract classes are slow.
    if type(value) is not float and (
        isinstance(value, bool) or not isinstance(value, numbers.Real)
    ):
        raise TypeError(
            f"{name}: expected {_numbers(above, minimum, below)}, got {describe(value)}"
        )
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    # Comparisons rather than math.isfinite, which torch.compile does not trace.
    if not (above < result < below and minimum <= result and -math.inf < result):
        raise ValueError(f"{name}: expected {_numbers(above, minimum, below)}, got {value!r}")
    if dtype is not None and dtype.is_floating_point and abs(result) > torch.finfo(dtype).max:
        raise ValueError(f"{name}: expected a number that {dtype} holds, got {value!r}")
    return result


def fraction(name: str, value: Any) -> float:
    """Return ``value`` if it is a number from 0 to 1, both included."""
    result = number(name, value, minimum=0.0)
    if result > 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value}")
    return result


def _numbers(above: float, minimum: float, below: float) -> str:
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("above", above), ("at least", minimum), ("below", below))
        if math.isfinite(bound)
    ]
    return "a finite number" + (" " + " and ".join(bounds) if bounds else "")


def shown(value: float, *bounds: float) -> str:
    """Return ``value`` in the fewest digits, at least 6, that tell it from each of ``bounds``."""
    for digits in range(6, 17):
        text = f"{value:.{digits}g}"
        near = float(text)
        if all(
            (near < bound) == (value < bound)
            and (near > bound) == (value > bound)
            and (value == bound or text != f"{bound:g}")
            for bound in bounds
        ):
            return text
    return repr(value)


def finite(name: str, value: Tensor, wanted: str = "finite values") -> Tensor:
    """Return ``value`` if it holds neither NaN nor infinity. This reads its values."""
    value = value.detach()
    if value.numel() == 0 or not (value.is_floating_point() or value.is_complex()):
        return value
    parts = torch.view_as_real(value) if value.is_complex() else value
    # One pass without a temporary tensor: the extremes of a tensor with NaN are NaN.
    if all(math.isfinite(extreme.item()) for extreme in parts.aminmax()):
        return value
    bad = ~value.isfinite()
    kind = "NaN" if bool(value.isnan().any()) else "infinity"
    first = tuple(bad.nonzero()[0].tolist())
    raise ValueError(
        f"{name}: expected {wanted}, got {kind}: {int(bad.sum())} of {value.numel()} values are "
        f"not finite, the first at index {first}"
    )


def choice(name: str, value: Any, choices: Sequence[str | None]) -> str:
    """Return ``value`` if it is one of ``choices``."""
    # The type comes first: comparing with an array gives an array, which has no truth value.
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name}: expected one of {_quoted(choices)}, got {describe(value)}")
    if value in choices:
        return value  # type: ignore[return-value]
    raise ValueError(f"{name}: expected one of {_quoted(choices)}, got {value!r}")


def _quoted(choices: Sequence[str | None]) -> str:
    return ", ".join(map(repr, choices))


def any_device(name: str, value: Any) -> torch.device:
    """Return ``value`` as a device that torch knows, "meta" included, be it there or not."""
    try:
        return torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"{name}: expected a name such as 'cpu' or 'cuda', got {describe(value)}"
        ) from None


def device(name: str, value: Any) -> torch.device:
    """Return ``value`` as a CPU or CUDA device that this torch can use."""
    found = any_device(name, value)
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"{name}: expected a cpu or cuda device, got {str(found)!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"{name}: expected a device that this torch ({torch.__version__}) can use, got "
            f"{str(found)!r} with {torch.cuda.device_count()} CUDA devices to be seen"
        )
    return found


def factory(device: Any, dtype: Any) -> dict[str, Any]:
    """Return both by their names, as torch takes them, if it makes parameters of them."""
    if dtype is not None:
        floating_dtype("dtype", dtype)
    if device is not None:
        any_device("device", device)
    return {"device": device, "dtype": dtype}


def class_indices(name: str, value: Any, classes: int, batch: int | None = None) -> Tensor:
    """Return ``value`` if it is an int64 tensor [batch] of class indices in [0, classes).

    The range is checked only on the CPU: on an accelerator the check would wait for the device.
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
