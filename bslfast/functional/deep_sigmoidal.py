"""Deep sigmoidal transformations, with their log-determinants."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._rows import RowOp


def deep_sigmoidal_transform(
    x: Tensor,
    logits: Tensor,
    raw_slope: Tensor,
    shift: Tensor,
    *,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    r"""The logit of a weighted mean of sigmoids, or its inverse; log-determinant.

    Each element of ``x`` has K sigmoids of its own, with weights w = softmax(logits), slopes
    a = softplus(raw_slope) > 0 and shifts b:

    .. math:: S(x) = \sum_k w_k\, \sigma(a_k x + b_k), \qquad
              y = \log S(x) - \log(1 - S(x)), \qquad \log \frac{dy}{dx} =
              \log S'(x) - \log S(x) - \log(1 - S(x)).

    It maps the real line onto itself, and is the identity for a = 1 and b = 0. This is
    :func:`mixture_logistic_transform` in other parameters, by the same kernel: S and 1 - S are sums
    of their own, taken in logarithms, and the inverse is found by Newton's method between bounds
    that always hold, with the gradients of the exact solution. Slopes may be of all sizes, also
    such that softplus underflows (in float32, less than 2e-60 counts as that much); a solution
    beyond the largest number is infinite. Backward computes from the arguments: nothing else is
    kept.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        logits: unnormalised log weights, [..., D, K], 1 <= K <= 64; -inf leaves a sigmoid with
            finite ``raw_slope`` and ``shift`` out. Leading dimensions of the three broadcast with
            the shape of ``x``. Slices of one tensor [..., D, 3K] are read in place; make them with
            ``split``, whose gradient is one concatenation.
        raw_slope: what softplus makes the slopes a of, [..., D, K].
        shift: b, [..., D, K].
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape that ``x`` and the leading dimensions broadcast to, log_det
        what is left of it.

    Raises:
        TypeError: an argument is not a floating-point tensor, dtypes differ, or inverse is not a
            bool.
        ValueError: shapes or devices do not match, too many sigmoids or none, an unknown
            reduction, or ``"row"`` of an ``x`` without dimensions.

    Source: Huang, Krueger, Lacoste and Courville, "Neural autoregressive flows" (2018,
    arXiv:1804.00779), section 3.2.

    >>> import torch, bslfast.functional as BF
    >>> x = torch.tensor([[-4.0, 0.5, 2.0]])
    >>> logits, raw_slope, shift = torch.randn(1, 3, 12).split(4, dim=-1)
    >>> y, log_det = BF.deep_sigmoidal_transform(x, logits, raw_slope, shift)
    >>> back, _ = BF.deep_sigmoidal_transform(y, logits, raw_slope, shift, inverse=True)
    >>> log_det.shape, torch.allclose(back, x, atol=1e-4)
    (torch.Size([1]), True)
    """
    result: tuple[Tensor, Tensor] = _deep_sigmoidal_transform(
        x, logits, raw_slope, shift, inverse=inverse, reduction=reduction
    )
    return result


_deep_sigmoidal_transform = RowOp(
    "deep_sigmoidal_transform",
    ("x", "logits", "raw_slope", "shift"),
    options={"inverse": (False, True)},
    what="components",
    least=1,
)
