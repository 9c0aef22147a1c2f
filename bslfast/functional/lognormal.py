"""Log-normal distributions: reparametrised samples and log densities."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast.functional._pointwise import location_scale_op


def lognormal_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of log-normal distributions: ``exp(loc + scale * e)``, e ~ N(0, 1).

    Backward draws e again. The exponential multiplies the rounding error of its argument y by y.

    Args:
        loc: means of the logarithm, any shape.
        raw_scale: what the standard deviation of the logarithm is made from; broadcasts with
            ``loc``.
        parametrization, sample_shape, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``.

    Raises:
        TypeError, ValueError: as :func:`bslfast.functional.normal_rsample`.

    Source: Johnson, Kotz and Balakrishnan, "Continuous univariate distributions" (1994, ISBN
    978-0-471-58495-7), volume 1, chapter 14.

    >>> import torch, bslfast.functional as BF
    >>> x = BF.lognormal_rsample(torch.ones(4000), torch.ones(4000), seed=0)
    >>> bool((x > 0).all()), bool(abs(x.log().mean() - 1) < 0.1)
    (True, True)
    """
    sample: Tensor = _rsample(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample


def lognormal_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    r"""Log density of ``x`` under log-normal distributions, in nats.

    .. math:: -\frac12 z^2 - \log x - \log s - \frac12 \log 2\pi, \quad z = (\log x - m) / s

    Args:
        x: values, any shape. The log density of those <= 0 is -inf, all their gradients are 0.
        loc: means of the logarithm; broadcasts with ``x``.
        raw_scale: what the standard deviation of the logarithm is made from; broadcasts with the
            others.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three.

    Raises:
        TypeError, ValueError: as :func:`lognormal_rsample`; an unknown reduction, or ``"row"`` of
            tensors without dimensions.

    Source: Johnson, Kotz and Balakrishnan, "Continuous univariate distributions" (1994, ISBN
    978-0-471-58495-7), volume 1, chapter 14.

    >>> import torch, bslfast.functional as BF
    >>> x, zero = torch.tensor([[1.0, 3.0]]), torch.zeros(1)
    >>> BF.lognormal_log_prob(x, zero, zero, parametrization="log_scale")
    tensor([-3.5400])
    """
    log_prob: Tensor = _log_prob(
        x, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


_rsample = location_scale_op("lognormal_rsample")
_log_prob = location_scale_op("lognormal_log_prob", "x")
