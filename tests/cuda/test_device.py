"""The CUDA kernels on a GPU. Without one, only test_emulated.py tests the work of a thread."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    as_tuple,
    assert_close,
    assert_extreme,
    assert_same,
    assert_same_gradients,
    expected_with_gradients,
    run,
    run_with_gradients,
)
from torch.utils.checkpoint import checkpoint

import bslfast
import bslfast.functional as BF
from bslfast._native import _cpu, cuda
from bslfast.bnn import BayesianMLP
from bslfast.cli import main
from bslfast.flows import NSF, Flow
from bslfast.nn import BayesLinear, kl
from bslfast.training import fit
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and cuda.is_built()), reason="needs a GPU and the CUDA module"
)
of_each_case = pytest.mark.parametrize("case", CASES, ids=str)
#: Ops with a slow reference: every element has a row of parameters, or is searched for.
SLOW_REFERENCES = (
    "bernstein_transform",
    "deep_sigmoidal_transform",
    "mixture_logistic_transform",
)
#: One or two cases of each kernel file, with every kind of noise, sum and layout.
ONE_OF_EACH = (
    "affine_coupling-tanh-row",
    "bernstein_transform-inverse-row",
    "bernstein_transform-row",
    "categorical_log_prob-sum",
    "deep_sigmoidal_transform-row",
    "discretized_logistic_mixture_log_prob-row-column_x",
    "gumbel_softmax_rsample-samples",
    "iwae_bound-first",
    "iwae_bound-last",
    "mixture_logistic_transform-inverse-row",
    "mixture_logistic_transform-row-wide_parameters",
    "normal_rsample_kl-softplus-sum",
    "planar-full",
    "planar-shared",
    "radial-shared",
    "rational_quadratic_spline-circular-inverse-sum",
    "rational_quadratic_spline-linear-row",
    "relaxed_bernoulli_rsample-column",
    "student_t_rsample-log_scale-samples",
)


@contextlib.contextmanager
def debugging_waits(mode: str) -> Iterator[None]:
    """Make waiting for the device an error, or a warning."""
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check(case: Case, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Values and gradients against the float64 reference on the CPU."""
    record = case.record
    call = case.call(dtype, shape)
    names = record.differentiable(call)
    expected, expected_grads = expected_with_gradients(record, call, names)
    on_device = call.map(lambda t: t.cuda())
    results, grads = run_with_gradients(record.function, on_device, names)
    elements = max(t.numel() for t in (*results, *call.tensors.values()))
    bound = record.tolerance[dtype]
    for actual, wanted in zip(results, expected, strict=True):
        assert actual.is_cuda
        assert_close(actual.cpu(), wanted, 2 * bound.value, elements=elements, label=str(shape))
    for name in names:
        actual, wanted = grads[name], expected_grads[name]
        if actual is not None and wanted is not None:
            assert_close(actual.cpu(), wanted, 2 * bound.gradient, elements=elements, label=name)


@pytest.mark.parametrize("case", [c for c in CASES if str(c) in ONE_OF_EACH], ids=str)
def test_one_of_each_kernel(case: Case) -> None:
    """Cases are small enough for tools/gpu_check.py to run them under compute-sanitizer."""
    for dtype in (torch.float32, torch.float64):
        check(case, dtype, (3, 37))


def test_there_is_one_of_each_kernel() -> None:
    assert {str(c) for c in CASES} >= set(ONE_OF_EACH)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@of_each_case
def test_agrees_with_the_reference(case: Case, dtype: torch.dtype) -> None:
    largest = (9, 131) if case.record.name in SLOW_REFERENCES else (64, 257)
    for shape in ((5, 67), (3, 2), largest):
        check(case, dtype, shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("record", "extreme"),
    [
        pytest.param(record, extreme, id=f"{record.name}-{extreme.name}")
        for record in RECORDS
        for extreme in record.extremes
    ],
)
def test_extreme_values(record: OpRecord, extreme: Extreme, dtype: torch.dtype) -> None:
    """A device's own functions, such as exp, would overflow early, flush or cancel here."""
    assert_extreme(record, extreme, dtype, "cuda")


