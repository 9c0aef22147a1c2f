"""What tests of training by programs share."""

from __future__ import annotations

from typing import Any

import pytest

from bslfast import programs


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of steps of all calls of programs that train."""
    seen: list[int] = []
    original = programs.train

    def train(*args: Any) -> Any:
        losses, divergences = original(*args)
        seen.append(len(losses))
        return losses, divergences

    monkeypatch.setattr(programs, "train", train)
    return seen
