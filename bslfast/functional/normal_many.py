"""Samples and divergences of all normal tensors of a model, in one pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._native import normal_many as native
from bslfast._native import serial_after_fork
from bslfast._native._operands import PARAMETRIZATIONS as _NUMBERED
from bslfast.functional._op import (
    HAS_CUDA,
    ONE_DTYPE,
    ONE_SHAPE,
    apply_of,
    differentiated,
    in_common,
    runs_eagerly,
    unwatched,
)
from bslfast.functional.normal import PARAMETRIZATIONS, normal_kl, normal_rsample


def normal_rsample_kl_many(
    loc: Sequence[Tensor],
    raw_scale: Sequence[Tensor],
    *,
    prior_loc: float | Sequence[float] = 0.0,
    prior_scale: float | Sequence[float] = 1.0,
    parametrization: str = "softplus",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[tuple[Tensor, ...], Tensor]:
    r"""Samples of many normal tensors and the sum of their KL divergences from their priors.

    Tensor number i is drawn as ``normal_rsample_kl(loc[i], raw_scale[i], seed=seed, stream=stream +
    i)`` draws it, on the CPU to the bit. In eager mode all are one node of the graph, and on a CUDA
    device one launch for every 48 tensors: a model's weights cost what their number does, not that
    of its layers.

    Args:
        loc, raw_scale: lists of the tensors' parameters, [i] of one shape; all of one dtype and
            device. At least one.
        prior_loc, prior_scale: numbers, of the normal prior of every element: one for all tensors,
            or one for each. Scales > 0.
        parametrization, seed: as in :func:`bslfast.functional.normal_rsample`.
        stream: that of the first tensor; each has the next.

    Returns:
        (samples, one for each tensor and of its shape; the sum of all divergences in nats).

    Raises:
        TypeError, ValueError: as :func:`bslfast.functional.normal_rsample`; sequences of different
            lengths, or empty.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424), with
    the closed form.

    >>> import torch, bslfast.functional as BF
    >>> shapes = ((4, 3), (4,))
    >>> loc, raw_scale = ([torch.zeros(s) for s in shapes] for _ in range(2))
    >>> (weight, bias), kl = BF.normal_rsample_kl_many(loc, raw_scale, seed=0)
    >>> weight.shape, bias.shape, kl.shape
    (torch.Size([4, 3]), torch.Size([4]), torch.Size([]))
    """
    samples, kl = _many(
        loc, raw_scale, prior_loc, prior_scale, parametrization, seed, stream, has_value=True
    )
    assert kl is not None
    return samples, kl


def draw_many(
    loc: Sequence[Tensor],
    raw_scale: Sequence[Tensor],
    *,
    prior_loc: float | Sequence[float] = 0.0,
    prior_scale: float | Sequence[float] = 1.0,
    parametrization: str = "softplus",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """As :func:`normal_rsample_kl_many`, but the divergence has its gradient alone.

    Its value is what :func:`bslfast._native.normal_many.write_kl` writes there. None where there is
    nothing to write to, as in a compiled graph.
    """
    return _many(
        loc, raw_scale, prior_loc, prior_scale, parametrization, seed, stream, has_value=False
    )


def draw_checked(
    tensors: tuple[Tensor, ...], constants: tuple[Any, ...], seed: int | Tensor | None
) -> tuple[tuple[Tensor, ...], Tensor] | None:
    """:func:`draw_many` of tensors and constants as :func:`_many` makes them, for plain tensors.

    None, before a seed is drawn, if torch has to look at the call, or tensors are not of one dtype,
    or a loc and its raw scale not of one shape.
    """
    if not unwatched() or in_common(tensors) < ONE_DTYPE:
        return None
    n = len(tensors) // 2
    for pair in zip(tensors[:n], tensors[n:], strict=True):
        if in_common(pair) != ONE_SHAPE:
            return None
    if isinstance(seed, Tensor) and not in_common((seed,)):
        return None
    *samples, kl = _apply()(_checks.seed(seed, tensors[0].device), False, constants, *tensors)
    return tuple(samples), kl


def _many(
    loc: Sequence[Tensor],
    raw_scale: Sequence[Tensor],
    prior_loc: float | Sequence[float],
    prior_scale: float | Sequence[float],
    parametrization: str,
    seed: int | Tensor | None,
    stream: int,
    *,
    has_value: bool,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    locs, raw_scales = _tensors("loc", loc), _tensors("raw_scale", raw_scale)
    if len(raw_scales) != len(locs):
        raise ValueError(
            f"raw_scale: expected {len(locs)} tensors, as of loc, got {len(raw_scales)}"
        )
    first = locs[0]
    for i, (one, raw) in enumerate(zip(locs, raw_scales, strict=True)):
        _checks.alike(f"loc[{i}]", one, "loc[0]", first)
        _checks.alike(f"raw_scale[{i}]", raw, "loc[0]", first)
        if raw.shape != one.shape:
            raise ValueError(
                f"raw_scale[{i}]: expected shape {list(one.shape)}, that of loc[{i}], got "
                f"{list(raw.shape)}"
            )
    _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
    constants = (
        _numbers("prior_loc", prior_loc, len(locs)),
        _numbers("prior_scale", prior_scale, len(locs), above=0.0),
        _checks.stream(stream),
        parametrization,
    )
    drawn_from = _checks.seed(seed, first.device)
    tensors = (*locs, *raw_scales)
    if runs_eagerly((drawn_from, *tensors), on_cuda=HAS_CUDA):
        *samples, kl = _apply()(drawn_from, has_value, constants, *tensors)
        return tuple(samples), kl
    composed, kl = _composed(drawn_from, constants, tensors)
    return composed, kl if has_value else None


def _tensors(name: str, values: Any) -> list[Tensor]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name}: expected a list of tensors, got {type(values).__name__}")
    if not values:
        raise ValueError(f"{name}: expected at least one tensor, got none")
    return [_checks.operand(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _numbers(name: str, value: Any, n: int, **limits: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        return (_checks.number(name, value, **limits),) * n
    if len(value) != n:
        raise ValueError(f"{name}: expected a number or {n} of them, as of loc, got {len(value)}")
    return tuple(_checks.number(f"{name}[{i}]", v, **limits) for i, v in enumerate(value))


def _composed(
    seed: Tensor, constants: tuple[Any, ...], tensors: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The same tensor by tensor: for torch.compile, torch.func and second derivatives.

    Sample and divergence apart, as a compiled model may leave one of them out.
    """
    prior_locs, prior_scales, stream, parametrization = constants
    n = len(tensors) // 2
    samples, divergences = [], []
    for i, (loc, raw_scale) in enumerate(zip(tensors[:n], tensors[n:], strict=True)):
        samples.append(
            normal_rsample(
                loc, raw_scale, parametrization=parametrization, seed=seed, stream=stream + i
            )
        )
        divergences.append(
            normal_kl(
                loc, raw_scale, prior_locs[i], prior_scales[i], parametrization=parametrization
            )
        )
    # Added in float64, however they are stored.
    kl = torch.stack(divergences).sum(dtype=torch.float64).to(divergences[0].dtype)
    return tuple(samples), kl


