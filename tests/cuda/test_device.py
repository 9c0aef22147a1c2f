"""The CUDA kernels on a GPU. Skipped without one: test_emulated.py tests what a thread does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ops import CASES
from ops.record import (
    SEED,
    Call,
    Case,
    Draw,
    as_tuple,
    assert_close,
    assert_same,
    assert_same_gradients,
    expected_with_gradients,
    run,
    run_with_gradients,
)

import bslfast.functional as BF
from bslfast._native import cuda

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and cuda.is_built()), reason="needs a GPU and the CUDA module"
)
of_each_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@of_each_case
def test_agrees_with_the_reference(case: Case, dtype: torch.dtype) -> None:
    """Values and gradients against the float64 reference on the CPU."""
    record = case.record
    for shape in ((5, 67), (3, 2), (64, 257)):
        call = case.call(dtype, shape)
        names = record.differentiable(call)
        expected, expected_grads = expected_with_gradients(record, call, names)
        on_device = call.map(lambda t: t.cuda())
        results, grads = run_with_gradients(record.function, on_device, names)
        elements = max(t.numel() for t in (*results, *call.tensors.values()))
        bound = record.tolerance[dtype]
        for actual, wanted in zip(results, expected, strict=True):
            assert actual.is_cuda
            assert_close(actual.cpu(), wanted, 2 * bound.value, elements=elements)
        for name in names:
            actual, wanted = grads[name], expected_grads[name]
            if actual is not None and wanted is not None:
                assert_close(actual.cpu(), wanted, 2 * bound.gradient, elements=elements)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@of_each_case
def test_sixteen_bits(case: Case, low: torch.dtype) -> None:
    """What float32 gives for the same numbers, rounded once."""
    call = case.call(low, (5, 67)).map(lambda t: t.cuda())
    results = run(case.record.function, call)
    exact = run(case.record.function, call.map(torch.Tensor.float))
    for actual, wanted in zip(results, exact, strict=True):
        torch.testing.assert_close(actual, wanted.to(low))


@of_each_case
def test_equal_from_run_to_run_and_on_any_stream(case: Case) -> None:
    """To the last bit, also on a side stream that is held up."""
    call = case.call(torch.float32, (64, 257)).map(lambda t: t.cuda())
    names = case.record.differentiable(call)
    expected = run_with_gradients(case.record.function, call, names)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        late = call.map(lambda t: t + 0)  # after the delay
        found = run_with_gradients(case.record.function, late, names)
    torch.cuda.current_stream().wait_stream(stream)
    assert_same(found[0], expected[0])
    assert_same_gradients(found[1], expected[1])


@pytest.mark.parametrize("columns", [1, 3, 70, 2048, 5000])
def test_rows_of_every_length(columns: int) -> None:
    """For a lane, a warp and a block."""
    draw = Draw(torch.float64)
    logits, index = draw.normal((9, columns), std=2.0), torch.arange(9) % columns
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("categorical_log_prob", (index,), {}),
        ("gumbel_softmax_rsample", (0.7,), {"seed": SEED}),
        ("iwae_bound", (), {}),
        ("iwae_bound", (), {"dim": 0, "estimator": "dreg"}),
        ("planar", (logits[0], 0.1 * logits[1], logits[2, 0]), {}),
        ("radial", (logits[0], logits[1, 0], logits[2, 0]), {}),
    ]
    for name, others, options in calls:

        def function(first: torch.Tensor) -> Any:
            moved = (o.to(first.device) if isinstance(o, torch.Tensor) else o for o in others)  # noqa: B023
            return getattr(BF, name)(first, *moved, **options)  # noqa: B023

        expected, expected_grads = run_with_gradients(function, Call({"first": logits}), ["first"])
        on_device = Call({"first": logits.cuda()})
        results, grads = run_with_gradients(function, on_device, ["first"])
        for actual, wanted in zip(results, expected, strict=True):
            assert_close(actual.cpu(), wanted, 128, elements=columns, label=name)
        grad, wanted_grad = grads["first"], expected_grads["first"]
        assert grad is not None
        assert wanted_grad is not None
        assert_close(grad.cpu(), wanted_grad, 256, elements=columns, label=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_as_many_parameters_as_there_may_be(dtype: torch.dtype) -> None:
    """A block's share of shared memory at its largest."""
    draw = Draw(dtype)
    x, rows = draw.normal((40, 7)), [draw.normal((40, 7, 64)) for _ in range(3)]
    bins = [draw.normal((40, 7, n)) for n in (128, 128, 127)]
    for name, parameters in (
        ("mixture_logistic_transform", rows),
        ("discretized_logistic_mixture_log_prob", rows),
        ("rational_quadratic_spline", bins),
        ("bernstein_transform", rows[:1]),
    ):
        function, tensors = getattr(BF, name), (x, *parameters)
        results, grads = [], []
        for device in ("cuda", "cpu"):
            leaves = [t.to(device).requires_grad_() for t in tensors]
            found = as_tuple(function(*leaves))
            results.append([r.detach().cpu() for r in found])
            total = sum(r.sum() for r in found)
            grads.append([g.cpu() for g in torch.autograd.grad(total, leaves)])
        bound = 1e-3 if dtype == torch.float32 else 1e-10
        for pair in (results, grads):
            for actual, wanted in zip(*pair, strict=True):
                torch.testing.assert_close(actual, wanted, rtol=bound, atol=bound)


