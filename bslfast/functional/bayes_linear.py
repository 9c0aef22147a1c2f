"""A linear map with normal weights: one graph node for the sample, the KL and the product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import _checks
from bslfast._native import multivariate_normal as native_vector
from bslfast._native import normal_many as native
from bslfast._native import serial_after_fork
from bslfast._native._operands import PARAMETRIZATIONS as _NUMBERED
from bslfast.functional._op import NOTHING, apply_of, common, differentiated, runs_eagerly
from bslfast.functional._pointwise import PARAMETRIZATIONS
from bslfast.functional.multivariate_normal import kernels_take, vector_by_ops
from bslfast.functional.normal_many import draw_many, normal_rsample_kl_many


def bayes_linear(
    x: Tensor,
    weight_loc: Tensor,
    weight_raw_scale: Tensor,
    bias_loc: Tensor | None = None,
    bias_raw_scale: Tensor | None = None,
    *,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
    seed: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""``x @ W.T + b`` with W and b drawn from normal distributions, and their KL divergence.

    What ``normal_rsample_kl`` for the weight (stream 0) and for the bias (stream 1) followed by
    ``torch.nn.functional.linear`` compute. In eager mode on the CPU it is one node of the graph,
    whose backward writes the gradients of the means over that of the sampled weight.

    Args:
        x: inputs [..., in_features].
        weight_loc, weight_raw_scale: [out_features, in_features].
        bias_loc, bias_raw_scale: [out_features], or None, both.
        prior_loc, prior_scale: numbers, of the normal prior of every weight and bias.
        parametrization, seed: as in :func:`bslfast.functional.normal_rsample`.

    Returns:
        (y [..., out_features], the sum of the KL divergences of weight and bias).

    Raises:
        TypeError, ValueError: a wrong dtype, shape, device, parametrization or prior; only one of
            the bias' two parameters.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import torch, bslfast.functional as BF
    >>> y, kl = BF.bayes_linear(torch.ones(5, 3), torch.zeros(2, 3), torch.zeros(2, 3), seed=0)
    >>> y.shape, kl.shape
    (torch.Size([5, 2]), torch.Size([]))
    """
    y, kl = drawn_linear(
        x,
        weight_loc,
        weight_raw_scale,
        bias_loc,
        bias_raw_scale,
        prior_loc=prior_loc,
        prior_scale=prior_scale,
        parametrization=parametrization,
        seed=seed,
        has_value=True,
    )
    assert kl is not None
    return y, kl


