"""Whole networks as one call: the same as by ops, and only where nothing watches."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import programs
from bslfast._native import _cpu
from bslfast.flows import (
    IAF,
    MADE,
    MAF,
    NICE,
    NSF,
    ActNorm,
    Additive,
    Affine,
    AffineCoupling,
    Autoregressive,
    Bernstein,
    Composite,
    Conditioner,
    Coupling,
    DeepSigmoidal,
    Flow,
    Inverse,
    Leading,
    LeakyReLU,
    Map,
    MixtureLogistic,
    Permutation,
    PLULinear,
    RealNVP,
    Sigmoid,
    Softplus,
    Spline,
    Standardize,
    Tanh,
    Transform,
)
from bslfast.flows.flow import _density_steps
from bslfast.flows.transform import forward_steps, inverse_steps

MAPS: tuple[Map, ...] = (
    Additive(),
    Affine("tanh"),
    Affine("exp"),
    Affine("sigmoid"),
    Spline(4),
    Spline(5, bound=2.0, tails="affine"),
    MixtureLogistic(3),
    DeepSigmoidal(3),
    Bernstein(5),
)
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu")


def mixed(map: Map, features: int, context: int, activation: str, residual: int) -> Flow:
    """A flow with each kind of transform that has steps, of one map."""
    network: dict[str, Any] = {
        "context": context,
        "activation": activation,
        "residual": residual,
        "hidden": (13, 6),
    }
    mask = [index % 2 == 0 for index in range(features)]
    kept = features - sum(mask)
    order = torch.randperm(features).tolist()
    standardize = Standardize.from_data(torch.randn(50, features).double() * 3)
    transforms = [
        standardize,
        Coupling(
            map,
            mask,
            Conditioner(kept, sum(mask) * map.size, start=map.start, **network),
            context=context,
        ),
        Permutation(torch.randperm(features)),
        Autoregressive(map, MADE(features, map, order=order, **network)),
        ActNorm(features),
        PLULinear(features, seed=1),
        LeakyReLU(features, negative_slope=0.7),
        Inverse(Autoregressive(map, MADE(features, map, order=order, **network))),
    ]
    if features > 1:
        leading: dict[str, Any] = {"context": context, "hidden": ()}
        transforms.append(Leading(AffineCoupling(features - 1, **leading), features))
    return Flow(Composite(transforms))


CASES: dict[str, Callable[[], Flow]] = {
    "realnvp-1": lambda: RealNVP(1, hidden=(8,)),
    "realnvp-1-context": lambda: RealNVP(1, hidden=(8,), context=2),
    "realnvp-wide": lambda: RealNVP(7, hidden=(33, 70), transforms=2),
    "nsf-autoregressive": lambda: NSF(3, hidden=(9,), autoregressive=True, transforms=2),
    "maf-no-hidden": lambda: MAF(4, hidden=(), transforms=2, context=1),
    "maf-narrow": lambda: MAF(6, hidden=(3,), transforms=2),
    "iaf": lambda: IAF(3, hidden=(9, 5), transforms=2),
    "nice": lambda: NICE(3, hidden=(9,), context=2),
    **{
        f"{map!r}-{features}-{context}": (
            lambda map=map, features=features, context=context, index=index: mixed(
                map, features, context, ACTIVATIONS[index % 4], index % 3
            )
        )
        for index, (map, (features, context)) in enumerate(
            itertools.product(MAPS, ((1, 0), (4, 0), (5, 2)))
        )
    },
}


def made(name: str, dtype: torch.dtype = torch.float64) -> Flow:
    """A flow with weights all over the place."""
    torch.manual_seed(0)
    flow = CASES[name]().double()
    for module in flow.modules():
        if isinstance(module, ActNorm):
            module.initialized.fill_(True)
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return flow.to(dtype)


def inputs(flow: Flow, rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Any]:
    x = torch.randn(rows, flow.features, dtype=dtype, requires_grad=True)
    if not flow.context:
        return x, None
    return x, torch.randn(rows, flow.context, dtype=dtype, requires_grad=True)


def programs_of(flow: Flow) -> list[programs.Lowered]:
    return [
        programs.lowered(flow, "density", _density_steps),
        programs.lowered(flow.transform, "forward", forward_steps),
        programs.lowered(flow.transform, "inverse", inverse_steps),
    ]


def everything(flow: Flow, x: Tensor, context: Any) -> list[Tensor]:
    """Values of all calls, and gradients of everything that has one."""
    wanted = [t for t in (x, context, *flow.parameters()) if t is not None and t.requires_grad]
    found: list[Tensor] = []
    weights = torch.linspace(-1, 1, max(len(x), 1), dtype=x.dtype)[: len(x)]
    for values in (
        (flow.log_prob(x, context),),
        flow.transform(x, context),
        flow.transform.inverse(x, context),
    ):
        total = sum((value.sin().view(len(x), -1).sum(1) * weights).sum() for value in values)
        assert isinstance(total, Tensor)
        found += values
        found += [g for g in torch.autograd.grad(total, wanted, allow_unused=True) if g is not None]
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_same_as_by_ops(name: str) -> None:
    flow = made(name)
    for rows in (1, 33):
        x, context = inputs(flow, rows)
        whole = everything(flow, x, context)
        assert [p.obstacle(x, context) for p in programs_of(flow)] == [None] * 3
        with bslfast.whole_networks(False):
            by_ops = everything(flow, x, context)
        torch.testing.assert_close(whole, by_ops, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["realnvp-wide", "maf-no-hidden", "nsf-autoregressive"])
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


@pytest.mark.parametrize("name", ["realnvp-wide", "maf-no-hidden"])
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
    """A mean has one gradient for all rows: from the second call on there is one pass."""
    flow = made("realnvp-wide", torch.float32)
    x = torch.randn(50, 7)

    def step(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        log_prob = flow.log_prob(x)
        return log_prob.detach(), *torch.autograd.grad(loss(log_prob), list(flow.parameters()))

    program = programs.lowered(flow, "density", _density_steps)
    first = step(lambda p: -p.mean())
    assert program.expects_equal
    second = step(lambda p: -p.mean())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    weights = torch.rand(50)
    guessed_wrong = step(lambda p: (p * weights).sum())
    assert not program.expects_equal
    again = step(lambda p: (p * weights).sum())
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


@pytest.mark.parametrize("kind", [Tanh, Sigmoid, Softplus])
def test_bounded_maps_lower_one_way(kind: type[Transform]) -> None:
    transform = Composite([AffineCoupling(3), kind(3)]).double()  # type: ignore[call-arg]
    nn.init.normal_(transform.transforms[0].conditioner.output_bias)  # type: ignore[union-attr, arg-type]
    assert programs.lowered(transform, "forward", forward_steps).reason is None
    reason = programs.lowered(transform, "inverse", inverse_steps).reason
    assert reason == f"the inverse of {kind.__name__} checks that z lies inside"
    x = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for on in (True, False):
        with bslfast.whole_networks(on):
            z, log_det = transform(x)
            results.append((z, log_det, *torch.autograd.grad((z.sum(1) * log_det).sum(), x)))
    torch.testing.assert_close(*results)


def test_frozen_parameters_and_shared_ones() -> None:
    flow = made("realnvp-wide")
    transforms: Any = flow.transform.transforms
    transforms[1].conditioner = transforms[0].conditioner.requires_grad_(False)
    transforms[0].conditioner.layers[0].weight.requires_grad_()
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
    x = torch.randn(5, 7, dtype=torch.float64) * weight.sum()
    found = torch.autograd.grad(flow.log_prob(x).sum(), weight)
    x = torch.randn(0, 7, dtype=torch.float64)
    torch.manual_seed(1)
    base = torch.randn(5, 7, dtype=torch.float64)
    results = []
    for on in (True, False):
        with bslfast.whole_networks(on):
            results.append(torch.autograd.grad(flow.log_prob(base * weight.sum()).sum(), weight)[0])
    torch.testing.assert_close(*results)
    assert found[0].shape == weight.shape


def changes() -> list[Callable[[Flow], Any]]:
    """What may happen to a flow whose program is there already."""

    def layer(flow: Flow) -> nn.Linear:
        return flow.transform.transforms[0].conditioner.layers[0]  # type: ignore[union-attr, no-any-return]

    def replaced(flow: Flow) -> None:
        layer(flow).weight = nn.Parameter(layer(flow).weight.detach() * 2)

    def transposed(flow: Flow) -> None:
        layer(flow).weight.data = torch.randn_like(layer(flow).weight.t().contiguous()).t()

    def new_layer(flow: Flow) -> None:
        old = layer(flow)
        flow.transform.transforms[0].conditioner.layers[0] = nn.Linear(  # type: ignore[union-attr]
            old.in_features, old.out_features, dtype=old.weight.dtype
        )

    def appended(flow: Flow) -> None:
        coupling = AffineCoupling(7, dtype=torch.float64)
        nn.init.normal_(coupling.conditioner.output_bias)  # type: ignore[arg-type]
        flow.transform.transforms.append(coupling)  # type: ignore[union-attr]

    def other_activation(flow: Flow) -> None:
        flow.transform.transforms[0].conditioner.activation = "tanh"  # type: ignore[union-attr]

    def hook(flow: Flow) -> None:
        layer(flow).register_forward_hook(lambda module, args, result: result * 2)

    def global_hook(flow: Flow) -> Any:
        return nn.modules.module.register_module_forward_hook(
            lambda module, args, result: result * 2 if isinstance(module, nn.Linear) else result
        )

    def own_forward(flow: Flow) -> None:
        old = layer(flow).forward
        layer(flow).forward = lambda x: old(x) * 2  # type: ignore[method-assign]

    def parametrized(flow: Flow) -> None:
        nn.utils.parametrizations.weight_norm(layer(flow))

    return [
        replaced,
        transposed,
        new_layer,
        appended,
        other_activation,
        hook,
        global_hook,
        own_forward,
        parametrized,
    ]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_a_changed_flow_is_run_as_it_is(change: Callable[[Flow], Any]) -> None:
    flow = made("realnvp-wide")
    x = torch.randn(5, 7, dtype=torch.float64)
    before = flow.log_prob(x)
    handle = change(flow)
    try:
        found = flow.log_prob(x)
        with bslfast.whole_networks(False):
            torch.testing.assert_close(found, flow.log_prob(x))
        assert change.__name__ == "parametrized" or not torch.allclose(found, before)
    finally:
        if handle is not None:
            handle.remove()


def test_a_changed_permutation_and_a_changed_mask() -> None:
    torch.manual_seed(0)
    coupling = AffineCoupling(4, hidden=(5,))
    nn.init.normal_(coupling.conditioner.layers[-1].weight)  # type: ignore[union-attr, arg-type]
    flow = Flow(Composite([coupling, Permutation([1, 2, 3, 0]), AffineCoupling(4)]))
    x = torch.randn(5, 4)
    before = flow.transform(x)[0]
    state = flow.state_dict()
    for name in ("order", "inverse_order"):
        state[f"transform.transforms.1.{name}"] = torch.tensor([0, 1, 2, 3])
    flow.load_state_dict(state)
    assert not torch.equal(flow.transform(x)[0], before)
    maf = MAF(3, hidden=(5,), transforms=1)
    x = torch.randn(2, 3)
    maf.log_prob(x)
    for module in maf.modules():
        if hasattr(module, "mask"):
            module.mask.fill_(True)
    assert "mask" in maf.explain()


def test_other_dtypes_and_devices() -> None:
    flow = made("realnvp-wide", torch.float32)
    x = torch.randn(5, 7)
    narrow = flow.log_prob(x)
    flow.double()
    torch.testing.assert_close(flow.log_prob(x.double()), narrow.double(), rtol=1e-4, atol=1e-4)
    flow.float()
    layers: Any = flow.transform.transforms[0].conditioner.layers
    layers[0].double()
    with pytest.raises((RuntimeError, TypeError), match="dtype"):
        flow.log_prob(x)
    layers[0].float()
    assert flow.to("meta").log_prob(x.to("meta")).shape == (5,)


def test_subclasses() -> None:
    class Same(AffineCoupling):
        def __init__(self) -> None:
            super().__init__(2)

    class Other(AffineCoupling):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            z, log_det = super().forward(x, context)
            return z + 1, log_det

    assert "one call" in Flow(Composite([Same(), Same()])).explain()
    flow = Flow(Composite([Other(2), Other(2)]))
    assert "Other has no steps" in flow.explain()
    assert flow.transform(torch.zeros(1, 2))[0].sum() != 0


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (lambda: RealNVP(2, activation="gelu"), "'gelu'"),
        (
            lambda: Flow(Composite([AffineCoupling(2), Inverse(Tanh(2))])),
            "the inverse of Tanh checks",
        ),
        (lambda: Flow(Composite([ActNorm(2), AffineCoupling(2)])), "first batch"),
        (lambda: RealNVP(2, hidden=(1025, 1025)), "1050625 weights"),
        (lambda: RealNVP(2).half(), "float16"),
        (lambda: RealNVP(2).to("meta"), "CPU"),
    ],
)
def test_explain(flow: Callable[[], Flow], reason: str) -> None:
    assert reason in flow().explain()


def test_explain_switched_off() -> None:
    flow = RealNVP(2)
    assert "one call of" in flow.explain()
    with bslfast.whole_networks(False):
        assert "whole_networks(False)" in flow.explain()
    assert "one call of" in flow.explain()
    bslfast.whole_networks(False)
    try:
        assert "whole_networks(False)" in flow.explain()
    finally:
        bslfast.whole_networks(True)
    with pytest.raises(TypeError, match="enabled"):
        bslfast.whole_networks(1)  # type: ignore[arg-type]


def test_what_watches_goes_by_ops() -> None:
    flow = made("realnvp-wide", torch.float32)
    x = torch.randn(6, 7)
    expected = flow.log_prob(x)
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), expected, rtol=1e-4, atol=1e-4)
    _, tangent = torch.func.jvp(flow.log_prob, (x,), (torch.ones_like(x),))
    assert tangent.isfinite().all()
    with torch.inference_mode():
        torch.testing.assert_close(flow.log_prob(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(flow.log_prob(x), expected)


def test_parameters_for_one_call() -> None:
    flow = made("realnvp-wide")
    x = torch.randn(5, 7, dtype=torch.float64)
    flow.log_prob(x)
    kept = programs.lowered(flow, "density", _density_steps)
    other = {name: parameter * 0.9 for name, parameter in flow.named_parameters()}
    found = torch.func.functional_call(flow, other, x)
    assert programs.lowered(flow, "density", _density_steps) is kept
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, torch.func.functional_call(flow, other, x))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_a_linear_layer_as_conditioner() -> None:
    flow = Flow(Composite([Coupling(Affine(), [True, False, True, False], nn.Linear(2, 4))]))
    x = torch.randn(5, 4)
    assert "log_prob: one call" in flow.explain()
    with bslfast.whole_networks(False):
        expected = flow.log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected)


def test_made_in_inference_mode() -> None:
    with torch.inference_mode():
        flow, x = MAF(4), torch.randn(3, 4)
        assert "inference mode" in flow.explain()
        assert flow.log_prob(x).shape == (3,)


def test_weights_that_are_no_parameters() -> None:
    """What has only the name of a parameter may be replaced at any time."""
    flow = made("realnvp-wide")
    layer: Any = flow.transform.transforms[0].conditioner.layers[0]  # type: ignore[union-attr]
    x = torch.randn(5, 7, dtype=torch.float64)
    weight = layer.weight.detach()
    del layer.weight
    for factor in (1.0, 2.0):
        layer.weight = weight * factor
        with bslfast.whole_networks(False):
            expected = flow.log_prob(x)
        torch.testing.assert_close(flow.log_prob(x), expected)
    del layer.weight
    layer.weight = nn.Parameter(weight)
    assert "log_prob: one call" in flow.explain()


def test_layers_that_do_not_fit() -> None:
    flow = RealNVP(4, hidden=(8, 8))
    layers: Any = flow.transform.transforms[0].conditioner.layers  # type: ignore[union-attr]
    layers[1] = nn.Linear(12, 8)
    with pytest.raises(RuntimeError, match="shapes"):
        flow.log_prob(torch.randn(3, 4))
    layers[0], layers[1] = nn.Linear(2, 8), nn.Linear(8, 8)
    pruned: Any = layers[0]
    pruned.weight, pruned.bias = (nn.Parameter(p[:5].clone()) for p in pruned.parameters())
    layers[1] = nn.Linear(5, 8)
    x = torch.randn(3, 4)
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


def test_another_dtype_before_backward() -> None:
    flow = made("realnvp-wide", torch.float32)
    loss = flow.log_prob(torch.randn(5, 7)).sum()
    flow.double()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_flow_that_refers_to_itself_is_collected() -> None:
    flow: Any = RealNVP(2, hidden=(4,))
    flow.callback = flow.sample
    flow.log_prob(torch.randn(3, 2))
    gone = weakref.ref(flow)
    del flow
    gc.collect()
    assert gone() is None


def test_an_inverse_of_its_own() -> None:
    flow = made("realnvp-wide")
    coupling: Any = flow.transform.transforms[0]  # type: ignore[union-attr]
    own = coupling.inverse
    coupling.inverse = lambda z, context=None: own(z + 1, context)
    x = torch.randn(3, 7, dtype=torch.float64)
    with bslfast.whole_networks(False):
        expected = flow.transform.inverse(x)
    torch.testing.assert_close(flow.transform.inverse(x), expected)


def test_copies_have_programs_of_their_own() -> None:
    flow = made("realnvp-wide")
    x = torch.randn(5, 7, dtype=torch.float64)
    before = flow.log_prob(x)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        torch.testing.assert_close(other.log_prob(x), before)
        for parameter in other.parameters():
            parameter.data.mul_(1.5)
        assert not torch.allclose(other.log_prob(x), before)
    torch.testing.assert_close(flow.log_prob(x), before)


@pytest.mark.parametrize(
    ("steps", "results", "message"),
    [
        ([("nothing", [0], [2], [], [], [])], [0, 1], "nothing"),
        ([("activation", [9], [2], [], [0], [])], [0, 1], "inputs out of range"),
        ([("activation", [0], [5], [], [0], [])], [0, 1], "outputs out of order"),
        ([("activation", [0], [2], [], [9], [])], [0, 1], "wrong options"),
        ([("activation", [0], [2, 3], [], [0], [])], [0, 1], "wrong inputs and outputs"),
        ([("dense", [0, 1], [2], [0, -1], [0, 0, 1, 2], [])], [0, 1], "wrong weights"),
        ([("dense", [0], [2], [5, -1], [0, 0, 1, 1], [])], [0, 1], "parameters out of range"),
        ([("dense", [0], [2], [0, 0], [0, 3, 1, 1], [])], [0, 1], "wrong weights"),
        ([("dense", [0], [2], [-1, -1], [0, 0, 1, 1], [])], [0, 1], "wrong weights"),
        ([("affine_coupling", [0, 1], [2], [], [0], [])], [0, 1], "wrong inputs and outputs"),
        ([("affine_coupling", [0, 1, 1], [2], [], [6], [])], [0, 1], "wrong options"),
        ([("triangular", [0, 1], [2, 3], [0, 0], [0, 0], [])], [0, 1], "wrong matrix"),
        ([("triangular", [0], [2], [0, -1], [0, 0], [])], [0, 1], "wrong signs"),
        ([("standard_normal", [0], [2], [], [], [])], [0, 1], "wrong outputs"),
        (
            [("bernstein_transform", [0, 1, 0], [2], [], [0, 2], [3.0])],
            [0, 1],
            "wrong order of the parameters",
        ),
        ([("bernstein_transform", [0], [2], [], [0, 99], [3.0])], [0, 1], "wrong lengths of rows"),
        ([("bernstein_transform", [0, 0], [2], [], [2, 1], [3.0])], [0, 1], "wrong options"),
        (
            [("rational_quadratic_spline", [0, *[1] * 6], [2], [], [0, 2, 2, 2], [3.0])],
            [0, 1],
            "wrong lengths of rows",
        ),
        ([], [0], "as many results"),
        ([], [0, 7], "results out of range"),
    ],
)
def test_programs_are_checked(steps: list[Any], results: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cpu.Program(2, 0, steps, results, [1])


def test_a_program_wants_all_parameters() -> None:
    program = _cpu.Program(1, 0, [], [0], [1])
    with pytest.raises(ValueError, match="number of parameters"):
        program.forward(False, 1, [], 0, 0, 0, 0)
    with pytest.raises(ValueError, match="rows"):
        program.backward(False, 0, [0], 0, 0, 0, 0, 0, 0, 0, 0, [True])
