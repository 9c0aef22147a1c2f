"""Damaged files: each is read as what it says, or refused by an error that names the file."""

from __future__ import annotations

import functools
import gzip
import json
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

from bslfast.cli import summary
from bslfast.data.files import read_csv
from bslfast.data.images import read_idx
from bslfast.likelihoods import Normal
from bslfast.training import fit

_MOST_SECONDS = 5.0
_MOST_BYTES = 200 * 2**20
_NUMBERS = (0, 1, 2, 7, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -1)


def _train(path: Path, epochs: int, resume: bool) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x = torch.arange(24.0).reshape(8, 3).cos()
    fit(
        *(model, (x, x[:, :1]), (x, x[:, :1])),
        epochs=epochs,
        batch_size=4,
        likelihood=Normal(1),
        checkpoint=path,
        resume=resume,
    )
    return model


def _resume(path: Path) -> None:
    model = _train(path, 3, resume=True)
    state = model.state_dict().values()
    assert all(bool(t.isfinite().all()) for t in state), "weights that are not finite"


@functools.cache
def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        _train(path, 2, resume=False)
        return path.read_bytes()


def _idx() -> bytes:
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + bytes(range(24))


_CSV = b'a;"b";c\n1;2.5;3\n4;-5e-3;6\n\n"7";8;9\n'
_JSON = {
    "job": "wine",
    "test": {"accuracy": 0.97},
    "training": {"seconds": 3.2},
    "reference": {
        "seconds": 4.0,
        "ratio": 1.25,
        "milliseconds_per_step": {"bslfast": 1.0, "plain torch": 1.5},
    },
}


def _summary(path: Path) -> None:
    summary.table(path.parent.parent)


#: Kinds of files: the whole file, its name, and the function that reads it.
KINDS: dict[str, tuple[Callable[[], bytes], str, Callable[[Path], Any]]] = {
    "checkpoint": (_checkpoint, "checkpoint.safetensors", _resume),
    "idx": (_idx, "images", lambda path: read_idx(path, 3)),
    "idx.gz": (lambda: gzip.compress(_idx(), mtime=0), "images.gz", lambda p: read_idx(p, 3)),
    "csv": (lambda: _CSV, "t.csv", lambda path: read_csv(path, ["c", "a"], delimiter=";")),
    "json": (lambda: json.dumps(_JSON).encode(), "metrics.json", _summary),
}


# --- what happens to the bytes -------------------------------------------------------------------


def _flip(content: bytes, rng: Random) -> bytes:
    """One to eight bits; half of the time near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 64)
        if end:
            changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _extend(content: bytes, rng: Random) -> bytes:
    return content + rng.randbytes(rng.randint(1, 100))


def _splice(content: bytes, rng: Random) -> bytes:
    """Copy a piece of the file to another place, over the bytes there or between them."""
    i, j, k = (rng.randrange(len(content) + 1) for _ in range(3))
    piece = content[min(i, j) : max(i, j)][:200]
    return content[:k] + piece + content[k + rng.choice([0, len(piece)]) :]


def _word(content: bytes, rng: Random) -> bytes:
    """Replace four or eight bytes by a number of either byte order, as sizes are stored."""
    form = rng.choice([">I", "<I", "<Q", ">Q"])
    value = rng.choice(_NUMBERS) % 2 ** (8 * struct.calcsize(form))
    word = struct.pack(form, value)
    k = rng.randrange(0, min(len(content), 32) + 1, 4)
    return content[:k] + word + content[k + len(word) :]


def _text(content: bytes, rng: Random) -> bytes:
    """Put text in the place of a field or a number."""
    k = rng.randrange(len(content) + 1)
    word = rng.choice(
        [
            *(
                b"nan",
                b"inf",
                b"1e999",
                b"1_000",
                b'"',
                b"\x00",
                b"\xff",
                b"\r",
                b"\n\n",
                b"9" * 400,
            ),
            *(b"{", b"}", b"[" * 5000, b"null", b"true", b"-", b";" * 50, b",", b"\xef\xbb\xbf"),
        ]
    )
    return content[:k] + word + content[k + rng.choice([0, len(word)]) :]


def _bomb(content: bytes, rng: Random) -> bytes:
    """A gzip file of few bytes that unpack to many."""
    return gzip.compress(_idx() + bytes(2**28), 1, mtime=0)


def _tensors(content: bytes, rng: Random) -> bytes:
    """A whole safetensors file in which a tensor is changed or missing."""
    from safetensors.torch import load, save

    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    tensors = load(content)
    for name in rng.sample(sorted(tensors), rng.choice([1, 1, 1, 2, len(tensors)])):
        value = tensors.pop(name)
        kind = rng.randrange(8)
        if kind == 0:
            continue
        if kind == 1:
            name = rng.choice([f"{name}x", name[:-1], f"adam.exp_avg.{name}", ""])
        elif kind == 2:
            value = value.double() if value.is_floating_point() else value.float()
        elif kind == 3:
            value = torch.zeros(rng.choice([(), (0,), (2,), (*value.shape, 1), value.shape[1:]]))
        elif kind == 4:
            value = value.reshape(-1)[: max(1, value.numel() // 2)]
        elif kind == 5:
            value = torch.full_like(value, rng.choice(_BAD) if value.is_floating_point() else -1)
        elif kind == 6:
            value = value.to(rng.choice([torch.uint8, torch.bfloat16, torch.bool, torch.int64]))
        elif kind == 7 and value.dim():
            value = torch.cat([value, value])
        tensors[name] = value.contiguous()
    return save(tensors, metadata)


_BAD = [float("nan"), float("inf"), -float("inf"), -1.0, 1e30, 0.0]


def _leaf(value: Any, rng: Random) -> Any:
    """A JSON value in which one leaf is changed or missing."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(keys)
        changed = value.copy()
        if rng.random() < 0.2:
            del changed[key]
        else:
            changed[key] = _leaf(value[key], rng)
        return changed
    others = [None, True, 0, -1, 1.5, 10**400, "text", "", [], {}, [1], {"a": 1}, *_BAD[:3]]
    return rng.choice(others)


