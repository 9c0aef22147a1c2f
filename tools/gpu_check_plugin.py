"""The pytest plugin of tools/gpu_check.py, which keeps results if a process is lost.

Each test is noted before it begins and when it has ended. The text of a failure is written at once.
A process that has lost its device ends, because every further test would fail. The next process
goes on behind the test that the lost one was at. Environment:

    GPU_CHECK_SHARD     "1/4": only the second of every four tests
    GPU_CHECK_RECORD    file to note tests in, a line of JSON each
    GPU_CHECK_FAILURES  file to which the texts of failures are added
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_check import read

#: Exit status of a process that has lost the device: another process must go on.
LOST = 9
_RECORD = Path(os.environ["GPU_CHECK_RECORD"])
_FAILURES = Path(os.environ["GPU_CHECK_FAILURES"])
_LONGEST = 6000  # characters of a failure's text


def _add(file: Path, text: str) -> None:
    with file.open("a") as out:
        out.write(text)


def _note(test: str, outcome: str, seconds: float = 0.0) -> None:
    note = {"test": test, "outcome": outcome, "seconds": round(seconds, 3)}
    _add(_RECORD, json.dumps(note) + "\n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    index, count = map(int, os.environ["GPU_CHECK_SHARD"].split("/"))
    begun = read(_RECORD)
    # Tests that fill the memory run one after the other, in one process.
    large = [item for item in items if "than_an_int_counts" in item.nodeid]
    others = [item for item in items if item not in large]
    own = others[index::count] + (large if index == 0 else [])
    items[:] = [item for item in own if item.nodeid not in begun]


def pytest_runtest_logstart(nodeid: str) -> None:
    _note(nodeid, "begun")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        text = report.longreprtext[-_LONGEST:]
        _add(_FAILURES, f"==== {report.nodeid} ({report.when})\n{text}\n\n")
    if report.failed or report.skipped or report.when == "call":
        _note(report.nodeid, report.outcome, report.duration)
    if report.failed and (error := _device_error()):
        pytest.exit(f"{report.nodeid} has cost the device: {error}", returncode=LOST)


def _device_error() -> str:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""
