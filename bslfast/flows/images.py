"""Invertible maps of images, and how they enter flows, which know vectors alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks
from bslfast.flows.domains import Step
from bslfast.flows.linear import PLU
from bslfast.flows.transform import (
    Row,
    Transform,
    check_inputs,
    check_like,
    check_no_context,
    check_transform,
    common_context,
    listed,
    no_log_det,
    steps_of,
)

Shape = tuple[int, int, int]


class ImageTransform(nn.Module):
    """An invertible map of images [..., channels, height, width].

    A subclass implements :meth:`forward`, :meth:`inverse` and, if it changes the shape,
    :meth:`mapped_shape`. The log-determinants are those of whole images: [...]. Wrapped in
    :class:`Images`, such maps are steps of a :class:`bslfast.flows.Flow`.

    Args:
        channels: of the images that come in, >= 1.
        context: size of the context vectors that the map depends on, one for each image; 0 if it
            depends on none. Then the methods may be without that argument.
    """

    def __init__(self, channels: int, context: int = 0) -> None:
        super().__init__()
        self.channels = _checks.integer("channels", channels)
        self.context = _checks.integer("context", context, 0)

    def steps(self) -> list[Step]:
        """See :meth:`bslfast.flows.Transform.steps`."""
        return [Step("", type(self).__name__, constraints.real_vector, constraints.real_vector)]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x`` [..., C, H, W]; return z and log |det dz/dx| [...]."""
        raise NotImplementedError

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``z`` back: the same with the roles of x and z exchanged."""
        raise NotImplementedError

    def mapped_shape(self, shape: Shape) -> Shape:
        """Return the shape (C, H, W) that an image of this shape is mapped to.

        Raises:
            ValueError: if the map does not take images of this shape.
        """
        if shape[0] != self.channels:
            raise ValueError(
                f"shape: expected {self.channels} channels for {type(self).__name__}, got {shape}"
            )
        return shape

    def _check(
        self,
        name: str,
        x: Tensor,
        channels: int,
        multiple: int = 1,
        like: Tensor | None = None,
        context: Tensor | None = None,
    ) -> None:
        """Raise unless x is images; a ``context`` is none of a map that takes none."""
        what = f"[..., {channels}, height, width]"
        if multiple > 1:
            what += f", height and width multiples of {multiple}"
        _checks.operand(name, _checks.floating(name, x, shape=what))
        if x.dim() < 3 or x.shape[-3] != channels or any(n % multiple for n in x.shape[-2:]):
            raise ValueError(
                f"{name}: expected a tensor of shape {what}, got {_checks.describe(x)}"
            )
        if like is not None:
            check_like(self, name, x, like)
        if context is not None:
            check_no_context(self, context)

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class Squeeze(ImageTransform):
    """Turns each square of pixels into channels of one pixel; nothing is computed.

    Args:
        channels: of the images that come in, >= 1.
        factor: side of the squares, >= 2, which divides height and width.

    Shape: x [..., C, H, W] -> (z [..., C factor^2, H / factor, W / factor], log_det [...]), log_det
    being 0. In the order of ``torch.nn.PixelUnshuffle``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 3.6.

    >>> import torch
    >>> from bslfast.flows import Squeeze
    >>> Squeeze(1)(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))[0].flatten()
    tensor([1., 2., 3., 4.])
    """

    def __init__(self, channels: int, *, factor: int = 2) -> None:
        super().__init__(channels)
        self.factor = _checks.integer("factor", factor, 2)

    def steps(self) -> list[Step]:
        """None: what is asked of every number alike does not depend on their order."""
        return []

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.forward`."""
        self._check("x", x, self.channels, self.factor, context=context)
        if not x.numel():
            # Torch's functions return no images as they are.
            channels, height, width = self.mapped_shape((x.shape[-3], x.shape[-2], x.shape[-1]))
            return x.reshape(*x.shape[:-3], channels, height, width), no_log_det(x, 3)
        return F.pixel_unshuffle(x, self.factor), no_log_det(x, 3)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.inverse`."""
        self._check("z", z, self.channels * self.factor**2, context=context)
        if not z.numel():
            height, width = (n * self.factor for n in z.shape[-2:])
            return z.reshape(*z.shape[:-3], self.channels, height, width), no_log_det(z, 3)
        return F.pixel_shuffle(z, self.factor), no_log_det(z, 3)

    def mapped_shape(self, shape: Shape) -> Shape:
        """See :meth:`ImageTransform.mapped_shape`."""
        channels, height, width = super().mapped_shape(shape)
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"shape: expected height and width to be multiples of {self.factor} for Squeeze, "
                f"got {shape}"
            )
        return channels * self.factor**2, height // self.factor, width // self.factor

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factor={self.factor}"


class InvertibleConv1x1(ImageTransform):
    r"""Multiplies the channels of each pixel by a learned matrix W = P L U.

    Args:
        channels: of the images, >= 1.
        seed: None to start from the identity, else from a random rotation, the one that the seed
            stands for.
        device, dtype: of the parameters.

    Shape: x [..., C, H, W] -> (z [..., C, H, W], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039).

    >>> import torch
    >>> from bslfast.flows import InvertibleConv1x1
    >>> conv = InvertibleConv1x1(3, seed=0)
    >>> x = torch.randn(4, 3, 8, 8)
    >>> z, log_det = conv(x)
    >>> torch.allclose(conv.inverse(z)[0], x, atol=1e-5), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(
        self,
        channels: int,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels)
        self.weight = PLU(channels, seed=seed, device=device, dtype=dtype)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.forward`."""
        self._check("x", x, self.channels, like=self.weight.factors, context=context)
        z = (self.weight.matrix() @ x.flatten(-2)).view(x.shape)
        return z, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.inverse`."""
        self._check("z", z, self.channels, like=self.weight.factors, context=context)
        x = self.weight.solve(z.flatten(-2)).reshape(z.shape)
        return x, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        pixels = x.shape[-2] * x.shape[-1]
        return (pixels * self.weight.log_det()).expand(x.shape[:-3])


