"""The image data sets of the jobs, digits and MNIST, and the IDX format."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bslfast import _checks
from bslfast.data.files import find
from bslfast.data.tabular import Dataset

_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
_PIECE = 1 << 20  # bytes read at a time
_DIGITS = tuple(str(digit) for digit in range(10))


def load_digits() -> Dataset:
    """Return scikit-learn's 8x8 digits: 1797 grey images of handwritten digits.

    ``x`` is float32 [1797, 1, 8, 8] with values in [0, 1] (sixteenths), ``y`` int64 [1797]. It
    needs no network.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.

    Source: Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
    Repository (1998, doi:10.24432/C50P49), CC BY 4.0.

    Example:
        >>> data = load_digits()
        >>> tuple(data.x.shape), data.y.bincount().tolist()[:3]
        ((1797, 1, 8, 8), [178, 182, 177])
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError:
        raise ModuleNotFoundError(
            "load_digits: expected scikit-learn, which holds the data, to be installed: "
            "pip install scikit-learn"
        ) from None
    bunch = load()
    return Dataset(
        (torch.from_numpy(bunch.images).float() / 16).unsqueeze(1),
        torch.from_numpy(bunch.target).long(),
        tuple(f"pixel {i}, {j}" for i in range(8) for j in range(8)),
        _DIGITS,
        "scikit-learn's bundled digits",
    )


def load_mnist(part: str = "train", *, threshold: float | None = 0.5) -> Dataset:
    """Return one part of MNIST: images of handwritten digits.

    ``x`` is float32 [rows, 1, 28, 28] and ``y`` int64 [rows]: 60,000 rows for training, 10,000 for
    testing, in the order of the files. Shuffle them, as a copy of MNIST may be sorted by class.

    The files ``train-images-idx3-ubyte.gz`` and so on are taken from the folder that
    ``BSLFAST_DATA`` names or its subfolder ``mnist``, else from the cache folder. Otherwise they
    are downloaded and their checksums compared.

    Args:
        part: "train" or "test".
        threshold: pixels above this fraction of full ink are 1, others 0; ``None``: grey values
            in [0, 1].

    Raises:
        FileNotFoundError: if none of the three ways works; the text names them.
        ValueError: naming a file with wrong content.

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits" (1998,
    http://yann.lecun.com/exdb/mnist/).
    """
    _checks.choice("part", part, ("train", "test"))
    if threshold is not None:
        _checks.number("threshold", threshold, minimum=0.0, below=1.0)
    stem = "train" if part == "train" else "t10k"
    paths = {}
    for kind in ("images-idx3", "labels-idx1"):
        name = f"{stem}-{kind}-ubyte.gz"
        paths[kind] = find(name, _MNIST_URL + name, _MNIST_SHA256[name], "mnist")
    images = read_idx(paths["images-idx3"], 3)
    labels = read_idx(paths["labels-idx1"], 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{paths['labels-idx1']}: expected as many labels as there are images in "
            f"{paths['images-idx3']}, {len(images)}, got {len(labels)}"
        )
    if tuple(images.shape[1:]) != (28, 28):
        raise ValueError(
            f"{paths['images-idx3']}: expected images of 28 x 28 pixels, got "
            f"{images.shape[1]} x {images.shape[2]}"
        )
    if len(labels) == 0 or int(labels.max()) > 9:
        got = "none" if len(labels) == 0 else f"up to {int(labels.max())}"
        raise ValueError(f"{paths['labels-idx1']}: expected labels from 0 to 9, got {got}")
    x = images.float().div_(255)
    if threshold is not None:
        x = (x > threshold).float()
    return Dataset(
        x.unsqueeze(1),
        labels.long(),
        tuple(f"pixel {i}, {j}" for i in range(28) for j in range(28)),
        _DIGITS,
        str(paths["images-idx3"]),
    )


def read_idx(path: str | os.PathLike[str], ndim: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not, as a uint8 tensor.

    The format is two zero bytes, the type (8: unsigned bytes), the number of dimensions, each size
    as a big-endian 32-bit integer, then the values in row-major order.

    Args:
        path: the file. Its first bytes, not its name, decide whether it is gzipped.
        ndim: the number of dimensions it must have.

    Raises:
        FileNotFoundError: if ``path`` is not a file.
        ValueError: naming the file and its fault: damaged gzip, truncated, a wrong magic number,
            more or fewer values than the sizes say.
        TypeError, ValueError: if ``ndim`` is not an integer from 1 to 255.

    Source: http://yann.lecun.com/exdb/mnist/.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     read_idx(path, 1)
        tensor([7, 8, 9], dtype=torch.uint8)
    """
    if _checks.integer("ndim", ndim) > 255:
        raise ValueError(f"ndim: expected an integer from 1 to 255, got {ndim}")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an IDX file, found none")
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            sizes, content = _idx_content(path, file, ndim)
    except (EOFError, OSError, zlib.error) as error:
        if not zipped:
            raise
        raise ValueError(
            f"{path}: expected a whole gzip file, got one that is damaged or truncated: {error}"
        ) from None
    # Copied because the bytes are read-only, and torch tensors are not.
    values = torch.from_numpy(np.frombuffer(content, np.uint8).copy())
    try:
        return values.view(sizes)
    except RuntimeError:  # a size is 0, and the product of the others overflows
        raise ValueError(
            f"{path}: expected sizes that torch can count, got {' x '.join(map(str, sizes))}"
        ) from None


def _idx_content(path: Path, file: io.BufferedIOBase, ndim: int) -> tuple[list[int], bytes]:
    """Sizes and values; reading ends where the sizes say, as a small file may unpack to a lot."""
    magic = bytes([0, 0, 8, ndim])
    found = file.read(4)
    if found != magic:
        raise ValueError(
            f"{path}: expected the magic number {magic.hex()} (unsigned bytes, {ndim} "
            f"dimension{'s' * (ndim > 1)}), got {found.hex() or 'an empty file'}"
        )
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise ValueError(
            f"{path}: expected {ndim} sizes of 4 bytes after the magic number, got "
            f"{len(header)} bytes"
        )
    sizes = [int.from_bytes(header[i : i + 4], "big") for i in range(0, 4 * ndim, 4)]
    expected, got = math.prod(sizes), 0
    pieces = []
    while got <= expected and (piece := file.read(_PIECE)):
        pieces.append(piece)
        got += len(piece)
    if got != expected:
        raise ValueError(
            f"{path}: expected {expected} values of sizes {' x '.join(map(str, sizes))}, as its "
            f"header says, got {'more' if got > expected else got}"
        )
    return sizes, b"".join(pieces)
