"""What tests of the command line share."""

from __future__ import annotations

import pytest

#: What a job leaves beside its pictures.
FILES = {"metrics.json", "report.html", "checkpoint.safetensors"}


def one_line(capsys: pytest.CaptureFixture) -> str:
    """Return the one line of bslfast on standard error; a failed command must print no other."""
    errors = [line for line in capsys.readouterr().err.splitlines() if "bslfast:" in line]
    assert len(errors) == 1
    return errors[0]
