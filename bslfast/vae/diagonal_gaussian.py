"""The posterior of latent diffusion models' autoencoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF
from bslfast._precision import in_float32, log_dtype

_LEAST, _MOST = -30.0, 20.0


class DiagonalGaussianDistribution:
    r"""Independent normals from an encoder's output: diffusers' class of this name, fused.

    Methods and attributes are those of ``diffusers``. Sample, divergence and likelihood are one op
    each, and their gradients are those of plain torch. ``logvar`` is clamped to [-30, 20]; where it
    was beyond, its gradient is 0. Differences from diffusers:

    * ``logvar``, ``std`` and ``var`` are computed when they are asked for. They and ``mean`` cannot
      be set.
    * Parameters may have any number of dimensions from 2 on. :meth:`kl` and :meth:`nll` sum over
      all but the first.
    * Divergences and likelihoods of 16-bit parameters are float32, as they are sums.
    * A deterministic distribution's :meth:`kl` and :meth:`nll` are zeros of the usual shape, on the
      device of the parameters.

    Args:
        parameters: [batch, 2 * channels, ...]: means and log variances side by side on dimension 1.
        deterministic: whether the variance is 0.

    Attributes:
        parameters, deterministic: as given.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014, arXiv:1312.6114); the
    interface by Rombach et al., "High-resolution image synthesis with latent diffusion models"
    (2022, arXiv:2112.10752).

    >>> import torch
    >>> from bslfast.vae import DiagonalGaussianDistribution
    >>> posterior = DiagonalGaussianDistribution(torch.zeros(2, 8, 4, 4))
    >>> z = posterior.sample(torch.Generator().manual_seed(0))
    >>> z.shape, posterior.kl(), posterior.nll(posterior.mode()).shape
    (torch.Size([2, 4, 4, 4]), tensor([0., 0.]), torch.Size([2]))
    """

    def __init__(self, parameters: Tensor, deterministic: bool = False) -> None:
        _checks.floating("parameters", parameters)
        if parameters.dim() < 2 or parameters.shape[1] % 2:
            raise ValueError(
                "parameters: expected shape [batch, 2 * channels, ...], got "
                f"{_checks.describe(parameters)}"
            )
        self.parameters = parameters
        self._mean = parameters.chunk(2, dim=1)[0]
        self.deterministic = _checks.flag("deterministic", deterministic)
        self._rows: tuple[Tensor, Tensor] | None = None
        self._kl: Tensor | None = None

    def _by_rows(self) -> tuple[Tensor, Tensor]:
        """The mean and the clamped log variance, each [batch, numbers of an example]."""
        if self._rows is not None:
            return self._rows
        mean, logvar = self.parameters.flatten(1).chunk(2, dim=1)
        rows = mean, logvar.clamp(_LEAST, _MOST)
        # Values without a graph, or of inference mode, would cut the gradients of a later call.
        if torch.is_grad_enabled() or not (
            self.parameters.requires_grad or torch.is_inference_mode_enabled()
        ):
            self._rows = rows
        return rows

    @property
    def mean(self) -> Tensor:
        """The mean, [batch, channels, ...], a view of the parameters."""
        return self._mean

    @property
    def logvar(self) -> Tensor:
        """The clamped log variance, [batch, channels, ...]."""
        return self._by_rows()[1].view(self.mean.shape)

    @property
    def std(self) -> Tensor:
        """The standard deviation, [batch, channels, ...]."""
        return torch.zeros_like(self.mean) if self.deterministic else (0.5 * self.logvar).exp()

    @property
    def var(self) -> Tensor:
        """The variance, [batch, channels, ...]."""
        return torch.zeros_like(self.mean) if self.deterministic else self.logvar.exp()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return a reparametrised sample, [batch, channels, ...].

        Args:
            generator: of the noise, on any device; ``None`` is torch's own.

        Raises:
            TypeError: for what is no generator.
        """
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator: expected None or a torch.Generator, got {_checks.describe(generator)}"
            )
        if self.deterministic:
            return self.mean.clone()
        seed = None
        if generator is not None:
            drawn = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
            seed = drawn.to(self.mean.device)
        rows = self._by_rows()
        if self._kl is None and rows[1].requires_grad and torch.is_grad_enabled():
            # Training asks for the divergence as well: both have one node in the graph.
            z, self._kl = BF.normal_rsample_kl(
                *rows, parametrization="log_var", reduction="row", seed=seed
            )
        else:
            z = BF.normal_rsample(*rows, parametrization="log_var", seed=seed)
        return z.view(self.mean.shape)

    def kl(self, other: DiagonalGaussianDistribution | None = None) -> Tensor:
        r"""Return the divergence from ``other``, or from N(0, 1), of each example, [batch].

        .. math:: \frac12 \sum \left(\frac{(\mu - \mu_0)^2 + \sigma^2}{\sigma_0^2} - 1
            - \log\sigma^2 + \log\sigma_0^2\right)

        Args:
            other: a distribution of the same dtype and device whose mean broadcasts to this one's.

        Raises:
            TypeError, ValueError: naming ``other``, what was expected and what came; also for a
                deterministic one, from which the divergence of one with a variance is infinite.
        """
        if other is not None:
            self._check_other(other)
        if self.deterministic:
            return self._zeros(self.mean.shape[:1])
        rows = self._by_rows()
        if other is not None:
            others = (t.expand_as(self.mean).flatten(1) for t in (other.mean, other.logvar))
            return _kl_between(*rows, *others)
        if self._kl is not None and torch.is_grad_enabled():
            return self._kl
        return BF.normal_kl(*rows, parametrization="log_var", reduction="row")

    def nll(self, sample: Tensor, dims: Sequence[int] | None = None) -> Tensor:
        r"""Return the negative log density of ``sample``, [batch].

        .. math:: \frac12 \sum \left(\log 2\pi + \log\sigma^2 + \frac{(x - \mu)^2}{\sigma^2}\right)

        Args:
            sample: of the dtype and device of the parameters; broadcasts with the mean.
            dims: the dimensions that are summed over; ``None`` is all but the first.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        sample, mean = self._alike("sample", sample)
        shape = _checks.broadcast(parameters=mean, sample=sample)
        summed = _dims(dims, len(shape))
        if self.deterministic:
            return self._zeros(shape).sum(summed)
        if sample.shape == mean.shape and sorted(summed) == list(range(1, len(shape))):
            # The kernel sums, and writes no element's density.
            rows = self._by_rows()
            return -BF.normal_log_prob(sample.flatten(1), *rows, parametrization="log_var")
        log_prob = BF.normal_log_prob(
            sample, mean, self.logvar, parametrization="log_var", reduction="none"
        )
        return -log_prob.sum(summed)

    def mode(self) -> Tensor:
        """Return the mean, a view of the parameters."""
        return self.mean

    def _alike(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor that must be like the parameters, and the mean, as ops take them."""
        value, mean = _checks.operand(name, value), _checks.operand("parameters", self.mean)
        _checks.alike(name, value, "parameters", mean)
        return value, mean

    def _zeros(self, shape: Sequence[int]) -> Tensor:
        """What a deterministic distribution has for logarithms."""
        return self.mean.new_zeros(shape, dtype=log_dtype(self.mean.dtype))

    def _check_other(self, other: DiagonalGaussianDistribution) -> None:
        if not isinstance(other, DiagonalGaussianDistribution):
            raise TypeError(
                "other: expected None or a DiagonalGaussianDistribution, got "
                f"{_checks.describe(other)}"
            )
        self._alike("other", other.mean)
        if _checks.broadcast(parameters=self.mean, other=other.mean) != self.mean.shape:
            raise ValueError(
                f"other: expected a mean that broadcasts to shape {list(self.mean.shape)}, got "
                f"{list(other.mean.shape)}"
            )
        if other.deterministic and not self.deterministic:
            raise ValueError("other: expected a distribution with a variance, got a deterministic")


@in_float32(values=0)
def _kl_between(mean: Tensor, logvar: Tensor, other_mean: Tensor, other_logvar: Tensor) -> Tensor:
    """The divergence of each row. Standard deviations of exp(-15) are no numbers of 16 bits."""
    scale = (0.5 * other_logvar).exp()
    return BF.normal_kl(mean, logvar, other_mean, scale, parametrization="log_var", reduction="row")


def _dims(dims: Sequence[int] | None, n: int) -> tuple[int, ...]:
    """``dims`` of a tensor with ``n`` dimensions, each counted from the front."""
    if dims is None:
        return tuple(range(1, n))
    if not isinstance(dims, (tuple, list)) or not dims:
        raise TypeError(f"dims: expected a tuple of dimensions, got {_checks.describe(dims)}")
    found = [_checks.integer("dims", d, -n) for d in dims]
    counted = [d % n for d in found]
    if max(found) >= n or len(set(counted)) < len(counted):
        raise ValueError(f"dims: expected different dimensions below {n}, got {tuple(dims)}")
    return tuple(counted)
