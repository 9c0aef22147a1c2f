"""The variational autoencoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.elbo import example_weights, free_bits
from bslfast.functional.iwae_bound import ESTIMATORS
from bslfast.likelihoods import Likelihood
from bslfast.likelihoods.base import observed
from bslfast.vae.decoding import Decoding
from bslfast.vae.prior import VampPrior

# Decoded numbers that log_marginal holds at a time.
_HELD_OUTPUTS = 1 << 22


class VAE(Decoding):
    r"""A variational autoencoder with a standard normal prior over its codes, or another one.

    The posterior of a code is N(mu, exp(log_var)), its dimensions independent; sample, KL
    divergence and likelihood are fused (:mod:`bslfast.functional`). Called on x it returns
    :meth:`elbo`, so that ``torch.compile(vae)`` and data-parallel wrappers work; train it on
    ``-vae(x).mean()``.

    Args:
        encoder: any module, x [batch, ...] -> [batch, 2 * latent]: mu and log_var side by side.
        decoder: any module, z [n, latent] -> what the likelihood takes, shaped like x.
        likelihood: "bernoulli" or "continuous_bernoulli": the decoder gives logits, x lies in
            [0, 1]; "normal", "laplace" or "student_t" (4 degrees of freedom): the decoder gives
            locs; "poisson" and "negative_binomial" (one learned total count): the decoder
            gives log rates, x are counts;
            "discretized_logistic_mixture": x are 256 values from -1 to 1, for which the decoder
            gives 15 times as many outputs; or any Likelihood of :mod:`bslfast.likelihoods` but the
            categorical one, made with ``targets=None`` for x of any shape.
        scale: of "normal", "laplace" and "student_t": "learned" (one scale for all values, a
            parameter that starts at 1), a number (fixed), or "decoder" (the decoder gives locs and
            log variances, for the normal one, or else log scales side by side on dimension 1, twice
            as many as x has there).
        beta: weight of the KL divergence in :meth:`elbo`; other than 1 it is no bound.
        latent: number of latent dimensions; by default what the encoder's first output says.
        free_bits: nats that each latent dimension has free in :meth:`elbo`, see
            :func:`bslfast.free_bits`; above 0 it is no bound.
        prior: None for N(0, 1), or a :class:`VampPrior`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also in later
            calls: an encoder whose output has an odd last dimension, a decoder whose output has
            another shape than x, an integer x, x outside [0, 1] (in eager mode on the CPU).

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114); beta by
    Higgins et al., "beta-VAE" (2017, https://openreview.net/forum?id=Sy2fzU9gl); missing values as
    by Nazabal et al., "Handling incomplete heterogeneous data using VAEs" (2020, arXiv:1807.03653).

    >>> import torch, bslfast
    >>> from bslfast.vae import VAE, mlp_encoder, mlp_decoder
    >>> vae = VAE(mlp_encoder((8, 8), 2), mlp_decoder(2, (8, 8)))
    >>> x = torch.rand(16, 8, 8)
    >>> (-vae(x).mean()).backward()
    >>> vae.elbo(x, n_samples=4).shape, vae.reconstruct(x).shape, vae.sample(5).shape
    (torch.Size([16]), torch.Size([16, 8, 8]), torch.Size([5, 8, 8]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        likelihood: str | Likelihood = "bernoulli",
        scale: float | str = "learned",
        beta: float = 1.0,
        latent: int | None = None,
        free_bits: float = 0.0,
        prior: VampPrior | None = None,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, scale, latent)
        self.beta = _checks.number("beta", beta, minimum=0.0)
        self.free_bits = _checks.number("free_bits", free_bits, minimum=0.0)
        if prior is not None and not isinstance(prior, VampPrior):
            raise TypeError(f"prior: expected None or a VampPrior, got {_checks.describe(prior)}")
        if prior is not None and self.free_bits > 0:
            raise ValueError(
                "free_bits: expected 0 with a VampPrior, whose divergence is not a sum over "
                f"dimensions, got {free_bits!r}"
            )
        self.prior = prior

    def extra_repr(self) -> str:
        """Show the number of latent dimensions and beta."""
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log_var of the codes of x, each [batch, latent]."""
        return self._posterior(self._check_x(x))

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`encode` of what need not be data, such as pseudo-inputs between two counts."""
        mu, log_var = self._encoded(x, 2).chunk(2, dim=1)
        return mu, log_var

    def terms(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the two parts of the bound, each [batch], in nats.

        Args:
            x: [batch, ...].
            n_samples: codes drawn for each example, over which the first part is averaged.
            mask: bool, shaped like ``x``: False where a value is missing. The encoder sees 0 (or
                the nearest value that the likelihood has) there, and the likelihood is that of the
                others: a bound of log p(observed values).
            seed: of the noise, as in :func:`bslfast.functional.normal_rsample`.

        Returns:
            (the expected log likelihood E log p(x | z), the divergence KL(q(z | x) || p(z))).
        """
        return self._terms(x, n_samples, mask, seed, "row")

    def _terms(
        self,
        x: Tensor,
        n_samples: int,
        mask: Tensor | None,
        seed: int | Tensor | None,
        reduction: str,
    ) -> tuple[Tensor, Tensor]:
        """The terms; the divergence of a normal prior also in each dimension."""
        n_samples = _checks.integer("n_samples", n_samples)
        if mask is not None:
            x = observed("x", _checks.floating("x", x), mask, self.likelihood.filler)
        mu, log_var = self.encode(x)
        sample_shape = () if n_samples == 1 else (n_samples,)
        if self.prior is None:
            z, kl = BF.normal_rsample_kl(
                mu,
                log_var,
                parametrization="log_var",
                reduction=reduction,
                sample_shape=sample_shape,
                seed=seed,
            )
        else:
            z, log_q = BF.normal_rsample_log_prob(
                mu, log_var, parametrization="log_var", sample_shape=sample_shape, seed=seed
            )
            kl = log_q - self._log_prior(z)
            kl = kl if n_samples == 1 else kl.mean(dim=0)
        log_likelihood = self._log_likelihood(x, z, mask)
        return log_likelihood if n_samples == 1 else log_likelihood.mean(dim=0), kl

    def _log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of codes [..., latent]."""
        if self.prior is not None:
            return self.prior.log_prob(z, *self._posterior(self.prior.pseudo_inputs))
        zero = z.new_zeros(())
        return BF.normal_log_prob(z, zero, zero, parametrization="log_scale")

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return the evidence lower bound of each example, [batch], in nats.

        .. math:: E_{q(z|x)} \log p(x | z) - \beta\, KL(q(z | x) \,\|\, p(z))

        The divergence is exact (but for a :class:`VampPrior`), the expectation an average over
        ``n_samples`` codes. With ``free_bits``, KL is what :func:`bslfast.free_bits` makes of it,
        which depends on the whole batch.

        Args:
            x, n_samples, mask, seed: as in :meth:`terms`.
            weights: of the examples, [batch], by which their bounds are multiplied.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        elbo, _ = self._elbo_and_kl(x, n_samples, mask, weights, seed)
        return elbo if weights is None else elbo * example_weights(weights, len(x))

    def elbo_and_kl(
        self,
        x: Tensor,
        *,
        n_samples: int = 1,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return :meth:`elbo` and the divergence KL(q(z | x) || p(z)), each [batch], in nats.

        The objective by which :func:`bslfast.training.fit` trains a VAE. The divergence is without
        ``beta`` and ``free_bits``.

        Args:
            x, n_samples, mask, seed: as in :meth:`terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        >>> import torch
        >>> from bslfast.training import fit
        >>> from bslfast.vae import VAE, mlp_encoder, mlp_decoder
        >>> vae = VAE(mlp_encoder((8, 8), 2, (16,)), mlp_decoder(2, (8, 8), (16,)))
        >>> x = torch.zeros(100, 8, 8)
        >>> history = fit(vae, (x,), epochs=2, objective=VAE.elbo_and_kl)
        >>> history.loss[1] < history.loss[0]
        True
        """
        return self._elbo_and_kl(x, n_samples, mask, None, seed)

    def _elbo_and_kl(
        self,
        x: Tensor,
        n_samples: int,
        mask: Tensor | None,
        weights: Tensor | None,
        seed: int | Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.free_bits > 0:
            log_likelihood, each = self._terms(x, n_samples, mask, seed, "none")
            counted, kl = free_bits(each, self.free_bits, weights=weights), each.sum(dim=1)
        else:
            log_likelihood, kl = self.terms(x, n_samples, mask=mask, seed=seed)
            counted = kl
        return log_likelihood - (counted if self.beta == 1.0 else self.beta * counted), kl

    def forward(self, x: Tensor) -> Tensor:
        """Return ``elbo(x)``."""
        return self.elbo(x)

    def log_marginal(
        self, x: Tensor, n_samples: int = 100, *, seed: int | Tensor | None = None
    ) -> Tensor:
        r"""Return an estimate of log p(x) of each example, [batch], in nats.

        .. math:: \log \frac1S \sum_{s=1}^S \frac{p(x | z_s)\, p(z_s)}{q(z_s | x)},
            \quad z_s \sim q(z | x)

        On average below log p(x), and the closer the more samples; never on average below the
        ELBO. Codes are decoded in portions, so that memory does not grow with ``n_samples`` under
        ``torch.no_grad()``; with gradients this is the bound that importance-weighted autoencoders
        maximise.

        Args:
            x, seed: as in :meth:`terms`.
            n_samples: codes drawn for each example.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        Source: Burda et al., "Importance weighted autoencoders" (2016, arXiv:1509.00519).
        """
        n_samples = _checks.integer("n_samples", n_samples)
        mu, log_var = self.encode(x)
        held = max(1, min(n_samples, _HELD_OUTPUTS // max(1, x.numel())))
        if seed is None:
            seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=x.device)
        portions = []
        for stream, start in enumerate(range(0, n_samples, held)):
            z, log_q = BF.normal_rsample_log_prob(
                mu,
                log_var,
                parametrization="log_var",
                sample_shape=(min(held, n_samples - start),),
                seed=seed,
                stream=stream,
            )
            portions.append(self._log_weights(x, z, log_q).logsumexp(dim=0))
        return torch.stack(portions).logsumexp(dim=0) - math.log(n_samples)

    def iwae(
        self,
        x: Tensor,
        samples: int = 5,
        *,
        estimator: str = "iwae",
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return the importance-weighted bound of each example, [batch], in nats, to be maximised.

        .. math:: \log \frac1K \sum_{k=1}^K w_k, \quad
            w_k = \frac{p(x | z_k)\, p(z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

        The number that :meth:`log_marginal` estimates with ``samples`` codes, all of which are
        held. The estimators differ in the gradient of the encoder: with the normalised weights
        :math:`\tilde w_k`, "dreg" is

        .. math:: \sum_k \tilde w_k^2\, \frac{\partial \log w_k}{\partial z_k}
            \frac{\partial z_k}{\partial \phi}

        where "iwae" has :math:`\tilde w_k` and the derivative of log q(z | x) by its parameters as
        well, which makes it the noisier the larger K. The decoder's gradient is the same. ``beta``
        is not used.

        Args:
            x, seed: as in :meth:`terms`.
            samples: K, codes drawn for each example.
            estimator: "iwae" or "dreg".

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        Source: Burda et al., "Importance weighted autoencoders" (2016, arXiv:1509.00519); Tucker et
        al., "Doubly reparameterized gradient estimators for Monte Carlo objectives" (2019,
        arXiv:1810.04152).
        """
        samples = _checks.integer("samples", samples)
        _checks.choice("estimator", estimator, ESTIMATORS)
        mu, log_var = self.encode(x)
        doubly = estimator == "dreg"
        z, log_q = BF.normal_rsample_log_prob(
            mu,
            log_var,
            parametrization="log_var",
            sample_shape=(samples,),
            seed=seed,
            path_only=doubly,
        )
        log_weights = self._log_weights(x, z, log_q)
        if doubly and z.requires_grad:
            # What reaches log w is its normalised weight, as the decoder's gradient needs it; on
            # its way on to the encoder it is multiplied by that weight once more.
            weights = log_weights.detach().softmax(dim=0)
            z.register_hook(lambda grad: (grad * weights.unsqueeze(-1)).to(grad.dtype))
            log_q.register_hook(lambda grad: grad * weights)
        return BF.iwae_bound(log_weights, dim=0)

    def _log_weights(self, x: Tensor, z: Tensor, log_q: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) of codes z [samples, batch, latent], [samples, batch]."""
        return self._log_likelihood(x, z) + self._log_prior(z) - log_q

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the mean of p(x | z) at the mean of each example's code, shaped like x."""
        return self.decode(self.encode(x)[0])

    def sample(self, n: int, *, seed: int | Tensor | None = None) -> Tensor:
        """Return the means of p(x | z) for ``n`` codes from the prior, [n, ...].

        Probabilities, locs or rates: without the noise of the likelihood itself.

        Raises:
            ValueError: if the number of latent dimensions is not known yet.
        """
        if self.prior is None:
            return self._sample(n, seed)
        n = _checks.integer("n", n)
        mu, log_var = self._posterior(self.prior.pseudo_inputs)
        # Which of the posteriors, by noise of another stream than the codes'.
        seed = _checks.seed(seed, mu.device)
        equal = mu.new_zeros(self.prior.n)
        which = BF.gumbel_softmax_rsample(
            equal, 1.0, hard=True, sample_shape=(n,), seed=seed, stream=1
        ).argmax(dim=-1)
        z = BF.normal_rsample(mu[which], log_var[which], parametrization="log_var", seed=seed)
        return self.decode(z)
