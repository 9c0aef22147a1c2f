"""Modules of peers that change, are copied or are freed between calls of their twins."""

from __future__ import annotations

import copy
import gc
import importlib
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from twin_models import (
    C,
    D,
    agree,
    both,
    gradients,
    inputs,
    model_of,
)

from bslfast import patch
from bslfast.patch import twins

pytestmark = pytest.mark.usefixtures("double")


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
