"""Philox4x32-10 against published vectors, and the vectorised generator against the scalar one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bslfast._native import _cpu
from bslfast.reference.noise import philox4x32

# The known answers for philox4x32-10 that come with Random123: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (  # digits of pi
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(value: int) -> int:
    """The int64 with these bits."""
    return value - 2**64 if value >= 2**63 else value


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], result: tuple[int, ...]
) -> None:
    assert _cpu.philox4x32(*counter, *key) == result
    index, stream = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    seed = key[0] | key[1] << 32
    words = philox4x32(seed, stream, torch.tensor([signed(index)]))
    assert tuple(words[0].tolist()) == result


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN[::2])
@pytest.mark.parametrize("level", _cpu.isa_levels())
def test_known_answers_of_every_isa(
    level: str, counter: tuple[int, ...], key: tuple[int, ...], result: tuple[int, ...]
) -> None:
    index, stream = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    out = np.empty(4, np.uint32)
    before = _cpu.isa()
    _cpu.set_isa(level)
    try:
        # A logical element has 64 bits, and a counter four of them: the index must stay below 2^62.
        first = (index * 4) % 2**64
        _cpu.noise_bits(out.ctypes.data, 4, key[0] | key[1] << 32, stream, first)
    finally:
        _cpu.set_isa(before)
    if index < 2**62:
        assert tuple(out.tolist()) == result
    else:
        words = _cpu.philox4x32(
            *((first // 4) >> s & 0xFFFFFFFF for s in (0, 32)), *counter[2:], *key
        )
        assert tuple(out.tolist()) == words


def test_seeds_modulo_two_to_the_64() -> None:
    counters = torch.arange(8)
    expected = philox4x32(2**64 - 5, 3, counters)
    assert torch.equal(philox4x32(-5, 3, counters), expected)
    assert torch.equal(philox4x32(torch.tensor(-5), 3, counters), expected)
    assert torch.equal(philox4x32(torch.tensor([-5]), 3, counters), expected)
