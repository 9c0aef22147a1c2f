"""Learning from few labels: a variational autoencoder with the class as a code of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.vae.model import MAX_BYTES, VAE

# A probability that counts for nothing beside others, in float64 too.
_NEXT_TO_NOTHING = 2.0**-80


class SemiSupervisedVAE(nn.Module):
    r"""A conditional VAE of x given its class y, and a classifier that guesses y (the paper's M2).

    .. math:: \log p(x, y) \ge E_{q(z|x,y)} \log \frac{p(x | y, z)\, p(y)\, p(z)}{q(z | x, y)}
        = \mathcal L(x, y), \qquad
        \log p(x) \ge \sum_y q(y | x)\, (\mathcal L(x, y) - \log q(y | x)) = \mathcal U(x)

    Both bounds together train it on data of which few examples have labels (:meth:`objective`).
    Called on x and y it returns the objective.

    M1 is a :class:`VAE` of x alone, whose codes ``vae.encode(x)[0]``, or samples of them, are
    features for any classifier. The paper's best model, M1+M2, is this class on such codes, with a
    normal likelihood: see the example.

    Args:
        vae: of x given a context, the class as a one-hot vector [batch, classes]: its encoder and
            decoder take ``context=classes``.
        classifier: any module, x [batch, ...] -> logits [batch, classes] of q(y | x).
        classes: their number, at least 2.
        labelled: the part of the training examples that has labels, above 0 and at most 1.
        alpha: weight of the classifier's own log likelihood, which is no part of the bounds. The
            mean of the objective is the mean bound plus alpha times the mean of log q(y | x) over
            labelled examples. So log q(y | x) of each of these counts alpha / labelled times: with
            the paper's 0.1, and labels for 100 of 50,000 examples (``labelled=0.002``), 50 times.
        class_prior: p(y), probabilities above 0; None for equal ones.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also in later
            calls, for logits of another shape than [batch, classes], and for what ``vae`` does not
            take.

    Source: Kingma et al., "Semi-supervised learning with deep generative models" (2014,
    arXiv:1406.5298), equations 6 to 9.

    >>> import torch
    >>> from bslfast.training import fit
    >>> from bslfast.vae import VAE, SemiSupervisedVAE, mlp_encoder, mlp_decoder
    >>> x, y = torch.rand(100, 8, 8), torch.randint(3, (100,))
    >>> y[20:] = -1  # no label
    >>> m1 = VAE(mlp_encoder((8, 8), 5, (32,)), mlp_decoder(5, (8, 8), (32,)))
    >>> history = fit(m1, (x,), epochs=2, objective=VAE.elbo_and_kl)
    >>> with torch.no_grad():
    ...     codes = m1.encode(x)[0]
    >>> vae = VAE(
    ...     mlp_encoder((5,), 2, (16,), context=3), mlp_decoder(2, (5,), (16,), context=3),
    ...     likelihood="normal", latent=2,
    ... )
    >>> classifier = mlp_encoder((5,), 2, (16,), outputs=3)
    >>> m2 = SemiSupervisedVAE(vae, classifier, classes=3, labelled=0.2)
    >>> history = fit(m2, (codes, y), epochs=2, objective=SemiSupervisedVAE.objective)
    >>> m2.classify(codes).shape, m1.decode(m2.sample(4)).shape
    (torch.Size([100, 3]), torch.Size([4, 8, 8]))
    """

    log_class_prior: Tensor

    def __init__(
        self,
        vae: VAE,
        classifier: nn.Module,
        *,
        classes: int,
        labelled: float,
        alpha: float = 0.1,
        class_prior: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(vae, VAE):
            raise TypeError(f"vae: expected a bslfast.vae.VAE, got {_checks.describe(vae)}")
        if not isinstance(classifier, nn.Module):
            raise TypeError(
                f"classifier: expected a torch.nn.Module, got {_checks.describe(classifier)}"
            )
        self.classes = _checks.integer("classes", classes, 2)
        self.labelled = _checks.number("labelled", labelled, above=0.0)
        if self.labelled > 1.0:
            raise ValueError(f"labelled: expected a number of at most 1, got {labelled!r}")
        self.alpha = _checks.number("alpha", alpha, minimum=0.0)
        self.class_prior = None
        if class_prior is not None:
            self.class_prior = _probabilities(class_prior, self.classes)
        self.vae = vae
        self.classifier = classifier
        like = next(vae.parameters(), torch.empty(()))
        self.register_buffer("log_class_prior", like.new_empty(self.classes))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the class prior to what it was made with; networks are left alone."""
        prior = self.class_prior or (1 / self.classes,) * self.classes
        logs = torch.tensor([math.log(p) for p in prior], dtype=torch.float64, device="cpu")
        self.log_class_prior.copy_(logs)

    def elbo(
        self,
        x: Tensor,
        y: Tensor,
        n_samples: int = 1,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Return the bound of log p(x, y) of each labelled example, [batch], in nats.

        Args:
            x: [batch, ...].
            y: classes, int64 [batch], from 0 on.
            n_samples: codes drawn for each example.
            mask: where values of x are missing, as in :meth:`VAE.terms`. The classifier sees what
                the encoder sees.
            seed: of the noise, as in :func:`bslfast.functional.normal_rsample`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = self._seen(x, mask)
        labels = _checks.class_indices("y", y, self.classes, len(x))
        return self._bounds(x, labels, n_samples, mask, seed)

    def unlabelled_elbo(
        self,
        x: Tensor,
        n_samples: int = 1,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Return the bound of log p(x) of each example, [batch], in nats.

        The sum over classes is exact: codes are drawn, and decoded, for each class.

        Args:
            x, n_samples, mask, seed: as in :meth:`elbo`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = self._seen(x, mask)
        no_labels = torch.full((len(x),), -1, device=x.device)
        return self.objective(x, no_labels, n_samples, mask=mask, seed=seed)

    def objective(
        self,
        x: Tensor,
        y: Tensor,
        n_samples: int = 1,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Tensor:
        r"""Return what training maximises, of each example of a mixed batch, [batch].

        It is U(x) without a label, and with one

        .. math:: \mathcal L(x, y) + \frac{\alpha}{\text{labelled}} \log q(y | x)

        Train it by ``bslfast.training.fit(model, (x, y), objective=SemiSupervisedVAE.objective)``.

        Args:
            x, n_samples, mask, seed: as in :meth:`elbo`.
            y: classes, int64 [batch], from 0 on; -1 where there is no label.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = self._seen(x, mask)
        labels = self._labels(y, len(x)).unsqueeze(1)
        known = labels >= 0
        classes = torch.arange(self.classes, device=x.device)
        # A labelled example is needed with its class, any other with each of them.
        example, label = torch.where(known, labels == classes, True).nonzero(as_tuple=True)
        seen = None if mask is None else mask[example]
        bounds = self._bounds(x[example], label, n_samples, seen, seed)
        by_class = bounds.new_zeros(known.shape[0], self.classes)
        by_class = by_class.index_put((example, label), bounds)
        log_q = torch.log_softmax(self._logits(x), dim=1, dtype=bounds.dtype)
        q = log_q.exp()
        # 0 log 0 is 0. A class of next to no probability counts for nothing. Its gradients would be
        # numbers so small that CPUs are slow with them, in all layers.
        unlikely = q < _NEXT_TO_NOTHING
        q, log_of_q = q.masked_fill(unlikely, 0.0), log_q.masked_fill(unlikely, 0.0)
        unlabelled = (q * (by_class - log_of_q)).sum(dim=1)
        counted = by_class
        if self.alpha > 0:
            counted = by_class + (self.alpha / self.labelled) * log_q
        with_label = counted.gather(1, labels.clamp(min=0)).squeeze(1)
        return torch.where(known.squeeze(1), with_label, unlabelled)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``objective(x, y)``."""
        return self.objective(x, y)

    def classify(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return the probabilities q(y | x) of the classes, [batch, classes].

        Args:
            x, mask: as in :meth:`elbo`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        return torch.softmax(self._logits(self._seen(x, mask)), dim=1)

    def log_marginal(
        self,
        x: Tensor,
        n_samples: int = 100,
        *,
        mask: Tensor | None = None,
        seed: int | Tensor | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Tensor:
        r"""Return an estimate of log p(x) of each example, [batch], in nats.

        .. math:: \log \sum_y p(y)\, \hat p(x | y)

        with the estimates of :meth:`VAE.log_marginal`, which take ``n_samples`` codes for each
        class.

        Args:
            x, mask, seed: as in :meth:`elbo`.
            n_samples, max_bytes: as in :meth:`VAE.log_marginal`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        x = self._seen(x, mask)
        rows = len(x)
        seed = _checks.seed(seed, x.device)
        by_class = []
        for label in range(self.classes):
            context = self._context(torch.full((rows,), label, device=x.device), x)
            # Streams of its own: a call takes one for each portion of codes.
            log_p = self.vae._log_marginal(
                x, n_samples, context, mask, seed, max_bytes, label << 32
            )
            by_class.append(log_p + self.log_class_prior[label])
        return torch.stack(by_class).logsumexp(dim=0)

    @torch.no_grad()
    def sample(
        self, n: int, y: Tensor | None = None, *, seed: int | Tensor | None = None
    ) -> Tensor:
        """Return the means of p(x | y, z) for ``n`` codes from the prior, [n, ...].

        Args:
            n: number of samples.
            y: their classes, int64 [n]; None draws them from the class prior.
            seed: as in :meth:`elbo`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        n = _checks.integer("n", n)
        log_prior = self.log_class_prior
        if y is None:
            seed = _checks.seed(seed, log_prior.device)
            # The stream is another than that of the codes' noise.
            y = BF.gumbel_softmax_rsample(
                log_prior, 1.0, hard=True, sample_shape=(n,), seed=seed, stream=1
            ).argmax(dim=-1)
        labels = _checks.class_indices("y", y, self.classes, n)
        like = next(self.vae.decoder.parameters(), log_prior)
        return self.vae.sample(n, self._context(labels, like), seed=seed)

    def _seen(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What classifier and encoder see of x, where values of it are missing."""
        x = self.vae._observed(x, mask)
        _rows(x)
        return x

    def _bounds(
        self,
        x: Tensor,
        labels: Tensor,
        n_samples: int,
        mask: Tensor | None,
        seed: int | Tensor | None,
    ) -> Tensor:
        context = self._context(labels, x)
        bounds = self.vae.elbo(x, n_samples, context=context, mask=mask, seed=seed)
        return bounds + self.log_class_prior[labels]

    def _context(self, labels: Tensor, like: Tensor) -> Tensor:
        return nn.functional.one_hot(labels, self.classes).to(like.dtype)

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.classifier(x)
        wanted = (x.shape[0], self.classes)
        if not isinstance(logits, Tensor) or logits.shape != wanted:
            raise ValueError(
                f"classifier: expected logits of shape {wanted}, got {_checks.describe(logits)}"
            )
        return logits

    def _labels(self, y: Tensor, rows: int) -> Tensor:
        """``y`` if it has classes, and -1 for none. Values are looked at on the CPU alone."""
        integers = isinstance(y, Tensor) and y.dtype == torch.int64
        _checks.class_indices("y", y.clamp(min=0) if integers else y, self.classes, rows)
        if y.device.type == "cpu" and not torch.compiler.is_compiling() and bool((y < -1).any()):
            raise ValueError(
                f"y: expected class indices, or -1 where there is no label, got {int(y.min())}"
            )
        return y

    def extra_repr(self) -> str:
        """Show the settings."""
        prior = "" if self.class_prior is None else f", class_prior={self.class_prior}"
        return f"classes={self.classes}, labelled={self.labelled:g}, alpha={self.alpha:g}{prior}"


def _rows(x: Tensor) -> int:
    """How many examples x has."""
    if _checks.floating("x", x).dim() < 2:
        raise ValueError(f"x: expected shape [batch, ...], got {_checks.describe(x)}")
    return x.shape[0]


def _probabilities(values: Sequence[float], classes: int) -> tuple[float, ...]:
    if not isinstance(values, tuple | list):
        raise TypeError(
            f"class_prior: expected None or {classes} probabilities, got {_checks.describe(values)}"
        )
    if len(values) != classes:
        raise ValueError(f"class_prior: expected {classes} probabilities, got {len(values)}")
    found = tuple(_checks.number("class_prior", value, above=0.0) for value in values)
    if abs(sum(found) - 1) > 1e-6:
        raise ValueError(f"class_prior: expected a sum of 1, got {sum(found):g}")
    return found
