"""Couplings by their names: a map, halves of the features, and a dense conditioner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bslfast import _checks
from bslfast.flows.conditioners import Conditioner
from bslfast.flows.coupling import Coupling
from bslfast.flows.maps import (
    Additive,
    Affine,
    Bernstein,
    DeepSigmoidal,
    Map,
    MixtureLogistic,
    Spline,
)


class _Halves(Coupling):
    """A coupling of the first half of the features and the rest, with a dense conditioner.

    A single feature is moved by a map that depends on the context alone.
    """

    def __init__(
        self,
        map: Map,
        features: int,
        *,
        flip: bool,
        context: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        **network: Any,
    ) -> None:
        features = _checks.integer("features", features)
        flip = _checks.flag("flip", flip) and features > 1
        half = features // 2
        moved = half if flip else features - half
        conditioner = Conditioner(
            features - moved,
            moved * map.size,
            context=context,
            start=map.start,
            device=device,
            dtype=dtype,
            **network,
        )
        super().__init__(
            map, [flip] * half + [not flip] * (features - half), conditioner, context=context
        )


class AdditiveCoupling(_Halves):
    r"""Moves half of the features by ``z = x + t``, which keeps volumes; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes t.
        activation, residual: of that network, see :class:`Conditioner`.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being 0.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Krueger and Bengio, "NICE: Non-linear independent components estimation" (2015,
    arXiv:1410.8516).

    >>> import torch
    >>> from bslfast.flows import AdditiveCoupling
    >>> AdditiveCoupling(2)(torch.tensor([3.0, 4.0]))
    (tensor([3., 4.], grad_fn=<CatBackward0>), tensor(0.))
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Additive(),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )


class AffineCoupling(_Halves):
    r"""Moves half of the features by ``z = x * s + t``; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes s and t.
        activation, residual: of that network, see :class:`Conditioner`.
        scale_fn: what makes s of its output, see :func:`bslfast.functional.affine_coupling`.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803).

    >>> import torch
    >>> from bslfast.flows import AffineCoupling
    >>> z, log_det = AffineCoupling(3, context=2)(torch.ones(4, 3), torch.randn(4, 2))
    >>> bool((z == 1).all()), bool((log_det == 0).all())
    (True, True)
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        scale_fn: str = "tanh",
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Affine(scale_fn),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )


class SplineCoupling(_Halves):
    r"""Moves half of the features by rational-quadratic splines; the identity at the start.

    Outside [-bound, bound] the map is the identity, or with ``tails="affine"`` a line with the
    spline's slope at its end. Scale the data so that most of it lies inside. With ``tails=None`` or
    ``"circular"`` all features have to lie inside, where they stay: in front of a map from there
    onto all numbers, such as :class:`Atanh` for a bound of 1.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the splines.
        activation, residual: of that network, see :class:`Conditioner`.
        bins: number of bins of each spline.
        bound: half the length of the interval that the splines act on, 1e-30 to 1e15.
        tails: ``"linear"``, ``"affine"``, ``"circular"`` or None, see :class:`Spline`.
        min_bin_width, min_bin_height, min_derivative: as in
            :func:`bslfast.functional.rational_quadratic_spline`.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019,
    arXiv:1906.04032).

    >>> import torch
    >>> from bslfast.flows import SplineCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = SplineCoupling(3)(x)
    >>> torch.allclose(z, x, atol=1e-6), bool(log_det.abs().max() < 1e-6)
    (True, True)
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        bins: int = 8,
        bound: float = 3.0,
        tails: str | None = "linear",
        min_bin_width: float = 1e-3,
        min_bin_height: float = 1e-3,
        min_derivative: float = 1e-3,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Spline(bins, bound, tails, min_bin_width, min_bin_height, min_derivative),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )


class MixtureLogisticCoupling(_Halves):
    r"""Moves half of the features by the logits of logistic mixtures' distribution functions.

    The maps are smooth, and go from the real line onto itself. At the start the components are
    spread evenly over [-0.5, 0.5] with scales of 1: no feature moves by more than 0.5. Equal ones
    would make the map the identity, but also have equal gradients, and stay equal.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the mixtures.
        activation, residual: of that network, see :class:`Conditioner`.
        components: number of components of each mixture, at most 64.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019, arXiv:1902.00275), section 3.2.

    >>> import torch
    >>> from bslfast.flows import MixtureLogisticCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = MixtureLogisticCoupling(3)(x)
    >>> bool(((z - x).abs() <= 0.5).all()), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        components: int = 8,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            MixtureLogistic(components),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )


class DeepSigmoidalCoupling(_Halves):
    r"""Moves half of the features by logits of weighted means of sigmoids.

    The maps are smooth, and go from the real line onto itself. At the start the sigmoids have
    slopes of 1 and shifts spread evenly over [-0.5, 0.5]: no feature moves by more than 0.5. Equal
    ones would make the map the identity, but also have equal gradients, and stay equal.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the sigmoids.
        activation, residual: of that network, see :class:`Conditioner`.
        components: number of sigmoids of each map, at most 64.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Huang, Krueger, Lacoste and Courville, "Neural autoregressive flows" (2018,
    arXiv:1804.00779), section 3.2.

    >>> import torch
    >>> from bslfast.flows import DeepSigmoidalCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = DeepSigmoidalCoupling(3)(x)
    >>> bool(((z - x).abs() <= 0.5).all()), log_det.shape
    (True, torch.Size([4]))
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        components: int = 8,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            DeepSigmoidal(components),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )


class BernsteinCoupling(_Halves):
    r"""Moves half of the features by rising Bernstein polynomials; the identity at the start.

    The polynomials have linear tails: outside [-bound, bound] the map is a line at either end.
    Scale the data so that most of it lies inside.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the coefficients.
        activation, residual: of that network, see :class:`Conditioner`.
        degree: of the polynomials, at most 63; they have one coefficient more.
        bound: half the length of the interval that the polynomials act on, 1e-30 to 1e15.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ramasinghe et al., "Robust normalizing flows using Bernstein-type polynomials" (2021,
    arXiv:2102.03509).

    >>> import torch
    >>> from bslfast.flows import BernsteinCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = BernsteinCoupling(3)(x)
    >>> torch.allclose(z, x, atol=1e-5), bool(log_det.abs().max() < 1e-5)
    (True, True)
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        residual: int = 0,
        degree: int = 16,
        bound: float = 3.0,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            Bernstein(degree, bound),
            features,
            flip=flip,
            context=context,
            hidden=hidden,
            activation=activation,
            residual=residual,
            device=device,
            dtype=dtype,
        )
