"""Autoregressive transforms and their masked networks, beyond the table of test_flow.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import bslfast
from bslfast import flows
from bslfast.flows import (
    MADE,
    Additive,
    Affine,
    Autoregressive,
    Conditioner,
    Map,
    Spline,
    conditioners,
)

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
MAPS: dict[str, Map] = {
    "additive": Additive(),
    "affine": Affine(),
    "spline": Spline(4),
    "spline circular": Spline(4, tails="circular"),
    "mixture": flows.MixtureLogistic(3),
    "deep sigmoidal": flows.DeepSigmoidal(3),
    "bernstein": flows.Bernstein(4),
}
ORDER = [3, 0, 4, 1, 2]
NETWORKS: dict[str, dict[str, Any]] = {
    "linear": {"hidden": ()},
    "dense": {"hidden": (8, 9), "activation": "tanh"},
    "residual": {"hidden": (8,), "residual": 2, "activation": "silu"},
}


def stir(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module


def made(map: Map, c: int, network: str, order: Sequence[int] = ORDER) -> MADE:
    options = NETWORKS[network] | DOUBLE
    return stir(MADE(len(order), map, context=c, order=order, **options))


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("c", [0, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_jacobian_is_triangular(name: str, c: int, network: str) -> None:
    """In the conditioner's order, forward and back, with all that may depend on each other."""
    transform = Autoregressive(MAPS[name], made(MAPS[name], c, network))
    x, context = torch.rand(5, **DOUBLE) - 0.5, torch.randn(c, **DOUBLE) if c else None
    z = transform(x, context)[0].detach()
    for function, where in ((transform, x), (transform.inverse, z)):
        jacobian = torch.autograd.functional.jacobian(
            lambda v, f=function: f(v, context)[0], where
        )[ORDER][:, ORDER]
        assert not jacobian.triu(1).any()
        assert (jacobian.diagonal() > 0).all()
        assert jacobian.tril().count_nonzero() == 15
        log_det = function(where, context)[1]
        torch.testing.assert_close(jacobian.diagonal().log().sum(), log_det)
    if context is not None:  # which reaches every feature, the first in the order too
        depends = torch.autograd.functional.jacobian(lambda v: transform(x, v)[0], context)
        assert depends.all()


class Called(nn.Module):
    """A MADE that is not known to be one, and how often it was called."""

    def __init__(self, network: MADE) -> None:
        super().__init__()
        self.network, self.order, self.context = network, network.order, network.context
        self.calls = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls += 1
        return self.network(x, context)


@pytest.mark.parametrize("name", ["affine", "spline"])
@pytest.mark.parametrize("c", [0, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_inverse_in_one_pass_is_that_of_one_pass_for_each_feature(
    name: str, c: int, network: str
) -> None:
    conditioner = made(MAPS[name], c, network)
    called = Called(conditioner)
    once, often = (Autoregressive(MAPS[name], one) for one in (conditioner, called))
    z = torch.randn(6, 5, requires_grad=True, **DOUBLE)
    context = torch.randn(6, c, requires_grad=True, **DOUBLE) if c else None
    tensors = [t for t in (z, context, *conditioner.parameters()) if t is not None]
    results = []
    for transform in (once, often):
        x, log_det = transform.inverse(z, context)
        results.append((x, log_det))
        results.append(torch.autograd.grad(x.sin().sum() + log_det.sum(), tensors))
    assert called.calls == 5
    torch.testing.assert_close(results[:2], results[2:])
    shared = None if context is None else context[:1]
    torch.testing.assert_close(once.inverse(z, shared), often.inverse(z, shared))


class Halved(MADE):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x, context) / 2


class HalvedLayer(conditioners._MaskedLayer):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


def hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda module, args, output: output / 2)


def own_forward(module: Any) -> None:
    before = module.forward
    module.forward = lambda *args: before(*args) / 2


def hide(layer: Any) -> None:
    layer.mask[::2, 0] = False


