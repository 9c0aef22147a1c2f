"""Maps that move each vector along one direction, with their log-determinants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bslfast import _checks, reference
from bslfast._native import rank_one as native
from bslfast.functional._op import Op


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

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015), section 4.1
    and appendix A.1.

    >>> import torch, bslfast.functional as BF
    >>> z = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    >>> u, w = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    >>> BF.planar(z, u, w, torch.tensor(0.0))
    (tensor([[0.0000, 0.0000],
            [3.3117, 1.0000]]), tensor([0.2725, 0.0031]))
    """
    z = _checks.operand("z", z)
    u, w = _rows("u", u, z), _rows("w", w, z)
    b = _numbers("b", b, z)
    _checks.broadcast_shapes(
        {"z": z.shape[:-1], "u": u.shape[:-1], "w": w.shape[:-1], "b": b.shape},
        "leading dimensions",
    )
    result: tuple[Tensor, Tensor] = _planar(z, u, w, b)
    return result


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

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015), section 4.1
    and appendix A.2.

    >>> import torch, bslfast.functional as BF
    >>> z, one = torch.tensor([[3.0, 4.0]]), torch.tensor(1.0)
    >>> BF.radial(z, torch.zeros(2), one, 3 * one)
    (tensor([[3.8246, 5.0995]]), tensor([0.2984]))
    """
    z = _checks.operand("z", z)
    z0 = _rows("z0", z0, z)
    raw_alpha = _numbers("raw_alpha", raw_alpha, z)
    raw_beta = _numbers("raw_beta", raw_beta, z)
    _checks.broadcast_shapes(
        {
            "z": z.shape[:-1],
            "z0": z0.shape[:-1],
            "raw_alpha": raw_alpha.shape,
            "raw_beta": raw_beta.shape,
        },
        "leading dimensions",
    )
    result: tuple[Tensor, Tensor] = _radial(z, z0, raw_alpha, raw_beta)
    return result


def _rows(name: str, value: Tensor, z: Tensor) -> Tensor:
    value = _numbers(name, value, z)
    if value.dim() == 0 or value.shape[-1] != z.shape[-1]:
        raise ValueError(
            f"{name}: expected a last dimension of {z.shape[-1]}, as z has, got shape "
            f"{list(value.shape)}"
        )
    return value


def _numbers(name: str, value: Tensor, z: Tensor) -> Tensor:
    if z.dim() == 0:
        raise ValueError("z: expected shape [..., D], got []")
    value = _checks.operand(name, value)
    _checks.alike(name, value, "z", z)
    return value


def _op(schema: str, kernels: native.Kernels, twin: Callable[..., Any]) -> Op:
    return Op(
        f"{schema} -> (Tensor y, Tensor log_det)",
        forward=kernels.forward,
        backward=kernels.backward,
        fake=kernels.allocate,
        reference=twin,
        rounded=1,
        has_cuda=True,
    )


_planar = _op("planar(Tensor z, Tensor u, Tensor w, Tensor b)", native.planar, reference.planar)
_radial = _op(
    "radial(Tensor z, Tensor z0, Tensor raw_alpha, Tensor raw_beta)",
    native.radial,
    reference.radial,
)
