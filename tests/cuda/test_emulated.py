"""The CUDA kernels of pointwise ops, run on the CPU thread by thread, against the CPU's own.

So what a thread reads, draws, computes, sums and writes is tested where there is no GPU. Launches
themselves are not: test_device.py needs a GPU.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pybind11
import pytest
import torch
from ops import CASES
from ops.record import (
    SEED,
    Case,
    Draw,
    as_tuple,
    assert_close,
    assert_same,
    expected_with_gradients,
    run,
    run_with_gradients,
)

from bslfast._native import _cpu, cuda, normal, pointwise

SOURCES = Path(__file__).parents[2] / "csrc"
#: Of each family its ops; together every kind of noise and of result.
FAMILIES = {
    "affine_coupling": ("affine_coupling",),
    "bernoulli": ("bernoulli_log_prob",),
    "gumbel": ("gumbel_log_prob", "gumbel_rsample", "gumbel_rsample_log_prob"),
    "student_t": ("student_t_log_prob", "student_t_rsample"),
}
NAMES = [name for names in FAMILIES.values() for name in names]


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """bslfast._native._cuda with a few of its ops, compiled for the CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("emulated")
    shutil.copy(Path(__file__).with_name("emulation.h"), folder / "cuda_runtime_api.h")
    (folder / "cuda").mkdir()
    (folder / "pointwise").mkdir()
    kernels = (SOURCES / "cuda" / "pointwise_kernels.h").read_text()
    # The syntax of launches is not C++.
    kernels, n = re.subn(
        r"(\w+_kernel<[\w, ]+>)\s*<<<(.*?), kThreads, 0, stream>>>\(a\);",
        lambda m: (
            f"emulation::launch({m[1]}, {m[2]}, a, {'a.plan.lanes' if 'forward' in m[1] else '1'});"
        ),
        kernels,
        flags=re.DOTALL,
    )
    assert n == 3
    (folder / "pointwise_kernels.h").write_text(kernels)
    (folder / "cuda" / "pointwise_kernels.h").write_text(kernels)
    table = " ".join(f"X({name})" for name in NAMES)
    (folder / "pointwise" / "ops.h").write_text(f"#define BSL_POINTWISE_OPS(X) {table}\n")
    module = folder / "module.cpp"
    module.write_text(
        "#include <pybind11/pybind11.h>\n"
        "namespace bsl::cuda { void register_pointwise(pybind11::module_&); }\n"
        "PYBIND11_MODULE(emulated, m) { bsl::cuda::register_pointwise(m); }\n"
    )
    (folder / "normal.cpp").write_text('#include "cuda/normal.cu"\n')
    sources = [
        *(SOURCES / "pointwise" / f"{family}.cpp" for family in FAMILIES),
        SOURCES / "cuda" / "pointwise.cpp",
        SOURCES / "bindings" / "register_pointwise_cuda.cpp",
        folder / "normal.cpp",
        module,
    ]
    includes = [folder, SOURCES, pybind11.get_include(), sysconfig.get_path("include")]
    flags = ["-std=c++20", "-O1", "-fPIC", "-w", "-DBSL_ISA=cuda", *(f"-I{i}" for i in includes)]

    def compiled(source: Path) -> str:
        result = str(folder / f"{source.stem}.o")
        subprocess.run([compiler, *flags, "-c", str(source), "-o", result], check=True)
        return result

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "emulated.so"
    subprocess.run([compiler, "-shared", "-o", str(library), *objects, "-lpthread"], check=True)
    spec = importlib.util.spec_from_file_location("emulated", library)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def use(monkeypatch: pytest.MonkeyPatch, emulated: ModuleType, index: Callable[[int], int]) -> None:
    """Call the emulated kernels, by their own index, where the CPU's would be called."""

    def forward(op: int, *call: Any) -> int:
        partials = torch.full(
            (emulated.pointwise_partials(call[2], call[8]),), torch.nan, dtype=torch.float64
        )
        emulated.pointwise_forward(index(op), *call, partials.data_ptr(), 0)
        return 0

    def backward(op: int, *call: Any) -> None:
        emulated.pointwise_backward(index(op), *call, 0)

    monkeypatch.setattr(_cpu, "pointwise_forward", forward)
    monkeypatch.setattr(_cpu, "pointwise_backward", backward)


