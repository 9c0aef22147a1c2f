"""The objective of variational training."""

from __future__ import annotations

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._torch import can_be_read


def negative_elbo(
    log_likelihood: Tensor,
    kl: Tensor | float,
    *,
    dataset_size: int,
    beta: float = 1.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the negative evidence lower bound per data point, in nats.

    .. math:: -\\frac{1}{B} \\sum_{i=1}^{B} \\log p(y_i | x_i, w) + \\beta \\frac{KL}{N}

    for a mini-batch of ``B`` examples out of ``N``. Its expectation over mini-batches and weight
    samples is the negative ELBO of the whole data set divided by ``N``. Learning curves show its
    mean over an epoch. The KL is averaged neither over its weights nor over batches: this function
    is the only place that scales it.

    Args:
        log_likelihood: log likelihood of each example of the mini-batch, shape [batch].
        kl: the KL divergence from posterior to prior, summed over all weights, as
            :func:`bslfast.nn.kl` gives it: a tensor of one element or a number.
        dataset_size: ``N``, the number of examples in the training set, not in the batch.
        beta: weight of the KL; 1 is the ELBO, 0 maximum likelihood, below 1 a tempered posterior.
        weights: weights of the examples, [batch], at least 0, by which the log likelihoods are
            multiplied; on an accelerator their signs are not looked at. The sum is still divided by
            the number of examples, not by the sum of the weights: an example of weight 2 counts as
            two.

    Returns:
        A tensor of no dimensions.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Graves, "Practical variational inference for neural networks" (2011,
    https://papers.nips.cc/paper/2011/hash/7eb3c8be3d411e8ebfab08eba5f49632-Abstract.html); Blundell
    et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424), equation 8 with equal
    weights.

    Example:
        >>> import torch
        >>> negative_elbo(torch.tensor([-1.0, -3.0]), torch.tensor(5.0), dataset_size=10)
        tensor(2.5000)
    """
    _checks.floating("log_likelihood", log_likelihood, 1, "[batch]")
    if log_likelihood.shape[0] == 0:
        raise ValueError(
            "log_likelihood: expected at least one example, got a tensor of shape (0,)"
        )
    if isinstance(kl, Tensor):
        _checks.floating("kl", kl)
        if kl.numel() != 1:
            raise ValueError(
                f"kl: expected a tensor of one element (the sum), got {_checks.describe(kl)}"
            )
        if kl.dim():
            kl = kl.reshape(())
    else:
        kl = _checks.number("kl", kl, minimum=0.0)
    _checks.integer("dataset_size", dataset_size)
    beta = _checks.number("beta", beta, minimum=0.0)
    if weights is not None:
        log_likelihood = log_likelihood * example_weights(weights, log_likelihood.shape[0])
    return kl * (beta / dataset_size) - log_likelihood.mean()


def free_bits(kl: Tensor, minimum: float, *, weights: Tensor | None = None) -> Tensor:
    r"""Return the KL of each example with free nats in each dimension, [batch].

    .. math:: \sum_d \max\Big(\frac{1}{B} \sum_{b=1}^B KL_{bd},\, \lambda\Big)

    is the mean of the result over the batch, with its gradient. A dimension whose average KL is
    below ``minimum`` counts as ``minimum`` for all examples and has no gradient. Any other
    dimension counts with its own KL. So the posterior pays nothing for its first nats in a
    dimension.

    Args:
        kl: divergence of each example in each dimension, [batch, dimensions], as
            :func:`bslfast.functional.normal_kl` gives with ``reduction="none"``.
        minimum: lambda, in nats, at least 0.
        weights: weights of the examples in the average KL of a dimension, [batch], at least 0; by
            default equal.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma et al., "Improved variational inference with inverse autoregressive flow" (2016,
    arXiv:1606.04934), section 4 of the appendix, with one group for each dimension.

    Example:
        >>> import torch
        >>> free_bits(torch.tensor([[0.1, 2.0], [0.3, 4.0]]), 0.5)
        tensor([2.5000, 4.5000])
    """
    _checks.floating("kl", kl, 2, "[batch, dimensions]")
    minimum = _checks.number("minimum", minimum, minimum=0.0)
    if weights is None:
        mean = kl.detach().mean(dim=0)
    else:
        weights = example_weights(weights, kl.shape[0])
        mean = (weights.unsqueeze(-1) * kl.detach()).sum(dim=0) / weights.sum()
    return torch.where(mean < minimum, minimum, kl).sum(dim=1)


def example_weights(weights: Tensor, batch: int) -> Tensor:
    """Check weights of examples, and return them without a gradient."""
    _checks.floating("weights", weights, 1, "[batch]")
    if weights.shape[0] != batch:
        raise ValueError(
            f"weights: expected one for each of {batch} examples, got {_checks.describe(weights)}"
        )
    weights = weights.detach()
    # Not on an accelerator, where the check would wait, nor where something traces the values.
    if batch and can_be_read(weights):
        least = weights.min().item()
        if not least >= 0:
            raise ValueError(f"weights: expected numbers of at least 0, got {least:g}")
    return weights
