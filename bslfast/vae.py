"""Variational autoencoders, and the deterministic autoencoder to compare them with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.elbo import example_weights, free_bits
from bslfast.functional._op import runs_eagerly
from bslfast.functional.importance import ESTIMATORS

__all__ = [
    "VAE",
    "Autoencoder",
    "VampPrior",
    "conv_decoder",
    "conv_encoder",
    "mlp_decoder",
    "mlp_encoder",
]

LIKELIHOODS = ("bernoulli", "normal")
# Decoded numbers that log_marginal holds at a time.
_HELD_OUTPUTS = 1 << 22


class _Decoding(nn.Module):
    """What both autoencoders share: a decoder, and what its outputs mean."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str,
        scale: float | str,
        latent: int | None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"{name}: expected a torch.nn.Module, got {_checks.describe(module)}"
                )
        _checks.choice("likelihood", likelihood, LIKELIHOODS)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent = None if latent is None else _checks.integer("latent", latent)
        self.scale: float | str | None = None
        if likelihood == "normal":
            if isinstance(scale, str):
                self.scale = _checks.choice("scale", scale, ("learned", "decoder"))
            else:
                self.scale = _checks.number("scale", scale, above=0.0)
        elif scale != "learned":
            raise ValueError(f"scale: expected none for likelihood 'bernoulli', got {scale!r}")
        if self.scale == "learned":
            parameter = next(self.parameters(), None)
            like = torch.empty(()) if parameter is None else parameter
            self.log_scale = nn.Parameter(like.new_zeros(()))

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z) for codes z [batch, latent]: probabilities, or locs."""
        outputs = self.decoder(_checks.floating("z", z, 2, "[batch, latent]"))
        if self.likelihood == "bernoulli":
            return torch.sigmoid(outputs)
        return self._loc_raw_scale(outputs)[0]

    def _sample(self, n: int, seed: int | Tensor | None) -> Tensor:
        n = _checks.integer("n", n)
        if self.latent is None:
            raise ValueError(
                "latent: expected a number given to the constructor, or a call of encode before, "
                "got None"
            )
        like = next(self.decoder.parameters(), torch.empty(()))
        zeros = like.new_zeros(n, self.latent)
        return self.decode(BF.normal_rsample(zeros, zeros, parametrization="log_scale", seed=seed))

    def _loc_raw_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the normal likelihood makes of the decoder's outputs [batch, ...]."""
        if self.scale == "decoder":
            if outputs.dim() < 2 or outputs.shape[1] % 2:
                raise ValueError(
                    "decoder: expected outputs with locs and log variances side by side on "
                    f"dimension 1, an even number in all, got shape {tuple(outputs.shape)}"
                )
            loc, log_var = outputs.chunk(2, dim=1)
            return loc, log_var
        if self.scale == "learned":
            return outputs, self.log_scale
        return outputs, outputs.new_full((), math.log(float(self.scale or 1.0)))

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) of x [batch, ...] for codes [..., batch, latent], of shape [..., batch]."""
        outputs = self.decoder(z.flatten(0, -2) if z.dim() > 2 else z)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"decoder: expected a tensor, got {_checks.describe(outputs)}")
        loc, raw_scale = outputs, None
        if self.likelihood == "normal":
            loc, raw_scale = self._loc_raw_scale(outputs)
        if loc.shape != (math.prod(z.shape[:-1]), *x.shape[1:]):
            wanted = [math.prod(z.shape[:-1]), *x.shape[1:]]
            if self.scale == "decoder":
                wanted[1] *= 2
            raise ValueError(
                f"decoder: expected outputs of shape {tuple(wanted)} for x of shape "
                f"{tuple(x.shape)}, got {tuple(outputs.shape)}"
            )
        shape = (*z.shape[:-1], x[:1].numel() if len(x) else math.prod(x.shape[1:]))
        loc, x = loc.reshape(shape), x.reshape(shape[-2:])
        if raw_scale is None:
            return BF.bernoulli_log_prob(loc, x)
        if self.scale == "decoder":
            return BF.normal_log_prob(x, loc, raw_scale.reshape(shape), parametrization="log_var")
        return BF.normal_log_prob(x, loc, raw_scale, parametrization="log_scale")

    def _check_x(self, x: Tensor) -> Tensor:
        _checks.floating("x", x)
        if x.dim() < 2:
            raise ValueError(f"x: expected shape [batch, ...], got {_checks.describe(x)}")
        # Cheap where x is in this machine's memory; elsewhere it would wait for the device.
        if self.likelihood == "bernoulli" and x.numel() and runs_eagerly([x]):
            low, high = (v.item() for v in torch.aminmax(x.detach()))
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    "x: expected values in [0, 1] for likelihood 'bernoulli', "
                    f"got {low:g} to {high:g}"
                )
        return x

    def _encoded(self, x: Tensor, width: int) -> Tensor:
        """The encoder's output for a checked x, ``width`` numbers for each latent dimension."""
        outputs = self.encoder(self._check_x(x))
        if not isinstance(outputs, Tensor):
            raise TypeError(f"encoder: expected a tensor, got {_checks.describe(outputs)}")
        if outputs.dim() != 2 or outputs.shape[0] != x.shape[0]:
            raise ValueError(
                f"encoder: expected an output of shape [{x.shape[0]}, ...], "
                f"got {tuple(outputs.shape)}"
            )
        if outputs.shape[1] % width:
            raise ValueError(
                "encoder: expected mu and log_var side by side on the last dimension, an even "
                f"number in all, got shape {tuple(outputs.shape)}"
            )
        latent = outputs.shape[1] // width
        if self.latent is None and not torch.compiler.is_compiling():
            self.latent = latent
        if self.latent is not None and latent != self.latent:
            raise ValueError(
                f"encoder: expected an output of shape {(x.shape[0], width * self.latent)} for "
                f"{self.latent} latent dimensions, got {tuple(outputs.shape)}"
            )
        return outputs

    def extra_repr(self) -> str:
        """Show the likelihood."""
        scale = "" if self.scale is None else f", scale={self.scale!r}"
        return f"likelihood={self.likelihood!r}{scale}, latent={self.latent}"


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

    Source: Tomczak and Welling, "VAE with a VampPrior" (2018).

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
        full = (self.n, *_shape(shape))
        if examples is None:
            start = 0.01 * torch.randn(full)
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

    @property
    def pseudo_inputs(self) -> Tensor:
        """The inputs u, [n, *shape]."""
        return torch.sigmoid(self.raw) if self.bounded else self.raw

    def log_prob(self, z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """Return log p(z) of codes [..., latent], given the posterior's mu and log_var of u."""
        each = BF.normal_log_prob(z.unsqueeze(-2), mu, log_var, parametrization="log_var")
        return BF.iwae_bound(each)

    def extra_repr(self) -> str:
        """Show the number of pseudo-inputs."""
        return f"n={self.n}, bounded={self.bounded}"


class VAE(_Decoding):
    r"""A variational autoencoder with a standard normal prior over its codes, or another one.

    The posterior of a code is N(mu, exp(log_var)), its dimensions independent; sample, KL
    divergence and likelihood are fused (:mod:`bslfast.functional`). Called on x it returns
    :meth:`elbo`, so that ``torch.compile(vae)`` and data-parallel wrappers work; train it on
    ``-vae(x).mean()``.

    Args:
        encoder: any module, x [batch, ...] -> [batch, 2 * latent]: mu and log_var side by side.
        decoder: any module, z [n, latent] -> what the likelihood takes, shaped like x.
        likelihood: "bernoulli": the decoder gives logits, x lies in [0, 1]; "normal": the decoder
            gives locs.
        scale: of the normal likelihood: "learned" (one standard deviation for all values, a
            parameter that starts at 1), a number (fixed), or "decoder" (the decoder gives locs and
            log variances side by side on dimension 1, twice as many as x has there).
        beta: weight of the KL divergence in :meth:`elbo`; other than 1 it is no bound.
        latent: number of latent dimensions; by default what the encoder's first output says.
        free_bits: nats that each latent dimension has free in :meth:`elbo`, see
            :func:`bslfast.free_bits`; above 0 it is no bound.
        prior: None for N(0, 1), or a :class:`VampPrior`.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also in later
            calls: an encoder whose output has an odd last dimension, a decoder whose output has
            another shape than x, an integer x, x outside [0, 1] (in eager mode on the CPU).

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014); beta by Higgins et al.,
    "beta-VAE" (2017).

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
        likelihood: str = "bernoulli",
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
        """Show the likelihood and beta."""
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log_var of the codes of x, each [batch, latent]."""
        mu, log_var = self._encoded(x, 2).chunk(2, dim=1)
        return mu, log_var

    def terms(
        self, x: Tensor, n_samples: int = 1, *, seed: int | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the two parts of the bound, each [batch], in nats.

        Args:
            x: [batch, ...].
            n_samples: codes drawn for each example, over which the first part is averaged.
            seed: of the noise, as in :func:`bslfast.functional.normal_rsample`.

        Returns:
            (the expected log likelihood E log p(x | z), the divergence KL(q(z | x) || p(z))).
        """
        return self._terms(x, n_samples, seed, "row")

    def _terms(
        self, x: Tensor, n_samples: int, seed: int | Tensor | None, reduction: str
    ) -> tuple[Tensor, Tensor]:
        """The terms; the divergence of a normal prior also in each dimension."""
        n_samples = _checks.integer("n_samples", n_samples)
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
            z = BF.normal_rsample(
                mu, log_var, parametrization="log_var", sample_shape=sample_shape, seed=seed
            )
            posterior = BF.normal_log_prob(z, mu, log_var, parametrization="log_var")
            kl = posterior - self._log_prior(z)
            kl = kl if n_samples == 1 else kl.mean(dim=0)
        log_likelihood = self._log_likelihood(x, z)
        return log_likelihood if n_samples == 1 else log_likelihood.mean(dim=0), kl

    def _log_prior(self, z: Tensor) -> Tensor:
        """log p(z) of codes [..., latent]."""
        if self.prior is not None:
            return self.prior.log_prob(z, *self.encode(self.prior.pseudo_inputs))
        zero = z.new_zeros(())
        return BF.normal_log_prob(z, zero, zero, parametrization="log_scale")

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        weights: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return the evidence lower bound of each example, [batch], in nats.

        .. math:: E_{q(z|x)} \log p(x | z) - \beta\, KL(q(z | x) \,\|\, p(z))

        The divergence is exact (but for a :class:`VampPrior`), the expectation an average over
        ``n_samples`` codes. With ``free_bits``, KL is what :func:`bslfast.free_bits` makes of it,
        which depends on the whole batch.

        Args:
            x, n_samples, seed: as in :meth:`terms`.
            weights: of the examples, [batch], by which their bounds are multiplied.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        if self.free_bits > 0:
            log_likelihood, each = self._terms(x, n_samples, seed, "none")
            kl = free_bits(each, self.free_bits, weights=weights)
        else:
            log_likelihood, kl = self.terms(x, n_samples, seed=seed)
        elbo = log_likelihood - (kl if self.beta == 1.0 else self.beta * kl)
        return elbo if weights is None else elbo * example_weights(weights, len(x))

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

        Source: Burda et al., "Importance weighted autoencoders" (2016).
        """
        n_samples = _checks.integer("n_samples", n_samples)
        mu, log_var = self.encode(x)
        held = max(1, min(n_samples, _HELD_OUTPUTS // max(1, x.numel())))
        if seed is None:
            seed = torch.randint(0, 2**63 - 1, (), dtype=torch.int64, device=x.device)
        portions = []
        for stream, start in enumerate(range(0, n_samples, held)):
            z = BF.normal_rsample(
                mu,
                log_var,
                parametrization="log_var",
                sample_shape=(min(held, n_samples - start),),
                seed=seed,
                stream=stream,
            )
            portions.append(self._log_weights(x, z, mu, log_var).logsumexp(dim=0))
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

        Source: Burda et al., "Importance weighted autoencoders" (2016); Tucker et al., "Doubly
        reparameterized gradient estimators for Monte Carlo objectives" (2019).
        """
        samples = _checks.integer("samples", samples)
        _checks.choice("estimator", estimator, ESTIMATORS)
        mu, log_var = self.encode(x)
        z = BF.normal_rsample(
            mu, log_var, parametrization="log_var", sample_shape=(samples,), seed=seed
        )
        if estimator == "iwae" or not z.requires_grad:
            return BF.iwae_bound(self._log_weights(x, z, mu, log_var), dim=0)
        # What reaches log w is its normalised weight, as the decoder's gradient needs it; on its
        # way on from z, to the encoder, it is multiplied by that weight once more.
        weights: list[Tensor] = []
        z.register_hook(lambda grad: grad * weights[0])
        log_weights = self._log_weights(x, z, mu.detach(), log_var.detach())
        weights.append(log_weights.detach().softmax(dim=0).unsqueeze(-1))
        return BF.iwae_bound(log_weights, dim=0)

    def _log_weights(self, x: Tensor, z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) of codes z [samples, batch, latent], [samples, batch]."""
        return (
            self._log_likelihood(x, z)
            + self._log_prior(z)
            - BF.normal_log_prob(z, mu, log_var, parametrization="log_var")
        )

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the mean of p(x | z) at the mean of each example's code, shaped like x."""
        return self.decode(self.encode(x)[0])

    def sample(self, n: int, *, seed: int | Tensor | None = None) -> Tensor:
        """Return the means of p(x | z) for ``n`` codes from the prior, [n, ...].

        Probabilities, or locs: without the noise of the likelihood itself.

        Raises:
            ValueError: if the number of latent dimensions is not known yet.
        """
        if self.prior is None:
            return self._sample(n, seed)
        n = _checks.integer("n", n)
        mu, log_var = self.encode(self.prior.pseudo_inputs)
        # Which of the posteriors, by noise of another stream than the codes'.
        seed = _checks.seed(seed, mu.device)
        equal = mu.new_zeros(self.prior.n)
        which = BF.gumbel_softmax_rsample(
            equal, 1.0, hard=True, sample_shape=(n,), seed=seed, stream=1
        ).argmax(dim=-1)
        z = BF.normal_rsample(mu[which], log_var[which], parametrization="log_var", seed=seed)
        return self.decode(z)


class Autoencoder(_Decoding):
    """The deterministic autoencoder: a point for each code, and nothing to keep codes together.

    Called on x it returns the log likelihood log p(x | z) of each example at its code, [batch]:
    train it on ``-autoencoder(x).mean()``, as a :class:`VAE`, with which it shares likelihoods,
    decoders and the other methods.

    Args:
        encoder: any module, x [batch, ...] -> [batch, latent].
        decoder, likelihood, scale, latent: as in :class:`VAE`.

    Raises:
        TypeError, ValueError: as :class:`VAE`.

    >>> import torch
    >>> from bslfast.vae import Autoencoder, mlp_encoder, mlp_decoder
    >>> model = Autoencoder(mlp_encoder((8, 8), 2, deterministic=True), mlp_decoder(2, (8, 8)))
    >>> x = torch.rand(16, 8, 8)
    >>> model(x).shape, model.encode(x).shape, model.reconstruct(x).shape
    (torch.Size([16]), torch.Size([16, 2]), torch.Size([16, 8, 8]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        likelihood: str = "bernoulli",
        scale: float | str = "learned",
        latent: int | None = None,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, scale, latent)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of x, [batch, latent]."""
        return self._encoded(x, 1)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Return log p(x | z) at the code of each example, [batch], in nats."""
        return self._log_likelihood(x, self.encode(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log_likelihood(x)``."""
        return self.log_likelihood(x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the mean of p(x | z) at each example's code, shaped like x."""
        return self.decode(self.encode(x))


def mlp_encoder(
    shape: Sequence[int],
    latent: int,
    hidden: Sequence[int] = (256, 128),
    *,
    deterministic: bool = False,
) -> nn.Sequential:
    """Return a dense encoder with ReLU for x [batch, *shape].

    Args:
        shape: of one example.
        latent: number of latent dimensions.
        hidden: widths of the hidden layers.
        deterministic: ``latent`` outputs for an :class:`Autoencoder`, not twice as many.

    >>> mlp_encoder((8, 8), 2, hidden=(32,))(torch.rand(5, 8, 8)).shape
    torch.Size([5, 4])
    """
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(_shape(shape))
    for n in _widths("hidden", hidden):
        layers += [nn.Linear(width, n), nn.ReLU()]
        width = n
    outputs = _checks.integer("latent", latent) * (1 if deterministic else 2)
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def mlp_decoder(
    latent: int, shape: Sequence[int], hidden: Sequence[int] = (128, 256)
) -> nn.Sequential:
    """Return a dense decoder with ReLU: z [batch, latent] -> [batch, *shape].

    Args:
        latent, shape: as in :func:`mlp_encoder`; for ``scale="decoder"`` with twice the first
            number.
        hidden: widths of the hidden layers, from the code on.

    >>> mlp_decoder(2, (8, 8), hidden=(32,))(torch.rand(5, 2)).shape
    torch.Size([5, 8, 8])
    """
    layers: list[nn.Module] = []
    width = _checks.integer("latent", latent)
    shape = _shape(shape)
    for n in _widths("hidden", hidden):
        layers += [nn.Linear(width, n), nn.ReLU()]
        width = n
    return nn.Sequential(*layers, nn.Linear(width, math.prod(shape)), nn.Unflatten(1, shape))


def conv_encoder(
    shape: Sequence[int],
    latent: int,
    channels: Sequence[int] = (32, 64, 64, 64),
    strides: Sequence[int] = (1, 2, 2, 1),
    *,
    deterministic: bool = False,
) -> nn.Sequential:
    """Return a convolutional encoder: 3x3 convolutions, each with BatchNorm and LeakyReLU.

    Args:
        shape: of one image, (channels, height, width); height and width must be multiples of the
            product of the strides.
        latent, deterministic: as in :func:`mlp_encoder`.
        channels: of the convolutions.
        strides: of the convolutions; each divides height and width.

    Source: Foster, "Generative deep learning" (2019), chapter 3.

    >>> conv_encoder((1, 8, 8), 2, (4, 8), (2, 2))(torch.rand(5, 1, 8, 8)).shape
    torch.Size([5, 4])
    """
    inputs, height, width = _image(shape, channels, strides)
    layers: list[nn.Module] = []
    for n, stride in zip(channels, strides, strict=True):
        layers += [
            nn.Conv2d(inputs, n, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(n),
            nn.LeakyReLU(),
        ]
        inputs = n
    total = math.prod(strides)
    flat = inputs * (height // total) * (width // total)
    outputs = _checks.integer("latent", latent) * (1 if deterministic else 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, outputs))


def conv_decoder(
    latent: int,
    shape: Sequence[int],
    channels: Sequence[int] = (64, 64, 64, 32),
    strides: Sequence[int] = (1, 2, 2, 1),
) -> nn.Sequential:
    """Return the mirror image of :func:`conv_encoder`, with transposed convolutions.

    Args:
        latent: number of latent dimensions.
        shape: of one image, (channels, height, width).
        channels: of the feature maps, from the code on; the last convolution makes the image.
        strides: of the transposed convolutions.

    >>> conv_decoder(2, (1, 8, 8), (8, 4), (2, 2))(torch.rand(5, 2)).shape
    torch.Size([5, 1, 8, 8])
    """
    outputs, height, width = _image(shape, channels, strides)
    total = math.prod(strides)
    start = (channels[0], height // total, width // total)
    layers: list[nn.Module] = [
        nn.Linear(_checks.integer("latent", latent), math.prod(start)),
        nn.Unflatten(1, start),
    ]
    for i, (n, stride) in enumerate(zip(channels, strides, strict=True)):
        last = i == len(channels) - 1
        following = outputs if last else channels[i + 1]
        layers.append(
            nn.ConvTranspose2d(n, following, 3, stride, 1, output_padding=stride - 1, bias=last)
        )
        if not last:
            layers += [nn.BatchNorm2d(following), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or not shape:
        raise TypeError(f"shape: expected a tuple of sizes, got {_checks.describe(shape)}")
    return tuple(_checks.integer("shape", n) for n in shape)


def _widths(name: str, widths: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(widths, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of integers, got {_checks.describe(widths)}")
    return tuple(_checks.integer(name, n) for n in widths)


def _image(
    shape: Sequence[int], channels: Sequence[int], strides: Sequence[int]
) -> tuple[int, ...]:
    sizes = _shape(shape)
    if len(sizes) != 3:
        raise ValueError(f"shape: expected (channels, height, width), got {sizes}")
    if not _widths("channels", channels):
        raise ValueError("channels: expected at least one convolution, got none")
    if len(_widths("strides", strides)) != len(channels):
        raise ValueError(
            f"strides: expected as many as channels, {len(channels)}, got {len(strides)}"
        )
    total = math.prod(strides)
    if sizes[1] % total or sizes[2] % total:
        raise ValueError(
            f"shape: expected height and width to be multiples of {total}, the product of the "
            f"strides, got {sizes}"
        )
    return sizes
