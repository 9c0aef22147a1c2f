"""The cases of these benchmarks on a GPU, beside a copy of as many bytes: `make gpu-check`.

python benchmarks/gpu.py --out DIR [--device cuda] [--seconds 300] [--modules test_rows ...]

Medians of events on the device, after warm-up. Results are compared first; where they differ, it is
said. What the time does not allow is left out, and named.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import Case, as_tuple, differentiable
from torch import Tensor

MODULES = (
    *("test_normal", "test_affine_coupling", "test_likelihoods", "test_bijectors"),
    *("test_rows", "test_rational_quadratic"),
)
MODES = ("forward", "both")
#: Elements of the largest size, for cases whose sizes are [rows, columns].
LARGE = (1 << 18, 256)
#: Where an element has a row of parameters, and where samples come first.
LARGE_OF = {
    **dict.fromkeys(
        (
            "bernstein_transform",
            "deep_sigmoidal_transform",
            "discretized_logistic_mixture_log_prob",
            "mixture_logistic_transform",
            "mixture_logistic_transform inverse",
            "rational_quadratic_spline",
            "rational_quadratic_spline inverse",
        ),
        (1 << 14, 256),
    ),
    **dict.fromkeys(("iwae_bound dim=0", "iwae_bound dim=0 dreg"), (64, 1 << 20)),
}


def seconds(step: Callable[[], Any], device: str, rounds: int = 15) -> float:
    """The median time of a step."""
    for _ in range(5):
        step()
    times = []
    for _ in range(rounds):
        if device == "cpu":
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
            continue
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        step()
        events[1].record()
        torch.cuda.synchronize()
        times.append(events[0].elapsed_time(events[1]) / 1000)
    return statistics.median(times)


def stepper(function: Callable[..., Any], inputs: Sequence[Tensor], mode: str) -> Any:
    wanted = [t for t in inputs if t.requires_grad]
    if mode == "forward":

        def forward() -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    grads = [torch.randn_like(o) for o in differentiable(function(*inputs))]
    return lambda: torch.autograd.grad(differentiable(function(*inputs)), wanted, grads)


def moved_bytes(function: Callable[..., Any], inputs: Sequence[Tensor], mode: str) -> int:
    """What a kernel that reads and writes everything once moves."""
    with torch.no_grad():
        outputs = as_tuple(function(*inputs))
    read = sum(t.untyped_storage().nbytes() for t in inputs)
    written = sum(o.untyped_storage().nbytes() for o in outputs)
    if mode == "forward":
        return read + written
    grads = sum(t.untyped_storage().nbytes() for t in inputs if t.requires_grad)
    return 2 * (read + written) + grads


def copy_seconds(moved: int, device: str) -> float:
    """The time of a copy that reads and writes so many bytes in all."""
    source = torch.empty(max(1, moved // 2), dtype=torch.uint8)
    target = torch.empty_like(source)
    return seconds(lambda: target.copy_(source), device)


def measure(case: Case, size: Any, mode: str, device: str) -> dict[str, Any]:
    """One row: times of every implementation, and of a copy of the same bytes."""
    torch.manual_seed(0)
    inputs = case.inputs(size)
    bytes_moved = moved_bytes(case.ours, inputs, mode)
    row: dict[str, Any] = {
        "case": case.name,
        "mode": mode,
        "elements": inputs[0].numel(),
        "bytes": bytes_moved,
        "copy": copy_seconds(bytes_moved, device),
    }
    for name, function in case.implementations().items():
        if name == "torch.compile":
            torch._dynamo.reset()
            tuned = "max-autotune-no-cudagraphs" if device == "cuda" else None
            function = torch.compile(function, mode=tuned)
        try:
            case.check(case.ours, function, inputs)
        except AssertionError as error:  # a peer's own errors, at many more elements than elsewhere
            row[f"{name} differs"] = str(error).strip().splitlines()[:3]
        row[name] = seconds(stepper(function, inputs, mode), device)
    return row


def table(rows: Sequence[dict[str, Any]], device: str) -> str:
    lines = [
        f"# Kernels on {device}, torch {torch.__version__}",
        "",
        "| op | pass | elements | bslfast, us | share of a copy's speed | eager | torch.compile |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row["bslfast"]
        lines.append(
            f"| {row['case']} | {row['mode']} | {row['elements']:,} | {ours * 1e6:.1f} | "
            f"{row['copy'] / ours:.0%} | {row['torch eager'] / ours:.2f} x | "
            f"{row['torch.compile'] / ours:.2f} x |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--seconds", type=float, default=300, help="begin no case after this time")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_default_device(options.device)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    begin, rows, left_out = time.perf_counter(), [], []
    cases = [case for name in options.modules for case in importlib.import_module(name).CASES]
    for case in cases:
        sizes = list(case.sizes.values())
        if isinstance(sizes[0], tuple) and len(sizes[0]) == 2 and options.device == "cuda":
            sizes = [sizes[0], LARGE_OF.get(case.name, LARGE)]
        for size in sizes:
            for mode in MODES:
                if time.perf_counter() - begin > options.seconds:
                    left_out.append(f"{case.name} {size} {mode}")
                    continue
                row = measure(case, size, mode, options.device)
                print({k: v for k, v in row.items() if k != "bytes"}, flush=True)
                rows.append(row)
    text = table(rows, device)
    differing = [
        f"{row['case']} ({row['elements']:,}, {key.removesuffix(' differs')})"
        for row in rows
        for key in row
        if key.endswith(" differs")
    ]
    if differing:
        text += "\nResults differ: " + ", ".join(differing) + "\n"
    if left_out:
        text += "\nNot measured, for want of time: " + ", ".join(left_out) + "\n"
    (options.out / "gpu.json").write_text(json.dumps({"device": device, "rows": rows}, indent=1))
    (options.out / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
