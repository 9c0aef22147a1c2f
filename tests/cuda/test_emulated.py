"""The CUDA kernels, run on the CPU thread by thread, against the float64 reference.

So the reads, draws, arithmetic, sums and writes of a thread are tested without a GPU. Launches are
tested by test_device.py, which needs one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pybind11
import pytest
import torch
from ops import CASES, RECORDS
from ops.record import (
    SEED,
    Call,
    Case,
    Draw,
    Extreme,
    OpRecord,
    assert_close,
    assert_extreme,
    assert_same,
    assert_same_gradients,
    expected_with_gradients,
    run,
    run_with_gradients,
    weights,
)

import bslfast.functional as BF
from bslfast._native import _cpu, cuda, normal_many
from bslfast._precision import log_dtype
from bslfast.functional import _op, _pointwise, _rows
from bslfast.functional.normal import PARAMETRIZATIONS
from bslfast.functional.normal_many import draw_many
from bslfast.functional.rational_quadratic import EXTRA_SLOPES

SOURCES = Path(__file__).parents[2] / "csrc"
#: Ops that work on whole rows, not only on their sums.
ROWS = {*_cpu.row_ops(), *_cpu.softmax_ops()}
#: The bindings' files.
REGISTERED = (
    "noise",
    "normal_many",
    "pointwise",
    "rows",
    "softmax",
)


def without_launches(source: str) -> str:
    """Rewrite CUDA's source as C++: launches and sized shared memory have their own syntax."""
    source = re.sub(
        r"(\w+_kernel<[\w, ]+>)\s*<<<(.*?), ([\w.]+), ([\w.]+), stream>>>\((.*?)\);",
        r"emulation::launch(\2, \3, \4, [&] { \1(\5); });",
        source,
        flags=re.DOTALL,
    )
    assert "<<<" not in source
    return source.replace(
        "extern __shared__ double memory[];",
        "double* memory = reinterpret_cast<double*>(emulation::shared);",
    )


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """bslfast._native._cuda, compiled for the CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    folder = tmp_path_factory.mktemp("emulated")
    shutil.copy(Path(__file__).with_name("emulation.h"), folder / "cuda_runtime_api.h")
    (folder / "cuda").mkdir()
    (folder / "core").mkdir()
    (folder / "core" / "approximate.h").touch()  # emulation.h has it
    for source in (SOURCES / "cuda").iterdir():
        (folder / "cuda" / source.name).write_text(without_launches(source.read_text()))
    (folder / "rows").mkdir()
    for source in (SOURCES / "rows").glob("*.cpp"):
        (folder / "rows" / source.name).write_text(without_launches(source.read_text()))
    module = folder / "module.cpp"
    declared = " ".join(f"void register_{n}(pybind11::module_&);" for n in REGISTERED)
    called = " ".join(f"bsl::register_{n}(m);" for n in REGISTERED)
    module.write_text(
        "#include <pybind11/pybind11.h>\n"
        f"namespace bsl {{ {declared} }}\n"
        f"PYBIND11_MODULE(emulated, m) {{ {called} }}\n"
    )
    sources = [
        *(folder / "cuda").glob("*.cu"),
        *(SOURCES / "pointwise").glob("*.cpp"),
        *(folder / "rows").glob("*.cpp"),
        *(SOURCES / "bindings" / f"register_{name}.cpp" for name in REGISTERED),
        SOURCES / "cuda" / "pointwise.cpp",
        module,
    ]
    # Headers of csrc/cuda stand for those of csrc/cpu of the same names.
    includes = [folder, folder / "cuda", SOURCES]
    includes += [pybind11.get_include(), sysconfig.get_path("include")]
    # -Og compiles a third faster than -O1.
    flags = ["-std=c++20", "-Og", "-fPIC", "-w", "-DBSL_ISA=cuda", *(f"-I{i}" for i in includes)]
    flags += ["-D__CUDACC__", "-D__CUDA_ARCH__=900", "-include", "cuda_runtime_api.h"]
    # A device refuses accesses that are not aligned. Here the process ends, and Python says where.
    flags += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]

    def compiled(source: Path) -> str:
        result = str(folder / f"{source.stem}.o")
        command = [compiler, *flags, "-x", "c++", "-c", str(source), "-o", result]
        subprocess.run(command, check=True)
        return result

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "emulated.so"
    subprocess.run([compiler, "-shared", "-o", str(library), *objects], check=True)
    spec = importlib.util.spec_from_file_location("emulated", library)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_divisions(tmp_path: Path) -> None:
    """Division by multiplication is exact for every index of 63 bits, also next to multiples."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    source, program = tmp_path / "divisions.cpp", tmp_path / "divisions"
    source.write_text(
        """
#include <cstdio>
#include "cuda/block.h"
int main() {
  uint64_t state = 1, n_checked = 0;
  const auto random = [&] { return state = state * 6364136223846793005u + 1442695040888963407u; };
  for (int i = 0; i < 200000; ++i) {
    // Sizes and indices of every magnitude.
    uint64_t size = random() >> (1 + (random() >> 40) % 62);
    if (i < 5000) size = i;
    if (i % 7 == 0) size = (uint64_t{1} << (1 + i % 62)) + i % 3 - 1;
    if (size < 2) continue;
    const bsl::Divider divider(static_cast<int64_t>(size));
    const uint64_t largest = (uint64_t{1} << 63) - 1;
    const uint64_t near = (random() >> 1) / size * size;
    for (const uint64_t n : {uint64_t{0}, size - 1, size, near, near - 1, near + size - 1, largest,
                             largest / size * size - 1, random() >> (1 + (random() >> 40) % 62)}) {
      if (n > largest) continue;
      if (bsl::quotient(n, divider) != n / size) {
        std::printf("%llu / %llu", (unsigned long long)n, (unsigned long long)size);
        return 1;
      }
      ++n_checked;
    }
  }
  return n_checked < 1000000;
}
"""
    )
    shutil.copy(Path(__file__).with_name("emulation.h"), tmp_path / "cuda_runtime_api.h")
    flags = ["-std=c++20", "-O1", "-w", f"-I{tmp_path}", f"-I{SOURCES}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    found = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@contextlib.contextmanager
def as_on_a_device(emulated: ModuleType) -> Iterator[None]:
    """Inside, tensors on the CPU count as a device's, and the device's kernels are emulated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "holds", lambda tensor: True)
        patch.setattr(cuda, "module", lambda: emulated)
        patch.setattr(cuda, "pointwise_ops", emulated.pointwise_ops)
        patch.setattr(cuda, "launching", lambda tensor: contextlib.nullcontext(0))
        # The direct route is the CPU's own.
        for module in (_op, _pointwise, _rows):
            patch.setattr(module, "in_common", lambda tensors: 0)
        yield


of_each_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@of_each_case
def test_values(case: Case, dtype: torch.dtype, emulated: ModuleType) -> None:
    """Results are as close to the float64 reference as the CPU's must be."""
    record = case.record
    for shape in ((5, 67), (3, 2), (130,) if record.name in ROWS else (4097,)):
        call = case.call(dtype, shape)
        names = record.differentiable(call)
        with as_on_a_device(emulated):
            results, grads = run_with_gradients(record.function, call, names)
        wanted, wanted_grads = expected_with_gradients(record, call, names)
        bound = record.tolerance[dtype]
        elements = max(t.numel() for t in (*results, *call.tensors.values()))
        for actual, expected in zip(results, wanted, strict=True):
            assert_close(actual, expected, bound.value, elements=elements, label=str(shape))
        for name in names:
            actual, expected = grads[name], wanted_grads[name]
            assert actual is not None
            assert expected is not None
            assert_close(actual, expected, bound.gradient, elements=elements, label=name)


@pytest.mark.parametrize(
    ("record", "extreme"),
    [
        pytest.param(record, extreme, id=f"{record.name}-{extreme.name}")
        for record in RECORDS
        for extreme in record.extremes
    ],
)
def test_extreme_values(record: OpRecord, extreme: Extreme, emulated: ModuleType) -> None:
    """Nothing overflows early or cancels, and only NaN becomes NaN."""
    with as_on_a_device(emulated):
        for dtype in (torch.float32, torch.float64):
            assert_extreme(record, extreme, dtype)


@of_each_case
def test_nothing(case: Case, emulated: ModuleType) -> None:
    """A call without rows works: a launch of no blocks would be an error."""
    call = case.call(torch.float32, (0, 3))
    names = case.record.differentiable(call)
    with as_on_a_device(emulated):
        results, grads = run_with_gradients(case.record.function, call, names)
    expected, expected_grads = run_with_gradients(case.record.function, call, names)
    assert_same(results, expected)
    assert_same_gradients(grads, expected_grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("components", [21, 64])
def test_many_components(components: int, dtype: torch.dtype, emulated: ModuleType) -> None:
    """Rows fill the shared memory of a block, and are slices of one tensor."""
    draw = Draw(dtype)
    rows = draw.normal((2, 70, 3 * components)).split(components, dim=-1)
    tensors = {"x": draw.normal((2, 70)), **dict(zip(("a", "b", "c"), rows, strict=True))}
    names = list(tensors)
    for name in ("mixture_logistic_transform", "discretized_logistic_mixture_log_prob"):
        record = next(r for r in RECORDS if r.name == name)

        def on_device(record: OpRecord = record, **tensors: torch.Tensor) -> Any:
            return record.function(*tensors.values(), reduction="row")

        def reference(record: OpRecord = record, **tensors: torch.Tensor) -> Any:
            return record.reference(*tensors.values(), reduction="row")

        with as_on_a_device(emulated):
            results, grads = run_with_gradients(on_device, Call(tensors), names)
        in_double = Call({k: t.double() for k, t in tensors.items()})
        given = [w.double() for w in weights(results)]
        expected, expected_grads = run_with_gradients(reference, in_double, names, given)
        bound = record.tolerance[dtype]
        for actual, wanted in zip(results, expected, strict=True):
            assert_close(actual, wanted, bound.value, elements=140)
        for key in names:
            assert_close(grads[key], expected_grads[key], bound.gradient, elements=140, label=key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_of_a_whole_block(dtype: torch.dtype, emulated: ModuleType) -> None:
    """Rows are longer than a warp adds up, also with options that change results."""
    draw = Draw(dtype)
    logits, index = draw.normal((3, 2500), std=2.0), torch.tensor([0, 2499, 7])
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("categorical_log_prob", (index,), {"reduction": "sum"}),
        ("categorical_log_prob", (index.reshape(3, 1),), {}),
        ("gumbel_softmax_rsample", (0.7,), {"seed": SEED}),
        ("gumbel_softmax_rsample", (0.7,), {"seed": SEED, "hard": True, "sample_shape": (2,)}),
        ("iwae_bound", (), {"estimator": "dreg"}),
        ("iwae_bound", (), {"dim": 0, "estimator": "dreg"}),
    ]
    for name, others, options in calls:
        function, call = getattr(BF, name), Call({"logits": logits})

        def by_logits(logits: torch.Tensor) -> torch.Tensor:
            first = (*others, logits) if name == "categorical_log_prob" else (logits, *others)  # noqa: B023
            return function(*first, **options)  # noqa: B023

        with as_on_a_device(emulated):
            results, grads = run_with_gradients(by_logits, call, ["logits"])
        expected, expected_grads = run_with_gradients(by_logits, call, ["logits"])
        if options.get("hard"):
            assert_same(results, expected)
        assert_close(results[0], expected[0].double(), 16, label=name)
        assert_close(grads["logits"], expected_grads["logits"].double(), 16, label=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (33, 129)], ids=str)
def test_noise(shape: tuple[int, ...], dtype: torch.dtype, emulated: ModuleType) -> None:
    """Noise is that of the CPU, uniforms to the bit."""
    for stream in (0, 7):
        options: dict[str, Any] = {"seed": SEED, "stream": stream, "dtype": dtype}
        expected = BF.standard_uniform(shape, **options), BF.standard_normal(shape, **options)
        with as_on_a_device(emulated):
            actual = BF.standard_uniform(shape, **options), BF.standard_normal(shape, **options)
        assert_same([actual[0]], [expected[0]])
        assert_close(actual[1], expected[1].double(), 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_many_tensors(parametrization: str, dtype: torch.dtype, emulated: ModuleType) -> None:
    """More tensors than a table holds: of no, one or many elements. Some need no gradient."""
    draw = Draw(torch.float64)
    shapes = [(0,), (5000,), (), (3, 0), (2048,), (7, 300), *[(3,)] * 50, (2049,), (0,)]
    loc = [draw.normal(s).to(dtype) for s in shapes]
    raw = [draw.normal(s).abs().to(dtype) for s in shapes]
    frozen = [loc[1], raw[4], loc[20], raw[20]]
    leaves = [t for t in (*loc, *raw) if not any(t is f for f in frozen)]
    for t in leaves:
        t.requires_grad_()
    options: dict[str, Any] = {
        "prior_loc": [0.01 * i for i in range(len(shapes))],
        "prior_scale": 0.7,
        "parametrization": parametrization,
        "seed": SEED,
        "stream": 3,
    }

    def results() -> tuple[list[torch.Tensor], Any]:
        samples, kl = BF.normal_rsample_kl_many(loc, raw, **options)
        used = [s.square().sum() for i, s in enumerate(samples) if i != 5]
        return [*samples, kl], torch.autograd.grad((*used, kl), leaves, allow_unused=True)

    with as_on_a_device(emulated):
        actual, grads = results()
    expected, expected_grads = results()
    for got, wanted in zip(actual, expected, strict=True):
        ulps = 8 if got.dtype != torch.bfloat16 else 1
        assert_close(got, wanted.double(), ulps, elements=wanted.numel())
    with as_on_a_device(emulated):
        alone = torch.full_like(actual[-1], torch.nan)
        priors = options["prior_loc"], [options["prior_scale"]] * len(loc)
        code = _cpu.PARAMETRIZATIONS.index(parametrization)
        call = normal_many.Call(code, (*loc, *raw), *priors, None, 0)
        normal_many.write_kl(alone, call)
        samples, room = draw_many(loc, raw, **options)
    assert_same([*samples, alone], actual)
    assert room is not None
    assert room.requires_grad
    # The divergence is rounded once here, and once for each tensor there.
    for got, wanted in zip(grads, expected_grads, strict=True):
        assert_close(got, wanted.double(), 2 * ulps)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_samples_on_any_dimension(dim: int, emulated: ModuleType) -> None:
    """There are more columns than in a block, and more samples than parts of a column."""
    weights = Draw(torch.float64).normal((11, 13, 37))
    call = Call({"weights": weights})
    for estimator in ("iwae", "dreg"):

        def bound(weights: torch.Tensor) -> torch.Tensor:
            return BF.iwae_bound(weights, dim=dim, estimator=estimator)  # noqa: B023

        with as_on_a_device(emulated):
            results, grads = run_with_gradients(bound, call, ["weights"])
        expected, expected_grads = run_with_gradients(bound, call, ["weights"])
        assert_close(results[0], expected[0], 4)
        assert_close(grads["weights"], expected_grads["weights"], 4)


@pytest.mark.parametrize("shape", [(600, 40), (2, 2500), (3, 0)], ids=str)
def test_one_map_for_all_rows(shape: tuple[int, int], emulated: ModuleType) -> None:
    """Gradients are summed over chunks of rows; a row takes a whole block."""
    draw = Draw(torch.float64)
    u, w, b = draw.normal(shape[1:]), draw.normal(shape[1:], std=0.1), draw.normal(())
    for name, tensors in (
        ("planar", {"u": u, "w": w, "b": b}),
        ("radial", {"z0": u, "raw_alpha": draw.normal(()), "raw_beta": b}),
    ):
        call = Call({"z": draw.normal(shape), **tensors})
        function = getattr(BF, name)
        with as_on_a_device(emulated):
            results, grads = run_with_gradients(function, call, list(call.tensors))
        expected, expected_grads = run_with_gradients(function, call, list(call.tensors))
        for actual, wanted in zip(results, expected, strict=True):
            assert_close(actual, wanted, 64, elements=max(shape), label=name)
        for key, wanted_grad in expected_grads.items():
            assert_close(grads[key], wanted_grad, 128, elements=max(shape), label=key)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bins", [1, 33, 128])
@pytest.mark.parametrize("tails", ["linear", "affine", "circular", None])
def test_bins(tails: str | None, bins: int, inverse: bool, emulated: ModuleType) -> None:
    """The least and the largest number of bins, in slices of one tensor, agree with the CPU."""
    draw = Draw(torch.float64)
    sizes = [bins, bins, bins + EXTRA_SLOPES[tails]]
    limit = 2.99 if tails is None else 4.0
    parameters = draw.normal((7, 5, sum(sizes))).split(sizes, dim=-1)
    tensors = {"x": draw.uniform((7, 5), -limit, limit)}
    tensors |= dict(zip(("widths", "heights", "derivatives"), parameters, strict=True))
    call = Call(tensors, {"tails": tails, "inverse": inverse, "min_derivative": 0.1})
    names = list(tensors)
    with as_on_a_device(emulated):
        results, grads = run_with_gradients(BF.rational_quadratic_spline, call, names)
    expected, expected_grads = run_with_gradients(BF.rational_quadratic_spline, call, names)
    # Knots differ by rounding, and slopes by their change within that difference.
    for actual, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-11, atol=1e-11)
    for key in names:
        torch.testing.assert_close(grads[key], expected_grads[key], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("coefficients", [2, 21, 64])
def test_coefficients(
    coefficients: int, inverse: bool, dtype: torch.dtype, emulated: ModuleType
) -> None:
    """The least and the largest number of coefficients, about the identity, in slices of one
    tensor.
    """
    mean = math.log(math.expm1(6 / (coefficients - 1)))
    draw = Draw(dtype)
    # The inverse is of a map so smooth that y determines x.
    std = 0.1 if inverse else 1.0
    raw = draw.normal((2, 70, 3 + coefficients), mean=mean, std=std)[..., 3:]
    raw[..., 0] -= 3 + mean
    tensors = {"x": draw.normal((2, 70), std=2.4), "raw_coefficients": raw}
    call = Call(tensors, {"inverse": inverse, "reduction": "none"})
    names, record = list(tensors), next(r for r in RECORDS if r.name == "bernstein_transform")
    with as_on_a_device(emulated):
        results, grads = run_with_gradients(record.function, call, names)
    bound = record.tolerance[dtype]
    # The inverse's slope, like gradients, is as uncertain as x.
    of_slope = bound.gradient if inverse else bound.value
    for (y, log_det), expected_grads in (
        expected_with_gradients(record, call, names),
        run_with_gradients(record.function, call, names),
    ):
        assert_close(results[0], y.double(), bound.value, elements=140)
        assert_close(results[1], log_det.double(), of_slope, elements=140)
        for key in names:
            wanted = expected_grads[key].double()
            assert_close(grads[key], wanted, bound.gradient, elements=140, label=key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("inverse", [False, True])
def test_ends_of_a_polynomial(inverse: bool, dtype: torch.dtype, emulated: ModuleType) -> None:
    """Values at the ends, next to them, far out and not finite agree with the CPU."""
    end = torch.tensor(3.0, dtype=dtype)
    some = (0 * end, end, end.nextafter(0 * end), end.nextafter(2 * end), 1.5 * end, 1e30 * end)
    odd = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    x = torch.cat([torch.stack(some), -torch.stack(some), odd])
    raw = torch.tensor([-3.0, 1.0, -5.0, 2.0, 0.5], dtype=dtype)
    if inverse:
        x = BF.bernstein_transform(x, raw, reduction="none")[0]
    # The first coefficient, the last, or one between them.
    odd_raw = raw.repeat(3, 3, 1, 1)
    for i, place in enumerate((0, 2, 4)):
        odd_raw[i, :, 0, place] = odd
    few = torch.tensor([-4.0, -3.0, 0.5, 3.0, 4.0], dtype=dtype)
    steepest = torch.tensor([-3.0, *63 * [math.inf]], dtype=dtype)
    for tensors in ((x, raw), (few.expand(3, 3, -1), odd_raw), (few, steepest)):
        call = Call(dict(zip(("x", "raw_coefficients"), tensors, strict=True)))
        call = call.options_but(inverse=inverse, reduction="none")
        names = list(call.tensors)
        with as_on_a_device(emulated):
            results, grads = run_with_gradients(BF.bernstein_transform, call, names)
        expected, expected_grads = run_with_gradients(BF.bernstein_transform, call, names)
        for actual, wanted in zip(results, expected, strict=True):
            assert_close(actual, wanted.double(), 8)
        for key in names:
            assert_close(grads[key], expected_grads[key].double(), 8, label=key)


def test_outside_the_domain_is_nan(emulated: ModuleType) -> None:
    """There is no error, as an x on a device cannot be looked at."""
    draw = Draw(torch.float64)
    x = torch.tensor([-3.5, 0.0, 3.5], dtype=torch.float64)
    sizes = draw.normal((3, 2)), draw.normal((3, 2)), draw.normal((3, 3))
    with as_on_a_device(emulated):
        y, log_det = BF.rational_quadratic_spline(x, *sizes, tails=None, reduction="none")
    for result in (y, log_det):
        assert result.isnan().tolist() == [True, False, True]


def test_what_is_no_class_is_nan(emulated: ModuleType) -> None:
    """There is no error, as an index on a device cannot be looked at."""
    logits = Draw(torch.float64).normal((3, 5)).requires_grad_()
    index = torch.tensor([-1, 2, 5])
    with as_on_a_device(emulated):
        log_prob = BF.categorical_log_prob(index, logits)
        total = BF.categorical_log_prob(index, logits, reduction="sum")
        (grad,) = torch.autograd.grad(log_prob.sum(), logits)
        none = BF.categorical_log_prob(index, logits[:, :0])
    assert log_prob.isnan().tolist() == [True, False, True]
    assert total.isnan()
    assert grad.isnan().all(-1).tolist() == [True, False, True]
    assert none.isnan().all()


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@of_each_case
def test_sixteen_bits(case: Case, low: torch.dtype, emulated: ModuleType) -> None:
    """Results are those of float32 for the same numbers, rounded once."""
    call = case.call(low, (3, 22))
    names = case.record.differentiable(call)
    with as_on_a_device(emulated):
        results = run(case.record.function, call)
        exact = run(case.record.function, call.map(torch.Tensor.float))
        given = weights(results)
        _, grads = run_with_gradients(case.record.function, call, names, given)
        _, exact_grads = run_with_gradients(
            case.record.function,
            call.map(torch.Tensor.float),
            names,
            [g.float() for g in given],
        )
    assert_same(results, case.record.rounded(exact, low))
    rounded = {k: None if g is None else g.to(low) for k, g in exact_grads.items()}
    assert_same_gradients(grads, rounded)


def layouts(draw: Draw) -> dict[str, torch.Tensor]:
    """Tensors of shape [6, 8] in which one access reaches a group, or seems to."""
    shape = (6, 8)
    aligned = draw.normal((7, 16))
    return {
        "contiguous": draw.normal(shape),
        "offset by one": draw.normal((49,))[1:].view(shape),
        "offset by a group": draw.normal((52,))[4:].view(shape),
        "part of rows": aligned[:6, :8],
        "part of rows, offset": aligned[1:, 3:11],
        "rows that are no groups": draw.normal((6, 9))[:, :8],
        "every other": aligned[:6, ::2],
        "transposed": draw.normal((8, 6)).t(),
        "one row": draw.normal((8,)).expand(shape),
        "one row, offset": draw.normal((9,))[1:].expand(shape),
        "one column": draw.normal((6, 1)).expand(shape),
        "one number": draw.normal(()).expand(shape),
    }


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("layout", list(layouts(Draw(torch.float32))))
def test_layouts(layout: str, dtype: torch.dtype, emulated: ModuleType) -> None:
    """Layouts of arguments and of incoming gradients do not change results, to the last bit."""
    others = layouts(Draw(dtype))
    x = others[layout]
    plain = x.clone(memory_format=torch.contiguous_format)
    by_log = layouts(Draw(log_dtype(dtype), 1))[layout]
    plain_by_log = by_log.clone(memory_format=torch.contiguous_format)

    def gradients(*tensors: torch.Tensor, given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        leaves = [t.detach().requires_grad_() for t in tensors]
        y, log_det = BF.affine_coupling(*leaves, reduction="none")
        return [y, log_det, *torch.autograd.grad((y, log_det), leaves, given)]

    with as_on_a_device(emulated):
        for other in others.values():
            for tensors in ((x, other, other), (other, x, plain), (other, other, x)):
                actual = gradients(*tensors, given=(x, by_log))
                copies = [t.clone(memory_format=torch.contiguous_format) for t in tensors]
                assert_same(actual, gradients(*copies, given=(plain, plain_by_log)), layout)


@pytest.mark.parametrize("numel", [1, 127, 128, 129, (1 << 23) - 1, (1 << 23) + 5])
def test_every_element_is_written_once(numel: int, emulated: ModuleType) -> None:
    """All elements are written, for any number of them, also without a sum."""
    x = torch.arange(numel, dtype=torch.float32) - 3
    with as_on_a_device(emulated):
        y, log_det = BF.leaky_relu_transform(x, negative_slope=0.5, reduction="none")
    assert torch.equal(y, torch.where(x < 0, 0.5 * x, x))
    assert torch.equal(log_det != 0, x < 0)
