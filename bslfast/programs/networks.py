"""What steps of a program the layers of torch stand for: (builder, module, lanes) -> lanes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bslfast._native import _cpu
from bslfast.programs.building import Builder, CannotLower, Drawn, Lanes, lower, lowers

_ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}


@lowers(nn.Sequential)
def _sequential(builder: Builder, module: nn.Sequential, lanes: Lanes) -> Lanes:
    builder.looked_at(module)
    for part in module:
        lanes = lower(builder, part, lanes)
    return lanes


@lowers(*_ACTIVATIONS)
def _activation(builder: Builder, module: nn.Module, lanes: Lanes) -> Lanes:
    builder.looked_at(module)
    name = next(name for kind, name in _ACTIVATIONS.items() if isinstance(module, kind))
    return activated(builder, name, lanes)


@lowers(nn.GELU)
def _gelu(builder: Builder, module: nn.GELU, lanes: Lanes) -> Lanes:
    builder.looked_at(module, "approximate")
    return activated(builder, "gelu" if module.approximate == "none" else "gelu_tanh", lanes)


@lowers(nn.Identity)
def _identity(builder: Builder, module: nn.Identity, lanes: Lanes) -> Lanes:
    builder.looked_at(module)
    return lanes


@lowers(nn.Flatten, nn.Unflatten)
def _shape(builder: Builder, module: nn.Flatten | nn.Unflatten, lanes: Lanes) -> Lanes:
    """Lanes have no shape: nothing is to be done."""
    if isinstance(module, nn.Flatten):
        builder.looked_at(module, "start_dim", "end_dim")
        alike = (module.start_dim, module.end_dim) == (1, -1)
    else:
        builder.looked_at(module, "dim", "unflattened_size")
        alike = module.dim == 1
    if not alike or not builder.any_shape:
        raise CannotLower(f"{module} has no steps")
    return lanes


@lowers(nn.Linear)
def _linear(builder: Builder, layer: nn.Linear, lanes: Lanes, added: Lanes | None = None) -> Lanes:
    builder.looked_at(layer)
    return dense(builder, lanes, layer.weight, layer.bias, added)


def dense(
    builder: Builder,
    lanes: Lanes,
    weight: Tensor | Drawn,
    bias: Tensor | Drawn | None,
    added: Lanes | None = None,
    levels: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Lanes:
    """A dense layer of all lanes; ``added`` and ``levels`` as of :meth:`Builder.dense`."""
    outputs, inputs = weight.shape
    if inputs != len(lanes):
        raise CannotLower(f"a layer has {inputs} inputs where {len(lanes)} numbers come in")
    return builder.dense(lanes, outputs, weight, bias, added=added, levels=levels)


def activated(builder: Builder, name: str, lanes: Lanes, *numbers: float) -> Lanes:
    """An activation of all lanes, of those that csrc/core/program.h has, with its numbers."""
    if not lanes:
        return []
    place = _cpu.ACTIVATIONS.index(name)
    return builder.step("activation", lanes, len(lanes), options=[place], numbers=numbers)


def constant(builder: Builder, values: Tensor) -> Lanes:
    """Lanes of parameters, the same in all rows."""
    return builder.dense([], values.numel(), None, values)