def _json(content: bytes, rng: Random) -> bytes:
    return json.dumps(_leaf(json.loads(content), rng)).encode()


def _metadata(content: bytes, rng: Random) -> bytes:
    """A safetensors file with other settings, another state or other sizes in its metadata."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    key = rng.choice(["setting", "state", "header"])
    if key == "header":
        header = _leaf(header, rng)
    else:
        metadata = header["__metadata__"]
        metadata[key] = json.dumps(_leaf(json.loads(metadata[key]), rng))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


_EVERY = (_flip, _truncate, _extend, _splice, _word, _text)
_DAMAGE: dict[str, tuple[Callable[[bytes, Random], bytes], ...]] = {
    "checkpoint": (*_EVERY, *(_tensors,) * 6, *(_metadata,) * 4),
    "idx": _EVERY,
    "idx.gz": _EVERY * 8 + (_bomb,),
    "csv": (*_EVERY, _text, _text),
    "json": (*_EVERY, *(_json,) * 4),
}


@dataclass(frozen=True)
class File:
    """A damaged file, a function of kind and seed."""

    kind: str
    seed: int

    def __repr__(self) -> str:
        return f"files.File({self.kind!r}, {self.seed})"

    @property
    def damage(self) -> str:
        return self._drawn()[0].__name__.strip("_")

    def _drawn(self) -> tuple[Callable[[bytes, Random], bytes], Random]:
        rng = Random(self.seed)
        return rng.choice(_DAMAGE[self.kind]), rng

    def content(self) -> bytes:
        damage, rng = self._drawn()
        return damage(KINDS[self.kind][0](), rng)

    def check(self) -> bool:
        """Return False if the file was refused."""
        _, name, read = KINDS[self.kind]
        content = self.content()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job" / name
            path.parent.mkdir()
            path.write_bytes(content)
            Path("/proc/self/clear_refs").write_text("5")  # the most, from now on
            memory, started = _memory("VmRSS"), time.perf_counter()
            refusal = None
            try:
                read(path)
            except (ValueError, FileNotFoundError) as error:
                refusal = error
            assert refusal is None or str(path) in str(refusal), f"not named: {refusal!r}"
        seconds = time.perf_counter() - started
        assert seconds < _MOST_SECONDS, f"{seconds:.1f} s"
        grown = _memory("VmHWM") - memory
        assert grown < _MOST_BYTES, f"{grown / 2**20:.0f} MiB for {len(content)} bytes"
        return refusal is None

    def simpler(self) -> Iterator[File]:
        yield from ()


def _memory(line: str) -> int:
    """This process's memory in bytes: now (VmRSS), and the most so far (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{line}:")[1].split()[0])


def draw(kind: str, rng: Random) -> File:
    return File(kind, rng.randrange(10**9))