@of_each_case
def test_nothing_waits_for_the_device(case: Case) -> None:
    """Neither forward nor backward reads a number or copies from the CPU."""
    call = case.call(torch.float32, (5, 67)).map(lambda t: t.cuda())
    names = case.record.differentiable(call)
    run_with_gradients(case.record.function, call, names)  # loads the kernels
    with debugging_waits("error"):
        run_with_gradients(case.record.function, call, names)


def test_what_waits_is_found() -> None:
    one = torch.ones((), device="cuda")
    with debugging_waits("error"), pytest.raises(RuntimeError, match="called a synchronizing"):
        one.item()


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@of_each_case
def test_sixteen_bits(case: Case, low: torch.dtype) -> None:
    """Results are those of float32 for the same numbers, rounded once."""
    call = case.call(low, (5, 67)).map(lambda t: t.cuda())
    results = run(case.record.function, call)
    exact = run(case.record.function, call.map(torch.Tensor.float))
    for actual, wanted in zip(results, case.record.rounded(exact, low), strict=True):
        torch.testing.assert_close(actual, wanted)


@of_each_case
def test_equal_from_run_to_run_and_on_any_stream(case: Case) -> None:
    """Results are equal to the last bit, also on a side stream that is held up."""
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
    """Rows are for a lane, for a warp and for a block."""
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
            moved = [o.to(first.device) if isinstance(o, torch.Tensor) else o for o in others]  # noqa: B023
            given = (*moved, first) if name == "categorical_log_prob" else (first, *moved)  # noqa: B023
            return getattr(BF, name)(*given, **options)  # noqa: B023

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
    """A block takes the most shared memory here."""
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
    log_prob = BF.categorical_log_prob(torch.tensor([-1, 2, 5], device="cuda"), logits)
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
    """Uniforms agree to the bit, normals to a few units of the last place."""
    for shape in ((1,), (1001,), (33, 7)):
        on_cpu = BF.standard_uniform(shape, seed=SEED, dtype=dtype)
        on_gpu = BF.standard_uniform(shape, seed=SEED, dtype=dtype, device="cuda")
        assert_same([on_gpu.cpu()], [on_cpu])
        on_cpu = BF.standard_normal(shape, seed=SEED, dtype=dtype)
        on_gpu = BF.standard_normal(shape, seed=SEED, dtype=dtype, device="cuda")
        assert_close(on_gpu.cpu(), on_cpu.double(), 8)


@pytest.mark.parametrize("stream", [1, 2**40 + 3])
def test_noise_of_other_streams_and_types(stream: int) -> None:
    """Noise in 16 bits is rounded once."""
    options: dict[str, Any] = {"seed": -(2**63) + 5, "stream": stream}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        on_cpu = BF.standard_uniform((1003,), **options, dtype=dtype)
        on_gpu = BF.standard_uniform((1003,), **options, dtype=dtype, device="cuda")
        assert_same([on_gpu.cpu()], [on_cpu])


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


@pytest.fixture
def many_rows() -> Iterator[Callable[[torch.dtype], torch.Tensor]]:
    """Makes a tensor of 2^31 + 4096 elements, all but the last two of its rows zeros."""
    rows, columns = (1 << 20) + 2, 2048

    def make(dtype: torch.dtype) -> torch.Tensor:
        if torch.cuda.mem_get_info()[0] < 5 * rows * columns * dtype.itemsize:
            pytest.skip("needs more memory")
        x = torch.zeros(rows, columns, dtype=dtype, device="cuda")
        x[-2:] = torch.linspace(-3, 3, 2 * columns, device="cuda").reshape(2, columns)
        return x

    yield make
    torch.cuda.empty_cache()