class PerPixel(ImageTransform):
    """Applies a transform of vectors to the channels of each pixel.

    ``PerPixel(ActNorm(channels))`` is the normalisation of Glow.

    Args:
        transform: of as many features as the images have channels. If it takes a context, that is
            the same for all pixels of an image.

    Shape: x [..., C, H, W], context [..., context] -> (z [..., C, H, W], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039), section 3.1.

    >>> import torch
    >>> from bslfast.flows import ActNorm, PerPixel
    >>> z, log_det = PerPixel(ActNorm(3))(5 + torch.randn(4, 3, 8, 8))
    >>> bool(z.mean(dim=(0, 2, 3)).abs().max() < 1e-5), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(self, transform: Transform) -> None:
        check_transform("transform", transform)
        super().__init__(transform.features, transform.context)
        self.transform = transform

    def steps(self) -> list[Step]:
        """See :meth:`bslfast.flows.Transform.steps`."""
        return [step.inside("transform") for step in self.transform.steps()]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.forward`."""
        self._check("x", x, self.channels)
        x = check_inputs(self, "x", x.movedim(-3, -1), _of_pixels(context), features=self.channels)
        z, log_det = self.transform(x, _of_pixels(context))
        return z.movedim(-1, -3), log_det.sum(dim=(-2, -1))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageTransform.inverse`."""
        self._check("z", z, self.channels)
        z = check_inputs(self, "z", z.movedim(-3, -1), _of_pixels(context), features=self.channels)
        x, log_det = self.transform.inverse(z, _of_pixels(context))
        return x.movedim(-1, -3), log_det.sum(dim=(-2, -1))


def _of_pixels(context: Tensor | None) -> Tensor | None:
    """The context [..., 1, 1, context] of all pixels of an image; what is none as it is."""
    if not isinstance(context, Tensor) or context.dim() == 0:
        return context
    return context.unsqueeze(-2).unsqueeze(-2)


class Images(Row):
    """A transform of vectors that are images laid out in a row: maps of images, in sequence.

    Args:
        shape: (channels, height, width) of the images that come in.
        transforms: at least one :class:`ImageTransform`, each taking what the one before returns;
            those that take a context must agree on its size.

    Shape: x [..., channels * height * width], context [..., context] -> (z of the shape of x,
    log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 3.6.

    >>> import torch
    >>> from bslfast.flows import ActNorm, Flow, Images, InvertibleConv1x1, PerPixel, Squeeze
    >>> steps = [Squeeze(1), PerPixel(ActNorm(4)), InvertibleConv1x1(4, seed=0)]
    >>> flow = Flow(Images((1, 8, 8), steps))
    >>> flow.log_prob(torch.randn(5, 1, 8, 8).flatten(1)).shape
    torch.Size([5])
    """

    def __init__(self, shape: Sequence[int], transforms: Iterable[ImageTransform]) -> None:
        if not isinstance(shape, (tuple, list)) or len(shape) != 3:
            raise ValueError(f"shape: expected (channels, height, width), got {shape!r}")
        channels, height, width = (_checks.integer("shape", n) for n in shape)
        maps = listed("transforms", transforms, ImageTransform)
        super().__init__(channels * height * width, common_context(maps))
        self.shape: Shape = (channels, height, width)
        self.transforms = nn.ModuleList(maps)
        last = self.shape
        for transform in maps:
            last = transform.mapped_shape(last)
        self.mapped_shape = last
        assert math.prod(last) == self.features
        self._check_steps()

    def steps(self) -> list[Step]:
        """See :meth:`Transform.steps`."""
        return steps_of(self.transforms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context)
        z, total = x.unflatten(-1, self.shape), no_log_det(x)
        for transform in self.transforms:
            z, log_det = transform(z, context) if transform.context else transform(z)
            total = total + log_det
        return z.flatten(-3), total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context)
        x, total = z.unflatten(-1, self.mapped_shape), no_log_det(z)
        for transform in reversed(self.transforms):
            assert isinstance(transform, ImageTransform)
            given = (context,) if transform.context else ()
            x, log_det = transform.inverse(x, *given)
            total = total + log_det
        return x.flatten(-3), total

    def extra_repr(self) -> str:
        return f"shape={self.shape}, mapped_shape={self.mapped_shape}"
