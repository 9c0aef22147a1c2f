"""Couplings of any mask and any conditioner; and what the dense conditioner computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bslfast import flows
from bslfast.flows import Additive, Affine, Conditioner, Coupling, Spline
from bslfast.flows.conditioners import ACTIVATIONS

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def stir(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


# --- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
def test_any_mask_is_that_of_the_halves_in_another_order(flip: bool) -> None:
    halves = stir(flows.SplineCoupling(5, context=2, bins=4, flip=flip, hidden=(8,), **DOUBLE))
    assert halves.permutation is None  # views of x: nothing is gathered
    order = torch.tensor([3, 0, 4, 1, 2])
    mask = torch.empty(5, dtype=torch.bool)
    # What coupled features at places 0 to 4 has them at the places of `order`, in rising order.
    first = 2
    low, high = order[:first].sort().values, order[first:].sort().values
    mask[low], mask[high] = flip, not flip
    coupling = Coupling(Spline(4), mask, halves.conditioner, context=2)
    assert (coupling.kept, coupling.moved) == (halves.kept, halves.moved)
    x, context = torch.randn(6, 5, **DOUBLE), torch.randn(6, 2, **DOUBLE)
    where = torch.cat([low, high])
    for there, expected in ((coupling, halves), (coupling.inverse, halves.inverse)):
        z, log_det = there(x, context)
        z_halves, log_det_halves = expected(x[:, where], context)
        assert torch.equal(z[:, where], z_halves)
        assert torch.equal(log_det, log_det_halves)
        assert torch.equal(z[:, ~mask], x[:, ~mask])


def test_masks_of_all_kinds() -> None:
    moves = [False, True, True]
    for mask in (moves, tuple(moves), torch.tensor(moves), np.array(moves)):
        coupling = Coupling(Affine(), mask, Conditioner(1, 4))
        assert (coupling.kept, coupling.moved, coupling.flip) == (1, 2, False)
        assert coupling.permutation is None
    assert Coupling(Affine(), [True, True, False], Conditioner(1, 4)).permutation is None
    everything = Coupling(Affine(), [True, True], Conditioner(0, 4))
    assert everything(torch.ones(3, 2))[1].shape == (3,)
    assert "moved=2, map=Affine(scale_fn='tanh')" in repr(everything)


def test_a_mask_goes_where_the_module_goes() -> None:
    """Also by a file, to memory that nobody has filled, and through torch.compile."""
    coupling = stir(Coupling(Affine(), [True, False, True], Conditioner(1, 4, hidden=(4,))))
    x = torch.randn(5, 3)
    expected = coupling(x)
    for other in (copy.deepcopy(coupling), coupling.to("cpu")):
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
    keys = set(coupling.state_dict())
    assert {k for k in keys if "conditioner" not in k} == {
        "permutation.order",
        "permutation.inverse_order",
    }
    compiled = torch.compile(coupling, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    torch.testing.assert_close(torch.func.vmap(coupling)(x), expected)


# --- conditioners ---------------------------------------------------------------------------------


class Cosines(nn.Module):
    """Parameters by a formula, from what stays and perhaps a context."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = x.sum(-1, keepdim=True) + (0 if context is None else context.sum(-1, keepdim=True))
        return torch.cat([(k * h).cos() for k in range(4)], dim=-1)


@pytest.mark.parametrize("c", [0, 2])
def test_any_module_is_a_conditioner(c: int) -> None:
    coupling = Coupling(Affine("exp"), [True, False, True], Cosines(), context=c)
    x, context = torch.randn(6, 3, **DOUBLE), torch.randn(6, c, **DOUBLE) if c else None
    z, log_det = coupling(x, context)
    h = x[:, 1] + (0 if context is None else context.sum(-1))
    torch.testing.assert_close(z[:, 0], x[:, 0] * (2 * h).cos().exp() + 1)
    torch.testing.assert_close(z[:, 2], x[:, 2] * (3 * h).cos().exp() + h.cos())
    torch.testing.assert_close(log_det, (2 * h).cos() + (3 * h).cos())
    torch.testing.assert_close(coupling.inverse(z, context)[0], x)


