"""Student's t distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions.kl import register_kl

import bslfast.functional as BF
from bslfast._formulas import log_gamma_half_step
from bslfast.distributions import student_t_cdf
from bslfast.distributions.location_scale import Number, RawScale


class StudentT(RawScale, torch.distributions.StudentT):
    """Student's t distribution, differentiable by df; its scale may come from a raw parameter.

    ``StudentT(df, loc, scale)`` is torch's; ``from_softplus(df, loc, raw_scale)``,
    ``from_log_scale`` and ``from_log_var`` keep the raw parameter, as in
    :class:`bslfast.distributions.Normal`.

    Args:
        df: degrees of freedom, > 0; a tensor or a number.
        loc: medians, a tensor or a number.
        scale: scales, or the raw parameter of ``parametrization``.
        validate_args: as in torch.
        parametrization: of ``scale``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    >>> import torch
    >>> q = StudentT.from_log_scale(3.0, torch.zeros(2), torch.zeros(2))
    >>> q.rsample((5,)).shape, q.log_prob(torch.zeros(2)), q.entropy()
    (torch.Size([5, 2]), tensor([-1.0009, -1.0009]), tensor([1.7735, 1.7735]))
    """

    _others = ("df", "loc")
    _rsample = staticmethod(BF.student_t_rsample)
    _log_prob = staticmethod(BF.student_t_log_prob)

    def __init__(
        self,
        df: Tensor | Number,
        loc: Tensor | Number = 0.0,
        scale: Tensor | Number = 1.0,
        validate_args: bool | None = None,
        *,
        parametrization: str = "scale",
    ) -> None:
        self._set(parametrization, validate_args, df=df, loc=loc, scale=scale)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probabilities of numbers up to ``value``, differentiable as in torch.

        By the incomplete beta function in float64, see :mod:`bslfast.distributions.student_t_cdf`:
        the tail is within 3e-15 of itself, and the gradient by ``value`` is the density.
        """
        if self._validate_args:
            self._validate_sample(value)
        z = (value.double() - self.loc.double()) / self.scale.double()
        return student_t_cdf.cdf(z, self.df.double()).to(self.raw_scale.dtype)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles for probabilities ``value``; NaN outside [0, 1]."""
        z = student_t_cdf.quantile(value.double(), self.df.double())
        quantile = self.loc.double() + self.scale.double() * z
        return quantile.to(self.raw_scale.dtype)

    def entropy(self) -> Tensor:
        """Return the entropies, in nats, with their digits for any df.

        With g(x) = lgamma(x + 1/2) - lgamma(x) - log(x) / 2 and x = df / 2, the digammas differ by
        g'(x) + 1 / (2 x): no difference of gamma functions is left, which for large df would have
        no digits.
        """
        half = 0.5 * self.df
        step = log_gamma_half_step(half)
        slope = torch.func.grad(lambda x: log_gamma_half_step(x).sum())(half)
        tail: Tensor = (half + 0.5) * (slope + 0.5 / half)
        return self.log_scale + 0.5 * math.log(2 * math.pi) - step + tail


@register_kl(StudentT, StudentT)  # type: ignore[untyped-decorator]
def _kl_student_t_student_t(p: StudentT, q: StudentT) -> Tensor:
    raise NotImplementedError(
        "kl_divergence: expected a pair whose divergence is known, got StudentT and StudentT; "
        "(p.log_prob(x) - q.log_prob(x)).mean(0) with x = p.rsample((n,)) estimates it"
    )