CHANGES: dict[str, Callable[[Any], Any]] = {
    "hook of the network": hook,
    "hook of a layer": lambda network: hook(network.layers[1]),
    "method of an object": own_forward,
    "method of a layer": lambda network: own_forward(network.layers[1]),
    "class of the network": lambda network: setattr(network, "__class__", Halved),
    "class of a layer": lambda network: setattr(network.layers[1], "__class__", HalvedLayer),
    "layer inside another": lambda network: network.layers.__setitem__(
        1, nn.Sequential(network.layers[1], nn.Tanh())
    ),
    "pruned": lambda network: prune.random_unstructured(network.layers[1], "weight", 0.5),
    "mask": lambda network: hide(network.layers[1]),
    "no bias": lambda network: setattr(network.layers[1], "bias", None),
    "no last bias": lambda network: setattr(network.layers[-1], "bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("whole", [True, False])
def test_the_inverse_is_that_of_what_a_call_computes(change: str, whole: bool) -> None:
    """Whatever the network's parts have become."""
    network = made(Affine(), 2, "dense")
    flow = flows.Flow(flows.Composite([Autoregressive(Affine(), network)]))
    x, context = torch.randn(4, 5, **DOUBLE), torch.randn(4, 2, **DOUBLE)
    with bslfast.whole_networks(whole):
        before = flow.transform(x, context)[0]
        flow.sample(2, context)  # by a program that is kept
        CHANGES[change](network)
        z, log_det = flow.transform(x, context)
        assert not torch.allclose(z, before)
        back, log_det_back = flow.transform.inverse(z, context)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)


def test_the_state_of_another_order() -> None:
    one, other = (flows.MADE(3, Affine(), hidden=(4,), order=o) for o in ([0, 1, 2], [2, 0, 1]))
    with pytest.raises(RuntimeError, match=r"layers\.0\.mask: expected one that hides all"):
        other.load_state_dict(one.state_dict())
    one.layers[0].mask.fill_(False)
    flows.MADE(3, Affine(), hidden=(4,)).load_state_dict(one.state_dict())  # it hides more


def test_second_derivatives_and_batches_of_the_inverse() -> None:
    transform = Autoregressive(Spline(4), made(Spline(4), 0, "dense", [1, 2, 0]))
    z = torch.randn(2, 3, requires_grad=True, **DOUBLE)
    assert torch.autograd.gradgradcheck(transform.inverse, (z,))
    torch.testing.assert_close(torch.func.vmap(transform.inverse)(z), transform.inverse(z))


def test_degrees() -> None:
    """As the docstring has them, also of layers too narrow for all."""
    network = MADE(4, Additive(), hidden=(7, 2), order=[2, 0, 3, 1])
    first, second, last = network.layers
    assert first.seen == (2, 4, 1, 3)  # the place of each feature, from 1 on
    assert first.sees == second.seen == (1, 1, 1, 2, 2, 3, 3)
    assert second.sees == last.seen == (1, 3)
    assert last.sees == (1, 3, 0, 2)
    assert torch.equal(last.mask, torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0]]).bool())
    network = MADE(4, Affine(), context=1, hidden=(8, 1))
    assert network.layers[0].sees == (0, 0, 1, 1, 2, 2, 3, 3)
    assert network.layers[1].sees == (0,)  # the context reaches every feature all the same
    assert network.layers[2].sees == (0, 1, 2, 3) * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes(dtype: torch.dtype) -> None:
    """z keeps the dtype; its log-determinant is float32 at least."""
    network = MADE(5, Affine(), hidden=(8,), residual=1)
    transform = Autoregressive(Affine(), stir(network)).to(dtype)
    x = torch.randn(6, 5).to(dtype)
    z, log_det = transform(x)
    back, back_log_det = transform.inverse(z)
    assert z.dtype == back.dtype == dtype
    assert log_det.dtype == back_log_det.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(back, x, rtol=0, atol=30 * eps)
    torch.testing.assert_close(back_log_det, -log_det, rtol=0, atol=30 * eps)
    with torch.autocast("cpu", torch.bfloat16):
        assert transform.inverse(x)[1].dtype == torch.float32


