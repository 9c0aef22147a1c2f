"""Activations, and what makes parameters of maps of outputs: values and gradients.

They stand beside those of torch.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import programs
from bslfast._native import _cpu
from bslfast.programs.networks import activated

ACTIVATIONS: dict[str, tuple[tuple[float, ...], Callable[[Tensor], Tensor]]] = {
    "linear": ((-0.5, 2.0), lambda x: 2.0 - 0.5 * x),
    "log": ((7.0,), lambda x: (x + 7.0).log()),
    "softclip": ((1.5,), lambda x: x / (1 + x.abs() / 1.5)),
    "raw_exp": ((), lambda x: x.exp() + (-(-x.exp()).expm1()).log()),
    "gelu": ((), F.gelu),
    "gelu_tanh": ((), lambda x: F.gelu(x, approximate="tanh")),
    "exp": ((), torch.exp),
    "softplus": ((0.25,), lambda x: F.softplus(x) + 0.25),
}

# Those of torch's modules are tested with whole networks.
assert {*ACTIVATIONS, "relu", "tanh", "sigmoid", "silu"} == set(_cpu.ACTIVATIONS)


class Layer(nn.Module):
    """One activation of a dense layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(torch.eye(3, dtype=torch.float64))

    def by_ops(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return ACTIVATIONS[self.name][1](x @ self.weight.T), x.new_zeros(x.shape[:-1])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients(name: str) -> None:
    numbers, _ = ACTIVATIONS[name]

    def steps(builder: programs.Builder, module: Layer) -> programs.Lanes:
        builder.looked_at(module)
        return activated(builder, name, builder.dense(builder.x, 3, module.weight, None), *numbers)

    layer = Layer(name)
    x = torch.linspace(-6.0, 6.0, 150, dtype=torch.float64).reshape(50, 3).requires_grad_()
    weights = torch.randn(50, 3, dtype=torch.float64)
    found = programs.run(layer, "value", steps, (3, 0), "by_ops", x, None)
    assert found is not None
    wanted = layer.by_ops(x, None)[0]
    torch.testing.assert_close(found[0], wanted, rtol=1e-13, atol=1e-13)
    grads = [
        torch.autograd.grad((y * weights).sum(), (x, layer.weight)) for y in (found[0], wanted)
    ]
    for own, their in zip(*grads, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("isa", _cpu.isa_levels())
def test_gelu_keeps_its_digits_in_the_tail(isa: str, dtype: torch.dtype) -> None:
    """Where 1 + erf(x) has none: x times the normal distribution function, beside mpmath."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.GELU()).to(dtype)
    nn.init.ones_(network[0].weight)  # type: ignore[arg-type]
    x = torch.linspace(-12.0, 12.0, 97, dtype=dtype).reshape(-1, 1).requires_grad_()

    def steps(builder: programs.Builder, module: nn.Module) -> programs.Lanes:
        lanes: programs.Lanes = programs.lower(builder, module, builder.x)
        return lanes

    before = _cpu.isa()
    _cpu.set_isa(isa)
    try:
        found = programs.run(network, "value", steps, (1, 0), "forward", x, None)
        assert found is not None
        (grad,) = torch.autograd.grad(found[0].sum(), x)
    finally:
        _cpu.set_isa(before)
    eps = torch.finfo(dtype).eps
    for i, v in enumerate(x.flatten().tolist()):
        at = mpmath.mpf(v)
        size = 8 * eps * (1 + v * v)  # the exponent is rounded
        assert found[0][i, 0].item() == pytest.approx(float(at * mpmath.ncdf(at)), rel=size)
        slope = mpmath.ncdf(at) + at * mpmath.npdf(at)
        rounded = size * float(abs(at) * mpmath.npdf(at))
        assert grad[i].item() == pytest.approx(float(slope), rel=size, abs=rounded)
