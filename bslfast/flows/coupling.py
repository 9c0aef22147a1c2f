"""Transforms of features by maps that other features and the context choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks
from bslfast.flows.conditioners import MADE, Conditioner
from bslfast.flows.domains import mapped_inside
from bslfast.flows.maps import Map, check_map
from bslfast.flows.transform import (
    ERRORS,
    Permutation,
    Transform,
    check_inputs,
    explain_failure,
    has_values,
    under_autocast,
)


class Mapped(Transform):
    """A transform by maps of features, whose parameters come from a conditioner.

    A subclass implements :meth:`_mapped`. Where the map is bounded, so are all features.

    Args:
        map: of each feature.
        conditioner: what the parameters come from.
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        moved: how many of the features the map moves.
    """

    def __init__(
        self, map: Map, conditioner: nn.Module, features: int, context: int, *, moved: int
    ) -> None:
        super().__init__(features, context)
        self.map = check_map("map", map)
        if not isinstance(conditioner, nn.Module):
            raise TypeError(
                f"conditioner: expected a torch.nn.Module, got {_checks.describe(conditioner)}"
            )
        self.conditioner = conditioner
        self.moved = moved
        # Asked by every call.
        self._bounded = map.domain is not constraints.real_vector
        self._outputs = moved * map.size

    @property
    def domain(self) -> constraints.Constraint:
        return self.map.domain

    @property
    def codomain(self) -> constraints.Constraint:
        return self.map.domain

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context)
        try:
            if self._bounded:
                return self._inside(x, context, False)
            return self._mapped(x, context, False)
        except ERRORS:
            explain_failure(self, "x", x, context)
            raise

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context)
        try:
            if self._bounded:
                return self._inside(z, context, True)
            return self._mapped(z, context, True)
        except ERRORS:
            explain_failure(self, "z", z, context)
            raise

    def _inside(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        return mapped_inside(lambda x: self._mapped(x, context, inverse), x, self.map.domain)

    def _mapped(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map ``x`` [..., features], or back, with the log-determinant [...]."""
        raise NotImplementedError

    def _chosen(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The parameters that the conditioner makes of ``x``."""
        # A module that takes no context need not have an argument for it.
        found: Tensor = self.conditioner(x, context) if self.context else self.conditioner(x)
        # Quickly, and what looks wrong thoroughly.
        if (
            type(found) is not Tensor
            or not found.dim()
            or found.size(-1) != self._outputs
            or found.dtype != x.dtype
            or found.shape[:-1] != x.shape[:-1]
        ):
            self._check_chosen(found, x)
        return found

    def _check_chosen(self, found: Any, x: Tensor) -> None:
        """Raise unless ``found`` has parameters for x, or for what broadcasts to it."""
        self.map.check_parameters("conditioner", found, self.moved)
        if found.dtype != x.dtype and not under_autocast(x):
            raise TypeError(
                f"conditioner: expected parameters of {x.dtype}, the dtype of what it looks at, "
                f"got {_checks.describe(found)}"
            )
        given, wanted = found.shape[:-1], x.shape[:-1]
        if len(given) > len(wanted) or any(
            g not in (1, w) for g, w in zip(reversed(given), reversed(wanted), strict=False)
        ):
            raise ValueError(
                f"conditioner: expected parameters of shape [..., {self._outputs}] whose leading "
                f"dimensions broadcast to those of what it looks at, {list(wanted)}, got "
                f"{_checks.describe(found)}"
            )


class Coupling(Mapped):
    """A transform that keeps some of the features, and moves the others by maps that these choose.

    Args:
        map: of each feature that moves, such as ``Affine()`` or ``Spline(bins=16)``.
        mask: True for each feature that moves, False for each that stays; a sequence or a tensor
            of bools, of which at least one is True. If those that move are the first ones or the
            last ones, nothing is gathered: the two parts are views of x.
        conditioner: any module that makes parameters [..., moved * map.size] of what stays
            [..., kept], such as a :class:`Conditioner`; the order of the parameters is said in
            :class:`Map`. With a context, it is called with that as a second argument.
        context: size of the context vectors; 0 for none.

    Attributes:
        kept, moved: how many features stay, and how many move.

    Shape: x [..., features] -> (z [..., features], log_det [...]), features being the length of
    ``mask``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803).

    >>> import torch
    >>> from bslfast.flows import Conditioner, Coupling, Spline
    >>> spline = Spline(bins=4)
    >>> network = Conditioner(2, 2 * spline.size, activation="tanh", start=spline.start)
    >>> coupling = Coupling(spline, [True, False, True, False], network)
    >>> x = torch.randn(5, 4)
    >>> z, log_det = coupling(x)
    >>> torch.allclose(z, x, atol=1e-6), log_det.shape
    (True, torch.Size([5]))
    """

    def __init__(
        self,
        map: Map,
        mask: Sequence[bool] | Tensor,
        conditioner: nn.Module,
        *,
        context: int = 0,
    ) -> None:
        moves = _bools("mask", mask)
        super().__init__(map, conditioner, len(moves), context, moved=sum(moves))
        self.kept = self.features - self.moved
        #: Whether the features that move come first.
        self.flip = moves[0] and self.kept > 0
        self.sizes = (self.moved, self.kept) if self.flip else (self.kept, self.moved)
        self.permutation: Permutation | None = None
        if moves != sorted(moves, reverse=self.flip):
            order = sorted(range(len(moves)), key=lambda i: moves[i] != self.flip)
            like = next(conditioner.parameters(), None)
            self.permutation = Permutation(order, device=None if like is None else like.device)
        if type(conditioner) in (Conditioner, MADE):
            assert isinstance(conditioner, Conditioner)
            for name, found, wanted in (
                ("inputs", conditioner.inputs, self.kept),
                ("outputs", conditioner.outputs, self.moved * map.size),
                ("context", conditioner.context, self.context),
            ):
                if found != wanted:
                    raise ValueError(
                        f"conditioner: expected one with {name}={wanted}, for a mask that keeps "
                        f"{self.kept} of {self.features} features, {map!r} and "
                        f"context={self.context}, got {name}={found}"
                    )

    def _mapped(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        if not self.kept:
            return self.map._map(x, self._chosen(x[..., :0], context), inverse)
        if self.permutation is not None:
            x = x.index_select(-1, self.permutation.order)
        # Not slices: the gradient of this is one concatenation.
        first, second = x.split_with_sizes(self.sizes, dim=-1)
        moved, kept = (first, second) if self.flip else (second, first)
        moved, log_det = self.map._map(moved, self._chosen(kept, context), inverse)
        z = torch.cat((moved, kept) if self.flip else (kept, moved), dim=-1)
        if self.permutation is not None:
            z = z.index_select(-1, self.permutation.inverse_order)
        return z, log_det

    def extra_repr(self) -> str:
        return (
            f"features={self.features}, context={self.context}, moved={self.moved}, "
            f"map={self.map!r}"
        )


def _bools(name: str, value: Any) -> list[bool]:
    """A mask as Python has it."""
    if isinstance(value, Tensor) and (value.dtype != torch.bool or not has_values(value)):
        raise TypeError(
            f"{name}: expected bools, a True for each feature that moves, got "
            f"{_checks.describe(value)}"
        )
    found = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(b, bool) for b in found):
        raise TypeError(
            f"{name}: expected a sequence of bools, a True for each feature that moves, got "
            f"{value!r}"
        )
    if not any(found):
        raise ValueError(f"{name}: expected at least one feature that moves, got {value!r}")
    return list(found)
