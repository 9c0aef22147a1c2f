"""The normal distribution: reparametrised samples and the KL divergence, fused."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._native import READS_TENSORS, _cpu, cuda
from bslfast._native._operands import unbroadcast
from bslfast._native.pointwise import wasted
from bslfast._precision import SIXTEEN_BITS, in_float32
from bslfast.functional._op import ONE_DTYPE, apply_of, common, differentiated
from bslfast.functional._pointwise import PARAMETRIZATIONS as PARAMETRIZATIONS
from bslfast.functional._pointwise import PointwiseOp, location_scale_op, number, parameter


def normal_rsample(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Reparametrised samples of normal distributions: ``loc + scale * eps``, eps ~ N(0, 1).

    The noise is drawn inside the kernel and drawn again in backward: nothing but the arguments and
    the seed is kept.

    Args:
        loc: means, any shape.
        raw_scale: what the standard deviation is made from; broadcasts with ``loc``.
        parametrization: ``"softplus"`` scale = log(1 + exp(raw)), ``"scale"`` scale = raw (>= 0),
            ``"log_scale"`` scale = exp(raw), ``"log_var"`` scale = exp(raw / 2).
        sample_shape: shape of independent samples to draw, in front of the parameters' shape.
        seed: an int, an int64 tensor of one element on the device of ``loc``, or None to draw one
            from torch's generator. The noise is a function of (seed, stream, element index) alone.
        stream: number of an independent noise sequence under the same seed, >= 0. Two calls that
            are given the same seed and stream share their noise, also calls of two ops: a Laplace
            and a logistic sample are then functions of the same uniforms, and rise together. Give
            each a stream of its own, or None as the seed.

    Returns:
        Samples of shape ``[*sample_shape, *broadcast(loc, raw_scale)]``.

    Raises:
        TypeError: an argument is not a floating-point tensor, or dtypes differ.
        ValueError: shapes do not broadcast, devices differ, an unknown parametrization, or a
            negative scale (that in eager mode on the CPU; elsewhere the result is NaN).

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114); noise by
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011,
    doi:10.1145/2063384.2063405).

    >>> import math, torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(2, requires_grad=True), torch.zeros(2)
    >>> x = BF.normal_rsample(loc, raw_scale, sample_shape=(1000,), seed=0)
    >>> x.shape, bool((x.std(dim=0) - math.log(2)).abs().max() < 0.05)
    (torch.Size([1000, 2]), True)
    """
    sample: Tensor = _rsample(
        loc,
        raw_scale,
        parametrization=parametrization,
        sample_shape=sample_shape,
        seed=seed,
        stream=stream,
    )
    return sample


def normal_kl(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    *,
    parametrization: str = "softplus",
    reduction: str = "sum",
) -> Tensor:
    r"""KL divergence from N(prior_loc, prior_scale) to N(loc, scale), in nats.

    .. math:: \log\frac{s_0}{s} + \frac{s^2 + (m - m_0)^2}{2 s_0^2} - \frac12

    Args:
        loc, raw_scale, parametrization: as in :func:`normal_rsample`.
        prior_loc: number or tensor that broadcasts with the others.
        prior_scale: standard deviation, > 0; number or tensor.
        reduction: ``"none"`` one value per element, ``"row"`` sums over the last dimension,
            ``"sum"`` one sum. Never an average.

    Returns:
        The divergence: the shape that the four arguments broadcast to, less what is summed.

    Raises:
        TypeError, ValueError: as :func:`normal_rsample`; a prior_scale that is not positive.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    exercise 1.30.

    >>> import torch, bslfast.functional as BF
    >>> BF.normal_kl(torch.ones(3), torch.zeros(3), parametrization="log_scale")
    tensor(1.5000)
    """
    options = {"parametrization": parametrization, "reduction": reduction}
    kl: Tensor = _with_prior(_KL, loc, raw_scale, prior_loc, prior_scale, **options)
    return kl


