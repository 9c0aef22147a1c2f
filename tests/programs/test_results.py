"""Programs give what ops give: values, gradients, bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flow_programs import CASES, everything, inputs, made, programs_of, sizes
from torch import Tensor, nn

import bslfast
from bslfast import programs
from bslfast._native import _cpu
from bslfast.flows import (
    AdditiveCoupling,
    Affine,
    AffineCoupling,
    BatchNorm,
    Composite,
    Conditioner,
    Coupling,
    Flow,
    Householder,
    Planar,
)
from bslfast.flows.flow import _density_steps, _sample_steps

pytestmark = pytest.mark.usefixtures("either_way")


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_by_ops(name: str) -> None:
    flow = made(name)
    for rows in (1, 33, 300):
        x, context = inputs(flow, rows)
        whole = everything(flow, x, context)
        assert [p.obstacle(x, context) for p in programs_of(flow)] == [None] * 3
        with bslfast.whole_networks(False):
            by_ops = everything(flow, x, context)
        torch.testing.assert_close(whole, by_ops, rtol=1e-8, atol=1e-9)


def subnormal(values: Tensor) -> Tensor:
    return (values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)


def test_networks_take_subnormal_numbers_for_zero() -> None:
    """Products of matrices would take many times as long with some."""
    torch.manual_seed(0)
    flow = bslfast.flows.NSF(8, transforms=2)
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_(std=3 / (p.shape[-1] ** 0.5 if p.ndim > 1 else 1))
    first = [c.layers[0].weight for c in flow.modules() if isinstance(c, Conditioner)]
    last = [c.layers[-1].weight for c in flow.modules() if isinstance(c, Conditioner)]
    x = torch.randn(512, 8)
    with bslfast.whole_networks(False):
        by_ops = torch.autograd.grad(flow.log_prob(x).sum(), last)
    assert any(subnormal(grad).any() for grad in by_ops)
    whole = torch.autograd.grad(flow.log_prob(x).sum(), first + last)
    assert not any(subnormal(grad).any() for grad in whole)
    # Threads compute with them again.
    assert subnormal(torch.full([1 << 18], 1e-38) / 3).all()


#: Flows whose noise has samples in programs.
SAMPLED = [name for name in CASES if not name.startswith("base-") or "base-normal" in name]
SAMPLED = [name for name in SAMPLED if name not in ("circular", "circular-context", "no-tails")]
SAMPLED.remove("elementwise")  # the noise is where maps are flat


def drawn(flow: Flow, n: int, context: Tensor | None) -> list[Tensor]:
    """Samples, their log densities, and gradients of both."""
    wanted = [t for t in (context, *flow.parameters()) if t is not None]
    x, log_prob = flow.rsample_and_log_prob(n, context, seed=3)
    total = (x.tanh().sum(-1) * log_prob.cos()).sum()
    grads = torch.autograd.grad(total, wanted, allow_unused=True)
    return [x, log_prob, *(g for g in grads if g is not None)]


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_the_same_as_by_ops(name: str) -> None:
    """One node of the graph, without a context; the samples are those of every other method."""
    flow = made(name)
    for n in (1, 40):
        context = None
        if flow.context:
            context = torch.randn(3, flow.context, dtype=torch.float64, requires_grad=True)
        whole = drawn(flow, n, context)
        assert "rsample_and_log_prob: one call" in flow.explain()
        if context is None:
            assert type(whole[0].grad_fn).__name__ == "_WholeBackward"
            assert whole[0].grad_fn is whole[1].grad_fn
        with bslfast.whole_networks(False):
            torch.testing.assert_close(whole, drawn(flow, n, context), rtol=1e-8, atol=1e-9)
        assert torch.equal(flow.sample(n, context, seed=3), whole[0])
        law = flow.distribution(None if context is None else context.unsqueeze(1))
        shape = (n,) if context is None else (3, n)
        if context is not None:
            law = law.expand((3, n))
        again = law.rsample_and_log_prob(() if context is not None else (n,), seed=3)
        assert again[1].shape == shape
        assert torch.equal(again[0], whole[0])
        torch.testing.assert_close(again[1], whole[1])
        assert torch.equal(law.rsample(() if context is not None else (n,), seed=3), whole[0])


@pytest.mark.parametrize("name", ["rotated-5", "base-normal-2", "maf-no-hidden"])
def test_second_derivatives_of_samples(name: str) -> None:
    flow = made(name)
    context = torch.randn(2, flow.context, dtype=torch.float64) if flow.context else None
    values = list(flow.parameters())

    def second() -> list[Tensor]:
        x, log_prob = flow.rsample_and_log_prob(3, context, seed=1)
        total = (x.sin().sum(-1) * log_prob).sum()
        first = torch.autograd.grad(total, values, create_graph=True, allow_unused=True)
        smooth = sum(g.square().sum() for g in first if g is not None)
        assert isinstance(smooth, Tensor)
        found = torch.autograd.grad(smooth, values, allow_unused=True)
        return [g for g in found if g is not None]

    found = second()
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, second(), rtol=1e-7, atol=1e-8)


def test_gradients_of_samples_are_those_of_differences() -> None:
    flow = made("base-normal-2")
    context = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    values = list(flow.parameters())

    def sampled(context: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return flow.rsample_and_log_prob(2, context, seed=1)

    assert torch.autograd.gradcheck(sampled, (context, *values))


def test_noise_without_samples_in_programs() -> None:
    flow = made("circular")
    assert "samples of a UniformBase have no steps" in flow.explain()
    assert type(flow.rsample_and_log_prob(2)[1].grad_fn).__name__ != "_WholeBackward"
    flow = made("base-normal-0")
    program = programs.lowered(flow, "sample", _sample_steps, sizes(flow))
    assert program is not None
    assert program.reason is None


HUGE = {torch.float32: (1e20, 1e38, math.inf), torch.float64: (1e200, 1e300, math.inf)}


@pytest.mark.parametrize("dtype", HUGE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_far_away(name: str, dtype: torch.dtype) -> None:
    """Where steps overflow, densities are 0; these rows have no gradient, others have theirs."""
    flow = made(name, dtype)
    near, context = inputs(flow, 40, dtype)
    far = near.detach().clone()
    for row, (size, sign) in enumerate((s, g) for s in HUGE[dtype] for g in (1, -1)):
        far[row, 0] = sign * size
        far[10 + row] = sign * size
    far[20, 0] = math.nan
    far.requires_grad_()
    wanted = [t for t in (far, context, *flow.parameters()) if t is not None and t.requires_grad]
    for on in (True, False):
        with bslfast.whole_networks(on):
            log_prob = flow.log_prob(far, context)
            known = flow.log_prob(near, context)
            assert log_prob[20].isnan()
            assert not log_prob.isnan()[torch.arange(40) != 20].any()
            assert (log_prob[torch.arange(40) != 20] < math.inf).all()
            infinite = [row + first for row in (4, 5) for first in (0, 10)]
            assert (log_prob[infinite] == -math.inf).all()
            torch.testing.assert_close(log_prob[21:], known[21:])
            lost = (log_prob == -math.inf).nonzero().flatten()
            of_lost = None if context is None else context[lost]
            grads = torch.autograd.grad(
                flow.log_prob(far[lost], of_lost).clamp(min=-1.0).sum(), wanted, allow_unused=True
            )
            assert all(g is None or (g == 0).all() for g in grads)


@pytest.mark.parametrize("factor", [30.0, 1e4])
@pytest.mark.parametrize("name", CASES)
def test_overflow_nearby(name: str, factor: float) -> None:
    """Finite parameters give no NaN, but for vectors and contexts that are none."""
    flow = made(name, torch.float32)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(factor)
    x, context = inputs(flow, 600, torch.float32)
    x = x.detach() * torch.logspace(-6, 6, 600).unsqueeze(-1)
    x[0, 0] = math.nan
    if context is not None:
        context = context.detach().clone()
        context[1, 0] = math.nan
    for on in (True, False):
        with bslfast.whole_networks(on):
            log_prob = flow.log_prob(x, context)
            assert not log_prob[2:].isnan().any()
            assert (log_prob[2:] < math.inf).all()
            assert log_prob[0].isnan()
            assert log_prob[1].isnan() == (context is not None)


def test_parameters_that_are_no_numbers_are_seen() -> None:
    """A NaN of nearby vectors stays one."""
    flow = made("realnvp-wide")
    next(flow.parameters()).data.fill_(math.nan)
    x, _ = inputs(flow, 5)
    for on in (True, False):
        with bslfast.whole_networks(on):
            assert flow.log_prob(x).isnan().all()


SEVERAL = ["realnvp-wide", "maf-no-hidden", "nsf-autoregressive", "rotated-5", "elementwise"]
SEVERAL += ["circular-context", "base-student-t-2", "base-mixture-0"]


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("isa", _cpu.isa_levels())
def test_every_instruction_set_in_float32(name: str, isa: str) -> None:
    before = _cpu.isa()
    flow, wide = made(name, torch.float32), made(name)
    x, context = inputs(flow, 70, torch.float32)
    _cpu.set_isa(isa)
    try:
        found = everything(flow, x, context)
    finally:
        _cpu.set_isa(before)
    with bslfast.whole_networks(False):
        exact = everything(
            wide,
            x.detach().double().requires_grad_(),
            None if context is None else context.detach().double().requires_grad_(),
        )
        by_ops = everything(flow, x, context)
    for value, other, right in zip(found, by_ops, exact, strict=True):
        error, allowed = (value - right).abs().max(), (other - right).abs().max()
        assert error < 16 * allowed + 1e-6 * right.abs().max()


@pytest.mark.parametrize("name", ["realnvp-wide", "maf-no-hidden", "rotated-5"])
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    flow = made(name, torch.float32)
    x, context = inputs(flow, 1000, torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(everything(flow, x, context))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_gradients_with_the_values_are_those_computed_afterwards() -> None:
    """A mean has one gradient for all rows: from the third call on there is one pass."""
    flow = made("realnvp-wide", torch.float32)
    x = torch.randn(50, 7)

    def step(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        log_prob = flow.log_prob(x)
        return log_prob.detach(), *torch.autograd.grad(loss(log_prob), list(flow.parameters()))

    program = programs.lowered(flow, "density", _density_steps, sizes(flow))
    first = step(lambda p: -p.mean())
    assert program.expected_grad is None
    second = step(lambda p: -p.mean())
    assert program.expected_grad == first[0].new_tensor(-1 / 50)
    third = step(lambda p: -p.mean())
    for other in (second, third):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    weights = torch.rand(50)
    for loss in (lambda p: (p * weights).sum(), lambda p: p.mean() / 3):
        step(lambda p: -p.mean())
        step(lambda p: -p.mean())
        guessed_wrong = step(loss)
        assert program.expected_grad is None
        again = step(loss)
        assert all(torch.equal(a, b) for a, b in zip(guessed_wrong, again, strict=True))
        assert not torch.allclose(first[1], again[1])


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33])
def test_any_leading_dimensions(rows: int) -> None:
    flow = made("maf-no-hidden")
    x = torch.randn(3, rows, 4, dtype=torch.float64)
    context = torch.randn(rows, 1, dtype=torch.float64)
    found = flow.log_prob(x, context)
    assert found.shape == (3, rows)
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, flow.log_prob(x, context))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["circular", "circular-context", "no-tails", "elementwise"])
def test_numbers_outside(name: str, dtype: torch.dtype) -> None:
    """Densities of 0, the images of the nearest numbers inside, no gradient; a NaN stays one."""
    flow = made(name, dtype)
    x, context = inputs(flow, 40, dtype)
    moved = x.detach().clone()
    moved[1, 0], moved[2, 1], moved[3] = 40.0, -40.0, math.nan
    moved[4, 0], moved[5, 0], moved[6, 0] = math.inf, 0.0, math.pi
    moved.requires_grad_()
    whole, by_ops = [], []
    for on, found in ((True, whole), (False, by_ops)):
        with bslfast.whole_networks(on):
            log_prob = flow.log_prob(moved, context)
            found += [log_prob, *flow.transform(moved, context)]
            found += flow.transform.inverse(moved, context)
            parts = [*log_prob[7:], *log_prob[1:3].clamp(min=-1.0)]
            found += torch.autograd.grad(torch.stack(parts).sum(), moved)
    assert (whole[0][[1, 2, 4]] == -math.inf).all()
    assert whole[0][3].isnan()
    assert (whole[-1][1:3] == 0).any()
    eps = torch.finfo(dtype).eps
    for a, b in zip(whole, by_ops, strict=True):
        torch.testing.assert_close(a, b, rtol=1e4 * eps, atol=1e4 * eps, equal_nan=True)


def test_a_batch_norm_in_training_mode_goes_by_ops() -> None:
    flow = Flow(Composite([AffineCoupling(3), BatchNorm(3)]))
    assert "a BatchNorm in training mode looks at the whole batch" in flow.explain()
    assert "one call" in flow.eval().explain()
    assert "training mode" in flow.train().explain()


def test_frozen_parameters_and_shared_ones() -> None:
    flow = Flow(Composite([AffineCoupling(4), AffineCoupling(4)])).double()
    shared: Any = flow.transform.transforms  # type: ignore[union-attr]
    shared[1].conditioner = shared[0].conditioner
    shared[0].conditioner.layers[1].requires_grad_(False)
    x = torch.randn(6, 4, dtype=torch.float64)
    for parameter in flow.parameters():
        parameter.data += 0.1
    flow.log_prob(x).sum().backward()
    found = {name: parameter.grad for name, parameter in flow.named_parameters()}
    flow.zero_grad()
    with bslfast.whole_networks(False):
        flow.log_prob(x).sum().backward()
    for name, parameter in flow.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_parameters_changed_before_backward() -> None:
    flow = made("realnvp-wide")
    loss = flow.log_prob(torch.randn(5, 7, dtype=torch.float64)).sum()
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    with torch.no_grad():
        next(flow.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = flow.log_prob(torch.randn(5, 7, dtype=torch.float64)).sum()
    first = next(flow.parameters())
    first.data = first.data.clone()  # no version tells of it
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("maps", [[Householder(3)], [AdditiveCoupling(3), AdditiveCoupling(3)]])
def test_second_derivatives_of_maps_that_keep_volumes(maps: list[Any]) -> None:
    transform = Composite(maps).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def slopes() -> tuple[torch.Tensor, ...]:
        z, log_det = transform(x)
        (grad,) = torch.autograd.grad((z.pow(3).sum(-1) + log_det).sum(), x, create_graph=True)
        return grad, *torch.autograd.grad(grad.square().sum(), x)

    found = slopes()
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, slopes())


@pytest.mark.parametrize("size", [0.0, 1e-25])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_inverse_of_a_planar_map_without_a_direction(size: float, dtype: torch.dtype) -> None:
    planar = Planar(2, dtype=dtype)
    with torch.no_grad():
        planar.w.copy_(torch.tensor([size, 0.0]))
        planar.u.copy_(torch.tensor([0.5, -0.3]))
        planar.b.fill_(0.2)
    y = torch.tensor([[0.7, -0.4]], dtype=dtype)

    def results() -> tuple[torch.Tensor, ...]:
        x, log_det = Composite([planar]).inverse(y)
        return x, log_det, *torch.autograd.grad((x.sum() + log_det).sum(), [*planar.parameters()])

    found = results()
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, results())


def test_second_derivatives_go_by_ops() -> None:
    flow = made("nsf-autoregressive")
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        # x depends on the parameters, too: gradients must not run along that path.
        y, log_prob = flow.rsample_and_log_prob(4, seed=1)
        [score] = torch.autograd.grad(flow.log_prob(x + y).sum(), x, create_graph=True)
        total: Tensor = score.square().sum() + log_prob.sum()
        return total

    wanted = [x, *flow.parameters()]
    found = torch.autograd.grad(penalty(), wanted)
    with bslfast.whole_networks(False):
        expected = torch.autograd.grad(penalty(), wanted)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_an_input_made_of_the_parameters() -> None:
    flow = made("realnvp-wide")
    weight = next(flow.parameters())
    base = torch.randn(5, 7, dtype=torch.float64)
    found = []
    for on in (True, False):
        with bslfast.whole_networks(on):
            log_prob = flow.log_prob(base * weight.sum())
            found.append(torch.autograd.grad(log_prob.sum(), weight)[0])
    torch.testing.assert_close(*found)


def test_a_linear_layer_as_conditioner() -> None:
    flow = Flow(Composite([Coupling(Affine(), [True, False, True, False], nn.Linear(2, 4))]))
    x = torch.randn(5, 4)
    assert "log_prob: one call" in flow.explain()
    with bslfast.whole_networks(False):
        expected = flow.log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected)


def test_a_gradient_of_0_for_all_rows_is_0() -> None:
    flow = made("realnvp-wide")
    x = torch.full((1, 7), 1e200, dtype=torch.float64)
    log_prob = flow.log_prob(x)
    assert not log_prob.isfinite()
    torch.where(log_prob.isfinite(), log_prob, 0.0).sum().backward()
    assert all((p.grad == 0).all() for p in flow.parameters())
