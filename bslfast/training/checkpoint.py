"""One safetensors file that holds everything a run needs to go on.

Tensors: the weights, Adam's moments, the best weights so far and the states of the random number
generators. Scalars: JSON in the file's metadata. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from bslfast._files import atomic

_FORMAT = "bslfast checkpoint 1"


class Checkpoint(NamedTuple):
    """The content of a checkpoint file.

    ``setting`` is what must be the same for a run to go on from it, ``state`` what the run has
    reached; both are JSON objects.
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
        FileNotFoundError: if there is none.
        ValueError: naming the file and what is wrong with it: truncated, not safetensors, or not
            written by :func:`save`.
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
    try:
        return Checkpoint(tensors, json.loads(metadata["setting"]), json.loads(metadata["state"]))
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"checkpoint {path}: its metadata cannot be read: {error!r}") from None


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
    """Return ``value`` in words; of two long texts or tables only the first line that differs."""
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
