"""Transforms in which each feature is moved by a map that the features before it choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast.flows.conditioners import MADE
from bslfast.flows.coupling import Mapped
from bslfast.flows.maps import Map, check_map
from bslfast.flows.transform import check_order
from bslfast.nn.estimators import one_draw
from bslfast.nn.module import BayesianModule


class Autoregressive(Mapped):
    r"""A transform that moves every feature by a map that the features before it choose.

    .. math:: z_i = m(x_i;\, \theta_i(x_{<i})), \qquad
              \log\det = \sum_i \log m'(x_i;\, \theta_i(x_{<i}))

    where < is the conditioner's order. Forward is one pass; :class:`Inverse` turns it around, for
    samples in one pass. The inverse is exact: it finds one feature after the other, by the map's
    own inverse, and costs a call of the map for each feature, and one pass through a
    :class:`MADE`. Its gradients are those of all these steps.

    Args:
        map: of each feature, such as ``Affine()`` or ``Spline(bins=16)``.
        conditioner: a :class:`MADE` for this map; or any module that makes parameters
            [..., features * map.size] of x [..., features], those of a feature from the features
            before it alone, in the order that its attribute ``order`` has: each of
            0 ... features - 1 once. If it has an attribute ``context`` other than 0, it is called
            with a context [..., context] as a second argument. One that is no MADE is called once
            for each feature in the inverse, as is a MADE with hooks or with layers of others.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma et al., "Improved variational inference with inverse autoregressive flow" (2016,
    arXiv:1606.04934); Papamakarios, Pavlakou and Murray, "Masked autoregressive flow for density
    estimation" (2017, arXiv:1705.07057); with deep sigmoidal maps: Huang, Krueger, Lacoste and
    Courville, "Neural autoregressive flows" (2018, arXiv:1804.00779).

    >>> import torch
    >>> from bslfast.flows import MADE, Autoregressive, DeepSigmoidal
    >>> sigmoids = DeepSigmoidal(components=4)
    >>> transform = Autoregressive(sigmoids, MADE(3, sigmoids, context=2, residual=1))
    >>> x, context = torch.randn(5, 3), torch.randn(5, 2)
    >>> z, log_det = transform(x, context)
    >>> torch.allclose(transform.inverse(z, context)[0], x, atol=1e-5), log_det.shape
    (True, torch.Size([5]))
    """

    def __init__(self, map: Map, conditioner: nn.Module) -> None:
        check_map("map", map)
        order: Any = getattr(conditioner, "order", None)
        if order is None:
            raise TypeError(
                "conditioner: expected a module with an attribute 'order', such as a "
                f"bslfast.flows.MADE, got {_checks.describe(conditioner)}"
            )
        order = check_order("conditioner.order", order)
        context = _checks.integer("conditioner.context", getattr(conditioner, "context", 0), 0)
        super().__init__(map, conditioner, len(order), context, moved=len(order))
        self.order = order
        if isinstance(conditioner, MADE) and conditioner.map != map:
            raise ValueError(
                f"conditioner: expected one for the parameters of {map!r}, got one for those of "
                f"{conditioner.map!r}"
            )

    def _mapped(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        if not inverse:
            return self.map._map(x, self._chosen(x, context), False)
        columns = list(x.split(1, dim=-1))
        log_dets: list[Tensor] = []

        def solve(feature: int, parameters: Tensor) -> Tensor:
            column, log_det = self.map._map(columns[feature], parameters, True)
            columns[feature] = column
            log_dets.append(log_det)
            return column

        if any(isinstance(module, BayesianModule) for module in self.conditioner.modules()):
            with one_draw(self.conditioner):
                self._in_order(solve, x, context)
        elif isinstance(self.conditioner, MADE) and self.conditioner.runs_in_order():
            self.conditioner.in_order(solve, x, context)
        else:
            self._in_order(solve, x, context)
        return torch.cat(columns, dim=-1), torch.stack(log_dets).sum(dim=0)

    def _in_order(
        self, solve: Callable[[int, Tensor], Tensor], like: Tensor, context: Tensor | None
    ) -> None:
        """What :meth:`MADE.in_order` does, by a call of the conditioner for each feature."""
        columns = list(torch.zeros_like(like).split(1, dim=-1))
        owners = self.map.owners(self.features)
        for feature in self.order:
            parameters = self._chosen(torch.cat(columns, dim=-1), context)
            own = [index for index, owner in enumerate(owners) if owner == feature]
            columns[feature] = solve(feature, parameters[..., own])

    def extra_repr(self) -> str:
        return f"features={self.features}, context={self.context}, map={self.map!r}"
