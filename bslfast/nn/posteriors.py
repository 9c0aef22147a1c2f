"""Posteriors: what weights are drawn from, and which parameters they have for it.

Each is a value that says how; the parameters themselves are the layer's. In
:mod:`bslfast.nn.weight` is how each diverges from each prior.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF
from bslfast._formulas import log_scale_of
from bslfast._precision import wide
from bslfast.functional.multivariate_normal import draw_vector
from bslfast.functional.normal import PARAMETRIZATIONS

__all__ = [
    "Deterministic",
    "FullCovariance",
    "Laplace",
    "LowRank",
    "MCDropout",
    "Normal",
    "Posterior",
]

#: A full covariance of more weights takes over 0.4 GB in float32, four times that in training.
MOST_CORRELATED = 10_000
_Number = TypeVar("_Number", float, Tensor)


class Posterior:
    """A distribution of a tensor of weights, by parameters that it names.

    A subclass is a frozen dataclass. It gives :attr:`names`, :meth:`rsample` and :meth:`stddev`,
    and :meth:`allocate` and :meth:`reset` if it has more parameters than the mean.
    """

    #: The parameters, as they are called after the weight's own name: ``weight_loc``. The first is
    #: the mean, of the shape of the weight.
    names: ClassVar[tuple[str, ...]] = ("loc",)
    #: Whether it is of all weights of a layer together, as one vector. The parameters then begin
    #: with the mean of each tensor of weights; the others belong to the vector, and have no prefix.
    joint: ClassVar[bool] = False

    def of_layer(self, input_dim: int, groups: int) -> Posterior:
        """The posterior that a layer has which is given this one.

        ``input_dim``: the dimension of its weights that counts inputs. ``groups``: into how many
        groups outputs fall that have inputs of their own.
        """
        return self

    def loc(self, parameters: Sequence[Tensor]) -> Tensor:
        """The mean of the weights."""
        return parameters[0]

    def allocate(self, loc: Tensor) -> tuple[Tensor, ...]:
        """The parameters after ``loc``, with any values: here each of its shape."""
        return tuple(torch.empty_like(loc) for _ in self.names[1:])

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Put all parameters after the mean to their start, in place."""

    def set_scale(self, parameters: Sequence[Tensor], scale: Tensor) -> None:
        """Set the scale of each weight, in place, where there is one."""

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the weight], whose gradients reach the parameters."""
        raise NotImplementedError

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class _Scaled(Posterior):
    """A scale for each weight."""

    names: ClassVar[tuple[str, ...]] = ("loc", "raw_scale")
    raw_index: ClassVar[int] = 1  # its index
    parametrization: str = "softplus"
    init_scale: float = 0.02

    def __post_init__(self) -> None:
        _checks.choice("parametrization", self.parametrization, PARAMETRIZATIONS)
        init_scale = _checks.number("init_scale", self.init_scale, above=0.0)
        object.__setattr__(self, "init_scale", init_scale)

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Set all scales to ``init_scale``."""
        parameters[self.raw_index].fill_(raw_scale_of(self.init_scale, self.parametrization))

    def set_scale(self, parameters: Sequence[Tensor], scale: Tensor) -> None:
        """Set the scale of each weight, in place."""
        parameters[self.raw_index].copy_(raw_scale_of(scale, self.parametrization))

    def scale(self, parameters: Sequence[Tensor]) -> Tensor:
        """The scale of each weight, of its shape."""
        raw_scale = parameters[self.raw_index]
        if self.parametrization == "softplus":
            return F.softplus(raw_scale)
        if self.parametrization == "scale":
            return raw_scale
        return torch.exp(raw_scale if self.parametrization == "log_scale" else raw_scale / 2)


