"""Build for this machine's GPU, test and measure there; `make gpu-check OUT=DIR`.

python tools/gpu_check.py --out DIR [--seconds 540] [--steps build tests ...] [--resume]

It needs a GPU, torch, nvcc, pybind11, scikit-build-core and pytest, but no network. The package is
installed below build/, and nothing else on the machine is changed. Each step has its own time
limit. A step that fails or takes too long does not keep the others from running. Files in DIR are
written as results come:

    summary.json    outcome and seconds of each step, and the tests that failed
    build.txt, tests.txt, memcheck.txt, racecheck.txt, synccheck.txt
                    outputs of the steps; for the tests, the texts of failures
    gpu.json, gpu.md
                    measurements, by benchmarks/gpu.py; the table begins with the targets

Several processes share the tests. The sanitizers run beside them on a few tiny cases. Only the
benchmarks have the GPU to themselves. If a process loses the device or hangs, another one goes on
behind the test or the case that it was at.

The exit status is 0 if every step passed or is not available here, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "gpu-check"
SITE = WORK / "site"
TESTS = "tests/cuda/test_device.py"
SANITIZERS = ("memcheck", "racecheck", "synccheck")
STEPS = ("build", "tests", *SANITIZERS, "benchmarks")
#: Tests under the sanitizers, where they take 10 to 50 times as long: tiny, of every kernel file.
SANITIZED = "one_of_each_kernel or rows_of_every_length or other_streams or many_normal"
# Seconds. CHECKS_LIMIT ends the checks, which leave the benchmarks at least RESERVED. The last
# benchmark begins LAST_CASE before the end.
CHECKS_LIMIT, RESERVED, LAST_CASE = 240.0, 150.0, 40.0
# A process hangs if it begins no test or case for so many seconds. torch.compile takes a while.
STALLED = 120.0
# `-m pytest` would put the sources of bslfast, without kernels, before the installed package.
PYTEST = (
    sys.executable,
    "-c",
    "import sys; sys.path[:] = filter(None, sys.path); import pytest; sys.exit(pytest.main())",
)
_MACHINE = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}
if torch.cuda.is_available():
    found["gpu"] = torch.cuda.get_device_name()
    found["architecture"] = "".join(map(str, torch.cuda.get_device_capability()))
print(json.dumps(found))
"""


class Check:
    """A run, with its remaining time, its processes and its summary."""

    def __init__(self, out: Path, seconds: float) -> None:
        self.out = out
        self.begin = time.monotonic()
        self.end = self.begin + seconds
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.RLock()  # a signal may come while it is held
        self.summary: dict[str, Any] = {"steps": {}}
        paths = [str(SITE), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONUNBUFFERED": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(WORK / "inductor"),
        }

    def left(self) -> float:
        return self.end - time.monotonic()

    def write(self) -> None:
        """Write the summary; the file is whole, whenever the process is killed."""
        with self.lock:
            self.summary["seconds"] = round(time.monotonic() - self.begin, 1)
            temporary = self.out / ".summary.json"
            temporary.write_text(json.dumps(self.summary, indent=1) + "\n")
            temporary.replace(self.out / "summary.json")

    def note(self, step: str, outcome: str, begin: float, **more: Any) -> None:
        seconds = round(time.monotonic() - begin, 1)
        with self.lock:
            self.summary["steps"][step] = {"outcome": outcome, "seconds": seconds, **more}
            self.write()
        print(f"{step:<11} {outcome}, {seconds:.1f} s", *more.values(), flush=True)

    def run(
        self,
        command: Sequence[str],
        log: Path,
        limit: float,
        *,
        progress: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> int | None:
        """Run a command; return its exit status, or None if it hung or exceeded its time.

        Args:
            command: command line, run in the root of the repository.
            log: file to which its output is added.
            limit: time limit in seconds.
            progress: a file that the process changes as long as it does not hang.
            environment: variables in addition to the usual ones.
        """
        begin = time.monotonic()
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.add(process)
        try:
            while process.poll() is None:
                now = time.monotonic()
                still = now - begin
                if progress is not None and progress.exists():
                    still = min(still, time.time() - progress.stat().st_mtime)
                if now - begin > limit or (progress is not None and still > STALLED):
                    kill(process)
                    return None
                time.sleep(0.1)
        finally:
            self.running.discard(process)
        return process.returncode

    def kill_all(self) -> None:
        for process in list(self.running):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process: first by an interrupt, so that pytest and compilers tidy up."""
    for number, wait in ((signal.SIGINT, 3.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
    # Others of its group may still run, if it has ended by itself.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def read(record: Path) -> dict[str, dict[str, Any]]:
    """The last note of each test, by tools/gpu_check_plugin.py."""
    lines = record.read_text().splitlines() if record.exists() else []
    notes = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # a killed process may leave half a line
            note = json.loads(line)
            notes[note["test"]] = note
    return notes


def tail(log: Path, lines: int = 30) -> list[str]:
    text = log.read_text(errors="replace") if log.exists() else ""
    return text.splitlines()[-lines:]


def tool(name: str) -> str | None:
    """A program of the CUDA toolkit, on the path, in its usual place or among Python's packages."""
    places = [Path(os.environ[key]) for key in ("CUDA_HOME", "CUDA_PATH") if key in os.environ]
    places += [Path("/usr/local/cuda")]
    places += [place for folder in sys.path for place in Path(folder).glob("nvidia/cu*")]
    folders = [place / folder for place in places for folder in ("bin", "compute-sanitizer")]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))


