"""Write the library's random words as a stream of bytes, for a battery of tests.

dieharder's generator 200 reads them from standard input:

    python tools/random_bits.py | dieharder -a -g 200
    python tools/random_bits.py --interleave seeds | dieharder -a -g 200
"""

from __future__ import annotations

import argparse
import itertools
import sys

import torch
from torch import Tensor

from bslfast._native import _cpu

_WORDS = 1 << 20
_INTERLEAVED = 64


def words(n: int, seed: int, stream: int, first: int) -> Tensor:
    """Words [first, first + n) of a stream, as int32."""
    out = torch.empty(n, dtype=torch.int32)
    _cpu.noise_bits(out.data_ptr(), n, seed, stream, first)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--interleave",
        choices=("no", "seeds", "streams"),
        default="no",
        help="one stream after the other word of 64 consecutive seeds, or streams",
    )
    mode = parser.parse_args().interleave
    n = _WORDS // _INTERLEAVED
    try:
        for block in itertools.count():
            if mode == "no":
                made = words(_WORDS, 0, 0, block * _WORDS)
            else:
                made = torch.stack(
                    [
                        words(n, k, 0, block * n) if mode == "seeds" else words(n, 0, k, block * n)
                        for k in range(_INTERLEAVED)
                    ],
                    dim=1,
                )
            sys.stdout.buffer.write(made.numpy().tobytes())
    except BrokenPipeError:  # the battery has seen enough
        sys.stderr.close()


if __name__ == "__main__":
    main()