@dataclasses.dataclass(frozen=True)
class _Independent(_Scaled):
    """A location and a scale for each weight by itself."""

    #: The op that draws.
    _drawn: ClassVar[Callable[..., Tensor]]

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the weight], whose gradients reach the parameters."""
        loc, raw_scale = parameters
        return type(self)._drawn(
            loc,
            raw_scale,
            parametrization=self.parametrization,
            sample_shape=sample_shape,
            seed=seed,
            stream=stream,
        )


@dataclasses.dataclass(frozen=True)
class Normal(_Independent):
    """N(loc, scale) for each weight by itself: the mean-field posterior.

    Args:
        parametrization: of the scale, as in :func:`bslfast.functional.normal_rsample`.
        init_scale: the standard deviation at the start, > 0.

    Parameters: ``loc`` and ``raw_scale``, of the shape of the weight.

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import bslfast
    >>> posterior = bslfast.nn.posteriors.Normal(init_scale=0.1)
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=posterior)
    >>> layer.weights()[0].stddev().max().item()
    0.10000000149011612
    """

    _drawn = staticmethod(BF.normal_rsample)

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        return self.scale(parameters)


@dataclasses.dataclass(frozen=True)
class Laplace(_Independent):
    """Laplace(loc, scale) for each weight by itself.

    Args:
        parametrization: of the scale, as in :func:`bslfast.functional.laplace_rsample`.
        init_scale: the scale at the start, > 0: the standard deviation over the root of 2.

    Parameters: ``loc`` and ``raw_scale``, of the shape of the weight.

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive.

    Source: Kotz, Kozubowski and Podgorski, "The Laplace distribution and generalizations" (2001,
    doi:10.1007/978-1-4612-0173-1), chapter 2.

    >>> import torch, bslfast
    >>> from bslfast.nn import posteriors, priors
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=posteriors.Laplace(), prior=priors.Laplace())
    >>> layer(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    _drawn = staticmethod(BF.laplace_rsample)

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        return math.sqrt(2.0) * self.scale(parameters)


@dataclasses.dataclass(frozen=True)
class Deterministic(Posterior):
    """The mean alone: every sample is that.

    What stands in the place of the divergence is -log p(mean) of the prior, so that the mean
    becomes its mode given the data (MAP).

    Parameters: ``loc``, of the shape of the weight.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 3.3.

    >>> import bslfast
    >>> posterior = {"bias": bslfast.nn.posteriors.Deterministic()}  # for the weight the usual one
    >>> [name for name, _ in bslfast.nn.BayesLinear(3, 2, posterior=posterior).named_parameters()]
    ['weight_loc', 'weight_raw_scale', 'bias_loc']
    """

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """The mean, [*sample_shape, *shape of the weight]."""
        return _repeated(parameters[0], sample_shape)

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """Zeros of the shape of the weight."""
        return torch.zeros_like(parameters[0])


@dataclasses.dataclass(frozen=True)
class Joint(_Scaled):
    """loc + scale * e + M f, with e and f standard normal: a normal of all weights of a layer.

    A subclass gives :meth:`allocate`, whose last tensor M is made of.
    """

    joint: ClassVar[bool] = True
    raw_index: ClassVar[int] = -2

    def loc(self, parameters: Sequence[Tensor]) -> Tensor:
        """The mean of the weights, [n]."""
        means = [mean.flatten() for mean in parameters[:-2]]
        return means[0] if len(means) == 1 else torch.cat(means)

    def mixing(self, parameters: Sequence[Tensor]) -> Tensor:
        """The matrix M, [n, k]."""
        raise NotImplementedError

    def log_det(self, parameters: Sequence[Tensor]) -> Tensor | None:
        """Half the log determinant of the covariance, less the log scales, in float64.

        None means 0.
        """
        raise NotImplementedError

    def noise_size(self, n: int, k: int) -> int:
        """The size of the noise: its first n elements are e, its last k are f."""
        raise NotImplementedError

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, n], whose gradients reach the parameters."""
        loc, matrix = self.loc(parameters), self.mixing(parameters)
        n, k = matrix.shape
        noise = BF.standard_normal(
            (*sample_shape, self.noise_size(n, k)),
            seed=seed,
            stream=stream,
            dtype=loc.dtype,
            device=loc.device,
        )
        return loc + self.scale(parameters) * noise[..., :n] + noise[..., -k:] @ matrix.t()

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, [n]."""
        rest = self.mixing(parameters).square().sum(1)
        return (self.scale(parameters).square() + rest).sqrt()

    def covariance(self, parameters: Sequence[Tensor]) -> Tensor:
        """The covariance of the weights, [n, n], whatever their number."""
        raise NotImplementedError

    def entropy(self, parameters: Sequence[Tensor]) -> Tensor:
        """The differential entropy, in nats: a scalar tensor, float32 for 16 bits."""
        log_scale = log_scale_of(wide(parameters[self.raw_index]), self.parametrization)
        total = log_scale.sum() + 0.5 * log_scale.numel() * (1 + math.log(2 * math.pi))
        rest = self.log_det(parameters)
        return total if rest is None else total + rest.to(total.dtype)


