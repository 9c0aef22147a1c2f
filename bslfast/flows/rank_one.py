"""Planar and radial transforms: each moves vectors along one direction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import functional as BF
from bslfast.flows.transform import Transform, check_inputs
from bslfast.reference.rank_one import planar_direction


class Planar(Transform):
    r"""``z = x + v tanh(w x + b)``; the identity at the start.

    Forward is one pass. The inverse is one equation in one unknown for each vector, solved by
    Newton's method between bounds that always hold, to float64 precision; its gradients are those
    of the solution.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015), section 4.1
    and appendix A.1.

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        w = torch.randn(self.features, **options) / math.sqrt(self.features)
        # Of the product of u and w that makes v vanish: softplus(it) = 1.
        still = math.log(math.e - 1)
        self.u = nn.Parameter(still * w / (w @ w))
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(torch.zeros((), **options))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return BF.planar(x, self.u, self.w, self.b)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        u, w, b = self.u.double(), self.w.double(), self.b.double()
        direction, m, det = planar_direction(u, w)
        # With a = w x + b, which all else follows from: w z + b = a + m tanh(a).
        a = solve_tanh(z.double() @ w + b, m, det)
        x = (z - torch.tanh(a).unsqueeze(-1) * direction).to(z.dtype)
        return x, -BF.planar(x, self.u, self.w, self.b)[1]

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Radial(Transform):
    r"""``z = x + beta (x - x0) / (alpha + |x - x0|)``; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the parameters.

    The inverse is that of a quadratic equation in the distance.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015), section 4.1
    and appendix A.2.

    >>> import torch
    >>> from bslfast.flows import Radial
    >>> radial, x = Radial(2), torch.randn(4, 2)
    >>> z, log_det = radial(x)
    >>> torch.allclose(radial.inverse(z)[0], x, atol=1e-5), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(
        self,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.x0 = nn.Parameter(torch.randn(self.features, **options))
        # alpha = softplus(1); z = x where the two are equal.
        self.raw_alpha = nn.Parameter(torch.ones((), **options))
        self.raw_beta = nn.Parameter(torch.ones((), **options))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return BF.radial(x, self.x0, self.raw_alpha, self.raw_beta)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        zero = z.new_zeros((), dtype=torch.float64)
        alpha = torch.logaddexp(self.raw_alpha.double(), zero)
        total = torch.logaddexp(self.raw_beta.double(), zero)  # alpha + beta
        away = z.double() - self.x0.double()
        rho = torch.linalg.vector_norm(away, dim=-1)
        # The distance r of x solves r^2 + b r - rho alpha = 0: the one formula for b > 0, the other
        # for b < 0, as neither then subtracts like numbers.
        b = total - rho
        root = torch.sqrt(b * b + 4 * rho * alpha)
        positive = b > 0
        down = 2 * rho * alpha / torch.where(positive, b + root, 1.0)
        r = torch.where(positive, down, 0.5 * (root - b))
        shrink = (alpha + r) / (total + r)
        x = (self.x0 + away * shrink.unsqueeze(-1)).to(z.dtype)
        return x, -BF.radial(x, self.x0, self.raw_alpha, self.raw_beta)[1]

    def extra_repr(self) -> str:
        return f"features={self.features}"


def solve_tanh(c: Tensor, m: Tensor, det: Tensor) -> Tensor:
    """Return the a for which ``a + m tanh(a) = c``, with ``det`` = 1 + m > 0; twice differentiable.

    Newton's steps, or bisection where they leave the bounds; in the dtype of ``c``.
    """
    with torch.no_grad():
        # The solution has the sign of c, and tanh lies between -1 and 1.
        low, high = c - m.abs(), c + m.abs()
        low, high = torch.where(c > 0, low.clamp(min=0), low), high
        high = torch.where(c < 0, high.clamp(max=0), high)
        a = 0.5 * (low + high)
        for _ in range(100):
            t = torch.tanh(a)
            error = a + m * t - c
            low, high = torch.where(error < 0, a, low), torch.where(error > 0, a, high)
            step = a - error / (t * t + det * (1 - t * t))
            step = torch.where((step > low) & (step < high), step, 0.5 * (low + high))
            # 4 eps; and NaN has no solution to wait for.
            settled = (step - a).abs() <= 1e-15 * a.abs()
            a = torch.where(error == 0, a, step)
            if bool((settled | (error == 0) | error.isnan()).all()):
                break
    # From the solution, a step of Newton's moves as the solution does, to first order in what it
    # depends on; the second step, to third order.
    for _ in range(2):
        t = torch.tanh(a)
        a = a - (a + m * t - c) / (t * t + det * (1 - t * t))
    return a