def test_more_elements_than_an_int_counts(
    many_rows: Callable[[torch.dtype], torch.Tensor],
) -> None:
    """The last rows are those of a call on them alone."""
    x = many_rows(torch.bfloat16)
    y, log_det = BF.tanh_transform(x)
    last, last_log_det = BF.tanh_transform(x[-2:].clone())
    assert_same([y[-2:], log_det[-2:]], [last, last_log_det])


@pytest.mark.parametrize("name", ["categorical_log_prob", "iwae_bound", "planar"])
def test_more_numbers_in_rows_than_an_int_counts(
    name: str, many_rows: Callable[[torch.dtype], torch.Tensor]
) -> None:
    """The last rows, and their gradients, are those of a call on them alone."""
    every = many_rows(torch.float32)
    found = []
    for x in (every.requires_grad_(), every[-2:].detach().clone().requires_grad_()):
        others = {
            "categorical_log_prob": (torch.full((len(x),), 7, device="cuda"),),
            "iwae_bound": (),
            "planar": (*torch.ones(2, x.shape[1], device="cuda"), torch.ones((), device="cuda")),
        }[name]
        given = (*others, x) if name == "categorical_log_prob" else (x, *others)
        last = as_tuple(getattr(BF, name)(*given))[-1][-2:]
        (grad,) = torch.autograd.grad(last.sum(), x)
        found.append([last.detach(), grad[-2:].clone()])
    assert_same(found[0], found[1])


def test_more_noise_than_an_int_counts() -> None:
    n, last = (1 << 31) + 4096, 4096
    if torch.cuda.mem_get_info()[0] < 5 * n:
        pytest.skip("needs more memory")
    noise = BF.standard_uniform((n,), seed=SEED, device="cuda")
    expected = torch.empty(last)
    _cpu.noise_uniform(expected.data_ptr(), last, False, SEED, 0, n - last)
    assert_same([noise[-last:].cpu()], [expected])


def captured(step: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of a step, after the warm-up that torch requires, and the step's results."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph, result


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, 0.01, capturable=True, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, 0.01, foreach=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_captured_training_step_learns(optimizer: str) -> None:
    """Each replay has fresh noise."""
    torch.manual_seed(0)
    x = torch.randn(256, 4, device="cuda")
    y = x[:, :1].sin()
    model = BayesianMLP(4, (32,), 1, device="cuda")
    moves = OPTIMIZERS[optimizer](model.parameters())

    def loss_and_gradients() -> torch.Tensor:
        moves.zero_grad(set_to_none=True)
        log_likelihood = model.likelihood.log_prob(model(x), y)
        loss = bslfast.negative_elbo(log_likelihood, kl(model), dataset_size=2560)
        loss.backward()
        return loss.detach()

    def step() -> torch.Tensor:
        loss = loss_and_gradients()
        moves.step()
        return loss

    graph, loss = captured(step)
    losses = []
    for _ in range(300):
        graph.replay()
        losses.append(loss.clone())
    early, late = torch.stack(losses[:20]).mean(), torch.stack(losses[-20:]).mean()
    assert late < 0.9 * early
    assert late.isfinite()

    # The weights do not change here, so the noise does.
    graph, loss = captured(loss_and_gradients)
    gradient = model.layers[0].weight_loc.grad
    assert gradient is not None
    seen = []
    for _ in range(2):
        graph.replay()
        seen.append((loss.clone(), gradient.clone()))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1], seen[1][1])


def test_bayes_linear() -> None:
    """Sample, divergence and product agree with the parts', and the divergence is computed only
    once.
    """
    layer = BayesLinear(37, 19, device="cuda", init_scale=0.3)
    x = torch.randn(5, 37, device="cuda", requires_grad=True)
    leaves = [x, *layer.parameters()]
    y = layer(x, seed=3)
    divergence = kl(layer)
    assert type(divergence.grad_fn).__name__ == "_NormalManyBackward"
    found = torch.autograd.grad(y.square().sum() + divergence, leaves)
    weight, weight_kl = BF.normal_rsample_kl(layer.weight_loc, layer.weight_raw_scale, seed=3)
    bias, bias_kl = BF.normal_rsample_kl(layer.bias_loc, layer.bias_raw_scale, seed=3, stream=1)
    expected_y = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(y, expected_y)
    torch.testing.assert_close(divergence, weight_kl + bias_kl)
    expected = torch.autograd.grad(expected_y.square().sum() + weight_kl + bias_kl, leaves)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("parametrization", ["softplus", "scale", "log_scale", "log_var"])
