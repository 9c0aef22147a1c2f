"""Bayesian layers of bslfast with the parameters of a peer's."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from bslfast.nn import (
    BayesConv1d,
    BayesConv2d,
    BayesConv3d,
    BayesConvTranspose1d,
    BayesConvTranspose2d,
    BayesConvTranspose3d,
    BayesianLayer,
    BayesLinear,
)
from bslfast.nn.priors import CentredNormal, Normal, Prior
from bslfast.patch.registry import Refusal, put

CONVOLUTIONS: tuple[type[BayesianLayer], ...] = (BayesConv1d, BayesConv2d, BayesConv3d)
TRANSPOSED: tuple[type[BayesianLayer], ...] = (
    BayesConvTranspose1d,
    BayesConvTranspose2d,
    BayesConvTranspose3d,
)


class Posterior(NamedTuple):
    """The parameters of a normal posterior of a peer, and its prior."""

    loc: Tensor
    raw_scale: Tensor
    prior: Prior


def linear(weight: Posterior, bias: Posterior | None, **settings: Any) -> BayesianLayer:
    """A BayesLinear; ``settings`` as of :func:`filled`."""
    outputs, inputs = weight.loc.shape
    return filled(BayesLinear, (inputs, outputs), weight, bias, **settings)


def convolution(
    layer: Any,
    weight: Posterior,
    bias: Posterior | None,
    *,
    transposed: bool = False,
    **settings: Any,
) -> BayesianLayer:
    """A convolution with the strides and so on of ``layer``."""
    sides = weight.loc.dim() - 2
    settings |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    if transposed:
        settings["output_padding"] = layer.output_padding
    kind = (TRANSPOSED if transposed else CONVOLUTIONS)[sides - 1]
    sizes = layer.in_channels, layer.out_channels, tuple(weight.loc.shape[2:])
    return filled(kind, sizes, weight, bias, **settings)


def filled(
    kind: type[BayesianLayer],
    sizes: tuple[Any, ...],
    weight: Posterior,
    bias: Posterior | None,
    **settings: Any,
) -> BayesianLayer:
    """A layer of bslfast of these sizes and settings, with copies of the parameters."""
    prior = {"weight": weight.prior} | ({"bias": bias.prior} if bias is not None else {})
    settings |= {"device": weight.loc.device, "dtype": weight.loc.dtype}
    made: Any = kind(*sizes, bias=bias is not None, prior=prior, **settings)
    put(made.weight_loc, weight.loc)
    put(made.weight_raw_scale, weight.raw_scale)
    if bias is not None:
        put(made.bias_loc, bias.loc)
        put(made.bias_raw_scale, bias.raw_scale)
    return made  # type: ignore[no-any-return]


def normal_prior(loc: Tensor, scale: Tensor) -> Prior:
    """The prior with tensors of means and scales."""
    same = [t.flatten()[0].expand_as(t).equal(t) for t in (loc, scale)]
    if not same[1]:
        raise Refusal("a prior whose scale differs between weights")
    if same[0]:
        return Normal(float(loc.flatten()[0]), float(scale.flatten()[0]))
    return CentredNormal(loc, float(scale.flatten()[0]))
