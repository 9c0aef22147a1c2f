"""What families with a scale share: parameters, of which the scale is made from a raw one.

A family is a class with torch's class of that name behind it::

    class Laplace(LocationScale, torch.distributions.Laplace):
        _rsample = staticmethod(BF.laplace_rsample)
        _log_prob = staticmethod(BF.laplace_log_prob)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property
from typing_extensions import Self

from bslfast import _checks
from bslfast._formulas import log_scale_of
from bslfast.functional._op import common
from bslfast.functional.normal import PARAMETRIZATIONS

Number = float | int
D = TypeVar("D", bound=Distribution)
#: The shape of one sample.
ONE = torch.Size()


class RawScale(Distribution):
    """Mixin in front of a distribution of torch whose last parameter is ``scale``.

    The raw parameter is kept as it came, not broadcast: the ops read it in place, and compute the
    scale's logarithm from it without a detour. ``scale`` and the other parameters are of
    ``batch_shape``.

    Attributes:
        raw_scale: what the scale is made from.
        parametrization: how, see :func:`bslfast.functional.normal_rsample`.
    """

    #: Names of the parameters in front of the scale, in the order of the ops.
    _others: ClassVar[tuple[str, ...]] = ()
    #: (*others, raw_scale, *, parametrization, sample_shape) -> samples.
    _rsample: ClassVar[Callable[..., Tensor]]
    #: (x, *others, raw_scale, *, parametrization, reduction) -> log densities.
    _log_prob: ClassVar[Callable[..., Tensor]]

    raw_scale: Tensor
    parametrization: str

    def _set(self, parametrization: str, validate_args: bool | None, **parameters: Any) -> None:
        """Initialise with these parameters, the scale being the last."""
        _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
        others = _as_tensors(parameters)
        raw = others.pop("scale")
        self.raw_scale = raw
        self.parametrization = parametrization
        shape = _checks.broadcast(**others, raw_scale=raw)
        # torch checks what is in its dictionary alone: a scale that is given, not one that is made.
        if parametrization == "scale":
            others["scale"] = raw
        for name, value in others.items():
            self.__dict__[name] = value if value.shape == shape else value.expand(shape)
        initialize(self, shape, validate_args)

    @classmethod
    def _made(
        cls, parametrization: str, parameters: tuple[Any, ...], validate_args: bool | None
    ) -> Self:
        if len(parameters) != len(cls._others) + 1:
            names = ", ".join((*cls._others, "raw_scale"))
            raise TypeError(f"parameters: expected {names}, got {len(parameters)} of them")
        make: Callable[..., Self] = cls
        return make(*parameters, validate_args=validate_args, parametrization=parametrization)

    @classmethod
    def from_softplus(cls, *parameters: Tensor | Number, validate_args: bool | None = None) -> Self:
        """Scale log(1 + exp(raw_scale)); the raw scale is the last of ``parameters``."""
        return cls._made("softplus", parameters, validate_args)

    @classmethod
    def from_log_scale(
        cls, *parameters: Tensor | Number, validate_args: bool | None = None
    ) -> Self:
        """Scale exp(log_scale), the last of ``parameters``."""
        return cls._made("log_scale", parameters, validate_args)

    @classmethod
    def from_log_var(cls, *parameters: Tensor | Number, validate_args: bool | None = None) -> Self:
        """Scale exp(log_var / 2), the last of ``parameters``."""
        return cls._made("log_var", parameters, validate_args)

    @lazy_property
    def scale(self) -> Tensor:
        """The scale, of ``batch_shape``, made when it is first asked for."""
        raw = self.raw_scale
        if self.parametrization == "softplus":
            scale = torch.logaddexp(raw, raw.new_zeros(()))
        elif self.parametrization == "log_var":
            scale = torch.exp(0.5 * raw)
        else:
            scale = torch.exp(raw) if self.parametrization == "log_scale" else raw
        return scale.expand(self.batch_shape)

    @property
    def log_scale(self) -> Tensor:
        """Its logarithm, from the raw parameter: right also where the scale underflows."""
        return log_scale_of(self.raw_scale, self.parametrization).expand(self.batch_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, type(self), _instance)
        shape = torch.Size(batch_shape)
        # Beside others of the new shape the ops broadcast it.
        new.raw_scale = self.raw_scale if self._others else self.raw_scale.expand(shape)
        new.parametrization = self.parametrization
        for name in self._others:
            new.__dict__[name] = self.__dict__[name].expand(shape)
        if "scale" in self.__dict__:
            new.__dict__["scale"] = self.scale.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = ONE) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, *batch_shape]``, by the fused op."""
        return type(self)._rsample(
            *[self.__dict__[name] for name in self._others],
            self.raw_scale,
            parametrization=self.parametrization,
            sample_shape=() if sample_shape is ONE else _checks.sample_shape(sample_shape),
        )

    def sample(self, sample_shape: Sequence[int] = ONE) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities by the fused op."""
        if self._validate_args:
            self._validate_sample(value)
        if not isinstance(value, Tensor):
            value = self.raw_scale.new_tensor(value)
        return type(self)._log_prob(
            value,
            *[self.__dict__[name] for name in self._others],
            self.raw_scale,
            parametrization=self.parametrization,
            reduction="none",
        )


class LocationScale(RawScale):
    """Mixin in front of a distribution of torch with parameters ``loc`` and ``scale``."""

    _others = ("loc",)

    loc: Any

    def __init__(
        self,
        loc: Tensor | Number,
        scale: Tensor | Number,
        validate_args: bool | None = None,
        *,
        parametrization: str = "scale",
    ) -> None:
        self._set(parametrization, validate_args, loc=loc, scale=scale)


def initialize(
    distribution: Distribution, batch_shape: torch.Size, validate_args: bool | None
) -> None:
    """``Distribution.__init__``, whose checks of parameters are left out where those are valid.

    That they are is found in a third of the time; else torch's checks decide, and word the errors.
    """
    checks = distribution._validate_args if validate_args is None else validate_args
    if not checks or not _surely_valid(distribution):
        Distribution.__init__(distribution, batch_shape, validate_args=validate_args)
        return
    Distribution.__init__(distribution, batch_shape, validate_args=False)
    if validate_args:
        distribution._validate_args = True
    else:
        del distribution._validate_args  # the class's again, whatever it will be


def _surely_valid(distribution: Distribution) -> bool:
    """Whether all parameters, but those that are made when asked for, are plain and valid."""
    given = distribution.__dict__
    found = [(given[k], c) for k, c in distribution.arg_constraints.items() if k in given]
    if not common(tuple(value for value, _ in found)):
        return False
    for value, constraint in found:
        if constraint is constraints.real:
            valid = torch.equal(value, value)  # NaN is not
        elif constraint is constraints.positive and value.numel() > 0:
            valid = value.detach().min().item() > 0  # nor is NaN, which is the least
        else:
            valid = False
        if not valid:
            return False
    return True


def instance(distribution: D, family: type, given: Any) -> D:
    """What ``expand`` is to fill: the ``given`` one, or a new one if the class is ``family``."""
    checked: Callable[..., D] = distribution._get_checked_instance
    return checked(family, given)


def nearer_tail(p: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a quantile is one of the lower half, and the chance beyond it, which is exact.

    The chance of a ``p`` outside [0, 1] is negative.
    """
    below = p < 0.5
    return below, torch.where(below, p, 1 - p)


def _as_tensors(parameters: dict[str, Any]) -> dict[str, Tensor]:
    """Numbers become tensors like the first that is one, as in torch's own classes."""
    like = next((v for v in parameters.values() if isinstance(v, Tensor)), None)
    found: dict[str, Tensor] = {}
    for name, value in parameters.items():
        if not isinstance(value, Tensor):
            dtype, device = torch.get_default_dtype(), None
            if like is not None:
                dtype, device = like.dtype, like.device
            value = torch.full(
                (), _checks.number(name, value, dtype=dtype), dtype=dtype, device=device
            )
        found[name] = _checks.operand(name, value)
    first = next(iter(found))
    for name, value in found.items():
        _checks.alike(name, value, first, found[first])
    return found
