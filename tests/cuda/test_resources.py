"""What kernels take of a multiprocessor: the compiler's report, which needs no GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
NVCC = shutil.which("nvcc")
#: Of a multiprocessor's 65536 registers, so many leave room for two blocks of 256 threads.
REGISTERS = 96
#: Bytes of its own memory: a few numbers that are put by. An array would be more.
STACK = 40
#: Each is about a minute of compiling at most; those in CI have every kind of noise and of result.
IN_CI = (
    *("normal", "normal_many", "affine_coupling", "gumbel", "student_t"),
    *("bernstein", "categorical", "gumbel_softmax", "mixture_logistic"),
    *("rank_one", "rational_quadratic"),
)


def _kernels() -> list[object]:
    found = [*(CSRC / "cuda").glob("*.cu"), *(CSRC / "pointwise").glob("*.cpp")]
    return [
        pytest.param(path, id=path.stem, marks=[] if path.stem in IN_CI else pytest.mark.slow)
        for path in sorted(found)
    ]


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize("source", _kernels())
def test_registers_and_stack(source: Path, tmp_path: Path) -> None:
    assert NVCC is not None
    unit = tmp_path / "unit.cu"
    unit.write_text(f'#include "{source}"\n')
    options = ["-std=c++17", "-O3", "-arch=sm_90", "-cubin", "-DBSL_ISA=cuda", "-Xptxas=-v"]
    folders = [f"-I{CSRC / 'cuda'}", f"-I{CSRC}"]
    result = subprocess.run(
        [NVCC, *options, *folders, str(unit), "-o", str(tmp_path / "unit.cubin")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", result.stderr)]
    stack = [int(n) for n in re.findall(r"(\d+) bytes stack frame", result.stderr)]
    assert registers
    assert max(registers) <= REGISTERS
    assert max(stack) <= STACK
