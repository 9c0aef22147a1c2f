"""The archive of sources: what is left out, and its size. `make sdist` makes and checks it."""

from __future__ import annotations

import fnmatch
import io
import re
import runpy
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = runpy.run_path(str(ROOT / "tools" / "check_sdist.py"))


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files that git tracks."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, text=True, capture_output=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


def test_the_check_leaves_out_what_the_build_does(tracked: list[str]) -> None:
    found = re.search(r"(?m)^sdist\.exclude = \[(.*)\]$", (ROOT / "pyproject.toml").read_text())
    assert found is not None
    patterns = re.findall(r'"([^"]+)"', found[1])
    for name in tracked:
        built = any(
            fnmatch.fnmatch(name.rpartition("/")[2], pattern) or name.startswith(f"{pattern}/")
            for pattern in patterns
        )
        assert CHECK["left_out"](name) == built, name


def test_the_archive_is_small_enough(tracked: list[str]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for name in tracked:
            if not CHECK["left_out"](name):
                file.add(ROOT / name, name)
                assert (ROOT / name).stat().st_size <= CHECK["LARGEST"], name
    # The rest is for work to come: not every change should meet the limit.
    assert len(content.getvalue()) < 0.8 * CHECK["LARGEST_ARCHIVE"]
