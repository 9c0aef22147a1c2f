"""Write docs/catalogue.md from the ops' docstrings, their records in tests/ops, and benchmarks.

python tools/catalogue.py runs/bench/results.json
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import bslfast.functional

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
for each. Forward-mode derivatives run the plain-torch twin. Made of `normal_rsample_kl`, and not
listed by themselves: `bayes_linear` and `normal_rsample_kl_many`.

Errors are the largest found with the inputs of the tests ({shape}) against the float64 twin, in
eps of the size of the terms (1.2e-7 in float32, 2.2e-16 in float64), values / gradients. Ratios are
times of plain torch over times of bslfast, forward + backward, at the most threads measured:
eager / `torch.compile` at each size.

| op | what it computes | float32 | float64 | times faster than torch, by size | source |
|---|---|---|---|---|---|
"""
SHAPE = (64, 67)

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


def main() -> None:
    measured = rows(Path(sys.argv[1])) if len(sys.argv) > 1 else []
    lines = [_line(record, measured) for record in sorted(RECORDS, key=lambda r: r.name)]
    text = HEADER.replace("{shape}", f"{SHAPE[0]} x {SHAPE[1]}") + "\n".join(lines) + "\n"
    if measured:
        text += MISSED + "\n".join(_missed(measured)) + "\n"
    (ROOT / "docs" / "catalogue.md").write_text(text)


def _line(record: OpRecord, measured: list[Row]) -> str:
    doc = inspect.getdoc(getattr(bslfast.functional, record.name)) or ""
    source = re.search(r"Source: (.*?)(?:\n\n|\Z)", doc, re.DOTALL)
    cells = [
        f"`{record.name}`",
        _plain(doc.split("\n\n")[0]),
        _errors(record, torch.float32),
        _errors(record, torch.float64),
        _ratios(record.name, measured),
        " ".join(source[1].split()) if source else "",
    ]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


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
