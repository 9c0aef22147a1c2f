"""Encoders and decoders that are ready to use."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._activations import ACTIVATIONS


def mlp_encoder(
    shape: Sequence[int],
    latent: int,
    hidden: Sequence[int] = (256, 128),
    *,
    deterministic: bool = False,
    activation: str = "relu",
    outputs: int | None = None,
    context: int = 0,
) -> nn.Sequential:
    """Return a dense encoder for x [batch, *shape].

    Args:
        shape: of one example.
        latent: number of latent dimensions.
        hidden: widths of the hidden layers.
        deterministic: ``latent`` outputs for an :class:`Autoencoder`, not twice as many.
        activation: of the hidden layers: "relu", "tanh", "sigmoid", "silu" or "gelu".
        outputs: their number, for another posterior than the usual one.
        context: size of a context [batch, context], which the network then takes beside x.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> mlp_encoder((8, 8), 2, hidden=(32,))(torch.rand(5, 8, 8)).shape
    torch.Size([5, 4])
    """
    width = math.prod(_checks.widths("shape", shape, at_least=1))
    width += _checks.integer("context", context, 0)
    layers, width = _hidden(width, hidden, activation)
    dense = nn.Linear(width, _outputs(latent, deterministic, outputs))
    return _joined((nn.Flatten(),), (*layers, dense), context)


def mlp_decoder(
    latent: int,
    shape: Sequence[int],
    hidden: Sequence[int] = (128, 256),
    *,
    activation: str = "relu",
    context: int = 0,
) -> nn.Sequential:
    """Return a dense decoder: z [batch, latent] -> [batch, *shape].

    Args:
        latent, shape: as in :func:`mlp_encoder`; for ``scale="decoder"`` with twice the first
            number.
        hidden: widths of the hidden layers, from the code on.
        activation, context: as in :func:`mlp_encoder`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> mlp_decoder(2, (8, 8), hidden=(32,))(torch.rand(5, 2)).shape
    torch.Size([5, 8, 8])
    """
    shape = _checks.widths("shape", shape, at_least=1)
    width = _checks.integer("latent", latent) + _checks.integer("context", context, 0)
    layers, width = _hidden(width, hidden, activation)
    layers.append(nn.Linear(width, math.prod(shape)))
    if len(shape) > 1:
        layers.append(nn.Unflatten(1, shape))
    return _joined((), layers, context)


def conv_encoder(
    shape: Sequence[int],
    latent: int,
    channels: Sequence[int] = (32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 2, 1),
    *,
    deterministic: bool = False,
    outputs: int | None = None,
    context: int = 0,
) -> nn.Sequential:
    """Return a convolutional encoder: 3x3 convolutions, each with BatchNorm and LeakyReLU.

    Args:
        shape: of one image, (channels, height, width); height and width must be multiples of the
            product of the strides.
        latent, deterministic, outputs: as in :func:`mlp_encoder`.
        channels: of the convolutions.
        strides: of the convolutions; each divides height and width.
        context: size of a context [batch, context], which joins what the convolutions give.

    Source: Foster, "Generative deep learning" (2019, ISBN 978-1-4920-4194-8), chapter 3.

    >>> import torch
    >>> conv_encoder((1, 8, 8), 2, (4, 8), (2, 2))(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 4])
    """
    inputs, height, width = _image(shape, channels, strides)
    layers: list[nn.Module] = []
    for n, stride in zip(channels, strides, strict=True):
        layers += [
            nn.Conv2d(inputs, n, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.LeakyReLU(),
        ]
        inputs = n
    total = math.prod(strides)
    flat = inputs * (height // total) * (width // total) + _checks.integer("context", context, 0)
    dense = nn.Linear(flat, _outputs(latent, deterministic, outputs))
    return _joined((*layers, nn.Flatten()), (dense,), context)


def conv_decoder(
    latent: int,
    shape: Sequence[int],
    channels: Sequence[int] = (64, 64, 64, 32),
    strides: Sequence[int] = (1, 2, 2, 1),
    *,
    context: int = 0,
) -> nn.Sequential:
    """Return the mirror image of :func:`conv_encoder`, with transposed convolutions.

    Args:
        latent: number of latent dimensions.
        shape: of one image, (channels, height, width).
        channels: of the feature maps, from the code on; the last convolution makes the image.
        strides: of the transposed convolutions.
        context: size of a context [batch, context], which joins the code.

    >>> import torch
    >>> conv_decoder(2, (1, 8, 8), (8, 4), (2, 2))(torch.rand(5, 2)).shape
    torch.Size([5, 1, 8, 8])
    """
    image, height, width = _image(shape, channels, strides)
    total = math.prod(strides)
    start = (channels[0], height // total, width // total)
    inputs = _checks.integer("latent", latent) + _checks.integer("context", context, 0)
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(start)), nn.Unflatten(1, start)]
    for i, (n, stride) in enumerate(zip(channels, strides, strict=True)):
        last = i == len(channels) - 1
        following = image if last else channels[i + 1]
        layers.append(
            nn.ConvTranspose2d(n, following, 3, stride, 1, output_padding=stride - 1, bias=last)
        )
        if not last:
            layers += [nn.BatchNorm2d(following), nn.LeakyReLU()]
    return _joined((), layers, context)


class WithContext(nn.Sequential):
    """A network of x and a context, which goes into its second part beside what the first gives.

    Args:
        before: x -> [batch, features].
        after: what takes [batch, features + context].
        size: of the context, which is compared if it is given.

    Raises:
        ValueError: a context of another shape than [batch, size].

    >>> import torch
    >>> network = WithContext(nn.Flatten(), nn.Linear(4 + 3, 2))
    >>> network(torch.rand(5, 2, 2), torch.rand(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(self, before: nn.Module, after: nn.Module, size: int | None = None) -> None:
        super().__init__(before, after)
        self.size = size

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the network's outputs."""
        if context is None or context.dim() != 2 or self.size not in (None, context.shape[1]):
            raise ValueError(
                f"context: expected shape [{len(x)}, {self.size or '...'}], got "
                f"{_checks.describe(context)}"
            )
        before, after = self
        y: Tensor = after(torch.cat([before(x), context], dim=1))
        return y


def _joined(before: Sequence[nn.Module], after: Sequence[nn.Module], context: int) -> nn.Sequential:
    if not context:
        return nn.Sequential(*before, *after)
    return WithContext(nn.Sequential(*before), nn.Sequential(*after), context)


def _outputs(latent: int, deterministic: bool, outputs: int | None) -> int:
    """How many outputs an encoder has."""
    latent = _checks.integer("latent", latent)
    if outputs is not None:
        return _checks.integer("outputs", outputs)
    return latent if _checks.flag("deterministic", deterministic) else 2 * latent


def _hidden(width: int, hidden: Sequence[int], activation: str) -> tuple[list[nn.Module], int]:
    """The hidden layers from so many inputs on, and the number of outputs of the last one."""
    made = ACTIVATIONS[_checks.choice("activation", activation, tuple(ACTIVATIONS))]
    layers: list[nn.Module] = []
    for n in _checks.widths("hidden", hidden):
        layers += [nn.Linear(width, n), made()]
        width = n
    return layers, width


def _image(
    shape: Sequence[int], channels: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    sizes = _checks.widths("shape", shape, at_least=1)
    if len(sizes) != 3:
        raise ValueError(f"shape: expected (channels, height, width), got {sizes}")
    if not _checks.widths("channels", channels):
        raise ValueError("channels: expected at least one convolution, got none")
    if len(_checks.widths("strides", strides)) != len(channels):
        raise ValueError(
            f"strides: expected as many as channels, {len(channels)}, got {len(strides)}"
        )
    total = math.prod(strides)
    if sizes[1] % total or sizes[2] % total:
        raise ValueError(
            f"shape: expected height and width to be multiples of {total}, the product of the "
            f"strides, got {sizes}"
        )
    return sizes
