"""Coupling transforms: half of the features move, by maps that the other half chooses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from bslfast import _checks
from bslfast import functional as BF
from bslfast.flows.domains import between, mapped_inside
from bslfast.flows.transform import Transform, check_inputs, no_log_det
from bslfast.functional.affine_coupling import SCALE_FNS
from bslfast.functional.bernstein import MAX_COEFFICIENTS
from bslfast.functional.mixture_logistic import MAX_COMPONENTS
from bslfast.functional.rational_quadratic import EXTRA_SLOPES


class _Part(nn.Linear):
    """A layer over some of the inputs, whose outputs are added to those of a layer over the rest.

    Args:
        inputs, outputs: sizes.
        every: number of all inputs, which the size of the first weights follows.
        bias: whether there is a bias.
        device, dtype: of the parameters.
    """

    def __init__(self, inputs: int, outputs: int, every: int, **options: Any) -> None:
        self.every = every
        super().__init__(inputs, outputs, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        for parameter in self.parameters():
            parameter.mul_(math.sqrt(self.in_features / self.every))


class _Output(nn.Linear):
    """The last layer, whose outputs are ``start`` at the start, whatever comes in.

    Args:
        inputs, outputs: sizes.
        start: the first outputs; the rest repeat them.
        bias: whether there is a bias, without which the outputs are 0 at the start.
        device, dtype: of the parameters.
    """

    def __init__(self, inputs: int, outputs: int, start: Sequence[float], **options: Any) -> None:
        self.start = tuple(start)
        super().__init__(inputs, outputs, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()  # so that a seed gives other layers what it always has
        self.weight.zero_()
        if self.bias is not None:
            _repeat(self.start, self.bias)


def _repeat(values: Sequence[float], to: Tensor) -> None:
    to.view(-1, len(values)).copy_(torch.tensor(values, device="cpu", dtype=to.dtype))


class Conditioner(nn.Module):
    """A dense network with relu, constant at the start.

    The context enters the first layer by weights of its own, so that one context may serve many
    rows and is multiplied once. Without inputs at all, the outputs are learned constants.

    Args:
        inputs: size of the vectors to look at; may be 0.
        context: size of the context vectors; may be 0.
        hidden: widths of the hidden layers; may be empty.
        outputs: number of outputs.
        start: the first outputs at the start, which the rest repeat.
        device, dtype: of the parameters.

    Shape: x [..., inputs], context [..., context] -> [..., outputs]; [outputs] without inputs.
    """

    def __init__(
        self,
        inputs: int,
        context: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        start: Sequence[float] = (0.0,),
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = _checks.widths("hidden", hidden)
        self.inputs = inputs
        self.start = tuple(start)
        self.layers = nn.ModuleList()
        self.context_layer: nn.Linear | None = None
        self.constant: nn.Parameter | None = None
        if inputs + context == 0:
            self.constant = nn.Parameter(torch.empty(outputs, **options))
            self.reset_parameters()
            return
        widths = (*hidden, outputs)

        def first(n_in: int, **more: Any) -> nn.Linear:
            if not hidden:
                return _Output(n_in, outputs, start, **options, **more)
            return _Part(n_in, widths[0], inputs + context, **options, **more)

        self.layers.append(first(inputs or context))
        if context and inputs:
            self.context_layer = first(context, bias=False)
        for n_in, n_out in itertools.pairwise(hidden):
            self.layers.append(nn.Linear(n_in, n_out, **options))
        if hidden:
            self.layers.append(_Output(hidden[-1], outputs, start, **options))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set what is no layer's to its start."""
        if self.constant is not None:
            _repeat(self.start, self.constant)

    @property
    def output_bias(self) -> nn.Parameter:
        """The biases of the last layer, [outputs]: what the outputs are at the start."""
        if self.constant is not None:
            return self.constant
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last.bias

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the maps."""
        if self.constant is not None:
            return self.constant
        h = x
        if not self.inputs:
            assert context is not None
            h = context
        for index, layer in enumerate(self.layers):
            # relu_ in place: linear does not need its own output for its gradient.
            h = layer(h if index == 0 else h.relu_())
            if index == 0 and self.context_layer is not None:
                h = h + self.context_layer(context)
        return h


class Coupling(Transform):
    """A transform that keeps one half of the features and moves the other.

    The first ``features // 2`` features are one half, the rest the other. Contiguous halves are
    views of x: nothing is gathered or scattered. A subclass implements :meth:`_move`. A single
    feature is moved by a map that depends on the context alone.

    Args:
        features: size of the vectors, >= 1.
        outputs_per_feature: parameters of the map of each moved feature.
        context: size of the context vectors; 0 for none.
        hidden: widths of the conditioner's hidden layers.
        flip: move the first half, not the second.
        start: those parameters at the start; None for zeros.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        features: int,
        outputs_per_feature: int,
        *,
        context: int,
        hidden: Sequence[int],
        flip: bool,
        start: Sequence[float] | None = None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__(features, context)
        if not isinstance(flip, bool):
            raise TypeError(f"flip: expected a bool, got {_checks.describe(flip)}")
        half = features // 2
        self.sizes = (half, features - half)
        self.flip = flip and features > 1
        self.kept, self.moved = self.sizes[::-1] if self.flip else self.sizes
        self.conditioner = Conditioner(
            self.kept,
            context,
            hidden,
            self.moved * outputs_per_feature,
            start=[0.0] * outputs_per_feature if start is None else start,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        x = check_inputs(self, "x", x, context)
        return self._couple(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        z = check_inputs(self, "z", z, context)
        return self._couple(z, context, inverse=True)

    def _couple(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        if not self.kept:
            parameters = self.conditioner(x[..., :0], context)
            return self._move(x, parameters, inverse)
        # split, not slices: its gradient is one concatenation.
        first, second = x.split(self.sizes, dim=-1)
        if self.flip:
            moved, log_det = self._move(first, self.conditioner(second, context), inverse)
            return torch.cat((moved, second), dim=-1), log_det
        moved, log_det = self._move(second, self.conditioner(first, context), inverse)
        return torch.cat((first, moved), dim=-1), log_det

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map ``x`` [..., moved] by ``parameters`` [..., moved * outputs_per_feature].

        Returns:
            (the mapped x, the log-determinant [...]).
        """
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"features={self.features}, context={self.context}, flip={self.flip}"


class AdditiveCoupling(Coupling):
    r"""Moves half of the features by ``z = x + t``, which keeps volumes; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes t.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]), log_det being 0.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Krueger and Bengio, "NICE: Non-linear independent components estimation" (2015).

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
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            features, 1, context=context, hidden=hidden, flip=flip, device=device, dtype=dtype
        )

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        moved = x - parameters if inverse else x + parameters
        return moved, no_log_det(moved)


