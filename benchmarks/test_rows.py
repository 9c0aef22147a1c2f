"""Counts, pixels, mixtures, maps by mixtures, importance-weighted bounds, samples of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from harness import Case, Function, parametrize, run
from torch import Tensor

import bslfast.functional as BF
from bslfast.distributions import Normal

#: Rows and columns.
SIZES = {"128x784": (128, 784), "4096x64": (4096, 64), "8192x784": (8192, 784)}
#: Samples in front of a batch, and behind it.
SAMPLES = {"50x128": (50, 128), "1000x1024": (1000, 1024)}
#: Rows and columns, of elements with a mixture each.
MIXED = {"128x784": (128, 784), "1024x64": (1024, 64)}
COMPONENTS = 10
DEGREE = 16
#: Rows and classes.
CLASSES = {"4096x10": (4096, 10), "4096x64": (4096, 64), "4096x1000": (4096, 1000)}


def poisson_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    log_rate = torch.randn(shape)
    return torch.poisson(log_rate.exp()), log_rate.requires_grad_()


def eager_poisson(x: Tensor, log_rate: Tensor) -> Tensor:
    return (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).sum(-1)


def negative_binomial_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    x, log_rate = poisson_inputs(shape)
    return x, log_rate, torch.randn(shape[-1]).requires_grad_()


def eager_negative_binomial(x: Tensor, log_rate: Tensor, log_total_count: Tensor) -> Tensor:
    """As torch.distributions has it."""
    total, logits = log_total_count.exp(), log_rate - log_total_count
    likely = total * F.logsigmoid(-logits) + x * F.logsigmoid(logits)
    normaliser = torch.lgamma(total + x) - torch.lgamma(1 + x) - torch.lgamma(total)
    return (likely + normaliser).sum(-1)


def logistic_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    x = torch.randint(0, 256, shape) / 127.5 - 1
    # No bin has a probability below 1e-5, where the peer has no digits.
    loc = x + 0.2 * torch.randn(shape).clamp(-3, 3)
    raw = 0.3 * torch.randn(shape).clamp(-3, 3) - 2
    return x, loc.requires_grad_(), raw.requires_grad_()


def eager_logistic(x: Tensor, loc: Tensor, raw: Tensor) -> Tensor:
    """The formulas of PixelCNN++, without its approximation for small probabilities."""
    h = 1 / 255
    centred, inverse = x - loc, torch.exp(-raw)
    a, b = inverse * (centred + h), inverse * (centred - h)
    inside = torch.log((torch.sigmoid(a) - torch.sigmoid(b)).clamp_min(1e-12))
    edges = torch.where(x > 0.999, -F.softplus(b), inside)
    return torch.where(x < -0.999, F.logsigmoid(a), edges).sum(-1)


def mixture_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    x = torch.randint(0, 256, shape) / 127.5 - 1
    rows = (*shape, COMPONENTS)
    loc = x.unsqueeze(-1) + 0.2 * torch.randn(rows).clamp(-3, 3)
    raw = 0.3 * torch.randn(rows).clamp(-3, 3) - 2
    return x, torch.randn(rows).requires_grad_(), loc.requires_grad_(), raw.requires_grad_()


def eager_mixture(x: Tensor, logits: Tensor, loc: Tensor, raw: Tensor) -> Tensor:
    """The formulas of PixelCNN++, without its approximation for small probabilities."""
    x, h = x.unsqueeze(-1), 1 / 255
    centred, inverse = x - loc, torch.exp(-raw)
    a, b = inverse * (centred + h), inverse * (centred - h)
    inside = torch.log((torch.sigmoid(a) - torch.sigmoid(b)).clamp_min(1e-12))
    edges = torch.where(x > 0.999, -F.softplus(b), inside)
    logs = torch.where(x < -0.999, F.logsigmoid(a), edges)
    return torch.logsumexp(logits.log_softmax(-1) + logs, -1).sum(-1)


def logistic_map_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    rows = (*shape, COMPONENTS)
    x, logits, loc = 2 * torch.randn(shape), torch.randn(rows), torch.randn(rows)
    log_scale = 0.3 * torch.randn(rows).clamp(-3, 3)
    return tuple(t.requires_grad_() for t in (x, logits, loc, log_scale))


def logistic_map(x: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    y, log_det = BF.mixture_logistic_transform(x, logits, loc, log_scale)
    return y.sum(-1) + log_det


def logistic_inverse(y: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    x, log_det = BF.mixture_logistic_transform(y, logits, loc, log_scale, inverse=True)
    return x.sum(-1) + log_det


def sigmoidal_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    rows = (*shape, COMPONENTS)
    x, logits, shift = 2 * torch.randn(shape), torch.randn(rows), torch.randn(rows)
    raw_slope = 0.5 * torch.randn(rows).clamp(-3, 3)
    return tuple(t.requires_grad_() for t in (x, logits, raw_slope, shift))


def sigmoidal(x: Tensor, logits: Tensor, raw_slope: Tensor, shift: Tensor) -> Tensor:
    y, log_det = BF.deep_sigmoidal_transform(x, logits, raw_slope, shift)
    return y.sum(-1) + log_det


def bernstein_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    raw = math.log(math.expm1(6 / DEGREE)) + 0.5 * torch.randn((*shape, DEGREE + 1)).clamp(-3, 3)
    raw[..., 0] -= 3
    return (2 * torch.randn(shape)).requires_grad_(), raw.requires_grad_()


def bernstein(x: Tensor, raw: Tensor) -> Tensor:
    y, log_det = BF.bernstein_transform(x, raw)
    return y.sum(-1) + log_det


#: (y, log dy/dx) of each element.
Map = Callable[..., tuple[Tensor, Tensor]]


def logit_of_mean(z: Tensor, logits: Tensor, log_rate: Tensor) -> tuple[Tensor, Tensor]:
    """The formulas of Flow++, all in logarithms."""
    weights = logits.log_softmax(-1)
    below, above = F.logsigmoid(z), F.logsigmoid(-z)
    log_cdf = torch.logsumexp(weights + below, -1)
    log_above = torch.logsumexp(weights + above, -1)
    log_density = torch.logsumexp(weights + below + above + log_rate, -1)
    return log_cdf - log_above, log_density - log_cdf - log_above


def eager_logistic_map(
    x: Tensor, logits: Tensor, loc: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor]:
    z = (x.unsqueeze(-1) - loc) * torch.exp(-log_scale)
    return logit_of_mean(z, logits, -log_scale)


def eager_sigmoidal(
    x: Tensor, logits: Tensor, raw_slope: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    slope = F.softplus(raw_slope)
    return logit_of_mean(x.unsqueeze(-1) * slope + shift, logits, slope.log())


def eager_bernstein(x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Products of the coefficients and the steps with the basis as a matrix."""
    n = raw.shape[-1] - 1
    steps = F.softplus(raw[..., 1:])
    theta = torch.cat((raw[..., :1], steps), -1).cumsum(-1)
    inside = x.clamp(-3, 3)
    t = (inside.unsqueeze(-1) + 3) / 6

    def mean(coefficients: Tensor) -> Tensor:
        m = coefficients.shape[-1] - 1
        k = torch.arange(m + 1, device=x.device)
        ways = torch.tensor([math.comb(m, i) for i in range(m + 1)], device=x.device)
        basis = ways * t**k * (1 - t) ** (m - k)
        return (coefficients * basis).sum(-1)

    slope = n / 6 * mean(steps)
    return mean(theta) + slope * (x - inside), slope.log()


