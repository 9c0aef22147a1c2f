"""Six densities of two numbers, by a neural spline flow and by RealNVP, beside their samples.

python examples/densities_2d.py           # writes runs/examples/densities_2d.png
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import bslfast
from bslfast.flows import NSF, Flow, RealNVP
from bslfast.training import fit


def moons(n: int) -> Tensor:
    angle, second = math.pi * torch.rand(n), torch.rand(n) < 0.5
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return torch.where(second[:, None], -upper, upper) * 1.5 + 0.1 * torch.randn(n, 2)


def circles(n: int) -> Tensor:
    angle = 2 * math.pi * torch.rand(n)
    radius = torch.where(torch.rand(n) < 0.5, 1.0, 2.2) + 0.1 * torch.randn(n)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def checkerboard(n: int) -> Tensor:
    x = 4 * torch.rand(n, 2) - 2
    shift = (x[:, 0].floor() % 2) - (x[:, 1].floor() % 2)
    return torch.stack([x[:, 0], x[:, 1] + shift], 1)


def pinwheel(n: int) -> Tensor:
    radial, across = 1 + 0.3 * torch.randn(n), 0.1 * torch.randn(n)
    angle = 2 * math.pi * torch.randint(5, (n,)) / 5 + 0.5 * radial.exp()
    x = radial * angle.cos() - across * angle.sin()
    return 1.4 * torch.stack([x, radial * angle.sin() + across * angle.cos()], 1)


def spirals(n: int) -> Tensor:
    angle = 3 * math.pi * torch.rand(n).sqrt()
    arm = torch.where(torch.rand(n) < 0.5, 1.0, -1.0)[:, None]
    x = torch.stack([-angle.cos() * angle, angle.sin() * angle], 1) / 4
    return arm * x + 0.08 * torch.randn(n, 2)


def normals(n: int) -> Tensor:
    """Eight of them on a circle."""
    angle = 2 * math.pi * torch.randint(8, (n,)) / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], 1) + 0.15 * torch.randn(n, 2)


DENSITIES: dict[str, Callable[[int], Tensor]] = {
    "moons": moons,
    "circles": circles,
    "checkerboard": checkerboard,
    "pinwheel": pinwheel,
    "two spirals": spirals,
    "eight normals": normals,
}
FLOWS: dict[str, Callable[[], Flow]] = {
    "NSF": lambda: NSF(2, transforms=4, permutation="plu", bound=4.0),
    "RealNVP": lambda: RealNVP(2, transforms=12),
}


def trained(flow: Flow, draw: Callable[[int], Tensor], n: int, epochs: int) -> Flow:
    fit(
        flow,
        (draw(n),),
        (draw(n // 5),),
        objective=Flow.log_prob,
        epochs=epochs,
        batch_size=500,
        lr=3e-3,
        schedule="cosine",
        clip=5.0,
    )
    return flow


def picture(samples: dict[str, Tensor], flows: dict[str, dict[str, Flow]]) -> Figure:
    """A column of each density: samples, then the flows' densities in the same frame."""
    figure = Figure(figsize=(2.1 * len(samples), 6.6), layout="constrained")
    rows = figure.subplots(1 + len(FLOWS), len(samples), squeeze=False)
    line = torch.linspace(-3.2, 3.2, 160)
    grid = torch.cartesian_prod(line, line)
    for column, (name, points) in enumerate(samples.items()):
        x1, x2 = points[:4000].T.tolist()
        rows[0, column].hist2d(x1, x2, bins=80, range=[[-3.2, 3.2]] * 2, cmap="viridis")
        rows[0, column].set_title(name)
        for row, (kind, flow) in enumerate(flows[name].items(), 1):
            with torch.no_grad():
                heights = flow.log_prob(grid).exp().reshape(160, 160).T
            rows[row, column].imshow(
                heights.tolist(), origin="lower", extent=(-3.2, 3.2) * 2, cmap="viridis"
            )
            rows[row, 0].set_ylabel(kind)
    rows[0, 0].set_ylabel("samples")
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[], aspect="equal")
    return figure


def main(
    n: int = 20_000, epochs: int = 60, out: Path = Path("runs/examples")
) -> dict[str, dict[str, float]]:
    """Return each flow's mean negative log density of held-out points, in nats."""
    losses: dict[str, dict[str, float]] = {}
    flows: dict[str, dict[str, Flow]] = {}
    samples = {}
    for name, draw in DENSITIES.items():
        losses[name], flows[name] = {}, {}
        for kind, make in FLOWS.items():
            torch.manual_seed(0)
            samples[name] = test = draw(n)
            start = time.perf_counter()
            flow = flows[name][kind] = trained(make(), draw, n, epochs)
            seconds = time.perf_counter() - start
            with torch.no_grad():
                losses[name][kind] = -flow.log_prob(test).mean().item()
            print(f"{name}: {kind} {losses[name][kind]:.3f} nats, {seconds:.0f} s of training")
    out.mkdir(parents=True, exist_ok=True)
    bslfast.plots.save(picture(samples, flows), out / "densities_2d.png")
    return losses


if __name__ == "__main__":
    main()
