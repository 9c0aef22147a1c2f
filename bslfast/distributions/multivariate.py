"""Normal distributions of vectors: torch's, with the library's noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import _checks


class MultivariateNormal(torch.distributions.MultivariateNormal):
    """A normal distribution of vectors, by the Cholesky factor of its covariance, for example.

    Arguments, log densities, entropies and divergences are those of
    ``torch.distributions.MultivariateNormal``; the noise of samples is bslfast's, several times as
    fast, and vectors of one covariance are made by one product of matrices.

    >>> import torch
    >>> q = MultivariateNormal(torch.zeros(2), scale_tril=torch.tensor([[1.0, 0.0], [1.0, 0.5]]))
    >>> q.rsample((3,)).shape, q.log_prob(torch.zeros(2))
    (torch.Size([3, 2]), tensor(-1.1447))
    """

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples loc + L z, ``[*sample_shape, *batch_shape, d]``."""
        z = _noise(self.loc, self._extended_shape(torch.Size(_checks.sample_shape(sample_shape))))
        sample: Tensor = self.loc + _times(self._unbroadcasted_scale_tril, z)
        return sample


class LowRankMultivariateNormal(torch.distributions.LowRankMultivariateNormal):
    """A normal distribution of vectors with covariance W W^T + D, D diagonal.

    As :class:`MultivariateNormal`, after ``torch.distributions.LowRankMultivariateNormal``.

    >>> import torch
    >>> q = LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3))
    >>> q.rsample((5,)).shape
    torch.Size([5, 3])
    """

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        """Return reparametrised samples loc + W z1 + sqrt(D) z2, ``[*sample_shape, ..., d]``."""
        shape = self._extended_shape(torch.Size(_checks.sample_shape(sample_shape)))
        factor = self._unbroadcasted_cov_factor
        low = _noise(self.loc, torch.Size((*shape[:-1], factor.shape[-1])))
        root = self._unbroadcasted_cov_diag.sqrt()
        sample: Tensor = self.loc + _times(factor, low) + root * _noise(self.loc, shape)
        return sample


def _noise(loc: Tensor, shape: torch.Size) -> Tensor:
    return BF.standard_normal(tuple(shape), dtype=loc.dtype, device=loc.device)


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """``matrix`` [..., m, n] times each of ``vectors`` [..., n]."""
    if matrix.dim() == 2:
        return vectors @ matrix.mT
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)
