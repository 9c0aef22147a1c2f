"""The normal distribution: reparametrised samples and the KL divergence, fused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks, reference
from bslfast._native import normal as native
from bslfast._precision import log_dtype
from bslfast.functional._op import NATIVE, Op, plain

PARAMETRIZATIONS = tuple(native.PARAMETRIZATIONS)


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

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014); noise by Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3" (2011).

    >>> import math, torch, bslfast.functional as BF
    >>> loc, raw_scale = torch.zeros(2, requires_grad=True), torch.zeros(2)
    >>> x = BF.normal_rsample(loc, raw_scale, sample_shape=(1000,), seed=0)
    >>> x.shape, bool((x.std(dim=0) - math.log(2)).abs().max() < 0.05)
    (torch.Size([1000, 2]), True)
    """
    loc, raw_scale, shape, directly = _parameters(loc, raw_scale, parametrization, seed)
    sample: Tensor
    sample, _ = _call(
        directly,
        shape,
        loc,
        raw_scale,
        None,
        None,
        _checks.seed(seed, loc.device),
        _checks.stream(stream),
        0.0,
        1.0,
        parametrization,
        _checks.sizes("sample_shape", sample_shape),
        None,
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

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006), exercise 1.30.

    >>> import torch, bslfast.functional as BF
    >>> BF.normal_kl(torch.ones(3), torch.zeros(3), parametrization="log_scale")
    tensor(1.5000)
    """
    loc, raw_scale, shape, directly = _parameters(
        loc, raw_scale, parametrization, prior_loc, prior_scale
    )
    prior_loc_tensor, prior_loc_value = _prior("prior_loc", prior_loc, loc)
    prior_scale_tensor, prior_scale_value = _prior("prior_scale", prior_scale, loc)
    if prior_loc_tensor is not None or prior_scale_tensor is not None:
        shape = _checks.broadcast(
            loc=loc, raw_scale=raw_scale, prior_loc=prior_loc_tensor, prior_scale=prior_scale_tensor
        )
    kl: Tensor
    _, kl = _call(
        directly,
        shape,
        loc,
        raw_scale,
        prior_loc_tensor,
        prior_scale_tensor,
        None,
        0,
        prior_loc_value,
        prior_scale_value,
        parametrization,
        (),
        _checks.reduction(reduction, shape),
    )
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

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015), with the closed form.

    >>> import torch, bslfast.functional as BF
    >>> weight, kl = BF.normal_rsample_kl(torch.zeros(4, 3), torch.full((4, 3), -3.0), seed=0)
    >>> weight.shape, kl
    (torch.Size([4, 3]), tensor(30.3069))
    """
    loc, raw_scale, shape, directly = _parameters(
        loc, raw_scale, parametrization, prior_loc, prior_scale, seed
    )
    prior_loc_tensor, prior_loc_value = _prior("prior_loc", prior_loc, loc)
    prior_scale_tensor, prior_scale_value = _prior("prior_scale", prior_scale, loc)
    for name, prior in (("prior_loc", prior_loc_tensor), ("prior_scale", prior_scale_tensor)):
        if prior is not None and _checks.broadcast(parameters=loc, **{name: prior}) != shape:
            raise ValueError(
                f"{name}: expected a shape that broadcasts to {list(shape)}, that of loc and "
                f"raw_scale, got {list(prior.shape)}"
            )
    result: tuple[Tensor, Tensor] = _call(
        directly,
        shape,
        loc,
        raw_scale,
        prior_loc_tensor,
        prior_scale_tensor,
        _checks.seed(seed, loc.device),
        _checks.stream(stream),
        prior_loc_value,
        prior_scale_value,
        parametrization,
        _checks.sizes("sample_shape", sample_shape),
        _checks.reduction(reduction, shape),
    )
    return result


