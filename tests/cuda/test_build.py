"""The CUDA module, built as a wheel builds it, and the compiler's report of its kernels.

The tests need nvcc, but no GPU. One build, which takes minutes, serves all of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pybind11
import pytest

import bslfast
from bslfast._native import _cpu

ROOT = Path(__file__).parents[2]
#: Bound of a thread's registers: two blocks of 256 threads have room in a multiprocessor's 65536.
REGISTERS = 96
#: Bound of a thread's local memory in bytes: a few spilled numbers fit, an array does not.
STACK = 40

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


class Build(NamedTuple):
    """The module's place, and the compiler's output."""

    module: Path
    report: str


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The module for sm_90, with warnings as errors."""
    folder = tmp_path_factory.mktemp("cuda_build")
    options = {
        "BSLFAST_CUDA": "ON",
        "BSLFAST_WERROR": "ON",
        "CMAKE_CUDA_ARCHITECTURES": "90",
        "CMAKE_CUDA_FLAGS": "-Xptxas=-v",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    defined = [f"-D{name}={value}" for name, value in options.items()]
    _run("cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defined)
    report = _run("cmake", "--build", str(folder), "--target", "_cuda", "--parallel", "2")
    (module,) = folder.glob("_cuda*.so")
    return Build(module, report)


def _run(*command: str) -> str:
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        command,
        env={**os.environ, "PATH": tools},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_registers_and_stack(build: Build) -> None:
    found = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers",
        build.report,
        re.DOTALL,
    )
    assert len(found) > 500  # in float32 and float64, of every variant, in both directions
    assert [f for f in found if int(f[2]) > REGISTERS] == []
    assert [f for f in found if int(f[1]) > STACK] == []


def test_module_has_kernels_for_every_op(build: Build, tmp_path: Path) -> None:
    """The module loads without a GPU; it holds all the CUDA code that it needs."""
    package = tmp_path / "bslfast"
    shutil.copytree(Path(bslfast.__file__).parent, package)
    native = Path(_cpu.__file__)
    for module in (native, build.module):
        shutil.copy(module, package / "_native")
    code = (
        "import bslfast\n"
        "from bslfast._native import cuda\n"
        "from bslfast.functional import _op\n"
        "assert cuda.is_built() and _op.HAS_CUDA\n"
        "names = {**cuda.pointwise_ops(), **cuda.module().row_ops()}\n"
        "names |= cuda.module().softmax_ops()\n"
        "print(bslfast.__file__, *sorted(names), sep='\\n')\n"
    )
    # site's hooks would find an editable installation first, so it is left out.
    path = os.pathsep.join([str(tmp_path), *sys.path])
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,  # not where the sources are
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    location, *names = found.stdout.split()
    assert Path(location).parent == package
    assert set(names) >= {*_cpu.pointwise_ops(), *_cpu.row_ops(), *_cpu.softmax_ops()}
