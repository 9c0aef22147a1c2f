"""Maps of each feature alone, without parameters: between the line and an interval, or a bend."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import constraints

from bslfast import _checks
from bslfast import functional as BF
from bslfast._precision import wide
from bslfast.flows.domains import POSITIVE, between, mapped_inside
from bslfast.flows.transform import Transform, check_inputs


class Elementwise(Transform):
    """A transform of each feature by the same map.

    A subclass implements :meth:`_map`, and says what interval it leads from or to, if not from all
    numbers to all, in its attributes ``domain`` and ``codomain``. ``_map`` is called with numbers
    inside.

    Args:
        features: size of the vectors, >= 1.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return mapped_inside(lambda x: self._map(x, inverse=False), x, self.domain)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        return mapped_inside(lambda z: self._map(z, inverse=True), z, self.codomain)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"features={self.features}"


class LeakyReLU(Elementwise):
    """``z = x`` for x >= 0, else ``z = negative_slope * x``.

    Args:
        features: size of the vectors, >= 1.
        negative_slope: > 0.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models"
    (2013, https://ai.stanford.edu/~amaas/papers/relu_hybrid_icml2013_final.pdf).

    >>> import torch
    >>> from bslfast.flows import LeakyReLU
    >>> LeakyReLU(2, negative_slope=0.5)(torch.tensor([-2.0, 3.0]))
    (tensor([-1.,  3.]), tensor(-0.6931))
    """

    def __init__(self, features: int, *, negative_slope: float = 0.01) -> None:
        super().__init__(features)
        self.negative_slope = _checks.number("negative_slope", negative_slope, above=0.0)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.leaky_relu_transform(x, negative_slope=self.negative_slope, inverse=inverse)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, negative_slope={self.negative_slope:g}"


class Tanh(Elementwise):
    """``z = tanh(x)``, into (-1, 1).

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Source: Haarnoja et al., "Soft actor-critic" (2018, arXiv:1801.01290), appendix C.

    >>> import torch
    >>> from bslfast.flows import Tanh
    >>> Tanh(2)(torch.tensor([0.0, 100.0]))
    (tensor([0., 1.]), tensor(-198.6137))
    """

    codomain: constraints.Constraint = between(-1, 1)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.tanh_transform(x, inverse=inverse)


class Atanh(Elementwise):
    """``z = artanh(x)`` of numbers in (-1, 1); the inverse of :class:`Tanh`.

    As the first step of a flow, for data between -1 and 1, such as actions or waveforms.

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being -inf outside.

    Source: Haarnoja et al., "Soft actor-critic" (2018, arXiv:1801.01290), appendix C.

    >>> import torch
    >>> from bslfast.flows import Atanh
    >>> Atanh(2)(torch.tensor([0.0, 0.5]))
    (tensor([0.0000, 0.5493]), tensor(0.2877))
    """

    domain: constraints.Constraint = between(-1, 1)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.tanh_transform(x, inverse=not inverse)


class Sigmoid(Elementwise):
    """``z = 1 / (1 + exp(-x))``, into (0, 1); the inverse of :class:`Logit`.

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 4.1.

    >>> import torch
    >>> from bslfast.flows import Sigmoid
    >>> Sigmoid(2)(torch.zeros(2))
    (tensor([0.5000, 0.5000]), tensor(-2.7726))
    """

    codomain: constraints.Constraint = between(0, 1)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.sigmoid_transform(x, inverse=inverse)


class Logit(Elementwise):
    """``z = log(x / (1 - x))`` of numbers in (0, 1); the inverse of :class:`Sigmoid`.

    As the first step of a flow, for data such as pixels in (0, 1).

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being -inf outside.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 4.1.

    >>> import torch
    >>> from bslfast.flows import Logit
    >>> Logit(2)(torch.tensor([0.5, 0.75]))
    (tensor([0.0000, 1.0986]), tensor(3.0603))
    """

    domain: constraints.Constraint = between(0, 1)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.sigmoid_transform(x, inverse=not inverse)


class Softplus(Elementwise):
    """``z = log(1 + exp(x))``, into the numbers above 0.

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Source: Dugas et al., "Incorporating second-order functional knowledge for better option
    pricing" (2000,
    https://papers.nips.cc/paper/2000/hash/44968aece94f667e4095002d140b5896-Abstract.html).

    >>> import torch
    >>> from bslfast.flows import Softplus
    >>> Softplus(2)(torch.tensor([0.0, 1000.0]))
    (tensor([6.9315e-01, 1.0000e+03]), tensor(-0.6931))
    """

    codomain: constraints.Constraint = POSITIVE

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.softplus_transform(x, inverse=inverse)


class Exp(Elementwise):
    """``z = exp(x)``, into the numbers above 0; the inverse of :class:`Log`.

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762).

    >>> import torch
    >>> from bslfast.flows import Exp
    >>> Exp(2)(torch.tensor([0.0, 1.0]))
    (tensor([1.0000, 2.7183]), tensor(1.))
    """

    codomain: constraints.Constraint = POSITIVE

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return _log(x) if inverse else _exp(x)


class Log(Elementwise):
    """``z = log(x)`` of numbers above 0; the inverse of :class:`Exp`.

    As the first step of a flow, for data such as prices or concentrations. A flow of no other step
    is a log-normal distribution.

    Args:
        features: size of the vectors, >= 1.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being -inf outside.

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762).

    >>> import torch
    >>> from bslfast.flows import Flow, Log
    >>> Flow(Log(1)).log_prob(torch.tensor([[1.0], [-1.0]]))
    tensor([-0.9189,    -inf])
    """

    domain: constraints.Constraint = POSITIVE

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return _exp(x) if inverse else _log(x)


def _exp(x: Tensor) -> tuple[Tensor, Tensor]:
    x = _checks.operand("x", x)
    # In float32, of which the result is rounded: a log-determinant is a sum of logarithms.
    wide_x = wide(x)
    return wide_x.exp().to(x.dtype), wide_x.sum(dim=-1)


def _log(x: Tensor) -> tuple[Tensor, Tensor]:
    x = _checks.operand("x", x)
    z = wide(x).log()
    return z.to(x.dtype), -z.sum(dim=-1)
