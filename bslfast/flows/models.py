"""Ready-made flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bslfast import _checks
from bslfast.flows.autoregressive import Autoregressive
from bslfast.flows.bases import NormalBase
from bslfast.flows.conditioners import MADE, ConvConditioner
from bslfast.flows.coupling import Coupling
from bslfast.flows.elementwise import Log, Logit
from bslfast.flows.flow import Flow
from bslfast.flows.images import Images, ImageTransform, InvertibleConv1x1, PerPixel, Squeeze
from bslfast.flows.linear import PLULinear
from bslfast.flows.maps import Affine, Map, Spline
from bslfast.flows.named_couplings import AdditiveCoupling, AffineCoupling, SplineCoupling
from bslfast.flows.normalization import ActNorm, Rescale
from bslfast.flows.transform import (
    Composite,
    Inverse,
    Leading,
    Permutation,
    Transform,
    check_transform,
)

#: What may come between two transforms of a flow.
PERMUTATIONS = ("reverse", "random", "plu", "none")
Between = str | Callable[[int], Transform]
Support = str | tuple[float, float] | None


class RealNVP(Flow):
    """Affine couplings that take turns at moving the two halves of the features.

    The identity at the start: the density is standard normal. Cheap, and exact in both directions;
    :class:`NSF` fits most data better. Scale the data first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a map that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of couplings, >= 1; from 2 on every feature moves.
        hidden: widths of the hidden layers of each coupling's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        scale_fn: see :func:`bslfast.functional.affine_coupling`.
        permutation: what comes between two transforms. ``"reverse"``: they move the two halves by
            turns. ``"random"`` is an order drawn once and for all, ``"plu"`` a learned matrix that
            starts as a rotation (:class:`PLULinear`), ``"none"`` is nothing. Or a function that
            makes a transform of its place, 1, 2 and so on.
        support: what numbers there are: None for all, ``"positive"`` for those above 0, or
            (low, high) for those between. :class:`Log` or :class:`Logit` comes first then.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.RealNVP(3, context=2)
    >>> flow.log_prob(torch.randn(5, 3), torch.randn(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        scale_fn: str = "tanh",
        permutation: Between = "reverse",
        support: Support = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            _row(
                lambda flip: AffineCoupling(
                    features,
                    context=context,
                    hidden=hidden,
                    activation=activation,
                    residual=residual,
                    scale_fn=scale_fn,
                    flip=flip,
                    device=device,
                    dtype=dtype,
                ),
                features,
                transforms,
                permutation,
                support,
                device=device,
                dtype=dtype,
            )
        )


class NSF(Flow):
    """A neural spline flow: spline couplings that take turns at moving the two halves.

    Or autoregressive splines, in the order of the features and against it by turns.

    The identity at the start: the density is standard normal. The splines act on
    [-bound, bound]; outside them the density keeps its normal tails. Scale the data first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a spline that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of couplings, >= 1, from 2 on every feature moves; or of autoregressive
            transforms.
        hidden: widths of the hidden layers of each transform's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        bins: number of bins of each spline, >= 2.
        bound: half the length of the interval that the splines act on, 1e-30 to 1e15.
        autoregressive: move every feature by a spline that the features before it choose, see
            :class:`Autoregressive`: more flexible, and samples take one feature after the other.
        permutation: what comes between two transforms. ``"reverse"``: they move the two halves by
            turns, or every other one goes against the order of the features. ``"random"`` is an
            order drawn once and for all, ``"plu"`` a learned matrix that starts as a rotation
            (:class:`PLULinear`), ``"none"`` is nothing. Or a function that makes a transform of
            its place, 1, 2 and so on.
        support: what numbers there are: None for all, ``"positive"`` for those above 0, or
            (low, high) for those between. :class:`Log` or :class:`Logit` comes first then.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019,
    arXiv:1906.04032).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.NSF(2)
    >>> x, log_prob = flow.rsample_and_log_prob(4, seed=0)
    >>> torch.allclose(log_prob, flow.log_prob(x), atol=1e-5)
    True
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        autoregressive: bool = False,
        permutation: Between = "reverse",
        support: Support = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        network: dict[str, Any] = {
            "context": context,
            "hidden": hidden,
            "activation": activation,
            "residual": residual,
            "device": device,
            "dtype": dtype,
        }
        spline = Spline(bins, bound)

        def coupling(flip: bool) -> Transform:
            return SplineCoupling(features, bins=bins, bound=bound, flip=flip, **network)

        make: Callable[[bool], Transform] = coupling
        if _checks.flag("autoregressive", autoregressive):
            make = _autoregressive(spline, features, network)
        super().__init__(
            _row(make, features, transforms, permutation, support, device=device, dtype=dtype)
        )


class NICE(Flow):
    """Additive couplings that take turns at moving the two halves, and normal noise of any scale.

    The couplings keep volumes; locations and scales of the noise are learned. The identity at the
    start: the density is standard normal. Scale the data first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a map that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of couplings, >= 1; from 2 on every feature moves.
        hidden: widths of the hidden layers of each coupling's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        permutation: what comes between two transforms. ``"reverse"``: they move the two halves by
            turns. ``"random"`` is an order drawn once and for all, ``"plu"`` a learned matrix that
            starts as a rotation (:class:`PLULinear`), ``"none"`` is nothing. Or a function that
            makes a transform of its place, 1, 2 and so on.
        support: what numbers there are: None for all, ``"positive"`` for those above 0, or
            (low, high) for those between. :class:`Log` or :class:`Logit` comes first then.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Krueger and Bengio, "NICE: Non-linear independent components estimation" (2015,
    arXiv:1410.8516).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.NICE(3)
    >>> flow.log_prob(torch.zeros(1, 3)).detach()
    tensor([-2.7568])
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 4,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        permutation: Between = "reverse",
        support: Support = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        couplings = _row(
            lambda flip: AdditiveCoupling(
                features,
                context=context,
                hidden=hidden,
                activation=activation,
                residual=residual,
                flip=flip,
                device=device,
                dtype=dtype,
            ),
            features,
            transforms,
            permutation,
            support,
            device=device,
            dtype=dtype,
        )
        super().__init__(couplings, NormalBase(couplings.features, device=device, dtype=dtype))


class Glow(Flow):
    """A flow of images, on several scales.

    On each scale, squares of 2 x 2 pixels become channels of one; then come steps of
    :class:`ActNorm`, :class:`InvertibleConv1x1` and an affine coupling of the channels, chosen by
    convolutions. Half of the channels are noise then, and the others go on to the next scale.
    The first batch in training mode sets the scales of the ActNorms.

    Args:
        shape: (channels, height, width) of the images.
        context: size of the context vectors, one for each image; 0 for none. Couplings of all
            scales see it, and locations and scales of all noise depend on it.
        scales: number of scales, >= 1; height and width are multiples of 2^scales.
        steps: number of steps on each scale, >= 1.
        hidden: channels of the hidden layers of each coupling's convolutions.
        scale_fn: see :func:`bslfast.functional.affine_coupling`.
        seed: the rotations that the channels' matrices start from.
        device, dtype: of the parameters.

    Shape: x [..., channels * height * width], the images laid out in rows; context [..., context].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.Glow((1, 8, 8), scales=2, steps=2, hidden=(8, 8)).eval()
    >>> flow.log_prob(torch.randn(5, 1, 8, 8).flatten(1)).shape, flow.sample(3).shape
    (torch.Size([5]), torch.Size([3, 64]))
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        context: int = 0,
        scales: int = 3,
        steps: int = 8,
        hidden: Sequence[int] = (64, 64),
        scale_fn: str = "tanh",
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        scales = _checks.integer("scales", scales)
        steps = _checks.integer("steps", steps)
        seed = _checks.generator_seed(seed)
        sizes = _checks.widths("shape", shape, at_least=3)
        if len(sizes) != 3 or any(n % 2**scales for n in sizes[1:]):
            raise ValueError(
                f"shape: expected (channels, height, width), the latter multiples of {2**scales} "
                f"for {scales} scales, got {sizes}"
            )
        channels, height, width = sizes
        map = Affine(scale_fn)
        parts: list[Transform] = []
        for _ in range(scales):
            all_channels = 4 * channels
            half = all_channels // 2
            row: list[ImageTransform] = [Squeeze(channels)]
            for step in range(steps):
                mask = [(index < half) == (step % 2 == 1) for index in range(all_channels)]
                network = ConvConditioner(
                    half,
                    half * map.size,
                    context=context,
                    hidden=hidden,
                    start=map.start,
                    **options,
                )
                row += [
                    PerPixel(ActNorm(all_channels, **options)),
                    InvertibleConv1x1(all_channels, seed=seed, **options),
                    PerPixel(Coupling(map, mask, network, context=context)),
                ]
                seed += 1
            images = Images((channels, height, width), row)
            parts.append(Leading(images, math.prod(sizes)) if parts else images)
            channels, height, width = half, height // 2, width // 2
        base = NormalBase(math.prod(sizes), context=context, **options) if context else None
        super().__init__(Composite(parts), base)


class MAF(Flow):
    """A masked autoregressive flow: affine maps of each feature, chosen by the features before it.

    The identity at the start: the density is standard normal. Densities take one pass, samples one
    feature after the other, exactly. From step to step the order of the features is turned around.
    One feature alone is normal; :class:`NSF` with ``autoregressive=True`` is not. Scale the data
    first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a map that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of autoregressive transforms, >= 1.
        hidden: widths of the hidden layers of each transform's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        scale_fn: see :func:`bslfast.functional.affine_coupling`.
        permutation: what comes between two transforms. ``"reverse"``: every other one goes
            against the order of the features. ``"random"`` is an order drawn once and for all,
            ``"plu"`` a learned matrix that starts as a rotation (:class:`PLULinear`), ``"none"``
            is nothing. Or a function that makes a transform of its place, 1, 2 and so on.
        support: what numbers there are: None for all, ``"positive"`` for those above 0, or
            (low, high) for those between. :class:`Log` or :class:`Logit` comes first then.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Papamakarios, Pavlakou and Murray, "Masked autoregressive flow for density estimation"
    (2017, arXiv:1705.07057).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.MAF(3, context=2)
    >>> x, log_prob = flow.rsample_and_log_prob(4, torch.randn(5, 2))
    >>> x.shape, log_prob.shape
    (torch.Size([5, 4, 3]), torch.Size([5, 4]))
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        scale_fn: str = "tanh",
        permutation: Between = "reverse",
        support: Support = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        network: dict[str, Any] = {
            "context": context,
            "hidden": hidden,
            "activation": activation,
            "residual": residual,
            "device": device,
            "dtype": dtype,
        }
        make = _autoregressive(Affine(scale_fn), features, network)
        super().__init__(
            _row(
                lambda flip: self._step(make(flip)),
                features,
                transforms,
                permutation,
                support,
                device=device,
                dtype=dtype,
            )
        )

    def _step(self, transform: Transform) -> Transform:
        return transform


class IAF(MAF):
    """An inverse autoregressive flow: :class:`MAF` turned around.

    Samples and their own densities take one pass, as variational inference needs it; the density of
    data takes one feature after the other.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a map that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of autoregressive transforms, >= 1.
        hidden: widths of the hidden layers of each transform's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        scale_fn: see :func:`bslfast.functional.affine_coupling`.
        permutation: what comes between two transforms. ``"reverse"``: every other one goes
            against the order of the features. ``"random"`` is an order drawn once and for all,
            ``"plu"`` a learned matrix that starts as a rotation (:class:`PLULinear`), ``"none"``
            is nothing. Or a function that makes a transform of its place, 1, 2 and so on.
        support: what numbers there are: None for all, ``"positive"`` for those above 0, or
            (low, high) for those between. :class:`Log` or :class:`Logit` comes first then.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma et al., "Improved variational inference with inverse autoregressive flow" (2016,
    arXiv:1606.04934).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.IAF(3)
    >>> x, log_prob = flow.rsample_and_log_prob(4, seed=0)
    >>> torch.allclose(log_prob, flow.log_prob(x), atol=1e-5)
    True
    """

    def _step(self, transform: Transform) -> Transform:
        return Inverse(transform)


def _autoregressive(
    map: Map, features: int, network: dict[str, Any]
) -> Callable[[bool], Autoregressive]:
    """What makes transforms in the order of the features, or against it."""
    order = range(_checks.integer("features", features))

    def make(against: bool) -> Autoregressive:
        chosen = order[::-1] if against else order
        return Autoregressive(map, MADE(features, map, order=chosen, **network))

    return make


def _row(
    make: Callable[[bool], Transform],
    features: int,
    transforms: int,
    permutation: Between,
    support: Support,
    **options: Any,
) -> Composite:
    """Transforms in a row, which ``make`` makes of whether their order is turned around."""
    if not callable(permutation):
        _checks.choice("permutation", permutation, PERMUTATIONS)
    count = _checks.integer("transforms", transforms)
    row = _onto_all_numbers(_checks.integer("features", features), support)
    for index in range(count):
        if index:
            row += _between(index, features, permutation, options)
        row.append(make(permutation == "reverse" and index % 2 == 1))
    return Composite(row)


def _between(
    index: int, features: int, permutation: Between, options: dict[str, Any]
) -> list[Transform]:
    if callable(permutation):
        found = check_transform("permutation", permutation(index))
        if found.features != features:
            raise ValueError(
                f"permutation: expected a transform of {features} features, got one of "
                f"{found.features}"
            )
        return [found]
    if permutation == "random":
        return [Permutation.random(features, seed=index, device=options["device"])]
    return [PLULinear(features, seed=index, **options)] if permutation == "plu" else []


def _onto_all_numbers(features: int, support: Support) -> list[Transform]:
    if support is None:
        return []
    if support == "positive":
        return [Log(features)]
    if not isinstance(support, (tuple, list)) or len(support) != 2:
        raise ValueError(
            f"support: expected None, 'positive' or (low, high), got {_checks.describe(support)}"
        )
    low = _checks.number("support", support[0])
    high = _checks.number("support", support[1], above=low)
    unit = (low, high) == (0.0, 1.0)
    return [Logit(features)] if unit else [Rescale(features, low, high), Logit(features)]
