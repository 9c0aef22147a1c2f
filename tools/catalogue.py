"""Write docs/catalogue.md: ops from their docstrings, records in tests/ops and benchmarks; flows.

python tools/catalogue.py runs/bench/results.json
python tools/catalogue.py  # with the errors and times that the page has: for a new op or flow
"""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributions import constraints

import bslfast.functional
from bslfast import flows, programs
from bslfast.flows.coupling import Mapped
from bslfast.flows.domains import nearest_ends
from bslfast.flows.transform import forward_steps
from bslfast.functional.rational_quadratic import TAILS

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

from ops import CASES, RECORDS  # noqa: E402
from ops.record import (  # noqa: E402
    OpRecord,
    errors,
    expected_with_gradients,
    run_with_gradients,
)
from report import Row, groups, rows  # noqa: E402

HEADER = """# Catalogue of ops

Made by `tools/catalogue.py` from the functions' docstrings, the table of ops in `tests/ops` and a
run of `make bench`; not to be edited.

Every op takes float64, float32, bfloat16 and float16 (computed in float32; values are
rounded once, logarithms not at all), broadcasts, and has first and second derivatives,
`torch.func` transforms (`vmap`, `grad`, `vjp`),
`torch.compile(fullgraph=True)` and `torch.export`: the tests in `tests/functional/every_op` run
for each. Forward-mode derivatives run the plain-torch twin.

Four ops are not listed. `bayes_linear` and `normal_rsample_kl_many` are made of
`normal_rsample_kl`. `standard_normal` and `standard_uniform` are functions of a seed's bits,
without gradients. In `tests/core/test_noise.py` uniform numbers are those of the twin to the last
bit, and normal ones within 5 units in the last place.

Errors are the largest found with the inputs of the tests ({shape}) against the float64 twin, in
eps of the size of the terms (1.2e-7 in float32, 2.2e-16 in float64), values / gradients. Ratios are
times of plain torch over times of bslfast, forward + backward, at the most threads measured:
eager / `torch.compile` at each size.

| op | what it computes | float32 | float64 | times faster than torch, by size | source |
|---|---|---|---|---|---|
"""
SHAPE = (64, 67)
PAGE = ROOT / "docs" / "catalogue.md"

TARGETS = {"torch eager": 3.0, "torch.compile": 1.5}
MISSED = """
## Less than 3 times eager, or 1.5 times `torch.compile`

At the middle size, or the larger of two, from the same run, with what stands in the way.

| op, size | eager / `torch.compile` | why |
|---|---|---|
"""
#: Reasons for ops whose names match a pattern; the first match counts.
REASONS = {
    r"planar|radial": "Dot products of rows are summed in float64, as one may be much smaller than "
    "its terms; gradients of one plane for all rows likewise. `torch.compile` sums in float32.",
    r"iwae.*": "Backward finds the largest log weight and the sum again: weights made from the "
    "bound would be off by eps times the bound. `torch.compile` keeps both.",
    r"bernoulli.*|categorical.*": "torch has a kernel of its own for this likelihood.",
    r"affine.*|leaky.*|normal_kl|tanh.*|softplus.*|sigmoid.*": "Little is computed for each number "
    "read and written, by anybody.",
    r"normal_rsample.*": "Noise is drawn twice, as backward does not find it kept; eager keeps it.",
    r"rational.*": "Knots are computed in float64.",
    r".*mixture.*|deep.*": "Both sides of the distribution have a sum of their own: neither tail "
    "is lost.",
}
MISSED_EAGER = "What eager makes in between stays in the cache at this size."
MISSED_COMPILE = (
    "One pass forward and one back on either side; what is left is exp and log, which hold over "
    "the whole range here."
)
FLOWS = """
## Flows

Made from the classes. `Flow(flow.transform, base)` is a flow with another base. Every map works in
`Coupling` and `Autoregressive`; the last rows have those that no ready-made flow uses, and splines
with other tails. All inverses are exact: by a formula, or by a search that ends where rounding does
(docs/numerics.md has bounds).

Tests compare each map with its twin in plain torch, and its op with mpmath where it says so; each
transform with its inverse, its log-determinant with that of autograd's Jacobian, its gradients by
gradcheck; and integrate the density of a flow where it says quadrature. A flow that can be one call
of a kernel on the CPU (docs/architecture.md, "A program") is compared with itself op by op, too.

| flow | map | in | context | base | map's inverse | density / samples | one call | tested against |
|---|---|---|---|---|---|---|---|---|
"""
TRANSFORMS = """
## Transforms without a conditioner

Steps of flows, for any number of features and with parameters of their own or none, to which a
network may add what a context says. `Permutation`
and `Reverse` reorder features, `Leading` maps the first ones, `Inverse` turns a transform around,
`Composite` has them in a row, and `Images` has maps of images in a row: {images}.

| transform | what it computes | from | onto | learned | context | inverse | one call | source |
|---|---|---|---|---|---|---|---|---|
"""
BASES = """
## Bases

What `Flow` takes as its noise, where that is not standard normal.

| base | what it is | support | context | learned | one call | source |
|---|---|---|---|---|---|---|
"""
#: Transforms that are made of others, or only reorder.
MADE_OF_OTHERS = (
    "Composite",
    "Elementwise",
    "Images",
    "Inverse",
    "Leading",
    "Permutation",
    "Reverse",
)
#: Maps whose inverse no formula has.
SEARCHED = ("MixtureLogistic", "DeepSigmoidal", "Bernstein", "Planar", "Sylvester")