def test_a_conditioner_without_an_argument_for_contexts() -> None:
    network = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    coupling = Coupling(Affine(), [True, False, True], network)
    flow = flows.Flow(coupling).eval()
    x, log_prob = flow.rsample_and_log_prob(5, seed=0)
    torch.testing.assert_close(flow.log_prob(x), log_prob)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [0, 1, 2])
def test_the_dense_conditioner_is_its_formula(activation: str, residual: int) -> None:
    network = stir(
        Conditioner(
            3, 4, context=2, hidden=(5, 6), activation=activation, residual=residual, **DOUBLE
        )
    )
    a = {
        "relu": lambda h: h.clamp(min=0),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "silu": lambda h: h * torch.sigmoid(h),
        "gelu": lambda h: h * torch.special.ndtr(h),
    }[activation]
    x, context = torch.randn(7, 3, **DOUBLE), torch.randn(7, 2, **DOUBLE)
    first, second, *blocks, last = network.layers
    assert len(blocks) == 2 * residual
    h = torch.cat([x, context], -1)
    h = h @ torch.cat([first.weight, network.context_layer.weight], 1).T + first.bias
    h = a(h) @ second.weight.T + second.bias
    for one, two in zip(blocks[::2], blocks[1::2], strict=True):
        h = h + a(a(h) @ one.weight.T + one.bias) @ two.weight.T + two.bias
    expected = (h if residual else a(h)) @ last.weight.T + last.bias
    found = network(x, context)
    torch.testing.assert_close(found, expected)
    parameters = list(network.parameters())
    for f, e in zip(
        torch.autograd.grad(found.sin().sum(), parameters),
        torch.autograd.grad(expected.sin().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(f, e)


def test_a_seed_draws_the_weights_as_linear_layers_do() -> None:
    torch.manual_seed(3)
    network = Conditioner(2, 6, context=1, hidden=(4, 5), start=(1.0, 2.0, 3.0))
    torch.manual_seed(3)
    first, context, second = nn.Linear(2, 4), nn.Linear(1, 4, bias=False), nn.Linear(4, 5)
    assert torch.equal(network.layers[0].weight, first.weight * (2 / 3) ** 0.5)
    assert torch.equal(network.layers[0].bias, first.bias * (2 / 3) ** 0.5)
    assert torch.equal(network.context_layer.weight, context.weight * (1 / 3) ** 0.5)
    assert torch.equal(network.layers[1].weight, second.weight)
    assert not network.layers[2].weight.any()
    assert network.layers[2].bias.tolist() == [1, 2, 3, 1, 2, 3]


DENSE = [f"layers.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")]


@pytest.mark.parametrize(
    "name",
    [
        *("AdditiveCoupling", "AffineCoupling", "SplineCoupling"),
        *("MixtureLogisticCoupling", "DeepSigmoidalCoupling", "BernsteinCoupling"),
    ],
)
def test_state_dict_keys_stay(name: str) -> None:
    made = getattr(flows, name)
    state = made(3, hidden=(4,)).state_dict()
    assert list(state) == [f"conditioner.{key}" for key in DENSE]
    state = made(3, hidden=(4,), context=2).state_dict()
    assert list(state) == [f"conditioner.{key}" for key in (*DENSE, "context_layer.weight")]
    assert list(made(1, hidden=(4,)).state_dict()) == ["conditioner.constant"]


def test_state_dict_keys_of_models_stay() -> None:
    for kind in (flows.RealNVP, flows.NSF):
        state = kind(2, transforms=2, hidden=(4,)).state_dict()
        expected = [f"transform.transforms.{i}.conditioner.{k}" for i in range(2) for k in DENSE]
        assert list(state) == expected


class Rows(nn.Module):
    """Parameters of another number of rows than there are."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(7, 2)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (TypeError, "map: expected a map", lambda: Coupling("affine", [True], Conditioner(0, 2))),
        (TypeError, "mask: expected a seq", lambda: Coupling(Affine(), [1, 0], Conditioner(1, 2))),
        (TypeError, "mask: expected a sequence", lambda: Coupling(Affine(), 3, Conditioner(1, 2))),
        (TypeError, "mask: expected a seq", lambda: Coupling(Affine(), "TF", Conditioner(1, 2))),
        (TypeError, "mask: expected a seq", lambda: Coupling(Affine(), {True}, Conditioner(0, 2))),
        (
            TypeError,
            "mask: expected a sequence",
            lambda: Coupling(Affine(), np.array([1, 0]), Conditioner(1, 2)),
        ),
        (
            ValueError,
            r"conditioner: expected .*leading dimensions broadcast to .*\[3\], got .*\(7, 2\)",
            lambda: Coupling(Affine(), [True, False], Rows())(torch.ones(3, 2)),
        ),
        (
            ValueError,
            r"conditioner: expected .*leading dimensions broadcast to .*\[3\], got .*\(7, 2\)",
            lambda: Coupling(Additive(), [True, True, False], Rows())(torch.ones(3, 3)),
        ),
        (
            TypeError,
            "mask: expected bools",
            lambda: Coupling(Affine(), torch.tensor([0, 1]), Conditioner(1, 2)),
        ),
        (
            TypeError,
            "mask: expected bools",
            lambda: Coupling(
                Affine(), torch.tensor([True, False], device="meta"), Conditioner(1, 2)
            ),
        ),
        (
            TypeError,
            "mask: expected a sequence of bools",
            lambda: Coupling(Affine(), torch.tensor([[True, False]]), Conditioner(1, 2)),
        ),
        (
            ValueError,
            "mask: expected at least one feature that moves",
            lambda: Coupling(Affine(), [False, False], Conditioner(2, 2)),
        ),
        (ValueError, "mask: expected at least", lambda: Coupling(Affine(), [], Conditioner(1, 2))),
        (
            TypeError,
            "conditioner: expected a torch.nn.Module",
            lambda: Coupling(Affine(), [True, False], torch.relu),
        ),
        (
            ValueError,
            "conditioner: expected one with inputs=1, for a mask that keeps 1 of 3",
            lambda: Coupling(Affine(), [True, False, True], Conditioner(2, 4)),
        ),
        (
            ValueError,
            "conditioner: expected one with outputs=4",
            lambda: Coupling(Affine(), [True, False, True], Conditioner(1, 3)),
        ),
        (
            ValueError,
            "conditioner: expected one with context=0",
            lambda: Coupling(Affine(), [True, False], Conditioner(1, 2, context=3)),
        ),
        (
            ValueError,
            r"conditioner: expected a tensor of shape \[..., 2\], the 2 parameters of Affine",
            lambda: Coupling(Affine(), [True, False], nn.Linear(1, 3))(torch.ones(5, 2)),
        ),
        (
            ValueError,
            "context: expected an integer of at least 0",
            lambda: Coupling(Affine(), [True, False], nn.Linear(1, 2), context=-1),
        ),
        (ValueError, "inputs: expected an integer", lambda: Conditioner(-1, 2)),
        (ValueError, "outputs: expected an integer", lambda: Conditioner(1, 0)),
        (ValueError, "activation: expected one of", lambda: Conditioner(1, 2, activation="sin")),
        (ValueError, "residual: expected an integer", lambda: Conditioner(1, 2, residual=-1)),
        (
            ValueError,
            "residual: expected 0 for a network without hidden",
            lambda: Conditioner(1, 2, hidden=(), residual=1),
        ),
        (TypeError, "start: expected a tuple", lambda: Conditioner(1, 4, start=1.0)),
        (ValueError, "start: expected numbers", lambda: Conditioner(1, 4, start=(0.0,) * 3)),
        (ValueError, "activation: expected one of", lambda: flows.NSF(2, activation="cube")),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()
