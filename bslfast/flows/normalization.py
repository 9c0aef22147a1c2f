"""Scales and shifts that bring each feature to mean 0 and variance 1, from the data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast._torch import transforms_active
from bslfast.flows.transform import Transform, check_inputs


class _PerFeature(Transform):
    """``z = (x - loc) / scale`` with tensors ``loc`` and ``log_scale`` [features]."""

    loc: Tensor
    log_scale: Tensor

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity."""
        self.loc.zero_()
        self.log_scale.zero_()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        loc = self.loc
        check_inputs(self, "x", x, context, loc)
        return BF.affine_coupling(x, loc, self.log_scale, scale_fn="exp", inverse=True)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        loc = self.loc
        check_inputs(self, "z", z, context, loc)
        return BF.affine_coupling(z, loc, self.log_scale, scale_fn="exp")

    def extra_repr(self) -> str:
        return f"features={self.features}"


class Standardize(_PerFeature):
    r"""``z = (x - loc) / scale`` with the location and scale of each feature of the training data.

    The first step of most flows: :meth:`from_data` takes mean and standard deviation from the data,
    and they stay as they are. So densities and samples are those of the data as they came. A new
    one is the identity, to load a state into.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the buffers ``loc`` and ``log_scale``.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Papamakarios, Pavlakou and Murray, "Masked autoregressive flow for density estimation"
    (2017, arXiv:1705.07057), section 4, standardises all its data so.

    >>> import torch
    >>> from bslfast.flows import Standardize
    >>> x = torch.tensor([[1.0, 800.0], [3.0, 400.0]])
    >>> Standardize.from_data(x)(x)
    (tensor([[-1.,  1.],
            [ 1., -1.]]), tensor([-5.2983, -5.2983]))
    """

    def __init__(
        self,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        options = _checks.factory(device, dtype)
        self.register_buffer("loc", torch.empty(self.features, **options))
        self.register_buffer("log_scale", torch.empty(self.features, **options))
        self.reset_parameters()

    @classmethod
    def from_data(cls, x: Tensor) -> Standardize:
        """Return the one that brings every column of ``x`` to mean 0 and standard deviation 1.

        Args:
            x: [n, features], of the dtype and on the device that the flow will have; without
                correction of the standard deviation for n.

        Raises:
            TypeError, ValueError: if ``x`` is no floating-point matrix with rows, or has a column
                that is constant or not finite.
        """
        _checks.floating("x", x, 2, "[n, features]")
        if x.numel() == 0:
            raise ValueError(
                f"x: expected at least one row and one column, got {_checks.describe(x)}"
            )
        wrong = (~x.isfinite()).any(dim=0).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(f"x: expected finite numbers, got NaN or infinity in columns {wrong}")
        loc, log_scale, constant = _statistics(x)
        same = constant.nonzero().flatten().tolist()
        if same:
            raise ValueError(
                f"x: expected columns that vary, got constant columns {same} (at "
                f"{', '.join(f'{value:g}' for value in x[0, same].tolist())})"
            )
        result = cls(x.shape[1], device=x.device, dtype=x.dtype)
        result.loc.copy_(loc)
        result.log_scale.copy_(log_scale)
        return result


class Rescale(Transform):
    r"""``z = (x - low) / (high - low)``: from an interval onto (0, 1), where :class:`Logit` begins.

    Args:
        features: size of the vectors, >= 1.
        low, high: the ends of the interval, numbers with low < high; they are no parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Papamakarios et al., "Normalizing flows for probabilistic modeling and inference" (2021,
    arXiv:1912.02762).

    >>> import torch
    >>> from bslfast.flows import Rescale
    >>> Rescale(1, 0.0, 4.0)(torch.tensor([3.0]))
    (tensor([0.7500]), tensor(-1.3863))
    """

    def __init__(self, features: int, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(features)
        self.low = _checks.number("low", low)
        self.high = _checks.number("high", high, above=self.low)
        self.log_length = _checks.number("high", math.log(self.high - self.low))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        return self._map(_checks.operand("x", x), inverse=True)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        return self._map(_checks.operand("z", z), inverse=False)

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        low, log_length = (x.new_full((), value) for value in (self.low, self.log_length))
        return BF.affine_coupling(x, low, log_length, scale_fn="exp", inverse=inverse)

    def extra_repr(self) -> str:
        return f"features={self.features}, low={self.low:g}, high={self.high:g}"


class ActNorm(_PerFeature):
    r"""``z = (x - loc) / scale`` with a learned location and scale of each feature.

    The first batch that it sees in training mode sets them to the mean and standard deviation of
    its features; from then on they are parameters like any other. The buffer ``initialized`` says
    whether this has happened, and is saved with the rest. Before, the map is the identity. A
    feature that is constant in the first batch is shifted, not scaled. Under ``torch.func.vmap``
    the first batch is all that is mapped over.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018,
    arXiv:1807.03039), section 3.1.

    >>> import torch
    >>> from bslfast.flows import ActNorm
    >>> z, log_det = ActNorm(2)(torch.tensor([[1.0, 8.0], [3.0, 4.0]]))
    >>> z.detach(), log_det.detach()
    (tensor([[-1.,  1.],
            [ 1., -1.]]), tensor([-0.6931, -0.6931]))
    """

    initialized: Tensor

    def __init__(
        self,
        features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        options = _checks.factory(device, dtype)
        self.loc = nn.Parameter(torch.empty(self.features, **options))
        self.log_scale = nn.Parameter(torch.empty(self.features, **options))
        self.register_buffer("initialized", torch.empty((), device=device, dtype=torch.bool))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, and wait for a first batch."""
        super().reset_parameters()
        self.initialized.fill_(False)
        # Whether the buffer is known to be True: no step then waits for an accelerator to see.
        self._is_initialized = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context, self.loc)
        if self.training and not self._is_initialized and x.numel() > 0:
            if transforms_active():
                _Initialize.apply(x, self)  # type: ignore[no-untyped-call]
            else:
                self._initialize(x)
        return BF.affine_coupling(x, self.loc, self.log_scale, scale_fn="exp", inverse=True)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        loc, log_scale, constant = _statistics(x.reshape(-1, self.features))
        log_scale = torch.where(constant, 0.0, log_scale)
        # where() and no if, which would wait for an accelerator and cut a compiled graph in two.
        self.loc.copy_(torch.where(self.initialized, self.loc, loc))
        self.log_scale.copy_(torch.where(self.initialized, self.log_scale, log_scale))
        self.initialized.fill_(True)
        self._is_initialized = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_initialized = False


class _Initialize(torch.autograd.Function):
    """Initialises an ActNorm with the tensor that transforms of torch.func have wrapped.

    ``forward`` gets it without what ``grad`` has put around it, and ``vmap`` with all examples.
    """

    @staticmethod
    def forward(x: Tensor, norm: ActNorm) -> Tensor:
        norm._initialize(x)
        return x.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, norm: ActNorm) -> Any:
        return _Initialize.apply(x.movedim(in_dims[0], 0), norm), None  # type: ignore[no-untyped-call]


def _statistics(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and log standard deviation of each column of [n, features], and whether it is constant.

    The logarithm is of no use where it is.
    """
    # Divided by the largest number first: the square of 1e20 is no float32.
    largest = rows.abs().amax(dim=0)
    largest = torch.where(largest > 0, largest, 1.0)
    variance, mean = torch.var_mean(rows / largest, dim=0, correction=0)
    # What rounding makes of a constant is no scale.
    constant = variance <= (torch.finfo(rows.dtype).eps * mean).square()
    return largest * mean, largest.log() + 0.5 * variance.log(), constant


class BatchNorm(Transform):
    r"""Batch normalisation as an invertible map.

    .. math:: z = \frac{x - m}{\sqrt{\max(v, \epsilon)}}\, e^{g} + b

    In training mode m and v are the mean and variance of each feature in the batch, and an average
    of them over batches is kept; in evaluation mode they are that average, and the identity at the
    start. The log-determinant takes m and v for constants.

    The inverse is there in evaluation mode alone: in training mode z does not say what batch it
    came from. The variances have to be numbers of the dtype: in float32 standard deviations up to
    1e19, where :class:`ActNorm` and :class:`Standardize` take greater ones.

    Args:
        features: size of the vectors, >= 1.
        momentum: weight of the newest batch in the running averages, in (0, 1].
        eps: least variance, > 0.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
        RuntimeError: the inverse in training mode.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017,
    arXiv:1605.08803), section 3.7.

    >>> import torch
    >>> from bslfast.flows import BatchNorm
    >>> norm = BatchNorm(2)
    >>> z, log_det = norm(torch.tensor([[1.0, 8.0], [3.0, 4.0]]))
    >>> z.detach(), norm.running_mean
    (tensor([[-1.,  1.],
            [ 1., -1.]]), tensor([0.2000, 0.6000]))
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features)
        options = _checks.factory(device, dtype)
        self.momentum = _checks.number("momentum", momentum, above=0.0)
        if self.momentum > 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {momentum!r}")
        self.eps = _checks.number("eps", eps, above=0.0)
        self.log_gain = nn.Parameter(torch.empty(features, **options))
        self.bias = nn.Parameter(torch.empty(features, **options))
        self.register_buffer("running_mean", torch.empty(features, **options))
        self.register_buffer("running_var", torch.empty(features, **options))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start again from the identity, and from averages of no batch."""
        self.log_gain.zero_()
        self.bias.zero_()
        self.running_mean.zero_()
        self.running_var.fill_(1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context, self.bias)
        mean, var = self.running_mean, self.running_var
        if self.training:
            rows = x.reshape(-1, self.features)
            if len(rows) < 2:
                raise ValueError(
                    f"x: expected at least 2 vectors in training mode, got {_checks.describe(x)}"
                )
            var, mean = torch.var_mean(rows, dim=0, correction=0)
            self._remember(mean, var, len(rows))
        loc, log_scale = self._affine(mean, var)
        return BF.affine_coupling(x, loc, log_scale, scale_fn="exp", inverse=True)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context, self.bias)
        if self.training:
            raise RuntimeError(
                "BatchNorm: expected evaluation mode (call eval() first), as there is no inverse "
                "in training mode"
            )
        loc, log_scale = self._affine(self.running_mean, self.running_var)
        return BF.affine_coupling(z, loc, log_scale, scale_fn="exp")

    def _affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """The location and log scale of which z = (x - loc) / scale."""
        log_scale = 0.5 * var.clamp(min=self.eps).log() - self.log_gain
        return mean - self.bias * log_scale.exp(), log_scale

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, rows: int) -> None:
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = var.to(self.running_var.dtype) * (rows / (rows - 1))
        self.running_var.lerp_(unbiased, self.momentum)

    def extra_repr(self) -> str:
        return f"features={self.features}, momentum={self.momentum:g}, eps={self.eps:g}"