def main() -> None:
    measured = rows(Path(sys.argv[1])) if len(sys.argv) > 1 else None
    PAGE.write_text(page(measured))


def page(measured: list[Row] | None) -> str:
    """The whole text; None keeps the errors and times that the page has."""
    old = PAGE.read_text()
    lines = []
    for record in sorted(RECORDS, key=lambda r: r.name):
        row = re.search(rf"^\| `{record.name}` \|.*$", old, re.MULTILINE)
        if measured is None and row is not None:
            figures = cells(row[0])[2:5]
        else:
            times = _ratios(record.name, measured or [])
            figures = [_errors(record, torch.float32), _errors(record, torch.float64), times]
        lines.append(_line(record, figures))
    text = HEADER.replace("{shape}", f"{SHAPE[0]} x {SHAPE[1]}") + "\n".join(lines) + "\n" + MISSED
    if measured is None:
        text += old.split(MISSED)[1].split("\n## ")[0]
    else:
        text += "\n".join(_missed(measured)) + "\n"
    return text + flow_table() + transform_table() + base_table()


def cells(row: str) -> list[str]:
    """What is between the bars of a table's row."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def flow_table() -> str:
    """The section about flows."""
    public = [getattr(flows, name) for name in flows.__all__]
    lines, used = [], set()
    for kind in public:
        if not issubclass(kind, flows.Flow) or kind is flows.Flow:
            continue
        parameters = inspect.signature(kind).parameters
        switches = [k for k, v in parameters.items() if v.default is False]
        for chosen in itertools.product((False, True), repeat=len(switches)):
            options = {k: True for k, on in zip(switches, chosen, strict=True) if on}
            flow = kind((1, 8, 8) if "shape" in parameters else 4, **options)
            shown = kind.__name__ + ("".join(f"({k}={v})" for k, v in options.items()))
            base = "standard normal" if flow.base is None else f"`{type(flow.base).__name__}`"
            context = "yes" if "context" in parameters else "no"
            step = next(m for m in flow.modules() if hasattr(m, "map") and hasattr(m, "moved"))
            turned = any(isinstance(m, flows.Inverse) for m in flow.modules())
            used.add(type(step.map))
            whole = _is_whole(flow)
            lines.append(
                _flow_line(f"`{shown}`", step.map, type(step), turned, context, base, whole)
            )
    for map in _maps(public, used):
        bounded = map.domain is not constraints.real_vector
        for transform in (
            flows.Coupling(map, (True, False), flows.Conditioner(1, map.size)),
            flows.Autoregressive(map, flows.MADE(2, map)),
        ):
            noise = flows.UniformBase(2, -map.bound, map.bound) if bounded else None
            flow = flows.Flow(flows.Composite([transform]), noise)
            whole = _is_whole(flow)
            base = f"any on {_interval(map.domain)}" if bounded else "any"
            lines.append(_flow_line("of your own", map, type(transform), False, "yes", base, whole))
    return FLOWS + "\n".join(lines) + "\n"


def _is_whole(flow: flows.Flow) -> bool:
    """Whether densities and samples are one call each."""
    return all("one call of" in line for line in flow.explain().split("\n")[:2])


def _maps(public: Sequence[Any], used: set[Any]) -> list[Any]:
    """The maps that no ready-made flow uses."""
    found = []
    for kind in public:
        if issubclass(kind, flows.Map) and kind is not flows.Map:
            found += [] if kind in used else [kind()]
            if "tails" in inspect.signature(kind).parameters:
                found += [kind(tails=tails) for tails in TAILS if tails != kind().tails]
    return found


def transform_table() -> str:
    """The section about transforms that no conditioner has a part in."""
    lines = []
    images = []
    for name in flows.__all__:
        kind = getattr(flows, name)
        if issubclass(kind, flows.ImageTransform) and kind is not flows.ImageTransform:
            images.append(f"`{name}`")
        parents = (flows.Transform, Mapped)
        if not issubclass(kind, parents[0]) or issubclass(kind, parents[1]):
            continue
        if kind is flows.Transform or name in MADE_OF_OTHERS:
            continue
        made = kind(4).eval()
        if isinstance(made, flows.ActNorm):
            made.initialized.fill_(True)  # as by a first batch
        # With a coupling, as nothing is one call that has no parameters.
        row = flows.Composite([made, flows.AffineCoupling(4)])
        whole = programs.explain(row, "forward", forward_steps, (4, 0), torch.zeros(1, 4))
        lines.append(
            _row(
                f"`{name}`",
                _first(kind),
                _interval(made.domain),
                _interval(made.codomain),
                "yes" if list(made.parameters()) else "no",
                "yes" if "context" in inspect.signature(kind).parameters else "no",
                "search" if name in SEARCHED else "formula",
                "yes" if "one call" in whole else "no",
                _source(kind),
            )
        )
    text = TRANSFORMS.replace("{images}", ", ".join(images))
    return text + "\n".join(lines) + "\n"


def base_table() -> str:
    """The section about the noise that flows lead to."""
    lines = []
    for name in flows.__all__:
        kind = getattr(flows, name)
        if not issubclass(kind, flows.Base) or kind is flows.Base:
            continue
        made = kind(4)
        bound = max(map(abs, ends)) if (ends := nearest_ends(made.support, torch.float32)) else 1.0
        spline = flows.SplineCoupling(4, bound=bound, tails="circular" if ends else "linear")
        flow = flows.Flow(flows.Composite([spline]), made)
        lines.append(
            _row(
                f"`{name}`",
                _first(kind),
                _interval(made.support),
                "yes" if "context" in inspect.signature(kind).parameters else "no",
                "yes" if list(made.parameters()) else "no",
                "yes" if flow.explain().startswith("log_prob: one call") else "no",
                _source(kind),
            )
        )
    return BASES + "\n".join(lines) + "\n"


def _interval(domain: Any) -> str:
    if domain is constraints.real_vector:
        return "all numbers"
    each = domain.base_constraint
    if not hasattr(each, "upper_bound"):
        return f"above {each.lower_bound:g}"
    closed = type(each) is constraints.interval
    ends = f"{each.lower_bound:.3g}, {each.upper_bound:.3g}"
    return f"[{ends}]" if closed else f"({ends})"


def _first(kind: Any) -> str:
    """The first sentence of a docstring."""
    return _plain((inspect.getdoc(kind) or "").split("\n\n")[0]).rstrip(".")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flow_line(
    name: str, map: Any, transform: type, turned: bool, context: str, base: str, whole: bool
) -> str:
    kind = type(map).__name__
    ordered = issubclass(transform, flows.Autoregressive)
    one, many = "one pass", "feature by feature"
    passes = (one, many if ordered else one)
    op = re.search(r"BF\.(\w+)", inspect.getsource(type(map)._map))
    against = ["Jacobian"]
    if op is not None:
        against.insert(0, f"`reference.{op[1]}`")
        tests = (ROOT / "tests" / "functional").glob("test_*.py")
        if any(op[1] in (text := t.read_text()) and "mpmath" in text for t in tests):
            against.insert(1, "mpmath")
    if f'"{name.strip("`").split("(")[0]}": ' in _kinds():
        against.append("quadrature")
    where = "autoregressive" if ordered else "coupling"
    cells = [
        name,
        f"`{kind}`" + _tails(map),
        f"{where}, turned around" if turned else where,
        context,
        base,
        "search" if kind in SEARCHED else "formula",
        " / ".join(reversed(passes) if turned else passes),
        "yes" if whole else "no",
        ", ".join(against),
    ]
    return f"| {' | '.join(cells)} |"


def _tails(map: Any) -> str:
    """Said of splines with other tails than the usual ones."""
    tails = getattr(map, "tails", "")
    if not hasattr(map, "tails") or tails == type(map)().tails:
        return ""
    return f", {tails} tails" if tails else ", no tails"


def _kinds() -> str:
    """The table of flows whose densities tests integrate."""
    text = (ROOT / "tests" / "flows" / "test_flow.py").read_text()
    return text.split("KINDS: ")[1].split("}")[0]


def _line(record: OpRecord, figures: Sequence[str]) -> str:
    doc = inspect.getdoc(getattr(bslfast.functional, record.name)) or ""
    said = _plain(doc.split("\n\n")[0]), _source(getattr(bslfast.functional, record.name))
    what, where = (text.replace("|", "\\|") for text in said)
    return f"| {' | '.join([f'`{record.name}`', what, *figures, where])} |"


def _source(thing: Any) -> str:
    source = re.search(r"Source: (.*?)(?:\n\n|\Z)", inspect.getdoc(thing) or "", re.DOTALL)
    return " ".join(source[1].split()) if source else ""


def _plain(text: str) -> str:
    """Remove the roles of reStructuredText."""
    return re.sub(r":\w+:`(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join(text.split())).replace("``", "`")


def _errors(record: OpRecord, dtype: torch.dtype) -> str:
    value = gradient = 0.0
    for case in CASES:
        if case.record is not record:
            continue
        call = case.call(dtype, SHAPE)
        names = record.differentiable(call)
        results, grads = run_with_gradients(record.function, call, names)
        expected, expected_grads = expected_with_gradients(record, call, names)
        n = max(t.numel() for t in (*results, *call.tensors.values()))
        for r, e in zip(results, expected, strict=True):
            value = max(value, errors(r, e, n).max().item())
        for name in names:
            grad, exact = grads[name], expected_grads[name]
            assert grad is not None
            assert exact is not None
            gradient = max(gradient, errors(grad, exact, n).max().item())
    return f"{value:.1f} / {gradient:.1f}"


def _ratios(name: str, measured: list[Row]) -> str:
    return "; ".join(
        f"{size}{f' ({special})' if special else ''}: {_text(ratios)}"
        for special, size, ratios in _cases(name, measured)
    )


def _text(ratios: dict[str, float]) -> str:
    return " / ".join(f"{ratio:.1f}" for ratio in ratios.values())


def _cases(name: str, measured: list[Row]) -> list[tuple[str, str, dict[str, float]]]:
    """The op's benchmark cases: rest of the name, size, and torch's times in multiples of ours."""
    found = []
    for (case, size, mode, threads), group in groups(measured).items():
        match = re.fullmatch(rf"{name}(?:\W+(.*))?", case)
        if match is None or mode != "both" or "bslfast" not in group:
            continue
        if threads != max(row["threads"] for row in measured):
            continue
        ours = group["bslfast"]["median"]
        ratios = {peer: group[peer]["median"] / ours for peer in TARGETS if peer in group}
        found.append((match[1] or "", size, ratios))
    return found


def _missed(measured: list[Row]) -> Iterator[str]:
    """Lines of the table of cases that miss TARGETS at the middle one of their sizes."""
    for name in sorted(record.name for record in RECORDS):
        cases = _cases(name, measured)
        for special in dict.fromkeys(special for special, _, _ in cases):
            sizes = [(size, ratios) for what, size, ratios in cases if what == special]
            size, ratios = sizes[len(sizes) // 2]
            missed = [peer for peer, ratio in ratios.items() if ratio < TARGETS[peer]]
            if missed:
                default = MISSED_EAGER if missed == ["torch eager"] else MISSED_COMPILE
                matching = (
                    text for pattern, text in REASONS.items() if re.fullmatch(pattern, name)
                )
                why = next(matching, default)
                label = f"`{name}`{f' ({special})' if special else ''}, {size}"
                yield f"| {label} | {_text(ratios)} | {why} |"


if __name__ == "__main__":
    main()
