"""Estimators for layers that are linear in their input and their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import _checks
from bslfast import functional as BF
from bslfast.nn import posteriors
from bslfast.nn.estimators.weight_sample import Estimator
from bslfast.nn.module import BayesianModule
from bslfast.nn.posteriors import Posterior
from bslfast.nn.weight import Weight


class _OfLinearMaps(Estimator):
    """What serves layers that are linear in their input and their weights."""

    #: Which the weights may have.
    _posteriors: ClassVar[tuple[type[Posterior], ...]]

    def check(self, layer: BayesianModule) -> None:
        """Raise ValueError for other layers and posteriors."""
        if layer.feature_dim is None:
            raise ValueError(
                f"estimator: expected WeightSample() for a {type(layer).__name__}, which is no "
                f"linear map, got {self}"
            )
        for weight in layer.weights():
            if type(weight.posterior) not in self._posteriors:
                names = " or ".join(kind.__name__ for kind in self._posteriors)
                raise ValueError(
                    f"estimator: expected WeightSample() unless all posteriors are {names}, got "
                    f"{self} for a {type(weight.posterior).__name__}"
                )

    def __call__(
        self, layer: BayesianModule, *inputs: Any, seed: int | Tensor | None, **options: Any
    ) -> Tensor:
        """Outputs, with noise of their own for each example."""
        self.check(layer)
        x, others, options = _first(inputs, options)

        def function(weights: Sequence[Tensor], x: Tensor) -> Tensor:
            return layer.function(tuple(weights), x, *others, **options)

        weights = layer.weights()
        mean = function([w.loc for w in weights], x)
        assert layer.feature_dim is not None
        return self._around(mean, function, weights, x, layer.feature_dim, seed)

    def _around(
        self,
        mean: Tensor,
        function: Callable[[Sequence[Tensor], Tensor], Tensor],
        weights: Sequence[Weight],
        x: Tensor,
        dim: int,
        seed: int | Tensor | None,
    ) -> Tensor:
        """Outputs around their means.

        Args:
            mean: the function of the weights' means and of ``x``.
            function: the layer's, of weights and an input.
            weights: of the layer.
            x: its input.
            dim: that of features in inputs and outputs.
            seed: of the noise.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LocalReparametrization(_OfLinearMaps):
    r"""Outputs drawn for each example from the normal distribution that the weights give them.

    .. math:: y = f(x; m) + \sqrt{f(x^2; s^2)} \, \epsilon, \quad \epsilon \sim N(0, 1)

    for a layer f with the means m and the standard deviations s, each element of y with a number
    of its own. Mean and variance are those of :class:`WeightSample`. Examples share no noise,
    which makes gradients less noisy; nor do the positions of a convolution, whose outputs are
    correlated under a draw of its kernel.

    It serves linear layers, convolutions and their transposes with ``Normal`` and ``Deterministic``
    posteriors, not in float16, which does not hold the squares. ``layer.kl()`` is computed by
    itself: in closed form, or from a sample of the weights where there is none. Inside
    :func:`bslfast.nn.one_draw` the weights have been drawn, and are used.

    Raises:
        ValueError: by the layer, if it is or has what is not served.
        TypeError: by a pass in float16.

    Source: Kingma, Salimans and Welling, "Variational dropout and the local reparameterization
    trick" (2015, arXiv:1506.02557), section 2.2.

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLinear(3, 2, estimator="local_reparametrization")
    >>> torch.equal(*layer(torch.ones(2, 3)))
    False
    """

    _posteriors = (posteriors.Normal, posteriors.Deterministic)

    def _around(
        self,
        mean: Tensor,
        function: Callable[[Sequence[Tensor], Tensor], Tensor],
        weights: Sequence[Weight],
        x: Tensor,
        dim: int,
        seed: int | Tensor | None,
    ) -> Tensor:
        if mean.dtype == torch.float16:
            raise TypeError(
                f"estimator: expected WeightSample() or Flipout() in float16, got {self}"
            )
        if all(type(w.posterior) is posteriors.Deterministic for w in weights):
            return mean
        variance = function([w.stddev().square() for w in weights], x.square())
        # At 0, as for an input of zeros, the root has no derivative. Nor is it below 0, where fast
        # algorithms of convolution may round to.
        tiny = torch.finfo(variance.dtype).tiny
        scale = F.threshold(variance, tiny, tiny).sqrt()
        y = BF.normal_rsample(mean, scale, parametrization="scale", seed=seed)
        return y.to(mean.dtype)  # as the torch class returns it under autocast