def test_many_normal_tensors(parametrization: str, dtype: torch.dtype) -> None:
    """More tensors than one launch takes, of all lengths, agree with calls for each tensor."""
    draw = Draw(torch.float64)
    shapes = [(0,), (5000,), (), (2048,), (7, 300), *[(3,)] * 50, (2049,), (0,)]
    loc = [draw.normal(s).to(dtype).cuda().requires_grad_() for s in shapes]
    raw = [draw.normal(s).abs().to(dtype).cuda().requires_grad_() for s in shapes]
    options: dict[str, Any] = {"parametrization": parametrization, "seed": SEED}
    samples, divergence = BF.normal_rsample_kl_many(loc, raw, **options)
    alone = [
        BF.normal_rsample_kl(*pair, **options, stream=i)
        for i, pair in enumerate(zip(loc, raw, strict=True))
    ]
    for sample, (wanted, _) in zip(samples, alone, strict=True):
        assert_close(sample.cpu(), wanted.double().cpu(), 2)
    expected = torch.stack([d for _, d in alone]).double().sum()
    assert_close(divergence.cpu(), expected.cpu(), 4)
    leaves = [*loc, *raw]
    grads = torch.autograd.grad((*samples, divergence), leaves, [*samples, divergence / 8])
    by_itself = torch.autograd.grad(
        [*(s for s, _ in alone), *(d for _, d in alone)],
        leaves,
        [*samples, *(divergence / 8 for _ in alone)],
    )
    for actual, wanted in zip(grads, by_itself, strict=True):
        assert_close(actual.cpu(), wanted.double().cpu(), 8)


def test_a_model_is_drawn_in_one_launch() -> None:
    """The same seed gives the same function as on the CPU."""
    model, x = BayesianMLP(4, (32, 16), 2, init_scale=0.3), torch.randn(9, 4)
    with bslfast.nn.one_draw(model, seed=3):
        on_cpu = model(x)
    model, x = model.cuda(), x.cuda()
    with bslfast.nn.one_draw(model, seed=3):
        torch.testing.assert_close(model(x).cpu(), on_cpu, rtol=1e-4, atol=1e-5)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        loss = model(x).square().sum() + kl(model)
        loss.backward()
        torch.cuda.synchronize()
    kernels = {e.key: e.count for e in profile.key_averages() if "bsl" in e.key}
    assert sum(kernels.values()) == 3, kernels  # the draw, its sum, its gradients


def test_a_chain_is_drawn_in_one_launch() -> None:
    plain = torch.nn.Sequential(
        torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16), torch.nn.Linear(16, 2)
    )
    model, x = bslfast.nn.to_bayesian(plain).cuda(), torch.randn(9, 4, device="cuda")
    (model(x).square().sum() + kl(model)).backward()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        (model(x).square().sum() + kl(model)).backward()
        torch.cuda.synchronize()
    kernels = {e.key: e.count for e in profile.key_averages() if "bsl" in e.key}
    assert sum(kernels.values()) == 3, kernels  # the draw, its sum, its gradients
    torch.manual_seed(1)
    found = model(x)
    torch.manual_seed(1)
    with bslfast.nn.one_draw(model):
        torch.testing.assert_close(model(x), found)


