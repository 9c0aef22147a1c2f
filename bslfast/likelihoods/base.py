"""What all likelihoods share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast._native import _cpu
from bslfast._precision import SIXTEEN_BITS, log_dtype
from bslfast.functional._op import runs_eagerly, unwatched

#: The largest finite number of float32, the narrowest dtype that kernels read.
_LARGEST = torch.finfo(torch.float32).max


class Predictive(NamedTuple):
    """What samples of the weights say about new inputs; see :meth:`Likelihood.predictive`."""

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor


class Likelihood(nn.Module):
    """Base class; the subclasses say which distribution the outputs parametrise.

    One of independent targets defines ``parts``, :meth:`distribution`, ``_density`` and, where its
    targets are no arbitrary numbers, :meth:`check`.

    Args:
        targets: number of targets; None for targets of any shape [batch, ...].

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.
    """

    #: What the network gives for each target, side by side, in words.
    parts: tuple[str, ...] = ()
    #: Whether targets have a density, and may be shifted and scaled.
    continuous: ClassVar[bool] = False
    #: What targets are: "numbers" with a density, "counts" 0, 1, 2, ..., "values" on a grid,
    #: "binary" ones, or "classes". Metrics and pictures are chosen by it.
    kind: ClassVar[str] = "values"
    #: What stands for a missing target: a value that the distribution has.
    filler: float = 0.0

    def __init__(self, targets: int | None = 1) -> None:
        super().__init__()
        self.targets = None if targets is None else _checks.integer("targets", targets)

    def n_outputs(self, targets: int) -> int:
        """Return how many outputs the network needs for ``targets`` targets (or classes)."""
        return len(self.parts) * _checks.integer("targets", targets)

    def split(self, output: Tensor, dim: int = -1) -> tuple[Tensor, ...]:
        """Return the ``parts`` of the outputs, each with the targets' size along ``dim``."""
        n = len(self.parts)
        return (output,) if n == 1 else output.chunk(n, dim=dim)

    def log_prob(self, output: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log p(y | output), summed over the targets, shape [..., batch], in nats.

        Args:
            output: network outputs, [..., batch, n_outputs(targets)], of a floating dtype; for
                targets of any shape (``targets=None``) see :mod:`bslfast.likelihoods`.
            y: targets, [batch, targets], of the same dtype, or under autocast of float32. A [batch]
                tensor is refused: against [batch, 1] outputs it would broadcast to [batch, batch].
            mask: bool, shaped like ``y``: False where a target is missing. Its log probability
                is 0; neither it nor its outputs, whatever their values, reach a gradient.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came; targets
                that the distribution does not have (in eager mode on the CPU).
        """
        self._check_shapes(output, y)
        if mask is not None:
            y = observed("y", y, mask, self.filler)
        self.check(y)
        if output.dtype is not y.dtype:  # under autocast
            output = _checks.operand("output", output)
        return self._log_prob(output, y, mask)

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the means of the targets, with their size along ``dim``."""
        mean: Tensor = self.distribution(output, dim=dim).mean
        return mean

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return targets drawn from the distribution, with their size along ``dim``.

        Args:
            output: network outputs.
            dim: along which the outputs of each target lie side by side.
            seed: as in :func:`bslfast.functional.normal_rsample`.
        """
        raise NotImplementedError

    def distribution(self, output: Tensor, *, dim: int = -1) -> Any:
        """Return the distribution of each target, with the targets' size along ``dim``."""
        raise NotImplementedError

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError if ``y`` has values that the distribution has not.

        They are read in eager mode on the CPU; elsewhere that would wait for the device.
        """

    def predictive(self, samples: Tensor) -> Predictive:
        """Moments of the mixture over outputs [samples, batch, outputs], each [batch, targets].

        ``mean`` is the mean of the sampled means, ``aleatoric`` the square root of the mean noise
        variance and ``epistemic`` the standard deviation of the sampled means (over the samples, no
        Bessel correction), so that aleatoric^2 + epistemic^2 is the variance of the mixture. All
        have the unit of the targets.
        """
        each = self.distribution(self._check_samples(samples))
        mean, noise = self.mean(samples), each.variance.mean(0).sqrt()
        return Predictive(mean.mean(0), noise, mean.std(0, correction=0))

    def interval(self, samples: Tensor, level: float) -> tuple[Tensor, Tensor]:
        """Return the lower and upper end of the central interval at ``level``, see :meth:`ends`.

        Raises:
            TypeError, ValueError: if ``level`` is not a number in (0, 1).
        """
        return self.ends(samples, tail_of(level))

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return the quantiles at ``tail`` and at 1 - ``tail``, for a tail in (0, 0.5]."""
        raise NotImplementedError

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64."""
        raise TypeError(f"cdf: expected a regression, got a prediction with {self} likelihood")

    def pit(self, samples: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return P(target < y) and P(target <= y) under the mixture, each [batch, targets].

        If the predictions are calibrated, a uniform number between the two is one in [0, 1]: the
        probability integral transform. In float64. Both are the same where targets have a density.

        Raises:
            TypeError, ValueError: for binary targets and classes, which have no order; a wrong
                argument.
        """
        raise TypeError(f"pit: expected a regression, got a prediction with {self} likelihood")

    def extra_repr(self) -> str:
        """Show the number of targets."""
        return f"targets={self.targets}"

    def _density(self, parameters: tuple[Tensor, ...], y: Tensor, reduction: str) -> Tensor:
        """Log probabilities from the parts, each of which broadcasts with ``y``."""
        raise NotImplementedError

    def _log_prob(self, output: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`log_prob` of arguments that have been checked, and of a ``y`` without gaps."""
        if output.dtype in SIXTEEN_BITS:
            output, y = self._widened(output, y)
        event = y.dim() - 1
        parameters = (output,) if len(self.parts) == 1 else self.split(output, -event)
        if event > 1:
            parameters = tuple(p.flatten(-event) for p in parameters)
            y, mask = y.flatten(1), None if mask is None else mask.flatten(1)
        if mask is None:
            return self._density(parameters, y, "row")
        # The parts too: a derivative that overflows would make NaN of the gradient 0.
        parameters = tuple(torch.where(mask, p, 0.0) for p in parameters)
        each = self._density(parameters, y, "none")
        return torch.where(mask, each, 0.0).sum(-1)

    def _widened(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What of 16 bits the ops do not compute in float32 by themselves, in float32."""
        return output, y

    def _check_shapes(self, output: Tensor, y: Tensor) -> None:
        n, targets = len(self.parts), self.targets
        if targets is not None:
            # What is right, as usual, is found out in a third of the time.
            if (
                isinstance(output, Tensor)
                and isinstance(y, Tensor)
                and (dtype := y.dtype) is output.dtype
                and dtype.is_floating_point
                and len(shape := output.shape) > 1
                and shape[-1] == n * targets
                and y.shape == (shape[-2], targets)
            ):
                return
            check_outputs(output, n * targets)
            _check_targets(y, (output.shape[-2], targets), output.dtype)
            return
        _checks.floating("output", output, None, "[..., batch, outputs, ...]")
        _checks.floating("y", y, None, "[batch, targets, ...]")
        if y.ndim < 2:
            raise ValueError(f"y: expected shape [batch, targets, ...], got {_checks.describe(y)}")
        wanted = (y.shape[0], n * y.shape[1], *y.shape[2:])
        if output.shape[-y.ndim :] != wanted:
            raise ValueError(
                f"output: expected shape {('...', *wanted)} for y of shape {tuple(y.shape)}, "
                f"got {_checks.describe(output)}"
            )
        _check_dtype(y, output.dtype)

    def _check_samples(self, samples: Tensor) -> Tensor:
        check_samples(samples)
        if self.targets is not None:
            check_outputs(samples, len(self.parts) * self.targets)
        return samples


def observed(name: str, y: Tensor, mask: Tensor, filler: float, mask_name: str = "mask") -> Tensor:
    """``y`` with ``filler`` where the mask is False."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            f"{mask_name}: expected a bool tensor of shape {tuple(y.shape)}, got "
            f"{_checks.describe(mask)}"
        )
    if mask.shape != y.shape:
        raise ValueError(
            f"{mask_name}: expected the shape of {name}, {tuple(y.shape)}, got {tuple(mask.shape)}"
        )
    return torch.where(mask, y, filler)


def check_range(name: str, y: Tensor, law: str, high: float = math.inf, low: float = 0.0) -> bool:
    """Check that numbers lie in [low, high] and are finite; return whether they could be read."""
    # Cheap where they are in this machine's memory; elsewhere it would wait for the device.
    if not unwatched() or not y.numel():
        return False
    # One call instead of four of torch's, which say what is wrong, and read all other tensors.
    if _cpu.all_within(y, low, min(high, _LARGEST)):
        return True
    if not runs_eagerly([y]):
        return False
    least, most = (v.item() for v in torch.aminmax(y.detach()))
    if not (least >= low and most <= high and most < math.inf):
        wanted = f"values >= {low:g}" if high == math.inf else f"values in [{low:g}, {high:g}]"
        raise ValueError(
            f"{name}: expected {wanted} for likelihood {law!r}, "
            f"got {_checks.shown(least, low, high)} to {_checks.shown(most, low, high)}"
        )
    return True


def check_outputs(output: Tensor, width: int) -> None:
    """Check outputs [..., batch, width]."""
    _checks.floating("output", output, None, f"[..., batch, {width}]")
    if output.ndim < 2 or output.shape[-1] != width:
        raise ValueError(
            f"output: expected a floating-point tensor of shape [..., batch, {width}], "
            f"got {_checks.describe(output)}"
        )


def check_samples(samples: Tensor) -> Tensor:
    """Check outputs [samples, batch, outputs]."""
    _checks.floating("samples", samples, 3, "[samples, batch, outputs]")
    if samples.shape[0] == 0:
        raise ValueError(f"samples: expected at least one, got {_checks.describe(samples)}")
    return samples


def _check_targets(y: Tensor, shape: tuple[int, int], dtype: torch.dtype | None = None) -> None:
    what = f"[batch, targets] = {tuple(shape)}"
    _checks.floating("y", y, 2, what)
    if y.shape != shape:
        raise ValueError(f"y: expected a tensor of shape {what}, got {_checks.describe(y)}")
    if dtype is not None:
        _check_dtype(y, dtype)


def _check_dtype(y: Tensor, dtype: torch.dtype) -> None:
    if y.dtype == dtype:
        return
    # Under autocast networks return 16 bits for float32 inputs.
    if torch.is_autocast_enabled(y.device.type) and log_dtype(y.dtype) == log_dtype(dtype):
        return
    raise TypeError(f"y: expected the dtype of output, {dtype}, got {_checks.describe(y)}")


def tail_of(level: float) -> float:
    """The chance on either side of the central interval at ``level``."""
    return 0.5 * (1 - _checks.number("level", level, above=0.0, below=1.0))


class Continuous(Likelihood):
    """Targets with a density: quantiles of their mixtures by Newton's method."""

    continuous = True
    kind = "numbers"

    def cdf(self, samples: Tensor, y: Tensor) -> Tensor:
        """Return P(target <= y) under the mixture, [batch, targets], in float64."""
        each = self.distribution(self._check_samples(samples).double())
        _check_targets(y, each.batch_shape[-2:])
        probability: Tensor = each.cdf(y.double()).mean(0)
        return probability

    def pit(self, samples: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return P(target <= y), twice, see :meth:`Likelihood.pit`."""
        at_most = self.cdf(samples, y)
        return at_most, at_most

    def ends(self, samples: Tensor, tail: float) -> tuple[Tensor, Tensor]:
        """Return the exact quantiles of the mixture at ``tail`` and 1 - ``tail``, [batch, targets].

        They are found on the mixture's distribution function by Newton steps that fall back to
        bisection, in float64.
        """
        each = self.distribution(self._check_samples(samples).double())
        # The upper end is the mirrored lower end: near 1 a distribution function has no digits.
        lower = mixture_quantile(each, tail)
        mirrored, place = self._mirrored(each)
        return lower.to(samples.dtype), place(mixture_quantile(mirrored, tail)).to(samples.dtype)

    def _mirrored(self, each: Any) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """The distribution of mirrored targets, and what takes those back."""
        raise NotImplementedError


def mixture_quantile(each: Any, p: float) -> Tensor:
    """Return the ``p`` quantile of equal-weight mixtures along the first dimension."""
    shape = torch.Size(each.batch_shape)
    # A scale is finite where a standard deviation is not.
    scale = each.scale if hasattr(each, "scale") else each.stddev
    quantiles = each.icdf(scale.new_full(shape, p))
    # The mixture's quantile lies between the smallest and the largest of its components'.
    low, high = quantiles.amin(0), quantiles.amax(0)
    x: Tensor = quantiles.mean(0)
    tolerance = 1e-12 * scale.amin(0) + 1e-15 * quantiles.abs().amax(0)
    for _ in range(200):  # bisection alone needs about 60; NaN ends the loop through `converged`
        excess = each.cdf(x).mean(0) - p
        density = each.log_prob(x).exp().mean(0)
        low, high = torch.where(excess < 0, x, low), torch.where(excess < 0, high, x)
        step = x - excess / density
        safe = (step > low) & (step < high)  # also False where the step is NaN or infinite
        following = torch.where(safe, step, 0.5 * (low + high))
        converged = ~((following - x).abs() > tolerance)
        x = following
        if bool(converged.all()):
            break
    return x
