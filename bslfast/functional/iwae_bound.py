"""The importance-weighted bound on a log likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from bslfast import _checks, reference
from bslfast._native.softmax import Call, Kernels
from bslfast.functional._op import Op

ESTIMATORS = ("iwae", "dreg")


def iwae_bound(log_weights: Tensor, *, dim: int = -1, estimator: str = "iwae") -> Tensor:
    r"""The logarithm of the mean of importance weights, of which the logarithms are given.

    .. math:: \log \frac1K \sum_{k=1}^K w_k, \qquad
              w_k = \frac{p(x, z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

    The value is the same for both estimators; what differs is the gradient that flows into
    ``log_weights``. With the normalised weights :math:`\tilde w_k = w_k / \sum_j w_j`,

    .. math:: \text{iwae:}\ \tilde w_k \qquad \text{dreg:}\ \tilde w_k^2

    ``"iwae"`` is the gradient of the value. ``"dreg"``, the doubly reparametrised gradient, is an
    unbiased one **of the parameters of q only, if they reach log w through the sample z alone**:
    log q(z_k | x) must be computed from parameters without gradient (detached, while z_k keeps
    its own), which takes the score function out. Its signal-to-noise ratio grows with K where
    that of ``"iwae"`` falls. The parameters of p need the gradient of ``"iwae"``; in
    :meth:`bslfast.vae.VAE.iwae` both get theirs from one backward pass.

    Args:
        log_weights: log p(x, z) - log q(z | x) of the samples, any shape with dimension ``dim``.
        dim: the dimension of the samples. The first (samples in front) and the last are fast;
            any other is as well.
        estimator: ``"iwae"`` or ``"dreg"``.

    Returns:
        The bounds, of the shape of ``log_weights`` without ``dim``. Weights that are all 0
        (logarithm -inf) give -inf.

    Raises:
        TypeError: log_weights not a floating-point tensor, dim not an int.
        ValueError: a dimension that log_weights does not have, or that is empty; an unknown
            estimator.

    Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016,
    arXiv:1509.00519); Tucker et al., "Doubly reparameterized gradient estimators for Monte Carlo
    objectives" (2019, arXiv:1810.04152).

    >>> import torch, bslfast.functional as BF
    >>> log_weights = torch.tensor([0.0, 0.0, -1.0]).requires_grad_()
    >>> BF.iwae_bound(log_weights, estimator="dreg").backward()
    >>> log_weights.grad.sqrt()
    tensor([0.4223, 0.4223, 0.1554])
    """
    log_weights = _checks.operand("log_weights", log_weights)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim: expected an int, got {dim!r}")
    if not -log_weights.dim() <= dim < log_weights.dim():
        raise ValueError(
            f"dim: expected a dimension of log_weights, which has {log_weights.dim()}, got {dim}"
        )
    if log_weights.shape[dim] == 0:
        raise ValueError(
            f"log_weights: expected at least one sample on dimension {dim}, got shape "
            f"{list(log_weights.shape)}"
        )
    _checks.choice("estimator", estimator, ESTIMATORS)
    bound: Tensor = _iwae_bound(log_weights, dim % log_weights.dim(), estimator)
    return bound


def _allocate(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    shape = log_weights.shape
    return log_weights.new_empty((*shape[:dim], *shape[dim + 1 :]))


def _call(log_weights: Tensor, dim: int, sizes: Sequence[int], estimator: str) -> Call:
    shape = log_weights.shape
    inner, squared = math.prod(shape[dim + 1 :]), estimator == "dreg"
    return Call(log_weights.contiguous(), sizes, shape[dim], inner, option=squared)


def _forward(log_weights: Tensor, dim: int, estimator: str) -> Tensor:
    """``dim`` is not negative and not empty."""
    shape = log_weights.shape
    sizes = (*shape[:dim], *shape[dim + 1 :])
    if 0 in sizes:
        return log_weights.new_empty(sizes)
    return _kernels.forward(_call(log_weights, dim, sizes, estimator), sizes)[0]


def _backward(
    grad: Tensor | None, log_weights: Tensor, dim: int, estimator: str, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    if grad is None or not needs[0]:
        return (None,)
    shape = log_weights.shape
    if 0 in shape:
        return (log_weights.new_empty(shape),)
    call = _call(log_weights, dim, grad.shape, estimator)
    return (_kernels.backward(grad.contiguous(), call, shape),)


_kernels = Kernels("iwae_bound")
_iwae_bound = Op(
    "iwae_bound(Tensor log_weights, int dim, str estimator) -> Tensor",
    forward=_forward,
    backward=_backward,
    fake=_allocate,
    reference=reference.iwae_bound,
    rounded=0,
    has_cuda=True,
)
