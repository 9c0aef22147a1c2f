"""tools/gpu_check.py loses no test's result, even if a test ends its process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).parents[1] / "tools"

SUITE = """
import os, sys, time, types
import pytest

@pytest.mark.parametrize("n", range(6))
def test_passes(n):
    pass

def test_fails():
    assert 1 == 2, "one is not two"

def test_ends_the_process():
    os._exit(77)

def test_hangs():
    time.sleep(600)

def test_loses_the_device():
    def synchronize():
        raise RuntimeError("an illegal memory access")
    cuda = types.SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize)
    sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
    assert False

def test_comes_last():
    assert "torch" not in sys.modules
"""


@pytest.fixture
def gpu_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import gpu_check

    monkeypatch.setattr(gpu_check, "WORK", tmp_path / "work")
    gpu_check.WORK.mkdir()
    (tmp_path / "out").mkdir()
    return gpu_check


@pytest.mark.parametrize("shards", [1, 2])
def test_every_test_is_accounted_for(
    shards: int, gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "STALLED", 8.0)
    suite, out = tmp_path / "test_suite.py", tmp_path / "out"
    suite.write_text(SUITE)
    check = gpu_check.Check(out, 400.0)
    gpu_check.run_tests(check, [str(suite)], shards)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["steps"]["tests"]["outcome"] == "failed"
    assert summary["steps"]["tests"]["counts"] == {"passed": 7, "failed": 2, "never ended": 2}
    assert {name.split("::")[1] for name in summary["failed tests"]} == {
        *("test_fails", "test_ends_the_process", "test_hangs", "test_loses_the_device"),
    }
    assert "one is not two" in (out / "tests.txt").read_text()


def test_what_cannot_run_ends(gpu_check: ModuleType, tmp_path: Path) -> None:
    """A process that cannot run is not begun again and again."""
    suite, out = tmp_path / "test_suite.py", tmp_path / "out"
    suite.write_text("import this_is_not_there\n")
    check = gpu_check.Check(out, 400.0)
    gpu_check.run_tests(check, [str(suite)], 1)
    found = json.loads((out / "summary.json").read_text())
    assert found["steps"]["tests"]["outcome"] == "failed"
    assert any("this_is_not_there" in line for line in found["tails"]["tests 0"])


def test_time_limits(gpu_check: ModuleType, tmp_path: Path) -> None:
    check = gpu_check.Check(tmp_path / "out", 400.0)
    begin, log = time.monotonic(), tmp_path / "log"
    command = [sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(600)"]
    assert check.run(command, log, 1.5) is None
    assert time.monotonic() - begin < 60
    assert log.read_text().startswith("begun")
    assert check.run([sys.executable, "-c", "raise SystemExit(3)"], log, 60.0) == 3
