"""VAEs of bslfast, torch and pythae, and their networks alone.

The code of libraries is used as it is. Priors are N(0, 1), posteriors normal, pixels Bernoulli.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from beside import Implementation, Peer
from torch import Tensor, nn
from vae_peers.cases import EPOCHS, STEPS, Case, Exact, Layer, Weights, certain

import bslfast
from bslfast.vae import VAE, mlp_decoder, mlp_encoder

HERE = Path(__file__).parent
STEP, ADAM, LOOP, BOUND, MARGINAL = PASSES = (
    "forward + backward",
    "step with Adam",
    "training loop",
    "importance-weighted bound",
    "log_marginal",
)


@dataclass(frozen=True)
class Estimates:
    """How marginal likelihoods are estimated.

    Attributes:
        images: how many rows have theirs estimated.
        samples: of each.
        batch_size: samples that pythae decodes at a time.
    """

    images: int = 50
    samples: int = 5000
    batch_size: int = 1000


class Network(nn.Module):
    """A VAE. A subclass says how it is computed.

    Args:
        case: which.
    """

    #: The passes that it has.
    passes: ClassVar[tuple[str, ...]] = (STEP, ADAM, LOOP, BOUND)

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        widths = (case.features, *case.hidden)
        self.encoder: nn.Module = dense(*widths, self.codes(case.latent))
        self.decoder: nn.Module = dense(case.latent, *widths[::-1])

    @staticmethod
    def codes(latent: int) -> int:
        """The outputs of the encoder."""
        return 2 * latent

    def loss(self, x: Tensor) -> Tensor:
        """The mean negative bound of a batch."""
        raise NotImplementedError

    def bound(self, x: Tensor) -> Tensor:
        """The mean negative importance-weighted bound of a batch."""
        raise NotImplementedError

    def marginal(self, x: Tensor, estimates: Estimates) -> Tensor:
        """The mean estimate of log p(x)."""
        raise NotImplementedError

    def backward(self, x: Tensor) -> None:
        """Forward and backward of the loss."""
        self.loss(x).backward()

    def backward_of_bound(self, x: Tensor) -> None:
        """Forward and backward of the importance-weighted bound."""
        self.bound(x).backward()

    def load(self, weights: Weights) -> None:
        """Take the weights."""
        load(self.encoder, weights.encoder)
        load(self.decoder, weights.decoder)

    def check(self, exact: Exact) -> None:
        """Compare with float64, and end with the weights of ``exact``."""
        first = next(m for m in self.encoder.modules() if isinstance(m, nn.Linear)).weight
        self.load(certain(exact.weights))
        self.check_loss(exact, first, sure=True)
        self.load(exact.weights)
        self.check_loss(exact, first, sure=False)
        self.zero_grad()

    def check_loss(self, exact: Exact, first: Tensor, *, sure: bool) -> None:
        """Compare the bounds, and with certain codes the gradients by the first weight."""
        losses = self.drawn(self.loss, exact.x, exact.draws)
        exact.check_loss(losses, sure=sure)
        if sure:
            for backward, of_bound in ((self.backward, False), (self.backward_of_bound, True)):
                self.zero_grad()
                backward(exact.x)
                assert first.grad is not None
                exact.check_gradient(first.grad, of_bound=of_bound)
            return
        self.check_bound(exact)
        if MARGINAL in self.passes:
            estimates = Estimates(exact.images, exact.estimates, exact.estimates // 2)
            few, draws = exact.x[: exact.images], range(exact.draws_of_bounds)
            found = [self.marginal(few, estimates) for _ in draws]
            exact.check_marginal(torch.stack(found))

    def check_bound(self, exact: Exact) -> None:
        """Compare draws of the importance-weighted bound."""
        exact.check_bound(self.drawn(self.bound, exact.x, exact.draws_of_bounds))

    @staticmethod
    def drawn(loss: Callable[[Tensor], Tensor], x: Tensor, draws: int) -> Tensor:
        """Draws of a loss, each with its graph, as a step has it."""
        return torch.stack([loss(x).detach().reshape(()) for _ in range(draws)])


class InTorch:
    """A network in this process, to be timed.

    Args:
        network: with its weights.
        data: the data set, whose first rows are the batch.
        estimates: of marginal likelihoods.
    """

    def __init__(self, network: Network, data: Tensor, estimates: Estimates) -> None:
        self.network, self.data, self.estimates = network, data, estimates
        self.batch = data[: network.case.batch]
        self.optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)

    def step(self) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        self.network.backward(self.batch)

    def step_with_adam(self) -> None:
        """A whole step."""
        self.step()
        self.optimizer.step()

    def train(self) -> None:
        """What there is for a loop over batches: here only the step."""
        self.step_with_adam()

    def step_of_bound(self) -> None:
        """Forward and backward of the importance-weighted bound."""
        self.optimizer.zero_grad()
        self.network.backward_of_bound(self.batch)

    @torch.no_grad()
    def marginal(self) -> None:
        """Estimates of marginal likelihoods."""
        self.network.marginal(self.data[: self.estimates.images], self.estimates)

    def seconds(self, what: str, calls: int) -> float:
        """See :class:`beside.Implementation`."""
        functions = (self.step, self.step_with_adam, self.train, self.step_of_bound, self.marginal)
        function: Callable[[], Any] = dict(zip(PASSES, functions, strict=True))[what]
        begin = time.perf_counter()
        for _ in range(calls):
            function()
        return time.perf_counter() - begin

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return 1


class Ours(Network):
    """bslfast's VAE, as its users make it."""

    passes = PASSES

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        shape = (case.features,)
        self.vae = VAE(
            mlp_encoder(shape, case.latent, case.hidden),
            mlp_decoder(case.latent, shape, case.hidden[::-1]),
        )
        self.encoder, self.decoder = self.vae.encoder, self.vae.decoder

    def loss(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        return -self.vae.elbo(x).mean()

    def bound(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        return -self.vae.iwae(x, self.case.samples).mean()

    def marginal(self, x: Tensor, estimates: Estimates) -> Tensor:
        """See :class:`Network`."""
        return self.vae.log_marginal(x, estimates.samples).mean()


class ByOps(Ours):
    """The same without programs of whole networks, as with networks that have none."""

    def loss(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        with bslfast.whole_networks(False):
            return super().loss(x)


class Fit(InTorch):
    """bslfast's own loop."""

    def train(self) -> None:
        """The epochs of one call."""
        vae = self.network.get_submodule("vae")
        bslfast.training.fit(
            vae,
            (self.data,),
            objective=VAE.elbo_and_kl,
            epochs=EPOCHS,
            batch_size=self.network.case.batch,
            lr=1e-4,
        )

    def steps(self, what: str) -> int:
        """See :class:`beside.Implementation`."""
        return STEPS * EPOCHS if what == LOOP else 1


def all_ours(
    case: Case, exact: Exact, data: Tensor, estimates: Estimates
) -> dict[str, dict[str, Implementation]]:
    """For each pass bslfast's implementations by their names, after comparisons with float64."""
    networks = Ours(case), ByOps(case)
    for network in networks:
        network.check(exact)
    own, by_ops = (Fit(network, data, estimates) for network in networks)
    steps: dict[str, Implementation] = {"elbo": own, "elbo by ops": by_ops}
    return {
        STEP: steps,
        ADAM: steps,
        LOOP: {"training.fit": own},
        BOUND: {"iwae": own},
        MARGINAL: {"log_marginal": own},
    }


class Alone(Network):
    """The networks of a plain autoencoder without a loss; the gradient of its outputs is given."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.gradients: dict[torch.Size, Tensor] = {}

    @staticmethod
    def codes(latent: int) -> int:
        """See :class:`Network`."""
        return latent

    def backward(self, x: Tensor) -> None:
        """See :class:`Network`."""
        self._backward(self.decoder(self.encoder(x)))

    def backward_of_bound(self, x: Tensor) -> None:
        """As many outputs, all of a row for the same code."""
        codes = self.encoder(x)
        many = codes.expand(self.case.samples, *codes.shape).reshape(-1, self.case.latent)
        self._backward(self.decoder(many))

    def _backward(self, outputs: Tensor) -> None:
        if outputs.shape not in self.gradients:
            self.gradients[outputs.shape] = torch.randn_like(outputs) / len(outputs)
        outputs.backward(self.gradients[outputs.shape])

    def load(self, weights: Weights) -> None:
        """See :class:`Network`."""
        *first, (w, b) = weights.encoder
        half = self.case.latent
        super().load(Weights([*first, (w[:half], b[:half])], weights.decoder))

    def check(self, exact: Exact) -> None:
        """See :class:`Network`."""
        self.load(exact.weights)
        exact.check_logits(self.decoder(self.encoder(exact.x)).detach())


class Eager(Network):
    """Written by hand in torch."""

    def loss(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * log_var) * torch.randn_like(mu)
        nll = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
        return (nll + kl) / len(x)

    def bound(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        samples = self.case.samples
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn(samples, *mu.shape)
        z = mu + torch.exp(0.5 * log_var) * noise
        logits = self.decoder(z)
        nll = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        log_prior_less_log_q = 0.5 * (log_var + noise.pow(2) - z.pow(2)).sum(-1)
        log_weights = log_prior_less_log_q - nll.sum(-1)
        return -(torch.logsumexp(log_weights, 0) - math.log(samples)).mean()


class Compiled(Eager):
    """The same by torch.compile."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        torch._dynamo.reset()
        self.loss = torch.compile(super().loss)  # type: ignore[method-assign]
        self.bound = torch.compile(super().bound)  # type: ignore[method-assign]


class Pythae(Network):
    """pythae's VAE and IWAE around the same networks."""

    passes = PASSES

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        from pythae.models import IWAE, IWAEConfig, VAEConfig
        from pythae.models import VAE as Model

        options = {"input_dim": (case.features,), "latent_dim": case.latent}
        options |= {"reconstruction_loss": "bce"}
        encoder, decoder = _pythae_networks(case)
        self.vae = Model(VAEConfig(**options), encoder, decoder)
        self.iwae = IWAE(IWAEConfig(**options, number_samples=case.samples), encoder, decoder)
        self.encoder, self.decoder = self.vae.encoder, self.vae.decoder

    def load(self, weights: Weights) -> None:
        """See :class:`Network`; mu and log_var are layers of their own there."""
        *first, (w, b) = weights.encoder
        half = self.case.latent
        encoder: Any = self.encoder
        load(encoder.body, first)
        load(encoder.embedding, [(w[:half], b[:half])])
        load(encoder.log_var, [(w[half:], b[half:])])
        load(self.decoder, weights.decoder)

    def loss(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        loss: Tensor = self.vae({"data": x}).loss
        return loss

    def bound(self, x: Tensor) -> Tensor:
        """See :class:`Network`."""
        loss: Tensor = self.iwae({"data": x}).loss
        return loss

    def check_bound(self, exact: Exact) -> None:
        """See :class:`Network`; the value is the one of a surrogate."""
        exact.check_bound(self.drawn(self.bound, exact.x, exact.draws_of_bounds), surrogate=True)

    @torch.no_grad()
    def marginal(self, x: Tensor, estimates: Estimates) -> Tensor:
        """See :class:`Network`."""
        found = self.vae.get_nll(x, estimates.samples, estimates.batch_size)
        return torch.tensor(float(found))


def _pythae_networks(case: Case) -> tuple[nn.Module, nn.Module]:
    """Networks with the interface of pythae's."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            width = case.hidden[-1]
            self.body = nn.Sequential(*dense(case.features, *case.hidden), nn.ReLU())
            self.embedding = nn.Linear(width, case.latent)
            self.log_var = nn.Linear(width, case.latent)

        def forward(self, x: Tensor) -> Any:
            h = self.body(x)
            return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            widths = (case.latent, *case.hidden[::-1], case.features)
            self.layers = nn.Sequential(*dense(*widths), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    return Encoder(), Decoder()


def dense(*widths: int) -> nn.Sequential:
    """A dense network with relu."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def load(network: nn.Module, layers: list[Layer]) -> None:
    """Give a network's linear layers their weights, in order."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    for layer, (w, b) in zip(linear, layers, strict=True):
        layer.weight.copy_(w)
        layer.bias.copy_(b)


class VaePeer(Peer):
    """An implementation that is not ours.

    Args:
        name: in the report.
        network: its class.
        package: to be installed, if any.
        compiled: whether by torch.compile.
    """

    def __init__(
        self, name: str, network: type[Network], package: str = "", *, compiled: bool = False
    ) -> None:
        super().__init__(name, HERE / f"{package}.txt" if package else None)
        self.network, self.compiled = network, compiled

    def build(
        self, case: Case, exact: Exact, data: Tensor, estimates: Estimates
    ) -> dict[str, Implementation]:
        """For each pass that it has, the network with these weights, after comparisons."""
        network = self.network(case)
        network.check(exact)
        found = InTorch(network, data, estimates)
        return dict.fromkeys(network.passes, found)


PEERS = [
    VaePeer("networks alone", Alone),
    VaePeer("torch eager", Eager),
    VaePeer("torch.compile", Compiled, compiled=True),
    VaePeer("pythae", Pythae, "pythae"),
]
