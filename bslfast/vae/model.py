"""The variational autoencoder."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast._native import _cpu
from bslfast._networks import bytes_of_a_row, evaluating, most_bytes
from bslfast._precision import log_dtype
from bslfast._torch import own_buffers, own_modules, own_parameters
from bslfast.elbo import example_weights, free_bits
from bslfast.flows import Base, Flow
from bslfast.flows.transform import check_inputs
from bslfast.functional._op import is_traced
from bslfast.functional.iwae_bound import ESTIMATORS
from bslfast.functional.normal import rsample_kl_of_halves
from bslfast.likelihoods import Likelihood
from bslfast.vae.categories import Categories
from bslfast.vae.decoding import Decoding, takes
from bslfast.vae.posteriors import DiagonalNormal, Posterior
from bslfast.vae.priors import VampPrior

#: What log_marginal may hold at a time, in bytes, unless it is told: more leaves the cache.
MAX_BYTES = 1 << 23


class _Usual:
    """Whether the terms of a VAE's bound come from the methods that they have here.

    Args:
        vae: with what must be the same while :meth:`holds` is true.
    """

    def __init__(self, vae: VAE) -> None:
        self.of = weakref.ref(vae)
        kind, posterior = type(vae), vae.posterior
        networks: tuple[Any, ...] = type(vae.encoder), type(vae.decoder)
        self._kind, self._posterior_kind = kind, type(posterior)
        self._posterior = weakref.ref(posterior)
        self.likelihood, self.encoder, self.decoder = vae.likelihood, vae.encoder, vae.decoder
        own, modules = vars(vae), own_modules(vae)
        entries: list[tuple[dict[str, Any], str, Any]] = [
            *((modules, name, modules.get(name)) for name in ("encoder", "decoder", "likelihood")),
            *((modules, "posterior", posterior), (modules, "prior", modules.get("prior"))),
            *((own, name, own.get(name)) for name in (*_METHODS, "free_bits", "capacity")),
            (own_buffers(vae), "capacity", own_buffers(vae).get("capacity")),
            (own_parameters(vae), "capacity", own_parameters(vae).get("capacity")),
            *((vars(posterior), name, vars(posterior).get(name)) for name in _OF_POSTERIOR),
        ]
        self._dicts = [where for where, _, _ in entries]
        self._names = [name for _, name, _ in entries]
        self._values = [value for _, _, value in entries]
        self.found = (
            all(getattr(kind, name) is getattr(VAE, name) for name in _METHODS)
            and not any(name in own for name in _METHODS)
            and type(posterior) is DiagonalNormal
            and not any(vars(posterior).get(name) is not None for name in _OF_POSTERIOR)
            and vae.prior is None
            and vae.capacity is None
            and not vae.free_bits
            and all(takes(network, 1) for network in networks)
        )

    def holds(self) -> bool:
        """Whether nothing has changed."""
        return (
            type(self.of()) is self._kind
            and type(self._posterior()) is self._posterior_kind
            and _cpu.have_entries(self._dicts, self._names, self._values)
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a VAE has none."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


#: What makes the terms of a bound, and may be another method of a subclass or an object.
_METHODS = (
    *("terms", "encode", "_terms", "_elbo_and_kl", "_parameters_of", "_observed", "_check_x"),
    *("_encoded", "_of_codes", "_latent_of", "_log_likelihood", "_decoded"),
)
_OF_POSTERIOR = ("split", "rsample_and_kl", "latent", "log_var_range")


class VAE(Decoding):
    r"""A variational autoencoder with a standard normal prior over its codes, or another one.

    The posterior of a code is N(mu, exp(log_var)), its dimensions independent, or another one.
    Sample, KL divergence and likelihood are fused (:mod:`bslfast.functional`). Called on x it
    returns :meth:`elbo`, so that ``torch.compile(vae)`` and data-parallel wrappers work; train it
    on ``-vae(x).mean()``.

    It is a conditional one if its methods are given a context [batch, ...], such as labels, one-hot
    and of x's dtype: encoder and decoder then take it as a second argument, as those that
    :func:`bslfast.vae.mlp_encoder` makes for ``context=`` do.

    Args:
        encoder: any module, x [batch, ...] -> what the posterior takes: for the usual one [batch,
            2 * latent], mu and log_var side by side.
        decoder: any module, z [n, latent] -> what the likelihood takes, shaped like x.
        likelihood: "bernoulli" or "continuous_bernoulli": the decoder gives logits, x lies in
            [0, 1]; "normal", "laplace" or "student_t" (4 degrees of freedom): the decoder gives
            locs; "poisson" and "negative_binomial" (one learned total count): the decoder
            gives log rates, x are counts;
            "discretized_logistic_mixture": x are 256 values from -1 to 1, for which the decoder
            gives 15 times as many outputs; "categorical": x are class labels, either int64 indices
            [batch, channels, ...] or one-hot rows [batch, classes * channels, ...], for which the
            decoder gives logits of the shape of one-hot rows, those of a class side by side. The
            encoder sees one-hot rows in either case, and a mask has the shape of indices. Or any
            Likelihood of :mod:`bslfast.likelihoods`, made with ``targets=None`` for x of any shape;
            :class:`bslfast.likelihoods.Categorical` is for labels of any shape here.
        scale: of "normal", "laplace" and "student_t": "learned" (one scale for all values, a
            parameter that starts at 1), a number (fixed), or "decoder" (the decoder gives locs and
            log variances, for the normal one, or else log scales side by side on dimension 1, twice
            as many as x has there).
        beta: weight of the KL divergence in :meth:`elbo`; other than 1 it is no bound.
        latent: number of latent dimensions; by default what the encoder's first output says.
        free_bits: nats that each latent dimension has free in :meth:`elbo`, see
            :func:`bslfast.free_bits`; above 0 it is no bound.
        prior: None for N(0, I); a :class:`VampPrior`; or what is learned over vectors of the size
            of a code: a :class:`bslfast.flows.Flow` or a base of flows such as
            :class:`bslfast.flows.NormalMixtureBase`. One with a context takes that of x.
        posterior: None for a :class:`DiagonalNormal`; a :class:`FullCovarianceNormal`,
            :class:`FlowPosterior` or :class:`GumbelSoftmax`. The latter has a prior of its own.
        capacity: C, nats that the divergence is kept at: it enters :meth:`elbo` as |KL - C|, which
            is no bound; None for KL as it is.
        classes: their number, for the likelihood "categorical".

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also in later
            calls: an encoder whose output has an odd last dimension, a decoder whose output has
            another shape than x, an integer x, x outside [0, 1] (in eager mode on the CPU).

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114); beta by
    Higgins et al., "beta-VAE" (2017, https://openreview.net/forum?id=Sy2fzU9gl), the capacity by
    Burgess et al., "Understanding disentangling in beta-VAE" (2018, arXiv:1804.03599); context by
    Sohn et al., "Learning structured output representation using deep conditional generative
    models" (2015, https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html);
    missing values as by Nazabal et al., "Handling incomplete heterogeneous data using VAEs" (2020,
    arXiv:1807.03653).

    >>> import torch, bslfast
    >>> from bslfast.vae import VAE, mlp_encoder, mlp_decoder
    >>> vae = VAE(mlp_encoder((8, 8), 2), mlp_decoder(2, (8, 8)))
    >>> x = torch.rand(16, 8, 8)
    >>> (-vae(x).mean()).backward()
    >>> vae.elbo(x, n_samples=4).shape, vae.reconstruct(x).shape, vae.sample(5).shape
    (torch.Size([16]), torch.Size([16, 8, 8]), torch.Size([5, 8, 8]))
    """

    # What is known about it, see there.
    _usual: _Usual | None = None

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
        prior: VampPrior | Flow | Base | None = None,
        posterior: Posterior | None = None,
        capacity: float | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, scale, latent, classes)
        self.beta = self._last_beta = _checks.number("beta", beta, minimum=0.0)
        self.free_bits = _checks.number("free_bits", free_bits, minimum=0.0)
        self.capacity = None
        if capacity is not None:
            self.capacity = _checks.number("capacity", capacity, minimum=0.0)
        if posterior is None:
            posterior = DiagonalNormal()
        elif not isinstance(posterior, Posterior):
            raise TypeError(
                "posterior: expected None or one of bslfast.vae such as DiagonalNormal, got "
                f"{_checks.describe(posterior)}"
            )
        if prior is not None and not isinstance(prior, VampPrior | Flow | Base):
            raise TypeError(
                "prior: expected None, a VampPrior, a flow or a base of flows, got "
                f"{_checks.describe(prior)}"
            )
        if isinstance(prior, VampPrior) and not isinstance(posterior, DiagonalNormal):
            raise ValueError(
                f"prior: expected no VampPrior beside a {type(posterior).__name__}, whose density "
                "at any code takes more than one pass, got one"
            )
        if prior is not None and not posterior.takes_prior:
            raise ValueError(
                f"prior: expected None beside a {type(posterior).__name__}, which has its own, got "
                f"{_checks.describe(prior)}"
            )
        if isinstance(prior, Flow | Base):
            if self.latent is None:
                self.latent = prior.features
            if prior.features != self.latent:
                raise ValueError(
                    f"prior: expected one of {self.latent} features, as codes have, got "
                    f"{prior.features}"
                )
        self.prior = prior
        self.posterior = posterior
        if self.free_bits > 0:
            self._check_by_dimension("free_bits: expected 0")

    def extra_repr(self) -> str:
        """Show the number of latent dimensions and beta."""
        return f"{super().extra_repr()}, beta={self.beta:g}"

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the parameters of the posterior of x's codes.

        They are mu and log_var, each [batch, latent], of the usual posterior; for another one see
        its ``split``.

        Args:
            x, context, mask: as in :meth:`terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = self._observed(x, mask)
        return self._parameters_of(self._check_x(x, context), context)

    def _parameters_of(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """:meth:`encode` of what need not be data, such as pseudo-inputs between two counts."""
        return self.posterior.split(self._encoded(x, context))

    def terms(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        reduction: str = "row",
    ) -> tuple[Tensor, Tensor]:
        """Return the two parts of the bound, each [batch], in nats.

        Args:
            x: [batch, ...].
            n_samples: codes drawn for each example, over which the first part is averaged.
            context: what encoder, decoder and prior take beside x and z, [batch, ...].
            mask: bool, shaped like ``x`` (like its indices, if these are labels): False where a
                value is missing. The encoder sees 0 (or the nearest value that the likelihood has)
                there, and the likelihood is that of the others: a bound of log p(observed values).
            seed: of the noise, as in :func:`bslfast.functional.normal_rsample`.
            reduction: "none" for the divergence in each latent dimension, [batch, latent], where it
                is a sum over them; "row" for the sum.

        Returns:
            (the expected log likelihood E log p(x | z), the divergence KL(q(z | x) || p(z))).

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        if _checks.choice("reduction", reduction, ("row", "none")) == "none":
            self._check_by_dimension("reduction: expected 'row'")
        return self._terms(x, n_samples, context, mask, seed, each=reduction == "none")

    def _check_by_dimension(self, expected: str) -> None:
        if self.prior is not None or not self.posterior.by_dimension:
            what = type(self.posterior if self.prior is None else self.prior).__name__
            raise ValueError(
                f"{expected} with a {what}, with which the divergence is not a sum over "
                "dimensions, got another"
            )

    def _terms(
        self,
        x: Tensor,
        n_samples: int,
        context: Tensor | None,
        mask: Tensor | None,
        seed: int | Tensor | None,
        *,
        each: bool,
    ) -> tuple[Tensor, Tensor]:
        """The terms; the divergence of ``each`` dimension, or their sum."""
        n_samples = _checks.integer("n_samples", n_samples)
        x = self._observed(x, mask)
        parameters = self.encode(x, context)
        sample_shape = () if n_samples == 1 else (n_samples,)
        if self.prior is None:
            z, kl = self.posterior.rsample_and_kl(parameters, sample_shape, seed, each=each)
        else:
            self._check_pseudo_inputs(x)
            z, log_q = self.posterior.rsample_and_log_prob(parameters, sample_shape, seed)
            kl = log_q - self._log_prior(z, context)
            kl = kl if n_samples == 1 else kl.mean(dim=0)
        log_likelihood = self._log_likelihood(x, z, context, mask)
        return log_likelihood if n_samples == 1 else log_likelihood.mean(dim=0), kl

    def _usual_terms(self, x: Tensor, seed: int | Tensor | None) -> tuple[Tensor, Tensor] | None:
        """:meth:`terms` for one code by the methods that they have here, without calling each.

        These calls would cost more than the ops where networks are small. None if it is another
        VAE, or for arguments that the methods have to look at.
        """
        if is_traced():
            return None
        usual = self._usual
        if usual is None or usual.of() is not self or not usual.holds():
            usual = self.__dict__["_usual"] = _Usual(self)
        latent = self.latent
        if not usual.found or type(x) is not Tensor or x.ndim < 2 or latent is None:
            return None
        likelihood = usual.likelihood
        if likelihood.targets is not None or not x.is_floating_point():
            return None
        likelihood.check(x, "x")
        outputs = usual.encoder(x)
        if type(outputs) is not Tensor or outputs.shape != (len(x), 2 * latent):
            outputs = self._of_codes(outputs, x)
        z, kl = rsample_kl_of_halves(outputs, seed)
        return self._likelihood_of(usual.decoder(z), x, z, None), kl

    def _log_prior(
        self, z: Tensor, context: Tensor | None, pseudo: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """log p(z) of codes [..., code]; ``pseudo``: what pseudo-inputs give, if it is known."""
        prior = self.prior
        if prior is None:
            return self.posterior.log_prior(z)
        if isinstance(prior, VampPrior):
            return prior.log_prob(z, *(pseudo or self._of_pseudo_inputs(prior, context)))
        context = context if prior.context else None
        if isinstance(prior, Base):
            check_inputs(prior, "z", z, context)
        return prior.log_prob(z, context)

    def _check_pseudo_inputs(self, x: Tensor) -> None:
        """Raise if the prior has inputs of another shape than examples, which the encoder takes."""
        prior = self.prior
        if isinstance(prior, VampPrior) and prior.raw.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"prior: expected pseudo-inputs of the shape of an example, {tuple(x.shape[1:])}, "
                f"got {tuple(prior.raw.shape[1:])}"
            )

    def _of_pseudo_inputs(self, prior: VampPrior, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """mu and log_var of a prior's pseudo-inputs."""
        if context is not None:
            raise ValueError("context: expected None with a VampPrior, got a tensor")
        mu, log_var = self._parameters_of(prior.pseudo_inputs)
        return mu, log_var

    def elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return the evidence lower bound of each example, [batch], in nats.

        .. math:: E_{q(z|x)} \log p(x | z) - \beta\, KL(q(z | x) \,\|\, p(z))

        The divergence is exact where there is a closed form, else estimated from the same codes as
        the expectation, an average over ``n_samples`` codes. With ``free_bits``, KL is what
        :func:`bslfast.free_bits` makes of it, which depends on the whole batch.

        Args:
            x, n_samples, context, mask, seed: as in :meth:`terms`.
            weights: of the examples, [batch], by which their bounds are multiplied.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        elbo = None
        beta = self.beta
        one = n_samples == 1 and type(n_samples) is int
        if one and context is None and mask is None and isinstance(beta, int | float):
            # A program has beta in it: where that changes from call to call, ops cost less.
            if beta == self._last_beta:
                elbo = self._at_once(x, "_elbo_by_ops", seed, beta=beta)
            else:
                self._last_beta = beta
            if elbo is None:
                usual = self._usual_terms(x, seed)
                if usual is not None:
                    log_likelihood, kl = usual
                    elbo = log_likelihood - (kl if beta == 1.0 else beta * kl)
        if elbo is None:
            elbo, _ = self._elbo_and_kl(x, n_samples, context, mask, weights, seed)
        return elbo if weights is None else elbo * example_weights(weights, len(x))

    def elbo_and_kl(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        n_samples: int = 1,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return :meth:`elbo` and the divergence KL(q(z | x) || p(z)), each [batch], in nats.

        The objective by which :func:`bslfast.training.fit` trains a VAE. The divergence is without
        ``beta``, ``free_bits`` and ``capacity``.

        Args:
            x, context, n_samples, mask, seed: as in :meth:`terms`.

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
        return self._elbo_and_kl(x, n_samples, context, mask, None, seed)

    def _elbo_and_kl(
        self,
        x: Tensor,
        n_samples: int,
        context: Tensor | None,
        mask: Tensor | None,
        weights: Tensor | None,
        seed: int | Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.free_bits > 0:
            self._check_by_dimension("free_bits: expected 0")
            log_likelihood, each = self._terms(x, n_samples, context, mask, seed, each=True)
            counted, kl = free_bits(each, self.free_bits, weights=weights), each.sum(dim=1)
        else:
            log_likelihood, kl = self.terms(x, n_samples, context=context, mask=mask, seed=seed)
            counted = kl
        if self.capacity is not None:
            counted = (counted - self.capacity).abs()
        return log_likelihood - (counted if self.beta == 1.0 else self.beta * counted), kl

    def _elbo_by_ops(
        self, rows: Tensor, context: None, *, shape: torch.Size, seed: int, beta: float
    ) -> tuple[None, Tensor]:
        log_likelihood, kl = self.terms(rows.view(shape), context=context, seed=seed)
        return None, log_likelihood - beta * kl

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return ``elbo(x, context=context)``."""
        return self.elbo(x, context=context)

    def log_marginal(
        self,
        x: Tensor,
        n_samples: int = 100,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Tensor:
        r"""Return an estimate of log p(x) of each example, [batch], in nats.

        .. math:: \log \frac1S \sum_{s=1}^S \frac{p(x | z_s)\, p(z_s)}{q(z_s | x)},
            \quad z_s \sim q(z | x)

        On average below log p(x), and the closer the more samples; never on average below the
        ELBO. Memory does not grow with ``n_samples`` under ``torch.no_grad()``; with gradients this
        is the bound of :meth:`iwae`.

        Args:
            x, context, mask, seed: as in :meth:`terms`.
            n_samples: codes drawn for each example.
            max_bytes: about what values inside encoder, decoder, posterior and prior may take at a
                time: codes are decoded in portions, of samples and, for one sample, of examples.
                The sizes of the values are taken from a pass of one example. With gradients, graphs
                of all portions are held.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.

        Source: Burda et al., "Importance weighted autoencoders" (2016, arXiv:1509.00519).
        """
        return self._log_marginal(x, n_samples, context, mask, seed, max_bytes)

    def _log_marginal(
        self,
        x: Tensor,
        n_samples: int,
        context: Tensor | None,
        mask: Tensor | None,
        seed: int | Tensor | None,
        max_bytes: int,
        stream: int = 0,
    ) -> Tensor:
        """:meth:`log_marginal`, its noise from streams from ``stream`` on."""
        n_samples = _checks.integer("n_samples", n_samples)
        _checks.integer("max_bytes", max_bytes)
        x = self._observed(x, mask)
        self._check_x(x, context)
        pseudo = None
        if isinstance(self.prior, VampPrior):
            # Once for all portions, of which each may cost less than the encoder's pass.
            self._check_pseudo_inputs(x)
            pseudo = self._of_pseudo_inputs(self.prior, context)
        of_encoder, each = self._bytes_of_a_row(x, context, pseudo)
        rows = max(1, min(len(x), max_bytes // max(1, of_encoder, each)))
        held = max(1, min(n_samples, max_bytes // max(1, rows * each)))
        seed = _checks.seed(seed, x.device)
        found = []
        for first in range(0, len(x), rows):
            part = slice(first, first + rows)
            its = None if context is None else context[part]
            seen = None if mask is None else mask[part]
            parameters = self._parameters_of(x[part], its)
            portions = []
            for start in range(0, n_samples, held):
                shape = (min(held, n_samples - start),)
                z, log_q = self.posterior.rsample_and_log_prob(
                    parameters, shape, seed, stream=stream
                )
                log_prior = self._log_prior(z, its, pseudo)
                log_weights = self._log_likelihood(x[part], z, its, seen) + log_prior - log_q
                portions.append(log_weights.logsumexp(dim=0))
                stream += 1
            found.append(torch.stack(portions).logsumexp(dim=0) - math.log(n_samples))
        return torch.cat(found) if found else x.new_empty(0, dtype=log_dtype(x.dtype))

    def _bytes_of_a_row(
        self, x: Tensor, context: Tensor | None, pseudo: tuple[Tensor, Tensor] | None
    ) -> tuple[int, int]:
        """The most bytes inside the encoder for an example, and behind it for a code."""
        likelihood = self.likelihood
        parts = 1 if isinstance(likelihood, Categories) else len(likelihood.parts)
        outputs = parts * math.prod(x.shape[1:]) * x.element_size()
        if not len(x) or torch.compiler.is_compiling():
            return 0, outputs
        first = None if context is None else context[:1]
        encoder, decoder = self.encoder, self.decoder
        with torch.no_grad(), evaluating(encoder), evaluating(decoder):
            of_encoder, encoded = most_bytes(encoder, lambda: self._encoded(x[:1], first), x.device)
            z = x.new_zeros(1, self._code_size(self._latent_of(encoded)))
            of_decoder, _ = most_bytes(decoder, lambda: self._decoded(z, first), x.device)
            of_law = self._bytes_of_law(encoded, first, pseudo)
        # A likelihood may copy the outputs.
        return of_encoder, max(of_decoder, of_law, 2 * outputs)

    def _bytes_of_law(
        self, encoded: Tensor, context: Tensor | None, pseudo: tuple[Tensor, Tensor] | None
    ) -> int:
        """The most bytes inside posterior and prior for a code, such as a mixture's components."""
        posterior, prior = self.posterior, self.prior
        if prior is None and type(posterior) is DiagonalNormal:
            return 0  # nothing is larger than the code
        parameters = posterior.split(encoded)

        def call(n: int) -> None:
            # The noise is thrown away. Each call has a stream of its own, as all draws have.
            z, _ = posterior.rsample_and_log_prob(parameters, (n,), 0, stream=n)
            self._log_prior(z, context, pseudo)

        with evaluating(posterior), evaluating(posterior if prior is None else prior):
            return bytes_of_a_row(call)

    def iwae(
        self,
        x: Tensor,
        samples: int = 5,
        *,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        estimator: str = "iwae",
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return the importance-weighted bound of each example, [batch], in nats, to be maximised.

        .. math:: \log \frac1K \sum_{k=1}^K w_k, \quad
            w_k = \frac{p(x | z_k)\, p(z_k)}{q(z_k | x)}, \quad z_k \sim q(z | x)

        The number that :meth:`log_marginal` estimates, with ``samples`` codes that are all held.
        The estimators differ in the gradient of the encoder: with the normalised weights
        :math:`\tilde w_k`, "dreg" is

        .. math:: \sum_k \tilde w_k^2\, \frac{\partial \log w_k}{\partial z_k}
            \frac{\partial z_k}{\partial \phi}

        where "iwae" has :math:`\tilde w_k` and the derivative of log q(z | x) by its parameters as
        well, which makes it the noisier the larger K. The decoder's gradient is the same. ``beta``
        is not used.

        Args:
            x, context, mask, seed: as in :meth:`terms`.
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
        doubly = estimator == "dreg"
        x = self._observed(x, mask)
        z, log_q = self.posterior.rsample_and_log_prob(
            self.encode(x, context), (samples,), seed, path_only=doubly
        )
        if doubly:
            # Apart from the z that log q may be a function of, which has a weight of its own below.
            z = z.view_as(z)
        self._check_pseudo_inputs(x)
        added = self._log_prior(z, context) - log_q
        at_once = self._bound(x, z, added) if context is None and mask is None else None
        if at_once is None:
            log_weights = self._log_likelihood(x, z, context, mask) + added
            bound = BF.iwae_bound(log_weights, dim=0)
            weights = log_weights.detach().softmax(dim=0) if doubly else log_weights
        else:
            bound, weights = at_once
        if doubly and z.requires_grad:
            # What reaches log w is its normalised weight, as the decoder's gradient needs it; on
            # its way on to the encoder it is multiplied by that weight once more.
            z.register_hook(lambda grad: (grad * weights.unsqueeze(-1)).to(grad.dtype))
            log_q.register_hook(lambda grad: grad * weights)
        return bound

    def reconstruct(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean of p(x | z) at the code that stands for each example, shaped like x.

        Missing values have one too: what the others lead to.

        Args:
            x, context, mask: as in :meth:`terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came; also for
                NaN where the mask does not say that a value is missing (in eager mode on the CPU).
        """
        return self.decode(self.codes(x, context, mask=mask), context)

    def codes(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the code that stands for each example, [batch, code]: mu for the usual posterior.

        Features for other models, such as a classifier of few labels.

        Args:
            x, context, mask: as in :meth:`terms`.

        Raises:
            TypeError, ValueError: as :meth:`reconstruct`.
        """
        return self.posterior.code(*self.encode(self._complete(x, mask), context))

    def _code_size(self, latent: int) -> int:
        return self.posterior.code_size(latent)

    def _latent_of(self, outputs: Tensor) -> int:
        latent = self.posterior.latent(outputs.shape[1])
        if latent is None:
            raise ValueError(
                f"encoder: expected {self.posterior.parts}, got shape {tuple(outputs.shape)}"
            )
        return latent

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, *, seed: int | Tensor | None = None
    ) -> Tensor:
        """Return the means of p(x | z) for ``n`` codes from the prior, [n, ...].

        Probabilities, locs or rates: without the noise of the likelihood itself, and without
        gradients.

        Args:
            n: number of samples.
            context: what decoder and prior take beside codes, [n, ...], or [1, ...] for all.
            seed: as in :meth:`terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came; also if the
                number of latent dimensions is not known yet.
        """
        n = _checks.integer("n", n)
        if context is not None:
            _checks.floating("context", context)
            if context.dim() == 0 or context.shape[0] not in (1, n):
                raise ValueError(
                    f"context: expected shape [{n}, ...] or [1, ...], got "
                    f"{_checks.describe(context)}"
                )
            context = context.expand(n, *context.shape[1:])
        return self.decode(self._prior_codes(n, context, seed), context)

    def _prior_codes(self, n: int, context: Tensor | None, seed: int | Tensor | None) -> Tensor:
        """Codes from the prior, [n, code]."""
        prior = self.prior
        like = next(self.decoder.parameters(), torch.empty(()))
        if prior is None:
            if self.latent is None:
                raise ValueError(
                    "latent: expected a number given to the constructor, or a call of encode "
                    "before, got None"
                )
            return self.posterior.sample_prior(n, self.latent, like, seed)
        if isinstance(prior, VampPrior):
            return prior.sample(n, *self._of_pseudo_inputs(prior, context), seed)
        context = context if prior.context else None
        if isinstance(prior, Base):
            like = like.new_zeros(()).expand(n, prior.features)
            check_inputs(prior, "z", like, context)
            return prior.rsample(like, context, seed)
        if context is None:
            return prior.sample(n, seed=seed)
        return prior.sample(1, context, seed=seed).squeeze(-2)
