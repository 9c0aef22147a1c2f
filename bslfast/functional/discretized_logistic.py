"""The log likelihood of quantised values, such as pixels, under logistic distributions."""

from __future__ import annotations

import struct

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import PointwiseOp


def discretized_logistic_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    *,
    bins: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    reduction: str = "row",
) -> Tensor:
    r"""Log probability of the bin around ``x`` under logistic distributions, in nats.

    With bins of width 2h = (high - low) / (bins - 1), the scale s = exp(raw_log_scale) and the
    bin's edges a = (x - m + h) / s, b = (x - m - h) / s,

    .. math:: \log(\sigma(a) - \sigma(b)) = \log \sigma(a) + \log \sigma(-b)
              + \log(1 - e^{-(a - b)})

    The bin around ``low`` reaches to -infinity, that around ``high`` to infinity, so that the
    probabilities of all ``bins`` values add up to 1. Accurate for any scale: nothing cancels.

    Args:
        x: values, usually low + 2h k for k = 0, ..., bins - 1; any shape.
        loc: means m; broadcasts with ``x``.
        raw_log_scale: logarithms of the scales; broadcasts with the others.
        bins: number of values, at least 2.
        low, high: the smallest and the largest of them.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three tensors.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ; bins not an int.
        ValueError: shapes do not broadcast, devices differ, fewer than two bins, high not above
            low, an unknown reduction, or ``"row"`` of tensors without dimensions.

    Source: Kingma et al., "Improved variational inference with inverse autoregressive flow" (2016,
    arXiv:1606.04934); Salimans et al., "PixelCNN++" (2017, arXiv:1701.05517).

    >>> import torch, bslfast.functional as BF
    >>> x = torch.linspace(-1, 1, 256)
    >>> zero = torch.zeros(1)
    >>> BF.discretized_logistic_log_prob(x, zero, zero, reduction="none").exp().sum()
    tensor(1.0000)
    """
    bins = _checks.integer("bins", bins, 2)
    low = _checks.number("low", low)
    high = _checks.number("high", high, above=low)
    log_prob: Tensor = _discretized_logistic_log_prob(
        x, loc, raw_log_scale, bins=bins, low=low, high=high, reduction=reduction
    )
    return log_prob


def bin_constants(bins: float, low: float, high: float) -> tuple[float, ...]:
    """Half the width of a bin, where the first ends and the last begins; what float32 loses."""
    half = 0.5 * (high - low) / (bins - 1)
    rounded: float = struct.unpack("f", struct.pack("f", half))[0]
    return half, low + half, high - half, half - rounded


_discretized_logistic_log_prob = PointwiseOp(
    "discretized_logistic_log_prob",
    ("x", "loc", "raw_log_scale"),
    numbers=("bins", "low", "high"),
    constants=bin_constants,
)
