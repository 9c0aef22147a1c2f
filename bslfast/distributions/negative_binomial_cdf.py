"""The distribution function of the negative binomial, from both sides.

With p = r / (r + mu), q = 1 - p and b = y + 1, P(count > y) is the incomplete beta function
I_q(b, r), and P(count <= y) is I_p(r, b), the sum of I_p(r + 1, b) and p^r q^b / (r B(r, b)).
Either is the chance of y itself times a continued fraction of positive terms, each on its side of
b p = (r + 1) q. Where a median lies far from there (r << 1) the smaller chance is 1 less the other.

Source: Didonato and Morris, "Algorithm 708: significant digit computation of the incomplete beta
function ratios" (1992, doi:10.1145/131766.131776), functions BFRAC and BUP.
"""

from __future__ import annotations

import torch
from torch import Tensor

import bslfast.functional as BF

#: It takes about as many steps as the square root of a and b, if they are large.
_STEPS = 20000


def at_most_and_more(log_rate: Tensor, log_total_count: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """P(count <= y) and P(count > y), in float64, without gradients."""
    tensors = (log_rate.double(), log_total_count.double(), y.double().floor())
    log_rate, log_total_count, y = torch.broadcast_tensors(*(t.detach() for t in tensors))
    count = y.clamp_min(0)
    log_odds = log_rate - log_total_count
    p, q = torch.sigmoid(-log_odds), torch.sigmoid(log_odds)
    r, b = log_total_count.exp(), count + 1
    chance = BF.negative_binomial_log_prob(count, log_rate, log_total_count, reduction="none").exp()
    above = p * b > (r + 1) * q
    first, second = torch.where(above, b, r + 1), torch.where(above, r, b)
    x, rest = torch.where(above, q, p), torch.where(above, p, q)
    fraction = _fraction(first, second, x, rest, (first * rest - second * x).clamp_min(0))
    chance = chance * ((r + count) * q)
    found = torch.where(above, chance * fraction, chance / r * (1 + p * (r + b) * fraction))
    at_most, more = torch.where(above, 1 - found, found), torch.where(above, found, 1 - found)
    outside = y < 0
    return torch.where(outside, 0.0, at_most), torch.where(outside, 1.0, more)


def _fraction(a: Tensor, b: Tensor, x: Tensor, y: Tensor, excess: Tensor) -> Tensor:
    """I_x(a, b) over x^a y^b / B(a, b), y = 1 - x, given excess = a y - b x >= 0."""
    c, c0, c1 = 1 + excess, b / a, 1 + 1 / a
    above, below = torch.zeros_like(a), torch.ones_like(a)  # the last convergent
    next_above, next_below = torch.ones_like(a), c / c1
    found = c1 / c
    p, s = torch.ones_like(a), a + 1
    for n in range(1, _STEPS):
        t, w = n / a, n * (b - n) * x
        e = a / s
        alpha = p * (p + c0) * e * e * (w * x)
        beta = n + w / s + (1 + t) / (c1 + 2 * t) * (c + n * (1 + y))
        p, s = 1 + t, s + 2
        above, next_above = next_above, alpha * above + beta * next_above
        below, next_below = next_below, alpha * below + beta * next_below
        before, found = found, next_above / next_below
        if not bool(((found - before).abs() > 1e-15 * found).any()):
            break
        above, below = above / next_below, below / next_below
        next_above, next_below = found, torch.ones_like(a)
    return found
