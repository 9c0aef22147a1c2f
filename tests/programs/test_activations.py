"""Steps that make parameters of maps of outputs: values and gradients, beside those of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import programs
from bslfast.programs.networks import activated

ACTIVATIONS: dict[str, tuple[tuple[float, ...], Callable[[Tensor], Tensor]]] = {
    "linear": ((-0.5, 2.0), lambda x: 2.0 - 0.5 * x),
    "log": ((7.0,), lambda x: (x + 7.0).log()),
    "softclip": ((1.5,), lambda x: x / (1 + x.abs() / 1.5)),
    "raw_exp": ((), lambda x: x.exp() + (-(-x.exp()).expm1()).log()),
    "softplus": ((0.25,), lambda x: F.softplus(x) + 0.25),
}


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