def normal_rsample_kl(
    loc: Tensor,
    raw_scale: Tensor,
    *,
    prior_loc: Tensor | float = 0.0,
    prior_scale: Tensor | float = 1.0,
    parametrization: str = "softplus",
    sample_shape: Sequence[int] = (),
    reduction: str = "sum",
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Samples of :func:`normal_rsample` and the divergence of :func:`normal_kl` in one pass.

    Args:
        loc, raw_scale, parametrization, sample_shape, seed, stream: as in :func:`normal_rsample`.
        prior_loc, prior_scale, reduction: as in :func:`normal_kl`; a prior's shape must broadcast
            to that of the parameters.

    Returns:
        (sample, kl). The KL is that of the parameters, once, whatever ``sample_shape``.

    Raises:
        TypeError, ValueError: as :func:`normal_rsample` and :func:`normal_kl`.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424), with
    the closed form.

    >>> import torch, bslfast.functional as BF
    >>> weight, kl = BF.normal_rsample_kl(torch.zeros(4, 3), torch.full((4, 3), -3.0), seed=0)
    >>> weight.shape, kl
    (torch.Size([4, 3]), tensor(30.3069))
    """
    if isinstance(prior_loc, Tensor):
        _check_not_wider("prior_loc", prior_loc, loc, raw_scale)
    if isinstance(prior_scale, Tensor):
        _check_not_wider("prior_scale", prior_scale, loc, raw_scale)
    given = (loc, raw_scale, prior_loc, prior_scale)
    sizes: tuple[int, ...] = ()
    if type(sample_shape) is not tuple or sample_shape:
        sizes = _checks.sizes("sample_shape", sample_shape)
    drawn: dict[str, Any] = {"seed": seed, "stream": stream, "parametrization": parametrization}
    if sizes and not _drawn_at_once(loc, raw_scale, sizes):
        if isinstance(loc, Tensor) and loc.dtype in SIXTEEN_BITS:
            # Two gradients meet at each parameter: their sum is rounded, not each of them.
            widened = in_float32(values=1)(normal_rsample_kl)
            return widened(
                *given[:2],
                prior_loc=prior_loc,
                prior_scale=prior_scale,
                sample_shape=sizes,
                reduction=reduction,
                **drawn,
            )
        kl = normal_kl(*given, parametrization=parametrization, reduction=reduction)
        return normal_rsample(loc, raw_scale, sample_shape=sizes, **drawn), kl
    result: tuple[Tensor, Tensor] = _with_prior(
        _RSAMPLE_KL, *given, reduction=reduction, sample_shape=sizes, **drawn
    )
    return result


def _drawn_at_once(loc: Tensor, raw_scale: Tensor, sample_shape: Sequence[int]) -> bool:
    """Whether one kernel does well at several samples of each element and one divergence of it."""
    n_samples = math.prod(sample_shape)
    if not isinstance(loc, Tensor) or not isinstance(raw_scale, Tensor):  # the op says what it is
        return True
    if n_samples == 0 or cuda.holds(loc):
        return False
    shape = loc.shape
    if raw_scale.shape != shape:
        shape = _checks.broadcast(loc=loc, raw_scale=raw_scale)
    # A graph node more, for the divergence alone, costs about what so many numbers do.
    return not wasted(shape, n_samples, most=32768)


def _check_not_wider(name: str, prior: Tensor, loc: Tensor, raw_scale: Tensor) -> None:
    given = {"loc": loc, "raw_scale": raw_scale, name: prior}
    shapes = {k: _checks.operand(k, value).shape for k, value in given.items()}
    prior_shape = shapes.pop(name)
    shape = _checks.broadcast_shapes(shapes)
    if _checks.broadcast_shapes({"parameters": shape, name: prior_shape}) != shape:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {list(shape)}, that of loc and "
            f"raw_scale, got {list(prior_shape)}"
        )


def rsample_kl_of_halves(parameters: Tensor, seed: int | Tensor | None) -> tuple[Tensor, Tensor]:
    """``normal_rsample_kl`` of the halves loc and log_var of [batch, 2 * n], the KL of each row.

    One node of the graph, without the two that halve and join.
    """
    if (
        READS_TENSORS
        and (seed is None or type(seed) is int)
        and common((parameters,)) >= ONE_DTYPE
        and parameters.numel()
    ):
        drawn_from = _checks.seed(seed, parameters.device)
        result: tuple[Tensor, Tensor] = _of_halves()(parameters, drawn_from)
        return result
    loc, log_var = parameters.chunk(2, 1)
    return normal_rsample_kl(loc, log_var, parametrization="log_var", reduction="row", seed=seed)


@functools.cache
def _of_halves() -> Any:
    facts: Any = _RSAMPLE_KL[0].facts_of_halves((0.0, 1.0), "row", "log_var")

    class OfHalves(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Any:
            ctx.save_for_backward(*tensors)
            ctx.set_materialize_grads(False)
            return _cpu.pointwise_results(*(*facts, tensors))

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            tensors, needs = ctx.saved_tensors, ctx.needs_input_grad
            if not torch.is_grad_enabled() and common(grads):
                call = (*facts, tensors, grads, needs, unbroadcast)
                found = _cpu.pointwise_gradients(*call)
                return (None, None) if found is None else found[:2]
            seed = tensors[1]

            def again(parameters: Tensor) -> tuple[Tensor, Tensor]:
                halves = parameters.chunk(2, 1)
                return normal_rsample_kl(
                    *halves, parametrization="log_var", reduction="row", seed=seed
                )

            return differentiated(again, tensors[:1], needs[:1], grads)[0], None

    return apply_of(OfHalves)


# --- the ops --------------------------------------------------------------------------------------

_rsample = location_scale_op("normal_rsample")


def _with_either_prior(
    name: str, parts: tuple[str, str] | None = None
) -> tuple[PointwiseOp, PointwiseOp]:
    """Two ops: for a prior of two numbers, with faster kernels, and for a prior of tensors."""
    options = {"parametrization": PARAMETRIZATIONS}
    scales = {"raw_scale": "scales >= 0", "prior_scale": "scales >= 0"}
    parameters, prior = ("loc", "raw_scale"), ("prior_loc", "prior_scale")
    fixed_parts = None if parts is None else (parts[0], f"{parts[1]}_fixed_prior")
    of_numbers = PointwiseOp(
        f"{name}_fixed_prior",
        parameters,
        options=options,
        numbers=prior,
        domains=scales,
        twin=name,
        parts=fixed_parts,
    )
    of_tensors = PointwiseOp(name, parameters + prior, options=options, domains=scales, parts=parts)
    return of_numbers, of_tensors


_KL = _with_either_prior("normal_kl")
_RSAMPLE_KL = _with_either_prior("normal_rsample_kl", ("normal_rsample", "normal_kl"))


def _with_prior(
    ops: tuple[PointwiseOp, PointwiseOp],
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | float,
    prior_scale: Tensor | float,
    **others: Any,
) -> Any:
    of_numbers, of_tensors = ops
    if (  # the usual case, without calls
        type(prior_loc) is float
        and type(prior_scale) is float
        and -math.inf < prior_loc < math.inf
        and 0.0 < prior_scale < math.inf
    ):
        return of_numbers(loc, raw_scale, prior_loc=prior_loc, prior_scale=prior_scale, **others)
    if isinstance(prior_loc, Tensor) or isinstance(prior_scale, Tensor):
        like = _checks.operand("loc", loc)
        if like.dtype in SIXTEEN_BITS and not (
            isinstance(prior_loc, Tensor) and isinstance(prior_scale, Tensor)
        ):
            # A number keeps its digits, which a tensor of 16 bits would not hold.
            widened = in_float32(values=ops is _RSAMPLE_KL)(_with_prior)
            return widened(ops, loc, raw_scale, prior_loc, prior_scale, **others)
        prior_loc = parameter("prior_loc", prior_loc, like)
        prior_scale = parameter("prior_scale", prior_scale, like, above=0.0)
        return of_tensors(loc, raw_scale, prior_loc, prior_scale, **others)
    prior_loc = number("prior_loc", prior_loc)
    prior_scale = number("prior_scale", prior_scale, above=0.0)
    return of_numbers(loc, raw_scale, prior_loc=prior_loc, prior_scale=prior_scale, **others)
