"""The command line: ``bslfast train | benchmark | bench | summary | info``.

Exit codes: 0 for success, 1 for wrong data or files, 2 for wrong options, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bslfast
from bslfast.cli import compare, config, iwae, jobs, runner, uci

__all__ = ["main"]

#: The packages of bars and pictures, which every job and protocol needs, at its end at the latest.
_NEEDED = ("matplotlib", "tqdm")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with ``argv`` (None: the process's own arguments); return the exit code.

    Wrong options end the process with code 2, as argparse does.
    """
    arguments = _parser().parse_args(argv)
    job = vars(arguments).pop("needing", None)
    try:
        if job is None:
            return int(arguments.run(arguments))
        _check_packages(job)
        with runner.no_empty_folders(arguments.out):
            return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted; files written so far are whole", file=sys.stderr)
        return 130
    # Bad data, files or surroundings raise these, with texts written for the user. Anything else
    # is a bug in this package and deserves its traceback.
    except (OSError, ValueError, ModuleNotFoundError, FloatingPointError) as error:
        print(f"bslfast: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bslfast", description="Fast Bayesian networks for PyTorch: jobs and benchmarks."
    )
    parser.add_argument("--version", action="version", version=f"bslfast {bslfast.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    train = commands.add_parser("train", help="train a model on real data and report on it")
    train.set_defaults(needing="train")
    names: Any = train.add_subparsers(required=True, metavar="job", parser_class=config.JobParser)
    jobs.add_parsers(names)

    benchmark = commands.add_parser("benchmark", help="run a published protocol on given data")
    benchmark.set_defaults(needing="benchmark")
    protocols = benchmark.add_subparsers(required=True, metavar="protocol")
    iwae.add_parser(protocols)
    uci.add_parser(protocols)

    bench = commands.add_parser("bench", help="run the benchmarks (from a clone, with pytest)")
    bench.add_argument("--folder", default="benchmarks", help="where they are (%(default)s)")
    bench.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    compare.add_options(bench)
    bench.set_defaults(run=functools.partial(_bench, bench))

    summary = commands.add_parser("summary", help="one table over the jobs that have run")
    summary.add_argument("folder", nargs="?", default="runs", type=Path, help="(%(default)s)")
    summary.set_defaults(run=_summary)

    info = commands.add_parser("info", help="what was built in and chosen")
    info.set_defaults(run=_info)
    return parser


def _check_packages(command: str) -> None:
    """Raise ModuleNotFoundError if a package is missing that would end the command at its end."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{command}: expected {' and '.join(_NEEDED)} to be installed, got Python without "
            f"{' and '.join(missing)}: pip install 'bslfast[jobs]'"
        )


def _bench(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    compare.check(parser, arguments)
    folder = Path(arguments.folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--folder: expected the benchmarks of a clone of the repository, got {str(folder)!r}, "
            "which is no folder"
        )
    if arguments.compare:
        return compare.run(arguments, folder)
    # `-m pytest` would put the clone's root before the installed package. The root has the sources
    # of bslfast without kernels.
    code = (
        "import sys; sys.path[:] = filter(None, sys.path); import pytest; sys.exit(pytest.main())"
    )
    return subprocess.call([sys.executable, "-c", code, str(folder), *arguments.pytest])


def _summary(arguments: argparse.Namespace) -> int:
    from bslfast.cli import summary

    print(summary.table(arguments.folder))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from bslfast.info import describe

    facts = describe()
    width = max(len(str(key)) for key in facts)
    for key, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(f"{key!s:<{width}}  {shown}")
    return 0
