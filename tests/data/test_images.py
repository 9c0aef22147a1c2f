"""Images: the IDX format and what can be wrong with a file, MNIST's loader, the digits."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import torch

from bslfast import data
from bslfast.data import images


def idx(sizes: tuple[int, ...], values: bytes, magic: bytes | None = None) -> bytes:
    header = bytes([0, 0, 8, len(sizes)]) if magic is None else magic
    return header + b"".join(size.to_bytes(4, "big") for size in sizes) + values


def test_reads_both_plain_and_gzipped(tmp_path: Path) -> None:
    content = idx((2, 3, 2), bytes(range(12)))
    for name, stored in (("plain", content), ("packed", gzip.compress(content))):
        path = tmp_path / name
        path.write_bytes(stored)
        read = data.read_idx(path, 3)
        assert read.dtype == torch.uint8
        assert torch.equal(read, torch.arange(12, dtype=torch.uint8).view(2, 3, 2))
        read.add_(1)  # its own memory


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "expected the magic number 00000801 .*got an empty file"),
        (b"\0\0", "expected the magic number 00000801 .*got 0000"),
        (idx((3,), b"abc", b"\0\0\x08\x03"), "magic number 00000801 .*1 dimension.* got 00000803"),
        (idx((3,), b"abc", b"\0\0\x0d\x01"), "magic number 00000801 .* got 00000d01"),
        (b"label,pixel\n1,2\n", "magic number 00000801 .* got 6c616265"),
        (b"\0\0\x08\x01\0\0", "expected 1 sizes of 4 bytes .* got 2 bytes"),
        (idx((3,), b"ab"), "expected 3 values of sizes 3, .* got 2"),
        (idx((3,), b"abcd"), "expected 3 values of sizes 3, .* got more"),
        (gzip.compress(idx((3,), b"abc"), mtime=0)[:-9], "expected a whole gzip file"),
        (gzip.compress(idx((3,), b"abc"), mtime=0)[:12], "expected a whole gzip file"),
        (b"\x1f\x8b" + bytes(30), "expected a whole gzip file"),
        (gzip.compress(idx((3,), b"ab"), mtime=0), "expected 3 values .* got 2"),
    ],
)
def test_refuses_files(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        data.read_idx(path, 1)
    assert str(path) in str(caught.value)


def test_refuses_sizes_beyond_what_torch_counts(tmp_path: Path) -> None:
    """A file without values may still have sizes with strides above 2^63."""
    path = tmp_path / "images"
    path.write_bytes(idx((0, 2**32 - 1, 2**32 - 1), b""))
    with pytest.raises(ValueError, match="images: expected sizes that torch can count, got 0 x 42"):
        data.read_idx(path, 3)
    for ndim in (0, 256):
        with pytest.raises(ValueError, match="ndim: expected an integer"):
            data.read_idx(path, ndim)


def test_refuses_a_changed_byte(tmp_path: Path) -> None:
    """gzip's own checksum finds the change."""
    packed = bytearray(gzip.compress(idx((2000,), os.urandom(2000))))
    packed[-6] ^= 1
    path = tmp_path / "labels.gz"
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="expected a whole gzip file"):
        data.read_idx(path, 1)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an IDX file, found none"):
        data.read_idx(tmp_path / "none", 1)


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up files of 5 images in the place of MNIST's files."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    monkeypatch.setenv("BSLFAST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for stem in ("train", "t10k"):
        write(
            folder,
            stem,
            idx((5, 28, 28), bytes([0, 127, 128, 255] * 980)),
            idx((5,), b"\0\1\2\3\x09"),
        )
    return folder


def write(folder: Path, stem: str, pixels: bytes, labels: bytes) -> None:
    (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(pixels))
    (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


@pytest.mark.parametrize("part", ["train", "test"])
def test_mnist(mnist: Path, part: str) -> None:
    loaded = data.load_mnist(part)
    assert loaded.x.shape == (5, 1, 28, 28)
    assert loaded.x.dtype == torch.float32
    assert loaded.x.flatten()[:4].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert loaded.y.tolist() == [0, 1, 2, 3, 9]
    assert loaded.source.startswith(str(mnist))
    grey = data.load_mnist(part, threshold=None).x.flatten()[:4]
    torch.testing.assert_close(grey, torch.tensor([0.0, 127 / 255, 128 / 255, 1.0]))


def test_mnist_beside_other_data(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BSLFAST_DATA may also name the folder of the files itself."""
    monkeypatch.setenv("BSLFAST_DATA", str(mnist))
    assert len(data.load_mnist().x) == 5


@pytest.mark.parametrize(
    ("pixels", "labels", "match"),
    [
        (idx((5, 28, 28), bytes(3920)), idx((4,), bytes(4)), "labels.*as many .* 5, got 4"),
        (idx((5, 8, 8), bytes(320)), idx((5,), bytes(5)), "images.*28 x 28 .* got 8 x 8"),
        (idx((1, 28, 28), bytes(784)), idx((1,), b"\x0a"), "labels.*from 0 to 9, got up to 10"),
        (idx((0, 28, 28), b""), idx((0,), b""), "labels.*from 0 to 9, got none"),
        (idx((5,), bytes(5)), idx((5,), bytes(5)), "images.*magic number 00000803"),
    ],
)
def test_refuses_mnist(mnist: Path, pixels: bytes, labels: bytes, match: str) -> None:
    write(mnist, "train", pixels, labels)
    with pytest.raises(ValueError, match=match):
        data.load_mnist()


def test_refuses_options(mnist: Path) -> None:
    with pytest.raises(ValueError, match=r"^part: expected one of 'train', 'test', got"):
        data.load_mnist("validation")
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^threshold: "):
            data.load_mnist(threshold=threshold)


def test_says_where_it_looked(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the file and without a network, all three ways are named; nothing is written."""
    pooch = pytest.importorskip("pooch")

    def fail(*args: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(pooch, "retrieve", fail)
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    before = sorted(os.listdir(mnist))
    with pytest.raises(FileNotFoundError, match=r"t10k-labels.*no network.*BSLFAST_DATA"):
        data.load_mnist("test")
    assert sorted(os.listdir(mnist)) == before


def test_download_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksums are those of the published files, and belong to the address in use."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("BSLFAST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def retrieve(url: str, known_hash: str, name: str, folder: Path) -> str:
        asked.append((url, known_hash))
        content = idx((1, 28, 28), bytes(784)) if "images" in name else idx((1,), b"\0")
        path = tmp_path / name
        path.write_bytes(gzip.compress(content))
        return str(path)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    data.load_mnist("train")
    data.load_mnist("test")
    assert [url.rsplit("/", 1)[1] for url, _ in asked] == list(images._MNIST_SHA256)
    assert all(
        known == f"sha256:{images._MNIST_SHA256[url.rsplit('/', 1)[1]]}" for url, known in asked
    )


def test_digits() -> None:
    pytest.importorskip("sklearn")
    digits = data.load_digits()
    assert digits.x.shape == (1797, 1, 8, 8)
    assert digits.x.min() == 0
    assert digits.x.max() == 1
    assert digits.y.bincount().min() > 170
