"""The library's random numbers in plain torch: what csrc/core/philox.h and noise.h compute.

Computed in float64 and rounded once. Works on any device that has float64, with fake tensors and
under ``torch.func.vmap``, also over the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def philox4x32(seed: int | Tensor, stream: int, counters: Tensor) -> Tensor:
    """Random words (int64, in [0, 2**32)) of shape ``[*counters.shape, 4]``: Philox4x32-10.

    ``seed`` is a Python int or an int64 tensor of one element, taken modulo 2**64, so negative ones
    are fine; ``counters`` is an int64 tensor.
    """
    if isinstance(seed, Tensor):
        seed = seed.reshape(())
    key0, key1 = seed & _MASK, (seed >> 32) & _MASK
    c0, c1 = counters & _MASK, (counters >> 32) & _MASK
    c2 = torch.full_like(counters, stream & _MASK)
    c3 = torch.full_like(counters, (stream >> 32) & _MASK)
    for _ in range(10):
        # int64 products wrap modulo 2**64; the masks undo the sign that shifts bring in.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = ((product1 >> 32) & _MASK) ^ c1 ^ key0, product1 & _MASK
        c2, c3 = ((product0 >> 32) & _MASK) ^ c3 ^ key1, product0 & _MASK
        key0, key1 = (key0 + 0x9E3779B9) & _MASK, (key1 + 0xBB67AE85) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=-1)


def normal(
    shape: Sequence[int],
    seed: int | Tensor,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """Standard normals: the logical elements ``first``, ``first + 1``, ... of a seed's stream."""
    if dtype == torch.float64:
        per_counter, bits = 2, 52
    else:
        per_counter, bits = 4, 32

    def make(words: Tensor) -> Tensor:
        numbers = _integers(words, bits)
        u = (numbers[..., 0::2].double() + 0.5) / 2**bits
        radius = torch.sqrt(-2 * torch.log(u))
        cosine, sine = _cos_sin_turns(numbers[..., 1::2], bits)
        return torch.stack([radius * cosine, radius * sine], dim=-1)

    return _elements(make, per_counter, shape, seed, stream, dtype, device, first)


def uniform(
    shape: Sequence[int],
    seed: int | Tensor,
    stream: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    *,
    first: int = 0,
) -> Tensor:
    """Uniforms in the open interval (0, 1), likewise."""
    if dtype == torch.float64:
        per_counter, bits = 2, 52
    else:
        per_counter, bits = 4, 23

    def make(words: Tensor) -> Tensor:
        numbers: Tensor = (_integers(words, bits).double() + 0.5) / 2**bits
        return numbers

    return _elements(make, per_counter, shape, seed, stream, dtype, device, first)


def _integers(words: Tensor, bits: int) -> Tensor:
    """The leading bits of each word or, beyond 32, of each two words (the low one comes first)."""
    if bits <= 32:
        return words >> (32 - bits)
    return (words[..., 1::2] << (bits - 32)) | (words[..., 0::2] >> (64 - bits))


def _cos_sin_turns(k: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``k / 2**bits`` turns, to the last digit also next to their zeros."""
    quadrant = (k + (1 << (bits - 3))) >> (bits - 2)
    angle = (k - (quadrant << (bits - 2))).double() * (2 * math.pi / 2**bits)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    odd = (quadrant & 1) == 1
    cosine, sine = torch.where(odd, sine, cosine), torch.where(odd, cosine, sine)
    cosine = torch.where(((quadrant + 1) & 2) == 2, -cosine, cosine)
    return cosine, torch.where((quadrant & 2) == 2, -sine, sine)


def _elements(
    make: Callable[[Tensor], Tensor],
    per_counter: int,
    shape: Sequence[int],
    seed: int | Tensor,
    stream: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
    first: int,
) -> Tensor:
    """Elements ``[first, first + prod(shape))`` of what ``make`` turns counters' words into."""
    if device is None and isinstance(seed, Tensor):
        device = seed.device
    numel = math.prod(shape)
    begin, end = first // per_counter, -(-(first + numel) // per_counter)
    counters = torch.arange(begin, end, dtype=torch.int64, device=device)
    skipped = first - begin * per_counter
    made = make(philox4x32(seed, stream, counters)).reshape(-1)
    wanted = made[skipped : skipped + numel].reshape(shape)
    # The 16-bit types hold what float32 arithmetic made.
    return wanted.to(dtype if dtype == torch.float64 else torch.float32).to(dtype)
