"""Planar transforms, which move vectors along one direction, and the equation that inverts them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast._formulas import planar_direction
from bslfast.flows.amortised import Amortised
from bslfast.flows.transform import check_inputs


class Planar(Amortised):
    r"""``z = x + v tanh(w x + b)``; the identity at the start.

    Forward is one pass. The inverse is one equation in one unknown for each vector, solved by
    Newton's method to float64 precision; its gradients are those of the solution.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none. A network makes of them what is added
            to the parameters, which is 0 at the start.
        hidden, activation: the widths of that network's hidden layers, and their activation, see
            :class:`Conditioner`.
        device, dtype: of the parameters.

    Shape: x [..., features], context [..., context] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015,
    arXiv:1505.05770), section 4.1 and appendix A.1.

    >>> import torch
    >>> from bslfast.flows import Planar
    >>> planar, x = Planar(2), torch.randn(4, 2)
    >>> z, log_det = planar(x)
    >>> torch.allclose(planar.inverse(z)[0], x, atol=1e-5), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (),
        activation: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, context)
        options = _checks.factory(device, dtype)
        self.u = nn.Parameter(torch.empty(self.features, **options))
        self.w = nn.Parameter(torch.empty(self.features, **options))
        self.b = nn.Parameter(torch.empty((), **options))
        self._add_network((self.u, self.w, self.b), hidden, activation, options)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, with a plane drawn by torch's generator.

        The network of a context has layers, which start again by themselves.
        """
        self.w.normal_().div_(math.sqrt(self.features))
        # The product of u and w at which v vanishes: its softplus is 1.
        still = math.log(math.e - 1)
        self.u.copy_(still * self.w / (self.w @ self.w))
        self.b.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        own = self.u, self.w, self.b
        x = check_inputs(self, "x", x, context, own[0])
        return BF.planar(x, *self._at(context, *own))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context, self.u)
        own = self._at(context, self.u, self.w, self.b)
        u, w, b = (parameter.double() for parameter in own)
        # 0 where its square is for the map itself; with the gradient of w.
        none = (w * w).sum(dim=-1, keepdim=True).to(self.w.dtype) == 0
        w = torch.where(none, w - w.detach(), w)
        direction, _, det = planar_direction(u, w)
        # With a = w x + b, which all else follows from: w z + b = a + (det - 1) tanh(a).
        a = solve_tanh((z.double() * w).sum(dim=-1) + b, det)
        x = (z - torch.tanh(a).unsqueeze(-1) * direction).to(z.dtype)
        return x, -BF.planar(x, *own)[1]


def solve_tanh(c: Tensor, det: Tensor) -> Tensor:
    """Return the a for which ``a + (det - 1) tanh(a) = c``, for det > 0; twice differentiable.

    Newton's method, in the dtype of ``c``: no step looks at numbers, so that torch.compile and
    torch.func take it.
    """
    with torch.no_grad():
        # On either side of 0 the function is concave or convex, so that steps do not swing. From
        # this start they are as near as rounding allows after 7, for det from 1e-30 to 1e7: 5 here
        # and 2 below.
        a = torch.copysign(_first_guess(c.abs(), det), c)
        for _ in range(5):
            a = _newton(a, c, det)
        a = torch.where(c == 0, c, a)
    # From the solution, a step of Newton's moves as the solution does, to first order in what it
    # depends on; the second step, to third order.
    for _ in range(2):
        a = _newton(a, c, det)
    return a


def _newton(a: Tensor, c: Tensor, det: Tensor) -> Tensor:
    t = torch.tanh(a)
    return a - (_less_tanh(a, t) + det * t - c) / (t * t + det * (1 - t * t))


def _less_tanh(a: Tensor, t: Tensor) -> Tensor:
    """``a - t`` for t = tanh(a), by a continued fraction where the two are alike."""
    near = a.abs() < 0.7
    # where() twice: the branch not taken must not send NaN into the gradient.
    square = torch.where(near, a * a, 0.0)
    rest = 11 + square / (13 + square / 15)
    rest = 3 + square / (5 + square / (7 + square / (9 + square / rest)))
    return torch.where(near, a * square / (rest + square), a - t)


def _first_guess(c: Tensor, det: Tensor) -> Tensor:
    """A bound of the solution for c >= 0, near it."""
    m = det - 1
    # m > 0: from below, as tanh(a) <= 1 and tanh(a) <= a. Where tanh is nearly 1, twice
    # tanh(a) = (c - a) / m, which makes of a lower bound an upper one, and the other way round.
    above = torch.where(m > 0, m, 1.0)
    last = 1 - torch.finfo(c.dtype).eps / 2
    low = torch.maximum(c - m, c / det)
    high = torch.atanh(((c - low) / above).clamp(0, last))
    low = torch.maximum(low, torch.atanh(((c - high) / above).clamp(0, last)))
    # m < 0: the solution of det a - m a^3 / 3 = c, as tanh(a) >= a - a^3 / 3. Cardano's formula,
    # which is NaN where m is next to 0, and a next to c.
    k = (-m / 3).clamp(min=torch.finfo(c.dtype).tiny)
    p, q = det / (3 * k), c / (2 * k)
    u = torch.pow(q + torch.sqrt(q * q + p * p * p), 1 / 3)
    cubic = 2 * q / (u * u + p + (p / u).square())
    return torch.where(m > 0, low, torch.minimum(torch.fmax(cubic, c), c - m))
