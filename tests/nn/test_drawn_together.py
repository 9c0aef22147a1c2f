"""Weights drawn in one call are those that layers have, whatever has changed since the last one."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import bslfast
from bslfast.nn import kl, posteriors, priors
from bslfast.nn.estimators import draw


def model() -> bslfast.bnn.BayesianMLP:
    torch.manual_seed(0)
    return bslfast.bnn.BayesianMLP(3, (4, 4), 1)


def _parameter(found: Any) -> None:
    found.layers[0].weight_loc = nn.Parameter(torch.randn(4, 3))


def _other_data(found: Any) -> None:
    found.layers[1].bias_raw_scale.data = torch.full((4,), 0.3)


def _in_place(found: Any) -> None:
    with torch.no_grad():
        found.layers[1].weight_loc.add_(1)


def _double(found: Any) -> None:
    found.double()


def _prior(found: Any) -> None:
    found.layers[0].priors["bias"] = priors.Normal(0.5, 2.0)


def _other_prior(found: Any) -> None:
    found.layers[0].priors["weight"] = priors.StudentT(3.0, 2.0)


def _posterior(found: Any) -> None:
    found.layers[1].posteriors["weight"] = posteriors.Normal("log_scale")


def _shared(found: Any) -> None:
    found.layers[0].share("bias", found.layers[1], "bias")


def _parametrized(found: Any) -> None:
    nn.utils.parametrize.register_parametrization(
        found.layers[0], "weight_loc", nn.Hardtanh(-0.1, 0.1)
    )


def _own_weights(found: Any) -> None:
    layer = found.layers[0]
    other = copy.deepcopy(found.layers[0])
    nn.init.ones_(other.bias_loc)
    layer.weights = other.weights


CHANGES = (
    *(_parameter, _other_data, _in_place, _double, _prior, _other_prior, _posterior, _shared),
    *(_parametrized, _own_weights),
)


def _drawn(found: bslfast.bnn.BayesianMLP) -> list[torch.Tensor]:
    layers: Any = list(found.layers)
    samples = [s for own in draw(layers, 7).values() for s in own]
    divergence = kl(found)
    total = sum((s.square().sum() for s in samples), divergence)
    tensors = list(found.layers.parameters())
    grads = torch.autograd.grad(total, tensors, allow_unused=True, materialize_grads=True)
    return [*samples, divergence, *grads]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_has_changed_is_seen(change: Callable[[Any], None]) -> None:
    """A copy has nothing to remember."""
    used = model()
    before = _drawn(used)
    change(used)
    for again in (_drawn(used), _drawn(used)):
        for found, expected in zip(again, _drawn(copy.deepcopy(used)), strict=True):
            assert torch.equal(found, expected)
    same = [a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(before, again, strict=False)]
    assert not all(same)


def test_a_change_between_draw_and_divergence() -> None:
    for change in CHANGES:
        used = model()
        layers: Any = list(used.layers)
        for _ in range(2):
            draw(layers, 7)
        change(used)
        torch.manual_seed(1)  # Student's t prior has an estimate
        found = kl(used).item()
        torch.manual_seed(1)
        assert found == pytest.approx(kl(copy.deepcopy(used)).item(), rel=1e-6)


def test_errors_are_those_of_the_op() -> None:
    used = model()
    _drawn(used)
    used.layers[0].weight_raw_scale.data = torch.zeros(3, 4)
    with pytest.raises(ValueError, match=r"raw_scale\[0\]: expected shape \[4, 3\]"):
        _drawn(used)


def test_parameters_for_one_call() -> None:
    used, x = model(), torch.randn(5, 3)
    with bslfast.whole_networks(False):
        used(x)
        lent = {name: torch.zeros_like(p) for name, p in used.named_parameters()}
        lent = {name: p - 30 if "raw" in name else p for name, p in lent.items()}
        assert torch.func.functional_call(used, lent, (x,)).abs().max() < 1e-6
        assert used(x).abs().max() > 1e-3


def test_a_model_goes_when_nobody_refers_to_it() -> None:
    used = model()
    used.layers[0].register_forward_hook(lambda *_, of=used: None)  # refers to the model
    _drawn(used)
    layer = weakref.ref(used.layers[0])
    parameter = weakref.ref(used.layers[0].weight_loc)
    del used
    gc.collect()
    assert layer() is None
    assert parameter() is None
