"""The cases of these benchmarks on a GPU, and whole steps of networks: `make gpu-check`.

python benchmarks/gpu.py --out DIR [--device cuda] [--seconds 300] [--modules test_rows ...]

Times are medians over batches of calls between two events on the device, after warm-up, divided by
the number of calls. Where the CPU launches more slowly than the device works, they include the gaps
between kernels. Three things are measured:

* ops at up to 64M elements, too many for any cache, beside a copy of as many bytes on the device;
  then ops at their own sizes, most of which stay in the L2 cache from one call to the next. The
  copy stays there too, so it is a fair comparison, but not the speed of memory;
* steps of small tensors, which wait for the CPU: one by one, and captured in a CUDA graph;
* steps of BayesianMLP beside those of the same network with plain weights.

Results are compared first, and differences are reported. The most important cases come first. Cases
without time are left out and named. Files are written anew after every case. --resume skips the
cases that gpu.json names, and so goes on after a case that has cost the device.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from eager import EagerLinear
from harness import Case, as_tuple, differentiable
from torch import Tensor, nn

from bslfast._files import atomic, write_json
from bslfast.bnn import BayesianMLP
from bslfast.nn import kl as kl_of

MODULES = (
    *("networks", "small", "test_normal", "test_affine_coupling", "test_likelihoods"),
    *("test_bijectors", "test_rows", "test_rational_quadratic", "test_distributions"),
)
MODES = ("forward", "both")
#: Exit status of a process that has lost the device: begin again with --resume.
LOST = 9
#: Cases that come before all others.
FIRST = (
    *("normal_rsample_kl", "rational_quadratic_spline", "affine_coupling", "tanh_transform"),
    *("bernoulli_log_prob", "rational_quadratic_spline inverse", "categorical_log_prob", "planar"),
    *("mixture_logistic_transform", "normal_log_prob", "gumbel_softmax_rsample", "iwae_bound"),
    *("normal_rsample", "discretized_logistic_mixture_log_prob", "normal_kl", "standard_normal"),
)
#: The largest size, [rows, columns], or its number of elements for cases whose sizes are numbers.
LARGE = (1 << 18, 256)
#: The largest size of cases with a row of parameters per element, or with samples first.
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
#: Steps that wait for the CPU: a module with a case, and its size; or a network's widths and batch.
SMALL: dict[str, tuple[str | None, Any]] = {
    "normal_rsample_kl, 651 elements": ("test_normal", 651),
    "rational_quadratic_spline, [64, 2]": ("test_rational_quadratic", (64, 2)),
    "BayesianMLP 11-50-1, batch 100": (None, ((11, 50, 1), 100)),
}
NETWORK = (784, 1200, 1200, 10)
BATCHES = (128, 4096)
# Targets: see `targets`.
NETWORK_RATIO, SMALL_RATIO, SPLINE_RATIO = 1.3, 5.0, 2.0
#: Targets as shares of a copy's speed. normal_rsample_kl has more arithmetic than the others.
COPY_SHARES = {"normal_rsample_kl": 0.7, "": 0.85}

Row = dict[str, Any]
Step = Callable[[], Any]


def seconds(step: Step, device: str, batches: int = 7, least: float = 0.004) -> float:
    """The median time of a step over batches, each of at least ``least`` seconds."""
    for _ in range(5):
        step()
    n = min(200, max(1, math.ceil(least / _batch_seconds(step, device, 1))))
    return statistics.median(_batch_seconds(step, device, n) for _ in range(batches))


def _batch_seconds(step: Step, device: str, n: int) -> float:
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(n):
            step()
        return (time.perf_counter() - start) / n
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(n):
        step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / n


def in_graph(step: Step) -> Step:
    """The step as a CUDA graph, after the warm-up that torch requires."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def stepper(function: Callable[..., Any], inputs: Sequence[Tensor], mode: str) -> Step:
    wanted = [t for t in inputs if t.requires_grad]
    if mode == "forward":

        def forward() -> Any:
            with torch.no_grad():
                return function(*inputs)

        return forward
    grads = [torch.randn_like(o) for o in differentiable(function(*inputs))]
    return lambda: torch.autograd.grad(differentiable(function(*inputs)), wanted, grads)


