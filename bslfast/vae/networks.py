"""Encoders and decoders that are ready to use."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from bslfast import _checks
from bslfast._activations import ACTIVATIONS


def mlp_encoder(
    shape: Sequence[int],
    latent: int,
    hidden: Sequence[int] = (256, 128),
    *,
    deterministic: bool = False,
    activation: str = "relu",
) -> nn.Sequential:
    """Return a dense encoder for x [batch, *shape].

    Args:
        shape: of one example.
        latent: number of latent dimensions.
        hidden: widths of the hidden layers.
        deterministic: ``latent`` outputs for an :class:`Autoencoder`, not twice as many.
        activation: of the hidden layers: "relu", "tanh", "sigmoid", "silu" or "gelu".

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> mlp_encoder((8, 8), 2, hidden=(32,))(torch.rand(5, 8, 8)).shape
    torch.Size([5, 4])
    """
    width = math.prod(_checks.widths("shape", shape, at_least=1))
    layers, width = _hidden(width, hidden, activation)
    outputs = _checks.integer("latent", latent) * (1 if deterministic else 2)
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, outputs))


def mlp_decoder(
    latent: int,
    shape: Sequence[int],
    hidden: Sequence[int] = (128, 256),
    *,
    activation: str = "relu",
) -> nn.Sequential:
    """Return a dense decoder: z [batch, latent] -> [batch, *shape].

    Args:
        latent, shape: as in :func:`mlp_encoder`; for ``scale="decoder"`` with twice the first
            number.
        hidden: widths of the hidden layers, from the code on.
        activation: as in :func:`mlp_encoder`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> mlp_decoder(2, (8, 8), hidden=(32,))(torch.rand(5, 2)).shape
    torch.Size([5, 8, 8])
    """
    shape = _checks.widths("shape", shape, at_least=1)
    layers, width = _hidden(_checks.integer("latent", latent), hidden, activation)
    return nn.Sequential(*layers, nn.Linear(width, math.prod(shape)), nn.Unflatten(1, shape))


def conv_encoder(
    shape: Sequence[int],
    latent: int,
    channels: Sequence[int] = (32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 2, 1),
    *,
    deterministic: bool = False,
) -> nn.Sequential:
    """Return a convolutional encoder: 3x3 convolutions, each with BatchNorm and LeakyReLU.

    Args:
        shape: of one image, (channels, height, width); height and width must be multiples of the
            product of the strides.
        latent, deterministic: as in :func:`mlp_encoder`.
        channels: of the convolutions.
        strides: of the convolutions; each divides height and width.

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
    flat = inputs * (height // total) * (width // total)
    outputs = _checks.integer("latent", latent) * (1 if deterministic else 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, outputs))


def conv_decoder(
    latent: int,
    shape: Sequence[int],
    channels: Sequence[int] = (64, 64, 64, 32),
    strides: Sequence[int] = (1, 2, 2, 1),
) -> nn.Sequential:
    """Return the mirror image of :func:`conv_encoder`, with transposed convolutions.

    Args:
        latent: number of latent dimensions.
        shape: of one image, (channels, height, width).
        channels: of the feature maps, from the code on; the last convolution makes the image.
        strides: of the transposed convolutions.

    >>> import torch
    >>> conv_decoder(2, (1, 8, 8), (8, 4), (2, 2))(torch.rand(5, 2)).shape
    torch.Size([5, 1, 8, 8])
    """
    outputs, height, width = _image(shape, channels, strides)
    total = math.prod(strides)
    start = (channels[0], height // total, width // total)
    layers: list[nn.Module] = [
        nn.Linear(_checks.integer("latent", latent), math.prod(start)),
        nn.Unflatten(1, start),
    ]
    for i, (n, stride) in enumerate(zip(channels, strides, strict=True)):
        last = i == len(channels) - 1
        following = outputs if last else channels[i + 1]
        layers.append(
            nn.ConvTranspose2d(n, following, 3, stride, 1, output_padding=stride - 1, bias=last)
        )
        if not last:
            layers += [nn.BatchNorm2d(following), nn.LeakyReLU()]
    return nn.Sequential(*layers)


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
