"""The log likelihood of counts, from the logarithms of their rates."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import PointwiseOp


def poisson_log_prob(x: Tensor, log_rate: Tensor, *, reduction: str = "row") -> Tensor:
    r"""Log probability of counts under Poisson distributions with these log rates, in nats.

    .. math:: x\,l - e^l - \log \Gamma(x + 1)

    From x = 3 on as -(x (exp(d) - 1 - d) + log(2 pi x) / 2 + ...) with d = l - log x: the parts of
    the formula above grow with x log x and almost cancel, these have one sign.

    Args:
        x: counts, of a shape that broadcasts with that of ``log_rate``; any numbers >= 0.
        log_rate: logarithms of the rates, any shape. -inf is a rate of 0.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach both arguments.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, ``"row"`` of
            tensors without dimensions, or a negative count (that in eager mode on the CPU;
            elsewhere the result is NaN).

    Source: Loader, "Fast and accurate computation of binomial probabilities" (2000,
    https://www.r-project.org/doc/reports/CLoader-dbinom-2002.pdf).

    >>> import torch, bslfast.functional as BF
    >>> BF.poisson_log_prob(torch.tensor([[0.0, 3.0]]), torch.zeros(1, 2), reduction="none")
    tensor([[-1.0000, -2.7918]])
    """
    log_prob: Tensor = _poisson_log_prob(log_rate, x, reduction=reduction)
    return log_prob


_poisson_log_prob = PointwiseOp("poisson_log_prob", ("log_rate", "x"), domains={"x": "counts >= 0"})
