"""What an installation says of itself, and how it can be told otherwise."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bslfast
from bslfast import info
from bslfast._native import _cpu


def run(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=os.environ | environment,
        check=False,
    )


def test_describe() -> None:
    facts = info.describe()
    assert facts["bslfast"] == bslfast.__version__
    assert facts["torch"] == torch.__version__
    assert facts["isa"] in facts["isa_levels"]
    assert facts["isa_levels"][0] == "baseline"
    assert facts["threads_from"].startswith("torch's own pool")
    assert "cuda" in facts


@pytest.mark.parametrize("level", _cpu.isa_levels())
def test_isa_override(level: str, tmp_path: Path) -> None:
    done = run("import bslfast.info as i; print(i.describe()['isa'])", tmp_path, BSLFAST_ISA=level)
    assert done.stdout.strip() == level, done.stderr


def test_unknown_isa(tmp_path: Path) -> None:
    done = run("import bslfast", tmp_path, BSLFAST_ISA="avx9000")
    assert done.returncode == 1
    assert "ImportError: BSLFAST_ISA=avx9000: isa: expected one of baseline" in done.stderr


def test_import_leaves_heavy_modules_alone(tmp_path: Path) -> None:
    code = (
        "import torch, sys; before = set(sys.modules); import bslfast;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(sorted(new & {'sklearn', 'matplotlib', 'scipy', 'pooch', 'tqdm', 'pandas'}))"
    )
    done = run(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stderr


def test_stub_names_what_the_extension_has() -> None:
    stub = Path(inspect.getfile(bslfast)).parent / "_native" / "_cpu.pyi"
    declared = set(re.findall(r"^(?:def )?(\w+)[(:]", stub.read_text(), re.MULTILINE))
    assert declared == {name for name in dir(_cpu) if not name.startswith("__")}
    assert (stub.parent.parent / "py.typed").exists()
