"""Networks whose weights are drawn: outputs for one draw as one node of the graph, or for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._native import serial_after_fork
from bslfast.functional._op import differentiated, runs_eagerly
from bslfast.programs import running
from bslfast.programs.running import Lowered, Seeds, backward, forward

#: (seeds, x, ..., *parameters) -> results, the same by ops with these parameters.
ByOps = Callable[..., Sequence[Tensor]]


def outputs(found: Lowered, by_ops: ByOps, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Outputs [..., results] for one draw of all weights by one seed, and a place in the graph.

    The place has the gradient of the divergence, and no value. It is None without a graph.

    Args:
        found: a program that can run on ``x`` [..., features].
        by_ops: (seeds, x, *parameters) -> (outputs, divergence), for second derivatives.
    """
    rows = x.reshape(-1, x.shape[-1])
    seeds = found.draws.seeds()
    place = None
    if torch.is_grad_enabled() and (
        x.requires_grad or any(p.requires_grad for p in found.parameters)
    ):
        y, place = _Drawn.apply(  # type: ignore[no-untyped-call]
            found, by_ops, seeds, rows, *found.parameters
        )
    else:
        y = forward(found, rows, None, log=False, seeds=seeds)[0]
    return y if x.ndim == 2 else y.view(*x.shape[:-1], y.shape[-1]), place


def loss(found: Lowered, by_ops: ByOps, x: Tensor, y: Tensor, kl_weight: float) -> Tensor:
    """The mean of the rows' negative logarithms for one draw, with so much of the divergence.

    The gradients of all parameters are worked out along with it.

    Args:
        found: a program that can run on rows ``x`` and their context ``y``.
        by_ops: (seeds, x, y, *parameters) -> (loss,), for second derivatives.
        kl_weight: the factor of the divergence.
    """
    result: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
        found, by_ops, found.draws.seeds(), kl_weight, x, y, *found.parameters
    )
    return result


class _Loss(torch.autograd.Function):
    """A loss as one node, which has its gradients from the start."""

    @staticmethod
    def forward(
        ctx: Any,
        found: Lowered,
        by_ops: ByOps,
        seeds: Seeds,
        kl_weight: float,
        x: Tensor,
        y: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.found, ctx.by_ops, ctx.seeds, ctx.kl_weight = found, by_ops, seeds, kl_weight
        ctx.versions = found.versions()
        ctx.save_for_backward(x, y)
        result: Tensor
        result, *ctx.grads = _loss(ctx, x, y)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        found: Lowered = ctx.found
        x, y = ctx.saved_tensors
        found.check_unchanged(ctx.versions, grad.dtype)
        if torch.is_grad_enabled() or not runs_eagerly((grad,)):
            again = differentiated(
                lambda *tensors: ctx.by_ops(ctx.seeds, *tensors),
                (x, y, *found.parameters),
                ctx.needs_input_grad[4:],
                (grad,),
            )
            return None, None, None, None, *again
        return _pull_back_loss(ctx, found, x, y, grad)


@serial_after_fork
def _pull_back_loss(ctx: Any, found: Lowered, x: Tensor, y: Tensor, grad: Tensor) -> Any:
    # Whoever gets gradients may add to them: they are computed again for the next pass.
    grads, ctx.grads = ctx.grads, None
    if grads is None:
        _, *grads = _loss(ctx, x, y)
    if grad.item() != 1:
        grads = [None if g is None else g * grad for g in grads]
    grad_x, grad_y, flat = grads
    return None, None, None, None, grad_x, grad_y, *found.parts(flat, ctx.needs_input_grad[6:])


def _loss(ctx: Any, x: Tensor, y: Tensor) -> Any:
    """The loss and its gradients, for the node of ``ctx``."""
    return running.loss(
        ctx.found, x, y, ctx.needs_input_grad[4:], seeds=ctx.seeds, kl_weight=ctx.kl_weight
    )


def samples(found: Lowered, x: Tensor, n_samples: int) -> Tensor:
    """Outputs [n_samples, ..., results], each for a draw of all weights; without a graph.

    The draws are those of ``rsample(sample_shape=(n_samples,))`` of each tensor of weights.
    """
    rows = x.reshape(-1, x.shape[-1])
    count = found.draws.count
    seeds = _checks.seeds(count), [0] * count
    y, _ = forward(found, rows, None, log=False, n_draws=n_samples, seeds=seeds)
    assert y is not None
    return y.view(n_samples, *x.shape[:-1], y.shape[-1])


class _Drawn(torch.autograd.Function):
    """A program as one node: it keeps x, the parameters and the seeds, and computes the rest."""

    @staticmethod
    def forward(
        ctx: Any,
        found: Lowered,
        by_ops: ByOps,
        seeds: Seeds,
        x: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        ctx.found, ctx.by_ops, ctx.seeds = found, by_ops, seeds
        # Parameters are not saved as tensors are: it would take 1 us for each.
        ctx.save_for_backward(x)
        ctx.versions = found.versions()
        ctx.set_materialize_grads(False)
        return forward(found, x, None, log=False, seeds=seeds)[0], x.new_empty(())

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, grad_kl: Tensor | None) -> Any:
        found: Lowered = ctx.found
        (x,) = ctx.saved_tensors
        found.check_unchanged(ctx.versions, x.dtype)
        grads = [g for g in (grad_y, grad_kl) if g is not None]
        if not torch.is_grad_enabled() and runs_eagerly(grads):
            return _pull_back(ctx, x, grad_y, grad_kl)
        again = differentiated(
            lambda *tensors: ctx.by_ops(ctx.seeds, *tensors),
            (x, *found.parameters),
            ctx.needs_input_grad[3:],
            (grad_y, grad_kl),
        )
        return None, None, None, *again


@serial_after_fork
def _pull_back(ctx: Any, x: Tensor, grad_y: Tensor | None, grad_kl: Tensor | None) -> Any:
    found, needs = ctx.found, ctx.needs_input_grad[3:]
    grad_x, _, flat = backward(
        found,
        x,
        None,
        (grad_y, None),
        (needs[0], False, *needs[1:]),
        seeds=ctx.seeds,
        grad_kl=0.0 if grad_kl is None else grad_kl.item(),
    )
    return None, None, None, grad_x, *found.parts(flat, needs[1:])
