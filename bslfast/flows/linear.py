"""Learned linear maps: a general matrix by its triangular factors, and an orthogonal one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._precision import wide
from bslfast.flows.transform import Transform, check_inputs, no_log_det


class PLU(nn.Module):
    r"""An invertible matrix W = P L U: its determinant is read off, its inverse solved for.

    P is a fixed permutation, L is lower triangular with ones on its diagonal, U upper triangular
    with a diagonal of fixed signs. One square parameter has it all: L below its diagonal, U above,
    and on it the logarithms of the sizes of U's diagonal, so that no step can make W singular.

    Args:
        size: rows and columns, >= 1.
        seed: None to start from the identity, else from a random rotation, the one that the seed
            stands for; torch's generators are left alone.
        device, dtype: of the parameter.
    """

    order: Tensor
    inverse_order: Tensor
    signs: Tensor

    def __init__(
        self,
        size: int,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.size = _checks.integer("size", size)
        self.seed = None if seed is None else _checks.generator_seed(seed)
        options = _checks.factory(device, dtype)
        self.factors = nn.Parameter(torch.empty(size, size, **options))
        self.register_buffer("signs", torch.empty(size, **options))
        self.register_buffer("order", torch.empty(size, device=device, dtype=torch.int64))
        self.register_buffer("inverse_order", torch.empty(size, device=device, dtype=torch.int64))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, or from the rotation that the seed stands for."""
        # Whatever torch's default device is: there may be no numbers on it.
        on_cpu: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}
        factors = torch.zeros(self.size, self.size, **on_cpu)
        order, signs = torch.arange(self.size, device="cpu"), torch.ones(self.size, **on_cpu)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed)
            normal = torch.randn(self.size, self.size, generator=generator, **on_cpu)
            p, lower, upper = torch.linalg.lu(torch.linalg.qr(normal).Q)
            order = p.argmax(dim=1)
            signs = upper.diagonal().sign()
            scale = upper.diagonal().abs()
            factors = lower.tril(-1) + upper.triu(1) + torch.diag(scale.log())
        self.factors.copy_(factors)
        self.signs.copy_(signs)
        self.order.copy_(order)
        self.inverse_order.copy_(order.argsort())

    def triangles(self) -> tuple[Tensor, Tensor]:
        """Return L and U."""
        diagonal = torch.diag(self.signs * self.factors.diagonal().exp())
        identity = torch.eye(self.size, dtype=self.factors.dtype, device=self.factors.device)
        return self.factors.tril(-1) + identity, self.factors.triu(1) + diagonal

    def matrix(self) -> Tensor:
        """Return W."""
        lower, upper = self.triangles()
        return (lower @ upper).index_select(0, self.order)

    def log_det(self) -> Tensor:
        """Return log |det W|, a number."""
        return wide(self.factors.diagonal()).sum()  # type: ignore[no-any-return]

    def solve(self, columns: Tensor) -> Tensor:
        """Return W^-1 ``columns`` [..., size, n], by substitution."""
        lower, upper = self.triangles()
        solve: Any = torch.linalg.solve_triangular
        permuted = columns.index_select(-2, self.inverse_order)
        result: Tensor = solve(
            upper, solve(lower, permuted, upper=False, unitriangular=True), upper=True
        )
        return result


class PLULinear(Transform):
    r"""``z = W x`` with a learned matrix W = P L U.

    Args:
        features: size of the vectors, >= 1.
        seed: None to start from the identity, else from a random rotation, the one that the seed
            stands for.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039), section 3.2.

    >>> import torch
    >>> from bslfast.flows import PLULinear
    >>> x = torch.tensor([3.0, 4.0])
    >>> z, log_det = PLULinear(2, seed=0)(x)
    >>> z.norm().item(), bool(log_det.abs() < 1e-6)
    (5.0, True)
    """

    def __init__(
        self,
        features: int,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        self.weight = PLU(self.features, seed=seed, device=device, dtype=dtype)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context, self.weight.factors)
        return x @ self.weight.matrix().mT, self.weight.log_det().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context, self.weight.factors)
        rows = z.reshape(-1, self.features)
        x = self.weight.solve(rows.mT).mT.reshape(z.shape)
        return x, (-self.weight.log_det()).expand(z.shape[:-1])

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Householder(Transform):
    r"""``z = H_1 H_2 ... H_K x``, reflections at learned hyperplanes: an orthogonal matrix.

    .. math:: H_k = I - 2 v_k v_k^\top / \|v_k\|^2

    All are applied at once, by three products of matrices: with the unit vectors in the columns of
    V and S the upper triangle of V^T V with 1/2 on its diagonal, the product is I - V S^-1 V^T.

    Args:
        features: size of the vectors, >= 1.
        reflections: K, >= 1; None for ``features``, or one more where that is odd. Features many
            are enough for every orthogonal matrix of one sign of the determinant, which is that of
            (-1)^K. A vector of length 0 reflects nothing.
        device, dtype: of the parameters.

    At the start each two neighbouring reflections are the same, so that an even number of them is
    the identity. The lengths of the vectors v do not matter. A vector of length 0 reflects nothing.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being 0.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Tomczak and Welling, "Improving variational auto-encoders using Householder flow" (2016,
    arXiv:1611.09630); Joffrain et al., "Accumulating Householder transformations, revisited" (2006,
    doi:10.1145/1141885.1141886).

    >>> import torch
    >>> from bslfast.flows import Householder
    >>> z, log_det = Householder(2, reflections=1)(torch.tensor([3.0, 4.0]))
    >>> z.detach(), log_det
    (tensor([-3.,  4.]), tensor(0.))
    """

    def __init__(
        self,
        features: int,
        *,
        reflections: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        if reflections is None:
            reflections = features + features % 2
        self.reflections = _checks.integer("reflections", reflections)
        options = _checks.factory(device, dtype)
        self.vectors = nn.Parameter(torch.empty(self.reflections, self.features, **options))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set every two neighbouring vectors to the same axis."""
        axes = torch.arange(self.reflections, device="cpu") // 2 % self.features
        self.vectors.copy_(torch.eye(self.features, device="cpu")[axes])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context, self.vectors)
        return self._reflect(x, transposed=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context, self.vectors)
        return self._reflect(z, transposed=True)

    def matrix(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the product of the reflections, computed in ``dtype``."""
        dtype = self.vectors.dtype if dtype is None else dtype
        identity = torch.eye(self.features, dtype=dtype, device=self.vectors.device)
        return self._reflect(identity, transposed=True)[0]

    def _reflect(self, x: Tensor, transposed: bool) -> tuple[Tensor, Tensor]:
        v = _directions(self.vectors.to(x.dtype))
        half = torch.eye(self.reflections, dtype=v.dtype, device=v.device) / 2
        s = torch.triu(v @ v.mT, 1) + half
        solve: Any = torch.linalg.solve_triangular
        # Rows: x (I - V S^-1 V^T)^T = x - (x V) S^-T V^T.
        right = solve(s, v, upper=True) if transposed else solve(s.mT, v, upper=False)
        return x - (x @ v.mT) @ right, no_log_det(x)

    def extra_repr(self) -> str:
        return f"features={self.features}, reflections={self.reflections}"


def _directions(vectors: Tensor) -> Tensor:
    """Rows of length 1 along those of ``vectors``; 0 along 0."""
    # Divided by the largest number first, as squares may overflow or vanish. No gradient goes
    # through it: the direction does not depend on it.
    largest = vectors.detach().abs().amax(dim=1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, 1.0)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(largest > 0, length, 1.0)
