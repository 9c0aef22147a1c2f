"""The log likelihood of binary (or grey) values, and the KL divergence, from logits."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import PointwiseOp


def bernoulli_log_prob(x: Tensor, logits: Tensor, *, reduction: str = "row") -> Tensor:
    r"""Log probability of ``x`` under Bernoulli distributions with these logits, in nats.

    .. math:: x\,l - \log(1 + e^l)

    In one pass, and accurate where it is small: log(1 + exp(-l)) for x = 1 and a large l.

    Args:
        x: values, of a shape that broadcasts with that of ``logits``: 0 and 1, or numbers between
            (grey pixels), for which this is the expected log probability of pixels drawn with
            these chances. Values are not checked; outside [0, 1] this is not a log probability.
        logits: log odds of 1, any shape. Infinite ones are certain: 0 or -inf comes out.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach both arguments.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, or ``"row"`` of
            tensors without dimensions.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 4.3.2.

    >>> import torch, bslfast.functional as BF
    >>> BF.bernoulli_log_prob(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 20.0]]))
    tensor([-0.6931])
    """
    log_prob: Tensor = _bernoulli_log_prob(logits, x, reduction=reduction)
    return log_prob


def bernoulli_kl(logits: Tensor, prior_logits: Tensor, *, reduction: str = "sum") -> Tensor:
    r"""KL divergence from Bernoulli(prior_logits) to Bernoulli(logits), in nats.

    .. math:: p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q}, \quad
              p = \sigma(a), \; q = \sigma(b)

    From the logits' difference d: log(1 + p (exp(d) - 1)) - p d, in a form of which no part cancels
    where d is small. So the divergence has its digits also for probabilities that are 0 or 1 in
    the dtype, and for logits that are almost the same.

    Args:
        logits: log odds of 1, any shape. Infinite ones are certain.
        prior_logits: those of the prior; broadcasts with ``logits``.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The divergences: the shape that the arguments broadcast to, less what is summed. Gradients
        reach both arguments.

    Raises:
        TypeError, ValueError: as :func:`bernoulli_log_prob`.

    Source: Banerjee et al., "Clustering with Bregman divergences" (2005,
    https://jmlr.org/papers/v6/banerjee05b.html), section 4.

    >>> import torch, bslfast.functional as BF
    >>> BF.bernoulli_kl(torch.tensor([0.0, 20.0]), torch.tensor([-100.0, 25.0]), reduction="none")
    tensor([4.9307e+01, 8.2585e-09])
    """
    kl: Tensor = _bernoulli_kl(logits, prior_logits, reduction=reduction)
    return kl


_bernoulli_log_prob = PointwiseOp("bernoulli_log_prob", ("logits", "x"))
_bernoulli_kl = PointwiseOp("bernoulli_kl", ("logits", "prior_logits"))
