"""Rising maps of single numbers, as values: couplings and autoregressive transforms use them.

A map says how many parameters a feature takes and what they are at the start. Where the parameters
come from is a conditioner's matter, see conditioners.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import constraints

from bslfast import _checks
from bslfast import functional as BF
from bslfast.flows.domains import between
from bslfast.flows.transform import no_log_det
from bslfast.functional.affine_coupling import SCALE_FNS
from bslfast.functional.bernstein import MAX_COEFFICIENTS
from bslfast.functional.mixture_logistic import MAX_COMPONENTS
from bslfast.functional.rational_quadratic import EXTRA_SLOPES, MAX_BINS, TAILS

_LEAST_BOUND, _GREATEST_BOUND = 1e-30, 1e15


class Map:
    """A rising map of each feature, chosen by a few parameters of its own.

    A subclass is a frozen dataclass: two of its objects are equal if their settings are. It has
    :attr:`size`, :attr:`start` and :meth:`_map`, and says in :attr:`domain` what interval it maps
    onto itself, if not all numbers.

    Called on x [..., features] and parameters [..., features * size], it returns z [..., features]
    and log |det dz/dx| [...]; with ``inverse=True``, x and log |det dx/dz| of a z. Leading
    dimensions broadcast. The parameters of a feature lie side by side, unless the class says
    otherwise; :meth:`owners` has it in numbers.

    Attributes:
        size: number of parameters of a feature.
        start: what these are at the start, so that the map is the identity or near it.
        domain: what the map is defined on and leads to, a constraint of ``torch.distributions``.
    """

    @property
    def size(self) -> int:
        raise NotImplementedError

    @property
    def start(self) -> tuple[float, ...]:
        raise NotImplementedError

    @property
    def domain(self) -> constraints.Constraint:
        return constraints.real_vector

    def owners(self, features: int) -> list[int]:
        """Return the feature that each of the ``features * size`` parameters belongs to."""
        return [feature for feature in range(features) for _ in range(self.size)]

    def __call__(
        self, x: Tensor, parameters: Tensor, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See the class.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = _checks.operand("x", _checks.floating("x", x, shape="[..., features]"))
        if x.dim() == 0:
            raise ValueError("x: expected a tensor of shape [..., features], got []")
        self.check_parameters("parameters", parameters, x.shape[-1])
        parameters = _checks.operand("parameters", parameters)
        _checks.alike("parameters", parameters, "x", x)
        _checks.broadcast_shapes(
            {"x": x.shape[:-1], "parameters": parameters.shape[:-1]}, "a leading shape"
        )
        return self._map(x, parameters, _checks.flag("inverse", inverse))

    def check_parameters(self, name: str, value: Tensor, features: int) -> None:
        """Raise unless the last dimension of ``value`` has parameters for so many features."""
        if not isinstance(value, Tensor) or value.shape[-1:] != (features * self.size,):
            raise ValueError(
                f"{name}: expected a tensor of shape [..., {features * self.size}], the "
                f"{self.size} parameters of {self!r} for each of {features} features, got "
                f"{_checks.describe(value)}"
            )

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@dataclass(frozen=True)
class Additive(Map):
    """``z = x + t``, with one parameter t; it keeps volumes.

    Shape: x [..., features], parameters [..., features] -> (z [..., features], log_det [...]),
    log_det being 0.

    Source: Dinh, Krueger and Bengio, "NICE: Non-linear independent components estimation" (2015,
    arXiv:1410.8516).

    >>> import torch
    >>> from bslfast.flows import Additive
    >>> Additive()(torch.tensor([3.0, 4.0]), torch.tensor([0.5, -1.0]))
    (tensor([3.5000, 3.0000]), tensor(0.))
    """

    @property
    def size(self) -> int:
        return 1

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0,)

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        x, shift = _checks.operand("x", x), _checks.operand("parameters", parameters)
        _checks.alike("parameters", shift, "x", x)
        _checks.broadcast(x=x, parameters=shift)
        moved = x - shift if inverse else x + shift
        return moved, no_log_det(moved)


@dataclass(frozen=True)
class Affine(Map):
    """``z = x * s + t``, with a shift t and what s > 0 is made from.

    The shifts of all features come first, then what their scales are made from.

    Args:
        scale_fn: what makes s of its parameter: ``"tanh"``, ``"exp"`` or ``"sigmoid"``, see
            :func:`bslfast.functional.affine_coupling`.

    Shape: x [..., features], parameters [..., 2 features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803).

    >>> import torch
    >>> from bslfast.flows import Affine
    >>> Affine("exp")(torch.tensor([3.0, 4.0]), torch.tensor([0.5, -1.0, 0.0, 1.0]))
    (tensor([3.5000, 9.8731]), tensor(1.))
    """

    scale_fn: str = "tanh"

    def __post_init__(self) -> None:
        _checks.choice("scale_fn", self.scale_fn, SCALE_FNS)

    @property
    def size(self) -> int:
        return 2

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0, 0.0)

    def owners(self, features: int) -> list[int]:
        """See :meth:`Map.owners`."""
        return [*range(features), *range(features)]

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, raw_scale = parameters.chunk(2, dim=-1)
        return BF.affine_coupling(x, shift, raw_scale, scale_fn=self.scale_fn, inverse=inverse)


@dataclass(frozen=True)
class Spline(Map):
    """A rational-quadratic spline, with widths and heights of its bins and slopes at its knots.

    Args:
        bins: number of bins, 2 to 128.
        bound: half the length of the interval that the spline acts on, 1e-30 to 1e15.
        tails: what is outside [-bound, bound]. ``"linear"``: the identity; ``"affine"``: lines that
            go on with the slopes at the ends; None: nothing, the interval is the domain;
            ``"circular"``: likewise, and its two ends are one point with one slope, as for angles.
            A conditioner that looks at angles should do so by their sines and cosines: otherwise
            the two ends are far apart to it.
        min_bin_width, min_bin_height, min_derivative: as in
            :func:`bslfast.functional.rational_quadratic_spline`.

    Shape: x [..., features], parameters [..., features * size] -> (z [..., features],
    log_det [...]); size is 3 bins - 1 with linear tails, 3 bins with circular ones, else
    3 bins + 1.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019,
    arXiv:1906.04032); circular: Rezende et al., "Normalizing flows on tori and spheres" (2020,
    arXiv:2002.02428).

    >>> import torch
    >>> from bslfast.flows import Spline
    >>> spline = Spline(bins=4, tails="affine")
    >>> x = torch.tensor([0.5, -2.0])
    >>> z, log_det = spline(x, torch.tensor(spline.start * 2))
    >>> spline.size, torch.allclose(z, x), bool(log_det.abs() < 1e-6)
    (13, True, True)
    """

    bins: int = 8
    bound: float = 3.0
    tails: str | None = "linear"
    min_bin_width: float = 1e-3
    min_bin_height: float = 1e-3
    min_derivative: float = 1e-3

    def __post_init__(self) -> None:
        bins = _checks.integer("bins", self.bins, 2)
        if bins > MAX_BINS:
            raise ValueError(f"bins: expected at most {MAX_BINS}, got {bins}")
        _checks.choice("tails", self.tails, TAILS)
        _set(
            self,
            bins=bins,
            bound=_bound(self.bound),
            min_bin_width=_checks.number(
                "min_bin_width", self.min_bin_width, above=0, below=1 / bins
            ),
            min_bin_height=_checks.number(
                "min_bin_height", self.min_bin_height, above=0, below=1 / bins
            ),
            min_derivative=_checks.number("min_derivative", self.min_derivative, above=0, below=1),
        )

    @property
    def size(self) -> int:
        return 3 * self.bins + EXTRA_SLOPES[self.tails]

    @property
    def start(self) -> tuple[float, ...]:
        # Equal bins, and slopes of 1: min_derivative + softplus(this) = 1.
        slope = _softplus_inverse(1 - self.min_derivative)
        return (0.0,) * 2 * self.bins + (slope,) * (self.bins + EXTRA_SLOPES[self.tails])

    @property
    def domain(self) -> constraints.Constraint:
        if self.tails in ("linear", "affine"):
            return constraints.real_vector
        return between(-self.bound, self.bound, closed=True)

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        # Three views into the conditioner's output; the kernel reads them where they are.
        bins, slopes = self.bins, self.bins + EXTRA_SLOPES[self.tails]
        widths, heights, derivatives = parameters.view(
            *parameters.shape[:-1], x.shape[-1], 2 * bins + slopes
        ).split_with_sizes((bins, bins, slopes), dim=-1)
        return BF.rational_quadratic_spline(
            x,
            widths,
            heights,
            derivatives,
            inverse=inverse,
            tails=self.tails,
            bound=self.bound,
            min_bin_width=self.min_bin_width,
            min_bin_height=self.min_bin_height,
            min_derivative=self.min_derivative,
        )


@dataclass(frozen=True)
class _Components(Map):
    """A map made of components, with a logit and two parameters each."""

    components: int = 8

    def __post_init__(self) -> None:
        components = _checks.integer("components", self.components)
        if components > MAX_COMPONENTS:
            raise ValueError(
                f"components: expected at most {MAX_COMPONENTS} components, got {components}"
            )
        _set(self, components=components)

    @property
    def size(self) -> int:
        return 3 * self.components

    @property
    def _spread(self) -> tuple[float, ...]:
        """Different numbers for components, which would otherwise stay equal."""
        if self.components == 1:
            return (0.0,)
        return tuple(i / (self.components - 1) - 0.5 for i in range(self.components))

    def _parts(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, ...]:
        """Logits and the two others [..., features, components]: views, read where they are."""
        rows = parameters.view(*parameters.shape[:-1], x.shape[-1], 3 * self.components)
        parts: tuple[Tensor, ...] = rows.split_with_sizes((self.components,) * 3, dim=-1)
        return parts


@dataclass(frozen=True)
class MixtureLogistic(_Components):
    r"""The logit of a logistic mixture's distribution function: smooth, from the line onto itself.

    At the start the components are spread evenly over [-0.5, 0.5] with scales of 1: no number moves
    by more than 0.5. Equal ones would make the map the identity, but also have equal gradients, and
    stay equal.

    Args:
        components: number of components of each mixture, at most 64.

    Shape: x [..., features], parameters [..., features * size] -> (z [..., features],
    log_det [...]); size is 3 components: logits, locations and log scales.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019, arXiv:1902.00275), section 3.2.

    >>> import torch
    >>> from bslfast.flows import MixtureLogistic
    >>> mixture = MixtureLogistic(components=4)
    >>> z, log_det = mixture(torch.zeros(2), torch.tensor(mixture.start * 2))
    >>> mixture.size, z, log_det.shape
    (12, tensor([0., 0.]), torch.Size([]))
    """

    @property
    def start(self) -> tuple[float, ...]:
        zeros = (0.0,) * self.components
        return (*zeros, *self._spread, *zeros)

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.mixture_logistic_transform(x, *self._parts(x, parameters), inverse=inverse)


@dataclass(frozen=True)
class DeepSigmoidal(_Components):
    r"""The logit of a weighted mean of sigmoids: smooth, from the line onto itself.

    At the start the sigmoids have slopes of 1 and shifts spread evenly over [-0.5, 0.5]: no number
    moves by more than 0.5. Equal ones would make the map the identity, but also have equal
    gradients, and stay equal.

    Args:
        components: number of sigmoids of each map, at most 64.

    Shape: x [..., features], parameters [..., features * size] -> (z [..., features],
    log_det [...]); size is 3 components: logits, raw slopes and shifts.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Huang, Krueger, Lacoste and Courville, "Neural autoregressive flows" (2018,
    arXiv:1804.00779), section 3.2.

    >>> import torch
    >>> from bslfast.flows import DeepSigmoidal
    >>> sigmoids = DeepSigmoidal(components=4)
    >>> z, log_det = sigmoids(torch.zeros(2), torch.tensor(sigmoids.start * 2))
    >>> sigmoids.size, bool(z.abs().max() < 1e-6), log_det.shape
    (12, True, torch.Size([]))
    """

    @property
    def start(self) -> tuple[float, ...]:
        slopes = (_softplus_inverse(1.0),) * self.components
        return ((0.0,) * self.components) + slopes + self._spread

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.deep_sigmoidal_transform(x, *self._parts(x, parameters), inverse=inverse)


@dataclass(frozen=True)
class Bernstein(Map):
    r"""A rising Bernstein polynomial on [-bound, bound], and a line at either end.

    Args:
        degree: of the polynomial, at most 63; it has one coefficient more.
        bound: half the length of the interval that the polynomial acts on, 1e-30 to 1e15.

    Shape: x [..., features], parameters [..., features * size] -> (z [..., features],
    log_det [...]); size is degree + 1: raw coefficients, see
    :func:`bslfast.functional.bernstein_transform`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ramasinghe et al., "Robust normalizing flows using Bernstein-type polynomials" (2021,
    arXiv:2102.03509).

    >>> import torch
    >>> from bslfast.flows import Bernstein
    >>> polynomial = Bernstein(degree=5)
    >>> x = torch.tensor([0.5, -7.0])
    >>> z, log_det = polynomial(x, torch.tensor(polynomial.start * 2))
    >>> polynomial.size, torch.allclose(z, x), bool(log_det.abs() < 1e-5)
    (6, True, True)
    """

    degree: int = 16
    bound: float = 3.0

    def __post_init__(self) -> None:
        degree = _checks.integer("degree", self.degree)
        if degree >= MAX_COEFFICIENTS:
            raise ValueError(f"degree: expected at most {MAX_COEFFICIENTS - 1}, got {degree}")
        _set(self, degree=degree, bound=_bound(self.bound))

    @property
    def size(self) -> int:
        return self.degree + 1

    @property
    def start(self) -> tuple[float, ...]:
        step = _softplus_inverse(2 * self.bound / self.degree)
        return (-self.bound,) + (step,) * self.degree

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raw = parameters.view(*parameters.shape[:-1], x.shape[-1], self.degree + 1)
        return BF.bernstein_transform(x, raw, bound=self.bound, inverse=inverse)


def _bound(value: object) -> float:
    """Return half the length of an interval whose square and parts are numbers in float32 too."""
    bound = _checks.number("bound", value, above=0.0)
    if not _LEAST_BOUND <= bound <= _GREATEST_BOUND:
        raise ValueError(
            f"bound: expected a number from {_LEAST_BOUND:g} to {_GREATEST_BOUND:g}, got {bound!r}"
        )
    return bound


def check_map(name: str, value: object) -> Map:
    """Return ``value`` if it is a map, else raise TypeError."""
    if not isinstance(value, Map):
        raise TypeError(
            f"{name}: expected a map such as bslfast.flows.Affine(), got {_checks.describe(value)}"
        )
    return value


def _set(frozen: Map, **values: object) -> None:
    """Set fields of a frozen dataclass to what its checks have made of them."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def _softplus_inverse(value: float) -> float:
    """The number of which softplus is ``value`` > 0."""
    return value + math.log(-math.expm1(-value))
