"""Normal samples with a one-sample estimate of the divergence from a prior without closed form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bslfast import _checks
from bslfast._native import _cpu
from bslfast.functional._pointwise import PARAMETRIZATIONS, PointwiseOp

PRIORS = _cpu.PRIORS


def normal_rsample_mc_kl(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    prior: str = "scale_mixture",
    pi: float = 0.5,
    sigma1: float = 1.0,
    sigma2: float = 0.1,
    prior_scale: float = 1.0,
    prior_df: float = 3.0,
    parametrization: str = "softplus",
    reduction: str = "sum",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of :func:`bslfast.functional.normal_rsample`, and the log ratio to a prior at them.

    .. math:: z = m + s e, \quad \log q(z) - \log p(z), \quad
              \log q(z) = -\tfrac12 e^2 - \log s - \tfrac12 \log 2\pi

    in one pass. The log ratio averages to KL(q || p), its gradients by the path to those of the
    KL. Priors, all around 0:

    * ``"scale_mixture"``: pi N(0, sigma1) + (1 - pi) N(0, sigma2),
    * ``"laplace"``: of scale ``prior_scale``,
    * ``"student_t"``: of scale ``prior_scale`` and ``prior_df`` degrees of freedom,
    * ``"log_uniform"``: p(z) = 1 / \|z\|, which has no integral: a divergence up to a constant,
    * ``"horseshoe"``: N(0, ``prior_scale`` l) with l half-Cauchy, integrated over l:
      exp(u^2 / 2) E1(u^2 / 2) / (pi sqrt(2 pi) ``prior_scale``) for u = \|z\| / ``prior_scale``.

    Args:
        loc, raw_scale, parametrization, seed, stream: as in
            :func:`bslfast.functional.normal_rsample`.
        prior: one of the above. Numbers of other priors are not looked at, beyond their range.
        pi: share of the first component, in (0, 1).
        sigma1, sigma2: standard deviations of the components, > 0.
        prior_scale: > 0.
        prior_df: degrees of freedom, > 0.
        reduction: of the log ratio: ``"none"`` one value per element, ``"row"`` sums over the last
            dimension, ``"sum"`` one sum, over the samples too. Never an average.
        sample_shape: as in :func:`bslfast.functional.normal_rsample`.

    Returns:
        (sample, kl): samples of shape ``[*sample_shape, *broadcast(loc, raw_scale)]`` and the log
        ratios, of that shape less what is summed.

    Raises:
        TypeError, ValueError: as :func:`bslfast.functional.normal_rsample`; an unknown prior or
            reduction, numbers outside their ranges.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424),
    sections 3.2 and 3.3; log-uniform: Kingma, Salimans and Welling, "Variational dropout and the
    local reparameterization trick" (2015, arXiv:1506.02557); horseshoe: Carvalho, Polson and Scott,
    "The horseshoe estimator for sparse signals" (2010, doi:10.1093/biomet/asq017).

    >>> import torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(4, 3), torch.full((4, 3), -3.0)
    >>> weight, kl = BF.normal_rsample_mc_kl(loc, raw_scale, pi=0.25, sigma2=0.01, seed=0)
    >>> weight.shape, bool(kl > 0)
    (torch.Size([4, 3]), True)
    """
    result: tuple[Tensor, Tensor] = _rsample_mc_kl(
        loc,
        raw_scale,
        prior=prior,
        parametrization=parametrization,
        pi=_checks.number("pi", pi, above=0.0, below=1.0),
        sigma1=_checks.number("sigma1", sigma1, above=0.0),
        sigma2=_checks.number("sigma2", sigma2, above=0.0),
        prior_scale=_checks.number("prior_scale", prior_scale, above=0.0),
        prior_df=_checks.number("prior_df", prior_df, above=0.0),
        reduction=reduction,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return result


_rsample_mc_kl = PointwiseOp(
    "normal_rsample_mc_kl",
    ("loc", "raw_scale"),
    options={"prior": PRIORS, "parametrization": PARAMETRIZATIONS},
    numbers=("pi", "sigma1", "sigma2", "prior_scale", "prior_df"),
    domains={"raw_scale": "scales >= 0"},
)
