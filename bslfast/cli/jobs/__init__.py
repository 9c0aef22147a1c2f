"""One module per job of ``bslfast train``; they share :mod:`bslfast.cli.runner`."""

from __future__ import annotations

import argparse

from bslfast.cli.jobs import (
    classification,
    density,
    digits,
    mnist,
    mnist_classes,
    mnist_labels,
    moons,
    regression,
    vae,
    wine,
    wine_quality,
)


def add_parsers(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of every job to ``names``; each sets ``run`` to a function of its options."""
    built_in = (wine, wine_quality, digits, moons, mnist, mnist_classes, mnist_labels)
    for job in (*built_in, regression, classification, density, vae):
        job.add_parser(names)