@dataclasses.dataclass(frozen=True)
class FullCovariance(Joint):
    r"""N(loc, L L^T) over all weights and biases of a layer together, L lower triangular.

    L is the strict lower triangle of the parameter ``lower``, and on its diagonal the scale that
    ``raw_scale`` stands for. The weights are the elements of the layer's tensors in their order, as
    one vector of n. At the start L is diagonal, which is :class:`Normal`. On the CPU a kernel draws
    them, :func:`bslfast.functional.multivariate_normal_rsample_kl`.

    Args:
        parametrization: of the diagonal, as in :func:`bslfast.functional.normal_rsample`.
        init_scale: the standard deviation at the start, > 0.

    Parameters: a mean of each tensor, as ``weight_loc`` and ``bias_loc``; ``raw_scale``, [n];
    ``lower``, [n, n], of which only the elements below the diagonal count.

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive; a
            layer of more than 10,000 weights, for which :class:`LowRank` is meant.

    Source: Opper and Archambeau, "The variational Gaussian approximation revisited" (2009,
    doi:10.1162/neco.2008.08-07-592).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=bslfast.nn.posteriors.FullCovariance())
    >>> {name: list(p.shape) for name, p in layer.named_parameters()}
    {'weight_loc': [2, 3], 'bias_loc': [2], 'raw_scale': [8], 'lower': [8, 8]}
    >>> layer(torch.ones(5, 3)).shape, layer.weights()[0].stddev().shape
    (torch.Size([5, 2]), torch.Size([8]))
    """

    names: ClassVar[tuple[str, ...]] = ("loc", "raw_scale", "lower")

    def allocate(self, loc: Tensor) -> tuple[Tensor, ...]:
        """The parameters after the means, with any values."""
        n = loc.numel()
        if n > MOST_CORRELATED:
            raise ValueError(
                f"posterior: expected at most {MOST_CORRELATED} weights in a layer with a full "
                f"covariance, which has the square of their number, got {n}: LowRank takes less"
            )
        return loc.new_empty(n), loc.new_empty(n, n)

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Make the weights independent, all scales ``init_scale``."""
        super().reset(parameters)
        parameters[-1].zero_()

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, n], whose gradients reach the parameters."""
        *locs, raw_scale, lower = parameters
        options: dict[str, Any] = {"sample_shape": sample_shape, "seed": seed, "stream": stream}
        found = None
        if type(self) is FullCovariance:  # another one may have another factor
            found = draw_vector(
                locs, raw_scale, lower, parametrization=self.parametrization, **options
            )
        return super().rsample(parameters, **options) if found is None else found[0]

    def mixing(self, parameters: Sequence[Tensor]) -> Tensor:
        """L without its diagonal, [n, n]."""
        return parameters[-1].tril(-1)

    def log_det(self, parameters: Sequence[Tensor]) -> None:
        """Nothing: the determinant of L is the product of the scales."""

    def noise_size(self, n: int, k: int) -> int:
        """The size of the noise, which diagonal and lower triangle have in common."""
        return n

    def covariance(self, parameters: Sequence[Tensor]) -> Tensor:
        """The covariance of the weights, [n, n]."""
        factor = self.mixing(parameters) + self.scale(parameters).diag()
        return factor @ factor.t()


