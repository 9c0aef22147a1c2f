"""``bslfast train mnist``: a convolutional variational autoencoder of MNIST, thresholded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import torch

from bslfast.cli import images, runner
from bslfast.cli.jobs import vae_lecture

if TYPE_CHECKING:
    from bslfast.data import Dataset, Examples, Split

_EPOCHS = 10


def add_parser(names: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this job to the command line."""
    parser = names.add_parser("mnist", help="a convolutional variational autoencoder of MNIST")
    parser.add_argument(
        "--lecture", nargs="?", choices=vae_lecture.LIKELIHOODS, const=vae_lecture.LIKELIHOODS[0],
        help="train the autoencoder of a lecture instead, with settings of its own (but for "
        "--epochs, --limit, --samples, --seed, --device, --threads, --out and --resume), by this "
        "likelihood; normal is the lecture's squared error (%(const)s)",
    )  # fmt: skip
    images.add_options(
        parser, epochs=None, batch_size=128, lr=0.001, patience=None, samples=100, network="conv",
        hidden=(400, 400), threads=torch.get_num_threads(),
    )  # fmt: skip
    add_limit(parser)
    parser.set_defaults(run=run)


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add the option that :func:`load` takes besides the seed."""
    parser.add_argument(
        "--limit", type=runner.positive_int, metavar="ROWS",
        help="use so many of the 60000 training images only, and as many test images",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the job."""
    if options.lecture is not None:
        options.epochs = options.epochs or vae_lecture.EPOCHS
        return vae_lecture.run(options, load_all)
    options.epochs = options.epochs or _EPOCHS
    return images.run(
        options,
        images.Job(
            "mnist", load, marginal_rows=1000, train_reference=False, timed_runs=3, timed_steps=10
        ),
    )


def load(options: argparse.Namespace) -> tuple[Split, str]:
    """Return MNIST's training images, a twelfth of them for validation, and its test images."""
    from bslfast.data import Examples
    from bslfast.data import Split as Parts

    known, test, source = load_all(options)
    held_out = max(1, len(known.x) // 12)
    train = Examples(known.x[held_out:], known.y[held_out:])
    validation = Examples(known.x[:held_out], known.y[:held_out])
    return Parts(train, validation, test), source


def load_all(options: argparse.Namespace) -> tuple[Examples, Examples, str]:
    """Return MNIST's training images, its test images, and the name of their source."""
    from bslfast.data import load_mnist

    data = load_mnist("train")
    known = _shuffled(data, options)
    if len(known.x) < 2:
        raise ValueError(f"--limit: expected at least 2 images, got {len(known.x)}")
    return known, _shuffled(load_mnist("test"), options), data.source


def _shuffled(data: Dataset, options: argparse.Namespace) -> Examples:
    """The wanted number of images in random order, as files may be sorted by class."""
    from bslfast.data import Examples

    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(len(data.x), generator=generator)[: options.limit]
    return Examples(data.x[order], data.y[order])
