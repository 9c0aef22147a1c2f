"""One safetensors file that holds everything a run needs to go on.

Its tensors are the weights, the optimiser's state, the best weights so far and the states of the
random number generators. Its scalars are JSON in the file's metadata. The file holds no code, and
nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._files import atomic

_FORMAT = "bslfast checkpoint 1"


class Checkpoint(NamedTuple):
    """The content of a checkpoint file.

    ``setting`` must be the same for a run to resume from the file. ``state`` is the run's progress.
    Both are JSON objects.
    """

    tensors: dict[str, Tensor]
    setting: dict[str, Any]
    state: dict[str, Any]


def save(path: str | os.PathLike[str], content: Checkpoint) -> None:
    """Write ``content`` to ``path`` atomically: a kill at any time leaves the last file whole."""
    from safetensors.torch import save_file

    # Clones, because safetensors refuses tensors that share memory (tied weights).
    tensors = {name: value.detach().clone() for name, value in content.tensors.items()}
    metadata = {
        "format": _FORMAT,
        "setting": json.dumps(content.setting),
        "state": json.dumps(content.state),
    }
    with atomic(path) as temporary:
        save_file(
            {name: value.contiguous() for name, value in tensors.items()}, temporary, metadata
        )


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: naming the file and its fault: truncated, not safetensors, or not written by
            :func:`save`.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: expected a file to resume from, found none")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"checkpoint {path}: expected a whole safetensors file, got: {error}"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"checkpoint {path}: expected the format {_FORMAT!r} in its metadata, "
            f"got {metadata.get('format')!r}"
        )
    return Checkpoint(tensors, _object(path, metadata, "setting"), _object(path, metadata, "state"))


def _object(path: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[name])
    # RecursionError comes from deep nesting; ValueError also from an integer of too many digits.
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"checkpoint {path}, {name}: expected a JSON object in the metadata, got {error!r}"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f"checkpoint {path}, {name}: expected a JSON object in the metadata, got "
            f"{_checks.describe(value)}"
        )
    return value


def check_tensors(
    path: str | os.PathLike[str], there: Mapping[str, Tensor], here: Mapping[str, Tensor]
) -> None:
    """Raise ValueError, naming file and entry, unless names, shapes and dtypes are those ``here``.

    A tensor must be finite if the one ``here`` is. A mask may hold infinity.
    """
    missing = [name for name in here if name not in there]
    extra = [name for name in there if name not in here]
    if missing or extra:
        name = (missing or extra)[0]
        wanted, got = ("a tensor", "none") if missing else ("no such tensor", "one")
        raise ValueError(f"checkpoint {path}, {name}: expected {wanted}, got {got}")
    for name, value in here.items():
        other = there[name]
        if other.shape != value.shape or other.dtype != value.dtype:
            raise ValueError(
                f"checkpoint {path}, {name}: expected {_checks.describe(value)}, "
                f"got {_checks.describe(other)}"
            )
        if bool(value.isfinite().all()):
            _checks.finite(f"checkpoint {path}, {name}", other)


def check_range(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], name: str, most: float
) -> None:
    """Raise ValueError, naming file and entry, unless all numbers are from 0 to ``most``."""
    value = tensors[name]
    if value.numel() == 0 or value.is_complex():
        return
    low, high = (extreme.item() for extreme in value.aminmax())
    if not (low >= 0 and high <= most):
        raise ValueError(
            f"checkpoint {path}, {name}: expected numbers from 0 to {most}, got "
            f"{_checks.shown(low, 0)} to {_checks.shown(high, most)}"
        )


def check_generator(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], name: str, device: torch.device
) -> None:
    """Raise ValueError, naming file and entry, unless torch can draw from this generator."""
    generator = torch.Generator(device)
    try:
        generator.set_state(tensors[name])
    except (TypeError, RuntimeError) as error:
        got = str(error).splitlines()[0]
        raise ValueError(
            f"checkpoint {path}, {name}: expected the state of a generator, got: {got}"
        ) from None
    # A state may also hold one unused normal number of either dtype: normals are made in pairs.
    for dtype in (torch.float32, torch.float64):
        noise = torch.randn((), dtype=dtype, device=device, generator=generator)
        _checks.finite(f"checkpoint {path}, {name}", noise, "the state of a generator")


def check_same(
    path: str | os.PathLike[str], there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    """Raise ValueError, naming the file and each difference, unless the settings agree."""
    differences = [
        f"{key} is {_short(there.get(key), here.get(key))} there "
        f"and {_short(here.get(key), there.get(key))} here"
        for key in dict.fromkeys((*here, *there))
        if there.get(key) != here.get(key)
    ]
    if differences:
        raise ValueError(f"checkpoint {path} is of another run: {'; '.join(differences)}")


def _short(value: Any, other: Any) -> str:
    """Return ``value`` in words; for texts or tables only the first line that differs."""
    if isinstance(value, dict) and isinstance(other, dict):
        changed = {key: item for key, item in value.items() if other.get(key) != item}
        first = next(iter(changed.items()), None)
        return "without the other's entries" if first is None else f"{first[0]}: {first[1]}"
    if isinstance(value, str) and isinstance(other, str):
        mine, others = value.splitlines(), other.splitlines()
        for i, line in enumerate(mine):
            if i >= len(others) or line != others[i]:
                return repr(line.strip())
        return f"{len(mine)} lines"
    return repr(value)
