"""Priors over the codes of a variational autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF


class VampPrior(nn.Module):
    r"""A mixture of posteriors of learned pseudo-inputs, as a prior over the codes of a VAE.

    .. math:: p(z) = \frac1K \sum_{k=1}^K q(z | u_k)

    with the posterior q of the VAE that the prior is given to, whose encoder it so trains too.
    There is no closed form for the divergence: it is estimated from the same codes as the
    likelihood.

    Args:
        n: number K of pseudo-inputs.
        shape: of one of them, as that of an example.
        bounded: keep them in (0, 1), as sigmoids of the parameters, for the Bernoulli likelihood;
            else they are the parameters themselves.
        examples: [n, *shape] to begin with (for ``bounded`` they are kept off 0 and 1); by default
            parameters from a normal distribution.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Tomczak and Welling, "VAE with a VampPrior" (2018, arXiv:1705.07120).

    >>> import torch
    >>> from bslfast.vae import VAE, VampPrior, mlp_encoder, mlp_decoder
    >>> prior = VampPrior(10, (8, 8))
    >>> vae = VAE(mlp_encoder((8, 8), 2), mlp_decoder(2, (8, 8)), latent=2, prior=prior)
    >>> vae(torch.rand(16, 8, 8)).shape, vae.sample(5).shape
    (torch.Size([16]), torch.Size([5, 8, 8]))
    """

    def __init__(
        self,
        n: int,
        shape: Sequence[int],
        *,
        bounded: bool = True,
        examples: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.n = _checks.integer("n", n)
        self.bounded = _checks.flag("bounded", bounded)
        full = (self.n, *_checks.widths("shape", shape, at_least=1))
        self.raw = nn.Parameter(torch.empty(full))
        if examples is None:
            self.reset_parameters()
        else:
            _checks.floating("examples", examples)
            if examples.shape != full:
                raise ValueError(
                    f"examples: expected shape {full}, got {_checks.describe(examples)}"
                )
            start = examples.detach().clone()
            if bounded:
                start = torch.logit(start, eps=0.01)
            self.raw = nn.Parameter(start)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters from a normal distribution, as without ``examples``."""
        self.raw.normal_().mul_(0.01)

    @property
    def pseudo_inputs(self) -> Tensor:
        """The inputs u, [n, *shape]."""
        return torch.sigmoid(self.raw) if self.bounded else self.raw

    def log_prob(self, z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return log p(z) of codes [..., latent], given the posterior's mu and log_var of u."""
        each = BF.normal_log_prob(z.unsqueeze(-2), mu, log_var, parametrization="log_var")
        return BF.iwae_bound(each)

    def sample(self, n: int, mu: Tensor, log_var: Tensor, seed: int | Tensor | None) -> Tensor:
        """Return codes [n, latent], given the posterior's mu and log_var of u."""
        seed = _checks.seed(seed, mu.device)
        # Which of the posteriors, by noise of another stream than the codes'.
        which = BF.gumbel_softmax_rsample(
            mu.new_zeros(self.n), 1.0, hard=True, sample_shape=(n,), seed=seed, stream=1
        ).argmax(dim=-1)
        return BF.normal_rsample(mu[which], log_var[which], parametrization="log_var", seed=seed)

    def extra_repr(self) -> str:
        """Show the number of pseudo-inputs."""
        return f"n={self.n}, bounded={self.bounded}"
