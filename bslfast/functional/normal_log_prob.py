"""The log density of normal distributions."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import location_scale_op


def normal_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    r"""Log density of ``x`` under normal distributions, in nats.

    .. math:: -\frac12 \left(\frac{x - m}{s}\right)^2 - \log s - \frac12 \log 2\pi

    The scale is never squared; in the log parametrizations its logarithm is the parameter itself.

    Args:
        x: values, any shape.
        loc: means; broadcasts with ``x``.
        raw_scale: what the standard deviation is made from; broadcasts with the others.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown parametrization or
            reduction, ``"row"`` of tensors without dimensions, or a negative scale (that in eager
            mode on the CPU; elsewhere the result is NaN).

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), equation 1.46.

    >>> import torch, bslfast.functional as BF
    >>> zero = torch.zeros(1)
    >>> BF.normal_log_prob(torch.tensor([[0.0, 1.0]]), zero, zero, parametrization="log_scale")
    tensor([-2.3379])
    """
    log_prob: Tensor = _normal_log_prob(
        x, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


_normal_log_prob = location_scale_op("normal_log_prob", "x")
