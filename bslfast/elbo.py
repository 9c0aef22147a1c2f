"""The objective of variational training."""

from __future__ import annotations

from torch import Tensor

from bslfast import _checks


def negative_elbo(
    log_likelihood: Tensor, kl: Tensor | float, *, dataset_size: int, beta: float = 1.0
) -> Tensor:
    """Return the negative evidence lower bound per data point, in nats.

    .. math:: -\\frac{1}{B} \\sum_{i=1}^{B} \\log p(y_i | x_i, w) + \\beta \\frac{KL}{N}

    for a mini-batch of ``B`` examples out of ``N``. Its expectation over mini-batches and weight
    samples is the negative ELBO of the whole data set divided by ``N``; the mean over one epoch is
    what the learning curves show. The KL is neither averaged over its weights nor over batches:
    this is the only place that scales it.

    Args:
        log_likelihood: log likelihood of each example of the mini-batch, shape [batch].
        kl: the KL divergence from posterior to prior, summed over all weights, as
            :func:`bslfast.nn.kl` gives it: a tensor of one element or a number.
        dataset_size: ``N``, the number of examples in the training set, not in the batch.
        beta: weight of the KL; 1 is the ELBO, 0 maximum likelihood, below 1 a tempered posterior.

    Returns:
        A tensor of no dimensions.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Graves, "Practical variational inference for neural networks" (2011); Blundell et al.,
    "Weight uncertainty in neural networks" (2015), equation 8 with equal weights.

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
        kl = kl.reshape(())
    else:
        kl = _checks.number("kl", kl, minimum=0.0)
    _checks.integer("dataset_size", dataset_size)
    beta = _checks.number("beta", beta, minimum=0.0)
    return kl * (beta / dataset_size) - log_likelihood.mean()
