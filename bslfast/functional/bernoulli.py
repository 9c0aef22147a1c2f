"""The log likelihood of binary (or grey) values, from logits."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import PointwiseOp


def bernoulli_log_prob(logits: Tensor, x: Tensor, *, reduction: str = "row") -> Tensor:
    r"""Log probability of ``x`` under Bernoulli distributions with these logits, in nats.

    .. math:: x\,l - \log(1 + e^l)

    In one pass, and accurate where it is small: log(1 + exp(-l)) for x = 1 and a large l.

    Args:
        logits: log odds of 1, any shape. Infinite ones are certain: 0 or -inf comes out.
        x: values, of a shape that broadcasts with that of ``logits``: 0 and 1, or numbers between
            (grey pixels), for which this is the expected log probability of pixels drawn with
            these chances. Values are not checked; outside [0, 1] this is not a log probability.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach both arguments.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, or ``"row"`` of
            tensors without dimensions.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), section 4.3.2.

    >>> import torch, bslfast.functional as BF
    >>> BF.bernoulli_log_prob(torch.tensor([[0.0, 20.0]]), torch.tensor([[1.0, 1.0]]))
    tensor([-0.6931])
    """
    log_prob: Tensor = _bernoulli_log_prob(logits, x, reduction=reduction)
    return log_prob


_bernoulli_log_prob = PointwiseOp("bernoulli_log_prob", ("logits", "x"))
