"""Logistic distributions: reparametrised samples and log densities."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast.functional._pointwise import location_scale_op


def logistic_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of logistic distributions: ``loc + scale * z``, with

    .. math:: z = \log\frac{u}{1 - u}, \quad u \sim U(0, 1)

    Computed from |u - 1/2|, which is exact: the tails and small z have all their digits.
    Backward draws u again.

    Args:
        loc: means, any shape.
        raw_scale: what the scale is made from; broadcasts with ``loc``. The standard
            deviation is pi / sqrt(3) times the scale.
        parametrization, sample_shape, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``.

    Raises:
        TypeError, ValueError: as :func:`bslfast.functional.normal_rsample`.

    Source: Balakrishnan, "Handbook of the logistic distribution" (1991, doi:10.1201/9781482277098),
    chapter 1.

    >>> import torch, bslfast.functional as BF
    >>> x = BF.logistic_rsample(torch.zeros(2), torch.ones(2), sample_shape=(4000,), seed=0,
    ...     parametrization="scale")
    >>> x.shape, bool((x.std(dim=0) / 1.8138 - 1).abs().max() < 0.1)
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


def logistic_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of :func:`logistic_rsample` and their own log densities, in one pass.

    .. math:: \log p(m + s z) = -|z| - 2 \log(1 + e^{-|z|}) - \log s

    from z itself: nothing is subtracted and divided again. So the gradient by ``loc`` of the log
    density is 0: the sample moves with it.

    Args:
        loc, raw_scale, parametrization, sample_shape, seed, stream: as in :func:`logistic_rsample`.
        reduction: of the log density: ``"none"`` one value per element, ``"row"`` sums over the
            last dimension, ``"sum"`` one sum. Never an average.

    Returns:
        (sample, log_prob): a sample of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``; the
        log densities in nats, of that shape less what is summed.

    Raises:
        TypeError, ValueError: as :func:`logistic_rsample`; an unknown reduction, or ``"row"`` of
            samples without dimensions.

    Source: Balakrishnan, "Handbook of the logistic distribution" (1991, doi:10.1201/9781482277098),
    chapter 1.

    >>> import torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(4, 3), torch.zeros(3)
    >>> sample, log_prob = BF.logistic_rsample_log_prob(loc, raw_scale, seed=0)
    >>> torch.allclose(log_prob, BF.logistic_log_prob(sample, loc, raw_scale))
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


def logistic_log_prob(
    x: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    r"""Log density of ``x`` under logistic distributions, in nats.

    .. math:: -|z| - 2 \log(1 + e^{-|z|}) - \log s, \quad z = (x - m) / s

    Args:
        x: values, any shape.
        loc: means; broadcasts with ``x``.
        raw_scale: what the scale is made from; broadcasts with the others.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all three.

    Raises:
        TypeError, ValueError: as :func:`logistic_rsample_log_prob`.

    Source: Balakrishnan, "Handbook of the logistic distribution" (1991, doi:10.1201/9781482277098),
    chapter 1.

    >>> import torch, bslfast.functional as BF
    >>> zero = torch.zeros(1)
    >>> BF.logistic_log_prob(torch.tensor([[0.0, 1.0]]), zero, zero, parametrization="log_scale")
    tensor([-3.0128])
    """
    log_prob: Tensor = _log_prob(
        x, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


_rsample = location_scale_op("logistic_rsample")
_rsample_log_prob = location_scale_op("logistic_rsample_log_prob")
_log_prob = location_scale_op("logistic_log_prob", "x")
