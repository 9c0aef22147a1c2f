"""The affine map of a coupling or autoregressive layer, with its log-determinant."""

from __future__ import annotations

from torch import Tensor

from bslfast._native import _cpu
from bslfast.functional._pointwise import PointwiseOp

SCALE_FNS = _cpu.SCALE_FNS


def affine_coupling(
    x: Tensor,
    shift: Tensor,
    raw_scale: Tensor,
    *,
    scale_fn: str = "tanh",
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    r"""``y = x * s + shift`` and ``log_det = sum log s``, or the inverse map, in one pass.

    .. math:: y = s x + t, \quad \log\det = \sum_d \log s_d; \qquad
              x = (y - t) / s, \quad \log\det = -\sum_d \log s_d

    Backward computes from the arguments: nothing else is kept.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        shift: t, broadcasts with ``x``.
        raw_scale: what s is made from, broadcasts with ``x``; zero is the identity.
        scale_fn: ``"tanh"`` s = exp(2 tanh(raw / 2)), in (0.14, 7.4); ``"exp"`` s = exp(raw);
            ``"sigmoid"`` s = 2 sigmoid(raw), in (0, 2).
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape that the arguments broadcast to, log_det what is left of it.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown scale_fn or reduction.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803).

    >>> import torch, bslfast.functional as BF
    >>> x, shift, raw_scale = torch.ones(2, 3), torch.full((3,), 0.5), torch.full((3,), 1.0)
    >>> y, log_det = BF.affine_coupling(x, shift, raw_scale)
    >>> back, back_log_det = BF.affine_coupling(y, shift, raw_scale, inverse=True)
    >>> log_det, torch.allclose(back, x), torch.equal(log_det, -back_log_det)
    (tensor([2.7727, 2.7727]), True, True)
    """
    result: tuple[Tensor, Tensor] = _affine_coupling(
        x, shift, raw_scale, scale_fn=scale_fn, inverse=inverse, reduction=reduction
    )
    return result


_affine_coupling = PointwiseOp(
    "affine_coupling",
    ("x", "shift", "raw_scale"),
    options={"scale_fn": SCALE_FNS, "inverse": (False, True)},
)
