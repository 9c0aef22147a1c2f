"""What a VAE adds to its networks, alone: sample, divergence and likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from beside import Implementation, close_on_average
from torch import Tensor
from vae_peers.cases import log_likelihood

from bslfast import functional as BF
from bslfast.functional.normal import rsample_kl_of_halves

#: A function of the tensor whose gradient is computed, and of others.
Function = Callable[..., Sequence[Tensor]]


def sample_and_kl(outputs: Tensor) -> Sequence[Tensor]:
    """From an encoder's outputs, as bslfast's VAE does it."""
    return rsample_kl_of_halves(outputs, None)


def eager_sample_and_kl(outputs: Tensor) -> Sequence[Tensor]:
    """The same by hand."""
    mu, log_var = outputs.chunk(2, dim=1)
    z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
    return z, -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp(), dim=1)


def check_sample_and_kl(function: Function, outputs: Tensor) -> None:
    """Compare with float64; what a sample has for gradients follows from the sample."""
    z, kl = function(outputs)
    exact = outputs.detach().double().requires_grad_()
    mu, log_var = exact.chunk(2, dim=1)
    posterior = torch.distributions.Normal(mu, (0.5 * log_var).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mu), 1.0)
    wanted = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(kl.double(), wanted, rtol=1e-5, atol=1e-5)
    noise = ((z.double() - mu) / posterior.scale).detach().flatten()
    close_on_average(noise, torch.zeros(1), "noise", relative=0)
    close_on_average(noise.square(), torch.ones(1), "variance of the noise", relative=0)
    weights = torch.randn_like(z), torch.randn_like(kl)
    (found,) = torch.autograd.grad((z, kl), outputs, weights)
    (of_kl,) = torch.autograd.grad(wanted, exact, weights[1].double())
    of_scale = 0.5 * weights[0].double() * (z.double() - mu)
    of_sample = torch.cat([weights[0].double(), of_scale], dim=1)
    torch.testing.assert_close(found.double(), of_kl + of_sample, rtol=1e-5, atol=1e-5)


def bernoulli(logits: Tensor, x: Tensor) -> Sequence[Tensor]:
    """The log likelihood of each row, as bslfast's VAE computes it."""
    return (BF.bernoulli_log_prob(x, logits),)


def eager_bernoulli(logits: Tensor, x: Tensor) -> Sequence[Tensor]:
    """The same by hand."""
    return (-F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1),)


def check_bernoulli(function: Function, logits: Tensor, x: Tensor) -> None:
    """Compare with float64."""
    exact = logits.detach().double().requires_grad_()
    wanted, found = log_likelihood(exact, x), function(logits, x)[0]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(found)
    grads = (
        torch.autograd.grad(found, logits, weights),
        torch.autograd.grad(wanted, exact, weights.double()),
    )
    torch.testing.assert_close(grads[0][0].double(), grads[1][0], rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Part:
    """Functions that compute the same.

    Attributes:
        name: in the report.
        shape: of the tensor whose gradient is computed.
        ours, eager: by bslfast, and by hand.
        check: raises AssertionError if a function is wrong.
        binary: whether there is data beside the tensor.
    """

    name: str
    shape: tuple[int, int]
    ours: Function
    eager: Function
    check: Callable[..., None]
    binary: bool = False

    def tensors(self) -> list[Tensor]:
        """The arguments."""
        made = [torch.randn(self.shape, requires_grad=True)]
        return [*made, (torch.rand(self.shape) < 0.13).float()] if self.binary else made

    def build(self, tensors: list[Tensor], name: str) -> Implementation:
        """The function of bslfast or of a peer, after a comparison."""
        function = self.ours if name == "bslfast" else self.eager
        if name == "torch.compile":
            torch._dynamo.reset()
            function = torch.compile(function)
        self.check(function, *tensors)
        return Timed(function, tensors)


@dataclass
class Timed:
    """A function, forward and backward."""

    function: Function
    tensors: list[Tensor]
    gradients: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.gradients = [torch.randn_like(t) for t in self.function(*self.tensors)]

    def seconds(self, what: str, calls: int) -> float:
        """See :class:`beside.Implementation`."""
        begin = time.perf_counter()
        for _ in range(calls):
            results = self.function(*self.tensors)
            torch.autograd.grad(results, self.tensors[0], self.gradients)
        return time.perf_counter() - begin

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return 1


PARTS = [
    Part("sample + KL", (128, 40), sample_and_kl, eager_sample_and_kl, check_sample_and_kl),
    Part("Bernoulli", (128, 784), bernoulli, eager_bernoulli, check_bernoulli, binary=True),
]
#: The peers that are functions of torch.
FUNCTIONS = ("torch eager", "torch.compile")