def by_name(emulated: ModuleType) -> Callable[[int], int]:
    """From the CPU's index of an op to the emulated one."""
    names = {entry[0]: name for name, entry in _cpu.pointwise_ops().items()}
    own = emulated.pointwise_ops()
    return lambda op: own[names[op]][0]


of_each_case = pytest.mark.parametrize(
    "case", [c for c in CASES if c.record.name in NAMES], ids=str
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@of_each_case
def test_pointwise(
    case: Case, dtype: torch.dtype, emulated: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As close to the float64 reference as the CPU's kernels have to be."""
    record = case.record
    use(monkeypatch, emulated, by_name(emulated))
    for shape in ((5, 67), (3, 2), (4097,)):
        call = case.call(dtype, shape)
        names = record.differentiable(call)
        results, grads = run_with_gradients(record.function, call, names)
        wanted, wanted_grads = expected_with_gradients(record, call, names)
        bound = record.tolerance[dtype]
        elements = torch.broadcast_shapes(*(t.shape for t in call.tensors.values())).numel()
        for actual, expected in zip(results, wanted, strict=True):
            assert_close(actual, expected, bound.value, elements=elements, label=str(shape))
        for name in names:
            actual, expected = grads[name], wanted_grads[name]
            assert actual is not None
            assert expected is not None
            assert_close(actual, expected, bound.gradient, elements=elements, label=name)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@of_each_case
def test_sixteen_bits(
    case: Case, low: torch.dtype, emulated: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What float32 gives for the same numbers, rounded once."""
    use(monkeypatch, emulated, by_name(emulated))
    call = case.call(low, (3, 22))
    results = run(case.record.function, call)
    exact = run(case.record.function, call.map(torch.Tensor.float))
    assert_same(results, [r.to(low) for r in exact])


@pytest.mark.parametrize("reduction", ["none", "row", "sum", None])
@pytest.mark.parametrize("samples", [None, (), (3,)], ids=str)
@pytest.mark.parametrize("parametrization", normal.PARAMETRIZATIONS)
def test_normal(
    parametrization: str,
    samples: tuple[int, ...] | None,
    reduction: str | None,
    emulated: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The three pointwise ops that stand for csrc/cpu/normal.cpp, put together as on a device."""
    draw = Draw(torch.float64)
    seed = None if samples is None else torch.tensor(SEED)
    for shape, prior_shape in (((5, 67), ()), ((4, 6), (4, 6)), ((4, 6), (6,))):
        loc, raw_scale = draw.normal(shape), draw.uniform(shape, 0.5, 2.0)
        priors = draw.normal(prior_shape), draw.uniform(prior_shape, 0.5, 2.0)
        rest = (seed, 2, 0.0, 1.0, parametrization, samples or (), reduction)
        expected = normal.forward(loc, raw_scale, *priors, *rest)
        given = [torch.randn_like(e) if e.numel() else None for e in expected]
        needs = (True, True, True, True)
        expected_grads = normal.backward(*given, loc, raw_scale, *priors, *rest, needs)
        with monkeypatch.context() as patch:
            use(patch, emulated, lambda op: op)
            patch.setattr(cuda, "pointwise_ops", emulated.pointwise_ops)
            patch.setattr(normal, "_kernels", pointwise.Kernels)
            named = (seed, 2, parametrization, samples or (), reduction)
            found = normal._forward_on_cuda(loc, raw_scale, *priors, *named)
            grads = normal._backward_on_cuda(*given, loc, raw_scale, *priors, *named, needs)
        for actual, wanted in zip(as_tuple(found), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-13, atol=1e-13)
        for actual, wanted in zip(grads, expected_grads, strict=True):
            if actual is None or wanted is None:
                assert actual is wanted or not (wanted if actual is None else actual).any()
            else:
                torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