@dataclasses.dataclass(frozen=True)
class Flipout(_OfLinearMaps):
    r"""One draw of the weights, whose deviations from the mean get random signs for each example.

    .. math:: y_n = f(x_n; m) + r_n \, f(s_n x_n; w - m), \quad w \sim q

    with signs s_n for each input feature (or channel) and r_n for each output feature, a deviation
    of the bias included. Each example has a sample of the posterior, of the same mean and variance
    as those of :class:`WeightSample`; samples of two examples are uncorrelated, though not
    independent. Rows of all leading dimensions are examples of a linear layer.

    It serves linear layers, convolutions and their transposes with posteriors of independent
    weights that are symmetric around their mean: ``Normal``, ``Laplace`` and ``Deterministic``.
    ``layer.kl()`` is computed by itself: in closed form, or from another sample of the weights
    where there is none. Inside :func:`bslfast.nn.one_draw` the weights have been drawn, and are
    used without signs.

    Raises:
        ValueError: by the layer, if it is or has what is not served.

    Source: Wen, Vicol, Ba, Tran and Grosse, "Flipout: efficient pseudo-independent weight
    perturbations on mini-batches" (2018, arXiv:1803.04386).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConv2d(3, 2, 1, estimator="flipout")
    >>> x = torch.ones(4, 3, 5, 5)
    >>> torch.equal(layer(x, seed=1), layer(x, seed=1)), layer(x, seed=1).unique(dim=0).shape
    (True, torch.Size([4, 2, 5, 5]))
    """

    _posteriors = (posteriors.Normal, posteriors.Laplace, posteriors.Deterministic)

    def _around(
        self,
        mean: Tensor,
        function: Callable[[Sequence[Tensor], Tensor], Tensor],
        weights: Sequence[Weight],
        x: Tensor,
        dim: int,
        seed: int | Tensor | None,
    ) -> Tensor:
        seed, n = _checks.seed(seed, mean.device), len(weights)
        deviations = [_around_zero(w).rsample(seed=seed, stream=i) for i, w in enumerate(weights)]
        noise = function(deviations, x * _signs(x, dim, seed, n))
        return mean + noise * _signs(mean, dim, seed, n + 1)


def _first(
    inputs: Sequence[Any], options: dict[str, Any]
) -> tuple[Any, Sequence[Any], dict[str, Any]]:
    """(the first input, which torch's layers call ``input``; the others; the other options)."""
    if inputs:
        return inputs[0], inputs[1:], options
    return options.get("input"), (), {k: v for k, v in options.items() if k != "input"}


def _around_zero(weight: Weight) -> Weight:
    """The deviation of a weight from its mean."""
    loc, *others = weight.parameters
    zeros = loc.new_zeros(()).expand_as(loc)
    return weight._replace(parameters=(zeros, *others))


def _signs(like: Tensor, dim: int, seed: Tensor, stream: int) -> Tensor:
    """1 or -1 for each feature, that is along ``dim`` < 0, of each example of a tensor."""
    shape = (*like.shape[: like.dim() + dim + 1], *(1,) * (-1 - dim))
    uniform = BF.standard_uniform(shape, seed=seed, stream=stream, dtype=torch.float32)
    return (uniform - 0.5).sign().to(like.dtype)
