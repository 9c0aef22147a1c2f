"""Modules of peers that compute as bslfast's, with their own parameters."""

from __future__ import annotations

import importlib
import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from twin_models import (
    CASES,
    MODELS,
    C,
    D,
    agree,
    gradients,
    inputs,
    model_of,
)

import bslfast
from bslfast import patch

pytestmark = pytest.mark.usefixtures("double")


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
