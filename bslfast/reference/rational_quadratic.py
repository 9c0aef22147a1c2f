"""Rational-quadratic splines in plain torch, as csrc/core/bijectors/rational_quadratic.h has them.

Computed in float64 and rounded once, whatever the dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._formulas import bound_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced


def rational_quadratic_spline(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    derivatives: Tensor,
    *,
    inverse: bool = False,
    tails: str | None = "linear",
    bound: float = 3.0,
    min_bin_width: float = 1e-3,
    min_bin_height: float = 1e-3,
    min_derivative: float = 1e-3,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.rational_quadratic_spline`."""
    least = (min_bin_width, min_bin_height, min_derivative)
    bound = bound_of(x.dtype, bound)  # before x is float32: its own dtype rounds y
    return _spline(x, widths, heights, derivatives, inverse, tails, bound, least, reduction)


@in_float32(values=1)
def _spline(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    derivatives: Tensor,
    inverse: bool,
    tails: str | None,
    bound: float,
    least: tuple[float, float, float],
    reduction: str,
) -> tuple[Tensor, Tensor]:
    min_bin_width, min_bin_height, min_derivative = least
    shape = torch.broadcast_shapes(
        x.shape, widths.shape[:-1], heights.shape[:-1], derivatives.shape[:-1]
    )
    position = x.double().expand(shape)
    # The dtype's own idea of the bound, so that x = bound lies inside in every dtype.
    edge = torch.tensor(bound, dtype=x.dtype, device=x.device).double()
    if tails == "circular":
        inside = torch.ones_like(position, dtype=torch.bool)
        turns = torch.round(position / (2 * bound))
        wrapped = position - 2 * bound * turns
        # The clamp takes off rounding errors alone: the slope is 1 all the same.
        inner = wrapped + (wrapped.clamp(-bound, bound) - wrapped).detach()
    else:
        inside = ~((position < -edge) | (position > edge))  # NaN goes through the spline
        inner = position + (position.clamp(-bound, bound) - position).detach()

    # Outside, nothing may reach the parameters' gradients: not even 0 * NaN.
    def sane(parameter: Tensor) -> Tensor:
        return torch.where(inside.unsqueeze(-1), parameter.double(), 0.0)

    inner = torch.where(inside, inner, 0.0)
    width_knots, width = knots_of(sane(widths), bound, min_bin_width)
    height_knots, height = knots_of(sane(heights), bound, min_bin_height)
    slopes = slopes_of(sane(derivatives), tails, min_derivative)

    searched = height_knots if inverse else width_knots
    index = (inner.unsqueeze(-1) >= searched[..., 1:-1]).sum(dim=-1, keepdim=True)

    def at(values: Tensor, offset: int = 0) -> Tensor:
        return values.gather(-1, index + offset).squeeze(-1)

    w, h, d0, d1 = at(width), at(height), at(slopes), at(slopes, 1)
    s = h / w
    # Distances from both knots, in units of the bin: xi + om = 1, and neither comes from the other.
    if inverse:
        u = (inner - at(height_knots)) / h
        v = (at(height_knots, 1) - inner) / h
        xi, om, root = _solve(u, v, s, d0, d1)
        y = at(width_knots) + w * xi
    else:
        xi = (inner - at(width_knots)) / w
        om = (at(width_knots, 1) - inner) / w
    denominator = s * (xi * xi + om * om) + (d0 + d1) * xi * om
    if inverse:
        log_det = denominator.log() - root.log() - s.log()
    else:
        y = at(height_knots) + h * (xi * (s * xi + d0 * om) / denominator)
        numerator = d1 * xi * xi + 2 * s * xi * om + d0 * om * om
        log_det = 2 * s.log() + numerator.log() - 2 * denominator.log()
    y = y + (y.clamp(-bound, bound) - y).detach()  # which takes off rounding errors alone as well

    if tails == "affine":
        ends = torch.where(inside.unsqueeze(-1), 0.0, derivatives.double()[..., [0, -1]])
        slopes = slopes_of(ends, None, min_derivative)
        outer, outer_log_det = _along_tails(position, inside, slopes, bound, inverse)
    else:
        identity = tails == "linear"
        outer = position if identity else torch.full_like(position, torch.nan)
        outer_log_det = torch.full_like(position, 0.0 if identity else torch.nan)
    y = torch.where(inside, y, outer)
    log_det = torch.where(inside, log_det, outer_log_det)
    return y.to(x.dtype), reduced(log_det, reduction).to(x.dtype)


def _solve(u: Tensor, v: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, ...]:
    """xi, 1 - xi and the root of the discriminant, from distances to the knots in y.

    The discriminant is a sum of squares and the quadratic's solution a ratio of positive numbers:
    nothing cancels.
    """
    e = d0 * v - d1 * u
    q = 4 * s * s * u * v
    root = torch.sqrt(e * e + q)
    positive = e >= 0
    # where() twice: the branch not taken must not send NaN into the gradient.
    divisor = torch.where(positive, 1.0, root - e)
    r = torch.where(positive, root + e, q / divisor)
    su = 2 * s * u
    return su / (su + r), r / (su + r), root


def _along_tails(
    position: Tensor, inside: Tensor, slopes: Tensor, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Lines through the ends of the spline, with its slopes there; anything inside."""
    before = position < 0
    slope = torch.where(before, slopes[..., 0], slopes[..., 1])
    end = torch.where(before, -bound, bound)
    excess = torch.where(inside, 0.0, position - end)
    if inverse:
        return end + excess / slope, -slope.log()
    return end + excess * slope, slope.log()


def knots_of(logits: Tensor, bound: float, minimum: float) -> tuple[Tensor, Tensor]:
    """Knots [..., K + 1] from -bound to bound, and the bins' sizes [..., K]."""
    bins = logits.shape[-1]
    sizes = 2 * bound * (minimum + (1 - minimum * bins) * torch.softmax(logits, dim=-1))
    inner = sizes[..., :-1].cumsum(dim=-1) - bound
    end = torch.full_like(sizes[..., :1], bound)
    return torch.cat([-end, inner, end], dim=-1), sizes


def slopes_of(logits: Tensor, tails: str | None, minimum: float) -> Tensor:
    """Slopes at the knots, [..., K + 1]."""
    slopes = minimum + torch.logaddexp(logits, logits.new_zeros(()))
    if tails == "linear":
        one = slopes.new_ones((*slopes.shape[:-1], 1))
        return torch.cat([one, slopes, one], dim=-1)
    if tails == "circular":
        return torch.cat([slopes, slopes[..., :1]], dim=-1)
    return slopes
