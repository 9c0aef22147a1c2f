"""Reparametrised samples of relaxed categorical distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast import _checks, reference
from bslfast._native.softmax import Call, Kernels
from bslfast.functional._op import Op


def gumbel_softmax_rsample(
    logits: Tensor,
    temperature: float,
    *,
    hard: bool = False,
    sample_shape: Sequence[int] = (),
    seed: int | Tensor | None = None,
    stream: int = 0,
) -> Tensor:
    r"""Samples of Gumbel-softmax (concrete) distributions: points of a simplex.

    .. math:: y = \operatorname{softmax}\left(\frac{l + g}{\tau}\right), \quad
              g_c = -\log(-\log u_c), \quad u_c \sim U(0, 1)

    The largest y is that of a class drawn with probabilities softmax(l); the lower the temperature,
    the closer y is to 1 there. The noise is drawn inside the kernel and drawn again in backward:
    nothing but the logits and the seed is kept.

    Args:
        logits: unnormalised log probabilities, [..., classes]. -inf excludes a class.
        temperature: tau, > 0.
        hard: return the class itself, exactly 0 and 1, with the gradient of y (straight-through; a
            biased estimate).
        sample_shape: shape of independent samples to draw, in front of the logits' shape.
        seed, stream: as in :func:`bslfast.functional.normal_rsample`.

    Returns:
        Samples of shape ``[*sample_shape, ..., classes]``. The gradient reaches ``logits``.

    Raises:
        TypeError: logits not a floating-point tensor, temperature not a number, hard not a bool.
        ValueError: logits without dimensions, a temperature that is not above 0.

    Source: Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax" (2017,
    arXiv:1611.01144); Maddison, Mnih and Teh, "The concrete distribution" (2017, arXiv:1611.00712).

    >>> import torch, bslfast.functional as BF
    >>> logits = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    >>> y = BF.gumbel_softmax_rsample(logits, 0.5, hard=True, sample_shape=(1000,), seed=0)
    >>> bool((y.mean(dim=0) - logits.softmax(-1)).abs().max() < 0.05)
    True
    """
    logits = _checks.operand("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits: expected shape [..., classes], got []")
    temperature = _checks.number("temperature", temperature, above=0.0)
    _checks.flag("hard", hard)
    sample: Tensor = _gumbel_softmax_rsample(
        logits,
        _checks.seed(seed, logits.device),
        _checks.stream(stream),
        temperature,
        hard,
        _checks.sizes("sample_shape", sample_shape),
    )
    return sample


def _allocate(
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
) -> Tensor:
    return logits.new_empty((*sample_shape, *logits.shape))


def _call(
    logits: Tensor, seed: Tensor, stream: int, temperature: float, hard: bool, n_samples: int
) -> Call:
    rows, classes = logits.shape[:-1].numel(), logits.shape[-1]
    sizes = (rows * n_samples,)
    return Call(logits.contiguous(), sizes, classes, 1, rows, None, seed, stream, temperature, hard)


def _forward(
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
) -> Tensor:
    shape = (*sample_shape, *logits.shape)
    if 0 in shape:
        return logits.new_empty(shape)
    call = _call(logits, seed, stream, temperature, hard, math.prod(sample_shape))
    return _kernels.forward(call, shape)[0]


def _backward(
    grad: Tensor | None,
    logits: Tensor,
    seed: Tensor,
    stream: int,
    temperature: float,
    hard: bool,
    sample_shape: Sequence[int],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    if grad is None or not needs[0]:
        return (None,)
    if grad.numel() == 0:
        return (torch.zeros_like(logits),)
    n_samples = math.prod(sample_shape)
    call = _call(logits, seed, stream, temperature, hard, n_samples)
    each = _kernels.backward(grad.contiguous(), call, grad.shape)
    if n_samples == 1:
        return (each.view(logits.shape),)
    return (each.view(n_samples, *logits.shape).sum(dim=0),)


_kernels = Kernels("gumbel_softmax_rsample")
_gumbel_softmax_rsample = Op(
    "gumbel_softmax_rsample(Tensor logits, Tensor seed, int stream, float temperature, bool hard, "
    "SymInt[] sample_shape) -> Tensor",
    forward=_forward,
    backward=_backward,
    fake=_allocate,
    reference=reference.gumbel_softmax_rsample,
    rounded=1,
    has_cuda=True,
)
