"""Bayesian regression of a curve, with intervals that widen where there were no data.

python examples/regression.py        # writes runs/examples/regression.png
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

import bslfast
from bslfast.training import fit


def main(epochs: int = 400, out: Path = Path("runs/examples")) -> float:
    """Return the share of held-out points inside their 95 % interval."""
    torch.manual_seed(0)
    x = torch.cat([torch.linspace(-2, -0.5, 150), torch.linspace(0.5, 2, 150)]).unsqueeze(1)
    y = torch.sin(2 * x) + 0.1 * torch.randn_like(x)
    order = torch.randperm(len(x))
    train, test = order[:240], order[240:]
    model = bslfast.bnn.BayesianMLP(1, (50,), 1)
    fit(model, (x[train], y[train]), epochs=epochs, batch_size=240, lr=0.01)

    prediction = bslfast.predict(model, x[test], n_samples=200)
    covered = bslfast.metrics.coverage(prediction, y[test], 0.95)
    print(f"{covered:.1%} of the held-out points lie inside their 95 % interval")

    grid = torch.linspace(-3, 3, 200).unsqueeze(1)
    prediction = bslfast.predict(model, grid, n_samples=200)
    lower, upper = (end.flatten() for end in prediction.interval(0.95))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(grid.flatten(), lower, upper, alpha=0.25, lw=0, label="95 % interval")
    axes.plot(grid, prediction.mean, label="predictive mean")
    axes.plot(x[train], y[train], ".", ms=3, color="#666666", label="training data")
    axes.set(xlabel="x", ylabel="y", title="Bayesian regression", ylim=(-3, 3))
    axes.legend(frameon=False)
    out.mkdir(parents=True, exist_ok=True)
    bslfast.plots.save(figure, out / "regression.png")
    return covered


if __name__ == "__main__":
    main()
