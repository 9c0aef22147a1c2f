"""Maps by mixtures of logistic distributions in plain torch: csrc/rows/mixture_logistic.cpp."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bslfast._precision import in_float32
from bslfast._torch import can_be_read
from bslfast.reference.affine_coupling import reduced

_STEPS = 100


class Components(NamedTuple):
    """How the components' parameters make z of x; all of them [..., K], x and y [..., 1]."""

    #: (z, log dz/dx) from x, what is lost beside x, and the two parameters.
    place: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    #: The x with z = y, from y and the two parameters.
    solutions: Callable[[Tensor, Tensor, Tensor], Tensor]
    #: Whether these may lie far apart even where the mixture's is near.
    broad: bool


@in_float32(values=1)
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
    return transform_by(_LOC_SCALE, x, (logits, loc, log_scale), inverse, reduction)


def transform_by(
    components: Components,
    x: Tensor,
    given: tuple[Tensor, Tensor, Tensor],
    inverse: bool,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The logit of a mixture's distribution function or its inverse; given: logits, parameters."""
    shape = torch.broadcast_shapes(x.shape, *(p.shape[:-1] for p in given))
    none = torch.zeros_like(x)
    if not inverse:
        y, log_slope = _logit_of_cdf(components, x, none, *given)
        return y.expand(shape).clone(), reduced(log_slope.expand(shape), reduction)

    constants = [p.detach() for p in given]
    solution = _solve(components, x.detach(), *constants)
    rest = _rest(components, x.detach(), solution, *constants)
    moved, log_det = implicit(
        lambda at: _logit_of_cdf(components, solution, at, *given), x, rest, shape, reduction
    )
    # At the end of the numbers: beyond it.
    end = solution.abs() > 0.99999 * torch.finfo(x.dtype).max
    return torch.where(end, solution * torch.inf, solution) + moved, log_det


def implicit(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    solution: Tensor,
    shape: torch.Size,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """``solution`` of ``function(solution)[0] = x`` and its log-derivative, differentiable.

    ``function`` returns a rising function and the logarithm of its derivative.
    """
    # Two of Newton's steps, whose values are taken off again, have the derivatives of the exact
    # solution up to the third.
    for _ in range(2):
        y, log_slope = function(solution)
        step = (x - y) * torch.exp(-log_slope)
        # At infinities, and where a component is a jump, there is no step.
        step = torch.where(torch.isfinite(step), step, 0.0)
        solution = solution + (step - step.detach())
    _, log_slope = function(solution)
    return solution.expand(shape).clone(), reduced(-log_slope.expand(shape), reduction)


def twice(half: Tensor) -> Tensor:
    """Where all of z may overflow: no gradient comes from there, not even NaN."""
    most = torch.finfo(half.dtype).max
    finite = half.isfinite() | half.isnan()
    return torch.where(finite, 2 * half, half.detach()).clamp(-most, most)


def _located(x: Tensor, rest: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    # Finite: z is 0 at loc also where the component is a jump.
    rate = torch.exp((-log_scale).clamp(max=math.log(torch.finfo(x.dtype).max)))
    half = (0.5 * x - 0.5 * loc) + 0.5 * rest
    return twice(half * rate), -log_scale


def _quantiles(y: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    root = torch.exp((0.5 * log_scale).clamp(max=0.9 * math.log(torch.finfo(y.dtype).max)))
    x = 2 * (0.5 * loc + (0.5 * y * root) * root)
    # A parameter that is infinite is no overflow.
    given = y + (loc - loc) + (log_scale - log_scale)
    return finite_where(given, torch.where(y == 0, loc, x))


def finite_where(of: Tensor, x: Tensor) -> Tensor:
    """``x``, but the nearest finite number if ``of`` is one."""
    most = torch.finfo(x.dtype).max
    return torch.where(torch.isfinite(of), x.clamp(-most, most), x)


_LOC_SCALE = Components(_located, _quantiles, broad=False)


def _logit_of_cdf(
    components: Components,
    x: Tensor,
    rest: Tensor,
    logits: Tensor,
    first: Tensor,
    second: Tensor,
) -> tuple[Tensor, Tensor]:
    """logit F(x + rest), ``rest`` being lost beside x, and the logarithm of its derivative."""
    weights = logits - logits.amax(dim=-1, keepdim=True).detach()
    at = x.unsqueeze(-1)
    z, log_rate = components.place(at, rest.unsqueeze(-1), first, second)
    z = torch.where(at.isinf(), at.detach(), z)
    zero = z.new_zeros(())
    below, above = -torch.logaddexp(-z, zero), -torch.logaddexp(z, zero)
    log_below, share_below = _log_sum(weights + below)
    log_above, share_above = _log_sum(weights + above)
    y = log_below - log_above
    # The large numbers of a tail are on its own side, and taken off each other first.
    lower = y < 0
    small = torch.where(lower, share_below, share_above)
    log_density = small + torch.where(lower, above, below) + log_rate
    # -log F or -log(1 - F), of the larger one.
    larger = torch.where(lower, torch.logaddexp(y, zero), torch.logaddexp(-y, zero))
    log_slope = _log_sum(log_density)[0] + larger
    return _settled(y).squeeze(-1), _settled(log_slope).squeeze(-1)


def _settled(x: Tensor) -> Tensor:
    """Infinite at the end of the numbers, to which z is bounded."""
    beyond = x.abs() >= torch.finfo(x.dtype).max
    return torch.where(beyond, torch.copysign(x.new_full((), torch.inf), x), x)


def _log_sum(logs: Tensor) -> tuple[Tensor, Tensor]:
    """log of the sum of exp(logs), and the logarithms of its terms' shares.

    torch.logsumexp takes its gradient from what rounding leaves of the share.
    """
    largest = logs.amax(dim=-1, keepdim=True).detach().clamp(min=torch.finfo(logs.dtype).min)
    log_sum = torch.log(torch.exp(logs - largest).sum(dim=-1, keepdim=True))
    return largest + log_sum, logs - largest - log_sum


def _solve(
    components: Components, y: Tensor, logits: Tensor, first: Tensor, second: Tensor
) -> Tensor:
    """The x with logit F(x) = y."""
    bounds = components.solutions(y.unsqueeze(-1), first, second)
    bounds = bounds.expand(torch.broadcast_shapes(bounds.shape, logits.shape))
    low, high = bounds.amin(dim=-1), bounds.amax(dim=-1)
    total = (bounds / 128).sum(dim=-1)  # less than infinity if all are
    x = 0.5 * low + 0.5 * high
    if components.broad:
        # The solution if all sigmoids were straight lines.
        none = torch.zeros_like(y).unsqueeze(-1)
        offset, log_rate = components.place(none, none, first, second)
        weights = torch.softmax(logits, dim=-1)
        rate = (weights * torch.exp(log_rate)).sum(dim=-1)
        straight = (weights * (y.unsqueeze(-1) - offset)).sum(dim=-1) / rate
        inside = (straight >= low) & (straight <= high)
        x = torch.where(inside, straight, 0.5 * low + 0.5 * high)
    x = find_root(
        lambda at: _logit_of_cdf(components, at, torch.zeros_like(at), logits, first, second),
        y,
        1 + y.abs(),
        x,
        low,
        high,
        broad=components.broad,
    )
    # An infinite y is that of an infinite x; there is no solution to look for between such bounds.
    outer = torch.where(low == high, total, torch.nan)
    return torch.where(torch.isfinite(total), x, outer)


def _rest(components: Components, y: Tensor, x: Tensor, *given: Tensor) -> Tensor:
    """What is lost beside a solution x: a component may be narrower than x is exact."""
    rest = torch.zeros_like(x)
    found, log_slope = _logit_of_cdf(components, x, rest, *given)
    for _ in range(20):
        following = rest + (y - found) * torch.exp(-log_slope)
        there, slope_there = _logit_of_cdf(components, x, following, *given)
        better = (y - there).abs() < (y - found).abs()
        if can_be_read(better) and not better.any():
            break
        rest = torch.where(better, following, rest)
        found = torch.where(better, there, found)
        log_slope = torch.where(better, slope_there, log_slope)
    return rest


def find_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    y: Tensor,
    size: Tensor,
    x: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    broad: bool = False,
) -> Tensor:
    """The x with ``function(x)[0] = y`` within rounding errors, ``size`` eps, of it.

    Newton's method from ``x`` between bounds, halving these where it does not get closer; with
    ``broad``, every other time in orders of magnitude.
    """
    last = high - low
    eps = torch.finfo(y.dtype).eps
    for step in range(_STEPS):
        found, log_slope = function(x)
        rest = y - found
        low, high = torch.where(rest > 0, x, low), torch.where(rest < 0, x, high)
        newton = rest * torch.exp(-log_slope)
        there = x + newton
        good = (there >= low) & (there <= high) & (newton.abs() < 0.5 * last)
        near = (rest.abs() <= 2 * eps * size) | (newton.abs() <= eps * x.abs())
        middle = 0.5 * low + 0.5 * high
        wide = broad | (high - low > 1e8)
        middle = torch.where(wide, _middle(low, high, step), middle)
        following = torch.where(near, x, torch.where(good, there, middle))
        last = (following - x).abs()
        x = torch.where(rest.isnan(), rest, following)
        # No further step would change such an x.
        if can_be_read(x) and bool((near | rest.isnan()).all()):
            break
    return x


def _middle(low: Tensor, high: Tensor, step: int) -> Tensor:
    if step % 2:
        return 0.5 * low + 0.5 * high
    middle = torch.sinh(0.5 * torch.asinh(low) + 0.5 * torch.asinh(high))
    return torch.minimum(torch.maximum(middle, low), high)
