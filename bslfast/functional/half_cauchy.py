"""Half-Cauchy distributions: reparametrised samples, log densities and the KL divergence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast import _checks
from bslfast.functional._pointwise import PARAMETRIZATIONS, PointwiseOp, parameter


def half_cauchy_rsample(
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of half-Cauchy distributions: positive, with very heavy tails.

    .. math:: s \tan\frac{\pi u}{2}, \quad u \sim U(0, 1)

    from the sine and cosine of pi u / 2, neither of which loses digits next to its zero. Backward
    draws u again.

    Args:
        raw_scale: what the scale, which is the median, is made from; any shape.
        parametrization, sample_shape, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *raw_scale.shape]``.

    Raises:
        TypeError: an argument is not a floating-point tensor.
        ValueError: an unknown parametrization, or a negative scale (that in eager mode on the CPU;
            elsewhere the result is NaN).

    Source: Gelman, "Prior distributions for variance parameters in hierarchical models" (2006,
    doi:10.1214/06-BA117A).

    >>> import torch, bslfast.functional as BF
    >>> x = BF.half_cauchy_rsample(torch.full((4000,), 2.0), parametrization="scale", seed=0)
    >>> bool((x > 0).all()), bool(abs(x.median() - 2) < 0.2)
    (True, True)
    """
    sample: Tensor = _rsample(
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample


def half_cauchy_log_prob(
    x: Tensor, raw_scale: Tensor, *, parametrization: str = "softplus", reduction: str = "row"
) -> Tensor:
    r"""Log density of ``x`` under half-Cauchy distributions, in nats.

    .. math:: \log\frac{2}{\pi} - \log(1 + z^2) - \log s, \quad z = x / s \ge 0

    z is not squared where the square would overflow.

    Args:
        x: values, any shape. The log density of negative ones is -inf, their gradients are 0.
        raw_scale: what the scale is made from; broadcasts with ``x``.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach both.

    Raises:
        TypeError, ValueError: as :func:`half_cauchy_rsample`; shapes that do not broadcast, unlike
            dtypes or devices, an unknown reduction, or ``"row"`` of tensors without dimensions.

    Source: Gelman, "Prior distributions for variance parameters in hierarchical models" (2006,
    doi:10.1214/06-BA117A).

    >>> import torch, bslfast.functional as BF
    >>> x = torch.tensor([0.0, 1.0, -1.0])
    >>> BF.half_cauchy_log_prob(x, torch.zeros(3), parametrization="log_scale", reduction="none")
    tensor([-0.4516, -1.1447,    -inf])
    """
    log_prob: Tensor = _log_prob(x, raw_scale, parametrization=parametrization, reduction=reduction)
    return log_prob


def half_cauchy_kl(
    raw_scale: Tensor,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    r"""KL divergence from HalfCauchy(prior_scale) to HalfCauchy(scale), in nats.

    .. math:: \log\frac{(s + s_0)^2}{4 s s_0} = 2 \log\cosh\left(\frac12 \log\frac{s}{s_0}\right)

    with its digits where the scales are close, and without overflow where they are not.

    Args:
        raw_scale, parametrization: as in :func:`half_cauchy_rsample`.
        prior_scale: scale of the prior, > 0; number or tensor that broadcasts with ``raw_scale``.
            A number is rounded to the dtype.
        reduction: as in :func:`half_cauchy_log_prob`.

    Returns:
        The divergence: the shape that the arguments broadcast to, less what is summed. Gradients
        reach both, if they are tensors.

    Raises:
        TypeError, ValueError: as :func:`half_cauchy_log_prob`; a prior_scale that is not positive
            (a tensor's zeros are let through: the divergence is infinite there).

    Source: Chyzak and Nielsen, "A closed-form formula for the Kullback-Leibler divergence between
    Cauchy distributions" (2019, arXiv:1905.10965).

    >>> import torch, bslfast.functional as BF
    >>> BF.half_cauchy_kl(torch.ones(3), 3.0, parametrization="scale")
    tensor(0.8630)
    """
    raw_scale = _checks.operand("raw_scale", raw_scale)
    kl: Tensor = _kl(
        raw_scale,
        parameter("prior_scale", prior_scale, raw_scale, above=0.0),
        parametrization=parametrization,
        reduction=reduction,
    )
    return kl


def _op(kind: str, *tensors: str) -> PointwiseOp:
    return PointwiseOp(
        f"half_cauchy_{kind}",
        tensors,
        options={"parametrization": PARAMETRIZATIONS},
        domains={"raw_scale": "scales >= 0", "prior_scale": "scales >= 0"},
    )


_rsample = _op("rsample", "raw_scale")
_log_prob = _op("log_prob", "x", "raw_scale")
_kl = _op("kl", "raw_scale", "prior_scale")
