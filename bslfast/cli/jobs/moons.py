"""``bslfast train moons``: a normalizing flow of points on two half circles."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bslfast.cli import flows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("moons", help="the density of two half circles (generated)")
    flows.add_options(parser, epochs=25, batch_size=256, lr=0.005, patience=None, hidden=(32, 32))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    from bslfast.data import load_moons, split

    moons = load_moons(seed=options.seed % 2**32)
    parts = split(moons.x, moons.y, seed=options.seed)
    train, validation, test = (part.x for part in parts)
    data = flows.Data(train, validation, test, moons.feature_names, moons.source)
    return flows.run(options, "moons", data, pictures)


def pictures(trained: flows.Trained, name: str) -> dict[str, Figure]:
    """Return the pictures of a trained flow, by file name."""
    from bslfast.plots import densities

    test, seed = trained.data.test, trained.options.seed
    scaled = trained.scaler.transform(test).to(trained.options.device)
    return {
        "density": densities.density(
            test, trained.samples, trained.log_prob, f"{name}: data, samples, density"
        ),
        "steps": densities.steps(
            trained.model, scaled, f"{name}: from data to noise and back", seed=seed
        ),
    }
