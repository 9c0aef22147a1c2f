"""Student's t distributions: reparametrised samples and log densities, differentiable by df."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast.functional._pointwise import PARAMETRIZATIONS, PointwiseOp


def student_t_rsample(
    df: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of Student's t distributions: ``loc + scale * t``, with

    .. math:: t = \sqrt{\nu\,(u_1^{-2 / \nu} - 1)} \cos(2 \pi u_2), \quad u_i \sim U(0, 1)

    a smooth function of the degrees of freedom, whose derivative is the gradient of ``df``: the
    path is followed, nothing is approximated. Accurate for small df and for large, where t tends
    to Box and Muller's normal number. Backward draws u again.

    Args:
        df: degrees of freedom, > 0; any shape.
        loc: medians; broadcasts with ``df``.
        raw_scale: what the scale is made from; broadcasts with the others.
        parametrization, sample_shape, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(df, loc, raw_scale)]``.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown parametrization, or a
            negative scale or df <= 0 (these in eager mode on the CPU; elsewhere the result is NaN).

    Source: Bailey, "Polar generation of random variates with the t-distribution" (1994,
    doi:10.2307/2153537).

    >>> import torch, bslfast.functional as BF
    >>> df = torch.full((4000,), 5.0, requires_grad=True)
    >>> x = BF.student_t_rsample(df, torch.zeros(4000), torch.ones(4000), seed=0,
    ...     parametrization="scale")
    >>> x.square().mean().backward()  # of which the expectation is df / (df - 2)
    >>> bool((x.square().mean() - 5 / 3).abs() < 0.2), bool((df.grad.sum() + 2 / 9).abs() < 0.1)
    (True, True)
    """
    sample: Tensor = _rsample(
        df,
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample


def student_t_log_prob(
    x: Tensor,
    df: Tensor,
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    reduction: str = "row",
) -> Tensor:
    r"""Log density of ``x`` under Student's t distributions, in nats.

    .. math:: \log\Gamma\left(\tfrac{\nu + 1}{2}\right) - \log\Gamma\left(\tfrac{\nu}{2}\right)
              - \tfrac12 \log(\pi \nu) - \log s
              - \tfrac{\nu + 1}{2} \log\left(1 + \tfrac{z^2}{\nu}\right), \quad z = (x - m) / s

    The difference of the gamma functions, and its derivative, come from a series of their own, so
    that they are right for any df: see docs/numerics.md.

    Args:
        x: values, any shape.
        df: degrees of freedom, > 0; broadcasts with ``x``.
        loc: medians; broadcasts with the others.
        raw_scale: what the scale is made from; broadcasts with the others.
        parametrization: as in :func:`bslfast.functional.normal_rsample`.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The log densities: the shape that the arguments broadcast to, less what is summed.
        Gradients reach all four.

    Raises:
        TypeError, ValueError: as :func:`student_t_rsample`; an unknown reduction, or ``"row"`` of
            tensors without dimensions.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    equation 2.159.

    >>> import torch, bslfast.functional as BF
    >>> x, one = torch.tensor([[0.0, 1.0]]), torch.ones(1)
    >>> BF.student_t_log_prob(x, one, torch.zeros(1), one, parametrization="scale")
    tensor([-2.9826])
    """
    log_prob: Tensor = _log_prob(
        x, df, loc, raw_scale, parametrization=parametrization, reduction=reduction
    )
    return log_prob


def _op(kind: str, *tensors: str) -> PointwiseOp:
    return PointwiseOp(
        f"student_t_{kind}",
        (*tensors, "df", "loc", "raw_scale"),
        options={"parametrization": PARAMETRIZATIONS},
        domains={"df": "numbers > 0", "raw_scale": "scales >= 0"},
    )


_rsample = _op("rsample")
_log_prob = _op("log_prob", "x")