def summed(function: Map) -> Function:
    def peer(*tensors: Tensor) -> Tensor:
        value, log_det = function(*tensors)
        return (value + log_det).sum(-1)

    return peer


def eager_logistic_inverse(y: Tensor, *parameters: Tensor) -> Tensor:
    """Bisections between the components' own solutions, then three steps of Newton's method."""
    _, loc, log_scale = parameters
    with torch.no_grad():
        bounds = loc + torch.exp(log_scale) * y.unsqueeze(-1)
        below, above = bounds.amin(-1), bounds.amax(-1)
        for _ in range(8):
            x = 0.5 * (below + above)
            more = eager_logistic_map(x, *parameters)[0] < y
            below, above = torch.where(more, x, below), torch.where(more, above, x)
        for _ in range(2):
            found, log_slope = eager_logistic_map(x, *parameters)
            x = x + (y - found) * torch.exp(-log_slope)
    found, log_slope = eager_logistic_map(x, *parameters)
    x = x + (y - found) * torch.exp(-log_slope.detach())
    return (x - eager_logistic_map(x, *parameters)[1]).sum(-1)


def importance_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return ((3 * torch.randn(shape)).requires_grad_(),)


def bound_of_first(log_weights: Tensor) -> Tensor:
    return BF.iwae_bound(log_weights, dim=0)


def bound_of_last(log_weights: Tensor) -> Tensor:
    return BF.iwae_bound(log_weights)


def dreg_of_first(log_weights: Tensor) -> Tensor:
    return BF.iwae_bound(log_weights, dim=0, estimator="dreg")


def eager_bound_of_first(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 0) - math.log(log_weights.shape[0])


def eager_bound_of_last(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, -1) - math.log(log_weights.shape[-1])


def eager_dreg_of_first(log_weights: Tensor) -> Tensor:
    weights = log_weights.detach().softmax(0)
    surrogate = (weights.square() * log_weights).sum(0)
    return eager_bound_of_first(log_weights.detach()) + surrogate - surrogate.detach()


def gumbel_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    return (torch.randn(shape, requires_grad=True),)


def gumbel(logits: Tensor) -> Tensor:
    return BF.gumbel_softmax_rsample(logits, 0.7)


