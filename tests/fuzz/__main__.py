"""``python -m fuzz``: random cases for a while (`make fuzz`)."""

from __future__ import annotations

import argparse
import collections
import sys
import time
import warnings
from pathlib import Path

import torch

from fuzz import run


def main() -> int:
    """Run cases until the time is up; 1 if one failed that is not known to."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", default=None, help="a number or text; by default the time")
    parser.add_argument("--last", type=Path, help="a file for the case that runs, should it crash")
    options = parser.parse_args()
    seed = options.seed or str(int(time.time()))
    print(f"seed {seed}, {options.seconds:g} s", flush=True)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # of small tensors; some cases ask for more
    counts: collections.Counter[str] = collections.Counter()
    failures = 0
    end = time.monotonic() + options.seconds
    for case in run.forever(seed):
        if options.last:
            options.last.write_text(f"{case!r}\n")
        found = run.outcome(case)
        counts[type(case).__name__] += 1
        if isinstance(found, run.Failure):
            failures += 1
            print(found, flush=True)
        if time.monotonic() > end:
            break
    print(f"{failures} failures in {dict(counts)}")
    return 1 if failures else 0


sys.exit(main())
