"""Distributions of the codes of a variational autoencoder, given what its encoder says of x.

Each knows what the encoder's outputs mean, how codes are drawn with their divergence from a
standard prior or with their log probability, and that prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks
from bslfast import functional as BF
from bslfast._precision import in_float32, wide
from bslfast.flows import Flow, Inverse, Transform
from bslfast.flows.domains import Step, forward_gap
from bslfast.flows.transform import check_transform

Seed = int | Tensor | None


class Posterior(nn.Module):
    """q(z | x) and the standard prior that it is compared with, which is N(0, I) if it has codes of
    real numbers.

    A subclass defines :meth:`latent`, :meth:`split`, :meth:`code` and
    :meth:`rsample_and_log_prob`.
    """

    #: What the encoder gives for each latent dimension, in words.
    parts = ""
    #: Whether the divergence from the standard prior is a sum over latent dimensions.
    by_dimension = False
    #: Whether codes may have another prior than the standard one.
    takes_prior = True

    def latent(self, outputs: int) -> int | None:
        """The number of latent dimensions for so many outputs of the encoder; None if none fits."""
        raise NotImplementedError

    def code_size(self, latent: int) -> int:
        """How many numbers of a code the decoder takes."""
        return latent

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """The parameters of the distribution: the encoder's outputs [batch, ...], divided."""
        raise NotImplementedError

    def code(self, *parameters: Tensor) -> Tensor:
        """The code that stands for x when it is reconstructed, [batch, code]."""
        raise NotImplementedError

    def rsample_and_log_prob(
        self,
        parameters: tuple[Tensor, ...],
        sample_shape: Sequence[int],
        seed: Seed,
        *,
        stream: int = 0,
        path_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Codes [*sample_shape, batch, code] and their log probabilities, without the last.

        ``path_only``: the log probabilities have no gradient but that by way of the codes.
        """
        raise NotImplementedError

    def rsample_and_kl(
        self, parameters: tuple[Tensor, ...], sample_shape: Sequence[int], seed: Seed, *, each: bool
    ) -> tuple[Tensor, Tensor]:
        """Codes, and the divergence from the standard prior [batch], or that of ``each`` dimension.

        Here it is estimated from the codes.
        """
        z, log_q = self.rsample_and_log_prob(parameters, sample_shape, seed)
        kl = log_q - self.log_prior(z)
        return z, kl.mean(dim=0) if sample_shape else kl

    def log_prior(self, z: Tensor) -> Tensor:
        """The standard prior's log probabilities of codes [..., code]."""
        zero = z.new_zeros(())
        return BF.normal_log_prob(z, zero, zero, parametrization="log_scale")

    def sample_prior(self, n: int, latent: int, like: Tensor, seed: Seed) -> Tensor:
        """Codes of the standard prior, [n, code], of the dtype and device of ``like``."""
        zeros = like.new_zeros(n, latent)
        return BF.normal_rsample(zeros, zeros, parametrization="log_scale", seed=seed)


class DiagonalNormal(Posterior):
    r"""N(mu, exp(log_var)) with independent dimensions: the usual posterior.

    The encoder gives mu and log_var side by side, 2 x latent numbers.

    Args:
        log_var_range: (lowest, highest) log variance, to which larger and smaller ones are clamped,
            such as (-30, 20); None takes them as they come.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114).

    >>> from bslfast.vae import VAE, DiagonalNormal, mlp_encoder, mlp_decoder
    >>> posterior = DiagonalNormal(log_var_range=(-30, 20))
    >>> vae = VAE(mlp_encoder((8, 8), 2), mlp_decoder(2, (8, 8)), posterior=posterior)
    """

    parts = "mu and log_var side by side on the last dimension, an even number in all"
    by_dimension = True

    def __init__(self, log_var_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        if log_var_range is not None:
            if not isinstance(log_var_range, tuple) or len(log_var_range) != 2:
                raise TypeError(
                    "log_var_range: expected None or (lowest, highest), got "
                    f"{_checks.describe(log_var_range)}"
                )
            low = _checks.number("log_var_range", log_var_range[0])
            log_var_range = low, _checks.number("log_var_range", log_var_range[1], above=low)
        self.log_var_range = log_var_range

    def latent(self, outputs: int) -> int | None:
        """See :meth:`Posterior.latent`."""
        return None if outputs % 2 else outputs // 2

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Return mu and log_var, each [batch, latent]."""
        mu, log_var = outputs.chunk(2, dim=1)
        return mu, log_var if self.log_var_range is None else log_var.clamp(*self.log_var_range)

    def code(self, *parameters: Tensor) -> Tensor:
        """Return mu."""
        return parameters[0]

    def rsample_and_log_prob(
        self,
        parameters: tuple[Tensor, ...],
        sample_shape: Sequence[int],
        seed: Seed,
        *,
        stream: int = 0,
        path_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_log_prob`."""
        return BF.normal_rsample_log_prob(
            *parameters,
            parametrization="log_var",
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
            path_only=path_only,
        )

    def rsample_and_kl(
        self, parameters: tuple[Tensor, ...], sample_shape: Sequence[int], seed: Seed, *, each: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_kl`; the divergence is exact."""
        return BF.normal_rsample_kl(
            *parameters,
            parametrization="log_var",
            reduction="none" if each else "row",
            sample_shape=sample_shape,
            seed=seed,
        )

    def extra_repr(self) -> str:
        """Show the range of log variances."""
        return "" if self.log_var_range is None else f"log_var_range={self.log_var_range}"


class FullCovarianceNormal(Posterior):
    r"""N(mu, L L^T) with correlated dimensions.

    The encoder gives mu, the logarithms of L's diagonal and what is below it, row by row:
    latent (latent + 3) / 2 numbers in all, see :meth:`n_outputs`.

    .. math:: KL = \tfrac12 \Big(\|L\|_F^2 + \|\mu\|^2 - d\Big) - \sum_i \log L_{ii}

    Source: Kingma and Welling, "An introduction to variational autoencoders" (2019,
    arXiv:1906.02691), section 2.5.1.

    >>> import torch
    >>> from bslfast.vae import VAE, FullCovarianceNormal, mlp_encoder, mlp_decoder
    >>> posterior = FullCovarianceNormal()
    >>> encoder = mlp_encoder((8, 8), 3, outputs=posterior.n_outputs(3))
    >>> vae = VAE(encoder, mlp_decoder(3, (8, 8)), posterior=posterior)
    >>> mu, scale_tril = vae.encode(torch.rand(16, 8, 8))
    >>> mu.shape, scale_tril.shape
    (torch.Size([16, 3]), torch.Size([16, 3, 3]))
    """

    parts = "mu, log-diagonal and rows below it, latent * (latent + 3) / 2 numbers in all"

    def n_outputs(self, latent: int) -> int:
        """Return how many outputs the encoder needs."""
        latent = _checks.integer("latent", latent)
        return latent * (latent + 3) // 2

    def latent(self, outputs: int) -> int | None:
        """See :meth:`Posterior.latent`."""
        latent = (math.isqrt(9 + 8 * outputs) - 3) // 2
        return latent if latent > 0 and self.n_outputs(latent) == outputs else None

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Return mu [batch, latent] and L [batch, latent, latent]."""
        latent = self.latent(outputs.shape[1])
        assert latent is not None
        mu, log_diagonal, below = outputs.split(
            [latent, latent, outputs.shape[1] - 2 * latent], dim=1
        )
        places = torch.arange(latent, device=outputs.device)
        # Row i has the i numbers that begin after those of the rows before.
        first = (places * (places - 1) // 2)[:, None] + places
        first = first.clamp(max=max(0, below.shape[1] - 1))
        strict = below[:, first] if below.shape[1] else outputs.new_zeros(1, 1, 1)
        # Smaller ones would be 0, of which the divergence is infinite.
        least = math.log(torch.finfo(outputs.dtype).tiny)
        return mu, strict.tril(-1) + torch.diag_embed(log_diagonal.clamp(min=least).exp())

    def code(self, *parameters: Tensor) -> Tensor:
        """Return mu."""
        return parameters[0]

    def rsample_and_log_prob(
        self,
        parameters: tuple[Tensor, ...],
        sample_shape: Sequence[int],
        seed: Seed,
        *,
        stream: int = 0,
        path_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_log_prob`."""
        mu, scale_tril = parameters
        noise = self._noise(mu, sample_shape, seed, stream)
        return self._placed(mu, scale_tril, noise, path_only=path_only)

    def rsample_and_kl(
        self, parameters: tuple[Tensor, ...], sample_shape: Sequence[int], seed: Seed, *, each: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_kl`; the divergence is exact."""
        mu, scale_tril = parameters
        z, _ = self._placed(mu, scale_tril, self._noise(mu, sample_shape, seed, 0))
        mu, scale_tril = wide(mu), wide(scale_tril)
        squares = scale_tril.square().sum((-2, -1)) + mu.square().sum(-1)
        return z, 0.5 * (squares - mu.shape[-1]) - self._log_det(scale_tril)

    @in_float32(values=1)
    def _placed(
        self, mu: Tensor, scale_tril: Tensor, noise: Tensor, path_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What noise [..., batch, latent] becomes, and its log density."""
        # One product of matrices for each example, however many samples.
        z = mu + torch.einsum("bij,...bj->...bi", scale_tril, noise)
        if path_only:
            # The noise has its value from how it was drawn, as z - mu has no digits of small
            # scales, and its gradient from z.
            scale_tril = scale_tril.detach()
            moved = (z - z.detach()).unsqueeze(-1)
            moved = torch.linalg.solve_triangular(scale_tril, moved, upper=False)
            noise = noise + moved.squeeze(-1)
        return z, self.log_prior(noise) - self._log_det(scale_tril)

    @staticmethod
    def _log_det(scale_tril: Tensor) -> Tensor:
        return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    def _noise(mu: Tensor, sample_shape: Sequence[int], seed: Seed, stream: int) -> Tensor:
        zero = mu.new_zeros(())
        shape = (*sample_shape, *mu.shape)
        return BF.normal_rsample(
            zero.expand(shape), zero, parametrization="log_scale", seed=seed, stream=stream
        )


class FlowPosterior(Posterior):
    r"""Codes that a flow makes of N(mu, exp(log_var)).

    .. math:: z = T(z_0; h), \quad \log q(z | x) = \log N(z_0; \mu, \sigma^2) -
        \log\left|\det \frac{\partial T}{\partial z_0}\right|

    The encoder gives mu and log_var, and h as well if the flow takes a context: 2 x latent +
    context numbers. The divergence is estimated from the codes.

    Args:
        flow: a :class:`bslfast.flows.Flow` without a base of its own, whose way from noise to data
            is T, such as an ``IAF``, ``NSF`` or ``RealNVP``; or a transform whose ``forward`` is T,
            such as ``Planar``, or several in a ``Composite``.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015,
    arXiv:1505.05770); Kingma et al., "Improved variational inference with inverse autoregressive
    flow" (2016, arXiv:1606.04934).

    >>> import torch
    >>> from bslfast.flows import IAF
    >>> from bslfast.vae import VAE, FlowPosterior, mlp_encoder, mlp_decoder
    >>> posterior = FlowPosterior(IAF(2, context=8, transforms=2))
    >>> encoder = mlp_encoder((8, 8), 2, outputs=posterior.n_outputs)
    >>> vae = VAE(encoder, mlp_decoder(2, (8, 8)), posterior=posterior)
    >>> vae(torch.rand(16, 8, 8)).shape
    torch.Size([16])
    """

    def __init__(self, flow: Flow | Transform) -> None:
        super().__init__()
        if isinstance(flow, Flow):
            if flow.base is not None:
                raise ValueError("flow: expected one without a base of its own, got one with it")
            self.transform: Transform = Inverse(flow.transform)
        else:
            self.transform = check_transform("flow", flow)
            everywhere = constraints.real_vector
            noise = Step("", "the noise", everywhere, everywhere)
            gap = forward_gap([noise, *self.transform.steps()])
            if gap is not None:
                raise ValueError(
                    f"flow: expected one defined for all noise, got one in which {gap}"
                )

    @property
    def n_outputs(self) -> int:
        """How many outputs the encoder needs."""
        return 2 * self.transform.features + self.transform.context

    @property
    def parts(self) -> str:  # type: ignore[override]
        """What the encoder gives, in words."""
        return f"mu, log_var and the flow's context, {self.n_outputs} numbers in all"

    def latent(self, outputs: int) -> int | None:
        """See :meth:`Posterior.latent`."""
        return self.transform.features if outputs == self.n_outputs else None

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Return mu and log_var of the noise, each [batch, latent], and the context if any."""
        latent, context = self.transform.features, self.transform.context
        sizes = [latent, latent, context] if context else [latent, latent]
        parameters: tuple[Tensor, ...] = outputs.split(sizes, dim=1)
        return parameters

    def code(self, *parameters: Tensor) -> Tensor:
        """Return what the flow makes of mu."""
        mu, _, *context = parameters
        code: Tensor = self.transform(mu, *context)[0]
        return code

    def rsample_and_log_prob(
        self,
        parameters: tuple[Tensor, ...],
        sample_shape: Sequence[int],
        seed: Seed,
        *,
        stream: int = 0,
        path_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_log_prob`."""
        if path_only:
            raise ValueError(
                "estimator: expected 'iwae' with a FlowPosterior, whose codes do not lead back to "
                "the noise at the same price, got 'dreg'"
            )
        mu, log_var, *context = parameters
        z, log_q = BF.normal_rsample_log_prob(
            mu,
            log_var,
            parametrization="log_var",
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
        )
        z, log_det = self.transform(z, *context)
        return z, log_q - log_det


class GumbelSoftmax(Posterior):
    r"""Categorical codes: each latent dimension is one of some categories, drawn by its logits.

    The encoder gives the logits, latent x categories numbers; the decoder takes as many: for each
    latent dimension the category drawn as 0 and 1. In training these are relaxed, points inside the
    simplex, so that gradients reach the logits; in evaluation mode, and for importance samples,
    they are exact. The standard prior gives all categories the same probability, and the
    divergence is exact:

    .. math:: KL = \sum_d \Big(\log K - H[q_d]\Big)

    Args:
        categories: K, at least 2.
        temperature: of the relaxation, > 0: the lower, the closer to 0 and 1.
        hard: 0 and 1 in training too, with the gradient of the relaxation (straight-through).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax" (2017,
    arXiv:1611.01144); Maddison, Mnih and Teh, "The concrete distribution" (2017, arXiv:1611.00712).

    >>> import torch
    >>> from bslfast.vae import VAE, GumbelSoftmax, mlp_encoder, mlp_decoder
    >>> encoder = mlp_encoder((8, 8), 3, outputs=3 * 10)
    >>> vae = VAE(encoder, mlp_decoder(3 * 10, (8, 8)), posterior=GumbelSoftmax(10))
    >>> vae(torch.rand(16, 8, 8)).shape, vae.sample(5).shape
    (torch.Size([16]), torch.Size([5, 8, 8]))
    """

    by_dimension = True
    takes_prior = False

    def __init__(self, categories: int, temperature: float = 1.0, *, hard: bool = False) -> None:
        super().__init__()
        self.categories = _checks.integer("categories", categories, 2)
        self.temperature = _checks.number("temperature", temperature, above=0.0)
        self.hard = _checks.flag("hard", hard)
        self.parts = f"logits, a multiple of {self.categories} numbers"

    def latent(self, outputs: int) -> int | None:
        """See :meth:`Posterior.latent`."""
        return None if outputs % self.categories else outputs // self.categories

    def code_size(self, latent: int) -> int:
        """See :meth:`Posterior.code_size`."""
        return latent * self.categories

    def split(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, [batch, latent, categories]."""
        return (outputs.unflatten(1, (-1, self.categories)),)

    def code(self, *parameters: Tensor) -> Tensor:
        """Return the most probable categories as 0 and 1."""
        (logits,) = parameters
        return self._one_hot(logits.argmax(-1), logits)

    def rsample_and_log_prob(
        self,
        parameters: tuple[Tensor, ...],
        sample_shape: Sequence[int],
        seed: Seed,
        *,
        stream: int = 0,
        path_only: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_log_prob`."""
        if path_only:
            raise ValueError(
                "estimator: expected 'iwae' with a GumbelSoftmax posterior, whose codes have no "
                "exact gradient, got 'dreg'"
            )
        (logits,) = parameters
        z = BF.gumbel_softmax_rsample(
            logits,
            self.temperature,
            hard=True,
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
        )
        # As a function of z, too: else the straight-through gradient would leave out the entropy.
        log_q = (z * self._log_probs(logits)).sum((-2, -1))
        return z.flatten(-2), log_q

    def rsample_and_kl(
        self, parameters: tuple[Tensor, ...], sample_shape: Sequence[int], seed: Seed, *, each: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Posterior.rsample_and_kl`; the divergence is exact."""
        (logits,) = parameters
        z = BF.gumbel_softmax_rsample(
            logits,
            self.temperature,
            hard=self.hard or not self.training,
            sample_shape=sample_shape,
            seed=seed,
        )
        log_probs = self._log_probs(logits)
        kl = math.log(self.categories) + (log_probs.exp() * log_probs).sum(-1)
        return z.flatten(-2), kl if each else kl.sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        """See :meth:`Posterior.log_prior`."""
        latent = z.shape[-1] // self.categories
        return z.new_full((), -latent * math.log(self.categories)).expand(z.shape[:-1])

    def sample_prior(self, n: int, latent: int, like: Tensor, seed: Seed) -> Tensor:
        """See :meth:`Posterior.sample_prior`."""
        equal = like.new_zeros(n, latent, self.categories)
        return BF.gumbel_softmax_rsample(equal, 1.0, hard=True, seed=seed).flatten(1)

    @staticmethod
    def _log_probs(logits: Tensor) -> Tensor:
        """Log probabilities; finite of excluded categories too, as 0 times -inf is NaN."""
        log_probs: Tensor = wide(logits).log_softmax(-1)
        return log_probs.clamp_min(torch.finfo(log_probs.dtype).min)

    def _one_hot(self, index: Tensor, like: Tensor) -> Tensor:
        return nn.functional.one_hot(index, self.categories).to(like.dtype).flatten(-2)

    def extra_repr(self) -> str:
        """Show the number of categories and the temperature."""
        return f"categories={self.categories}, temperature={self.temperature:g}"
