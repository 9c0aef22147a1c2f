"""Maps of single numbers, with their log-determinants, and their inverses."""

from __future__ import annotations

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import PointwiseOp


def leaky_relu_transform(
    x: Tensor, *, negative_slope: float = 0.01, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    r"""``y = x`` for x >= 0 and ``y = a x`` below, with the log-determinant, in one pass.

    .. math:: \log\det = \sum_{d:\, x_d < 0} \log a

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        negative_slope: a, > 0.
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape of x, log_det what is left of it. At 0 the derivative is
        taken to be 1.

    Raises:
        TypeError: ``x`` is not a floating-point tensor, ``negative_slope`` not a number.
        ValueError: a slope that is not finite and > 0, an unknown reduction, or ``"row"`` of a
            tensor without dimensions.

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models"
    (2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf).

    >>> import torch, bslfast.functional as BF
    >>> BF.leaky_relu_transform(torch.tensor([-2.0, 3.0]), negative_slope=0.5)
    (tensor([-1.,  3.]), tensor(-0.6931))
    """
    slope = _checks.number("negative_slope", negative_slope, above=0.0)
    result: tuple[Tensor, Tensor] = _leaky_relu_transform(
        x, negative_slope=slope, inverse=inverse, reduction=reduction
    )
    return result


def tanh_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    r"""``y = tanh(x)``, or ``x = artanh(y)``, with the log-determinant, in one pass.

    .. math:: \log\det = \sum_d \log(1 - \tanh^2 x_d)

    It is made from x, not from y, which rounds to 1 where the logarithm is -18 (float32): so it is
    right for every x, in relative terms also around 0.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y in [-1, 1] to be mapped back.
        inverse: compute the inverse map. ``log_det`` is that of the map computed. -1 and 1
            give infinities, numbers outside give NaN.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape of x, log_det what is left of it.

    Raises:
        TypeError: ``x`` is not a floating-point tensor.
        ValueError: an unknown reduction, or ``"row"`` of a tensor without dimensions.

    Source: Haarnoja et al., "Soft actor-critic" (2018, arXiv:1801.01290), appendix C.

    >>> import torch, bslfast.functional as BF
    >>> y, log_det = BF.tanh_transform(torch.tensor([[0.0, 100.0]]))
    >>> y, log_det
    (tensor([[0., 1.]]), tensor([-198.6137]))
    """
    result: tuple[Tensor, Tensor] = _tanh_transform(x, inverse=inverse, reduction=reduction)
    return result


def sigmoid_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    r"""``y = 1 / (1 + exp(-x))``, or the logit of y, with the log-determinant, in one pass.

    .. math:: \log\det = \sum_d \log y_d (1 - y_d) = -\sum_d |x_d| + 2 \log(1 + e^{-|x_d|})

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y in [0, 1] to be mapped back.
        inverse: compute the inverse map, log(y / (1 - y)). ``log_det`` is that of the map computed.
            0 and 1 give infinities, numbers outside give NaN.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape of x, log_det what is left of it.

    Raises:
        TypeError: ``x`` is not a floating-point tensor.
        ValueError: an unknown reduction, or ``"row"`` of a tensor without dimensions.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 4.1, maps pixels by the logit.

    >>> import torch, bslfast.functional as BF
    >>> BF.sigmoid_transform(torch.tensor([[0.5, 0.75]]), inverse=True)
    (tensor([[0.0000, 1.0986]]), tensor([3.0603]))
    """
    result: tuple[Tensor, Tensor] = _sigmoid_transform(x, inverse=inverse, reduction=reduction)
    return result


def softplus_transform(
    x: Tensor, *, inverse: bool = False, reduction: str = "row"
) -> tuple[Tensor, Tensor]:
    r"""``y = log(1 + exp(x))``, or ``x = log(exp(y) - 1)``, with the log-determinant, in one pass.

    .. math:: \log\det = -\sum_d \log(1 + e^{-x_d})

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y >= 0 to be mapped back.
        inverse: compute the inverse map. ``log_det`` is that of the map computed. 0 gives
            infinities, negative numbers give NaN.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape of x, log_det what is left of it.

    Raises:
        TypeError: ``x`` is not a floating-point tensor.
        ValueError: an unknown reduction, or ``"row"`` of a tensor without dimensions.

    Source: Dugas et al., "Incorporating second-order functional knowledge for better option
    pricing" (2000,
    https://papers.nips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html).

    >>> import torch, bslfast.functional as BF
    >>> BF.softplus_transform(torch.tensor([[0.0, 1000.0]]))
    (tensor([[6.9315e-01, 1.0000e+03]]), tensor([-0.6931]))
    """
    result: tuple[Tensor, Tensor] = _softplus_transform(x, inverse=inverse, reduction=reduction)
    return result


_DIRECTIONS = {"inverse": (False, True)}
_leaky_relu_transform = PointwiseOp(
    "leaky_relu_transform", ("x",), options=_DIRECTIONS, numbers=("negative_slope",)
)
_tanh_transform = PointwiseOp("tanh_transform", ("x",), options=_DIRECTIONS)
_sigmoid_transform = PointwiseOp("sigmoid_transform", ("x",), options=_DIRECTIONS)
_softplus_transform = PointwiseOp("softplus_transform", ("x",), options=_DIRECTIONS)
