"""The log likelihood of quantised values, such as pixels, under mixtures of logistics."""

from __future__ import annotations

from torch import Tensor

from bslfast import _checks
from bslfast.functional._rows import RowOp
from bslfast.functional.discretized_logistic import bin_constants


def discretized_logistic_mixture_log_prob(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    raw_log_scale: Tensor,
    *,
    bins: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    reduction: str = "row",
) -> Tensor:
    r"""Log probability of the bin around ``x`` under mixtures of logistics, in nats.

    Each element of ``x`` has a mixture of K components of its own, with weights
    pi = softmax(logits) and the probabilities of
    :func:`bslfast.functional.discretized_logistic_log_prob`:

    .. math:: \log \sum_k \pi_k\, (\sigma((x - m_k + h) / s_k) - \sigma((x - m_k - h) / s_k))

    The bin around ``low`` reaches to -infinity, that around ``high`` to infinity. Summed as
    logarithms: accurate for any scales. The components' values are never stored.

    Args:
        x: values, usually low + 2h k for k = 0, ..., bins - 1; [..., D].
        logits: unnormalised log weights, [..., D, K], 1 <= K <= 64; -inf leaves a component out.
            Leading dimensions of the three broadcast with the shape of ``x``. Slices of one tensor
            [..., D, 3K] are read in place.
        loc: means m, [..., D, K].
        raw_log_scale: logarithms of the scales s, [..., D, K].
        bins: number of values, at least 2.
        low, high: the smallest and the largest of them.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that ``x`` and the leading dimensions broadcast to, less
        what is summed. Gradients reach all four tensors.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ; bins not an int.
        ValueError: shapes or devices do not match, too many components or none, fewer than two
            bins, high not above low, an unknown reduction, or ``"row"`` of an ``x`` without
            dimensions.

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017, arXiv:1701.05517), section 2.1.

    >>> import torch, bslfast.functional as BF
    >>> x = torch.linspace(-1, 1, 256)
    >>> logits, loc, raw_log_scale = torch.randn(3, 1, 5)
    >>> log_prob = BF.discretized_logistic_mixture_log_prob(
    ...     x, logits, loc, raw_log_scale, reduction="none"
    ... )
    >>> abs(log_prob.exp().sum().item() - 1) < 1e-5
    True
    """
    bins = _checks.integer("bins", bins, 2)
    low = _checks.number("low", low)
    high = _checks.number("high", high, above=low)
    log_prob: Tensor = _discretized_logistic_mixture_log_prob(
        x, logits, loc, raw_log_scale, bins=bins, low=low, high=high, reduction=reduction
    )
    return log_prob


_discretized_logistic_mixture_log_prob = RowOp(
    "discretized_logistic_mixture_log_prob",
    ("x", "logits", "loc", "raw_log_scale"),
    numbers=("bins", "low", "high"),
    constants=bin_constants,
    what="components",
    least=1,
)
