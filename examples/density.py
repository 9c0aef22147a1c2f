"""The density of points on two half circles, by a neural spline flow.

python examples/density.py           # writes runs/examples/density.png
"""

from __future__ import annotations

from pathlib import Path

import torch

import bslfast
from bslfast.data import Standardizer, load_moons, split
from bslfast.plots.densities import density
from bslfast.training import fit


def main(epochs: int = 15, out: Path = Path("runs/examples")) -> float:
    """Return the mean log density of held-out points, in nats."""
    torch.manual_seed(0)
    moons = load_moons(4000)
    parts = split(moons.x, moons.y, seed=0)
    scaler = Standardizer.fit(parts.train.x)
    train, validation, test = (scaler.transform(part.x) for part in parts)
    flow = bslfast.flows.NSF(2, hidden=(32, 32))
    fit(
        flow,
        (train,),
        (validation,),
        objective=bslfast.flows.Flow.log_prob,
        epochs=epochs,
        batch_size=256,
        lr=5e-3,
        schedule="cosine",
    )
    with torch.no_grad():
        log_p = flow.log_prob(test).mean().item()
        figure = density(test, flow.sample(2000, seed=1), flow.log_prob)
    print(f"log p(x) = {log_p:.3f} nats per held-out point (standardised)")
    out.mkdir(parents=True, exist_ok=True)
    bslfast.plots.save(figure, out / "density.png")
    return log_p


if __name__ == "__main__":
    main()
