"""Quantised values, such as pixels, under mixtures of logistic distributions."""

from __future__ import annotations

import torch
from torch import Tensor

import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import wide
from bslfast.likelihoods.base import Likelihood, Predictive, check_range


class DiscretizedLogisticMixture(Likelihood):
    r"""Values in equal steps from ``low`` to ``high``, each with a mixture of logistics of its own.

    .. math:: \log p(y) = \log \sum_k \pi_k \left(\sigma\Big(\frac{y - m_k + h}{s_k}\Big)
              - \sigma\Big(\frac{y - m_k - h}{s_k}\Big)\right), \quad
              h = \frac{\mathrm{high} - \mathrm{low}}{2\,(\mathrm{bins} - 1)}

    The first value's bin reaches to -infinity, the last one's to infinity. The network outputs K
    logits of the weights pi for each target, then K locs m, then K log scales. On the first
    dimension after the batch those of the same kind and k are side by side, one for each target.

    Args:
        targets: number of targets; None for targets of any shape.
        components: K.
        bins: number of values, at least 2.
        low, high: the smallest and the largest of them.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017, arXiv:1701.05517), section 2.1;
    here the colours of a pixel are independent.

    Example:
        >>> import torch
        >>> head = DiscretizedLogisticMixture(1, components=2, bins=3)
        >>> output = torch.zeros(1, head.n_outputs(1))  # around 0 with scale 1; bins meet at -1/2
        >>> [round(head.log_prob(output, torch.tensor([[y]])).exp().item(), 4) for y in (-1.0, 0.0)]
        [0.3775, 0.2449]

        A model of colour images with 256 levels in [0, 1]; metrics.bits_per_dim has its bits.

        >>> from bslfast.vae import VAE, mlp_decoder, mlp_encoder
        >>> law = DiscretizedLogisticMixture(None, components=3, low=0.0, high=1.0)
        >>> decoder = mlp_decoder(2, (3 * len(law.parts), 8, 8))
        >>> model = VAE(mlp_encoder((3, 8, 8), 2), decoder, latent=2, likelihood=law)
        >>> model.elbo(torch.zeros(4, 3, 8, 8)).shape, model.sample(5).shape
        (torch.Size([4]), torch.Size([5, 3, 8, 8]))
    """

    def __init__(
        self,
        targets: int | None = 1,
        *,
        components: int = 5,
        bins: int = 256,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        super().__init__(targets)
        self.components = _checks.integer("components", components)
        self.bins = _checks.integer("bins", bins, 2)
        self.low = _checks.number("low", low)
        self.high = _checks.number("high", high, above=self.low)
        self.parts = tuple(
            kind for kind in ("logits", "locs", "log scales") for _ in range(self.components)
        )
        self.filler = min(max(0.0, self.low), self.high)

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` has values outside [low, high] (in eager mode on the CPU)."""
        check_range(name, y, "discretized_logistic_mixture", self.high, self.low)

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the means of the values themselves, not those of the logistic distributions."""
        mixture = self._mixture(output, dim)
        above = torch.zeros_like(mixture[0][..., 0])
        for edge in self._edges():
            above = above + _above(mixture, edge)
        return (self.low + self._step * above).to(output.dtype)

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return values, see :meth:`Likelihood.sample`."""
        logits, loc, log_scale = self._mixture(output.detach(), dim)
        seed, zero = _checks.seed(seed, output.device), logits.new_zeros(())
        # Which component, by noise of another stream than the values'.
        noisy = BF.gumbel_rsample(logits, zero, parametrization="log_scale", seed=seed, stream=1)
        which = noisy.argmax(-1, keepdim=True)
        loc, log_scale = (t.gather(-1, which).squeeze(-1) for t in (loc, log_scale))
        exact = BF.logistic_rsample(loc, log_scale, parametrization="log_scale", seed=seed)
        index = ((exact - self.low) / self._step).round().clamp(0, self.bins - 1)
        return (self.low + self._step * index).to(output.dtype)

    def predictive(self, samples: Tensor) -> Predictive:
        """See :meth:`Likelihood.predictive`; computed in float64."""
        mixture = self._mixture(self._check_samples(samples).double(), -1)
        mean = torch.zeros_like(mixture[0][..., 0])
        square = torch.zeros_like(mean)
        for index, edge in enumerate(self._edges()):
            above = _above(mixture, edge)
            mean, square = mean + above, square + (2 * index + 1) * above
        noise = self._step * (square - mean.square()).clamp_min(0).mean(0).sqrt()
        mean = self.low + self._step * mean
        parts = (mean.mean(0), noise, mean.std(0, correction=0))
        return Predictive(*(part.to(samples.dtype) for part in parts))

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return the central interval of the mixture, each end [batch, targets].

        The ends are two of the values: the smallest with P(target <= lower) >= tail, and the
        smallest with P(target > upper) <= tail. So at least 1 - 2 tail is inside.
        """
        mixture = self._mixture(self._check_samples(samples).double(), -1)
        lower = torch.zeros_like(mixture[0][0, ..., 0])
        upper = torch.zeros_like(lower)
        logits, loc, log_scale = mixture
        mirrored = (logits, -loc, log_scale)
        for edge in self._edges():
            lower = lower + (_above(mirrored, -edge).mean(0) < tail)
            upper = upper + (_above(mixture, edge).mean(0) > tail)
        ends = (self.low + self._step * index for index in (lower, upper))
        lower, upper = (end.to(samples.dtype) for end in ends)
        return lower, upper

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64.

        A ``y`` between two of the values counts as the nearest one.
        """
        return self.pit(samples, y)[1]

    def pit(self, samples: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return P(target < y) and P(target <= y), see :meth:`Likelihood.pit`."""
        self._check_shapes(self._check_samples(samples)[0], y)
        self.check(y)
        logits, loc, log_scale = self._mixture(samples.double(), -1)
        mirrored = (logits, -loc, log_scale)
        index = ((y.double() - self.low) / self._step).round()
        first, last = index < 0.5, index > self.bins - 1.5
        edge = self.low + (index - 0.5) * self._step
        below = _above(mirrored, -edge.unsqueeze(-1)).mean(0)
        at_most = _above(mirrored, -(edge + self._step).unsqueeze(-1)).mean(0)
        return torch.where(first, 0.0, below), torch.where(last, 1.0, at_most)

    def extra_repr(self) -> str:
        """Show the number of targets, components and values."""
        return f"targets={self.targets}, components={self.components}, bins={self.bins}"

    @property
    def _step(self) -> float:
        return (self.high - self.low) / (self.bins - 1)

    def _edges(self) -> list[float]:
        """Where the bins meet."""
        return [self.low + (index + 0.5) * self._step for index in range(self.bins - 1)]

    def _mixture(self, output: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, locs and log scales of the targets, with the components on the last dimension."""
        parts = torch.stack(self.split(wide(output), dim), dim=-1)
        logits, loc, log_scale = parts.chunk(3, dim=-1)
        return logits, loc, log_scale

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        logits, loc, log_scale = torch.stack(parameters, dim=-1).chunk(3, dim=-1)
        return BF.discretized_logistic_mixture_log_prob(
            y,
            logits,
            loc,
            log_scale,
            bins=self.bins,
            low=self.low,
            high=self.high,
            reduction=reduction,
        )


def _above(mixture: tuple[Tensor, Tensor, Tensor], edge: float | Tensor) -> Tensor:
    """The chance beyond ``edge``."""
    logits, loc, log_scale = mixture
    inverse = torch.exp(-log_scale.clamp_min(-60.0))  # finite: 0 times it is no NaN
    above: Tensor = logits.softmax(-1) * torch.sigmoid((loc - edge) * inverse)
    return above.sum(-1)
