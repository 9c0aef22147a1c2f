"""Log densities of normal distributions, also of samples as they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast.functional._pointwise import PARAMETRIZATIONS, PointwiseOp, location_scale_op


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
    The result is right also where the scale underflows. For a sample that was just drawn, prefer
    :func:`normal_rsample_log_prob`: the difference x - m has no digits where s is far below m.

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

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    equation 1.46.

    >>> import torch, bslfast.functional as BF
    >>> zero = torch.zeros(1)
    >>> BF.normal_log_prob(torch.tensor([[0.0, 1.0]]), zero, zero, parametrization="log_scale")
    tensor([-2.3379])
    """
    log_prob: Tensor = _normal_log_prob(
        x, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


def normal_rsample_log_prob(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "row",
    seed: int | Tensor | None = None,
    stream: int = 0,
    path_only: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Samples of :func:`normal_rsample` and their own log densities, in one pass.

    .. math:: \log p(m + s \varepsilon)
              = -\tfrac12 \varepsilon^2 - \log s - \tfrac12 \log 2\pi

    from the noise itself: right however small the scale, also where adding it does not change
    ``loc``. Gradients are total derivatives: that of ``loc`` by the log density is 0, as the sample
    moves with it, and that of ``raw_scale`` is the one of -log s.

    Args:
        loc, raw_scale, parametrization, sample_shape, seed, stream: as in :func:`normal_rsample`;
            the samples are the same.
        reduction: of the log density: ``"none"`` one value per element, ``"row"`` sums over the
            last dimension, ``"sum"`` one sum. Never an average.
        path_only: gradients reach the log density through the sample alone, to which it is
            :math:`-\varepsilon / s`: its own ``loc`` and ``raw_scale`` are constants. These are not
            the gradients of the value, but of its mean they are, and where q is the posterior
            those of a bound are 0, not only on average ("sticking the landing").

    Returns:
        (sample, log_prob): a sample of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``; the
        log densities in nats, of that shape less what is summed.

    Raises:
        TypeError, ValueError: as :func:`normal_rsample`; an unknown reduction, or ``"row"`` of
            samples without dimensions.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114); Roeder,
    Wu and Duvenaud, "Sticking the landing" (2017, arXiv:1703.09194).

    >>> import torch, bslfast.functional as BF
    >>> loc, log_var = torch.ones(4, 3), torch.full((3,), -100.0)
    >>> sample, log_prob = BF.normal_rsample_log_prob(loc, log_var, parametrization="log_var")
    >>> bool((sample == loc).all()), bool((log_prob > 100).all())
    (True, True)
    """
    result: tuple[Tensor, Tensor] = _normal_rsample_log_prob(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        reduction=reduction,
        seed=seed,
        stream=stream,
        path_only=path_only,
    )
    return result


_normal_log_prob = location_scale_op("normal_log_prob", "x")
_normal_rsample_log_prob = PointwiseOp(
    "normal_rsample_log_prob",
    ("loc", "raw_scale"),
    options={"parametrization": PARAMETRIZATIONS, "path_only": (False, True)},
    domains={"raw_scale": "scales >= 0"},
)
