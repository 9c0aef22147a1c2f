"""The networks to be timed, their weights and data, and what all implementations must compute."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from beside import close_on_average
from torch import Tensor

import bslfast

#: For each layer: loc and scale of the weight, loc and scale of the bias.
Weights = list[tuple[Tensor, Tensor, Tensor, Tensor]]
#: Steps of an epoch, and epochs of one call of a training loop.
STEPS, EPOCHS = 200, 5


@dataclass(frozen=True)
class Case:
    """A dense network with relu; one output is a normal target with learned noise, ten are classes.

    Attributes:
        widths: of all layers, inputs first.
        batch: rows of a step.
        samples, rows: of the predictions.
    """

    widths: tuple[int, ...]
    batch: int
    samples: int
    rows: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self.widths))

    @property
    def classes(self) -> bool:
        return self.widths[-1] > 1

    @property
    def dataset_size(self) -> int:
        return STEPS * self.batch

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer."""
        return list(itertools.pairwise(self.widths))

    def data(self, rows: int) -> tuple[Tensor, Tensor]:
        """Inputs [rows, features], and targets [rows, 1] or classes [rows]."""
        x = torch.randn(rows, self.widths[0])
        return x, torch.randint(10, (rows,)) if self.classes else torch.randn(rows, 1)

    def nll(self, outputs: Tensor, y: Tensor, log_noise: Tensor | None) -> Tensor:
        """The mean of the targets' negative log likelihoods, as it is written in plain torch."""
        if self.classes:
            return F.cross_entropy(outputs, y)
        assert log_noise is not None
        scaled = (y - outputs) * torch.exp(-log_noise)
        return (0.5 * scaled.square() + log_noise).mean() + 0.5 * math.log(2 * math.pi)


CASES = [
    Case((11, 50, 1), batch=100, samples=100, rows=1000),
    Case((100, 100, 100, 1), batch=128, samples=100, rows=1000),
    Case((784, 100, 100, 10), batch=128, samples=20, rows=128),
    Case((784, 1200, 1200, 10), batch=128, samples=20, rows=128),
]


def ours(case: Case) -> bslfast.bnn.BayesianMLP:
    """bslfast's network, as its users make it."""
    likelihood = "categorical" if case.classes else "normal"
    return bslfast.bnn.BayesianMLP(
        case.widths[0], case.widths[1:-1], case.widths[-1], likelihood=likelihood
    )


def draw(case: Case) -> Weights:
    """Random parameters of a posterior, different for each weight."""
    found = []
    for n_in, n_out in case.shapes:
        weight, bias = torch.randn(n_out, n_in) / n_in**0.5, 0.1 * torch.randn(n_out)
        scales = (0.03 * torch.exp(0.3 * torch.randn_like(loc)) for loc in (weight, bias))
        found.append((weight, next(scales), bias, next(scales)))
    return found


def certain(weights: Weights) -> Weights:
    """The same means, with next to no variance.

    With less, roundings in the gradient of blitz's estimated divergence would hide the data's.
    """
    return [
        (w, torch.full_like(w_scale, 1e-6), b, torch.full_like(b_scale, 1e-6))
        for w, w_scale, b, b_scale in weights
    ]


class Exact:
    """What implementations must compute, in float64 by plain torch and torch.distributions.

    Args:
        case, weights: which network.
        data: the data set, whose first rows are the batch, and those to predict.

    Attributes:
        draws: how often a loss is drawn for comparisons.
    """

    def __init__(self, case: Case, weights: Weights, data: tuple[Tensor, Tensor]) -> None:
        self.weights, self.x = weights, data[0][: case.rows]
        x, y = data[0][: case.batch], data[1][: case.batch]
        self.draws = 100 if weights[-1][0].shape[1] < 1000 else 20
        self.at_means = outputs(certain(weights), self.x)
        sampled = torch.stack([outputs(weights, self.x) for _ in range(case.samples)])
        self.spread = _spread(sampled)
        none = torch.zeros(())
        self.nll = torch.stack([case.nll(outputs(weights, x), y, none) for _ in range(self.draws)])
        first, *others = certain(weights)
        loc = first[0].double().requires_grad_()
        nll = case.nll(outputs([(loc, *first[1:]), *others], x), y, none)
        self.nll_at_means = nll.detach()[None]
        self.gradient = torch.autograd.grad(nll, loc)[0]
        self.divergences = divergences(weights)

    def check_predictions(self, at_means: Tensor, predictions: Tensor | None) -> None:
        """Check outputs [samples, rows, outputs].

        Args:
            at_means: with :func:`certain` weights.
            predictions: with these weights; None for a plain network.
        """
        wanted = self.at_means.expand_as(at_means)
        torch.testing.assert_close(at_means.double(), wanted, rtol=1e-3, atol=5e-4)
        if predictions is not None:
            found = _spread(predictions)[None]
            close_on_average(found, self.spread[None], "standard deviation", relative=0.3)

    def check_nll(self, nll: Tensor, *, at_means: bool = False) -> None:
        """Check draws of the batch's mean negative log likelihood, at noise 1."""
        wanted = self.nll_at_means if at_means else self.nll
        close_on_average(nll, wanted, "negative log likelihood", relative=1e-5)

    def check_gradient(self, found: Tensor) -> None:
        """Check the loss's gradient by the first weight's locs, with :func:`certain` weights.

        That of the divergence, divided by the rows of the data set, is a thousandth of it or less.
        One unit of thousands may be on the other side of relu's kink.
        """
        error = (found.double() - self.gradient).norm() / self.gradient.norm()
        if not error.item() <= 1e-2:
            raise AssertionError(f"gradient: expected a relative error of 0.01, got {error:.2g}")

    def check_divergence(self, found: Tensor, *, averaged: bool = False) -> Tensor:
        """Check a divergence, or draws of an estimate of it, and return the exact one.

        Args:
            found: one or many.
            averaged: whether it is the sum over tensors of the mean over their elements.
        """
        parts = [t.mean() if averaged else t.sum() for t in self.divergences]
        wanted = torch.stack(parts).sum()
        close_on_average(found.reshape(-1), wanted[None], "divergence", relative=2e-5)
        return wanted


def outputs(weights: Weights, x: Tensor) -> Tensor:
    """The outputs for a draw of the weights, in float64."""
    x = x.double()
    for index, (w, w_scale, b, b_scale) in enumerate(weights):
        w, b = (
            loc.double() + scale.double() * torch.randn_like(loc, dtype=torch.float64)
            for loc, scale in ((w, w_scale), (b, b_scale))
        )
        x = F.linear(torch.relu(x) if index else x, w, b)
    return x


def divergences(weights: Weights) -> list[Tensor]:
    """From N(0, 1), of each element of each tensor."""
    found = []
    for loc, scale in itertools.chain.from_iterable((own[:2], own[2:]) for own in weights):
        prior = torch.distributions.Normal(torch.zeros_like(loc).double(), 1.0)
        posterior = torch.distributions.Normal(loc.double(), scale.double())
        found.append(torch.distributions.kl_divergence(posterior, prior))
    return found


def _spread(outputs: Tensor) -> Tensor:
    """The root of the average variance over samples."""
    return outputs.double().var(dim=0).mean().sqrt()