class AffineCoupling(Coupling):
    r"""Moves half of the features by ``z = x * s + t``; the identity at the start.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes s and t.
        scale_fn: what makes s of its output, see :func:`bslfast.functional.affine_coupling`.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017).

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
        scale_fn: str = "tanh",
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        scale_fn = _checks.choice("scale_fn", scale_fn, SCALE_FNS)
        super().__init__(
            features, 2, context=context, hidden=hidden, flip=flip, device=device, dtype=dtype
        )
        self.scale_fn = scale_fn

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        shift, raw_scale = parameters.chunk(2, dim=-1)
        return BF.affine_coupling(x, shift, raw_scale, scale_fn=self.scale_fn, inverse=inverse)


class SplineCoupling(Coupling):
    r"""Moves half of the features by rational-quadratic splines; the identity at the start.

    Outside [-bound, bound] the map is the identity, or with ``tails="affine"`` a line with the
    spline's slope at its end. Scale the data so that most of it lies inside. With ``tails=None``
    all features have to lie inside, where they stay: in front of a map from there onto all numbers,
    such as :class:`Atanh` for a bound of 1.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the splines.
        bins: number of bins of each spline.
        bound: half the length of the interval that the splines act on.
        tails: ``"linear"``, ``"affine"`` or None, as in
            :func:`bslfast.functional.rational_quadratic_spline`.
        min_bin_width, min_bin_height, min_derivative: as in
            :func:`bslfast.functional.rational_quadratic_spline`.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019).

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
        bins = _checks.integer("bins", bins, 2)
        settings = {
            "bound": _checks.number("bound", bound, above=0.0),
            "min_bin_width": _checks.number(
                "min_bin_width", min_bin_width, above=0, below=1 / bins
            ),
            "min_bin_height": _checks.number(
                "min_bin_height", min_bin_height, above=0, below=1 / bins
            ),
            "min_derivative": _checks.number("min_derivative", min_derivative, above=0, below=1),
        }
        if tails is not None:
            tails = _checks.choice("tails", tails, ("linear", "affine"))
        slopes = bins + EXTRA_SLOPES[tails]
        super().__init__(
            features,
            2 * bins + slopes,
            context=context,
            hidden=hidden,
            flip=flip,
            # Equal bins, and slopes of 1: min_derivative + softplus(this) = 1.
            start=[0.0] * 2 * bins + [_softplus_inverse(1 - settings["min_derivative"])] * slopes,
            device=device,
            dtype=dtype,
        )
        self.bins, self.tails, self.settings = bins, tails, settings
        self.parts = (bins, bins, slopes)

    @property
    def domain(self) -> constraints.Constraint:
        if self.tails is not None:
            return constraints.real_vector
        return between(-self.settings["bound"], self.settings["bound"], closed=True)

    @property
    def codomain(self) -> constraints.Constraint:
        return self.domain

    def _couple(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        couple = super()._couple
        return mapped_inside(lambda x: couple(x, context, inverse), x, self.domain)

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        # Three views into the network's output; the kernel reads them where they are.
        widths, heights, derivatives = parameters.view(
            *parameters.shape[:-1], self.moved, sum(self.parts)
        ).split(self.parts, dim=-1)
        settings: Any = self.settings
        return BF.rational_quadratic_spline(
            x, widths, heights, derivatives, inverse=inverse, tails=self.tails, **settings
        )

    def extra_repr(self) -> str:
        shown = f"bins={self.bins}, bound={self.settings['bound']}, tails={self.tails!r}"
        return f"{super().extra_repr()}, {shown}"


class MixtureCoupling(Coupling):
    """A coupling whose maps are made of components, with a logit and two parameters each.

    A subclass implements :meth:`_start`, which says what these are to begin with, and :meth:`_map`.
    """

    def __init__(
        self,
        features: int,
        *,
        context: int = 0,
        hidden: Sequence[int] = (64, 64),
        components: int = 8,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        components = _checks.integer("components", components)
        if components > MAX_COMPONENTS:
            raise ValueError(
                f"components: expected at most {MAX_COMPONENTS} components, got {components}"
            )
        super().__init__(
            features,
            3 * components,
            context=context,
            hidden=hidden,
            flip=flip,
            start=[0.0] * components + self._start(components),
            device=device,
            dtype=dtype,
        )
        self.components = components

    @staticmethod
    def _spread(components: int) -> list[float]:
        """Different numbers for components, which would otherwise stay equal."""
        if components == 1:
            return [0.0]
        return [i / (components - 1) - 0.5 for i in range(components)]

    @classmethod
    def _start(cls, components: int) -> list[float]:
        """The components' first parameters, and then their second ones."""
        raise NotImplementedError

    def _map(self, *tensors: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map x by logits and the two parameters."""
        raise NotImplementedError

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        # Three views into the network's output; the kernel reads them where they are.
        rows = parameters.view(*parameters.shape[:-1], self.moved, 3 * self.components)
        return self._map(x, *rows.split(self.components, dim=-1), inverse=inverse)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"


class MixtureLogisticCoupling(MixtureCoupling):
    r"""Moves half of the features by the logits of logistic mixtures' distribution functions.

    The maps are smooth, and go from the real line onto itself. At the start the components are
    spread evenly over [-0.5, 0.5] with scales of 1: no feature moves by more than 0.5. Equal ones
    would make the map the identity, but also have equal gradients, and stay equal.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the mixtures.
        components: number of components of each mixture, at most 64.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019), section 3.2.

    >>> import torch
    >>> from bslfast.flows import MixtureLogisticCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = MixtureLogisticCoupling(3)(x)
    >>> bool(((z - x).abs() <= 0.5).all()), log_det.shape
    (True, torch.Size([4]))
    """

    @classmethod
    def _start(cls, components: int) -> list[float]:
        return cls._spread(components) + [0.0] * components

    def _map(self, *tensors: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.mixture_logistic_transform(*tensors, inverse=inverse)


class DeepSigmoidalCoupling(MixtureCoupling):
    r"""Moves half of the features by logits of weighted means of sigmoids.

    The maps are smooth, and go from the real line onto itself. At the start the sigmoids have
    slopes of 1 and shifts spread evenly over [-0.5, 0.5]: no feature moves by more than 0.5. Equal
    ones would make the map the identity, but also have equal gradients, and stay equal.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the sigmoids.
        components: number of sigmoids of each map, at most 64.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Huang, Krueger, Lacoste and Courville, "Neural autoregressive flows" (2018),
    section 3.2.

    >>> import torch
    >>> from bslfast.flows import DeepSigmoidalCoupling
    >>> x = torch.randn(4, 3)
    >>> z, log_det = DeepSigmoidalCoupling(3)(x)
    >>> bool(((z - x).abs() <= 0.5).all()), log_det.shape
    (True, torch.Size([4]))
    """

    @classmethod
    def _start(cls, components: int) -> list[float]:
        return [_softplus_inverse(1.0)] * components + cls._spread(components)

    def _map(self, *tensors: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return BF.deep_sigmoidal_transform(*tensors, inverse=inverse)


class BernsteinCoupling(Coupling):
    r"""Moves half of the features by rising Bernstein polynomials; the identity at the start.

    The polynomials have linear tails: outside [-bound, bound] the map is a line at either end.
    Scale the data so that most of it lies inside.

    Args:
        features: size of the vectors, >= 1.
        context: size of the context vectors; 0 for none.
        hidden: widths of the hidden layers of the network that computes the coefficients.
        degree: of the polynomials, at most 63; they have one coefficient more.
        bound: half the length of the interval that the polynomials act on.
        flip: move the first half, not the second.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Ramasinghe et al., "Robust normalizing flows using Bernstein-type polynomials" (2021).

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
        degree: int = 16,
        bound: float = 3.0,
        flip: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        degree = _checks.integer("degree", degree)
        if degree >= MAX_COEFFICIENTS:
            raise ValueError(f"degree: expected at most {MAX_COEFFICIENTS - 1}, got {degree}")
        bound = _checks.number("bound", bound, above=0.0)
        super().__init__(
            features,
            degree + 1,
            context=context,
            hidden=hidden,
            flip=flip,
            start=[-bound] + [_softplus_inverse(2 * bound / degree)] * degree,
            device=device,
            dtype=dtype,
        )
        self.degree, self.bound = degree, bound

    def _move(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raw = parameters.view(*parameters.shape[:-1], self.moved, self.degree + 1)
        return BF.bernstein_transform(x, raw, bound=self.bound, inverse=inverse)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, degree={self.degree}, bound={self.bound}"


def _softplus_inverse(value: float) -> float:
    """The number of which softplus is ``value`` > 0."""
    return value + math.log(-math.expm1(-value))
