"""Metrics of models of x: log likelihoods or bounds of them, and the codes of autoencoders."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from bslfast import _checks

__all__ = ["MeanError", "active_units", "bits_per_dim", "is_active", "mean_and_error"]


class MeanError(NamedTuple):
    """A mean over examples and its standard error."""

    mean: float
    standard_error: float


def mean_and_error(values: Tensor) -> MeanError:
    r"""Return the mean over examples and its standard error, s / sqrt(n).

    For log likelihoods that are estimated by importance sampling
    (:meth:`bslfast.vae.VAE.log_marginal`) it contains the noise of the estimates, too. Their bias,
    downwards, is not in it: it falls with more samples.

    Args:
        values: of the examples, [n], floating, at least two.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Example:
        >>> import torch
        >>> mean_and_error(torch.tensor([-1.0, -2.0, -3.0, -2.0]))  # s^2 = 2 / 3, n = 4
        MeanError(mean=-2.0, standard_error=0.408248290463863)
    """
    each = _examples("values", values, "[n]", 2)
    # Python's square root is correctly rounded; torch's is not on some machines.
    return MeanError(each.mean().item(), math.sqrt(each.var().item() / len(each)))


def bits_per_dim(log_likelihood: Tensor, n_dims: int, *, bin_width: float = 1.0) -> float:
    r"""Return how many bits a model needs for a number of an example, on average.

    .. math:: -\frac{\mathrm{mean}(\log p(x))}{D \log 2} - \log_2 w

    That is the length of a lossless code. A bound of log p(x) gives an upper bound of it.

    Args:
        log_likelihood: of the examples, [n], floating, in nats.
        n_dims: D, how many numbers an example has (784 for MNIST).
        bin_width: w, for a density of values that are discrete in truth: the distance of
            neighbouring levels in the unit of x, 1 / 256 for 256 levels (with uniform noise) on
            [0, 1]. 1 for the probability of a level, as that of a Bernoulli variable.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Theis et al., "A note on the evaluation of generative models" (2016, arXiv:1511.01844).

    Example:
        >>> import torch
        >>> round(bits_per_dim(torch.tensor([-8 * math.log(2)]), 8), 6)  # 8 fair coins
        1.0
        >>> bits_per_dim(torch.zeros(3), 5, bin_width=1 / 256)  # uniform on [0, 1]
        8.0
    """
    each = _examples("log_likelihood", log_likelihood, "[n]", 1)
    n_dims = _checks.integer("n_dims", n_dims)
    bin_width = _checks.number("bin_width", bin_width, above=0.0)
    return -each.mean().item() / (n_dims * math.log(2)) - math.log2(bin_width)


def active_units(mu: Tensor, threshold: float = 0.01) -> int:
    r"""Return how many latent dimensions have codes that depend on x.

    .. math:: |\{u : \mathrm{Var}_x(E_{q(u | x)}[u]) > 0.01\}|

    Args:
        mu: the posterior means of at least two examples, [n, latent].
        threshold: the variance of the means of an active dimension.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Burda et al., "Importance weighted autoencoders" (2016, arXiv:1509.00519), section 5.2.

    Example:
        >>> import torch
        >>> active_units(torch.tensor([[1.0, 0.05], [-1.0, -0.05]]))
        1
    """
    return int(is_active(mu, threshold).sum())


def is_active(mu: Tensor, threshold: float = 0.01) -> Tensor:
    """Return whether each latent dimension is active, bool [latent]: see :func:`active_units`."""
    means = _examples("mu", mu, "[n, latent]", 2)
    return means.var(dim=0, correction=0) > _checks.number("threshold", threshold, minimum=0.0)


def _examples(name: str, value: Tensor, shape: str, at_least: int) -> Tensor:
    """Finite numbers of enough examples, in float64."""
    _checks.floating(name, value, shape.count(",") + 1, shape)
    if len(value) < at_least:
        raise ValueError(
            f"{name}: expected {shape} with n of at least {at_least}, got {_checks.describe(value)}"
        )
    return _checks.finite(name, value.detach()).double()
