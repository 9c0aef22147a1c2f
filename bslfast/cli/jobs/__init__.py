"""One module per job of ``bslfast train``; they share :mod:`bslfast.cli.runner`."""

from __future__ import annotations

import argparse

from bslfast.cli.jobs import (
    density,
    digits,
    mnist,
    mnist_classes,
    mnist_labels,
    moons,
    wine,
    wine_quality,
)


def add_parsers(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of every job to ``names``; each sets ``run`` to a function of its options."""
    for job in (wine, wine_quality, digits, moons, mnist, mnist_classes, mnist_labels, density):
        job.add_parser(names)
