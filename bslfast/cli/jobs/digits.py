"""``bslfast train digits``: a variational autoencoder of scikit-learn's 8x8 digits."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bslfast.cli import images

if TYPE_CHECKING:
    from bslfast.data import Split


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser(
        "digits", help="a variational autoencoder of 1797 images of digits (no network)"
    )
    images.add_options(
        parser, epochs=150, batch_size=64, lr=0.001, patience=None, samples=500, network="mlp",
        hidden=(256, 128), threads=1,
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    return images.run(
        options,
        images.Job(
            "digits", load, marginal_rows=10**6, train_reference=True, timed_runs=10, timed_steps=60
        ),
    )


def load(options: argparse.Namespace) -> tuple[Split, str]:
    """Return the images, split at random, and the name of their source."""
    from bslfast.data import load_digits, split

    data = load_digits()
    return split(data.x, data.y, seed=options.seed), data.source
