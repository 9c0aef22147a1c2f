"""Check what an archive of sources holds: python tools/check_sdist.py FILE.tar.gz

It must have what git tracks, except for the files that pyproject.toml leaves out, and nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("LICENSE", "README.md", "CMakeLists.txt", "csrc/cpu/isa.cpp", "tests/conftest.py")
#: In bytes: a file, and the archive.
LARGEST, LARGEST_ARCHIVE = 100_000, 2_000_000


def left_out(name: str) -> bool:
    """Whether pyproject.toml leaves the file out ("sdist.exclude")."""
    return name.startswith((".ci/", ".github/", "benchmarks/results/")) or name.endswith(
        (".ipynb", ".png")
    )


def problems(archive: Path) -> list[str]:
    """What is wrong with an archive."""
    with tarfile.open(archive) as file:
        entries = file.getmembers()
    sizes = {str(PurePosixPath(*PurePosixPath(e.name).parts[1:])): e.size for e in entries}
    command = ["git", "-C", str(ROOT), "ls-files"]
    listed = subprocess.run(command, check=True, text=True, capture_output=True).stdout.split("\n")
    tracked = {name for name in listed if name and not left_out(name)} | {"PKG-INFO"}
    large = (n for n, size in sizes.items() if size > LARGEST)
    return [
        *(f"not a file: {e.name}" for e in entries if not e.isfile()),
        *(f"missing: {name}" for name in sorted(tracked.union(NEEDED) - sizes.keys())),
        *(f"not in git: {name}" for name in sorted(sizes.keys() - tracked)),
        *(f"larger than {LARGEST} bytes: {name}" for name in large),
        *(["the archive is too large"] if archive.stat().st_size > LARGEST_ARCHIVE else []),
    ]


def main() -> None:
    archive = Path(sys.argv[1])
    found = problems(archive)
    if found:
        sys.exit("\n".join(found))
    print(f"{archive}: complete, {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
