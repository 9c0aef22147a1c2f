"""What location-scale families share: a loc, and a scale made from a raw parameter.

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
from torch.distributions import Distribution
from torch.distributions.utils import lazy_property
from typing_extensions import Self

from bslfast import _checks
from bslfast.functional.normal import PARAMETRIZATIONS

Number = float | int
D = TypeVar("D", bound=Distribution)


class LocationScale(Distribution):
    """Mixin in front of a distribution of torch with parameters ``loc`` and ``scale``.

    The raw parameter is kept as it came, not broadcast: the ops read it in place, and compute the
    scale's logarithm from it without a detour. ``loc`` and ``scale`` are of ``batch_shape``.

    Attributes:
        raw_scale: what the scale is made from.
        parametrization: how, see :func:`bslfast.functional.normal_rsample`.
    """

    #: (loc, raw_scale, *, parametrization, sample_shape) -> samples.
    _rsample: ClassVar[Callable[..., Tensor]]
    #: (x, loc, raw_scale, *, parametrization, reduction) -> log densities.
    _log_prob: ClassVar[Callable[..., Tensor]]

    raw_scale: Tensor
    parametrization: str
    loc: Any

    def __init__(
        self,
        loc: Tensor | Number,
        scale: Tensor | Number,
        validate_args: bool | None = None,
        *,
        parametrization: str = "scale",
    ) -> None:
        _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
        loc, raw = _as_tensors(loc, scale)
        self.raw_scale = raw
        self.parametrization = parametrization
        shape = _checks.broadcast(loc=loc, raw_scale=raw)
        self.loc = loc.expand(shape)
        # torch checks what is in its dictionary alone: a scale that is given, not one that is made.
        if parametrization == "scale":
            self.__dict__["scale"] = raw.expand(shape)
        Distribution.__init__(self, shape, validate_args=validate_args)

    @classmethod
    def from_softplus(
        cls, loc: Tensor | Number, raw_scale: Tensor, validate_args: bool | None = None
    ) -> Self:
        """Scale log(1 + exp(raw_scale))."""
        return cls(loc, raw_scale, validate_args, parametrization="softplus")

    @classmethod
    def from_log_scale(
        cls, loc: Tensor | Number, log_scale: Tensor, validate_args: bool | None = None
    ) -> Self:
        """Scale exp(log_scale)."""
        return cls(loc, log_scale, validate_args, parametrization="log_scale")

    @classmethod
    def from_log_var(
        cls, loc: Tensor | Number, log_var: Tensor, validate_args: bool | None = None
    ) -> Self:
        """Scale exp(log_var / 2)."""
        return cls(loc, log_var, validate_args, parametrization="log_var")

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
        """Its logarithm, read off where the raw parameter is one."""
        if self.parametrization == "log_scale":
            return self.raw_scale.expand(self.batch_shape)
        if self.parametrization == "log_var":
            return (0.5 * self.raw_scale).expand(self.batch_shape)
        return self.scale.log()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Self:
        """Return the distribution of a wider batch shape; nothing is copied."""
        new = instance(self, type(self), _instance)
        shape = torch.Size(batch_shape)
        new.raw_scale = self.raw_scale
        new.parametrization = self.parametrization
        new.loc = self.loc.expand(shape)
        if "scale" in self.__dict__:
            new.__dict__["scale"] = self.scale.expand(shape)
        Distribution.__init__(new, shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples, ``[*sample_shape, *batch_shape]``, by the fused op."""
        return type(self)._rsample(
            self.loc,
            self.raw_scale,
            parametrization=self.parametrization,
            sample_shape=tuple(sample_shape),
        )

    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return samples without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities by the fused op."""
        if self._validate_args:
            self._validate_sample(value)
        if not isinstance(value, Tensor):
            value = self.loc.new_tensor(value)
        return type(self)._log_prob(
            value,
            self.loc,
            self.raw_scale,
            parametrization=self.parametrization,
            reduction="none",
        )


def instance(distribution: D, family: type, given: Any) -> D:
    """What ``expand`` is to fill: the ``given`` one, or a new one if the class is ``family``."""
    checked: Callable[..., D] = distribution._get_checked_instance
    return checked(family, given)


def _as_tensors(loc: Any, scale: Any) -> tuple[Tensor, Tensor]:
    """Numbers become tensors like the other argument, as in torch's own classes."""
    like = loc if isinstance(loc, Tensor) else scale if isinstance(scale, Tensor) else None
    found = []
    for name, value in (("loc", loc), ("scale", scale)):
        if not isinstance(value, Tensor):
            number = _checks.number(name, value)
            if like is None:
                value = torch.tensor(number, dtype=torch.get_default_dtype())
            else:
                value = like.new_tensor(number)
        found.append(_checks.operand(name, value))
    _checks.alike("scale", found[1], "loc", found[0])
    return found[0], found[1]