def _parameters(
    loc: Tensor, raw_scale: Tensor, parametrization: str, *others: Any
) -> tuple[Tensor, Tensor, torch.Size, bool]:
    """The two, the shape that they broadcast to, and whether all that is given is plain.

    ``others``: what else may be a tensor.
    """
    given: tuple[Tensor, ...] = (loc, raw_scale)
    for t in others:
        if isinstance(t, Tensor):
            given += (t,)
    directly = loc is not None and raw_scale is not None and plain(given)
    if not directly or loc.dtype is not raw_scale.dtype or loc.dtype not in NATIVE:
        loc = _checks.operand("loc", loc)
        raw_scale = _checks.operand("raw_scale", raw_scale)
        _checks.alike("raw_scale", raw_scale, "loc", loc)
    _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
    shape = loc.shape
    if raw_scale.shape != shape:
        shape = _checks.broadcast(loc=loc, raw_scale=raw_scale)
    return loc, raw_scale, shape, directly


def _prior(name: str, value: Tensor | float, loc: Tensor) -> tuple[Tensor | None, float]:
    """A prior's parameter as a tensor, or as a number that needs none."""
    if not isinstance(value, Tensor):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(
                f"{name}: expected a number or a torch.Tensor, got {type(value).__name__}"
            )
        return None, _checks.number(name, value, above=0.0 if name == "prior_scale" else -math.inf)
    value = _checks.operand(name, value)
    _checks.alike(name, value, "loc", loc)
    return value, 0.0


# --- the op: one kernel for all three, of which parts may not be wanted ---------------------------


def _fake(
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
    return native.allocate(loc, raw_scale, prior_loc, prior_scale, seed, sample_shape, reduction)


def _reference(
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
    sample, kl = loc.new_empty(0), loc.new_empty(0, dtype=log_dtype(loc.dtype))
    if seed is not None:
        sample = reference.normal_rsample(
            loc,
            raw_scale,
            parametrization=parametrization,
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
        )
    if reduction is not None:
        kl = reference.normal_kl(
            loc,
            raw_scale,
            prior_loc_value if prior_loc is None else prior_loc,
            prior_scale_value if prior_scale is None else prior_scale,
            parametrization=parametrization,
            reduction=reduction,
        )
    return sample, kl


_normal = Op(
    "normal(Tensor loc, Tensor raw_scale, Tensor? prior_loc, Tensor? prior_scale, Tensor? seed, "
    "int stream, float prior_loc_value, float prior_scale_value, str parametrization, "
    "SymInt[] sample_shape, str? reduction) -> (Tensor sample, Tensor kl)",
    forward=native.forward,
    backward=native.backward,
    fake=_fake,
    reference=_reference,
    has_cuda=True,
)


def _call(
    directly: bool,
    shape: torch.Size,
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: Tensor | None,
    prior_scale: Tensor | None,
    seed: Tensor | None,
    *others: Any,
) -> tuple[Any, Any]:
    """(sample, kl), of which one may be anything; ``shape`` is what they all broadcast to."""
    tensors = (loc, raw_scale, prior_loc, prior_scale, seed)
    if not directly:
        result: tuple[Tensor, Tensor] = _normal(*tensors, *others)
        return result
    if seed is None:
        return None, _directly(tensors, (shape, 1, others))
    if others[-1] is None:
        return _directly(tensors, (shape, 0, others)), None
    both: tuple[Tensor, Tensor] = _directly(tensors, (shape, 0, others))
    return both


_wanted: Any = native.wanted
_backward: Any = native.backward


def _direct_forward(call: Any, tensors: Any) -> Any:
    shape, _, others = call
    sample, kl = _wanted(*tensors, *others, shape)
    if kl is None:
        return sample
    return kl if sample is None else (sample, kl)


def _direct_backward(call: Any, grads: Any, tensors: Any, needs: Any) -> Any:
    shape, skipped, others = call
    grad_sample = None if skipped else grads[0]
    grad_kl = grads[-1] if others[-1] is not None else None
    return (*_backward(grad_sample, grad_kl, *tensors, *others, needs, shape), None, None)


_directly = _normal.directly(_direct_forward, _direct_backward)