def test_autocast() -> None:
    """The product has 16 bits; samples and divergence are float32."""
    layer = BayesLinear(64, 32, device="cuda", init_scale=0.1)
    x = torch.randn(16, 64, device="cuda")
    parameters = list(layer.parameters())

    def loss(y: torch.Tensor) -> torch.Tensor:
        return y.float().square().mean() + kl(layer) / 1000

    with torch.autocast("cuda", dtype=torch.bfloat16):
        y = layer(x, seed=1)
        divergence = kl(layer)
        total = loss(y)
    expected_y = layer(x, seed=1)
    assert y.dtype == torch.bfloat16
    assert divergence.dtype == torch.float32
    torch.testing.assert_close(y.float(), expected_y, rtol=0.02, atol=0.02)
    torch.testing.assert_close(divergence, kl(layer))
    found = torch.autograd.grad(total, parameters)
    expected = torch.autograd.grad(loss(expected_y), parameters)
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))


def test_activation_checkpointing() -> None:
    """The forward pass that backward repeats draws the same noise."""
    model = BayesianMLP(8, (32,), 1, device="cuda", init_scale=0.3)
    x = torch.randn(64, 8, device="cuda")
    parameters = list(model.layers.parameters())

    def gradients(forward: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(5)
        loss = forward(x).square().mean() + kl(model) / 100
        return torch.autograd.grad(loss, parameters)

    def checkpointed(x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = checkpoint(model, x, use_reentrant=False)
        return y

    torch.testing.assert_close(gradients(checkpointed), gradients(model))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("case", [c for c in CASES if str(c) in ONE_OF_EACH], ids=str)
def test_on_another_than_the_current_device(case: Case) -> None:
    """Kernels run on the device of the tensors, and leave the current device alone."""
    call = case.call(torch.float32, (5, 67))
    names = case.record.differentiable(call)
    found = []
    for place in ("cuda:0", "cuda:1"):
        moved = call.map(lambda t, place=place: t.to(place))
        results, grads = run_with_gradients(case.record.function, moved, names)
        assert {str(r.device) for r in results} == {place}
        assert {str(g.device) for g in grads.values() if g is not None} <= {place}
        assert torch.cuda.current_device() == 0
        on_cpu = {k: None if g is None else g.cpu() for k, g in grads.items()}
        found.append(([r.cpu() for r in results], on_cpu))
    assert_same(found[1][0], found[0][0])
    assert_same_gradients(found[1][1], found[0][1])


def test_launch_errors_name_op_and_shape() -> None:
    """A grid of too many blocks is refused before anything is read."""
    n, nothing = 1 << 38, (0, (0,))
    spline = (8, 0, False, 3.0, 1e-3, 1e-3, 1e-3)
    with (
        cuda.launching(torch.empty(0, device="cuda")) as handle,
        pytest.raises(
            RuntimeError,
            match=rf"^rational_quadratic_spline of shape \[{n}\]: CUDA launch failed: \w+",
        ),
    ):
        cuda.module().rational_quadratic_forward(False, (n,), *[nothing] * 4, *spline, 0, 0, handle)
    # The error does not stay: later launches work.
    assert BF.standard_uniform((3,), seed=0, device="cuda").isfinite().all()


def wine() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]:
    x = torch.randn(256, 13)
    labels = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return BayesianMLP(13, (16,), 3, likelihood="categorical", init_scale=0.1), (x, labels), {}


def digits() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]:
    x = (torch.rand(256, 1, 1, 1) * torch.ones(8, 8) > 0.5).float()
    vae = VAE(mlp_encoder((1, 8, 8), 2, (32,)), mlp_decoder(2, (1, 8, 8), (32,)), latent=2)
    return vae, (x,), {"objective": VAE.elbo_and_kl}


def moons() -> tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]:
    angle = 3 * torch.rand(256)
    x = torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(256, 2)
    flow = NSF(2, transforms=2, hidden=(16, 16), bound=5.0)
    return flow, (x,), {"objective": Flow.log_prob, "schedule": "cosine"}


JOBS = {"wine": wine, "digits": digits, "moons": moons}
of_each_job = pytest.mark.parametrize("job", JOBS)


