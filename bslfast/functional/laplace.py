"""Laplace distributions: reparametrised samples, log densities and the KL divergence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import (
    PARAMETRIZATIONS,
    PointwiseOp,
    location_scale_op,
    parameter,
)


def laplace_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of Laplace distributions: ``loc + scale * z``, with

    .. math:: z = \mp \log(1 - 2 |u - 1/2|), \quad u \sim U(0, 1)

    The argument of the logarithm is exact: both tails have all their digits.
    Backward draws u again.

    Args:
        loc: means, any shape.
        raw_scale: what the scale is made from; broadcasts with ``loc``. The standard
            deviation is sqrt(2) times the scale.
        parametrization, sample_shape, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``.

    Raises:
        TypeError, ValueError: as :func:`bslfast.functional.normal_rsample`.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import torch, bslfast.functional as BF
    >>> x = BF.laplace_rsample(torch.zeros(2), torch.ones(2), sample_shape=(4000,), seed=0,
    ...     parametrization="scale")
    >>> x.shape, bool((x.abs().mean(dim=0) - 1).abs().max() < 0.1)
    (torch.Size([4000, 2]), True)
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


def laplace_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of :func:`laplace_rsample` and their own log densities, in one pass.

    .. math:: \log p(m + s z) = -|z| - \log 2 - \log s

    from z itself: nothing is subtracted and divided again. So the gradient by ``loc`` of the log
    density is 0: the sample moves with it.

    Args:
        loc, raw_scale, parametrization, sample_shape, seed, stream: as in :func:`laplace_rsample`.
        reduction: of the log density: ``"none"`` one value per element, ``"row"`` sums over the
            last dimension, ``"sum"`` one sum. Never an average.

    Returns:
        (sample, log_prob): a sample of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``; the
        log densities in nats, of that shape less what is summed.

    Raises:
        TypeError, ValueError: as :func:`laplace_rsample`; an unknown reduction, or ``"row"`` of
            samples without dimensions.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(4, 3), torch.zeros(3)
    >>> sample, log_prob = BF.laplace_rsample_log_prob(loc, raw_scale, seed=0)
    >>> torch.allclose(log_prob, BF.laplace_log_prob(sample, loc, raw_scale))
    True
    """
    result: tuple[Tensor, Tensor] = _rsample_log_prob(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        reduction=reduction,
        seed=seed,
        stream=stream,
    )
    return result


def laplace_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    r"""Log density of ``x`` under Laplace distributions, in nats.

    .. math:: -|z| - \log 2 - \log s, \quad z = (x - m) / s

    Args:
        x: values, any shape.
        loc: means; broadcasts with ``x``.
        raw_scale: what the scale is made from; broadcasts with the others.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three. At its kink, x = loc, that of x and
        loc is 0.

    Raises:
        TypeError, ValueError: as :func:`laplace_rsample_log_prob`.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import torch, bslfast.functional as BF
    >>> zero = torch.zeros(1)
    >>> BF.laplace_log_prob(torch.tensor([[0.0, 1.0]]), zero, zero, parametrization="log_scale")
    tensor([-2.3863])
    """
    log_prob: Tensor = _log_prob(
        x, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


def laplace_kl(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    r"""KL divergence from Laplace(prior_loc, prior_scale) to Laplace(loc, scale), in nats.

    .. math:: (t - 1 - \log t) + t\,(e^{-\delta} - 1 + \delta), \quad
              t = s / s_0, \; \delta = |m - m_0| / s

    Both terms are positive, and neither is computed as a difference where it is small.

    Args:
        loc, raw_scale, parametrization: as in :func:`laplace_rsample`.
        prior_loc: number or tensor that broadcasts with the others.
        prior_scale: scale of the prior, > 0; number or tensor. Numbers are rounded to the dtype.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The divergence: the shape that the four arguments broadcast to, less what is summed.
        Gradients reach all of them that are tensors.

    Raises:
        TypeError, ValueError: as :func:`laplace_rsample_log_prob`; a prior_scale that is not
            positive (a tensor's zeros are let through: the divergence is infinite there).

    Source: Meyer, "An alternative probabilistic interpretation of the Huber loss" (2021,
    arXiv:1911.02088), appendix.

    >>> import torch, bslfast.functional as BF
    >>> BF.laplace_kl(torch.ones(3), torch.zeros(3), parametrization="log_scale")
    tensor(1.1036)
    """
    loc = _checks.operand("loc", loc)
    kl: Tensor = _kl(
        loc,
        raw_scale,
        parameter("prior_loc", prior_loc, loc),
        parameter("prior_scale", prior_scale, loc, above=0.0),
        parametrization=parametrization,
        reduction=reduction,
    )
    return kl


_rsample = location_scale_op("laplace_rsample")
_rsample_log_prob = location_scale_op("laplace_rsample_log_prob")
_log_prob = location_scale_op("laplace_log_prob", "x")
_kl = PointwiseOp(
    "laplace_kl",
    ("loc", "raw_scale", "prior_loc", "prior_scale"),
    options={"parametrization": PARAMETRIZATIONS},
    domains={"raw_scale": "scales >= 0", "prior_scale": "scales >= 0"},
)
