"""The order of the package: what may import what, and where torch's private names are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bslfast

ROOT = Path(bslfast.__file__).parent
#: From the bottom: a module imports from lower layers, from its own part, and from nothing above.
LAYERS = (
    (
        "_activations",
        "_bessel",
        "_files",
        "_formulas",
        "_lazy",
        "_precision",
        "_progress",
        "_torch",
    ),
    ("_checks", "_native", "_networks"),
    ("reference",),
    ("functional",),
    ("programs",),
    ("distributions", "elbo", "nn"),
    ("flows", "likelihoods"),
    ("patch",),
    ("bnn", "predict", "vae"),
    ("data", "metrics", "training"),
    ("plots", "sklearn"),
    ("",),
    ("info",),
    ("cli",),
    ("__main__",),
)
LEVELS = {part: level for level, parts in enumerate(LAYERS) for part in parts}
#: Names below torch and torch.nn, and private attributes of tensors and modules.
PRIVATE = re.compile(
    r"\b(?:torch|nn|F)\.(\w+\.)*_[a-zA-Z]\w*|from torch(\.\w+)*\._\w+"
    r"|\b_(?:current_level|is_zerotensor|version|orig_mod|flat_weight\w*)\b"
    r"|\b_(?:parameters|buffers|modules|non_persistent_buffers_set|init_flat_weights)\b"
    r"|\b_(?:global_)?(?:forward|backward|state_dict|load_state_dict|post_accumulate_grad)"
    r"(?:_pre|_post)?_hooks\b|\b_is_full_backward_hook\b|\b_get_active_ddp_module\b"
)


def modules() -> dict[str, Path]:
    """Every module by its name: bslfast.flows.maps, say."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "") in MODULES:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def part_of(module: str) -> str:
    """The first name after the package's."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downward(module: str) -> None:
    part = part_of(module)
    for other in imports(MODULES[module]):
        above = part_of(other)
        assert above == part or LEVELS[above] < LEVELS[part], other


def test_no_circles() -> None:
    """Single modules, also inside a part. Packages hold their modules: the root is left out."""
    graph = {m: {i for i in imports(p) if i not in (m, "bslfast")} for m, p in MODULES.items()}
    assert len(tuple(TopologicalSorter(graph).static_order())) == len(graph)


@pytest.mark.parametrize("part", ["flows", "nn"])
def test_the_tables_of_modules_are_in_their_order(part: str) -> None:
    """docs/architecture.md: each module of these parts imports only modules above it."""
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    below = re.split(rf"`(?:bslfast/{part}|{part}/)` imports only modules above it", page)[1]
    table = below.split("|---|---|\n")[1].split("\n\n")[0].splitlines()
    places = {
        name: place
        for place, row in enumerate(table)
        for name in re.findall(r"`(\w+)(?:\.py|/)`", row.split(" | ")[0])
    }
    own = {m: m.split(".")[2] for m in MODULES if m.startswith(f"bslfast.{part}.")}
    assert set(own.values()) == places.keys()
    for module, name in own.items():
        for other in imports(MODULES[module]):
            if other in own and own[other] != name:
                assert places[own[other]] < places[name], (module, other)


def test_the_reference_is_for_ops_alone() -> None:
    """What else needs a formula has it from _formulas: the reference is to compare with."""
    for module, path in MODULES.items():
        if part_of(module) not in ("reference", "functional", ""):
            assert "reference" not in map(part_of, imports(path)), module


def test_private_names_of_torch_are_in_one_file() -> None:
    """Attributes of tensors and modules that torch does not document are such names, too.

    ``_load_from_state_dict`` is not looked for: a class that reads its state in a way of its own
    overrides it by this name.
    """
    for path in MODULES.values():
        found = PRIVATE.search(path.read_text())
        assert (found is not None) == (path.name == "_torch.py"), f"{path.name}: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "torch._C._get_tracing_state()",
        "from torch._dynamo import config",
        "nn.Module._apply",
        "t._version",
        "operator.attrgetter('_version')",
        "layer._parameters['weight']",
        "any(module._forward_pre_hooks)",
        "vars(module)['_modules']",
        "rnn._flat_weights_names",
    ],
)
def test_private_names_are_found(code: str) -> None:
    assert PRIVATE.search(code)
