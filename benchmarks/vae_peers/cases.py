"""The networks to be timed, their weights and data, and what all implementations must compute."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from beside import close_on_average
from torch import Tensor

#: The weight and the bias of a layer.
Layer = tuple[Tensor, Tensor]
#: Steps of an epoch, and epochs of one call of a training loop.
STEPS, EPOCHS = 100, 2
#: Standard deviations of codes that are next to certain. With less, the gradients of log q by a
#: code and by its mean, which are each other's negative, would leave roundings.
CERTAIN = 1e-5


@dataclass(frozen=True)
class Case:
    """A VAE of dense networks with relu for binary data.

    Attributes:
        features: numbers of an example.
        hidden: widths of the encoder; the decoder has them in reverse.
        latent: dimensions of a code.
        batch: rows of a step.
        samples: codes of a row in an importance-weighted bound.
        apart: whether importance weights are as far apart as at the start of training, where most
            are next to nothing. Only the importance-weighted bound is timed then.
    """

    features: int
    hidden: tuple[int, ...]
    latent: int
    batch: int = 128
    samples: int = 50
    apart: bool = False

    @property
    def name(self) -> str:
        name = "-".join(map(str, (self.features, *self.hidden, self.latent)))
        return f"{name} apart" if self.apart else name

    @property
    def dataset_size(self) -> int:
        return STEPS * self.batch

    def data(self, rows: int) -> Tensor:
        """Pixels [rows, features], of which as many are set as of MNIST's."""
        return (torch.rand(rows, self.features) < 0.13).float()


CASES = [
    Case(784, (400, 400), 20),
    Case(784, (400, 400), 20, apart=True),
    Case(784, (400,), 20),
    Case(64, (64,), 2),
]


@dataclass(frozen=True)
class Weights:
    """The layers of both networks.

    Attributes:
        encoder: the last layer gives mu and log_var side by side.
        decoder: the last layer gives logits.
    """

    encoder: list[Layer]
    decoder: list[Layer]


def draw(case: Case) -> Weights:
    """Random weights; no importance weight is far greater than others, unless they are apart."""
    spread = (30 if case.apart else 3) / case.features**0.5

    def layers(widths: tuple[int, ...], last: float) -> list[Layer]:
        return [
            (
                torch.randn(n_out, n_in) * (last if n == len(widths) - 2 else 2**0.5) / n_in**0.5,
                0.1 * torch.randn(n_out),
            )
            for n, (n_in, n_out) in enumerate(itertools.pairwise(widths))
        ]

    made = Weights(
        layers((case.features, *case.hidden, 2 * case.latent), 0.5),
        layers((case.latent, *case.hidden[::-1], case.features), spread),
    )
    made.encoder[-1][1][case.latent :] -= 1
    return made


