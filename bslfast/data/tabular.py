"""Tables of examples: splitting and scaling without leakage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bslfast import _checks


class Dataset(NamedTuple):
    """A whole data set.

    ``x`` is [rows, features]; ``y`` is int64 [rows] for classes and floating [rows, targets] for
    regression. ``target_names`` are the class names, or the names of the targets; ``source`` says
    where the data came from.
    """

    x: Tensor
    y: Tensor
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    source: str


class Examples(NamedTuple):
    """Inputs ``x`` [rows, features] and their targets ``y`` [rows, ...]."""

    x: Tensor
    y: Tensor


class Split(NamedTuple):
    """Three disjoint parts of a data set."""

    train: Examples
    validation: Examples
    test: Examples


def split(
    x: Tensor,
    y: Tensor,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Split:
    """Split rows at random into a training, a validation and a test part.

    The first two parts get ``round(fraction * rows)`` rows and the test part the rest, so every row
    is in exactly one part. The permutation depends only on ``seed`` and the number of rows.

    Args:
        x: inputs, [rows, ...].
        y: targets, [rows, ...].
        fractions: three positive numbers that add up to 1.
        seed: a non-negative integer.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came; also when a
            part would be empty.

    Example:
        >>> import torch
        >>> parts = split(torch.randn(10, 2), torch.arange(10), (0.6, 0.2, 0.2), seed=1)
        >>> [len(part.x) for part in parts]
        [6, 2, 2]
    """
    _checks.tensor("x", x)
    _checks.tensor("y", y)
    if x.ndim == 0 or y.ndim == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"y: expected as many rows as x, which is {_checks.describe(x)}, "
            f"got {_checks.describe(y)}"
        )
    if isinstance(fractions, str) or not isinstance(fractions, Sequence) or len(fractions) != 3:
        raise ValueError(f"fractions: expected three numbers that add up to 1, got {fractions!r}")
    for fraction in fractions:
        _checks.number("fractions", fraction, above=0.0, below=1.0)
    if not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise ValueError(f"fractions: expected three numbers that add up to 1, got {fractions!r}")
    _checks.generator_seed(seed)
    rows = x.shape[0]
    first = round(fractions[0] * rows)
    second = first + round(fractions[1] * rows)
    if not 0 < first < second < rows:
        raise ValueError(
            f"x: expected enough rows for three non-empty parts of {tuple(fractions)}, got {rows}"
        )
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split([first, second])
    return Split(*(Examples(x[part.to(x.device)], y[part.to(y.device)]) for part in parts))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column of finite numbers, in float64.

    The deviation is 0 for a column that is constant up to rounding.
    """
    # float64, because a column such as density, 0.994 +- 0.003, loses digits in float32 sums.
    # Less the first row's value, a constant column is exactly 0, whatever the rounding of sums.
    first = x[0].double()
    moved = x.double() - first
    mean, spread = first + moved.mean(0), moved.std(0, correction=0)
    # Neighbouring numbers of the dtype are what rounding makes of a constant: 0.1 + 0.2 and 0.3.
    return mean, torch.where(spread <= torch.finfo(x.dtype).eps * mean.abs(), 0.0, spread)


class Standardizer:
    """Columnwise ``(x - mean) / scale``, with both taken from the data it was fitted on.

    Fit it on the training part alone and apply it to all parts: statistics of held-out rows would
    leak into the model. ``scale`` is the standard deviation (over the rows, no Bessel correction);
    a column that is constant up to rounding has scale 1 and so becomes 0.

    Attributes:
        mean: [columns]
        scale: [columns]

    Example:
        >>> import torch
        >>> scaler = Standardizer.fit(torch.tensor([[0.0], [4.0]]))
        >>> scaler.transform(torch.tensor([[6.0]]))
        tensor([[2.]])
        >>> scaler.inverse(torch.tensor([[2.0]]))
        tensor([[6.]])
    """

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.mean = _checks.floating("mean", mean, 1, "[columns]")
        self.scale = _checks.floating("scale", scale, 1, "[columns]")
        if mean.shape != scale.shape:
            raise ValueError(f"scale: expected shape {tuple(mean.shape)}, got {tuple(scale.shape)}")
        _checks.finite("mean", mean)
        if not bool((_checks.finite("scale", scale) > 0).all()):
            raise ValueError(f"scale: expected positive numbers, got {scale.tolist()}")

    @classmethod
    def fit(cls, x: Tensor) -> Standardizer:
        """Return the Standardizer of the rows ``x`` [rows, columns].

        Raises:
            TypeError, ValueError: if ``x`` is not a floating-point matrix with at least one row
                and finite values, or if its dtype cannot hold a column's standard deviation.
        """
        return cls._fit("x", x)

    @classmethod
    def _fit(cls, name: str, x: Tensor) -> Standardizer:
        """:meth:`fit`, with errors that name another argument."""
        _checks.floating(name, x, 2, "[rows, columns]")
        if x.shape[0] == 0:
            raise ValueError(f"{name}: expected at least one row, got {_checks.describe(x)}")
        if not bool(x.isfinite().all()):
            columns = (~x.isfinite()).any(0).nonzero().flatten().tolist()
            raise ValueError(
                f"{name}: expected finite values, got NaN or infinity in columns {columns}"
            )
        mean, spread = moments(x)
        scale = torch.where(spread == 0, 1.0, spread).to(x.dtype)
        bad = (~(scale.isfinite() & (scale > 0))).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"{name}: expected columns whose standard deviation {x.dtype} can hold, got "
                f"{spread[bad].tolist()} in columns {bad}"
            )
        return cls(mean.to(x.dtype), scale)

    @property
    def log_scale(self) -> float:
        """What a log density of standardised rows loses in the original unit, in nats."""
        return self.scale.double().log().sum().item()

    def transform(self, x: Tensor) -> Tensor:
        """Return ``(x - mean) / scale`` for ``x`` [rows, columns]."""
        return (self._columns("x", x) - self.mean.to(x.device)) / self.scale.to(x.device)

    def inverse(self, z: Tensor) -> Tensor:
        """Return ``z * scale + mean``, the values in the original unit."""
        return self._columns("z", z) * self.scale.to(z.device) + self.mean.to(z.device)

    def _columns(self, name: str, value: Tensor) -> Tensor:
        columns = self.mean.shape[0]
        _checks.floating(name, value, 2, f"[rows, {columns}]")
        if value.shape[1] != columns or value.dtype != self.mean.dtype:
            raise ValueError(
                f"{name}: expected a {self.mean.dtype} tensor of shape [rows, {columns}], "
                f"got {_checks.describe(value)}"
            )
        return value

    def __repr__(self) -> str:
        return f"Standardizer(mean={self.mean.tolist()}, scale={self.scale.tolist()})"
