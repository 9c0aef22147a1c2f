"""Sylvester transforms: several planes at once, whose determinants still are products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._formulas import log_near_one
from bslfast._precision import log_dtype, wide
from bslfast.flows.amortised import Amortised
from bslfast.flows.linear import Householder
from bslfast.flows.planar import solve_tanh
from bslfast.flows.transform import check_inputs


class Sylvester(Amortised):
    r"""``z = x + Q R tanh(S Q^T x + b)``; the identity at the start.

    .. math:: \log\det = \sum_m \log(1 + r_{mm} s_{mm} (1 - \tanh^2 a_m)),
              \quad a = S Q^\top x + b

    Q has orthonormal columns, made of Householder reflections; R and S are upper triangular. The
    diagonal of S is positive and that of R such that r s = softplus(a parameter) - 1 > -1: every
    map is invertible, and every product above -1 is there. The inverse solves for the a one by
    one, from the last.

    Args:
        features: size of the vectors, >= 1.
        rank: number of columns of Q, 1 to ``features``; None for ``features``. Each takes one
            equation in one unknown in the inverse.
        context: size of the context vectors; 0 for none. A network makes of them what is added
            to R, S and b, which is 0 at the start. Q is the same for all.
        hidden, activation: the widths of that network's hidden layers, and their activation, see
            :class:`Conditioner`.
        device, dtype: of the parameters.

    Shape: x [..., features], context [..., context] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: van den Berg, Hasenclever, Tomczak and Welling, "Sylvester normalizing flows for
    variational inference" (2018, arXiv:1803.05649).

    >>> import torch
    >>> from bslfast.flows import Sylvester
    >>> sylvester, x = Sylvester(4, rank=2), torch.randn(5, 4)
    >>> z, log_det = sylvester(x)
    >>> torch.allclose(sylvester.inverse(z)[0], x, atol=1e-5), log_det.shape
    (True, torch.Size([5]))
    """

    def __init__(
        self,
        features: int,
        *,
        rank: int | None = None,
        context: int = 0,
        hidden: Sequence[int] = (),
        activation: str = "relu",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, context)
        self.rank = self.features if rank is None else _checks.integer("rank", rank)
        if self.rank > self.features:
            raise ValueError(f"rank: expected at most features, {self.features}, got {rank}")
        options = _checks.factory(device, dtype)
        self.rotation = Householder(self.features, **options)
        # Above the diagonal: R and S themselves. On it: of r s its softplus, of s its logarithm.
        self.r = nn.Parameter(torch.empty(self.rank, self.rank, **options))
        self.s = nn.Parameter(torch.empty(self.rank, self.rank, **options))
        self.b = nn.Parameter(torch.empty(self.rank, **options))
        self._add_network((self.r, self.s, self.b), hidden, activation, options)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity.

        The network of a context has layers, which start again by themselves.
        """
        self.r.zero_().diagonal().fill_(math.log(math.e - 1))  # softplus(it) = 1
        self.s.zero_()
        self.b.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context, self.b)
        q, r, s, b, soft = self._matrices(x.dtype, context)
        t = torch.tanh(_times(s, x @ q) + b)
        return x + _times(r, t) @ q.mT, _log_det(t, soft)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context, self.b)
        q, r, s, b, soft = self._matrices(torch.float64, context)
        # With t = tanh(a), S Q^T z + b = a + S R t, and S R is triangular.
        known = _times(s, z.double() @ q) + b
        coupled = s @ r
        tanhs: list[Tensor] = []
        for m in reversed(range(self.rank)):
            c = known[..., m]
            if tanhs:
                c = c - (torch.stack(tanhs, dim=-1) * coupled[..., m, m + 1 :]).sum(dim=-1)
            tanhs.insert(0, torch.tanh(solve_tanh(c, soft[..., m])))
        t = torch.stack(tanhs, dim=-1)
        x = z - _times(r, t) @ q.mT
        return x.to(z.dtype), -_log_det(t, soft).to(log_dtype(z.dtype))

    def _matrices(
        self, dtype: torch.dtype, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Q, R, S and b, and 1 + r s of the diagonals."""
        q = self.rotation.matrix(dtype)[:, : self.rank]
        own = self._at(context, self.r, self.s, self.b)
        own_r, own_s, b = (parameter.to(dtype) for parameter in own)
        scale = own_s.diagonal(dim1=-2, dim2=-1).exp()
        soft = torch.logaddexp(own_r.diagonal(dim1=-2, dim2=-1), own_r.new_zeros(()))
        r = own_r.triu(1) + torch.diag_embed((soft - 1) / scale)
        return q, r, own_s.triu(1) + torch.diag_embed(scale), b, soft

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}"


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    """Products of matrices [..., n, n] with vectors [..., n]."""
    if matrix.dim() == 2:
        return x @ matrix.mT
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def _log_det(t: Tensor, soft: Tensor) -> Tensor:
    t, soft = wide(t), wide(soft)
    slope = 1 - t * t
    return log_near_one((soft - 1) * slope, t * t + soft * slope).sum(dim=-1)
