"""Programs run only what is there, and only where nothing watches."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flow_programs import made, sizes
from torch import Tensor, nn

import bslfast
from bslfast import programs
from bslfast._native import _cpu
from bslfast.flows import (
    MAF,
    ActNorm,
    AffineCoupling,
    Composite,
    Flow,
    Permutation,
    RealNVP,
)
from bslfast.flows.flow import _density_steps


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
        (lambda: Flow(Composite([ActNorm(2), AffineCoupling(2)])), "first batch"),
        (lambda: RealNVP(2, hidden=(1449, 1449), transforms=1), "2099601 weights"),
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
    kept = programs.lowered(flow, "density", _density_steps, sizes(flow))
    other = {name: parameter * 0.9 for name, parameter in flow.named_parameters()}
    found = torch.func.functional_call(flow, other, x)
    assert programs.lowered(flow, "density", _density_steps, sizes(flow)) is kept
    with bslfast.whole_networks(False):
        torch.testing.assert_close(found, torch.func.functional_call(flow, other, x))
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


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
        ([("activation", [0], [2], [], [12], [])], [0, 1], "wrong options"),
        ([("activation", [0], [2, 3], [], [0], [])], [0, 1], "wrong inputs and outputs"),
        ([("activation", [0], [2], [], [0], [1.0])], [0, 1], "wrong numbers"),
        ([("activation", [0], [2], [], [8], [1.0])], [0, 1], "wrong numbers"),
        ([("gate", [0, 1, 0], [2], [], [], [])], [0, 1], "wrong inputs and outputs"),
        ([("dense", [0, 1], [2], [0, -1], [0, 0, 1, 2], [])], [0, 1], "wrong weights"),
        ([("dense", [0], [2], [5, -1], [0, 0, 1, 1], [])], [0, 1], "parameters out of range"),
        ([("dense", [0], [2], [0, 0], [0, 3, 1, 1], [])], [0, 1], "wrong weights"),
        ([("dense", [0], [2], [-1, -1], [0, 0, 1, 1], [])], [0, 1], "wrong weights"),
        ([("affine_coupling", [0, 1], [2], [], [0], [])], [0, 1], "wrong inputs and outputs"),
        ([("affine_coupling", [0, 1, 1], [2], [], [6], [])], [0, 1], "wrong options"),
        ([("triangular", [0, 1], [2, 3], [0, 0], [0, 0], [])], [0, 1], "wrong matrix"),
        ([("triangular", [0], [2], [0, -1], [0, 0], [])], [0, 1], "wrong signs"),
        ([("standard_normal", [0], [2], [], [], [])], [0, 1], "wrong outputs"),
        ([("within", [0], [2], [], [], [0.0, 1.0])], [0, 1], "wrong numbers"),
        ([("within", [0, 1], [2], [], [], [0.0, 1.0] * 2)], [0, 1], "wrong inputs and outputs"),
        ([("planar", [0, 0, 0], [2], [], [], [])], [0, 1], "wrong inputs and outputs"),
        ([("householder", [0], [2], [0], [0], [])], [0, 1], "wrong options"),
        ([("householder", [0], [2], [0], [0, 3], [])], [0, 1], "wrong vectors"),
        ([("householder", [0], [2], [-1], [0, 2], [])], [0, 1], "wrong parameters"),
        ([("sylvester", [0], [2], [0, 0], [0], [])], [0, 1], "wrong parameters"),
        ([("sylvester", [0, 1], [2, 3], [0, 0, 0], [0], [])], [0, 1], "wrong parameters"),
        ([("normal_mixture_log_prob", [0] * 5, [], [], [2], [])], [0, 1], "wrong inputs"),
        ([("normal_mixture_log_prob", [0] * 7, [], [], [0], [])], [0, 1], "wrong options"),
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
        ([], [0, 7], "results out of range"),
    ],
)
def test_programs_are_checked(steps: list[Any], results: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cpu.Program(2, 0, steps, results, [1])


def test_a_program_wants_all_parameters() -> None:
    program = _cpu.Program(1, 0, [], [0], [1])
    with pytest.raises(ValueError, match="number of parameters"):
        program.forward(False, 1, 1, 1, [], ([], []), 0, 0, 0, 0)
    with pytest.raises(ValueError, match="rows"):
        program.backward(False, 0, [0], ([], []), 0, 0, 0, 0, 0, 0.0, 0.0, 0, 0, 0, [True])


def test_samples_of_a_program() -> None:
    program = _cpu.Program(1, 0, [], [0], [1])
    with pytest.raises(ValueError, match="samples: rows are not as many for each example"):
        program.forward(False, 5, 2, 1, [0], ([], []), 0, 0, 0, 0)
    with pytest.raises(ValueError, match="samples of a bound"):
        program.bound(False, 257, 257, [0], 0, 0, 0, 0, 0, 0, 0.0, 0, 0, [True])
    with pytest.raises(ValueError, match="samples of a bound"):
        _cpu.bounds(False, 257, 1, 0, 0, 0, 0)
    for given in ({"sign": -1.0}, {"far": 1e8}):
        other = _cpu.Program(1, 0, [], [0], [1], **given)
        with pytest.raises(ValueError, match="sign or far of a program with bounds"):
            other.bound(False, 2, 2, [0], 0, 0, 0, 0, 0, 0, 0.0, 0, 0, [True])
    with pytest.raises(ValueError, match="addresses of a bound"):
        program.bound(False, 2, 2, [0], 0, 0, 0, 0, 0, 0, 0.0, 0, 0, [True])
    sample = ("normal_sample", [0, 1], [2, 3], [], [0], [1.0])
    noisy = _cpu.Program(2, 0, [sample], [2], [1], [], 1)
    with pytest.raises(ValueError, match="samples: steps draw noise"):
        noisy.forward(False, 4, 2, 1, [0], ([1], [0]), 0, 0, 0, 0)


def test_what_is_turned_around_is_not_trained() -> None:
    """Its loss would have another sign than its gradients."""
    program = _cpu.Program(1, 0, [], [0], [1], sign=-1.0)
    with pytest.raises(ValueError, match="sign of a program that is trained"):
        program.train(
            *(False, 1, 1, 0, 0, 0, [0], [True], [0], [0], "sgd", 0.0, 0.0, 0.0, [0.0], 1.0),
            *([0.1], 0, ([], []), [0.0]),
        )


def test_a_weight_decay_for_each_parameter() -> None:
    program = _cpu.Program(1, 0, [], [0], [1])
    with pytest.raises(ValueError, match="number of weight decays"):
        program.train(
            *(False, 1, 1, 0, 0, 0, [0], [True], [0], [0], "sgd", 0.0, 0.0, 0.0, [], 1.0),
            *([0.1], 0, ([], []), [0.0]),
        )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_an_optimizer_that_remembers_nothing(optimizer: str) -> None:
    program = _cpu.Program(1, 0, [("standard_normal", [0], [], [], [], [])], [0], [1])
    rows, parameter = torch.zeros(1), torch.zeros(1)
    order = torch.zeros(1, dtype=torch.int64)
    numbers = (0.9, 0.99, 1e-8, [0.0], 1.0)
    with pytest.raises(ValueError, match=f"{optimizer}: what it remembers of parameter 0"):
        program.train(
            *(False, 1, 1, order.data_ptr(), rows.data_ptr(), 0, [parameter.data_ptr()], [True]),
            *([0], [0], optimizer, *numbers, [0.1], 0, ([], []), [0.0]),
        )


def test_layers_of_other_classes() -> None:
    """Whatever takes the place of a conditioner's layer, programs compute what ops do."""
    torch.manual_seed(0)
    x, context = torch.randn(5, 4), torch.randn(5, 2)
    for make in (
        lambda layer: nn.Sequential(layer, nn.Tanh()),
        lambda layer: nn.Linear(layer.in_features, layer.out_features),
        lambda layer: nn.Sequential(nn.Identity(), nn.Sequential(layer)),
        lambda layer: nn.Sequential(nn.Dropout(0.0), layer),
    ):
        for name in ("layers.0", "layers.1", "layers.2", "context_layer"):
            flow = RealNVP(4, context=2, hidden=(5,), residual=1, transforms=2)
            for parameter in flow.parameters():
                nn.init.normal_(parameter)
            network = flow.get_submodule("transform.transforms.1.conditioner")
            network.set_submodule(name, make(network.get_submodule(name)))
            found = flow.log_prob(x, context), flow.sample(2, context, seed=0)
            assert "has no steps" in flow.explain() or "one call" in flow.explain()
            with bslfast.whole_networks(False):
                wanted = flow.log_prob(x, context), flow.sample(2, context, seed=0)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
