"""Inference for a simulator: the posterior of its parameter given observations, by a flow.

The flow learns p(parameter | observation) from simulated pairs alone. The exact posterior of this
simulator is known, so that the two can be compared.

    python examples/posterior.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import bslfast

#: Standard deviation of the noise.
NOISE = 0.5


def simulate(parameter: Tensor) -> Tensor:
    """Draw four noisy observations of each parameter [n, 1]."""
    return parameter + NOISE * torch.randn(len(parameter), 4)


def main(steps: int = 600) -> tuple[float, float]:
    """Return the median and the spread of the learned posterior at 1, 1, 1, 1.

    The spread is half of the interval that holds 68 %; for a normal distribution it is the scale.
    """
    torch.manual_seed(0)
    flow = bslfast.flows.NSF(1, context=4, transforms=3, hidden=(32, 32))
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        parameter = torch.randn(256, 1)  # the prior N(0, 1)
        loss = -flow.log_prob(parameter, simulate(parameter)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    samples = flow.sample(10_000, torch.ones(4), seed=0)
    low, median, high = samples.quantile(torch.tensor([0.16, 0.5, 0.84])).tolist()
    precision = 1 + 4 / NOISE**2
    print(f"learned posterior: {median:.3f} +- {0.5 * (high - low):.3f}")
    print(f"exact posterior:   {4 / NOISE**2 / precision:.3f} +- {1 / math.sqrt(precision):.3f}")
    return median, 0.5 * (high - low)


if __name__ == "__main__":
    main()
