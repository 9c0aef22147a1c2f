"""Bayesian convolutions, and their transposes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bslfast import _checks
from bslfast.nn.layer import BayesianLayer

# Names of the dimensions after the channels.
_SIDES = {1: "length", 2: "height, width", 3: "depth, height, width"}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CLASSES = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


class _Convolution(BayesianLayer):
    """What convolutions have in common: their inputs."""

    weight_loc: Tensor
    weight_raw_scale: Tensor
    # None without a bias, as torch's own bias.
    bias_loc: Tensor
    bias_raw_scale: Tensor
    in_channels: int
    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str | tuple[int, ...]
    transposed: bool

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        super().check_arguments(given)
        sides = next(n for n, kinds in _CLASSES.items() if issubclass(cls, kinds))
        transposed = issubclass(cls, _TRANSPOSED)
        _extents("kernel_size", given["kernel_size"], sides, 1)
        stride = _extents("stride", given.get("stride", 1), sides, 1)
        dilation = _extents("dilation", given.get("dilation", 1), sides, 1)
        padding = given.get("padding", 0)
        if isinstance(padding, str) and not transposed:
            _checks.choice("padding", padding, ("valid", "same"))
            if padding == "same" and max(stride) > 1:
                raise ValueError(
                    "padding: expected 'valid', an integer or several with a stride above 1, got "
                    "'same'"
                )
        else:
            _extents("padding", padding, sides, 0)
        modes = ("zeros",) if transposed else ("zeros", "reflect", "replicate", "circular")
        _checks.choice("padding_mode", given.get("padding_mode", "zeros"), modes)
        groups = given.get("groups", 1)
        for name in ("in_channels", "out_channels"):
            if given[name] % groups:
                raise ValueError(
                    f"groups: expected a divisor of {name}, {given[name]}, got {groups}"
                )
        added = _extents("output_padding", given.get("output_padding", 0), sides, 0)
        for extra, step, spread in zip(added, stride, dilation, strict=True):
            if extra >= max(step, spread):
                raise ValueError(
                    "output_padding: expected less than stride or dilation, "
                    f"{max(step, spread)}, got {extra}"
                )

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError or ValueError if the first is no [batch, channels, ...] of the layer."""
        x = _checks.operand("x", inputs[0] if inputs else options.get("input"))
        _checks.alike("x", x, "weight_loc", self.weight_loc)
        sides = len(self.kernel_size)
        if x.dim() not in (sides + 1, sides + 2) or x.shape[-sides - 1] != self.in_channels:
            shape = f"{self.in_channels}, {_SIDES[sides]}"
            raise ValueError(
                f"x: expected shape [batch, {shape}] or [{shape}], got {list(x.shape)}"
            )
        if self.transposed or self.padding == "same":
            return
        padding = (0,) * sides if isinstance(self.padding, str) else self.padding
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        least = [r - 2 * p for r, p in zip(reach, padding, strict=True)]
        if any(n < low for n, low in zip(x.shape[-sides:], least, strict=True)):
            raise ValueError(
                f"x: expected {_SIDES[sides]} of at least {', '.join(map(str, least))}, which "
                f"the kernel covers, got {list(x.shape)}"
            )


def _extents(name: str, value: Any, sides: int, minimum: int) -> tuple[int, ...]:
    """What is an integer for all dimensions after the channels, or one for each."""
    if not isinstance(value, tuple | list):
        return (_checks.integer(name, value, minimum),) * sides
    if len(value) != sides:
        raise ValueError(
            f"{name}: expected an integer or {sides} of them, at least {minimum}, got {value!r}"
        )
    return tuple(_checks.integer(name, n, minimum) for n in value)


class BayesConv1d(_Convolution, nn.Conv1d):
    r"""``torch.nn.Conv1d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as of ``torch.nn.Conv1d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, length] -> [batch, out_channels, ...], also without batch.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [out_channels, in_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConv1d(3, 4, 3, padding="same", padding_mode="circular")
    >>> layer(torch.ones(2, 3, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 5]), True)
    """

    feature_dim = -2


class BayesConvTranspose1d(_Convolution, nn.ConvTranspose1d):
    r"""``torch.nn.ConvTranspose1d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype: as of ``torch.nn.ConvTranspose1d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, length] -> [batch, out_channels, ...], also without batch;
    ``output_size`` may be given with it, as of ``torch.nn.ConvTranspose1d``.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [in_channels, out_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConvTranspose1d(3, 4, 2, stride=2)
    >>> layer(torch.ones(2, 3, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 10]), True)
    """

    input_dim = 0
    feature_dim = -2


class BayesConv2d(_Convolution, nn.Conv2d):
    r"""``torch.nn.Conv2d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as of ``torch.nn.Conv2d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, height, width] -> [batch, out_channels, ...], also without batch.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [out_channels, in_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConv2d(3, 4, 3, padding="same", padding_mode="circular")
    >>> layer(torch.ones(2, 3, 5, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 5, 5]), True)
    """

    feature_dim = -3


class BayesConvTranspose2d(_Convolution, nn.ConvTranspose2d):
    r"""``torch.nn.ConvTranspose2d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype: as of ``torch.nn.ConvTranspose2d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, height, width] -> [batch, out_channels, ...], also without batch;
    ``output_size`` may be given with it, as of ``torch.nn.ConvTranspose2d``.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [in_channels, out_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConvTranspose2d(3, 4, 2, stride=2)
    >>> layer(torch.ones(2, 3, 5, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 10, 10]), True)
    """

    input_dim = 0
    feature_dim = -3


class BayesConv3d(_Convolution, nn.Conv3d):
    r"""``torch.nn.Conv3d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device, dtype: as of ``torch.nn.Conv3d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, depth, height, width] -> [batch, out_channels, ...], also
    without batch.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [out_channels, in_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConv3d(3, 4, 3, padding="same", padding_mode="circular")
    >>> layer(torch.ones(2, 3, 5, 5, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 5, 5, 5]), True)
    """

    feature_dim = -4


class BayesConvTranspose3d(_Convolution, nn.ConvTranspose3d):
    r"""``torch.nn.ConvTranspose3d`` with a distribution for every weight and bias.

    Each forward pass draws one kernel and one bias for the whole batch, unless
    :func:`bslfast.nn.one_draw` has.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias,
            dilation, padding_mode, device, dtype: as of ``torch.nn.ConvTranspose3d``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [batch, in_channels, depth, height, width] -> [batch, out_channels, ...], also
    without batch; ``output_size`` may be given with it, as of ``torch.nn.ConvTranspose3d``.

    Parameters: ``weight_loc``, ``weight_raw_scale``, [in_channels, out_channels / groups,
    *kernel_size]; ``bias_loc``, ``bias_raw_scale``, [out_channels].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Shridhar, Laumann and Liwicki, "A comprehensive guide to Bayesian convolutional neural
    network with variational inference" (2019, arXiv:1901.02731).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesConvTranspose3d(3, 4, 2, stride=2)
    >>> layer(torch.ones(2, 3, 5, 5, 5)).shape, bool(bslfast.nn.kl(layer) > 0)
    (torch.Size([2, 4, 10, 10, 10]), True)
    """

    input_dim = 0
    feature_dim = -4
