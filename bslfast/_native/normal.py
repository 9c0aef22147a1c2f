"""Kernels of the normal family: csrc/cpu/normal.cpp and csrc/cuda/normal.cu."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast._native import _cpu, cuda
from bslfast._native._operands import (
    DTYPES,
    REDUCTIONS,
    empty,
    empty_grad,
    empty_log,
    grad_address,
    grad_operand,
    operand,
    operands,
    reduced_shape,
    unbroadcast,
)
from bslfast._native.pointwise import Kernels
from bslfast._precision import SIXTEEN_BITS

# Samples of fewer parameters than this are drawn as one tensor: the kernel makes noise in blocks,
# of which the samples of a single number would use one element each.
_FEW = 16
PARAMETRIZATIONS = {"softplus": 0, "scale": 1, "log_scale": 2, "log_var": 3}


def allocate(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | None,
    prior_scale: Tensor | None,
    seed: Tensor | None,
    sample_shape: Sequence[int],
    reduction: str | None,
) -> tuple[Tensor, Tensor]:
    """Room for (sample, kl); of size 0 if there is no seed, or no reduction."""
    sample = kl = None
    if seed is not None:
        sample = empty((*sample_shape, *_shape(loc, raw_scale)), loc)
    if reduction is not None:
        kl = _room_for_kl(loc, _shape(loc, raw_scale, prior_loc, prior_scale), reduction)
    return _complete(loc, sample, kl)


def _room_for_kl(loc: Tensor, shape: Sequence[int], reduction: str) -> Tensor:
    return empty_log(reduced_shape(shape, reduction), loc)


def _complete(loc: Tensor, sample: Tensor | None, kl: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the op returns: a tensor of size 0 for what is not wanted."""
    return (
        loc.new_empty(0) if sample is None else sample,
        empty_log((0,), loc) if kl is None else kl,
    )


def forward(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | None,
    prior_scale: Tensor | None,
    seed: Tensor | None,
    stream: int,
    prior_loc_value: float,
    prior_scale_value: float,
    parametrization: str,
    sample_shape: Sequence[int],
    reduction: str | None,
) -> tuple[Tensor, Tensor]:
    """(sample, kl), as :func:`allocate` says. Raises ValueError if a scale is negative."""
    found = wanted(
        loc,
        raw_scale,
        prior_loc,
        prior_scale,
        seed,
        stream,
        prior_loc_value,
        prior_scale_value,
        parametrization,
        sample_shape,
        reduction,
    )
    return _complete(loc, *found)