def moved_bytes(case: Case, inputs: Sequence[Tensor], mode: str) -> int:
    """The bytes that a kernel moves if it reads and writes every number once."""
    with torch.no_grad():
        outputs = as_tuple(case.ours(*inputs))
    # Noise takes only the shape of its input.
    is_read = not case.name.startswith("standard_")
    read = sum(t.untyped_storage().nbytes() for t in inputs if is_read)
    written = sum(o.untyped_storage().nbytes() for o in outputs)
    if mode == "forward":
        return read + written
    grads = sum(t.untyped_storage().nbytes() for t in inputs if t.requires_grad)
    return 2 * (read + written) + grads


def copy_seconds(moved: int, device: str) -> float:
    """The time of a copy that reads and writes ``moved`` bytes in all."""
    source = torch.empty(max(1, moved // 2), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return seconds(lambda: target.copy_(source), device)


class Report:
    """The measurements so far, in gpu.json and gpu.md."""

    def __init__(self, out: Path, device: str, resume: bool) -> None:
        self.out, self.device = out, device
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        self.content: dict[str, Any] = {
            "device": name, "torch": torch.__version__, "begun": [], "done": [], "rows": [],
            "failed": {}, "left_out": [],
        }  # fmt: skip
        if resume and (out / "gpu.json").exists():
            self.content |= json.loads((out / "gpu.json").read_text()) | {"left_out": []}

    def rows(self, kind: str) -> list[Row]:
        return [row for row in self.content["rows"] if row["kind"] == kind]

    def row(self, kind: str, case: str, **more: Any) -> Row:
        """Add an empty row and return it."""
        row: Row = {"kind": kind, "case": case, **more}
        self.content["rows"].append(row)
        return row

    def write(self) -> None:
        write_json(self.out / "gpu.json", self.content)
        with atomic(self.out / "gpu.md") as temporary:
            temporary.write_text(text(self))


# --- ops ------------------------------------------------------------------------------------------


def measure(report: Report, case: Case, size: Any) -> None:
    """Time every implementation, and a copy of the same bytes, forward and with backward."""
    torch.manual_seed(0)
    device = report.device
    # The default device is set only here: it would cost every timed call of torch microseconds.
    with torch.device(device):
        inputs = case.inputs(size)
    rows = {}
    for mode in MODES:
        if mode in case.modes:
            moved = moved_bytes(case, inputs, mode)
            rows[mode] = report.row(
                "op", case.name, mode=mode, size=size, elements=inputs[0].numel(), bytes=moved,
                copy=copy_seconds(moved, device),
            )  # fmt: skip
    for name, function in case.implementations().items():
        differs = None
        if name == "torch.compile":
            # The results are not compared: eager torch's are, and this is eager torch compiled. A
            # check would have other sizes, and torch would then compile for any size.
            torch._dynamo.reset()
            tuned = "max-autotune-no-cudagraphs" if device == "cuda" else None
            function = torch.compile(function, mode=tuned)
        else:
            try:
                with torch.device(device):
                    case.check(case.ours, function, inputs)
            except AssertionError as error:  # a peer's errors grow with the number of elements
                differs = str(error).strip().splitlines()[:3]
        for mode, row in rows.items():
            row[name] = seconds(stepper(function, inputs, mode), device)
            if differs is not None:
                row[f"{name} differs"] = differs
        report.write()  # after each: torch.compile comes last, and may take long


def ops(report: Report, modules: Sequence[str]) -> Iterator[tuple[str, Step]]:
    """All cases at the largest size, then at their own sizes."""
    cases = [
        case
        for name in modules
        if name.startswith("test_")
        for case in importlib.import_module(name).CASES
    ]
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    cases.sort(key=lambda case: ranks.get(case.name, len(ranks)))
    chosen: list[tuple[Case, Any]] = []
    if report.device == "cuda":
        for case in cases:
            size = next(iter(case.sizes.values()))
            large = math.prod(LARGE) if isinstance(size, int) else LARGE
            chosen.append((case, LARGE_OF.get(case.name, large)))
    chosen += [(case, size) for case in cases for size in case.sizes.values()]
    for case, size in chosen:
        yield f"{case.name} {size}", lambda case=case, size=size: measure(report, case, size)


# --- steps that wait for the CPU, and networks ----------------------------------------------------


def eager_and_graph(row: Row, name: str, step: Step, device: str) -> None:
    row[name] = seconds(step, device)
    if device == "cuda":
        try:
            row[f"{name}, graph"] = seconds(in_graph(step), device)
        except RuntimeError as error:  # something of a peer's that no graph can hold
            row[f"{name}, graph failed"] = str(error).strip().splitlines()[:3]


class EagerNetwork(nn.Module):
    """Dense layers as one writes them by hand; returns (outputs, kl)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EagerLinear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kl = x.new_zeros(())
        layers: Sequence[Any] = list(self.layers)
        for index, layer in enumerate(layers):
            x, layer_kl = layer.both(torch.relu(x) if index else x)
            kl = kl + layer_kl
        return x, kl


def network(
    implementation: str, widths: tuple[int, ...]
) -> tuple[nn.Module, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """A model, and a function of x that returns (outputs, kl)."""
    if implementation == "torch eager":
        eager = EagerNetwork(widths)
        return eager, eager
    law = "categorical" if widths[-1] > 1 else "normal"
    bayesian = BayesianMLP(widths[0], widths[1:-1], widths[-1], likelihood=law)
    if implementation == "bslfast":
        return bayesian, lambda x: (bayesian(x), kl_of(bayesian))
    twin = bayesian.deterministic_twin()
    return twin, lambda x: (twin(x), x.new_zeros(()))


def network_step(
    implementation: str, widths: tuple[int, ...], batch: int, optimizer: bool, device: str
) -> Step:
    """Forward and backward of a network, with or without Adam."""
    torch.manual_seed(0)
    with torch.device(device):
        model, call = network(implementation, widths)
        x = torch.randn(batch, widths[0])
    parameters = [p for name, p in model.named_parameters() if "likelihood" not in name]
    moves = None
    if optimizer:
        moves = torch.optim.Adam(parameters, 1e-3, fused=True, capturable=x.is_cuda)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        y, kl = call(x)
        (y.square().mean() + kl / 1000).backward()
        if moves is not None:
            moves.step()

    return step


def measure_network(report: Report, batch: int, optimizer: bool) -> None:
    widths = "-".join(map(str, NETWORK))
    row = report.row(
        "network", f"BayesianMLP {widths}, batch {batch}" + (", with Adam" if optimizer else "")
    )
    for name in ("bslfast", "nn.Linear"):
        step = network_step(name, NETWORK, batch, optimizer, report.device)
        eager_and_graph(row, name, step, report.device)
        report.write()


def measure_small(report: Report, name: str) -> None:
    """Time a small step, forward and backward."""
    module, size = SMALL[name]
    row = report.row("small", name)
    for implementation in ("bslfast", "torch eager"):
        if module is None:
            step = network_step(implementation, *size, False, report.device)
        else:
            torch.manual_seed(0)
            case = importlib.import_module(module).CASES[0]
            with torch.device(report.device):
                inputs = case.inputs(size)
            step = stepper(case.implementations()[implementation], inputs, "both")
        eager_and_graph(row, implementation, step, report.device)
        report.write()


def jobs(report: Report, modules: Sequence[str]) -> Iterator[tuple[str, Step]]:
    """All measurements by name, the most important first."""
    if "networks" in modules:
        for optimizer, batch in itertools.product((False, True), BATCHES):
            yield (
                f"network of batch {batch}" + (" with Adam" if optimizer else ""),
                lambda batch=batch, optimizer=optimizer: measure_network(report, batch, optimizer),
            )
    if "small" in modules:
        for name in SMALL:
            yield f"small: {name}", lambda name=name: measure_small(report, name)
    yield from ops(report, modules)


# --- the table ------------------------------------------------------------------------------------


def targets(report: Report) -> Iterator[tuple[str, list[tuple[str, float, bool]]]]:
    """For each target its wording, and (name, figure, whether it is met) of each measurement."""
    ratios = [
        (f"{row['case']}{where}", row[f"bslfast{key}"] / row[f"nn.Linear{key}"])
        for row in report.rows("network")
        for where, key in (("", ""), (", in a graph", ", graph"))
        if f"bslfast{key}" in row and f"nn.Linear{key}" in row
    ]
    yield (
        f"step at most {NETWORK_RATIO} times that of plain weights",
        [(name, ratio, ratio <= NETWORK_RATIO) for name, ratio in ratios],
    )
    ratios = [
        (row["case"], row["torch eager"] / row["bslfast, graph"])
        for row in report.rows("small")
        if "bslfast, graph" in row and "torch eager" in row
    ]
    yield (
        f"small step in a graph at least {SMALL_RATIO:g} times as fast as eager torch",
        [(name, ratio, ratio >= SMALL_RATIO) for name, ratio in ratios],
    )
    measured = [row for row in report.rows("op") if "torch.compile" in row and "bslfast" in row]
    splines = [row for row in measured if "spline" in row["case"] and row["elements"] >= 1 << 20]
    yield (
        f"spline at least {SPLINE_RATIO:g} times as fast as torch.compile",
        _ratios(splines, "torch.compile", SPLINE_RATIO),
    )
    large = [row for row in report.rows("op") if row["elements"] >= 1 << 26 and "bslfast" in row]
    yield (
        "64M elements: at least as fast as torch.compile",
        _ratios([row for row in large if row in measured], "torch.compile", 1.0),
    )
    for name, share in COPY_SHARES.items():
        rows = [row for row in large if name == (row["case"] if row["case"] in COPY_SHARES else "")]
        yield (
            f"{name or 'others'}, 64M elements: at least {share:.0%} of a copy's speed",
            _ratios(rows, "copy", share),
        )


def _ratios(rows: Sequence[Row], other: str, least: float) -> list[tuple[str, float, bool]]:
    found = [(f"{row['case']} {row['mode']}", row[other] / row["bslfast"]) for row in rows]
    return [(name, ratio, ratio >= least) for name, ratio in found]


def text(report: Report) -> str:
    """The tables, with a summary of the targets."""
    content = report.content
    lines = [f"# Kernels on {content['device']}, torch {content['torch']}", ""]
    lines += ["| target | met | missed |", "|---|---|---|"]
    for wording, found in targets(report):
        met, missed = (
            ", ".join(f"{name} ({ratio:.2f})" for name, ratio, is_met in found if is_met == wanted)
            for wanted in (True, False)
        )
        lines.append(f"| {wording} | {met or '-'} | {(missed or '-') if found else 'no figure'} |")
    for kind, peer, title in (
        ("network", "nn.Linear", "Steps of networks"),
        ("small", "torch eager", "Small steps, forward and backward"),
    ):
        lines += ["", f"{title}, us:", ""]
        lines += [f"| | bslfast | in a graph | {peer} | in a graph |", "|---|---|---|---|---|"]
        for row in report.rows(kind):
            keys = ("bslfast", "bslfast, graph", peer, f"{peer}, graph")
            lines.append(f"| {row['case']} | " + " | ".join(_us(row, k) for k in keys) + " |")
    lines += ["", "Ops, and how many times as long others take:", ""]
    lines += [
        "| op | pass | elements | bslfast, us | share of a copy's speed | eager | torch.compile |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows("op"):
        if "bslfast" in row:
            eager, compiled = (
                f"{row[k] / row['bslfast']:.2f} x" if k in row else "-"
                for k in ("torch eager", "torch.compile")
            )
            lines.append(
                f"| {row['case']} | {row['mode']} | {row['elements']:,} | {_us(row, 'bslfast')} | "
                f"{row['copy'] / row['bslfast']:.0%} | {eager} | {compiled} |"
            )
    differing = [
        f"{row['case']} ({row['elements']:,}, {key.removesuffix(' differs')})"
        for row in report.rows("op")
        for key in row
        if key.endswith(" differs")
    ]
    broken = [name for name in content["begun"] if name not in content["done"]]
    for title, names in (
        ("Results differ", dict.fromkeys(differing)),
        ("Failed", [f"{k}: {v.splitlines()[-1]}" for k, v in content["failed"].items()]),
        ("Begun, and not done", [n for n in broken if n not in content["failed"]]),
        ("Not measured, for want of time", content["left_out"]),
    ):
        if names:
            lines += ["", f"{title}: " + "; ".join(names)]
    return "\n".join(lines) + "\n"


def _us(row: Row, key: str) -> str:
    return f"{row[key] * 1e6:.1f}" if key in row else "-"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--seconds", type=float, default=300, help="begin no case after this time")
    parser.add_argument("--resume", action="store_true", help="leave out what gpu.json names")
    options = parser.parse_args()
    report = Report(options.out, options.device, options.resume)
    begin, content = time.perf_counter(), report.content
    for name, job in jobs(report, options.modules):
        if name in content["begun"]:
            continue
        if time.perf_counter() - begin > options.seconds:
            content["left_out"].append(name)
            continue
        print(f"{time.perf_counter() - begin:6.1f} s  {name}", flush=True)
        content["begun"].append(name)
        report.write()
        try:
            job()
            content["done"].append(name)
        except Exception:
            content["failed"][name] = traceback.format_exc(limit=-3)
            print(content["failed"][name], flush=True)
        report.write()
        if options.device == "cuda":
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError as error:
                print(f"the device is lost: {error}", flush=True)
                return LOST
    report.write()
    print(text(report))
    return 1 if content["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
