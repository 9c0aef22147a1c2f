"""Maps by mixtures of logistic distributions in plain torch: csrc/cpu/mixture_logistic.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast.reference.affine_coupling import reduced

_STEPS = 100


def mixture_logistic_transform(
    x: Tensor,
    logits: Tensor,
    loc: Tensor,
    log_scale: Tensor,
    *,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.mixture_logistic_transform`."""
    shape = torch.broadcast_shapes(x.shape, *(p.shape[:-1] for p in (logits, loc, log_scale)))
    if not inverse:
        y, log_slope = _logit_of_cdf(x, logits, loc, log_scale)
        return y.expand(shape).clone(), reduced(log_slope.expand(shape), reduction)

    given = (logits, loc, log_scale)
    solution = _solve(x.detach(), *(p.detach() for p in given))
    # Two of Newton's steps, whose values are taken off again, have the derivatives of the exact
    # solution up to the third.
    for _ in range(2):
        y, log_slope = _logit_of_cdf(solution, *given)
        step = (x - y) * torch.exp(-log_slope)
        # At infinities, and where a component is a jump, there is no step.
        step = torch.where(torch.isfinite(step), step, 0.0)
        solution = solution + (step - step.detach())
    _, log_slope = _logit_of_cdf(solution, *given)
    return solution.expand(shape).clone(), reduced(-log_slope.expand(shape), reduction)


def _logit_of_cdf(
    x: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor]:
    """logit F(x), and the logarithm of its derivative."""
    weights = logits - logits.amax(dim=-1, keepdim=True).detach()
    # Finite: z is 0 at loc also where the component is a jump.
    rate = torch.exp(-log_scale).clamp(max=torch.finfo(x.dtype).max)
    z = (x.unsqueeze(-1) - loc) * rate
    zero = z.new_zeros(())
    below, above = -torch.logaddexp(-z, zero), -torch.logaddexp(z, zero)
    log_below, share_below = _log_sum(weights + below)
    log_above, share_above = _log_sum(weights + above)
    y = log_below - log_above
    # The large numbers of a tail are on its own side, and taken off each other first.
    lower = y < 0
    small = torch.where(lower, share_below, share_above)
    log_density = small + torch.where(lower, above, below) - log_scale
    # -log F or -log(1 - F), of the larger one.
    larger = torch.where(lower, torch.logaddexp(y, zero), torch.logaddexp(-y, zero))
    log_slope = _log_sum(log_density)[0] + larger
    return y.squeeze(-1), log_slope.squeeze(-1)


def _log_sum(logs: Tensor) -> tuple[Tensor, Tensor]:
    """log of the sum of exp(logs), and the logarithms of its terms' shares.

    torch.logsumexp takes its gradient from what rounding leaves of the share.
    """
    largest = logs.amax(dim=-1, keepdim=True).detach().clamp(min=torch.finfo(logs.dtype).min)
    log_sum = torch.log(torch.exp(logs - largest).sum(dim=-1, keepdim=True))
    return largest + log_sum, logs - largest - log_sum


def _solve(y: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """The x with logit F(x) = y: Newton's method, bisections where it does not get closer."""
    bounds = loc + torch.exp(log_scale) * y.unsqueeze(-1)
    bounds = bounds.expand(torch.broadcast_shapes(bounds.shape, logits.shape))
    low, high, total = bounds.amin(dim=-1), bounds.amax(dim=-1), bounds.sum(dim=-1)
    last = high - low
    x = low + 0.5 * last
    eps = torch.finfo(y.dtype).eps
    for _ in range(_STEPS):
        found, log_slope = _logit_of_cdf(x, logits, loc, log_scale)
        rest = y - found
        low, high = torch.where(rest > 0, x, low), torch.where(rest < 0, x, high)
        newton = rest * torch.exp(-log_slope)
        there = x + newton
        good = (there >= low) & (there <= high) & (newton.abs() < 0.5 * last)
        near = (rest.abs() <= 2 * eps * (1 + y.abs())) | (newton.abs() <= eps * x.abs())
        middle = low + 0.5 * (high - low)
        following = torch.where(near, x, torch.where(good, there, middle))
        last = (following - x).abs()
        x = torch.where(rest.isnan(), rest, following)
    # An infinite y is that of an infinite x; there is no solution to look for between such bounds.
    outer = torch.where(low == high, total, torch.nan)
    return torch.where(torch.isfinite(total), x, outer)
