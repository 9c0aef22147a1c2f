"""Every example in the documentation of every module is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import bslfast

# A package of the extra "jobs", without which the library is whole.
OPTIONAL = {"sklearn", "matplotlib", "tqdm", "pooch"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(bslfast.__path__, "bslfast.", onerror=lambda name: None)
    if not module.name.endswith((".__main__", "._cpu", "._cuda"))
)


@pytest.mark.parametrize("name", ["bslfast", *MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] in OPTIONAL:
            pytest.skip(f"needs {error.name}")
        raise
    report: list[str] = []
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(module):
        runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples() -> None:
    """A search that finds no examples must not pass for success."""
    found = doctest.DocTestFinder().find(bslfast.functional.normal_kl)
    assert sum(len(test.examples) for test in found) > 0