def drawn_linear(
    x: Tensor,
    weight_loc: Tensor,
    weight_raw_scale: Tensor,
    bias_loc: Tensor | None,
    bias_raw_scale: Tensor | None,
    *,
    prior_loc: float,
    prior_scale: float,
    parametrization: str,
    seed: int | Tensor | None,
    has_value: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As :func:`bayes_linear`, but the divergence has a value only if ``has_value``.

    Without one it is as in :func:`bslfast.functional.normal_many.draw_many`.
    """
    if (bias_loc is None) != (bias_raw_scale is None):
        given, missing = ("bias_loc", "bias_raw_scale")[:: 1 if bias_raw_scale is None else -1]
        raise ValueError(f"{missing}: expected a tensor, as {given} is one, got None")
    if _checks.operand("weight_loc", weight_loc).dim() != 2:
        raise ValueError(
            f"weight_loc: expected shape [out_features, in_features], got {list(weight_loc.shape)}"
        )
    out_features, in_features = weight_loc.shape
    x = checked_input(x, weight_loc)
    for name, value, shape in (
        ("weight_raw_scale", weight_raw_scale, (out_features, in_features)),
        ("bias_loc", bias_loc, (out_features,)),
        ("bias_raw_scale", bias_raw_scale, (out_features,)),
    ):
        if value is None:
            continue
        _checks.alike(name, _checks.operand(name, value), "weight_loc", weight_loc)
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {list(shape)}, got {list(value.shape)}")
    _checks.choice("parametrization", parametrization, PARAMETRIZATIONS)
    prior_loc = _checks.number("prior_loc", prior_loc)
    prior_scale = _checks.number("prior_scale", prior_scale, above=0.0)
    seed = _checks.seed(seed, weight_loc.device)
    constants = (prior_loc, prior_scale, parametrization, has_value)
    tensors = (x, weight_loc, weight_raw_scale, bias_loc, bias_raw_scale, seed)
    # Autocast wants the product in a lower precision than sample and KL: leave it to torch.
    if not torch.is_autocast_enabled(x.device.type) and runs_eagerly(
        [t for t in tensors if t is not None]
    ):
        apply: Any = _BayesLinear.apply
        result: tuple[Tensor, Tensor] = apply(*tensors, *constants)
        return result
    return _composed(*tensors, *constants)


def checked_input(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` as what a weight [out_features, in_features] can be applied to."""
    x = _checks.operand("x", x)
    _checks.alike("x", x, "weight_loc", weight)
    if x.dim() == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x: expected shape [..., {weight.shape[1]}], got {list(x.shape)}")
    return x


def _composed(
    x: Tensor,
    weight_loc: Tensor,
    weight_raw_scale: Tensor,
    bias_loc: Tensor | None,
    bias_raw_scale: Tensor | None,
    seed: Tensor,
    prior_loc: float,
    prior_scale: float,
    parametrization: str,
    has_value: bool,
) -> tuple[Tensor, Tensor | None]:
    """The same from its parts: for torch.compile, torch.func, second derivatives, other devices."""
    drawn: Any = normal_rsample_kl_many if has_value else draw_many
    sample, kl = drawn(
        [weight_loc, *(() if bias_loc is None else (bias_loc,))],
        [weight_raw_scale, *(() if bias_raw_scale is None else (bias_raw_scale,))],
        prior_loc=prior_loc,
        prior_scale=prior_scale,
        parametrization=parametrization,
        seed=seed,
    )
    return F.linear(x, *sample), kl


class _BayesLinear(torch.autograd.Function):
    @staticmethod
    @serial_after_fork
    def forward(
        ctx: Any,
        x: Tensor,
        weight_loc: Tensor,
        weight_raw_scale: Tensor,
        bias_loc: Tensor | None,
        bias_raw_scale: Tensor | None,
        seed: Tensor,
        *constants: Any,
    ) -> tuple[Tensor, Tensor]:
        sample, kl = _draw(weight_loc, weight_raw_scale, bias_loc, bias_raw_scale, seed, constants)
        weight = sample[0]
        needs_weight = ctx.needs_input_grad[0]
        ctx.save_for_backward(
            x,
            weight_loc,
            weight_raw_scale,
            bias_loc,
            bias_raw_scale,
            seed,
            weight if needs_weight else None,
        )
        ctx.constants = constants
        ctx.weight_is_overwritten = False
        ctx.set_materialize_grads(False)
        return F.linear(x, *sample), kl

    @staticmethod
    @serial_after_fork
    def backward(ctx: Any, grad_y: Tensor | None, grad_kl: Tensor | None) -> Any:
        *inputs, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        # create_graph=True, or gradients that kernels cannot read (batched ones, say).
        given = [g for g in (grad_y, grad_kl) if g is not None]
        if torch.is_grad_enabled() or not runs_eagerly(given):
            constants = (*ctx.constants[:-1], True)

            def composed(*tensors: Any) -> Any:
                return _composed(*tensors, *constants)

            found = differentiated(composed, inputs, needs, (grad_y, grad_kl))
            return (*found, *(None,) * len(constants))
        x, weight_loc, weight_raw_scale, bias_loc, bias_raw_scale, seed = inputs
        grad_x = grad_weight = grad_bias = None
        if weight is not None and ctx.weight_is_overwritten:
            ([weight], _) = _draw(
                weight_loc, weight_raw_scale, None, None, seed, (*ctx.constants[:-1], False)
            )
        if grad_y is not None:
            rows = _rows(grad_y)
            if needs[0]:
                grad_x = grad_y @ weight
            if needs[1] or needs[2]:
                grad_weight = rows.t() @ _rows(x)
            if needs[3] or needs[4]:
                grad_bias = rows.sum(dim=0)
        # Once grad_x is known nobody reads the sampled weight: its memory is as good as fresh one,
        # without the page faults. A second backward draws the weight again.
        ctx.weight_is_overwritten = True
        n = 1 if bias_loc is None else 2
        locs, raw_scales = (weight_loc, bias_loc)[:n], (weight_raw_scale, bias_raw_scale)[:n]
        prior_loc, prior_scale, parametrization, _ = ctx.constants
        code = _NUMBERED[parametrization]
        tensors = (*locs, *raw_scales)
        call = native.Call(code, tensors, (prior_loc,) * n, (prior_scale,) * n, seed, 0)
        found = native.backward(
            (grad_weight, grad_bias)[:n],
            *(grad_kl, call, (*needs[1::2][:n], *needs[2::2][:n])),
            into=(*(grad_weight, grad_bias)[:n], *(weight, None)[:n]),
        )
        grads: list[Tensor | None] = [None] * 10
        grads[0] = grad_x
        grads[1 : 1 + 2 * n : 2], grads[2 : 2 + 2 * n : 2] = found[:n], found[n:]
        return tuple(grads)


def _rows(t: Tensor) -> Tensor:
    """[..., n] as a matrix, also of no columns, where -1 says nothing."""
    return t if t.dim() == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def _draw(
    weight_loc: Tensor,
    weight_raw_scale: Tensor,
    bias_loc: Tensor | None,
    bias_raw_scale: Tensor | None,
    seed: Tensor,
    constants: tuple[Any, ...],
) -> tuple[list[Tensor], Tensor]:
    """A sample of the weight, and of the bias if there is one; and the sum of their divergences."""
    prior_loc, prior_scale, parametrization, has_value = constants
    locs = [weight_loc] if bias_loc is None else [weight_loc, bias_loc]
    raw_scales = (
        [weight_raw_scale] if bias_raw_scale is None else [weight_raw_scale, bias_raw_scale]
    )
    n = len(locs)
    try:
        code = _NUMBERED[parametrization]
        tensors = (*locs, *raw_scales)
        call = native.Call(code, tensors, (prior_loc,) * n, (prior_scale,) * n, seed, 0)
        return native.forward(call, has_value)
    except ValueError as error:
        message = str(error).replace("raw_scale[0]", "weight_raw_scale")
        raise ValueError(message.replace("raw_scale[1]", "bias_raw_scale")) from None


def drawn_vector_linear(
    x: Tensor,
    loc: Sequence[Tensor],
    raw_scale: Tensor,
    lower: Tensor,
    *,
    prior_loc: float,
    prior_scale: float,
    parametrization: str,
    seed: int | Tensor | None,
) -> tuple[Tensor, Tensor] | None:
    """A linear map by weights that :func:`multivariate_normal.draw_vector` draws, in one node.

    Args:
        loc: the means of the weight and, if there is one, of the bias.

    Returns:
        (y, a divergence without a value); None if kernels cannot be called directly.
    """
    x = checked_input(x, loc[0])
    tensors = (*loc, raw_scale, lower)
    directly = common((x,)) != NOTHING and kernels_take(tensors, seed)
    if not directly or torch.is_autocast_enabled(x.device.type):
        return None
    constants = (0, (), parametrization, prior_loc, prior_scale)
    result: tuple[Tensor, Tensor] = _vector_linear(
        x, _checks.seed(seed, x.device), constants, *tensors
    )
    return result


class _VectorLinear(torch.autograd.Function):
    @staticmethod
    @serial_after_fork
    def forward(
        ctx: Any, x: Tensor, seed: Tensor, constants: tuple[Any, ...], *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        *locs, raw_scale, lower = tensors
        sample, kl = native_vector.forward(
            locs, raw_scale, lower, seed, *constants, has_value=False
        )
        ctx.save_for_backward(x, seed, sample if ctx.needs_input_grad[0] else None, *tensors)
        ctx.constants = constants
        ctx.set_materialize_grads(False)
        return F.linear(x, *_parts(sample, locs)), kl

    @staticmethod
    @serial_after_fork
    def backward(ctx: Any, grad_y: Tensor | None, grad_kl: Tensor | None) -> Any:
        x, seed, sample, *tensors = ctx.saved_tensors
        (needs_x, _, _, *needs), constants = ctx.needs_input_grad, ctx.constants
        # create_graph=True, or gradients that kernels cannot read (batched ones, say).
        if torch.is_grad_enabled() or common((grad_y, grad_kl)) == NOTHING:

            def composed(x: Tensor, *tensors: Tensor) -> Any:
                sample, kl = vector_by_ops(tensors, seed, constants)
                return F.linear(x, *_parts(sample, tensors[:-2])), kl

            found = differentiated(composed, (x, *tensors), (needs_x, *needs), (grad_y, grad_kl))
            return found[0], None, None, *found[1:]
        *locs, raw_scale, lower = tensors
        grad_x, grad_samples = None, []
        if grad_y is not None:
            if needs_x:
                grad_x = grad_y @ _parts(sample, locs)[0]
            rows = _rows(grad_y)
            grad_samples = [rows.t() @ _rows(x), rows.sum(0)][: len(locs)]
        call: Any = (grad_samples, grad_kl, locs, raw_scale, lower, seed, *constants, needs)
        return grad_x, None, None, *native_vector.backward(*call)


_vector_linear = apply_of(_VectorLinear)


def _parts(flat: Tensor, like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A weight, and the bias if there is one, which are parts of a vector."""
    weight = like[0]
    if len(like) == 1:
        return (flat.view(weight.shape),)
    n = weight.numel()
    return flat[:n].view(weight.shape), flat[n:]