@functools.cache
def _apply() -> Callable[..., Any]:
    return apply_of(_NormalMany)


class _NormalMany(torch.autograd.Function):
    @staticmethod
    @serial_after_fork
    def forward(
        ctx: Any, seed: Tensor, has_value: bool, constants: tuple[Any, ...], *tensors: Tensor
    ) -> Any:
        ctx.save_for_backward(seed, *tensors)
        ctx.constants = constants
        #: What backward calls, as hooks of the node would be called.
        ctx.when_spent = None
        ctx.set_materialize_grads(False)
        prior_locs, prior_scales, stream, parametrization = constants
        code = _NUMBERED[parametrization]
        call = native.Call(code, tensors, prior_locs, prior_scales, seed, stream)
        samples, kl = native.forward(call, has_value)
        return *samples, kl

    @staticmethod
    @serial_after_fork
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if ctx.when_spent is not None:
            ctx.when_spent()
        seed, *tensors = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        # create_graph=True, or gradients that kernels cannot read (batched ones, say).
        given = [g for g in grads if g is not None]
        if torch.is_grad_enabled() or not runs_eagerly(given, on_cuda=HAS_CUDA):
            constants = ctx.constants

            def composed(*tensors: Tensor) -> Any:
                samples, kl = _composed(seed, constants, tensors)
                return *samples, kl

            return None, None, None, *differentiated(composed, tensors, needs, grads)
        if not given:
            return (None,) * (3 + len(tensors))
        prior_locs, prior_scales, stream, parametrization = ctx.constants
        *grad_samples, grad_kl = grads
        code = _NUMBERED[parametrization]
        call = native.Call(code, tuple(tensors), prior_locs, prior_scales, seed, stream)
        return None, None, None, *native.backward(grad_samples, grad_kl, call, needs)
