"""Maps by the distribution functions of mixtures of logistics, with their log-determinants."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._rows import RowOp


def mixture_logistic_transform(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    *,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    r"""The logit of a logistic mixture's distribution function, or its inverse; log-determinant.

    Each element of ``x`` has a mixture of K logistic distributions of its own, with weights
    pi = softmax(logits), and

    .. math:: F(x) = \sum_k \pi_k\, \sigma((x - m_k)\, e^{-s_k}), \qquad
              y = \log F(x) - \log(1 - F(x)), \qquad \log \frac{dy}{dx} =
              \log f(x) - \log F(x) - \log(1 - F(x)).

    It maps the real line onto itself, and is the identity for components with m = s = 0. F and
    1 - F are sums of their own, taken in logarithms: both tails keep their digits. The inverse is
    found by Newton's method between bounds that always hold, and has the gradients of the exact
    solution. Where F hardly rises, between narrow components, x is as uncertain as y allows.
    Backward computes from the arguments: nothing else is kept.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        logits: unnormalised log weights, [..., D, K], 1 <= K <= 64; -inf leaves a component with
            finite ``loc`` and ``log_scale`` out. Leading dimensions of the three broadcast with the
            shape of ``x``. Slices of one tensor [..., D, 3K] are read in place; make them with
            ``split``, whose gradient is one concatenation.
        loc: means m, [..., D, K].
        log_scale: logarithms s of the scales, [..., D, K].
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape that ``x`` and the leading dimensions broadcast to, log_det
        what is left of it.

    Raises:
        TypeError: an argument is not a floating-point tensor, dtypes differ, or inverse is not a
            bool.
        ValueError: shapes or devices do not match, too many components or none, an unknown
            reduction, or ``"row"`` of an ``x`` without dimensions.

    Source: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019, arXiv:1902.00275), section 3.2.

    >>> import torch, bslfast.functional as BF
    >>> x = torch.tensor([[-4.0, 0.5, 2.0]])
    >>> logits, loc, log_scale = torch.randn(1, 3, 12).split(4, dim=-1)
    >>> y, log_det = BF.mixture_logistic_transform(x, logits, loc, log_scale)
    >>> back, _ = BF.mixture_logistic_transform(y, logits, loc, log_scale, inverse=True)
    >>> log_det.shape, torch.allclose(back, x, atol=1e-4)
    (torch.Size([1]), True)
    """
    result: tuple[Tensor, Tensor] = _mixture_logistic_transform(
        x, logits, loc, log_scale, inverse=inverse, reduction=reduction
    )
    return result


_mixture_logistic_transform = RowOp(
    "mixture_logistic_transform",
    ("x", "logits", "loc", "log_scale"),
    options={"inverse": (False, True)},
    what="components",
    least=1,
)
MAX_COMPONENTS = _mixture_logistic_transform.longest
