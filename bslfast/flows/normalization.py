"""Scales and shifts that bring each feature to mean 0 and variance 1, from the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.flows.transform import Transform, check_inputs


class ActNorm(Transform):
    r"""``z = (x - loc) / scale`` with a learned location and scale of each feature.

    The first batch that it sees in training mode sets them to the mean and standard deviation of
    its features; from then on they are parameters like any other. The buffer ``initialized`` says
    whether this has happened, and is saved with the rest. Before, the map is the identity. A
    feature that is constant in the first batch is shifted, not scaled.

    Args:
        features: size of the vectors, >= 1.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Kingma and Dhariwal, "Glow: generative flow with invertible 1x1 convolutions" (2018),
    section 3.1.

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
        self.loc = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        self.log_scale = nn.Parameter(torch.zeros(features, device=device, dtype=dtype))
        self.register_buffer("initialized", torch.tensor(False, device=device))
        # What the buffer says, once it has been read: reading it waits for an accelerator, and
        # cuts a compiled graph in two.
        self._is_initialized = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
        if self.training and not self._is_initialized and x.numel() > 0:
            self._initialize(x)
        return BF.affine_coupling(x, self.loc, self.log_scale, scale_fn="exp", inverse=True)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.inverse`."""
        check_inputs(self, "z", z, context)
        return BF.affine_coupling(z, self.loc, self.log_scale, scale_fn="exp")

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        if not bool(self.initialized):
            variance, mean = torch.var_mean(x.reshape(-1, self.features), dim=0, correction=0)
            # What rounding makes of a constant is no scale.
            constant = variance <= (torch.finfo(x.dtype).eps * mean).square()
            self.loc.copy_(mean)
            self.log_scale.copy_(torch.where(constant, 0.0, 0.5 * variance.log()))
            self.initialized.fill_(True)
        self._is_initialized = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._is_initialized = False

    def extra_repr(self) -> str:
        return f"features={self.features}"


class BatchNorm(Transform):
    r"""Batch normalisation as an invertible map.

    .. math:: z = \frac{x - m}{\sqrt{\max(v, \epsilon)}}\, e^{g} + b

    In training mode m and v are the mean and variance of each feature in the batch, and an average
    of them over batches is kept; in evaluation mode they are that average, and the identity at the
    start. The log-determinant takes m and v for constants.

    The inverse is there in evaluation mode alone: in training mode z does not say what batch it
    came from.

    Args:
        features: size of the vectors, >= 1.
        momentum: weight of the newest batch in the running averages, in (0, 1].
        eps: least variance, > 0.
        device, dtype: of the parameters.

    Shape: x [..., features] -> (z [..., features], log_det [...]).

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
        RuntimeError: the inverse in training mode.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017),
    section 3.7.

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
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.momentum = _checks.number("momentum", momentum, above=0.0)
        if self.momentum > 1:
            raise ValueError(f"momentum: expected a number in (0, 1], got {momentum!r}")
        self.eps = _checks.number("eps", eps, above=0.0)
        self.log_gain = nn.Parameter(torch.zeros(features, **options))
        self.bias = nn.Parameter(torch.zeros(features, **options))
        self.register_buffer("running_mean", torch.zeros(features, **options))
        self.register_buffer("running_var", torch.ones(features, **options))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :meth:`Transform.forward`."""
        check_inputs(self, "x", x, context)
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
        check_inputs(self, "z", z, context)
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
