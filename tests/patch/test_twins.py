"""Modules of peers that compute as bslfast's, with their own parameters."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bslfast
from bslfast import patch
from bslfast.patch import twins

D, C = 5, 3
Results = Callable[[Tensor, Tensor | None], list[Tensor]]


def nflows_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("nflows.transforms")
    autoregressive: Any = importlib.import_module("nflows.transforms.autoregressive")
    nets: Any = importlib.import_module("nflows.nn.nets")
    spline: dict[str, Any] = {"num_bins": 4, "tails": "linear", "tail_bound": 3.0}
    mask = torch.arange(D) % 2

    def network(n_in: int, n_out: int) -> nn.Module:
        return nets.ResidualNet(n_in, n_out, 16, context_features=context, num_blocks=1)  # type: ignore[no-any-return]

    def step(turn: int) -> nn.Module:
        if kind == "spline":
            moved = mask if turn else 1 - mask
            return of.PiecewiseRationalQuadraticCouplingTransform(moved, network, **spline)  # type: ignore[no-any-return]
        if kind == "affine":
            return of.AffineCouplingTransform(mask if turn else 1 - mask, network)  # type: ignore[no-any-return]
        options: dict[str, Any] = {"context_features": context, "num_blocks": 1}
        if kind == "masked spline":
            of_kind = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            return of_kind(D, 16, **options, **spline)  # type: ignore[no-any-return]
        return autoregressive.MaskedAffineAutoregressiveTransform(D, 16, **options)  # type: ignore[no-any-return]

    steps = [of.PointwiseAffineTransform(torch.randn(D), torch.rand(D) + 0.5)]
    for turn in range(2):
        steps += [step(turn), of.RandomPermutation(D)]
        if kind == "spline":
            steps.append(of.LULinear(D, identity_init=False))
    base = importlib.import_module("nflows.distributions.normal").DiagonalNormal([D])
    flow = importlib.import_module("nflows.flows.base").Flow(of.CompositeTransform(steps), base)
    return flow  # type: ignore[no-any-return]


def nflows_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    back = flow._transform.inverse(x, c)
    return [flow.log_prob(x, c), *flow._transform(x, c), *back]


def zuko_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("zuko.flows")
    options: dict[str, Any] = {"transforms": 2, "hidden_features": (16, 16)}
    if kind == "spline":
        return of.NSF(D, context or 0, bins=4, **options)  # type: ignore[no-any-return]
    if kind == "affine":
        return of.RealNVP(D, context or 0, **options)  # type: ignore[no-any-return]
    return of.MAF(D, context or 0, **options)  # type: ignore[no-any-return]


def zuko_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    found = flow(c)
    turned = found.transform.inv
    assert turned.inv.inv(x).equal(turned(x))
    return [
        found.log_prob(x),
        *found.transform.call_and_ladj(x),
        *turned.call_and_ladj(x),
        turned(x),
        found.transform(x),
    ]


def normflows_model(kind: str, context: int | None) -> nn.Module:
    of: Any = importlib.import_module("normflows")
    steps = []
    for turn in range(2):
        if kind == "spline":
            options = {"num_context_channels": context}
            kinds = (
                of.flows.AutoregressiveRationalQuadraticSpline,
                of.flows.CoupledRationalQuadraticSpline,
            )
            steps.append(kinds[turn](D, 1, 16, num_bins=4, **options))
            steps.append(of.flows.LULinearPermute(D))
        elif kind == "affine":
            mask = (torch.arange(D) + turn) % 2
            nets = [of.nets.MLP([D, 16, D], init_zeros=False) for _ in range(2)]
            steps.append(of.flows.MaskedAffineFlow(mask.float(), *nets))
        else:
            options = {"context_features": context}
            steps.append(of.flows.MaskedAffineAutoregressive(D, 16, num_blocks=1, **options))
    kinds = of.NormalizingFlow, of.ConditionalNormalizingFlow
    return kinds[context is not None](of.distributions.DiagGaussian(D), steps)  # type: ignore[no-any-return]


def normflows_results(flow: Any, x: Tensor, c: Tensor | None) -> list[Tensor]:
    given = (x,) if c is None else (x, c)
    found = [flow.log_prob(*given), flow.forward_kld(*given).view(1)]
    for step in flow.flows:
        if type(step).__name__ != "LULinearPermute":
            found += [*step.inverse(*given), *step.forward(*given)]
    return found


MODELS: dict[str, tuple[Any, Any]] = {
    "nflows": (nflows_model, nflows_results),
    "normflows": (normflows_model, normflows_results),
    "zuko": (zuko_model, zuko_results),
}
CASES = [
    (peer, kind, context)
    for peer, kinds in {
        "nflows": ("spline", "affine", "masked", "masked spline"),
        "normflows": ("spline", "affine", "masked"),
        "zuko": ("spline", "affine", "masked"),
    }.items()
    for kind in kinds
    for context in (None, C)
    if (peer, kind, context) not in {("normflows", "affine", C), ("normflows", "masked", C)}
]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """normflows adds up in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What twins have computed."""
    calls: list[str] = []
    compute = twins.Twin.compute

    def noted(self: twins.Twin, what: str, x: Tensor, context: Tensor | None) -> list[Tensor]:
        calls.append(what)
        return compute(self, what, x, context)

    monkeypatch.setattr(twins.Twin, "compute", noted)
    return calls


def model_of(peer: str, kind: str, context: int | None = None) -> Any:
    pytest.importorskip(peer)
    torch.manual_seed(0)
    model = MODELS[peer][0](kind, context).double()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def inputs(context: int | None, rows: int = 20) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    x = torch.randn(rows, D, **options).requires_grad_()
    c = None if context is None else torch.randn(rows, context, **options).requires_grad_()
    return x, c


def gradients(model: nn.Module, results: list[Tensor], given: Any, **more: Any) -> list[Tensor]:
    """Those of a number made of all results."""
    loss = sum(((i + 1.0) * t.sin()).sum() for i, t in enumerate(results))
    tensors = [t for t in given if t is not None] + list(model.parameters())
    options: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    return list(torch.autograd.grad(loss, tensors, **options, **more))


@pytest.mark.parametrize(("peer", "kind", "context"), CASES)
def test_values_and_gradients(peer: str, kind: str, context: int | None, ran: list[str]) -> None:
    model = model_of(peer, kind, context)
    results, given = MODELS[peer][1], inputs(context)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = []
    for swap in (nullcontext(), patch.using(peer)):
        with swap:
            own = results(model, *given)
            found.append([*own, *gradients(model, own, given)])
    for mine, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    assert {"forward", "inverse"} <= set(ran)
    if peer != "zuko" and (peer, kind, context) != ("normflows", "spline", C):
        assert "log_prob" in ran
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(type(m).__module__.split(".")[0] in (peer, "torch") for m in model.modules())
    count = len(ran)
    results(model, *given)
    assert len(ran) == count


@pytest.mark.parametrize("peer", MODELS)
def test_second_derivatives(peer: str, ran: list[str]) -> None:
    model, given = model_of(peer, "spline"), inputs(None, 3)
    found = []
    for swap in (nullcontext(), patch.using(peer)):
        with swap:
            own = MODELS[peer][1](model, *given)
            first = gradients(model, own, given, create_graph=True)
        # Also after the end of the swap.
        found.append(gradients(model, [first[0]], given))
    assert ran
    for mine, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-7)


def both(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Densities, by nflows and with the swap."""
    wanted = model.log_prob(x)
    with patch.using("nflows"):
        return model.log_prob(x), wanted


