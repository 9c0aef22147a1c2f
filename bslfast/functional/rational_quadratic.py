"""Monotone rational-quadratic splines, with their log-determinants."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bslfast import _checks
from bslfast._formulas import bound_of
from bslfast._native import _cpu
from bslfast.functional._rows import RowOp

#: How many more slopes than bins.
EXTRA_SLOPES = _cpu.EXTRA_SLOPES
TAILS = tuple(EXTRA_SLOPES)


def rational_quadratic_spline(
    x: Tensor,
    widths: Tensor,
    heights: Tensor,
    derivatives: Tensor,
    *,
    inverse: bool = False,
    tails: str | None = "linear",
    bound: float = 3.0,
    min_bin_width: float = 1e-3,
    min_bin_height: float = 1e-3,
    min_derivative: float = 1e-3,
    reduction: str = "row",
) -> tuple[Tensor, Tensor]:
    r"""Monotone rational-quadratic splines with K bins, or their inverses, and the log-determinant.

    Each element of ``x`` has a spline of its own. In a bin of width w and height h with slopes d0,
    d1 at its knots, and with s = h / w and xi in [0, 1] the position in it,

    .. math:: y = y_0 + h\,\frac{\xi (s \xi + d_0 (1 - \xi))}
              {s (\xi^2 + (1 - \xi)^2) + (d_0 + d_1)\,\xi (1 - \xi)}.

    Widths are ``2 bound (min_bin_width + (1 - min_bin_width K) softmax(widths))``, heights
    likewise, slopes ``min_derivative + softplus(derivatives)``: what nflows makes of the same
    numbers. No step subtracts close numbers, knots are computed in float64 in every dtype, and
    backward computes from the arguments: nothing else is kept.

    Args:
        x: what is mapped, [..., D]; with ``inverse``, the y to be mapped back.
        widths, heights: unnormalised, [..., D, K], 1 <= K <= 128. Their leading dimensions and
            those of ``derivatives`` broadcast with the shape of ``x``. Slices of one tensor
            [..., D, 3K - 1] are read in place; make them with ``split``, whose gradient is one
            concatenation.
        derivatives: unnormalised, [..., D, K - 1] with linear tails, [..., D, K] with circular
            ones, else (affine ones or none) [..., D, K + 1].
        inverse: compute the inverse map. ``log_det`` is that of the map computed.
        tails: what is outside [-bound, bound]. ``"linear"``: the identity, and slopes of 1 at both
            ends; ``"affine"``: lines that go on with the slopes at the ends, which are learned like
            the others; ``"circular"``: ``x`` is wrapped into the interval, whose ends share a
            slope; None: nothing, the interval is the domain.
        bound: half the length of the interval that the spline maps onto itself, > 0; a ``y`` of an
            ``x`` inside is never outside. Tensors of 16 bits round it to a number of theirs.
        min_bin_width, min_bin_height: least sizes, as fractions of the interval; > 0, < 1 / K.
        min_derivative: least slope, > 0.
        reduction: of the log-determinant: ``"row"`` sums over the last dimension, ``"none"`` keeps
            one value per element, ``"sum"`` one sum.

    Returns:
        (y, log_det): y has the shape that ``x`` and the leading dimensions broadcast to, log_det
        what is left of it.

    Raises:
        TypeError: an argument is not a floating-point tensor, dtypes differ, or a number is
            none.
        ValueError: shapes or devices do not match, a number is out of its range, unknown tails or
            reduction; with ``tails=None`` an ``x`` outside the domain (that in eager mode on the
            CPU; elsewhere the results there are NaN).

    Source: Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019,
    arXiv:1906.04032); the inverse's formula: docs/numerics.md.

    >>> import torch, bslfast.functional as BF
    >>> x = torch.tensor([[-4.0, -1.0, 2.0]])
    >>> widths, heights, derivatives = torch.randn(1, 3, 23).split([8, 8, 7], dim=-1)
    >>> y, log_det = BF.rational_quadratic_spline(x, widths, heights, derivatives)
    >>> back, _ = BF.rational_quadratic_spline(y, widths, heights, derivatives, inverse=True)
    >>> y[0, 0], log_det.shape, torch.allclose(back, x, atol=1e-5)
    (tensor(-4.), torch.Size([1]), True)
    """
    x = _checks.operand("x", x)
    widths = _parameter("widths", widths, x)
    heights = _parameter("heights", heights, x)
    derivatives = _parameter("derivatives", derivatives, x)
    _checks.choice("tails", tails, TAILS)
    bound = bound_of(x.dtype, _checks.number("bound", bound, above=0.0))
    bins = _check_bins(widths, heights, derivatives, tails)
    min_bin_width = _minimum("min_bin_width", min_bin_width, bins)
    min_bin_height = _minimum("min_bin_height", min_bin_height, bins)
    min_derivative = _checks.number("min_derivative", min_derivative, above=0.0)
    result: tuple[Tensor, Tensor] = _rational_quadratic_spline(
        x,
        widths,
        heights,
        derivatives,
        tails=tails,
        inverse=inverse,
        bound=bound,
        min_bin_width=min_bin_width,
        min_bin_height=min_bin_height,
        min_derivative=min_derivative,
        reduction=reduction,
    )
    return result


def _parameter(name: str, value: Tensor, x: Tensor) -> Tensor:
    value = _checks.operand(name, value)
    _checks.alike(name, value, "x", x)
    if value.dim() == 0:
        raise ValueError(f"{name}: expected shape [..., D, bins], got []")
    return value


def _check_bins(widths: Tensor, heights: Tensor, derivatives: Tensor, tails: str | None) -> int:
    """The number of bins K, after a look at the last dimensions."""
    bins = widths.shape[-1]
    most = _rational_quadratic_spline.longest
    if not 1 <= bins <= most:
        raise ValueError(f"widths: expected 1 to {most} bins in the last dimension, got {bins}")
    if heights.shape[-1] != bins:
        raise ValueError(
            f"heights: expected a last dimension of {bins}, as widths has, got {heights.shape[-1]}"
        )
    wanted = bins + EXTRA_SLOPES[tails]
    if derivatives.shape[-1] != wanted:
        raise ValueError(
            f"derivatives: expected a last dimension of {wanted} (for {bins} bins and "
            f"tails={tails!r}), got {derivatives.shape[-1]}"
        )
    return bins


def _minimum(name: str, value: float, bins: int) -> float:
    value = _checks.number(name, value, above=0.0)
    if not value * bins < 1:
        raise ValueError(f"{name}: expected a number < 1 / {bins} for {bins} bins, got {value}")
    return value


class _Spline(RowOp):
    """Rows of slopes are of a length of their own, which the function above has looked at."""

    def _check_rows(self, tensors: tuple[Tensor, ...]) -> None:
        pass

    def _fault(self, name: str, x: Tensor, numbers: Sequence[float]) -> str:
        bound = numbers[0]
        worst = x.flatten()[x.abs().nan_to_num(0.0, torch.inf).argmax()].item()
        return (
            f"{name}: expected values in [{-bound:g}, {bound:g}], the domain of a spline without "
            f"tails, got {_checks.shown(worst, -bound, bound)}"
        )


_rational_quadratic_spline = _Spline(
    "rational_quadratic_spline",
    ("x", "widths", "heights", "derivatives"),
    options={"tails": TAILS, "inverse": (False, True)},
    numbers=("bound", "min_bin_width", "min_bin_height", "min_derivative"),
    what="bins",
)
MAX_BINS = _rational_quadratic_spline.longest
