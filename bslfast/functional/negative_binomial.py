"""The log likelihood of counts that vary more than Poisson ones."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import PointwiseOp


def negative_binomial_log_prob(
    x: Tensor, log_rate: Tensor, log_total_count: Tensor, *, reduction: str = "row"
) -> Tensor:
    r"""Log probability of counts of mean mu = exp(l) and variance mu + mu^2 / r, in nats.

    .. math:: \log \frac{\Gamma(x + r)}{\Gamma(r)\, x!} + r \log \frac{r}{r + \mu}
              + x \log \frac{\mu}{r + \mu}

    As a Poisson log probability and what vanishes as r grows: the parts of the formula above grow
    with r log r and almost cancel. For r -> infinity this is :func:`poisson_log_prob`, to the last
    digits.

    Args:
        x: counts; broadcasts with the others; any numbers >= 0.
        log_rate: logarithms l of the means, any shape.
        log_total_count: logarithms of r, the number of failures at which counting stops (the
            inverse of the dispersion); broadcasts with the others.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, ``"row"`` of
            tensors without dimensions, or a negative count (that in eager mode on the CPU;
            elsewhere the result is NaN).

    Source: Loader, "Fast and accurate computation of binomial probabilities" (2000,
    https://www.r-project.org/doc/reports/CLoader-dbinom-2002.pdf); Hilbe, "Negative binomial
    regression" (2011, doi:10.1017/CBO9780511973420), chapter 5.

    >>> import torch, bslfast.functional as BF
    >>> log_rate, log_total_count = torch.zeros(2), torch.tensor([0.0, 40.0])
    >>> x = torch.full((2,), 3.0)  # a geometric law, -4 log 2; a Poisson one
    >>> BF.negative_binomial_log_prob(x, log_rate, log_total_count, reduction="none")
    tensor([-2.7726, -2.7918])
    """
    log_prob: Tensor = _negative_binomial_log_prob(
        log_rate, log_total_count, x, reduction=reduction
    )
    return log_prob


_negative_binomial_log_prob = PointwiseOp(
    "negative_binomial_log_prob",
    ("log_rate", "log_total_count", "x"),
    domains={"x": "counts >= 0"},
)
