"""Radial transforms, which move vectors towards a point or away from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.flows.transform import Transform, check_inputs


class Radial(Transform):
    r"""``z = x + beta (x - x0) / (alpha + |x - x0|)``; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the parameters.

    The inverse is that of a quadratic equation in the distance.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015,
    arXiv:1505.05770), section 4.1 and appendix A.2.

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
        options = _checks.factory(device, dtype)
        self.x0 = nn.Parameter(torch.empty(self.features, **options))
        self.raw_alpha = nn.Parameter(torch.empty((), **options))
        self.raw_beta = nn.Parameter(torch.empty((), **options))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, with a centre drawn by torch's generator."""
        self.x0.normal_()
        # alpha = softplus(1); z = x where the two are equal.
        self.raw_alpha.fill_(1.0)
        self.raw_beta.fill_(1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x0 = self.x0
        check_inputs(self, "x", x, context, x0)
        return BF.radial(x, x0, self.raw_alpha, self.raw_beta)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context, self.x0)
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