def agree(model: Any, x: Tensor) -> None:
    torch.testing.assert_close(*both(model, x), rtol=1e-8, atol=1e-8)


def test_training_is_the_same(ran: list[str]) -> None:
    """Parameters that an optimiser changes, of which some are copied for a twin."""
    ends = []
    for swap in (nullcontext(), patch.using("nflows")):
        model, (x, _) = model_of("nflows", "masked"), inputs(None)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            with swap:
                # Two graphs at the same time.
                loss = -model.log_prob(x[:10]).mean() - 0.5 * model.log_prob(x).mean()
            loss.backward()
            optimizer.step()
        ends.append(model.state_dict())
    assert ran == ["log_prob"] * 10
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_model_may_change(ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    agree(model, x)
    for parameter in model.parameters():
        parameter.data.mul_(1.1)  # which autograd does not see
    agree(model, x)
    model.load_state_dict(model_of("nflows", "masked").state_dict())
    agree(model, x)
    weight = model._transform._transforms[1].autoregressive_net.initial_layer
    weight.weight = nn.Parameter(0.5 * weight.weight)
    agree(model, x)
    weight.bias.requires_grad_(False)
    agree(model, x)
    other = copy.deepcopy(model)
    other._distribution.mean_ += 1
    agree(other, x)
    agree(model, x)
    assert len(ran) == 7
    torch.testing.assert_close(*both(model.float(), x.float()), rtol=1e-4, atol=1e-4)
    assert len(ran) == 8
    # The order of features, which a twin reads once.
    model = model_of("nflows", "masked")
    agree(model, x)
    model._transform._transforms[2]._permutation.copy_(torch.arange(D))
    agree(model, x)
    assert len(ran) == 10


def test_where_the_peer_computes(ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    empty, vector = x[:0], x[0].detach()
    with patch.using("nflows"):
        assert model.log_prob(empty).shape == (0,)
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            model.log_prob(vector)
    parameters = {name: 0.9 * p.detach() for name, p in model.named_parameters()}
    found = []
    for swap in (nullcontext(), patch.using("nflows")):
        with swap:
            log_prob = torch.func.functional_call(Called(model), prefixed(parameters), (x,))
            by_x = torch.func.vmap(torch.func.grad(lambda row: model.log_prob(row[None])[0]))(x)
            found.append((log_prob, by_x))
    for own, their in zip(*found, strict=True):
        torch.testing.assert_close(own, their)
    assert not ran
    seen: list[Any] = []
    inner = model._transform._transforms[1].autoregressive_net.initial_layer
    handle = inner.register_forward_hook(lambda *given: seen.append(given))
    agree(model, x)
    assert len(seen) == 2
    handle.remove()
    agree(model, x)
    assert ran == ["forward", "log_prob"]  # first of the part without hooks, then of all


class Called(nn.Module):
    """A flow whose call is its density."""

    def __init__(self, flow: Any) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        """Return it."""
        found: Tensor = self.flow.log_prob(x)
        return found


def prefixed(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"flow.{name}": value for name, value in parameters.items()}


@pytest.mark.parametrize("name", ["unconstrained_upper_diag", "final_layer.weight", "mean_"])
def test_a_weight_that_changed_before_backward(name: str) -> None:
    """Whether the twin has it in place, in another order, or computes something of it."""
    model, (x, _) = model_of("nflows", "spline"), inputs(None)
    with patch.using("nflows"):
        loss = model.log_prob(x).sum()
        with torch.no_grad():
            next(p for key, p in model.named_parameters() if key.endswith(name)).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_part_without_a_counterpart(ran: list[str]) -> None:
    """The others run as calls of their own."""
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    of: Any = importlib.import_module("nflows.transforms")
    model._transform._transforms.insert(0, of.SVDLinear(D, 2).double())
    agree(model, x)
    assert ran == ["forward"] * 2


def test_threads() -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    wanted, found = model.log_prob(x), []

    def call() -> None:
        found.extend(model.log_prob(x) for _ in range(5))

    with patch.using("nflows"):
        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 15
    for own in found:
        torch.testing.assert_close(own, wanted, rtol=1e-8, atol=1e-8)


def test_whole_networks_off(ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "spline"), inputs(None)
    with bslfast.whole_networks(False):
        agree(model, x)
    assert not ran


def test_zuko_distributions_after_the_swap(ran: list[str]) -> None:
    """Those made inside go on, by zuko's code; contexts broadcast."""
    model, (x, c) = model_of("zuko", "masked", C), inputs(C, 4)
    assert c is not None
    rows = torch.stack([x, 2 * x])
    wanted = model(c).log_prob(rows), model(c[0]).log_prob(x.view(2, 2, D))
    with patch.using("zuko"):
        made = model(c)
        found = made.log_prob(rows), model(c[0]).log_prob(x.view(2, 2, D))
        assert isinstance(
            made.transform, importlib.import_module("zuko.transforms").ComposedTransform
        )
        assert made.sample((2,)).shape == (2, 4, D)
    for own, their in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-8, atol=1e-8)
    count = len(ran)
    assert count == 3
    torch.testing.assert_close(made.log_prob(rows), wanted[0])
    assert len(ran) == count


def nflows_of(steps: list[Any]) -> Any:
    of: Any = importlib.import_module("nflows.transforms")
    base = importlib.import_module("nflows.distributions.normal").StandardNormal([D])
    return importlib.import_module("nflows.flows.base").Flow(of.CompositeTransform(steps), base)


@pytest.mark.parametrize("frozen", ["shift", "log_scale"])
def test_a_frozen_source_of_several(frozen: str, ran: list[str]) -> None:
    """The learned one of two parameters has a gradient by what both make."""
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    of: Any = importlib.import_module("nflows.transforms")
    norm = of.ActNorm(D)
    norm.initialized.data.fill_(True)
    norm.shift.data.normal_()
    norm.log_scale.data.normal_()
    getattr(norm, frozen).requires_grad_(False)
    model._transform._transforms.insert(1, norm)
    found = []
    for swap in (nullcontext(), patch.using("nflows")):
        with swap:
            learned = [p for p in model.parameters() if p.requires_grad]
            found.append(torch.autograd.grad(model.log_prob(x).square().sum(), learned))
    assert ran == ["log_prob"]
    for mine, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("peer", MODELS)
def test_the_generator_stays(peer: str, ran: list[str]) -> None:
    model, given = model_of(peer, "spline"), inputs(None)
    before = torch.get_rng_state()
    patch.convert(model)
    assert torch.get_rng_state().equal(before)
    with patch.using(peer):
        for change in range(2):
            MODELS[peer][1](model, *given)
            assert ran.pop()
            assert torch.get_rng_state().equal(before), change
            for parameter in model.parameters():
                parameter.requires_grad_(False)


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
def test_a_first_call_without_gradients(first: Any, ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    wanted = gradients(model, [model.log_prob(x)], (x,))
    with patch.using("nflows"):
        with first():
            assert not model.log_prob(x.detach()).requires_grad
        found = gradients(model, [model.log_prob(x)], (x,))
    assert ran == ["log_prob"] * 2
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


def test_densities_in_another_dtype_than_the_default(ran: list[str]) -> None:
    model, (x, _) = model_of("normflows", "spline"), inputs(None)
    torch.set_default_dtype(torch.float32)
    found = []
    for swap in (nullcontext(), patch.using("normflows")):
        with swap:
            found.append((model.log_prob(x), model.forward_kld(x)))
    assert ran == ["log_prob"] * 2
    assert found[1][0].dtype == torch.float64
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found[1][1], found[0][1])


@pytest.mark.parametrize("kind", ["spline", "masked"])
def test_gradients_in_batches(kind: str, ran: list[str]) -> None:
    """By functions of x as well as by a leaf."""
    model, (x, _) = model_of("nflows", kind), inputs(None, 4)
    found = []
    for swap in (nullcontext(), patch.using("nflows")):
        with swap:
            log_prob = model.log_prob(2 * x)
            tensors = [x, *model.parameters()]
            batch = torch.eye(4, dtype=x.dtype)
            found.append(torch.autograd.grad(log_prob, tensors, batch, is_grads_batched=True))
    assert ran == ["log_prob"]
    for mine, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_changes_that_versions_do_not_tell(ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    parts, net = model._transform._transforms, model._transform._transforms[1].autoregressive_net
    agree(model, x)
    twin = ran.copy()
    for change in (
        lambda: parts[2]._permutation.data.copy_(torch.arange(D).flip(0)),
        lambda: parts[0]._shift.data.add_(1),
        lambda: setattr(net.final_layer.bias, "data", 0.9 * net.final_layer.bias),
        lambda: setattr(parts[0], "_scale", 2 * parts[0]._scale),
    ):
        change()
        agree(model, x)
    assert ran == 5 * twin
    layer = net.blocks[0].linear_layers[0]
    layer.weight.data = layer.weight.data.t()
    agree(model, x)
    layer.weight.data = layer.weight.data.contiguous()
    agree(model, x)
    before = len(ran)

    class Other(type(parts[1])):  # type: ignore[misc]
        def _elementwise_forward(self, x: Tensor, parameters: Tensor) -> Any:
            y, log_det = super()._elementwise_forward(x, parameters)
            return y + 1, log_det

    parts[1].__class__ = Other
    agree(model, x)
    assert "log_prob" not in ran[before:]


def test_frozen_parameters_that_a_twin_reads_once(ran: list[str]) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    first = model._transform._transforms[0]
    shift = nn.Parameter(first._buffers.pop("_shift"), requires_grad=False)
    first.register_parameter("_shift", shift)
    for _ in range(2):
        agree(model, x)
        shift.data.add_(0.5)
    assert ran == ["log_prob"] * 2


def test_weights_that_are_no_numbers(ran: list[str]) -> None:
    """They are no change."""
    model, (x, _) = model_of("nflows", "spline"), inputs(None)
    with patch.using("nflows"):
        model.log_prob(x)
        for parameter in model.parameters():
            parameter.data.view(-1)[0] = torch.nan
        first = model.log_prob(x).sum()
        second = model.log_prob(x).sum()
        (first + second).backward()
    assert ran == ["log_prob"] * 3


@torch.no_grad()
def test_tensors_of_other_kinds(ran: list[str]) -> None:
    """Those without memory or a version leave it to the peer."""
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    model.register_buffer("extra", torch.eye(3).to_sparse())
    agree(model, x)
    model.extra = torch.empty(2, 2, device="meta")
    agree(model, x)
    with torch.inference_mode():
        model.extra = torch.zeros(2)
    agree(model, x)
    model.extra = None
    model.lazy = nn.LazyLinear(3)
    agree(model, x)
    with torch.inference_mode():
        model = model_of("nflows", "masked")
    agree(model, x)


def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The modules that get twins, one after the other."""
    found: list[Any] = []
    init = twins.Twin.__init__

    def noted(self: twins.Twin, *given: Any) -> None:
        found.append(type(given[0]))
        init(self, *given)

    monkeypatch.setattr(twins.Twin, "__init__", noted)
    return found


def test_changes_that_need_no_other_twin(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, _) = model_of("nflows", "spline"), inputs(None)
    built = made(monkeypatch)
    agree(model, x)
    vector = nn.utils.parameters_to_vector(model.parameters()).detach()
    for change in (
        lambda: nn.utils.vector_to_parameters(1.1 * vector, model.parameters()),
        lambda: model.load_state_dict(model_of("nflows", "spline").state_dict()),
        model.eval,
        model.train,
    ):
        change()
        wanted = gradients(model, [model.log_prob(x)], (x,))
        with patch.using("nflows"):
            found = gradients(model, [model.log_prob(x)], (x,))
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)
    assert ran == ["log_prob"] * 5
    assert len(built) == 1
    with patch.using("nflows"):
        loss = model.log_prob(x).sum()
        nn.utils.vector_to_parameters(1.2 * vector, model.parameters())
        model.log_prob(x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@torch.no_grad()
def test_frequent_changes(ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After some there is no twin, until many calls have found none."""
    monkeypatch.setattr(twins, "MOST_TWINS", 2)
    monkeypatch.setattr(twins, "CALLS_UNCHANGED", 3)
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    used = []
    for call in range(12):
        if call < 5:
            model._transform._transforms[0]._shift += 1
        ran.clear()
        agree(model, x)
        used.append("log_prob" in ran)
    assert used == [True] * 2 + [False] * 5 + [True] * 5


def test_models_are_freed() -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    model.own, model.bound = [model], model.log_prob
    plain = model_of("nflows", "masked")
    for flow in (model, plain):
        agree(flow, x)
    kept, left = weakref.ref(model), weakref.ref(plain)
    gc.disable()
    try:
        del flow, plain
        assert left() is None
    finally:
        gc.enable()
    del model
    gc.collect()
    assert kept() is None


def test_a_model_that_has_been_called_is_copied_and_pickled(
    ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (x, _) = model_of("nflows", "masked"), inputs(None)
    built, shallow = made(monkeypatch), copy.copy(model)
    for _ in range(3):
        agree(model, x)
        agree(shallow, x)
    assert len(built) == 2
    shallow = copy.copy(model)  # with what the original has
    for _ in range(3):
        agree(model, x)
        agree(shallow, x)
    assert len(built) == 3
    data = pickle.dumps(model)
    assert b"bslfast" not in data.replace(b"_bslfast_twins", b"")
    for other in (pickle.loads(data), copy.deepcopy(model), copy.copy(model)):
        ran.clear()
        agree(other, x)
        assert ran == ["log_prob"]


def test_zuko_distributions_are_pickled(ran: list[str]) -> None:
    model, (x, c) = model_of("zuko", "masked", C), inputs(C, 4)
    assert c is not None
    kind = importlib.import_module("zuko.transforms").ComposedTransform
    with patch.using("zuko"), torch.no_grad():
        made = model(c.detach())
        wanted = made.log_prob(x)
        own = made.transform
        for other in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), copy.copy(own)):
            assert type(other) is kind
            torch.testing.assert_close(other(x), own(x), rtol=1e-8, atol=1e-8)
        # torch forgets of what a part is the inverse.
        assert type(pickle.loads(pickle.dumps(own.inv))) is kind
        data = pickle.dumps(made)
        assert b"bslfast" not in data
        torch.testing.assert_close(pickle.loads(data).log_prob(x), wanted, rtol=1e-8, atol=1e-8)
    assert ran


@pytest.mark.parametrize(
    ("x", "c"),
    [
        ((4, 0), (4, C)),
        ((0, D), (C,)),
        ((4, D), ()),
        ((4, D), (3, C)),
        ((4, D), (4, 0)),
        ((4, D), (0, 1, C)),
        ((4, D + 1), (4, C)),
        ((), (C,)),
    ],
)
def test_zuko_shapes_that_it_does_not_take(x: Any, c: Any) -> None:
    """The error, or the result, is its own."""
    model = model_of("zuko", "masked", C)
    found = []
    for swap in (nullcontext(), patch.using("zuko")):
        with swap, torch.no_grad():
            try:
                found.append(model(torch.zeros(c)).log_prob(torch.zeros(x)).shape)
            except Exception as error:
                found.append((type(error), str(error)))
    assert found[0] == found[1]