# --- steps ----------------------------------------------------------------------------------------


def build(check: Check) -> bool:
    begin, log = time.monotonic(), check.out / "build.txt"
    architecture = check.summary["machine"]["architecture"]
    environment = {
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    compiler = tool("nvcc")
    if compiler is not None:
        environment["CUDACXX"] = os.environ.get("CUDACXX", compiler)
    status = check.run(
        [
            *(sys.executable, "-m", "pip", "install", "--verbose", "--no-build-isolation"),
            *("--no-deps", "--upgrade", "--target", str(SITE), "."),
            "-Ccmake.define.BSLFAST_CUDA=ON",
            f"-Ccmake.define.CMAKE_CUDA_ARCHITECTURES={architecture}-real",
        ],
        log,
        check.left() - RESERVED,
        environment=environment,
    )
    more = {} if status == 0 else {"tail": tail(log)}
    check.note("build", outcome(status), begin, **more)
    return status == 0


def outcome(status: int | None) -> str:
    return "timed out" if status is None else "failed" if status else "passed"


def checks_limit(check: Check) -> float:
    return max(1.0, min(CHECKS_LIMIT, check.left() - RESERVED))


def run_tests(check: Check, tests: Sequence[str] = (TESTS,), shards: int | None = None) -> None:
    """Run tests in several processes; another process follows one that ends too early."""
    begin, limit = time.monotonic(), checks_limit(check)
    shards = shards or (max(1, min(4, (os.cpu_count() or 1) // 3)) if shares_its_gpu() else 1)
    failures = check.out / "tests.txt"

    def shard(index: int) -> tuple[str, dict[str, dict[str, Any]]]:
        record, log = WORK / f"tests-{index}.jsonl", WORK / f"tests-{index}.txt"
        environment = {
            "GPU_CHECK_SHARD": f"{index}/{shards}",
            "GPU_CHECK_RECORD": str(record),
            "GPU_CHECK_FAILURES": str(failures),
        }
        command = [
            *(*PYTEST, "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "gpu_check_plugin"),
            *tests,
        ]
        while True:
            seen = len(read(record))
            left = begin + limit - time.monotonic()
            status = check.run(command, log, left, progress=record, environment=environment)
            notes = read(record)
            if status in (0, 1, 5):  # 5: no tests were left
                return "ended", notes
            if time.monotonic() - begin >= limit:
                return "timed out", notes
            if len(notes) == seen:  # no test has begun: another process would do no better
                with check.lock:
                    check.summary.setdefault("tails", {})[f"tests {index}"] = tail(log)
                return "failed", notes

    with ThreadPoolExecutor(shards) as pool:
        ends = list(pool.map(shard, range(shards)))
    notes = [note for _, found in ends for note in found.values()]
    counts = Counter(note["outcome"] for note in notes)
    bad = [n["test"] for n in notes if n["outcome"] in ("failed", "begun")]
    found = "passed" if counts["passed"] and not bad else "failed"
    for end in ("failed", "timed out"):
        found = end if any(how == end for how, _ in ends) else found
    counts["never ended"] = counts.pop("begun", 0)
    slowest = sorted(notes, key=lambda note: -note["seconds"])[:10]
    with check.lock:
        check.summary["failed tests"] = bad
        check.summary["slowest tests"] = {note["test"]: note["seconds"] for note in slowest}
    check.note("tests", found, begin, counts=dict(counts))


def sanitize(check: Check, name: str) -> None:
    begin, log = time.monotonic(), check.out / f"{name}.txt"
    sanitizer = tool("compute-sanitizer")
    if sanitizer is None:
        check.note(name, "not available", begin)
        return
    options = ["--tool", name, "--error-exitcode", "86", "--print-limit", "50"]
    # Only our kernels are checked: torch's would take most of the time.
    described = subprocess.run(
        [sanitizer, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    if "--kernel-name" in described.stdout:
        options += ["--kernel-name", "kernel_substring=bsl"]
    if name == "memcheck":  # torch asks for what a device may not have
        options += ["--report-api-errors", "no"]
    status = check.run(
        [sanitizer, *options, *PYTEST, "-q", "-p", "no:cacheprovider", TESTS, "-k", SANITIZED],
        log,
        checks_limit(check),
        # Without torch's cache each tensor is a separate allocation, so reads beyond it are found.
        environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    )
    if status == 0 and " passed" not in log.read_text(errors="replace"):
        status = 1  # without a device all tests are skipped
    check.note(name, outcome(status), begin, last=tail(log, 1))


def benchmark(check: Check, resume: bool) -> None:
    """Run the benchmarks for the remaining time, less that of the last case."""
    begin, log = time.monotonic(), WORK / "benchmarks.txt"
    results = check.out / "gpu.json"
    while True:
        seen = results.stat().st_mtime_ns if results.exists() else 0
        seconds = max(1.0, check.left() - LAST_CASE)
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(check.out)]
        command += ["--seconds", str(seconds), *["--resume"] * resume]
        status = check.run(command, log, check.left() - 5, progress=results)
        now = results.stat().st_mtime_ns if results.exists() else 0
        if status in (0, 1) or now == seen or check.left() < LAST_CASE:
            break
        resume = True
    more = {} if status == 0 else {"tail": tail(log)}
    check.note("benchmarks", outcome(status), begin, **more)


@functools.cache
def shares_its_gpu() -> bool:
    """Whether several processes may use the GPU at once."""
    query = ["nvidia-smi", "--query-gpu=compute_mode", "--format=csv,noheader"]
    try:
        modes = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return True
    return "Exclusive" not in modes


def machine(check: Check) -> str:
    """Note the machine in the summary; return the name of a missing part."""
    log = WORK / "machine.txt"
    if check.run([sys.executable, "-c", _MACHINE], log, 100.0) != 0:
        return "torch: " + " ".join(tail(log, 3))
    check.summary["machine"] = json.loads(tail(log, 1)[0])
    print("machine    ", check.summary["machine"], flush=True)
    return "" if check.summary["machine"]["gpus"] else "a GPU that torch can use"


def run(check: Check, steps: Sequence[str], resume: bool) -> None:
    if "build" in steps and not build(check):
        return
    with ThreadPoolExecutor(len(STEPS) if shares_its_gpu() else 1) as pool:
        running = [pool.submit(run_tests, check)] if "tests" in steps else []
        running += [pool.submit(sanitize, check, name) for name in SANITIZERS if name in steps]
    # Errors of this script itself do not stop the benchmarks.
    errors = [error for future in running if (error := future.exception()) is not None]
    for number, error in enumerate(errors):
        check.note(f"error {number}", "failed", check.begin, why=repr(error))
    if "benchmarks" in steps:
        benchmark(check, resume)


@contextlib.contextmanager
def ends_with_its_processes(check: Check) -> Iterator[None]:
    def stop(number: int, _: Any) -> None:
        check.kill_all()
        check.summary["ended by"] = signal.Signals(number).name
        check.write()
        os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        yield
    finally:
        check.kill_all()
        check.write()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=540, help="for everything (%(default)s)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument(
        "--resume", action="store_true", help="go on behind the cases that DIR's gpu.json names"
    )
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    measured = () if options.resume else ("gpu.json", "gpu.md")
    for name in ("summary.json", *measured, *(f"{step}.txt" for step in STEPS)):
        (out / name).unlink(missing_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    for old in (*WORK.glob("*.txt"), *WORK.glob("*.jsonl")):
        old.unlink()
    check = Check(out, options.seconds)
    with ends_with_its_processes(check):
        missing = machine(check)
        if missing:
            check.summary["missing"] = missing
            print(f"missing: {missing}", flush=True)
            return 1
        run(check, options.steps, options.resume)
    found = check.summary["steps"]
    for step in options.steps:
        found.setdefault(step, {"outcome": "not reached", "seconds": 0.0})
    check.write()
    if (out / "gpu.md").exists():  # the table of targets
        print("", *(out / "gpu.md").read_text().split("\n\n")[:2], sep="\n")
    return int(any(s["outcome"] not in ("passed", "not available") for s in found.values()))


if __name__ == "__main__":
    sys.exit(main())
