"""Targets with a location and a scale: normal, Laplace, Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import wide
from bslfast._torch import own_parameters
from bslfast.likelihoods.base import Continuous, check_outputs

# Added to softplus(raw): keeps 1 / scale finite in float32 for targets of order one, and is far
# below any noise that standardised data can show.
MIN_SCALE = 1e-4
PARAMETRIZATIONS = ("softplus", "log_scale", "log_var")
_RAW = {"softplus": "raw scales", "log_scale": "log scales", "log_var": "log variances"}


class _LocationScale(Continuous):
    """A location from the network, and a scale that is learned, fixed or from the network too."""

    #: (y, *others, loc, raw_scale, *, parametrization, reduction) -> log densities.
    _op: ClassVar[Callable[..., Tensor]]
    #: (*others, loc, raw_scale, *, parametrization, seed) -> samples.
    _rsample: ClassVar[Callable[..., Tensor]]
    #: (*others, loc, scale, validate_args) -> distribution.
    _law: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        targets: int | None = 1,
        *,
        scale: float | str = "learned",
        init_scale: float = 1.0,
        parametrization: str = "softplus",
    ) -> None:
        super().__init__(targets)
        self.parametrization = _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
        self.parts = ("locs",)
        self.scale_from: float | str
        if isinstance(scale, str):
            self.scale_from = _checks.choice("scale", scale, ("learned", "outputs"))
        else:
            self.scale_from = _checks.number("scale", scale, above=0.0)
        least = MIN_SCALE if parametrization == "softplus" else 0.0
        self.init_scale = _checks.number("init_scale", init_scale, above=least)
        if scale == "outputs":
            self.parts = ("locs", _RAW[parametrization])
        if scale == "learned":
            shape = () if self.targets is None else (self.targets,)
            self.raw_scale = nn.Parameter(torch.empty(shape))
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set a learned scale to ``init_scale``."""
        if self.scale_from != "learned":
            return
        if self.parametrization == "softplus":
            softplus = self.init_scale - MIN_SCALE
            # Inverse softplus: log(exp(s) - 1), written so that neither end overflows or cancels.
            self.raw_scale.fill_(softplus + math.log(-math.expm1(-softplus)))
        else:
            log = math.log(self.init_scale)
            self.raw_scale.fill_(log if self.parametrization == "log_scale" else 2 * log)

    @property
    def scale(self) -> Tensor:
        """The scale that is learned, [targets], or fixed, []."""
        if self.scale_from == "learned":
            return self._scale_of(self.raw_scale)
        if self.scale_from == "outputs":
            raise AttributeError("scale: expected a learned or fixed one, got one from the outputs")
        return torch.tensor(float(self.scale_from))

    def loc_scale(self, output: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
        """Split ``output`` [..., batch, outputs] into locs and what broadcasts with them."""
        if self.targets is not None:
            check_outputs(output, len(self.parts) * self.targets)
        loc, *raw = self.split(output, dim)
        if raw:
            return loc, self._scale_of(raw[0])
        if self.scale_from == "learned":
            return loc, self.scale.to(loc.dtype)
        return loc, loc.new_full((), float(self.scale_from))

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the locs."""
        return self.split(output, dim)[0]

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return targets drawn from the distribution, with a gradient by the outputs."""
        loc, scale = self.loc_scale(output, dim=dim)
        return type(self)._rsample(
            *self._others(loc), loc, scale, parametrization="scale", seed=seed
        )

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of each target, of :mod:`bslfast.distributions`."""
        loc, scale = self.loc_scale(output, dim=dim)
        return self._made(*self._others(loc), loc, scale)

    def extra_repr(self) -> str:
        """Show the number of targets and where the scale comes from."""
        return f"targets={self.targets}, scale={self.scale_from!r}"

    def _others(self, loc: Tensor) -> tuple[Tensor, ...]:
        """Parameters in front of the loc, in its dtype."""
        return ()

    def _made(self, *parameters: Tensor) -> Distribution:
        law: Distribution = type(self)._law(*parameters, validate_args=False)
        return law

    def _scale_of(self, raw: Tensor) -> Tensor:
        if self.parametrization == "softplus":
            return F.softplus(raw) + MIN_SCALE
        return torch.exp(0.5 * raw if self.parametrization == "log_var" else raw)

    def _widened(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # What is added to the softplus is lost in 16 bits.
        return (wide(output), wide(y)) if self.parametrization == "softplus" else (output, y)

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        loc, how = parameters[0], self.parametrization
        if self.scale_from == "outputs":
            raw = parameters[1]
        elif self.scale_from == "learned":
            raw = self.raw_scale
        else:
            raw, how = loc.new_full((), math.log(float(self.scale_from))), "log_scale"
        if how == "softplus":
            raw, how = F.softplus(raw) + MIN_SCALE, "scale"
        if raw.dtype is not loc.dtype:
            raw = raw.to(loc.dtype)
        return self._op(y, *self._others(loc), loc, raw, parametrization=how, reduction=reduction)

    def _mirrored(self, each: Distribution) -> tuple[Distribution, Callable[[Tensor], Tensor]]:
        law: Any = each
        return self._made(*self._others(law.loc), -law.loc, law.scale), torch.neg


class Normal(_LocationScale):
    r"""Normal targets. By default their noise is learned, one scale per target for all inputs.

    .. math:: \log p(y) = -\frac12 \left(\frac{y - m}{s}\right)^2 - \log s - \frac12 \log 2\pi

    The network outputs the locs m; in the parametrization "softplus" the scale s is
    ``softplus(raw_scale) + 1e-4``.

    Args:
        targets: number of targets; None for targets of any shape, which share one learned scale.
        scale: "learned" (the parameter ``raw_scale``, [targets]), a number (fixed), or "outputs":
            the network gives locs and raw scales.
        init_scale: the learned scale at the start, in the unit of the targets.
        parametrization: "softplus", "log_scale" (s = exp(raw)) or "log_var" (s = exp(raw / 2)).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 5.2.

    Example:
        >>> import torch
        >>> head = Normal(1, init_scale=1.0)
        >>> head.log_prob(torch.zeros(2, 1), torch.zeros(2, 1)).detach()
        tensor([-0.9189, -0.9189])
        >>> y, mask = torch.tensor([[0.0, torch.nan]]), torch.tensor([[True, False]])
        >>> Normal(2, scale=1.0).log_prob(torch.zeros(1, 2), y, mask)
        tensor([-0.9189])
    """

    _op = staticmethod(BF.normal_log_prob)
    _rsample = staticmethod(BF.normal_rsample)
    _law = bd.Normal


class HeteroscedasticNormal(Normal):
    """Normal targets whose noise depends on the input: :class:`Normal` with ``scale="outputs"``.

    The network has two outputs for each target: the locs first, then the raw scales, with
    ``scale = softplus(raw) + 1e-4``.

    Args:
        targets, parametrization: as in :class:`Normal`.

    Source: Nix and Weigend, "Estimating the mean and variance of the target probability
    distribution" (1994, doi:10.1109/ICNN.1994.374138).

    Example:
        >>> import torch
        >>> head = HeteroscedasticNormal(1)
        >>> head.log_prob(torch.tensor([[0.0, 0.5413]]), torch.zeros(1, 1))  # softplus(.5413) = 1
        tensor([-0.9190])
    """

    def __init__(self, targets: int | None = 1, *, parametrization: str = "softplus") -> None:
        super().__init__(targets, scale="outputs", parametrization=parametrization)


class Laplace(_LocationScale):
    r"""Laplace targets: the likelihood of absolute errors, less moved by outliers than a normal.

    .. math:: \log p(y) = -\frac{|y - m|}{s} - \log 2 s

    The standard deviation is sqrt(2) times the scale.

    Args:
        targets, scale, init_scale, parametrization: as in :class:`Normal`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    Example:
        >>> import torch
        >>> Laplace(1, scale=1.0).log_prob(torch.zeros(1, 1), torch.ones(1, 1))  # -1 - log 2
        tensor([-1.6931])
    """

    _op = staticmethod(BF.laplace_log_prob)
    _rsample = staticmethod(BF.laplace_rsample)
    _law = bd.Laplace


class StudentT(_LocationScale):
    r"""Student's t targets: normal ones with outliers.

    .. math:: \log p(y) = \log\frac{\Gamma((\nu + 1) / 2)}{\Gamma(\nu / 2) \sqrt{\pi \nu}\, s}
              - \tfrac{\nu + 1}{2} \log\left(1 + \frac{(y - m)^2}{\nu s^2}\right)

    The standard deviation is sqrt(df / (df - 2)) times the scale, and infinite for df <= 2: then so
    is ``aleatoric`` of predictions. Means of predictions are those of the locs, for any df.

    Args:
        targets, scale, init_scale, parametrization: as in :class:`Normal`.
        df: degrees of freedom, > 0, the same for all targets.
        learn_df: whether they are a parameter, ``softplus(raw_df)``, that starts at ``df``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Lange, Little and Taylor, "Robust statistical modeling using the t distribution" (1989,
    doi:10.1080/01621459.1989.10478852).

    Example:
        >>> import torch
        >>> StudentT(1, df=1.0, scale=1.0).log_prob(torch.zeros(1, 1), torch.ones(1, 1))  # Cauchy
        tensor([-1.8379])
    """

    _op = staticmethod(BF.student_t_log_prob)
    _rsample = staticmethod(BF.student_t_rsample)
    _law = bd.StudentT

    def __init__(
        self,
        targets: int | None = 1,
        *,
        df: float = 4.0,
        learn_df: bool = False,
        scale: float | str = "learned",
        init_scale: float = 1.0,
        parametrization: str = "softplus",
    ) -> None:
        super().__init__(
            targets, scale=scale, init_scale=init_scale, parametrization=parametrization
        )
        self.init_df = _checks.number("df", df, above=0.0)
        self.learn_df = _checks.flag("learn_df", learn_df)
        if learn_df:
            self.raw_df = nn.Parameter(torch.empty(()))
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set a learned scale to ``init_scale``, learned degrees of freedom to ``df``."""
        super().reset_parameters()
        if "raw_df" in own_parameters(self):
            self.raw_df.fill_(self.init_df + math.log(-math.expm1(-self.init_df)))

    @property
    def df(self) -> Tensor:
        """The degrees of freedom, []."""
        return F.softplus(self.raw_df) if self.learn_df else torch.tensor(self.init_df)

    def extra_repr(self) -> str:
        """Show the number of targets, where the scale comes from, and df."""
        df = "learned" if self.learn_df else f"{self.init_df:g}"
        return f"{super().extra_repr()}, df={df}"

    def _others(self, loc: Tensor) -> tuple[Tensor, ...]:
        if self.learn_df:
            return (self.df.to(loc.dtype),)
        return (loc.new_full((), self.init_df),)
