"""Flows of nflows: as they are, with bslfast in nflows' place, and converted.

Usage: python benchmarks/converted.py [--installed build/peers] [--rounds 15] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from beside import device

import bslfast.info
from bslfast import patch

BATCH, STEPS, HIDDEN = 512, 5, 64


def flow(kind: str, features: int) -> Any:
    """A flow with nflows' own networks: couplings of splines, or affine autoregressive."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        ReversePermutation,
    )

    def network(n_in: int, n_out: int) -> Any:
        return ResidualNet(n_in, n_out, HIDDEN, num_blocks=2)

    steps: list[Any] = []
    for index in range(STEPS):
        if kind == "MAF":
            steps.append(MaskedAffineAutoregressiveTransform(features, HIDDEN))
            steps.append(ReversePermutation(features))
            continue
        mask = torch.arange(features) % 2 == index % 2
        options: dict[str, Any] = {"num_bins": 8, "tails": "linear", "tail_bound": 3.0}
        steps.append(PiecewiseRationalQuadraticCouplingTransform(mask, network, **options))
    return Flow(CompositeTransform(steps), StandardNormal([features]))


def medians(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The times of functions that take turns, in ms.

    One thread is measured by the processor's time, which other work on the machine is not in.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in functions]
    for index in range(rounds + 2):
        for own, function in zip(times, functions, strict=True):
            begin = clock()
            function()
            if index >= 2:
                own.append(clock() - begin)
    return [1000 * statistics.median(own) for own in times]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--installed", type=Path, default=Path("build/peers"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    sys.path.append(str(given.installed / "nflows"))
    torch.set_num_threads(given.threads)
    about = bslfast.info.describe()
    print(
        f"{device()}, {about['isa']}, {given.threads} threads, load {os.getloadavg()[0]:.1f}; "
        f"{STEPS} transforms, {HIDDEN} units, {BATCH} rows; medians in ms"
    )
    print("| flow | features | pass | nflows | `using` | converted |\n|---|---|---|---|---|---|")
    for kind, features in (("NSF", 8), ("NSF", 43), ("MAF", 8), ("MAF", 43)):
        torch.manual_seed(0)
        model, x = flow(kind, features), torch.randn(BATCH, features)
        fast: Any = patch.convert(model)
        torch.testing.assert_close(fast.log_prob(x), model.log_prob(x), rtol=1e-3, atol=1e-3)

        def sample(model: Any, swap: bool) -> None:
            with torch.no_grad(), patch.using("nflows") if swap else nullcontext():
                model.sample(BATCH)

        def step(model: Any, swap: bool, x: Any = x) -> None:
            model.zero_grad()
            with patch.using("nflows") if swap else nullcontext():
                (-model.log_prob(x).mean()).backward()

        for name, function in (("training step", step), ("sample", sample)):
            ways = [(model, False), (model, True), (fast, False)]
            found = medians(
                [lambda w=way, f=function: f(*w) for way in ways],  # type: ignore[misc]
                given.rounds,
            )
            shown = " | ".join(f"{ms:.3g}" for ms in found)
            print(f"| {kind} | {features} | {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
