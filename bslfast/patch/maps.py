"""Maps as peers have them: what parameters are made of outputs with differs, the maps do not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bslfast import functional as BF
from bslfast.flows.maps import Affine, Map, Spline
from bslfast.programs import Builder, Lanes, lower, lowers
from bslfast.programs.networks import activated

#: A least width, height and slope that rounding leaves nothing of.
NOTHING = 1e-30


@dataclass(frozen=True)
class PeerAffine(Map):
    """``z = x * s + t`` with log s a function of the output u.

    Args:
        kind: ``"softplus"``: log(softplus(u) + number). ``"sigmoid"``:
            log(sigmoid(u + 2) + number). ``"softclip"``: u / (1 + |u| / number). ``"exp"``: u.
            ``"sigmoid_inverse"``: -log(sigmoid(u + 2)).
        number: see there.
        layout: ``"halves"``: all t, then all u; ``"shift, scale"``, ``"scale, shift"``: side by
            side for each feature.
    """

    kind: str
    number: float = 0.0
    layout: str = "halves"

    @property
    def size(self) -> int:
        return 2

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0, 0.0)

    def owners(self, features: int) -> list[int]:
        """See :meth:`Map.owners`."""
        if self.layout == "halves":
            return [*range(features), *range(features)]
        return super().owners(features)

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if self.layout == "halves":
            shift, u = parameters.chunk(2, dim=-1)
        else:
            first, second = parameters.unflatten(-1, (-1, 2)).unbind(dim=-1)
            shift, u = (first, second) if self.layout == "shift, scale" else (second, first)
        return BF.affine_coupling(x, shift, self._log_scale(u), scale_fn="exp", inverse=inverse)

    def _log_scale(self, u: Tensor) -> Tensor:
        if self.kind == "softplus":
            return (F.softplus(u) + self.number).log()
        if self.kind == "sigmoid":
            return (torch.sigmoid(u + 2) + self.number).log()
        if self.kind == "softclip":
            return u / (1 + u.abs() / self.number)
        return -F.logsigmoid(u + 2) if self.kind == "sigmoid_inverse" else u

    def _log_scale_steps(self, builder: Builder, u: Lanes) -> Lanes:
        if self.kind == "softplus":
            return activated(builder, "log", activated(builder, "softplus", u), self.number)
        if self.kind == "sigmoid":
            u = activated(builder, "linear", u, 1.0, 2.0)
            return activated(builder, "log", activated(builder, "sigmoid", u), self.number)
        if self.kind == "softclip":
            return activated(builder, "softclip", u, self.number)
        if self.kind == "sigmoid_inverse":
            return activated(builder, "softplus", activated(builder, "linear", u, -1.0, -2.0))
        return u


@lowers(PeerAffine)
def _affine(
    builder: Builder, map: PeerAffine, lanes: Lanes, parameters: Lanes, inverse: bool
) -> Lanes:
    count = len(lanes)
    if map.layout == "halves":
        shift, u = parameters[:count], parameters[count:]
    else:
        shift, u = parameters[::2], parameters[1::2]
        if map.layout == "scale, shift":
            shift, u = u, shift
    raw = map._log_scale_steps(builder, u)
    found: Lanes = lower(builder, Affine("exp"), lanes, shift + raw, inverse)
    return found


@dataclass(frozen=True)
class _PeerSpline(Map):
    """A spline with linear tails, widths, heights and slopes being functions of the outputs.

    A subclass says which, in :meth:`_changed` and :meth:`_steps`.

    Args:
        bins, bound: as of :class:`Spline`.
    """

    bins: int
    bound: float

    @property
    def spline(self) -> Spline:
        """The spline itself."""
        return Spline(self.bins, self.bound, "linear", NOTHING, NOTHING, NOTHING)

    @property
    def size(self) -> int:
        return 3 * self.bins - 1

    @property
    def start(self) -> tuple[float, ...]:
        return self.spline.start

    def _map(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        spline = self.spline
        rows = parameters.unflatten(-1, (x.shape[-1], self.size))
        sizes, slopes = rows.split_with_sizes((2 * self.bins, self.bins - 1), dim=-1)
        sizes, slopes = self._changed(sizes, slopes)
        widths, heights = sizes.split(self.bins, dim=-1)
        return BF.rational_quadratic_spline(
            x,
            widths,
            heights,
            slopes,
            inverse=inverse,
            bound=spline.bound,
            min_bin_width=spline.min_bin_width,
            min_bin_height=spline.min_bin_height,
            min_derivative=spline.min_derivative,
        )

    def _changed(self, sizes: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """What the op takes for widths with heights, and for slopes."""
        raise NotImplementedError

    def _first_steps(self, builder: Builder, slopes: Lanes) -> Lanes:
        """What comes before :meth:`_last_steps`, for the slopes of all features."""
        return slopes

    def _last_steps(self, builder: Builder, sizes: Lanes, slopes: Lanes) -> Lanes:
        """All parameters of a feature, in lanes that follow each other as the spline wants it."""
        raise NotImplementedError


@dataclass(frozen=True)
class ScaledSpline(_PeerSpline):
    """The numbers of widths and heights are divided by a number; the least ones are as of Spline.

    Args:
        divisor: it.
        min_bin_width, min_bin_height, min_derivative: as of :class:`Spline`.
    """

    divisor: float = 1.0
    min_bin_width: float = 1e-3
    min_bin_height: float = 1e-3
    min_derivative: float = 1e-3

    @property
    def spline(self) -> Spline:
        return Spline(
            self.bins,
            self.bound,
            "linear",
            self.min_bin_width,
            self.min_bin_height,
            self.min_derivative,
        )

    def _changed(self, sizes: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        return sizes / self.divisor, slopes

    def _last_steps(self, builder: Builder, sizes: Lanes, slopes: Lanes) -> Lanes:
        sizes = activated(builder, "linear", sizes, 1 / self.divisor, 0.0)
        return sizes + activated(builder, "linear", slopes, 1.0, 0.0)


@dataclass(frozen=True)
class ClippedSpline(_PeerSpline):
    """The logarithms of the slopes are clipped softly, and so are the numbers of the rest.

    Args:
        slope: the least slope; the logarithms are between it and its opposite.
    """

    slope: float = 1e-3

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0,) * self.size

    def _changed(self, sizes: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        most = abs(math.log(self.slope))
        slope = (slopes / (1 + slopes.abs() / most)).exp()
        raw = slope + (-torch.expm1(-slope)).log()  # softplus makes the slope of it
        return sizes / (1 + 2 * sizes.abs() / most), raw

    def _first_steps(self, builder: Builder, slopes: Lanes) -> Lanes:
        return activated(builder, "softclip", slopes, abs(math.log(self.slope)))

    def _last_steps(self, builder: Builder, sizes: Lanes, slopes: Lanes) -> Lanes:
        sizes = activated(builder, "softclip", sizes, abs(math.log(self.slope)) / 2)
        return sizes + activated(builder, "raw_exp", slopes)


@lowers(ScaledSpline, ClippedSpline)
def _spline(
    builder: Builder, map: _PeerSpline, lanes: Lanes, parameters: Lanes, inverse: bool
) -> Lanes:
    rows = [parameters[i : i + map.size] for i in range(0, len(parameters), map.size)]
    both, each = 2 * map.bins, map.bins - 1
    slopes = map._first_steps(builder, [lane for row in rows for lane in row[both:]])
    remade: Lanes = []
    for i, row in enumerate(rows):
        remade += map._last_steps(builder, row[:both], slopes[i * each : (i + 1) * each])
    found: Lanes = lower(builder, map.spline, lanes, remade, inverse)
    return found
