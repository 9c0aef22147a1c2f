"""The log density of von Mises distributions, of angles around a mean direction."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._pointwise import PointwiseOp


def von_mises_log_prob(
    x: Tensor, loc: Tensor, concentration: Tensor, *, reduction: str = "row"
) -> Tensor:
    r"""Log density of angles ``x`` under von Mises distributions, in nats.

    .. math:: -2 k \sin^2((x - m) / 2) - \log(2 \pi e^{-k} I_0(k))

    Neither part is large where the density is not small, and the Bessel function comes with its
    exponential: concentrations may have any size.

    Args:
        x: angles in radians, any shape.
        loc: mean directions m; broadcasts with ``x``.
        concentration: k >= 0, finite; broadcasts with the others.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, ``"row"`` of
            tensors without dimensions, or a negative concentration (that in eager mode on the CPU;
            elsewhere the result is NaN).

    Source: Mardia and Jupp, "Directional statistics" (2000, doi:10.1002/9780470316979), section
    3.5.4.

    >>> import torch, bslfast.functional as BF
    >>> x, k = torch.zeros(1, 3), torch.tensor([0.0, 1.0, 1e6])
    >>> BF.von_mises_log_prob(x, torch.zeros(3), k, reduction="none")
    tensor([[-1.8379, -1.0738,  5.9888]])
    """
    log_prob: Tensor = _von_mises_log_prob(x, loc, concentration, reduction=reduction)
    return log_prob


_von_mises_log_prob = PointwiseOp(
    "von_mises_log_prob",
    ("x", "loc", "concentration"),
    domains={"concentration": "numbers >= 0"},
)
