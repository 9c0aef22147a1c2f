"""Drawing cases of all kinds, running them, and making those that fail simpler."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from fuzz import arguments, calls, files, modules
from fuzz.known import KNOWN
from fuzz.records import BY_NAME

Case = Any  # calls.Plan, arguments.Wrong, modules.Module or files.File
#: Kinds of cases: the function that draws one, and the names that it is drawn for.
DRAWN: dict[str, tuple[Callable[[str, Random], Case], list[str]]] = {
    "calls": (calls.draw, list(BY_NAME)),
    "arguments": (arguments.draw, list(BY_NAME)),
    "modules": (modules.draw, list(modules.KINDS)),
    "files": (files.draw, list(files.KINDS)),
}


@dataclass(frozen=True)
class Failure:
    case: Case
    error: str

    def __str__(self) -> str:
        return (
            f'{self.case!r}\n    {self.error}\n    again: cd tests && python -c "import math; '
            f'from fuzz import arguments, calls, files, modules; {self.case!r}.check()"'
        )


def attempt(case: Case) -> bool | str:
    """Whether a case was taken or refused, or what is wrong with it."""
    try:
        return bool(case.check())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def outcome(case: Case) -> bool | Failure:
    """The outcome of :func:`attempt`; an unknown failure is first made as simple as it can be."""
    error = attempt(case)
    if isinstance(error, bool) or any(known.covers(case) for known in KNOWN):
        return error is True
    kind, deadline = _kind(error), time.monotonic() + 20
    simpler = True
    while simpler and time.monotonic() < deadline:
        simpler = False
        for other in case.simpler():
            found = attempt(other)
            if isinstance(found, str) and _kind(found) == kind:
                case, error, simpler = other, found, True
                break
    return Failure(case, error)


def _kind(error: str) -> str:
    return error.split("[")[0][:40]


def forever(seed: int | str) -> Iterator[Case]:
    """Cases of all kinds by turns."""
    rng = Random(seed)
    while True:
        for draw, names in DRAWN.values():
            for name in rng.sample(names, min(len(names), 5)):
                yield draw(name, rng)