def wanted(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | None,
    prior_scale: Tensor | None,
    seed: Tensor | None,
    stream: int,
    prior_loc_value: float,
    prior_scale_value: float,
    parametrization: str,
    sample_shape: Sequence[int],
    reduction: str | None,
    shape: torch.Size | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """The same, but None for what is not wanted. ``shape``: of all, without samples, if known."""
    if shape is None:
        shape = _shape(loc, raw_scale, prior_loc, prior_scale)
    if cuda.holds(loc):
        priors = _priors(prior_loc, prior_scale, prior_loc_value, prior_scale_value)
        return _forward_on_cuda(
            loc, raw_scale, *priors, seed, stream, parametrization, sample_shape, reduction
        )
    prior = (prior_loc_value, prior_scale_value, parametrization)
    if sample_shape and _drawn_as_one(loc, shape, seed, sample_shape):
        whole = (*sample_shape, *_shape(loc, raw_scale))
        drawn = (loc.expand(whole), raw_scale.expand(whole), None, None, seed, stream)
        kl_alone = (loc, raw_scale, prior_loc, prior_scale, None, stream)
        return (
            wanted(*drawn, *prior, (), None)[0],
            wanted(*kl_alone, *prior, sample_shape, reduction)[1],
        )
    sample = kl = None
    if seed is not None:  # no prior is wider than the parameters then
        sample = empty((*sample_shape, *shape) if sample_shape else shape, loc)
    if reduction is not None:
        kl = _room_for_kl(loc, shape, reduction)
    if 0 in shape:
        return sample, None if kl is None else kl.zero_()
    at_loc, at_raw_scale = operands((loc, raw_scale), shape)
    valid = _cpu.normal_forward(
        DTYPES[loc.dtype],
        shape,
        at_loc,
        at_raw_scale,
        prior_loc_value if prior_loc is None else operand(prior_loc, shape),
        prior_scale_value if prior_scale is None else operand(prior_scale, shape),
        PARAMETRIZATIONS[parametrization],
        0 if seed is None else seed.data_ptr(),
        stream,
        math.prod(sample_shape) if sample_shape else 1,
        0 if sample is None else sample.data_ptr(),
        REDUCTIONS[reduction or "none"],
        0 if kl is None else kl.data_ptr(),
    )
    if not valid:
        name, scale = "raw_scale", raw_scale
        if prior_scale is not None and not (parametrization == "scale" and (scale < 0).any()):
            name, scale = "prior_scale", prior_scale
        raise ValueError(f"{name}: expected scales >= 0, got {scale.min().item():g}")
    return sample, kl


def backward(
    grad_sample: Tensor | None,
    grad_kl: Tensor | None,
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | None,
    prior_scale: Tensor | None,
    seed: Tensor | None,
    stream: int,
    prior_loc_value: float,
    prior_scale_value: float,
    parametrization: str,
    sample_shape: Sequence[int],
    reduction: str | None,
    needs: Sequence[bool],
    shape: torch.Size | None = None,
    *,
    grad_loc: Tensor | None = None,
    grad_raw_scale: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Gradients of loc, raw_scale, prior_loc and prior_scale; None where not needed.

    ``grad_loc`` and ``grad_raw_scale`` are memory to be used for them, contiguous and of the
    parameters' shape; the first may be that of ``grad_sample``.
    """
    if shape is None:
        shape = _shape(loc, raw_scale, prior_loc, prior_scale)
    if cuda.holds(loc):
        priors = _priors(prior_loc, prior_scale, prior_loc_value, prior_scale_value)
        return _backward_on_cuda(
            *(grad_sample, grad_kl, loc, raw_scale, *priors, seed, stream),
            *(parametrization, sample_shape, reduction, needs),
        )
    prior = (prior_loc_value, prior_scale_value, parametrization)
    if sample_shape and grad_sample is not None and _drawn_as_one(loc, shape, seed, sample_shape):
        whole = (*sample_shape, *_shape(loc, raw_scale))
        drawn = (loc.expand(whole), raw_scale.expand(whole), None, None, seed, stream)
        kl_alone = (loc, raw_scale, prior_loc, prior_scale, None, stream)
        by_sample = backward(grad_sample, None, *drawn, *prior, (), None, needs)
        by_kl = backward(None, grad_kl, *kl_alone, *prior, (), reduction, needs)
        return tuple(
            _sum(unbroadcast(one, like), other)
            for one, like, other in zip(
                by_sample, (loc, raw_scale, prior_loc, prior_scale), by_kl, strict=True
            )
        )

    passed = None
    if grad_loc is None and needs[0]:
        if grad_kl is None and seed is not None and not sample_shape and loc.shape == shape:
            passed = grad_sample  # the gradient of loc is that of the sample
        if passed is None:
            grad_loc = empty_grad(shape, loc)
    if not needs[1]:
        grad_raw_scale = None
    elif grad_raw_scale is None:
        grad_raw_scale = empty_grad(shape, raw_scale)
    grad_prior_loc = grad_prior_scale = None
    if prior_loc is not None and needs[2]:
        grad_prior_loc = empty_grad(shape, prior_loc)
    if prior_scale is not None and needs[3]:
        grad_prior_scale = empty_grad(shape, prior_scale)
    samples = math.prod(sample_shape) if sample_shape else 1
    if seed is None or grad_sample is None or samples == 0:
        grad_sample, samples = None, 0
    elif sample_shape:  # one sample has no dimension in the operand below
        grad_sample = grad_sample.reshape((samples, *shape) if samples > 1 else shape)
    if reduction is None or grad_kl is None:
        grad_kl = None
        for grad in (grad_prior_loc, grad_prior_scale):
            if grad is not None:
                grad.zero_()
    if 0 not in shape:
        dtype = loc.dtype
        at_loc, at_raw_scale = operands((loc, raw_scale), shape)
        _cpu.normal_backward(
            DTYPES[dtype],
            shape,
            at_loc,
            at_raw_scale,
            prior_loc_value if prior_loc is None else operand(prior_loc, shape),
            prior_scale_value if prior_scale is None else operand(prior_scale, shape),
            PARAMETRIZATIONS[parametrization],
            0 if seed is None else seed.data_ptr(),
            stream,
            samples,
            operand(grad_sample, shape if samples <= 1 else (samples, *shape)),
            None if grad_kl is None else grad_operand(grad_kl, shape, reduction or "none"),
            0 if grad_loc is None else grad_address(grad_loc, dtype),
            0 if grad_raw_scale is None else grad_address(grad_raw_scale, dtype),
            0 if grad_prior_loc is None else grad_address(grad_prior_loc, dtype),
            0 if grad_prior_scale is None else grad_address(grad_prior_scale, dtype),
        )
    if passed is not None:
        grad_loc = passed
    if prior_loc is None and prior_scale is None and loc.shape == shape == raw_scale.shape:
        return grad_loc, grad_raw_scale, None, None
    return (
        unbroadcast(grad_loc, loc),
        unbroadcast(grad_raw_scale, raw_scale),
        unbroadcast(grad_prior_loc, prior_loc),
        unbroadcast(grad_prior_scale, prior_scale),
    )


def _drawn_as_one(
    loc: Tensor, shape: Sequence[int], seed: Tensor | None, sample_shape: Sequence[int]
) -> bool:
    if seed is None or loc.dtype in SIXTEEN_BITS:  # sums would be rounded twice
        return False
    return 0 < math.prod(shape) < _FEW


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _shape(first: Tensor, *others: Tensor | None) -> torch.Size:
    shape = first.shape
    for other in others:
        if other is not None and other.shape != shape:
            shapes = [t.shape for t in others if t is not None]
            return torch.Size(torch.broadcast_shapes(shape, *shapes))
    return shape


# --- CUDA: pointwise ops, csrc/core/distributions/normal_pointwise.h ------------------------------

_kernels = functools.cache(Kernels)


def _with_prior(
    name: str, loc: Tensor, raw_scale: Tensor, prior_loc: Any, prior_scale: Any
) -> tuple[Kernels, tuple[Any, ...], tuple[float, ...]]:
    """The kernels for such a prior, and what they take as tensors and as numbers."""
    if isinstance(prior_loc, Tensor) or isinstance(prior_scale, Tensor):
        return _kernels(name), (loc, raw_scale, prior_loc, prior_scale), ()
    return _kernels(f"{name}_fixed_prior"), (loc, raw_scale), (prior_loc, prior_scale)


def _backward_with_prior(
    name: str,
    grads: tuple[Tensor | None, ...],
    given: tuple[Any, ...],
    *call: Any,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The four gradients. ``call``: the variant, the reduction, the seed and the stream."""
    kernels, tensors, numbers = _with_prior(name, *given)
    variant, reduction, seed, stream = call
    found = kernels.backward(
        *(grads, tensors, variant, numbers, reduction or "none", seed, stream, ()),
        needs=tuple(needs[: len(tensors)]),
    )
    return (*found, None, None)[:4]


def _priors(
    prior_loc: Tensor | None, prior_scale: Tensor | None, loc_value: float, scale_value: float
) -> tuple[Any, Any]:
    return (
        loc_value if prior_loc is None else prior_loc,
        scale_value if prior_scale is None else prior_scale,
    )


def _forward_on_cuda(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Any,
    prior_scale: Any,
    seed: Tensor | None,
    stream: int,
    parametrization: str,
    sample_shape: Sequence[int],
    reduction: str | None,
) -> tuple[Tensor, Tensor]:
    variant, given = PARAMETRIZATIONS[parametrization], (loc, raw_scale, prior_loc, prior_scale)
    # One pass, where sample and divergence have the same elements.
    if seed is not None and reduction is not None and not sample_shape:
        kernels, tensors, numbers = _with_prior("normal_rsample_kl", *given)
        results, _ = kernels.forward(tensors, variant, numbers, reduction, seed, stream, ())
        return results[0], results[1]
    sample, kl = loc.new_empty(0), empty_log((0,), loc)
    if seed is not None:
        (sample,), _ = _kernels("normal_rsample").forward(
            (loc, raw_scale), variant, (), "none", seed, stream, sample_shape
        )
    if reduction is not None:
        kernels, tensors, numbers = _with_prior("normal_kl", *given)
        (kl,), _ = kernels.forward(tensors, variant, numbers, reduction, None, 0, ())
    return sample, kl


def _backward_on_cuda(
    grad_sample: Tensor | None,
    grad_kl: Tensor | None,
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Any,
    prior_scale: Any,
    seed: Tensor | None,
    stream: int,
    parametrization: str,
    sample_shape: Sequence[int],
    reduction: str | None,
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    variant, given = PARAMETRIZATIONS[parametrization], (loc, raw_scale, prior_loc, prior_scale)
    if seed is None:
        grad_sample = None
    if reduction is None:
        grad_kl = None
    if grad_sample is not None and grad_kl is not None and not sample_shape:
        grads = (grad_sample, grad_kl)
        call = (variant, reduction, seed, stream)
        return _backward_with_prior("normal_rsample_kl", grads, given, *call, needs=needs)
    if grad_sample is not None and grad_kl is not None and loc.dtype in SIXTEEN_BITS:
        # Two gradients that were rounded would be rounded once more as they are added.
        wide: list[Any] = [
            t.float() if isinstance(t, Tensor) and t.dtype == loc.dtype else t
            for t in (grad_sample, grad_kl, *given)
        ]
        rest: tuple[Any, ...] = (seed, stream, parametrization, sample_shape, reduction, needs)
        found = _backward_on_cuda(*wide, *rest)
        return tuple(None if g is None else g.to(loc.dtype) for g in found)
    by_sample: tuple[Tensor | None, ...] = (None, None)
    by_kl: tuple[Tensor | None, ...] = (None,) * 4
    if grad_sample is not None:
        by_sample = _kernels("normal_rsample").backward(
            (grad_sample,),
            *((loc, raw_scale), variant, (), "none", seed, stream, sample_shape),
            needs=tuple(needs[:2]),
        )
    if grad_kl is not None:
        by_kl = _backward_with_prior(
            "normal_kl", (grad_kl,), given, variant, reduction, None, 0, needs=needs
        )
    return (*map(_sum, by_sample, by_kl[:2]), *by_kl[2:])
