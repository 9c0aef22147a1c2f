"""Ready-made flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bslfast import _checks
from bslfast.flows.coupling import AffineCoupling, SplineCoupling
from bslfast.flows.flow import Flow
from bslfast.flows.transform import Composite


class RealNVP(Flow):
    """Affine couplings that take turns at moving the two halves of the features.

    The identity at the start: the density is standard normal. Cheap, and exact in both directions;
    :class:`NSF` fits most data better. Scale the data first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a map that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of couplings, >= 1; from 2 on every feature moves.
        hidden: widths of the hidden layers of each coupling's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        scale_fn: see :func:`bslfast.functional.affine_coupling`.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.RealNVP(3, context=2)
    >>> flow.log_prob(torch.randn(5, 3), torch.randn(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        scale_fn: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Composite(
                AffineCoupling(
                    features,
                    context=context,
                    hidden=hidden,
                    activation=activation,
                    residual=residual,
                    scale_fn=scale_fn,
                    flip=index % 2 == 1,
                    device=device,
                    dtype=dtype,
                )
                for index in range(_checks.integer("transforms", transforms))
            )
        )


class NSF(Flow):
    """A neural spline flow: spline couplings that take turns at moving the two halves.

    The identity at the start: the density is standard normal. The splines act on
    [-bound, bound]; outside them the density keeps its normal tails. Scale the data first.

    Args:
        features: size of the vectors, >= 1; at 1 each transform is a spline that depends on the
            context alone.
        context: size of the context vectors; 0 for none.
        transforms: number of couplings, >= 1; from 2 on every feature moves.
        hidden: widths of the hidden layers of each coupling's network.
        activation, residual: of these networks, see :class:`Conditioner`.
        bins: number of bins of each spline, >= 2.
        bound: half the length of the interval that the splines act on, > 0.
        autoregressive: False; autoregressive transforms are not available yet.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019).

    >>> import torch, bslfast
    >>> flow = bslfast.flows.NSF(2)
    >>> x, log_prob = flow.rsample_and_log_prob(4, seed=0)
    >>> torch.allclose(log_prob, flow.log_prob(x), atol=1e-5)
    True
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        transforms: int = 5,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        autoregressive: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if autoregressive is not False:
            raise ValueError(
                "autoregressive: expected False, as autoregressive transforms are not available "
                f"yet, got {autoregressive!r}"
            )
        super().__init__(
            Composite(
                SplineCoupling(
                    features,
                    context=context,
                    hidden=hidden,
                    activation=activation,
                    residual=residual,
                    bins=bins,
                    bound=bound,
                    flip=index % 2 == 1,
                    device=device,
                    dtype=dtype,
                )
                for index in range(_checks.integer("transforms", transforms))
            )
        )