def test_what_the_cpu_refuses_is_nan() -> None:
    logits = torch.zeros(3, 5, device="cuda", requires_grad=True)
    log_prob = BF.categorical_log_prob(logits, torch.tensor([-1, 2, 5], device="cuda"))
    (grad,) = torch.autograd.grad(log_prob.sum(), logits)
    assert log_prob.isnan().tolist() == [True, False, True]
    assert grad.isnan().all(-1).tolist() == [True, False, True]
    rows = torch.zeros(2, 2, device="cuda"), torch.zeros(2, 2, device="cuda")
    x = torch.tensor([0.0, 3.5], device="cuda")
    slopes = torch.zeros(2, 3, device="cuda")
    y, _ = BF.rational_quadratic_spline(x, *rows, slopes, tails=None)
    assert y.isnan().tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_noise_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    """Uniforms to the bit, normals to a few units of the last place."""
    for shape in ((1,), (1001,), (33, 7)):
        on_cpu = BF.standard_uniform(shape, seed=SEED, dtype=dtype)
        on_gpu = BF.standard_uniform(shape, seed=SEED, dtype=dtype, device="cuda")
        assert_same([on_gpu.cpu()], [on_cpu])
        on_cpu = BF.standard_normal(shape, seed=SEED, dtype=dtype)
        on_gpu = BF.standard_normal(shape, seed=SEED, dtype=dtype, device="cuda")
        assert_close(on_gpu.cpu(), on_cpu.double(), 8)


def test_graphs_draw_fresh_noise() -> None:
    """A captured step draws its seed by torch and reads it on the device."""
    loc, raw_scale = torch.zeros(1000, device="cuda"), torch.zeros(1000, device="cuda")
    BF.normal_rsample(loc, raw_scale)  # loads the module outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sample = BF.normal_rsample(loc, raw_scale)
    graph.replay()
    first = sample.clone()
    graph.replay()
    assert not torch.equal(first, sample)
    assert abs(float(first.std()) - 0.693) < 0.1


def test_more_elements_than_an_int_counts() -> None:
    """The last rows of 2^31 + 4096 elements are those of a call on them alone."""
    rows, columns = (1 << 20) + 2, 2048
    if torch.cuda.mem_get_info()[0] < 6 * rows * columns * 2:
        pytest.skip("needs more memory")
    x = torch.zeros(rows, columns, dtype=torch.bfloat16, device="cuda")
    x[-2:] = torch.linspace(-3, 3, 2 * columns, device="cuda").reshape(2, columns)
    y, log_det = BF.tanh_transform(x)
    last, last_log_det = BF.tanh_transform(x[-2:].clone())
    assert_same([y[-2:], log_det[-2:]], [last, last_log_det])


def test_compiled() -> None:
    """Kernels are called from compiled functions, too, and give the same."""
    draw = Draw(torch.float32)
    loc, raw_scale = draw.normal((64, 32)).cuda(), draw.normal((64, 32)).cuda()

    def function(loc: torch.Tensor, raw_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return BF.normal_rsample_kl(loc, raw_scale, seed=1)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_same(compiled(loc, raw_scale), function(loc, raw_scale))
    kernels = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    with kernels:
        compiled(loc, raw_scale)
    assert any("pointwise_forward_kernel" in e.key for e in kernels.key_averages())


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="raw_scale"):
        BF.normal_rsample(torch.zeros(3, device="cuda"), torch.zeros(3))
