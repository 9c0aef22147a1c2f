"""The tests lie as the package does: see docs/testing.md."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "bslfast", ROOT / "tests"
#: Modules without a test file of their own, and what tests them instead. A line is for a reason.
ELSEWHERE: dict[str, str] = {
    # Each op is compared with its twin, by the public function that calls the kernels.
    "_native/cuda": "cuda",
    "_native*": "functional",
    "reference/*": "functional/every_op",
    # What all ops share is tested with all ops.
    "functional/_*": "functional/every_op",
    # Ops of one kind are tested together.
    "functional/bernoulli": "functional/test_likelihood_ops",
    "functional/discretized_logistic_mixture": "functional/test_discretized_logistic",
    "functional/generalized_kl": "ops/discrete_kl",
    "functional/gumbel": "functional/test_location_scale",
    "functional/half_cauchy": "functional/test_positive",
    "functional/laplace": "functional/test_location_scale",
    "functional/logistic": "functional/test_location_scale",
    "functional/lognormal": "functional/test_positive",
    # So are distributions, and the functions behind two of them.
    "distributions/*_cdf": "distributions/test_tails",
    "distributions/laplace": "distributions/test_location_scale",
    "distributions/logistic": "distributions/test_location_scale",
    "distributions/normal": "distributions/test_distributions",
    "distributions/student_t": "distributions/test_families",
    "distributions/transformed": "distributions/test_families",
    # A table has all transforms, all likelihoods, all layers or all estimators.
    "flows/amortised": "flows/test_flow",
    "flows/conditioners": "flows/test_coupling",
    "flows/elementwise": "flows/test_flow",
    "flows/images": "flows/test_flow",
    "flows/linear": "flows/test_flow",
    "flows/models": "flows/test_flow",
    "flows/named_couplings": "flows/test_flow",
    "flows/normalization": "flows/test_flow",
    "flows/planar": "flows/test_flow",
    "flows/radial": "flows/test_flow",
    "flows/sylvester": "flows/test_flow",
    "likelihoods/*": "likelihoods/test_likelihoods",
    "nn/convolution": "nn/test_layer",
    "nn/embedding": "nn/test_layer",
    "nn/estimators/*": "nn/test_estimators",
    "nn/many_draws": "nn/test_samples",
    "nn/module": "nn/test_linear",
    "nn/normalization": "nn/test_layer",
    "nn/parameter_groups": "nn/test_priors",
    "nn/transformer": "nn/test_attention",
    # Steps are compared with ops where programs are.
    "*/lowering": "programs",
    "programs/*": "programs",
    # What conversions of all peers share is tested with the peers.
    "patch/*": "patch",
    # Jobs, protocols and what they write are tested by the command line.
    "cli/*": "cli",
    "data/toys": "cli",
    "training/*": "training/test_loop",
    "vae/networks": "vae/test_model",
    "vae/*": "vae",
    # Names that other modules have: tested where they are used.
    "_activations": "programs/test_networks",
    "_bessel": "distributions/test_von_mises",
    "_files": "training/test_loop",
    "_formulas": "core/test_special",
    "_lazy": "test_info",
    "_networks": "nn/test_recurrent",
    "_precision": "test_sixteen_bits",
    "_progress": "cli",
    "_torch": "test_imports",
    "elbo": "test_bnn",
}
#: Folders of tests that are no part of the package: kernels, what tests share.
OTHER_FOLDERS = {"core", "cuda", "functional/every_op", "fuzz", "ops"}


def modules() -> list[str]:
    """All modules but the packages that only import from their modules: flows/maps, say."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        defines = any(
            isinstance(node, ast.FunctionDef | ast.ClassDef)
            for node in ast.parse(path.read_text()).body
        )
        if defines or path.name != "__init__.py":
            found.append(name.removesuffix("/__init__"))
    return [name for name in found if name not in ("__init__", "__main__")]


def own_file(module: str) -> Path:
    """Where the rule wants the tests of a module, or of a package."""
    folder, _, name = module.rpartition("/")
    name = f"test_{name.removeprefix('_')}.py"
    package = TESTS / module / name
    return package if package.is_file() else TESTS / folder / name


def pattern_of(module: str) -> str | None:
    """The line of the table that is for a module: the first one that fits."""
    return next((pattern for pattern in ELSEWHERE if fnmatch(module, pattern)), None)


@pytest.mark.parametrize("module", modules())
def test_modules_have_their_tests(module: str) -> None:
    if own_file(module).is_file():
        return
    folder, _, name = module.rpartition("/")
    if folder == "functional" and (TESTS / "ops" / f"{name}.py").is_file():
        return  # the record of an op, from which its tests are made
    pattern = pattern_of(module)
    assert pattern, f"no {own_file(module).relative_to(ROOT)}, and no line in ELSEWHERE"
    place = ELSEWHERE[pattern]
    assert (TESTS / place).is_dir() or (TESTS / f"{place}.py").is_file(), place


def test_no_line_is_for_nothing() -> None:
    """Each line is for some module that has no tests of its own."""
    needed = [m for m in modules() if not own_file(m).is_file()]
    for pattern in ELSEWHERE:
        assert any(pattern_of(m) == pattern for m in needed), pattern


def test_folders_are_parts() -> None:
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS).as_posix()
        assert (PACKAGE / folder).is_dir() or folder in OTHER_FOLDERS, path


def test_the_page_says_so() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    assert "`tests/<part>/test_<module>.py`" in page
    assert "`tests/test_mirror.py`" in page
