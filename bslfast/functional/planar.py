"""Maps that move each vector along one direction, with their log-determinants."""

from __future__ import annotations

from torch import Tensor

from bslfast.functional._rows import RowOp


def planar(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""``y = z + v tanh(w z + b)``, which squeezes or stretches along a plane, in one pass.

    .. math:: v = u + (m(w^\top u) - w^\top u)\, w / \|w\|^2, \quad m(a) = \log(1 + e^a) - 1;
              \qquad \log\det = \log\bigl(1 + m(w^\top u)\,(1 - \tanh^2(w^\top z + b))\bigr)

    v is u where that makes an invertible map, and near it else. Dot products are added up in
    float64 in every dtype; the determinant is a sum of positive terms.

    Args:
        z: vectors, [..., D].
        u, w: the direction to move in, before it is corrected, and the normal of the plane,
            [..., D]. Their leading dimensions and those of ``z`` broadcast: one map for all, or one
            for each vector. A ``w`` of zeros leaves volumes alone.
        b: offsets, [...]; broadcasts with the leading dimensions.

    Returns:
        (y [..., D], log_det [...]). Gradients reach all four arguments.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not match, or devices differ.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015,
    arXiv:1505.05770), section 4.1 and appendix A.1.

    >>> import torch, bslfast.functional as BF
    >>> z = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    >>> u, w = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    >>> BF.planar(z, u, w, torch.tensor(0.0))
    (tensor([[0.0000, 0.0000],
            [3.3117, 1.0000]]), tensor([0.2725, 0.0031]))
    """
    result: tuple[Tensor, Tensor] = _planar(z, u, w, b)
    return result


_planar = RowOp("planar", ("z", "u", "w", "b"), what="D")