def with_attributes(**attributes: Any) -> nn.Module:
    module = nn.Identity()
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def test_maf_is_iaf_turned_around() -> None:
    maf, iaf = (stir(kind(3, context=2, transforms=2, **DOUBLE)) for kind in (flows.MAF, flows.IAF))
    assert [step.order for step in maf.transform.transforms] == [(0, 1, 2), (2, 1, 0)]
    steps = maf.transform.transforms, iaf.transform.transforms
    for step, turned in zip(steps[0], reversed(steps[1]), strict=True):
        turned.transform = step
    x, context = torch.randn(4, 3, **DOUBLE), torch.randn(4, 2, **DOUBLE)
    z, log_det = maf.transform(x, context)
    back, back_log_det = iaf.transform(z, context)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_log_det, -log_det)


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (ValueError, "features: expected an integer", lambda: MADE(0, Affine())),
        (TypeError, "map: expected a map", lambda: MADE(2, "affine")),
        (ValueError, "order: expected each of 0 to 2", lambda: MADE(3, Affine(), order=[0, 1, 1])),
        (ValueError, "order: expected each of 0 to 2", lambda: MADE(3, Affine(), order=[1, 0])),
        (ValueError, "order: expected each", lambda: MADE(2, Affine(), order=1)),
        (ValueError, "order: expected each", lambda: MADE(2, Affine(), order=[0.0, 1.0])),
        (ValueError, "order: expected each", lambda: MADE(2, Affine(), order=[False, True])),
        (ValueError, "order: expected each", lambda: MADE(2, Affine(), order=[0, -1])),
        (ValueError, "order: expected each", lambda: MADE(2, Affine(), order="01")),
        (ValueError, "order: .*each", lambda: MADE(2, Affine(), order=torch.tensor([[0, 1]]))),
        (
            ValueError,
            "conditioner.order: expected each of 0 to 1",
            lambda: Autoregressive(Affine(), with_attributes(order=[0, 2])),
        ),
        (
            ValueError,
            "conditioner.context: expected an integer of at least 0, got -1",
            lambda: Autoregressive(Affine(), with_attributes(order=[0, 1], context=-1)),
        ),
        (TypeError, "hidden: expected a tuple", lambda: MADE(2, Affine(), hidden=4)),
        (ValueError, "hidden: expected an integer", lambda: MADE(2, Affine(), hidden=(0,))),
        (ValueError, "context: expected an integer", lambda: MADE(2, Affine(), context=-1)),
        (ValueError, "residual: expected 0", lambda: MADE(2, Affine(), hidden=(), residual=1)),
        (
            TypeError,
            "conditioner: expected a module with an attribute 'order'",
            lambda: Autoregressive(Affine(), Conditioner(2, 4)),
        ),
        (
            TypeError,
            "conditioner: expected a module with an attribute 'order'",
            lambda: Autoregressive(Affine(), None),
        ),
        (TypeError, "map: expected a map", lambda: Autoregressive(MADE(2, Affine()), Affine())),
        (
            ValueError,
            r"conditioner: expected one for the parameters of Spline.*got one for those of Affine",
            lambda: Autoregressive(Spline(), MADE(2, Affine())),
        ),
        (
            ValueError,
            r"conditioner: expected a tensor of shape \[..., 10\], the 2 parameters of Affine",
            lambda: Autoregressive(Affine(), Called(MADE(5, Additive())))(torch.ones(5)),
        ),
        (
            ValueError,
            r"x: .*\[..., 2\]",
            lambda: Autoregressive(Affine(), MADE(2, Affine()))(torch.ones(3)),
        ),
        (
            ValueError,
            "context: .*got None",
            lambda: Autoregressive(Affine(), MADE(2, Affine(), context=1))(torch.ones(2)),
        ),
        (ValueError, "transforms: expected an integer", lambda: flows.MAF(2, transforms=0)),
        (ValueError, "scale_fn: expected one of", lambda: flows.IAF(2, scale_fn="cube")),
    ],
)
def test_bad_input(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()
