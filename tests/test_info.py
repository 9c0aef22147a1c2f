"""The description of an installation, and its environment variables."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bslfast
from bslfast import _progress, info
from bslfast._native import _cpu

ONE_IMAGE = torch.zeros(1, 4, 4)


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


def test_import_gives_every_module(tmp_path: Path) -> None:
    """`import bslfast` is enough for what README names, and for every module of the package."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    named = re.findall(r"\bbslfast(?:\.[A-Za-z]\w*)+", readme)
    own = [m.name for m in pkgutil.iter_modules(bslfast.__path__) if not m.name.startswith("_")]
    names = {*named, *(f"bslfast.{name}" for name in own)}
    assert {"bslfast.training", "bslfast.data", "bslfast.metrics", "bslfast.plots"} <= names
    names |= {"bslfast.plots.densities", "bslfast.plots.images"}
    code = f"""
import sys, bslfast
late = sorted(m for m in sys.modules if m.startswith(("bslfast.training", "bslfast.plots")))
assert not late, late
for name in {sorted(names)!r}:
    parent, last = name.rsplit(".", 1)
    assert last in dir(eval(parent)), name
    eval(name)
from bslfast import training
from bslfast import *
assert training is bslfast.training is sys.modules["bslfast.training"]
try:
    bslfast.trainings
except AttributeError as error:
    print(error)
"""
    done = run(code, tmp_path)
    assert done.stdout.strip() == "module 'bslfast' has no attribute 'trainings'", done.stderr


@pytest.mark.parametrize(
    ("modules", "install", "call"),
    [
        (["matplotlib.figure"], "matplotlib", lambda: bslfast.plots.images.grid(ONE_IMAGE, "")),
        (["sklearn", "sklearn.datasets"], "scikit-learn", lambda: bslfast.data.load_wine()),
        (["sklearn", "sklearn.datasets"], "scikit-learn", lambda: bslfast.data.load_digits()),
        (["sklearn", "sklearn.datasets"], "scikit-learn", lambda: bslfast.data.load_moons()),
        (["tqdm"], "tqdm", lambda: _progress.bar(1, True, desc="", unit="")),
    ],
)
def test_missing_packages_are_named(
    modules: list[str],
    install: str,
    call: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts that need no optional packages work; the others say which package to install."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"to be installed.*: pip install {install}$"):
        call()


def test_stub_names_what_the_extension_has() -> None:
    stub = Path(inspect.getfile(bslfast)).parent / "_native" / "_cpu.pyi"
    declared = set(re.findall(r"^(?:def |class )?(\w+)[(:]", stub.read_text(), re.MULTILINE))
    assert declared == {name for name in dir(_cpu) if not name.startswith("__")}
    assert (stub.parent.parent / "py.typed").exists()
