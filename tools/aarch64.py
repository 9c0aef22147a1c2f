"""Build a wheel for aarch64 by a cross compiler and test it under an emulator, qemu.

    python tools/aarch64.py [arguments of pytest]

Everything goes into build/aarch64: Debian's Python for arm64, wheels of torch and of pytest for it,
and that of bslfast. pytest runs in the folder tests. By default it runs the tests of the core. Then
random bits, uniforms, normals and elementary functions are compared with those of the installed
bslfast, at the level of plain x86-64.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "aarch64"
SYSTEM, SITE, PYTHON = FOLDER / "system", FOLDER / "site", FOLDER / "python"
RESULTS = FOLDER / "results.npz"
#: Programs, and the packages of Debian and Ubuntu that have them.
PROGRAMS = {
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "qemu-aarch64": "qemu-user",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
SOURCE = "http://deb.debian.org/debian bookworm main"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: Python, and the libraries that it and torch load.
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libpython3.11-dev"),
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "libssl3", "libexpat1", "zlib1g", "libffi8"),
    *("libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libcrypt1", "libdb5.3"),
)
#: The oldest torch that bslfast runs with, whose wheel for aarch64 has no CUDA. pip would look for
#: what this machine needs, so the list is complete.
WHEELS = (
    *("torch==2.10.0", "numpy", "safetensors", "scipy", "mpmath", "pytest", "iniconfig", "pluggy"),
    *("pygments", "packaging", "filelock", "fsspec", "jinja2", "markupsafe", "networkx", "sympy"),
    *("typing-extensions", "scikit-build-core", "pybind11", "pathspec"),
)
TESTS = (
    *("core/test_philox.py", "core/test_noise.py", "core/test_special.py"),
    *("-k", "not moments and not fake"),
)
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sigmoid", "softplus", "tanh", "sinpi", "cospi")
#: tests/core/test_math.py and test_noise.py allow an error of 2 ulp, and normals one of 5.
FUNCTION_ULP, NORMAL_ULP = 4, 5


def run(*command: str | Path, **environment: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **environment})


def fetch_system() -> None:
    """Unpack Debian's packages for arm64, by an apt whose state lies in the folder."""
    if SYSTEM.exists():
        return
    apt, unpacked = FOLDER / "apt", FOLDER / "unpacked"
    for part in ("state/lists/partial", "cache/archives/partial", "packages"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list").write_text(f"deb [arch=arm64 signed-by={KEYS}] {SOURCE}\n")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": apt / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*command, "update"], check=True)
    subprocess.run([*command, "download", *PACKAGES], check=True, cwd=apt / "packages")
    for package in sorted((apt / "packages").glob("*.deb")):
        run("dpkg-deb", "-x", package, unpacked)
    unpacked.rename(SYSTEM)


def fetch_wheels() -> None:
    """Unpack wheels for aarch64."""
    if SITE.exists():
        return
    unpacked = FOLDER / "wheels"
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (28, 27, 17)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--target", str(unpacked), "--only-binary=:all:", "--python-version=3.11"]
    run(*command, *platforms, "--platform=manylinux2014_aarch64", *WHEELS)
    unpacked.rename(SITE)


def build() -> None:
    """Build and install the wheel: Python runs under qemu, CMake and the compiler do not."""
    PYTHON.write_text(
        f'#!/bin/sh\nexec qemu-aarch64 -L {SYSTEM} {SYSTEM}/usr/bin/python3.11 "$@"\n'
    )
    PYTHON.chmod(0o755)
    defined = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "cmake" / "aarch64.cmake",
        "CMAKE_CXX_FLAGS": f"-isystem {SYSTEM}/usr/include",
        "Python_EXECUTABLE": PYTHON,
        "Python_INCLUDE_DIR": f"{SYSTEM}/usr/include/python3.11",
        "BSLFAST_CUDA": "OFF",
        "BSLFAST_WERROR": "ON",
    }
    settings = {f"cmake.define.{name}": str(value) for name, value in defined.items()}
    settings["build-dir"] = str(FOLDER / "cmake")
    shutil.rmtree(FOLDER / "dist", ignore_errors=True)
    (FOLDER / "dist").mkdir()
    code = (
        f"import scikit_build_core.build as b; b.build_wheel({str(FOLDER / 'dist')!r}, {settings})"
    )
    os.chdir(ROOT)
    run(PYTHON, "-c", code, PYTHONPATH=str(SITE))
    (wheel,) = (FOLDER / "dist").glob("*.whl")
    for installed in SITE.glob("bslfast*"):
        shutil.rmtree(installed)
    run(sys.executable, "-m", "zipfile", "-e", wheel, SITE)


def results() -> Iterator[tuple[str, NDArray[np.number]]]:
    """Numbers that depend on nothing but the kernels."""
    from bslfast._native import _cpu

    n, seed, stream = 100_003, 0x0123456789ABCDEF, 7
    words = np.empty(n, np.uint32)
    _cpu.noise_bits(words.ctypes.data, n, seed, stream, 5)
    yield "bits", words
    for dtype in (np.float32, np.float64):
        double, name = dtype is np.float64, dtype.__name__
        for kind, draw in (("uniform", _cpu.noise_uniform), ("normal", _cpu.noise_normal)):
            out = np.empty(n, dtype)
            draw(out.ctypes.data, n, double, seed, stream, 5)
            yield f"{kind} {name}", out
        generator = np.random.Generator(np.random.PCG64(0))
        whole = np.ldexp(generator.uniform(-2, 2, n), generator.integers(-40, 10, n)).astype(dtype)
        for function in FUNCTIONS:
            x, y = np.abs(whole) if function.startswith("log") else whole, np.empty_like(whole)
            _cpu.math_apply(function, double, x.ctypes.data, y.ctypes.data, n)
            yield f"{function} {name}", y


def compare() -> None:
    """Hold the numbers of both machines against each other."""
    theirs = np.load(RESULTS)
    for name, ours in results():
        kind = name.split()[0]
        if kind in ("bits", "uniform"):
            np.testing.assert_array_equal(theirs[name], ours, err_msg=name)
            print(f"{name}: the same bits")
        else:
            bound = NORMAL_ULP if kind == "normal" else FUNCTION_ULP
            worst = np.testing.assert_array_max_ulp(theirs[name], ours, bound, ours.dtype).max()
            print(f"{name}: differs by up to {worst:.0f} ulp, allowed {bound}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-results", action="store_true", help=argparse.SUPPRESS)
    arguments, tests = parser.parse_known_args()
    if arguments.write_results:
        np.savez(RESULTS, **dict(results()))
        return
    missing = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    missing += [] if Path(KEYS).exists() else ["debian-archive-keyring"]
    if missing:
        sys.exit(f"missing packages: apt-get install {' '.join(missing)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    fetch_system()
    fetch_wheels()
    build()
    os.chdir(ROOT / "tests")
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(tests or TESTS)]
    run(*command, PYTHONPATH=str(SITE))
    run(PYTHON, Path(__file__), "--write-results", PYTHONPATH=str(SITE))
    os.environ["BSLFAST_ISA"] = "baseline"
    compare()


if __name__ == "__main__":
    main()
