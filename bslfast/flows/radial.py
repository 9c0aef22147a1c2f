"""Radial transforms, which move vectors towards a point or away from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.flows.amortised import Amortised
from bslfast.flows.transform import check_inputs


class Radial(Amortised):
    r"""``z = x + beta (x - x0) / (alpha + |x - x0|)``; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none. A network makes of them what is added
            to the parameters, which is 0 at the start.
        hidden, activation: the widths of that network's hidden layers, and their activation, see
            :class:`Conditioner`.
        device, dtype: of the parameters.

    The inverse is that of a quadratic equation in the distance.

    Shape: x [..., features], context [..., context] -> (z [..., features], log_det [...]).

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
        context: int = 0,
        hidden: Sequence[int] = (),
        activation: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, context)
        options = _checks.factory(device, dtype)
        self.x0 = nn.Parameter(torch.empty(self.features, **options))
        self.raw_alpha = nn.Parameter(torch.empty((), **options))
        self.raw_beta = nn.Parameter(torch.empty((), **options))
        own = self.x0, self.raw_alpha, self.raw_beta
        self._add_network(own, hidden, activation, options)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, with a centre drawn by torch's generator.

        The network of a context has layers, which start again by themselves.
        """
        self.x0.normal_()
        # alpha = softplus(1); z = x where the two are equal.
        self.raw_alpha.fill_(1.0)
        self.raw_beta.fill_(1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        own = self.x0, self.raw_alpha, self.raw_beta
        x = check_inputs(self, "x", x, context, own[0])
        return BF.radial(x, *self._at(context, *own))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context, self.x0)
        own = self._at(context, self.x0, self.raw_alpha, self.raw_beta)
        x0, raw_alpha, raw_beta = own
        zero = z.new_zeros((), dtype=torch.float64)
        alpha = torch.logaddexp(raw_alpha.double(), zero)
        total = torch.logaddexp(raw_beta.double(), zero)  # alpha + beta
        away = z.double() - x0.double()
        rho = torch.linalg.vector_norm(away, dim=-1)
        # The distance r of x solves r^2 + b r - rho alpha = 0: the one formula for b > 0, the other
        # for b < 0, as neither then subtracts like numbers.
        b = total - rho
        root = torch.sqrt(b * b + 4 * rho * alpha)
        positive = b > 0
        down = 2 * rho * alpha / torch.where(positive, b + root, 1.0)
        r = torch.where(positive, down, 0.5 * (root - b))
        shrink = (alpha + r) / (total + r)
        x = (x0 + away * shrink.unsqueeze(-1)).to(z.dtype)
        return x, -BF.radial(x, *own)[1]