def waits(function: Callable[[], Any]) -> int:
    """The number of times that a function waits for the device."""
    with warnings.catch_warnings(record=True) as caught, debugging_waits("warn"):
        warnings.simplefilter("always")
        function()
    return sum("called a synchronizing" in str(w.message) for w in caught)


@of_each_job
def test_training_on_a_device(job: str) -> None:
    """The models of the jobs learn with the data on the device, and no step waits for it."""
    model, data, setting = JOBS[job]()
    untrained = copy.deepcopy(model)
    history = fit(model, data, data, epochs=20, lr=0.01, batch_size=32, device="cuda", **setting)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert history.loss[-1] < history.loss[0]
    assert history.validation_log_likelihood[-1] > history.validation_log_likelihood[0]

    def epoch(batch_size: int) -> None:
        fit(untrained, data, epochs=1, batch_size=batch_size, device="cuda", **setting)

    epoch(8)
    few, many = waits(lambda: epoch(64)), waits(lambda: epoch(8))
    assert many == few > 0


@pytest.mark.parametrize("job", JOBS)
def test_jobs_of_the_command_line(job: str, tmp_path: Path) -> None:
    for needed in ("sklearn", "matplotlib", "tqdm", "pooch", "safetensors"):
        pytest.importorskip(needed)
    command = ["train", job, "--device", "cuda", "--epochs", "2", "--no-reference"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / job / "metrics.json").read_text())
    assert report["options"]["device"] == "cuda"
    assert all(abs(value) < 1e6 for value in report["test"].values())
    more = ["--epochs", "3", "--resume"] if job != "moons" else ["--resume"]
    assert main([*command, *more, "--out", str(tmp_path)]) == 0


@of_each_job
def test_models_on_a_side_stream(job: str) -> None:
    """Forward and backward on a delayed side stream wait for nothing on the other stream."""
    model, (x, *_), setting = JOBS[job]()
    model, x = model.to("cuda"), x.to("cuda")
    parameters = [p for k, p in model.named_parameters() if not k.startswith("likelihood")]

    def loss_and_gradients(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(7)
        loss = model(x).square().mean()
        if not setting:
            loss = loss + kl(model) / 256
        return (loss.detach(), *torch.autograd.grad(loss, parameters))

    expected = loss_and_gradients(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        found = loss_and_gradients(x + 0)  # after the delay
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_compiled_by_inductor() -> None:
    """torch's compiler makes its own code around the kernels."""
    draw = Draw(torch.float32)
    loc, raw_scale = draw.normal((64, 32)).cuda(), draw.normal((64, 32)).cuda()
    leaves = [loc.requires_grad_(), raw_scale.requires_grad_()]

    def function(loc: torch.Tensor, raw_scale: torch.Tensor) -> torch.Tensor:
        sample, divergence = BF.normal_rsample_kl(2 * loc, raw_scale, seed=1)
        return sample.square().sum() + divergence

    compiled = torch.compile(function, fullgraph=True)
    for a, b in (
        (compiled(*leaves), function(*leaves)),
        (
            torch.autograd.grad(compiled(*leaves), leaves),
            torch.autograd.grad(function(*leaves), leaves),
        ),
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_compiled_training_step() -> None:
    """Scales are so small that the noise, whose seeds inductor draws, hardly counts."""
    model = BayesianMLP(4, (32,), 1, device="cuda", init_scale=1e-6)
    x = torch.randn(64, 4, device="cuda")
    y = x[:, :1].sin()
    locations = [p for k, p in model.named_parameters() if k.endswith("_loc")]

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        log_likelihood = model.likelihood.log_prob(model(x), y)
        return bslfast.negative_elbo(log_likelihood, kl(model), dataset_size=64)

    compiled = torch.compile(loss, fullgraph=True)
    torch.testing.assert_close(compiled(x, y), loss(x, y), rtol=1e-4, atol=1e-4)
    found = torch.autograd.grad(compiled(x, y), locations)
    expected = torch.autograd.grad(loss(x, y), locations)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_compiled() -> None:
    """Compiled functions call the kernels, and give the same results."""
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
