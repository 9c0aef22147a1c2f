"""Maps that move each vector towards or away from a point, with their log-determinants."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._rows import RowOp


def radial(z: Tensor, z0: Tensor, raw_alpha: Tensor, raw_beta: Tensor) -> tuple[Tensor, Tensor]:
    r"""``y = z + c (z - z0)``, which moves towards or away from a point, in one pass.

    .. math:: c = \frac{\beta}{\alpha + \|z - z_0\|}, \quad \log\det = (D - 1) \log(1 + c)
              + \log\Bigl(1 + \frac{c\,\alpha}{\alpha + \|z - z_0\|}\Bigr)

    with alpha = softplus(raw_alpha) and beta = softplus(raw_beta) - alpha > -alpha, so that every
    map is invertible; the identity where the two raw numbers are equal.

    Args:
        z: vectors, [..., D].
        z0: the points, [..., D]; leading dimensions broadcast with those of ``z``.
        raw_alpha, raw_beta: [...]; broadcast with the leading dimensions.

    Returns:
        (y [..., D], log_det [...]). Gradients reach all four arguments; at ``z = z0``, where the
        distance has none, that of the distance is taken to be 0.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not match, or devices differ.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015,
    arXiv:1505.05770), section 4.1 and appendix A.2.

    >>> import torch, bslfast.functional as BF
    >>> z, one = torch.tensor([[3.0, 4.0]]), torch.tensor(1.0)
    >>> BF.radial(z, torch.zeros(2), one, 3 * one)
    (tensor([[3.8246, 5.0995]]), tensor([0.2984]))
    """
    result: tuple[Tensor, Tensor] = _radial(z, z0, raw_alpha, raw_beta)
    return result


_radial = RowOp("radial", ("z", "z0", "raw_alpha", "raw_beta"), what="D")
