"""A tensor of weights: its posterior, its prior, and how far the one is from the other.

:data:`DIVERGENCES` is the table of the pairs there are. Each says how weights of its kind are drawn
together with what their divergence needs, and how the divergence is computed by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF
from bslfast._formulas import (
    laplace_normal_kl,
    normal_absolute_mean,
    normal_laplace_kl,
    scale_of,
)
from bslfast._native._operands import PARAMETRIZATIONS
from bslfast._native.multivariate_normal import write_kl as write_vector_kl
from bslfast._native.normal_many import Call, write_kl
from bslfast._precision import wide
from bslfast.functional._op import runs_eagerly
from bslfast.functional.multivariate_normal import draw_vector
from bslfast.functional.normal_many import draw_many
from bslfast.nn import posteriors, priors
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior


class Weight(NamedTuple):
    """A tensor of weights.

    Attributes:
        posterior: what it is drawn from.
        prior: what the posterior diverges from.
        parameters: of the posterior, in the order of its ``names``.

    >>> import torch
    >>> from bslfast.nn import Weight, posteriors, priors
    >>> parameters = torch.zeros(4, 3), torch.full((4, 3), -3.0)
    >>> weight = Weight(posteriors.Normal(), priors.Normal(), parameters)
    >>> weight.rsample().shape, weight.kl()
    (torch.Size([4, 3]), tensor(30.3069))
    """

    posterior: Posterior
    prior: Prior
    parameters: tuple[Tensor, ...]

    @property
    def loc(self) -> Tensor:
        """The mean."""
        return self.posterior.loc(self.parameters)

    @property
    def identity(self) -> tuple[Tensor, ...]:
        """A key that weights of several layers have in common if they are one."""
        return self.parameters

    def stddev(self) -> Tensor:
        """The standard deviation of each weight, of the shape of the mean."""
        return self.posterior.stddev(self.parameters)

    def rsample(
        self,
        *,
        sample_shape: Sequence[int] = (),
        seed: int | Tensor | None = None,
        stream: int = 0,
    ) -> Tensor:
        """Samples [*sample_shape, *shape of the mean], whose gradients reach the parameters."""
        return self.posterior.rsample(
            self.parameters, sample_shape=sample_shape, seed=seed, stream=stream
        )

    def kl(self) -> Tensor:
        """The divergence from the prior, summed over all weights, in nats.

        An estimate from a sample of its own where there is no closed form.
        """
        return divergence_of(self).kl(self)


def NormalWeight(
    loc: Tensor,
    raw_scale: Tensor,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
) -> Weight:
    """A weight N(loc, scale) with a normal prior, see :func:`bslfast.functional.normal_rsample_kl`.

    Raises:
        TypeError, ValueError: an unknown parametrization; a prior's number that is none, or
            outside its range.

    >>> import torch, bslfast
    >>> bslfast.nn.NormalWeight(torch.ones(3), torch.zeros(3), parametrization="log_scale").kl()
    tensor(1.5000)
    """
    posterior = posteriors.Normal(parametrization)
    return Weight(posterior, priors.Normal(prior_loc, prior_scale), (loc, raw_scale))


class Part(NamedTuple):
    """The divergence of some weights that were drawn together.

    Attributes:
        weights: the weights.
        value: computes it, of the parameters as they are when it is called, in the graph of the
            draw.
        place: a result of the node that draws. A backward pass through the node spends the graph.
            None if ``value`` makes a graph of its own.
    """

    weights: Sequence[Weight]
    value: Callable[[], Tensor]
    place: Tensor | None


class Divergence:
    """What is done with weights of one pair of posterior and prior. A subclass has :meth:`kl`."""

    #: Whether it is an estimate at a sample; then there is :meth:`draw_many`.
    estimated = False

    def draw_many(self, weight: Weight, n: int) -> tuple[Tensor, Part | None]:
        """``n`` samples of a weight, [n, ...], and the sum of the estimates at them."""
        raise NotImplementedError

    def kl(self, weight: Weight) -> Tensor:
        """The divergence by itself: with a graph, and if need be a sample, of its own."""
        raise NotImplementedError

    def kind(self, weight: Weight) -> Hashable:
        """Weights for which this is the same are drawn in one call; None: each by itself."""
        return None

    def draw(
        self, weights: Sequence[Weight], seed: int | Tensor | None, stream: int
    ) -> tuple[Sequence[Tensor], Part | None]:
        """A sample of each, by the streams from ``stream`` on, and their divergence.

        None for a divergence that has to be computed by itself.
        """
        (weight,) = weights
        return [weight.rsample(seed=seed, stream=stream)], Part(weights, weight.kl, None)


class _NormalFromNormal(Divergence):
    """Many tensors in one node of the graph, on CUDA devices in one launch for every 48."""

    def kl(self, weight: Weight) -> Tensor:
        (loc,), (raw_scale,), (prior_loc,), (prior_scale,), parametrization = columns_of([weight])
        return BF.normal_kl(loc, raw_scale, prior_loc, prior_scale, parametrization=parametrization)

    def kind(self, weight: Weight) -> Hashable:
        posterior, _, (loc, _) = weight
        return loc.device, loc.dtype, posterior.parametrization  # type: ignore[attr-defined]

    def draw(
        self, weights: Sequence[Weight], seed: int | Tensor | None, stream: int
    ) -> tuple[Sequence[Tensor], Part | None]:
        columns = columns_of(weights)
        loc, raw_scale, prior_loc, prior_scale, parametrization = columns
        samples, place = draw_many(
            loc,
            raw_scale,
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            parametrization=parametrization,
            seed=seed,
            stream=stream,
        )
        if place is None:
            return samples, None
        return samples, Part(weights, functools.partial(_written, place, columns), place)


def normal_part(place: Tensor, weights: Sequence[Weight], columns: Any = None) -> Part:
    """The part of normal weights with normal priors.

    ``place`` has the divergence's gradient, not its value. ``columns``: of the weights, see
    :func:`columns_of`, if they are known.
    """
    columns = columns_of(weights) if columns is None else columns
    return Part(weights, functools.partial(_written, place, columns), place)


def _written(place: Tensor, columns: Any) -> Tensor:
    locs, raw_scales, prior_locs, prior_scales, how = columns
    code, tensors = PARAMETRIZATIONS[how], (*locs, *raw_scales)
    write_kl(place, Call(code, tensors, prior_locs, prior_scales, None, 0))
    return place


def columns_of(weights: Sequence[Weight]) -> Any:
    """(all loc, raw_scale, prior_loc, prior_scale, the parametrization) of weights of one kind."""
    posterior: Sequence[Any]
    prior: Sequence[Any]
    posterior, prior, parameters = zip(*weights, strict=True)
    loc, raw_scale = zip(*parameters, strict=True)
    prior_loc, prior_scale = [p.loc for p in prior], [p.scale for p in prior]
    return loc, raw_scale, prior_loc, prior_scale, posterior[0].parametrization


class _Estimated(Divergence):
    """An estimate at the sample that is drawn: there is no closed form."""

    estimated = True

    def kl(self, weight: Weight) -> Tensor:
        return self._estimate(weight, (), None, 0)[1]

    def draw(
        self, weights: Sequence[Weight], seed: int | Tensor | None, stream: int
    ) -> tuple[Sequence[Tensor], Part | None]:
        (weight,) = weights
        sample, part = self._draw(weight, (), seed, stream)
        return [sample], part

    def draw_many(self, weight: Weight, n: int) -> tuple[Tensor, Part | None]:
        return self._draw(weight, (n,), None, 0)

    def _draw(
        self, weight: Weight, shape: tuple[int, ...], seed: int | Tensor | None, stream: int
    ) -> tuple[Tensor, Part | None]:
        seed = _checks.seed(seed, weight.loc.device)
        samples, estimate = self._estimate(weight, shape, seed, stream)

        def value() -> Tensor:
            with torch.no_grad():
                estimate.detach().copy_(self._estimate(weight, shape, seed, stream)[1])
            return estimate

        # What watches the computation must see all of it.
        eager = runs_eagerly((estimate,))
        return samples, Part((weight,), value, samples) if eager else None

    def _estimate(
        self, weight: Weight, shape: tuple[int, ...], seed: int | Tensor | None, stream: int
    ) -> tuple[Tensor, Tensor]:
        """Samples [*shape, ...] and the sum of the estimates at them."""
        raise NotImplementedError


class _NormalEstimated(_Estimated):
    """log q(w) - log p(w), in one pass."""

    def _estimate(
        self, weight: Weight, shape: tuple[int, ...], seed: int | Tensor | None, stream: int
    ) -> tuple[Tensor, Tensor]:
        posterior = weight.posterior
        assert isinstance(posterior, posteriors.Normal)
        return BF.normal_rsample_mc_kl(
            *weight.parameters,
            parametrization=posterior.parametrization,
            sample_shape=shape,
            seed=seed,
            stream=stream,
            **weight.prior.estimated(),
        )


class _JointEstimated(_Estimated):
    """E log q(w), which has a closed form, less log p(w) at the sample."""

    def _estimate(
        self, weight: Weight, shape: tuple[int, ...], seed: int | Tensor | None, stream: int
    ) -> tuple[Tensor, Tensor]:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Joint)
        samples = weight.rsample(sample_shape=shape, seed=seed, stream=stream)
        entropy = math.prod(shape) * posterior.entropy(parameters)
        return samples, -entropy - prior.log_prob(samples.to(entropy.dtype))


class _NormalFromTensors(Divergence):
    """A normal from a normal prior that has tensors."""

    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Normal)
        assert isinstance(prior, priors.NormalModule)
        loc, raw_scale = map(wide, parameters)
        moments = prior.moments(loc)
        return BF.normal_kl(loc, raw_scale, *moments, parametrization=posterior.parametrization)


class _JointFromNormal(Divergence):
    """The divergence of independent normals of the same scales, plus what the correlations add."""

    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Joint)
        assert isinstance(prior, (priors.Normal, priors.NormalModule))
        loc, raw_scale = wide(weight.loc), wide(parameters[posterior.raw_index])
        prior_loc, scale = prior.moments(loc)
        independent = BF.normal_kl(
            loc, raw_scale, prior_loc, scale, parametrization=posterior.parametrization
        )
        variance = wide(posterior.mixing(parameters)).square().sum()
        total: Tensor = independent + variance / (2 * scale * scale)
        log_det = posterior.log_det(parameters)
        return total if log_det is None else total - log_det.to(total.dtype)


class _FullCovarianceFromNormal(_JointFromNormal):
    """Samples and divergence of a vector in one node of the graph, for a prior of two numbers."""

    def kl(self, weight: Weight) -> Tensor:
        locs, raw_scale, lower, of_normals = vector(weight)
        found = draw_vector(
            locs, raw_scale, lower, sample_shape=(0,), seed=0, has_value=True, **of_normals
        )
        return super().kl(weight) if found is None else found[1]

    def draw(
        self, weights: Sequence[Weight], seed: int | Tensor | None, stream: int
    ) -> tuple[Sequence[Tensor], Part | None]:
        (weight,) = weights
        locs, raw_scale, lower, of_normals = vector(weight)
        found = draw_vector(locs, raw_scale, lower, seed=seed, stream=stream, **of_normals)
        if found is None:
            return super().draw(weights, seed, stream)
        return [found[0]], vector_part(found[1], weight)


def vector_part(place: Tensor, weight: Weight) -> Part:
    """The part of a weight with a full covariance.

    ``place`` has the divergence's gradient, not its value.
    """

    def value() -> Tensor:
        locs, raw_scale, lower, of_normals = vector(weight)
        write_vector_kl(place, locs, raw_scale, lower, **of_normals)
        return place

    return Part((weight,), value, place)


def vector(weight: Weight) -> tuple[Sequence[Tensor], Tensor, Tensor, dict[str, Any]]:
    """(the means, raw scale and factor of a weight; its parametrization and prior)."""
    posterior, prior, (*locs, raw_scale, lower) = weight
    assert isinstance(posterior, posteriors.FullCovariance)
    assert isinstance(prior, priors.Normal)
    options = {
        "parametrization": posterior.parametrization,
        "prior_loc": prior.loc,
        "prior_scale": prior.scale,
    }
    return locs, raw_scale, lower, options


class _LaplaceFromLaplace(Divergence):
    def kl(self, weight: Weight) -> Tensor:
        posterior, prior = weight.posterior, weight.prior
        assert isinstance(posterior, posteriors.Laplace)
        assert isinstance(prior, priors.Laplace)
        loc, raw_scale = weight.parameters
        parametrization = posterior.parametrization
        return BF.laplace_kl(loc, raw_scale, 0.0, prior.scale, parametrization=parametrization)


class _LaplaceFromNormal(Divergence):
    """A Laplace distribution from a normal prior, of numbers or with tensors."""

    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Laplace)
        assert isinstance(prior, (priors.Normal, priors.NormalModule))
        loc, raw_scale = map(wide, parameters)
        moments = prior.moments(loc)
        return laplace_normal_kl(loc, raw_scale, posterior.parametrization, *moments).sum()


class _NormalFromLaplace(Divergence):
    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Normal)
        assert isinstance(prior, priors.Laplace)
        loc, raw_scale = map(wide, parameters)
        parametrization = posterior.parametrization
        return normal_laplace_kl(loc, raw_scale, parametrization, 0.0, prior.scale).sum()


class _JointFromLaplace(Divergence):
    """The entropy has a closed form, and E|w| is that of each weight by itself."""

    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, parameters = weight
        assert isinstance(posterior, posteriors.Joint)
        assert isinstance(prior, priors.Laplace)
        loc, raw_scale = wide(weight.loc), wide(parameters[posterior.raw_index])
        scale = scale_of(raw_scale, posterior.parametrization)
        mixing = wide(posterior.mixing(parameters))
        absolute = normal_absolute_mean(loc, _spread(scale, mixing)).sum()
        constant = loc.numel() * math.log(2 * prior.scale)
        total: Tensor = absolute / prior.scale + constant - posterior.entropy(parameters)
        return total


def _spread(scale: Tensor, mixing: Tensor) -> Tensor:
    """sqrt(scale^2 + the squares of each row of a matrix), where the squares underflow, too."""
    unit = torch.maximum(scale, mixing.abs().amax(1)).detach()
    unit = unit.clamp_min(torch.finfo(unit.dtype).tiny)
    squares = (scale / unit).square() + (mixing / unit.unsqueeze(1)).square().sum(1)
    # At least 1, or 0, where the root has no slope.
    return unit * squares.clamp_min(0.5).sqrt() * (squares > 0)


class _OfTheMean(Divergence):
    """-log p(mean): what is left of the divergence of a point, less what does not depend on it."""

    def kl(self, weight: Weight) -> Tensor:
        return -weight.prior.log_prob(weight.loc)


class _OfPoints(Divergence):
    """-E log p(w) of weights that are dropped or not, likewise."""

    def kl(self, weight: Weight) -> Tensor:
        posterior, prior, (loc,) = weight
        assert isinstance(posterior, posteriors.MCDropout)
        rate = posterior.rate_of(loc)
        kept, dropped = prior.log_prob(loc / (1 - rate)), prior.log_prob(torch.zeros_like(loc))
        return -(1 - rate) * kept - rate * dropped


_NORMALS = (priors.Normal, priors.LearnedNormal, priors.CentredNormal)
_OTHERS = (
    priors.ScaleMixture,
    priors.Laplace,
    priors.StudentT,
    priors.Horseshoe,
    priors.LogUniform,
)
_JOINT = (posteriors.FullCovariance, posteriors.LowRank)
# Those that are finite at 0.
_OF_POINTS = (*_NORMALS, priors.ScaleMixture, priors.Laplace, priors.StudentT)

#: How each posterior diverges from each prior, for the pairs that can be had.
DIVERGENCES: dict[tuple[type[Posterior], type[Prior]], Divergence] = {
    (posteriors.Normal, priors.Normal): _NormalFromNormal(),
    **{(posteriors.Normal, prior): _NormalFromTensors() for prior in _NORMALS[1:]},
    **{(posteriors.Normal, prior): _NormalEstimated() for prior in _OTHERS},
    (posteriors.Normal, priors.Laplace): _NormalFromLaplace(),
    **{(kind, prior): _JointFromNormal() for kind in _JOINT for prior in _NORMALS},
    (posteriors.FullCovariance, priors.Normal): _FullCovarianceFromNormal(),
    **{(kind, prior): _JointEstimated() for kind in _JOINT for prior in _OTHERS},
    **{(kind, priors.Laplace): _JointFromLaplace() for kind in _JOINT},
    **{(posteriors.Laplace, prior): _LaplaceFromNormal() for prior in _NORMALS},
    (posteriors.Laplace, priors.Laplace): _LaplaceFromLaplace(),
    **{(posteriors.Deterministic, prior): _OfTheMean() for prior in _OF_POINTS},
    **{(posteriors.MCDropout, prior): _OfPoints() for prior in _OF_POINTS},
}


def divergence_of(weight: Weight) -> Divergence:
    """The entry of :data:`DIVERGENCES`; raises ValueError if there is none."""
    posterior, prior, _ = weight
    found = DIVERGENCES.get((type(posterior), type(prior)))
    if found is None:
        known = [prior.__name__ for kind, prior in DIVERGENCES if kind is type(weight.posterior)]
        raise ValueError(
            f"prior: expected {' or '.join(known) or 'none'} for a posterior "
            f"{type(weight.posterior).__name__}, got {type(weight.prior).__name__}"
        )
    return found