@dataclasses.dataclass(frozen=True)
class LowRank(Joint):
    r"""N(loc, diag(scale^2) + U U^T) over all weights and biases of a layer together, U [n, rank].

    The weights are the elements of the layer's tensors in their order, as one vector of n.

    Args:
        rank: number of the columns of U, >= 1.
        parametrization: of ``scale``, as in :func:`bslfast.functional.normal_rsample`.
        init_scale: ``scale`` at the start, > 0. The elements of U start as normal random numbers of
            a tenth of it: at U = 0 the expected gradient of U is 0.

    Parameters: a mean of each tensor, as ``weight_loc`` and ``bias_loc``; ``raw_scale``, [n];
    ``factor``, which is U, [n, rank].

    Raises:
        TypeError, ValueError: an unknown parametrization; a number that is none, or not positive.

    Source: Ong, Nott and Smith, "Gaussian variational approximation with a factor covariance
    structure" (2018, arXiv:1701.03208).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=bslfast.nn.posteriors.LowRank(rank=2))
    >>> {name: list(p.shape) for name, p in layer.named_parameters()}
    {'weight_loc': [2, 3], 'bias_loc': [2], 'raw_scale': [8], 'factor': [8, 2]}
    >>> layer(torch.ones(5, 3)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([5, 2]), True)
    """

    names: ClassVar[tuple[str, ...]] = ("loc", "raw_scale", "factor")
    rank: int = 4
    parametrization: str = dataclasses.field(default="softplus", kw_only=True)
    init_scale: float = dataclasses.field(default=0.02, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rank", _checks.integer("rank", self.rank))

    def allocate(self, loc: Tensor) -> tuple[Tensor, ...]:
        """The parameters after the means, with any values."""
        return loc.new_empty(loc.numel()), loc.new_empty(loc.numel(), self.rank)

    def reset(self, parameters: Sequence[Tensor]) -> None:
        """Set all scales to ``init_scale``, and U to random numbers of a tenth of it."""
        super().reset(parameters)
        parameters[-1].normal_(0.0, 0.1 * self.init_scale)

    def set_scale(self, parameters: Sequence[Tensor], scale: Tensor) -> None:
        """Set ``scale``, and U to random numbers of a tenth of it, in place."""
        super().set_scale(parameters, scale)
        parameters[-1].normal_(0.0, 0.1).mul_(scale.unsqueeze(1))

    def mixing(self, parameters: Sequence[Tensor]) -> Tensor:
        """U, [n, rank]."""
        return parameters[-1]

    def log_det(self, parameters: Sequence[Tensor]) -> Tensor:
        """log det(1 + U^T diag(scale^-2) U) / 2, by the matrix determinant lemma."""
        # In float64: the product may be much larger than 1, and then is close to singular.
        ratio = (self.mixing(parameters) / self.scale(parameters).unsqueeze(1)).double()
        inner = torch.eye(self.rank, dtype=ratio.dtype, device=ratio.device) + ratio.t() @ ratio
        total: Tensor = torch.linalg.cholesky(inner).diagonal().log().sum()
        return total

    def noise_size(self, n: int, k: int) -> int:
        """The sizes of the diagonal's noise and of the factors', together."""
        return n + k

    def covariance(self, parameters: Sequence[Tensor]) -> Tensor:
        """The covariance of the weights, [n, n], whatever their number."""
        factor = self.mixing(parameters)
        return factor @ factor.t() + self.scale(parameters).square().diag()


@dataclasses.dataclass(frozen=True)
class MCDropout(Posterior):
    r"""loc z / (1 - rate), where all weights of an input share one z: 0 with probability ``rate``.

    Otherwise z is 1, so that ``loc`` is the mean. Biases, and whatever else has one dimension, are
    ``loc``. One draw serves the whole batch, as with all posteriors; ``torch.nn.Dropout`` before a
    layer draws for each example instead.

    The divergence of a mixture of points is not finite. In its place is what of it depends on the
    parameters, as for :class:`Deterministic`: -E log p(w), that is

    .. math:: -(1 - r) \log p(m / (1 - r)) - r \log p(0)

    for each element m of ``loc``; for a normal prior N(0, s) it is m^2 / (2 s^2 (1 - r)) and a
    constant, the L2 penalty that the paper has.

    Args:
        rate: the probability r that an input is dropped, in (0, 1).
        dim: the dimension of the weight that counts what is dropped. None: that of the inputs, as
            the class of the layer says, which is 1 for ``Linear``, convolutions, recurrent layers
            and attention, 0 for transposed convolutions and for ``Embedding``, whose inputs are
            words. Outside a layer None is 1. A recurrent layer drops inputs and hidden features,
            the same ones at every step.
        groups: into how many equal parts the first dimension falls, each with inputs of its own.
            None: the groups of a convolution, if ``dim`` counts its inputs, else 1.

    Parameters: ``loc``, of the shape of the weight.

    Raises:
        TypeError, ValueError: a number that is none, or outside its range; a weight that has two
            dimensions or more, but not ``dim``, or no such groups, or has no inputs, as that of a
            ``LayerNorm`` of images, and ``bias_k`` and ``bias_v`` of attention.

    Source: Gal and Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
    in deep learning" (2016, arXiv:1506.02142), and its appendix (arXiv:1506.02157); words and
    recurrent layers: "A theoretically grounded application of dropout in recurrent neural networks"
    (2016, arXiv:1512.05287).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, posterior=bslfast.nn.posteriors.MCDropout(0.5))
    >>> [name for name, _ in layer.named_parameters()], layer(torch.ones(5, 3)).shape
    (['weight_loc', 'bias_loc'], torch.Size([5, 2]))
    """

    rate: float = 0.1
    dim: int | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        rate = _checks.number("rate", self.rate, above=0.0, below=1.0)
        object.__setattr__(self, "rate", rate)
        if self.dim is not None:
            object.__setattr__(self, "dim", _checks.integer("dim", self.dim, 0))
        if self.groups is not None:
            object.__setattr__(self, "groups", _checks.integer("groups", self.groups))

    def of_layer(self, input_dim: int, groups: int) -> MCDropout:
        """This one, with the dimension and the groups of the layer where they are None."""
        if self.dim is not None and self.groups is not None:
            return self
        dim = input_dim if self.dim is None else self.dim
        known = groups if dim == input_dim and dim > 0 else 1
        return dataclasses.replace(self, dim=dim, groups=self.groups or known)

    def allocate(self, loc: Tensor) -> tuple[Tensor, ...]:
        """Nothing beside the mean."""
        dim, groups = self._counted()
        if loc.dim() > 1 and dim >= loc.dim():
            raise ValueError(f"dim: expected less than {loc.dim()}, got {dim}")
        if loc.dim() > 1 and groups > 1 and (dim == 0 or loc.shape[0] % groups):
            raise ValueError(
                f"groups: expected 1, or with a dim above 0 a divisor of {loc.shape[0]}, got "
                f"{groups} with dim {dim}"
            )
        return ()

    def _counted(self) -> tuple[int, int]:
        """``dim`` and ``groups``, as they are outside a layer where they are None."""
        return 1 if self.dim is None else self.dim, self.groups or 1

    def rate_of(self, loc: Tensor) -> float:
        """The rate at which elements of a tensor with these means are dropped."""
        return self.rate if loc.dim() > 1 else 0.0

    def rsample(
        self,
        parameters: Sequence[Tensor],
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the weight], whose gradients reach the mean."""
        loc = parameters[0]
        if not self.rate_of(loc):
            return _repeated(loc, sample_shape)
        dim, groups = self._counted()
        inputs = [n if i == dim else groups if i == 0 else 1 for i, n in enumerate(loc.shape)]
        noise = BF.standard_uniform(
            (*sample_shape, *inputs),
            seed=seed,
            stream=stream,
            dtype=torch.float32,
            device=loc.device,
        )
        kept: Tensor = (noise >= self.rate).to(loc.dtype)
        if groups > 1:
            kept = kept.repeat_interleave(loc.shape[0] // groups, dim=len(sample_shape))
        return loc * (kept / (1 - self.rate))

    def stddev(self, parameters: Sequence[Tensor]) -> Tensor:
        """The standard deviation of each weight, of its shape."""
        rate = self.rate_of(parameters[0])
        return parameters[0].abs() * math.sqrt(rate / (1 - rate))


def _repeated(loc: Tensor, sample_shape: Sequence[int]) -> Tensor:
    return loc.expand(*sample_shape, *loc.shape) if sample_shape else loc


def raw_scale_of(scale: _Number, parametrization: str) -> _Number:
    """The raw parameter that stands for a scale > 0."""
    if parametrization == "scale":
        return scale
    if isinstance(scale, Tensor):
        if parametrization == "softplus":
            return scale + (-torch.expm1(-scale)).log()
        log_scale = scale.log()
        return 2 * log_scale if parametrization == "log_var" else log_scale
    if parametrization == "softplus":
        return scale + math.log(-math.expm1(-scale))
    return math.log(scale) * (2.0 if parametrization == "log_var" else 1.0)