def certain(weights: Weights) -> Weights:
    """The same means of codes, with the variance :data:`CERTAIN` squared."""
    *first, (w, b) = weights.encoder
    w, b = w.clone(), b.clone()
    w[len(w) // 2 :], b[len(b) // 2 :] = 0, 2 * math.log(CERTAIN)
    return Weights([*first, (w, b)], weights.decoder)


class Exact:
    """What implementations must compute, in float64 by plain torch and torch.distributions.

    Args:
        case, weights: which network.
        x: the batch.
        images: how many rows of it have their marginal likelihoods compared, of ``estimates``
            samples each.
    """

    draws, draws_of_bounds, images, estimates = 20, 6, 16, 200

    def __init__(self, case: Case, weights: Weights, x: Tensor) -> None:
        self.case, self.weights, self.x = case, weights, x
        self.loss = torch.stack([-self._elbo(weights).mean() for _ in range(self.draws)])
        self.bounds = [
            self._log_weights(weights, x, case.samples) for _ in range(self.draws_of_bounds)
        ]
        estimates = (
            self._log_weights(weights, x[: self.images], self.estimates)
            for _ in range(self.draws_of_bounds)
        )
        self.marginal = torch.stack([_bound(log_w) for log_w in estimates])
        self.logits = outputs(weights.decoder, self._posterior(weights, x)[0])
        sure = certain(weights)
        first = sure.encoder[0][0].double().requires_grad_()
        own = Weights([(first, sure.encoder[0][1]), *sure.encoder[1:]], sure.decoder)
        loss = -self._elbo(own).mean()
        self.sure_loss = loss.detach()
        self.gradient = torch.autograd.grad(loss, first)[0]
        bound = -_bound(self._log_weights(own, x, case.samples))
        self.gradient_of_bound = torch.autograd.grad(bound, first)[0]

    def _posterior(self, weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of codes."""
        mu, log_var = outputs(weights.encoder, x).chunk(2, dim=1)
        return mu, (0.5 * log_var).exp()

    def _elbo(self, weights: Weights) -> Tensor:
        posterior = torch.distributions.Normal(*self._posterior(weights, self.x))
        prior = torch.distributions.Normal(torch.zeros_like(posterior.loc), 1.0)
        kl: Tensor = torch.distributions.kl_divergence(posterior, prior).sum(1)
        return log_likelihood(outputs(weights.decoder, posterior.rsample()), self.x) - kl

    def _log_weights(self, weights: Weights, x: Tensor, samples: int) -> Tensor:
        """log p(x, z) - log q(z | x), [samples, rows]."""
        posterior = torch.distributions.Normal(*self._posterior(weights, x))
        prior = torch.distributions.Normal(torch.zeros_like(posterior.loc), 1.0)
        z = posterior.rsample((samples,))
        likelihood = log_likelihood(outputs(weights.decoder, z), x)
        prior_less_posterior: Tensor = (prior.log_prob(z) - posterior.log_prob(z)).sum(-1)
        return likelihood + prior_less_posterior

    def check_logits(self, found: Tensor) -> None:
        """Check the decoder's outputs at the means of codes."""
        torch.testing.assert_close(found.double(), self.logits, rtol=1e-3, atol=5e-4)

    def check_loss(self, found: Tensor, *, sure: bool = False) -> None:
        """Check draws of the batch's mean negative bound, or the one of :func:`certain` weights."""
        wanted = self.sure_loss[None] if sure else self.loss
        close_on_average(found, wanted, "loss", relative=1e-3 if sure else 1e-5)

    def check_bound(self, found: Tensor, *, surrogate: bool = False) -> None:
        """Check draws of the batch's mean negative importance-weighted bound.

        Args:
            found: draws.
            surrogate: whether it is the log weights' mean by normalised weights, which has the
                bound's gradient.
        """
        mean = _weighted if surrogate else _bound
        wanted = torch.stack([-mean(log_w) for log_w in self.bounds])
        close_on_average(found, wanted, "importance-weighted bound", relative=1e-5)

    def check_marginal(self, found: Tensor) -> None:
        """Check draws of the mean log likelihood of the first images."""
        close_on_average(found, self.marginal, "marginal likelihood", relative=1e-5)

    def check_gradient(self, found: Tensor, *, of_bound: bool = False) -> None:
        """Check a loss's gradient by the first weight, with :func:`certain` weights.

        Some units of tens of thousands may be on the other side of relu's kink.
        """
        wanted = self.gradient_of_bound if of_bound else self.gradient
        error = (found.double() - wanted).norm() / wanted.norm()
        if not error.item() <= 2e-2:
            raise AssertionError(f"gradient: expected a relative error of 0.02, got {error:.2g}")


def outputs(layers: list[Layer], x: Tensor) -> Tensor:
    """The outputs of a dense network, in float64."""
    x = x.double()
    for index, (w, b) in enumerate(layers):
        x = F.linear(torch.relu(x) if index else x, w.double(), b.double())
    return x


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """The log likelihood of each row."""
    found: Tensor = torch.distributions.Bernoulli(logits=logits).log_prob(x.double()).sum(-1)
    return found


def _bound(log_weights: Tensor) -> Tensor:
    """The mean over rows of the logarithm of their average."""
    return (log_weights.logsumexp(0) - math.log(len(log_weights))).mean()


def _weighted(log_weights: Tensor) -> Tensor:
    """The mean over rows of their average by normalised weights."""
    return (log_weights.softmax(0) * log_weights).sum(0).mean()
