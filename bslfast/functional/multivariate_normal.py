"""The normal distribution of a vector: reparametrised samples and the KL divergence, fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks, reference
from bslfast._native import multivariate_normal as native
from bslfast._native import serial_after_fork
from bslfast.functional._op import (
    NOTHING,
    ONE_DTYPE,
    Op,
    apply_of,
    common,
    differentiated,
    in_common,
    unwatched,
)
from bslfast.functional._pointwise import PARAMETRIZATIONS


def multivariate_normal_rsample_kl(
    loc: Tensor,
    raw_scale: Tensor,
    lower: Tensor,
    *,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of a normal vector, and its KL divergence from independent normals, in one pass.

    .. math:: x = m + L \epsilon, \quad \epsilon \sim N(0, I), \qquad
              D = \sum_i D_i + \sum_{j < i} \frac{L_{ij}^2}{2 s_0^2}

    L is the strict lower triangle of ``lower``, with the scales on its diagonal, and D_i what
    :func:`normal_kl` is of N(m_i, L_ii) from N(m_0, s_0). The noise is drawn again in backward.

    Args:
        loc: the mean m, [n].
        raw_scale: what the diagonal of L is made from, [n].
        lower: [n, n], of which only the elements below the diagonal count; the gradient of the
            others is 0.
        prior_loc, prior_scale: numbers, m_0 and s_0 > 0 of each element's prior.
        parametrization, sample_shape, seed, stream: as in :func:`normal_rsample`.

    Returns:
        (samples [*sample_shape, n], the divergence in nats, a scalar).

    Raises:
        TypeError, ValueError: as :func:`normal_rsample`; tensors of other shapes; a prior's number
            that is none, or outside its range.

    Source: Opper and Archambeau, "The variational Gaussian approximation revisited" (2009,
    doi:10.1162/neco.2008.08-07-592).

    >>> import torch, bslfast.functional as BF
    >>> loc, raw_scale, lower = torch.zeros(3), torch.zeros(3), torch.full((3, 3), 2.0)
    >>> x, kl = BF.multivariate_normal_rsample_kl(
    ...     loc, raw_scale, lower, parametrization="log_scale", sample_shape=(1000,), seed=0
    ... )
    >>> x.shape, kl, bool((x.var(0) - torch.tensor([1.0, 5.0, 9.0])).abs().max() < 0.7)
    (torch.Size([1000, 3]), tensor(6.), True)
    """
    loc, raw_scale, lower = (
        _checks.operand(name, value)
        for name, value in (("loc", loc), ("raw_scale", raw_scale), ("lower", lower))
    )
    if loc.dim() != 1:
        raise ValueError(f"loc: expected shape [n], got {list(loc.shape)}")
    n = loc.shape[0]
    for name, value, shape in (("raw_scale", raw_scale, (n,)), ("lower", lower, (n, n))):
        _checks.alike(name, value, "loc", loc)
        if value.shape != shape:
            raise ValueError(
                f"{name}: expected shape {list(shape)}, as loc has {n} elements, got "
                f"{list(value.shape)}"
            )
    _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
    result: tuple[Tensor, Tensor] = _rsample_kl(
        *(loc, raw_scale, lower, _checks.seed(seed, loc.device), _checks.stream(stream)),
        _checks.sizes("sample_shape", sample_shape),
        parametrization,
        _checks.number("prior_loc", prior_loc),
        _checks.number("prior_scale", prior_scale, above=0.0),
    )
    return result


def draw_vector(
    loc: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    *,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
    has_value: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """As :func:`multivariate_normal_rsample_kl`, of weights whose means are several tensors.

    Unless ``has_value``, the divergence has its gradient alone: its value is what
    :func:`bslfast._native.multivariate_normal.write_kl` writes there. None if kernels cannot be
    called on these tensors directly.
    """
    tensors = (*loc, raw_scale, lower)
    if not kernels_take(tensors, seed):
        return None
    constants = (
        *(_checks.stream(stream), _checks.sizes("sample_shape", sample_shape)),
        *(parametrization, prior_loc, prior_scale),
    )
    result: tuple[Tensor, Tensor] = _drawn_vector(
        _checks.seed(seed, lower.device), has_value, constants, *tensors
    )
    return result


def kernels_take(tensors: tuple[Tensor, ...], seed: int | Tensor | None) -> bool:
    """Whether kernels can be called on these directly: means, a raw scale and a factor."""
    if not unwatched() or in_common(tensors) < ONE_DTYPE:
        return False
    *locs, raw_scale, lower = tensors
    n = sum([loc.numel() for loc in locs])
    if raw_scale.shape != (n,) or lower.shape != (n, n):
        return False
    return not isinstance(seed, Tensor) or in_common((seed,)) > NOTHING


class _DrawnVector(torch.autograd.Function):
    @staticmethod
    @serial_after_fork
    def forward(
        ctx: Any, seed: Tensor, has_value: bool, constants: tuple[Any, ...], *tensors: Tensor
    ) -> Any:
        ctx.save_for_backward(seed, *tensors)
        ctx.constants = constants
        ctx.set_materialize_grads(False)
        *locs, raw_scale, lower = tensors
        return native.forward(locs, raw_scale, lower, seed, *constants, has_value=has_value)

    @staticmethod
    @serial_after_fork
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        seed, *tensors = ctx.saved_tensors
        needs, constants = ctx.needs_input_grad[3:], ctx.constants
        # create_graph=True, or gradients that kernels cannot read (batched ones, say).
        if torch.is_grad_enabled() or common(grads) == NOTHING:

            def composed(*tensors: Tensor) -> Any:
                return vector_by_ops(tensors, seed, constants)

            return None, None, None, *differentiated(composed, tensors, needs, grads)
        *locs, raw_scale, lower = tensors
        grad_samples, grad_kl = grads
        given = () if grad_samples is None else (grad_samples,)
        call: Any = (given, grad_kl, locs, raw_scale, lower, seed, *constants, needs)
        return None, None, None, *native.backward(*call)


_drawn_vector = apply_of(_DrawnVector)


def vector_by_ops(
    tensors: Sequence[Tensor], seed: Tensor, constants: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    """The same from its parts, for second derivatives."""
    *locs, raw_scale, lower = tensors
    mean = torch.cat([loc.flatten() for loc in locs])
    result: tuple[Tensor, Tensor] = _rsample_kl(mean, raw_scale, lower, seed, *constants)
    return result


def _forward(loc: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return native.forward((loc,), *others)


def _backward(
    grad_sample: Tensor | None, grad_kl: Tensor | None, loc: Tensor, *others: Any
) -> Sequence[Tensor | None]:
    given = () if grad_sample is None else (grad_sample,)
    return native.backward(given, grad_kl, (loc,), *others)


def _fake(
    loc: Tensor,
    raw_scale: Tensor,
    lower: Tensor,
    seed: Tensor,
    stream: int,
    sample_shape: Sequence[int],
    *others: Any,
) -> tuple[Tensor, Tensor]:
    return native.allocate(loc, loc.shape[0], sample_shape)


_rsample_kl = Op(
    "multivariate_normal_rsample_kl(Tensor loc, Tensor raw_scale, Tensor lower, Tensor seed, "
    "int stream, SymInt[] sample_shape, str parametrization, float prior_loc, float prior_scale) "
    "-> (Tensor value, Tensor log)",
    forward=_forward,
    backward=_backward,
    fake=_fake,
    reference=reference.multivariate_normal_rsample_kl,
    rounded=1,
)
