"""Ops under Python threads and in forked processes: right, to the last bit, and never hanging.

Scripts that could hang run in separate processes, which are killed when their time is up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from ops import CASES, RECORDS
from ops.record import (
    Case,
    OpRecord,
    assert_same,
    assert_same_gradients,
    isa,
    run_with_gradients,
    threads,
)

from bslfast._native import _cpu

# Several chunks for each of several threads, and more elements than torch needs to use threads.
SHAPE = (3, 30_011)
TESTS = Path(__file__).parent
TIME_LIMIT = 90
NO_KERNELS = {
    "has_torch_threads",
    "in_common",
    "isa",
    "isa_levels",
    "is_unwatched",
    "row_chunks",
    "set_isa",
    "set_tensor_types",
    "set_torch_parallel_for",
    "set_watchers",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_several_python_threads(case: Case) -> None:
    """Eight threads with their own inputs share torch's pool."""
    calls = [case.call(torch.float32, (3, 9001), seed) for seed in range(8)]
    names = case.record.differentiable(calls[0])

    def work(i: int) -> Any:
        return run_with_gradients(case.record.function, calls[i], names)

    with threads(2):
        expected = [work(i) for i in range(8)]
        with ThreadPoolExecutor(8) as pool:
            actual = list(pool.map(work, [*range(8)] * 3))
    for i, (results, grads) in enumerate(actual):
        assert_same(results, expected[i % 8][0], f"thread {i}")
        assert_same_gradients(grads, expected[i % 8][1], f"thread {i}")


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
def test_kernels_release_the_gil(record: OpRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Python thread moves on while a kernel runs.

    With this switch interval the interpreter never takes the lock away from a thread: another one
    moves only if the kernel itself lets go. It may not be scheduled in time: there are many tries.
    """
    case = Case(record, next(iter(record.variants)))
    call = case.call(torch.float32, (50, 10_000))
    names = record.differentiable(call)
    ticks, stop, moved = [0], threading.Event(), dict[str, bool]()

    def watched(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            before = ticks[0]
            result = kernel(*args)
            moved[name] = moved.get(name, False) or ticks[0] > before
            return result

        return wrapper

    for name in dir(_cpu):
        kernel = getattr(_cpu, name)
        if callable(kernel) and not name.startswith("_") and name not in NO_KERNELS:
            monkeypatch.setattr(_cpu, name, watched(name, kernel))

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    other = threading.Thread(target=tick, daemon=True)
    sys.setswitchinterval(1000)
    try:
        other.start()
        for _ in range(200):
            run_with_gradients(record.function, call, names)
            if all(moved.values()):
                break
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join()
    assert len(moved) >= 2, f"expected a forward and a backward kernel, got {list(moved)}"
    assert all(moved.values()), f"the GIL was held throughout: {moved}"


def _in_process(script: str, *arguments: str) -> None:
    """Run a script in a process group; none of its processes outlives the time limit."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        cwd=TESTS,
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        pytest.fail(f"hung for {TIME_LIMIT} s: {process.communicate()[0]}")
    assert process.returncode == 0, output
    assert "finished" in output


# The parent first runs every op on several threads: torch's pool exists then, and does not survive
# the fork.
PREAMBLE = f"""
import faulthandler, hashlib, os, signal, sys, time
import torch
from ops import CASES
from ops.record import run, run_with_gradients, weights

# Made in the parent: in a forked child, torch's own operations may hang.
JOBS = []
for case in CASES:
    call = case.record.prepared(case.call(torch.float32, {SHAPE}))
    JOBS.append((case, call, weights(run(case.record.function, call))))

def digests(_=None):
    found = []
    for case, call, given in JOBS:
        names = case.record.differentiable(call)
        results, grads = run_with_gradients(case.record.function, call, names, given)
        digest = hashlib.sha256()
        for t in (*results, *(grads[k] for k in names)):
            digest.update(t.contiguous().numpy().tobytes())
        found.append((str(case), digest.hexdigest()))
    return found

torch.set_num_threads(2)
torch.ones(1_000_000).add(1).sum()
parent = digests()
assert len(parent) == len(CASES) > 0
"""

FORK = """
read, write = os.pipe()
child = os.fork()
if child == 0:
    status = 1
    faulthandler.dump_traceback_later(50)  # says where, if it hangs
    try:
        os.close(read)
        os.write(write, repr(digests()).encode())
        status = 0
    finally:
        os._exit(status)
os.close(write)
deadline = time.monotonic() + 60
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, signal.SIGKILL)
        sys.exit("the forked child hangs")
    time.sleep(0.01)
with os.fdopen(read) as pipe:
    found = eval(pipe.read())
assert found == parent, [a for a, b in zip(found, parent) if a != b]
assert digests() == parent, "the parent after the fork"
print("finished")
"""

POOL = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found in pool.map(digests, range(3)):
        assert found == parent
print("finished")
"""

DATA_LOADER = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return digests()

loader = torch.utils.data.DataLoader(
    Data(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
)
items = [[tuple(pair) for pair in item] for item in loader]
assert items == [parent] * 4
print("finished")
"""


@pytest.mark.parametrize(
    "script", [FORK, POOL, DATA_LOADER], ids=["os.fork", "multiprocessing", "DataLoader"]
)
def test_forked_processes(script: str) -> None:
    """A forked child runs forward and backward of every op, bit-identical with its parent."""
    _in_process(script)


def test_fork_while_kernels_run() -> None:
    """Other threads of the parent are in the middle of a kernel when it forks."""
    _in_process(
        """
import threading
stop = threading.Event()
def work():
    while not stop.is_set():
        digests()
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
"""
        + FORK.replace(
            'print("finished")', 'stop.set(); [w.join() for w in workers]; print("finished")'
        )
    )


def test_instruction_set_by_environment(tmp_path: Path) -> None:
    """BSLFAST_ISA chooses the kernels of its process."""
    for level in _cpu.isa_levels():
        code = "from bslfast._native import _cpu; print(_cpu.isa())"
        env = {**os.environ, "BSLFAST_ISA": level}
        output = subprocess.run(
            [sys.executable, "-c", code],
            env=env,
            cwd=tmp_path,  # not the clone's root, whose sources would hide the installed package
            capture_output=True,
            text=True,
            check=True,
            timeout=TIME_LIMIT,
        )
        assert output.stdout.strip() == level
    env = {**os.environ, "BSLFAST_ISA": "avx1024"}
    result = subprocess.run(
        [sys.executable, "-c", "import bslfast"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert result.returncode != 0
    assert "BSLFAST_ISA=avx1024: " in result.stderr
    assert "avx1024" in result.stderr
    with pytest.raises(ValueError, match=r"expected one of baseline.*'avx1024'"), isa("avx1024"):
        pass
