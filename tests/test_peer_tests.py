"""tools/peer_tests.py: when it says that a peer's tests fail."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import peer_tests

    monkeypatch.setattr(peer_tests, "PEERS", tmp_path)
    monkeypatch.setattr(peer_tests, "tools", lambda: tmp_path)
    return peer_tests


USED = {"twins": 3, "splines": 4}


@pytest.mark.parametrize(
    ("calls", "failures", "code"),
    [
        (USED, (0, 0), 0),
        (USED, (4, 5), 0),
        (USED, (0, 1), 1),
        (USED, (1, 60), 1),
        (USED, (45, 60), 1),
        ({"twins": 0, "splines": 4}, (0, 0), 1),
        ({"twins": 3, "splines": 0}, (0, 0), 1),
        ({"twins": 3}, (0, 0), 0),
    ],
)
def test_exit_code(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    calls: dict[str, int],
    failures: tuple[int, int],
    code: int,
) -> None:
    """``failures`` of 60 runs alone and patched; in the first run each way, patched ones only."""

    def results(
        folder: Path, peer: str, patched: bool, tests: Sequence[str] = (), seeds: int = 1
    ) -> dict[str, Any]:
        failed = failures[patched] if tests else int(patched and failures[1] > 0)
        outcomes = {"failed": failed, "passed": seeds - failed}
        own = {kind: count for kind, count in outcomes.items() if count}
        return {"calls": calls if patched else {}, "tests": {"a": own, "b": {"passed": seeds}}}

    monkeypatch.setattr(tool, "results", results)
    monkeypatch.setattr(sys, "argv", ["peer_tests.py", "nflows=."])
    assert tool.main() == code


@pytest.mark.parametrize("text", ["import nothing_of_this_name", ""])
def test_what_cannot_be_collected_is_an_error(tool: ModuleType, tmp_path: Path, text: str) -> None:
    (tmp_path / "test_one.py").write_text(text)
    with pytest.raises(SystemExit, match=r"^the tests of nflows could not be run"):
        tool.results(tmp_path, "nflows", patched=False)
