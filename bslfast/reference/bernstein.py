"""Maps by Bernstein polynomials in plain torch: csrc/rows/bernstein.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast._formulas import scale_of
from bslfast._precision import in_float32
from bslfast.reference.affine_coupling import reduced
from bslfast.reference.mixture_logistic import find_root, implicit


@in_float32(values=1)
def bernstein_transform(
    x: Tensor,
    raw_coefficients: Tensor,
    *,
    bound: float = 3.0,
    inverse: bool = False,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.bernstein_transform`."""
    shape = torch.broadcast_shapes(x.shape, raw_coefficients.shape[:-1])
    x = x.expand(shape)
    first, steps = raw_coefficients[..., 0], _steps(raw_coefficients)
    if not inverse:
        rise, log_slope = _polynomial(x, steps, bound)
        return first + rise, reduced(log_slope, reduction)

    solution = _solve((x - first).detach(), steps.detach(), bound)

    def value(at: Tensor) -> tuple[Tensor, Tensor]:
        rise, log_slope = _polynomial(at, steps, bound)
        return first + rise, log_slope

    return implicit(value, x, solution, shape, reduction)


def _steps(raw: Tensor) -> Tensor:
    """From each coefficient to the next; none is 0 or infinite."""
    info = torch.finfo(raw.dtype)
    least, most = max(1e-290, info.tiny * info.eps), min(1e290, info.max * 2.0**-12)
    return scale_of(raw[..., 1:], "softplus").clamp(least, most)


def _polynomial(x: Tensor, steps: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """How far the map has risen at x, and the logarithm of its slope; by de Casteljau."""
    degree = steps.shape[-1]
    inside = x.clamp(-bound, bound)
    t, u = ((bound + inside) / (2 * bound), (bound - inside) / (2 * bound))
    t, u = t.unsqueeze(-1), u.unsqueeze(-1)
    sums = torch.cumsum(steps, dim=-1)
    sums = torch.cat((torch.zeros_like(sums[..., :1]), sums[..., :-1]), dim=-1)
    right = t > u

    def between(c: Tensor) -> Tensor:
        # From the nearer one: u + t is not quite 1.
        near = torch.where(right, c[..., 1:], c[..., :-1])
        far = torch.where(right, c[..., :-1], c[..., 1:])
        return near + torch.where(right, u, t) * (far - near)

    for _ in range(degree - 1):
        steps, sums = between(steps), between(sums)
    step = steps.squeeze(-1)
    factor = degree / (2 * bound)
    rise = sums.squeeze(-1) + t.squeeze(-1) * step + factor * step * (x - inside)
    # NaN where x is, also if the degree is 1.
    return rise, torch.log(factor * step) + 0 * inside


def _solve(rise: Tensor, steps: Tensor, bound: float) -> Tensor:
    factor = steps.shape[-1] / (2 * bound)
    top = steps.sum(dim=-1)
    below = rise / (factor * steps[..., 0]) - bound
    above = (rise - top) / (factor * steps[..., -1]) + bound
    end = torch.full_like(rise, bound)
    # There is a root for each: where x is outside, that at the end.
    within = torch.minimum(rise.clamp(min=0), top)
    inside = find_root(
        lambda at: _polynomial(at, steps, bound), within, within.abs(), 0 * end, -end, end
    )
    return torch.where(rise <= 0, below, torch.where(rise >= top, above, inside))