def eager_gumbel(logits: Tensor) -> Tensor:
    return F.gumbel_softmax(logits, 0.7)


def hard_gumbel(logits: Tensor) -> Tensor:
    return BF.gumbel_softmax_rsample(logits, 0.7, hard=True)


def eager_hard_gumbel(logits: Tensor) -> Tensor:
    return F.gumbel_softmax(logits, 0.7, hard=True)


def normal_inputs(shape: tuple[int, int]) -> Sequence[Tensor]:
    loc, raw_scale = torch.randn(shape), torch.randn(shape)
    return torch.randn(shape), loc.requires_grad_(), raw_scale.requires_grad_()


def normal_class(x: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    return Normal.from_softplus(loc, raw_scale, validate_args=False).log_prob(x)


def eager_normal_class(x: Tensor, loc: Tensor, raw_scale: Tensor) -> Tensor:
    normal = torch.distributions.Normal(loc, F.softplus(raw_scale), validate_args=False)
    return normal.log_prob(x)  # type: ignore[no-untyped-call,no-any-return]


@torch.no_grad()
def check(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    torch.testing.assert_close(ours(*tensors), peer(*tensors), rtol=1e-4, atol=1e-3)


@torch.no_grad()
def check_pixels(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare with the four or five digits that the peer's differences of sigmoids keep."""
    torch.testing.assert_close(ours(*tensors), peer(*tensors), rtol=1e-3, atol=1e-1)


@torch.no_grad()
def check_samples(ours: Function, peer: Function, tensors: Sequence[Tensor]) -> None:
    """Compare the means of the classes' columns: the noise differs, the distribution does not."""
    logits = torch.randn(1, tensors[0].shape[1]).expand(4096, -1)
    torch.testing.assert_close(ours(logits).mean(0), peer(logits).mean(0), rtol=0, atol=0.06)


CASES = [
    Case(
        "poisson_log_prob",
        SIZES,
        poisson_inputs,
        BF.poisson_log_prob,
        {"torch eager": eager_poisson},
        check,
    ),
    Case(
        "negative_binomial_log_prob",
        SIZES,
        negative_binomial_inputs,
        BF.negative_binomial_log_prob,
        {"torch eager": eager_negative_binomial},
        check,
    ),
    Case(
        "discretized_logistic_log_prob",
        SIZES,
        logistic_inputs,
        BF.discretized_logistic_log_prob,
        {"torch eager": eager_logistic},
        check_pixels,
    ),
    Case(
        "discretized_logistic_mixture_log_prob",
        MIXED,
        mixture_inputs,
        BF.discretized_logistic_mixture_log_prob,
        {"torch eager": eager_mixture},
        check_pixels,
    ),
    Case(
        "mixture_logistic_transform",
        MIXED,
        logistic_map_inputs,
        logistic_map,
        {"torch eager": summed(eager_logistic_map)},
        check,
    ),
    Case(
        "mixture_logistic_transform inverse",
        {"1024x64": MIXED["1024x64"]},
        logistic_map_inputs,
        logistic_inverse,
        {"torch eager": eager_logistic_inverse},
        check,
    ),
    Case(
        "deep_sigmoidal_transform",
        MIXED,
        sigmoidal_inputs,
        sigmoidal,
        {"torch eager": summed(eager_sigmoidal)},
        check,
    ),
    Case(
        "bernstein_transform",
        MIXED,
        bernstein_inputs,
        bernstein,
        {"torch eager": summed(eager_bernstein)},
        check,
    ),
    Case(
        "iwae_bound dim=0",
        SAMPLES,
        importance_inputs,
        bound_of_first,
        {"torch eager": eager_bound_of_first},
        check,
    ),
    Case(
        "iwae_bound",
        SAMPLES,
        importance_inputs,
        bound_of_last,
        {"torch eager": eager_bound_of_last},
        check,
    ),
    Case(
        "iwae_bound dim=0 dreg",
        SAMPLES,
        importance_inputs,
        dreg_of_first,
        {"torch eager": eager_dreg_of_first},
        check,
    ),
    Case(
        "gumbel_softmax_rsample",
        CLASSES,
        gumbel_inputs,
        gumbel,
        {"torch eager": eager_gumbel},
        check_samples,
    ),
    Case(
        "gumbel_softmax_rsample hard",
        CLASSES,
        gumbel_inputs,
        hard_gumbel,
        {"torch eager": eager_hard_gumbel},
        check_samples,
    ),
    Case(
        "distributions.Normal log_prob",
        SIZES,
        normal_inputs,
        normal_class,
        {"torch eager": eager_normal_class},
        check,
    ),
]


@parametrize(CASES)
def test_rows(
    benchmark: Any, case: Case, size: str, mode: str, threads: int, implementation: str
) -> None:
    run(benchmark, case, size, mode, threads, implementation)
