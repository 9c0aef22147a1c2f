"""The KL divergence between measures that need not sum to 1: rates, classes."""

from __future__ import annotations

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import PointwiseOp, parameter


def generalized_kl(
    log_p: Tensor,
    log_q: Tensor,
    log_p_total: Tensor | float = 0.0,
    log_q_total: Tensor | float = 0.0,
    *,
    reduction: str = "sum",
) -> Tensor:
    r"""Generalised KL divergence (I-divergence) from q to p, given by logarithms, in nats.

    .. math:: \sum p \log \frac{p}{q} - p + q = \sum p\,(e^d - 1 - d), \quad d = \log q - \log p

    For log rates this is the KL divergence between Poisson distributions. For logits it is that
    between categorical ones, if ``logsumexp(-1, keepdim=True)`` of each is given as its total: p
    and q then sum to 1. No term is negative, and none cancels where d is small. d is computed from
    differences of what is given.

    Args:
        log_p: logarithms of p, any shape. -inf is p = 0.
        log_q: those of q; broadcasts with ``log_p``. -inf is q = 0.
        log_p_total: subtracted from ``log_p``; number or tensor that broadcasts with the others.
        log_q_total: subtracted from ``log_q``, likewise.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The divergences: the shape that the arguments broadcast to, less what is summed. Gradients
        reach all of them that are tensors.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, or ``"row"`` of
            tensors without dimensions.

    Source: Csiszar, "Why least squares and maximum entropy?" (1991, doi:10.1214/aos/1176348385).

    >>> import torch, bslfast.functional as BF
    >>> BF.generalized_kl(torch.tensor([-200.0, 0.0]), torch.zeros(2), reduction="none")
    tensor([1., 0.])
    >>> p, q = torch.zeros(3), torch.tensor([0.0, 0.0, -110.0])
    >>> BF.generalized_kl(p, q, p.logsumexp(-1), q.logsumexp(-1))
    tensor(36.2612)
    """
    log_p = _checks.operand("log_p", log_p)
    kl: Tensor = _generalized_kl(
        log_p,
        log_q,
        parameter("log_p_total", log_p_total, log_p),
        parameter("log_q_total", log_q_total, log_p),
        reduction=reduction,
    )
    return kl


_generalized_kl = PointwiseOp("generalized_kl", ("log_p", "log_q", "log_p_total", "log_q_total"))
