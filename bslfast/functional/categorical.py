"""The log probability of classes, from logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast import _checks, reference
from bslfast._native._operands import reduced_shape, unbroadcast
from bslfast._native.softmax import Call, Kernels
from bslfast.functional._op import Op
from bslfast.functional._vmap import Folding


def categorical_log_prob(index: Tensor, logits: Tensor, *, reduction: str = "none") -> Tensor:
    r"""Log probability of classes under categorical distributions with these logits, in nats.

    .. math:: l_k - \log \sum_c e^{l_c}

    The normalised logits are never stored.

    Args:
        index: classes from 0 on, int64 [...]; broadcasts with the shape of ``logits`` without its
            last dimension.
        logits: unnormalised log probabilities, [..., classes]. -inf excludes a class.
        reduction: ``"none"`` one value per index, ``"sum"`` one sum. Never an average.

    Returns:
        The log probabilities, of the shape of ``index``, or a scalar. The gradient reaches
        ``logits``.

    Raises:
        TypeError: logits not a floating-point tensor, index not one of int64.
        ValueError: shapes do not broadcast, devices differ, an unknown reduction, or an index
            that is not a class (that in eager mode on the CPU; elsewhere the result is NaN).

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 4.3.4.

    >>> import torch, bslfast.functional as BF
    >>> BF.categorical_log_prob(torch.tensor([1, 0]), torch.tensor([[0.0, 0.0], [0.0, -1.0]]))
    tensor([-0.6931, -0.3133])
    """
    logits = _checks.operand("logits", logits)
    if logits.dim() == 0:
        raise ValueError("logits: expected shape [..., classes], got []")
    _check_index(index, logits)
    _checks.choice("reduction", reduction, ("none", "sum"))
    log_prob: Tensor = _categorical_log_prob(logits, index, reduction)
    return log_prob


def _check_index(index: Tensor, logits: Tensor) -> None:
    if not isinstance(index, Tensor):
        raise TypeError(
            f"index: expected a torch.Tensor of dtype int64, got {type(index).__name__}"
        )
    if index.dtype != torch.int64:
        raise TypeError(
            f"index: expected dtype int64, got {str(index.dtype).removeprefix('torch.')}"
        )
    if index.device != logits.device:
        raise ValueError(
            f"index: expected the device of logits, {logits.device}, got {index.device}"
        )
    rows = logits.shape[:-1]
    if index.shape != rows:
        try:
            torch.broadcast_shapes(rows, index.shape)
        except RuntimeError:
            raise ValueError(
                f"index: expected a shape that broadcasts with {list(rows)}, that of logits "
                f"without the classes, got {list(index.shape)}"
            ) from None


def _rows(logits: Tensor, index: Tensor) -> torch.Size:
    """The shape of the results before any sum."""
    if logits.shape[:-1] == index.shape:
        return index.shape
    return torch.Size(torch.broadcast_shapes(logits.shape[:-1], index.shape))


def _allocate(logits: Tensor, index: Tensor, reduction: str) -> Tensor:
    return logits.new_empty(reduced_shape(_rows(logits, index), reduction))


def _call(logits: Tensor, index: Tensor, shape: torch.Size, classes: int) -> Call:
    # Rows are read whole, class by class: anything but contiguous ones are copied.
    rows, wanted = logits.expand(*shape, classes).contiguous(), index.expand(shape).contiguous()
    return Call(rows, shape, classes, indices=wanted)


def _forward(logits: Tensor, index: Tensor, reduction: str) -> Tensor:
    shape, classes = _rows(logits, index), logits.shape[-1]
    if 0 in shape:
        return _allocate(logits, index, reduction).zero_()
    log_prob, valid = _kernels.forward(_call(logits, index, shape, classes), shape, reduction)
    if not valid:
        low, high = (int(v) for v in index.aminmax())
        raise ValueError(
            f"index: expected class indices from 0 to {classes - 1}, got {low} to {high}"
        )
    return log_prob


def _backward(
    grad: Tensor | None, logits: Tensor, index: Tensor, reduction: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    if grad is None or not needs[0]:
        return (None,)
    shape, classes = _rows(logits, index), logits.shape[-1]
    full = (*shape, classes)
    if 0 in full:
        return (torch.zeros_like(logits),)
    call = _call(logits, index, shape, classes)
    return (unbroadcast(_kernels.backward(grad, call, full), logits),)


_kernels = Kernels("categorical_log_prob")
_categorical_log_prob = Op(
    "categorical_log_prob(Tensor logits, Tensor index, str reduction) -> Tensor",
    forward=_forward,
    backward=_backward,
    fake=_allocate,
    reference=reference.categorical_log_prob,
    rounded=0,
    has_cuda=True,
    folding=Folding(
        inner=(1, 0), value=None, has_log=True, reductions=("none", "sum"), adds_up=False
    ),
)
