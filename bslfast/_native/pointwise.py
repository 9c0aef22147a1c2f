"""Kernels of all pointwise ops: csrc/cpu/pointwise_kernels.h and csrc/cuda/pointwise_kernels.h."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast._native import READS_TENSORS, _cpu, cuda
from bslfast._native._operands import (
    DTYPES,
    MAX_DIMS,
    REDUCTIONS,
    Operand,
    address,
    empty,
    empty_grad,
    empty_log,
    grad_operand,
    operands,
    reduced_shape,
    unbroadcast,
)

# Its index in the table, then the attributes of Kernels.
_Entry = tuple[int, int, bool, bool, bool, bool, list[int]]
_OPS = _cpu.pointwise_ops()


class Kernels:
    """An op of the table in csrc/pointwise/ops.h, by its name there.

    Attributes:
        index: its place in the table.
        inputs: how many tensors it takes.
        has_value, has_log: what it returns, see csrc/core/pointwise.h.
        is_random: whether it draws, so that it takes a seed.
        samples: whether kernels draw several samples of an element. Then an element has one
            logarithm. Else each sample is an element of its own.
        reduces: whether its logarithms are summed: as soon as it has them.
        n_variants: how many variants its options make.
        passes_on: for each variant, the tensor whose gradient is the value's, or -1.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        found: _Entry = _OPS[name] if name in _OPS else cuda.pointwise_ops()[name]
        self.index, self.inputs = found[:2]
        self.has_value, self.has_log, self.is_random, self.samples = found[2:6]
        self.passes_on = found[6]
        self.reduces, self.n_variants = self.has_log, len(self.passes_on)

    def allocate(
        self, tensors: Sequence[Tensor], reduction: str, sample_shape: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Room for what the op returns: the value, the logarithm, or both."""
        shape = _shape(tensors, sample_shape)
        return self._allocate(shape, tensors[0], reduction, len(sample_shape))

    def _allocate(
        self, shape: torch.Size, first: Tensor, reduction: str, n_dims: int
    ) -> tuple[Tensor, ...]:
        """``n_dims``: how many of the dimensions are samples."""
        if not self.has_log:
            return (empty(shape, first),)
        of_log: Sequence[int] = shape[n_dims:] if n_dims and self.samples else shape
        if reduction != "none":
            of_log = reduced_shape(of_log, reduction)
        log = empty_log(of_log, first)
        return (empty(shape, first), log) if self.has_value else (log,)

    def forward(
        self,
        tensors: Sequence[Tensor],
        variant: int,
        numbers: tuple[float, ...],
        reduction: str,
        seed: Tensor | None,
        stream: int,
        sample_shape: Sequence[int],
        shape: torch.Size | None = None,
    ) -> tuple[tuple[Tensor, ...], int]:
        """The results, and a bit for each tensor with elements outside its domain.

        ``shape``: what the tensors broadcast to, with samples in front, if that is known.
        """
        first = tensors[0]
        if shape is None:
            shape = _shape(tensors, sample_shape)
        results = self._allocate(shape, first, reduction, len(sample_shape))
        if 0 in shape:
            return tuple(r.zero_() for r in results), 0
        on_cuda = cuda.holds(first)
        n_samples = 1
        if sample_shape and not on_cuda:
            shape, n_samples = self._apart(shape, len(sample_shape))
        direct = READS_TENSORS and not on_cuda and len(shape) <= MAX_DIMS
        call = (
            cuda.pointwise_ops()[self._name][0] if on_cuda else self.index,
            variant,
            DTYPES[first.dtype],
            shape,
            tensors if direct else operands(tensors, shape),
            numbers,
            0 if seed is None else seed.data_ptr(),
            stream,
            results[0].data_ptr() if self.has_value else 0,
            REDUCTIONS[reduction],
            results[-1].data_ptr() if self.has_log else 0,
        )
        if not on_cuda:
            return results, _cpu.pointwise_forward(*call, n_samples)
        kernels = cuda.module()
        with cuda.launching(first) as handle:
            n = kernels.pointwise_partials(shape, REDUCTIONS[reduction]) if self.has_log else 0
            partials = torch.empty(n, dtype=torch.float64, device=first.device) if n else None
            kernels.pointwise_forward(*call, address(partials), handle)
        return results, 0

    def backward(
        self,
        grads: tuple[Tensor | None, ...],
        tensors: Sequence[Tensor],
        variant: int,
        numbers: tuple[float, ...],
        reduction: str,
        seed: Tensor | None,
        stream: int,
        sample_shape: Sequence[int],
        shape: torch.Size | None = None,
        *,
        needs: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the tensors, None where not needed, from those of the results.

        One may be that of the value itself.
        """
        if grads[0] is None and grads[-1] is None:
            return (None,) * len(tensors)
        first = tensors[0]
        if shape is None:
            shape = _shape(tensors, sample_shape)
        on_cuda, code = cuda.holds(first), DTYPES[first.dtype]
        value_shape, n_samples = shape, 1
        if sample_shape and not on_cuda:
            shape, n_samples = self._apart(shape, len(sample_shape))
            if len(shape) < len(value_shape):
                value_shape = torch.Size((n_samples, *shape)) if n_samples > 1 else shape
                if grads[0] is not None:
                    grads = (grads[0].reshape(value_shape), *grads[1:])
        passed = self.passes_on[variant] if grads[0] is not None and n_samples == 1 else -1
        if passed >= 0 and tensors[passed].shape != shape:
            passed = -1
        found: list[Tensor | None] = []
        # Addresses, and the dtypes that are stored there.
        written: list[tuple[int, int]] = []
        broadcast = False
        for t, need in zip(tensors, needs, strict=True):
            grad, to = None, (0, 0)
            if need and len(found) != passed:
                if t.shape == shape and t.is_contiguous():  # without a call of ours
                    grad = torch.empty_like(t)
                    to = (grad.data_ptr(), code)
                else:
                    broadcast = broadcast or t.shape != shape
                    grad = empty_grad(shape, t)
                    to = (grad.data_ptr(), DTYPES[grad.dtype])
            found.append(grad)
            written.append(to)
        if written.count((0, 0)) != len(written) and 0 not in value_shape:
            direct = READS_TENSORS and not on_cuda and len(value_shape) <= MAX_DIMS
            call = (
                cuda.pointwise_ops()[self._name][0] if on_cuda else self.index,
                variant,
                code,
                shape,
                tensors if direct else operands(tensors, shape),
                numbers,
                0 if seed is None else seed.data_ptr(),
                stream,
                _incoming(grads[0], value_shape, "none", direct) if self.has_value else None,
                _incoming(grads[-1], shape, reduction, direct) if self.has_log else None,
                written,
            )
            if on_cuda:
                with cuda.launching(first) as handle:
                    cuda.module().pointwise_backward(*call, handle)
            else:
                _cpu.pointwise_backward(*call, n_samples)
        if passed >= 0 and needs[passed]:
            found[passed] = grads[0]
        return tuple(map(unbroadcast, found, tensors)) if broadcast else tuple(found)

    def draws_apart(self, shape: torch.Size, n_dims: int) -> bool:
        """Whether an element is read once for its samples, the first ``n_dims`` dimensions."""
        return len(self._apart(shape, n_dims)[0]) < len(shape)

    def _apart(self, shape: torch.Size, n_dims: int) -> tuple[torch.Size, int]:
        """What the kernels walk over, and how many samples of each of its elements they draw.

        ``shape`` has ``n_dims`` dimensions of samples in front.
        """
        elements, n_samples = shape[n_dims:], math.prod(shape[:n_dims])
        if self.samples and (self.has_log or (n_samples > 1 and not wasted(elements, n_samples))):
            return elements, n_samples
        return shape, 1


def _incoming(
    grad: Tensor | None, shape: Sequence[int], reduction: str, direct: bool
) -> Operand | Tensor:
    """The gradient of a result as kernels take it: itself, if they read it directly."""
    if grad is not None and direct and reduction != "row":
        return grad
    return grad_operand(grad, shape, reduction)


def wasted(elements: Sequence[int], n_samples: int, most: int = 16384) -> bool:
    """Whether samples of so few elements would leave blocks so empty that it costs too much.

    Kernels compute a block of numbers for every sample. ``most`` is how many may be in vain, for
    what it saves: an eighth of them where there are next to no elements.
    """
    n = math.prod(elements)
    return (_cpu.BLOCK - n) * n_samples > (most if n >= 16 else most // 8)


def _shape(tensors: Sequence[Tensor], sample_shape: Sequence[int]) -> torch.Size:
    """What the tensors broadcast to, with samples in front."""
    shape = tensors[0].shape
    for t in tensors:
        if t.shape != shape:
            shape = torch.Size(torch.broadcast_shapes(*(t.shape for t in tensors)))
            break
    return torch.Size((*sample_shape, *shape)) if sample_shape else shape


@functools.cache
def _row_sums() -> Kernels:
    return Kernels("row_sums")


def sums(log: Tensor, reduction: str) -> Tensor:
    """Sums of numbers on a CUDA device: each row's, in float64 and in a fixed order, or all."""
    if reduction == "none":
        return log
    ((total,), _) = _row_sums().forward((log,), 0, (), reduction, None, 0, ())
    return total
