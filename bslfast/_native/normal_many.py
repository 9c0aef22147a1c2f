"""Many normal tensors at once: csrc/cuda/normal_many.cu; one after the other on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bslfast._native import READS_TENSORS, _cpu, cuda
from bslfast._native._operands import DTYPES, address, empty_log


class Call(NamedTuple):
    """What all functions here take, and kernels that read tensors, in their order.

    ``parametrization`` is a number of PARAMETRIZATIONS, ``tensors`` are all locs and then all raw
    scales. Each loc has numbers of its prior.
    """

    parametrization: int
    tensors: tuple[Tensor, ...]
    prior_locs: Sequence[float]
    prior_scales: Sequence[float]
    seed: Tensor | None
    stream: int


def forward(call: Call, has_value: bool) -> tuple[list[Tensor], Tensor]:
    """(samples, the sum of all divergences). Raises ValueError if a scale is negative.

    If not ``has_value``, the second is room for the sum: :func:`write_kl` fills it.
    """
    if READS_TENSORS and not cuda.holds(call.tensors[0]):
        found = _cpu.normal_many_results(call, has_value)
        if found is not None:
            return [*found[:-1]], found[-1]
    call = _contiguous(call)
    samples = [torch.empty_like(loc) for loc in _halves(call.tensors)[0]]
    kl = empty_log((), call.tensors[0])
    _forward(call, _addresses(samples), kl.data_ptr() if has_value else 0)
    return samples, kl


def write_kl(kl: Tensor, call: Call) -> None:
    """Write the sum of all divergences into ``kl``. Raises ValueError if a scale is negative."""
    if READS_TENSORS and not cuda.holds(call.tensors[0]) and _cpu.normal_many_kl(call, kl):
        return
    _forward(_contiguous(call), [0] * (len(call.tensors) // 2), kl.data_ptr())


def _forward(call: Call, samples: Sequence[int], kl: int) -> None:
    """``samples`` and ``kl`` are addresses, 0 where not wanted."""
    locs, raw_scales = _halves(call.tensors)
    if cuda.holds(locs[0]):
        kernels = cuda.module()
        with cuda.launching(locs[0]) as handle:
            n = kernels.normal_many_partials([loc.numel() for loc in locs])
            partials = torch.empty(n, dtype=torch.float64, device=locs[0].device)
            kernels.normal_many_forward(
                _on_addresses(call), samples, partials.data_ptr(), kl, handle
            )
        return
    bad = _cpu.normal_many_forward(_on_addresses(call), samples, kl)
    if bad >= 0:
        least = raw_scales[bad].min().item()
        raise ValueError(f"raw_scale[{bad}]: expected scales >= 0, got {least:g}")


def backward(
    grad_samples: Sequence[Tensor | None],
    grad_kl: Tensor | None,
    call: Call,
    needs: Sequence[bool],
    into: Sequence[Tensor | None] | None = None,
) -> list[Tensor | None]:
    """Gradients of all locs, then of all raw scales; None where ``needs`` says so.

    ``into`` has memory to be used for them, or None where there is none; for the gradient of a loc,
    it may be that of the sample's. One may be the gradient of the sample itself.
    """
    if into is None and READS_TENSORS and not cuda.holds(call.tensors[0]):
        gradients = _cpu.normal_many_gradients(call, grad_samples, grad_kl, needs)
        if gradients is not None:
            return [*gradients]
    n, call = len(call.tensors) // 2, _contiguous(call)
    held = [None if g is None else g.contiguous() for g in grad_samples]
    # Without a divergence, the gradient of a loc is that of its sample.
    passed = [
        grad if need and grad_kl is None else None for grad, need in zip(held, needs, strict=False)
    ]
    found: list[Tensor | None] = []
    for i, t in enumerate(call.tensors):
        room = None if into is None else into[i]
        if not needs[i] or (i < n and passed[i] is not None):
            found.append(None)
        elif room is not None and room.is_contiguous():
            found.append(room)
        else:
            found.append(torch.empty_like(t))
    given = (_addresses(held), address(grad_kl), _addresses(found[:n]), _addresses(found[n:]))
    if cuda.holds(call.tensors[0]):
        with cuda.launching(call.tensors[0]) as handle:
            cuda.module().normal_many_backward(_on_addresses(call), *given, handle)
    else:
        _cpu.normal_many_backward(_on_addresses(call), *given)
    found[:n] = [one if grad is None else grad for one, grad in zip(found, passed, strict=False)]
    return found


def _on_addresses(call: Call) -> tuple[Any, ...]:
    """As other kernels take a call of contiguous tensors."""
    code, tensors, prior_locs, prior_scales, seed, stream = call
    locs, raw_scales = _halves(tensors)
    return (
        *(DTYPES[locs[0].dtype], code, [loc.numel() for loc in locs]),
        *(_addresses(locs), _addresses(raw_scales), prior_locs, prior_scales),
        *(address(seed), stream),
    )


def _halves(tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    n = len(tensors) // 2
    return tensors[:n], tensors[n:]


def _contiguous(call: Call) -> Call:
    return call._replace(tensors=tuple(t.contiguous() for t in call.tensors))


def _addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    return [address(t) for t in tensors]
