"""A neural spline flow of nflows: as it is, with bslfast's spline, and converted.

Usage: python benchmarks/converted.py [--installed build/peers] [--rounds 15]
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

from bslfast import patch

FEATURES, BATCH, COUPLINGS, HIDDEN = 8, 512, 5, 64


def nsf(context: int | None) -> Any:
    """The flow, with nflows' own networks."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import CompositeTransform, PiecewiseRationalQuadraticCouplingTransform

    def network(n_in: int, n_out: int) -> Any:
        return ResidualNet(n_in, n_out, HIDDEN, context_features=context, num_blocks=2)

    masks = [torch.arange(FEATURES) % 2 == index % 2 for index in range(COUPLINGS)]
    steps = [
        PiecewiseRationalQuadraticCouplingTransform(
            mask, network, num_bins=8, tails="linear", tail_bound=3.0
        )
        for mask in masks
    ]
    return Flow(CompositeTransform(steps), StandardNormal([FEATURES]))


def medians(functions: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The times of functions that take turns, in ms."""
    times: list[list[float]] = [[] for _ in functions]
    for index in range(rounds + 2):
        for own, function in zip(times, functions, strict=True):
            begin = time.perf_counter()
            function()
            if index >= 2:
                own.append(time.perf_counter() - begin)
    return [1000 * statistics.median(own) for own in times]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--installed", type=Path, default=Path("build/peers"))
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    sys.path.append(str(given.installed / "nflows"))
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians in ms")
    print("| flow | pass | nflows | `using` | converted |\n|---|---|---|---|---|")
    for context in (None, 4):
        torch.manual_seed(0)
        flow, x = nsf(context), torch.randn(BATCH, FEATURES)
        c = None if context is None else torch.randn(BATCH, context)
        fast: Any = patch.convert(flow)
        torch.testing.assert_close(fast.log_prob(x, c), flow.log_prob(x, c), rtol=1e-3, atol=1e-3)

        def log_prob(model: Any, swap: bool, c: Any = c, x: Any = x) -> None:
            with torch.no_grad(), patch.using("nflows") if swap else nullcontext():
                model.log_prob(x, c)

        def step(model: Any, swap: bool, c: Any = c, x: Any = x) -> None:
            model.zero_grad()
            with patch.using("nflows") if swap else nullcontext():
                (-model.log_prob(x, c).mean()).backward()

        for name, function in (("`log_prob`", log_prob), ("training step", step)):
            ways = [(flow, False), (flow, True), (fast, False)]
            found = medians(
                [lambda w=way, f=function: f(*w) for way in ways],  # type: ignore[misc]
                given.rounds,
            )
            shown = " | ".join(f"{ms:.1f}" for ms in found)
            print(f"| {'conditional' if context else 'plain'} | {name} | {shown} |")


if __name__ == "__main__":
    main()
