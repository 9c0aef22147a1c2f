"""Noise alone: what the sampling ops draw inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._native import noise as native
from bslfast.functional._op import Op, common
from bslfast.reference import noise as reference

_CPU = torch.device("cpu")


def standard_normal(
    shape: Sequence[int],
    *,
    seed: int | Tensor | None = None,
    stream: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normal numbers, a function of (seed, stream, element index) alone.

    What :func:`normal_rsample` draws, for noise that is wanted by itself: several times as fast as
    ``torch.randn``, and the same for any number of threads.

    Args:
        shape: of the result.
        seed: an int, an int64 tensor of one element on ``device``, or None to draw one from torch's
            generator.
        stream: number of an independent noise sequence under the same seed, >= 0; see
            :func:`normal_rsample` about calls that share seed and stream.
        dtype: floating point; torch's default if None. 16-bit numbers are rounded float32 ones.
        device: of the result; that of a seed that is a tensor, else the CPU if None.

    Returns:
        A tensor of the shape, without a gradient.

    Raises:
        TypeError, ValueError: a shape that is none, a dtype that is not floating point, a seed or
            stream out of range.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011,
    doi:10.1145/2063384.2063405); Box and Muller, "A note on the generation of random normal
    deviates" (1958, doi:10.1214/aoms/1177706645).

    >>> import bslfast.functional as BF
    >>> z = BF.standard_normal((1000, 100), seed=0)
    >>> bool(z.mean().abs() < 0.02), bool((z.std() - 1).abs() < 0.02)
    (True, True)
    """
    return _draw("normal", shape, seed, stream, dtype, device)


def standard_uniform(
    shape: Sequence[int],
    *,
    seed: int | Tensor | None = None,
    stream: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Uniform numbers in the open interval (0, 1), a function of (seed, stream, element index).

    (k + 1/2) / 2^23 in float32, / 2^52 in float64: symmetric around 1/2, never 0 or 1 (but rounded
    to it in 16 bits).

    Args, Returns, Raises: as :func:`standard_normal`.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011,
    doi:10.1145/2063384.2063405).

    >>> import bslfast.functional as BF
    >>> u = BF.standard_uniform((1000,), seed=0)
    >>> bool((u > 0).all()), bool((u < 1).all())
    (True, True)
    """
    return _draw("uniform", shape, seed, stream, dtype, device)


def _draw(
    kind: str,
    shape: Sequence[int],
    seed: int | Tensor | None,
    stream: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    shape = _checks.sizes("shape", shape)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or dtype not in _checks.DTYPES:
        raise TypeError(f"dtype: expected a floating-point torch.dtype, got {dtype!r}")
    if device is None and isinstance(seed, Tensor):
        device = seed.device
    try:
        place = _CPU if device is None else torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise TypeError(
            f"device: expected a torch.device or its name, got {_checks.describe(device)}"
        ) from None
    drawn_from, stream = _checks.seed(seed, place), _checks.stream(stream)
    if common((drawn_from,)):  # nothing is differentiable
        return native.forward(drawn_from, shape, stream, dtype, kind)
    noise: Tensor = _noise(drawn_from, shape, stream, dtype, kind)
    return noise


def _reference(
    seed: Tensor, shape: Sequence[int], stream: int, dtype: torch.dtype, kind: str
) -> Tensor:
    made = reference.normal if kind == "normal" else reference.uniform
    return made(shape, seed, stream, dtype, seed.device)


_noise = Op(
    "noise(Tensor seed, SymInt[] shape, int stream, ScalarType dtype, str kind) -> Tensor",
    forward=native.forward,
    backward=lambda *_: (),
    fake=native.allocate,
    reference=_reference,
    has_cuda=True,
)
