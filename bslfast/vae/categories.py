"""Class labels as the values of examples: the categorical likelihood of an autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

import bslfast.distributions as bd
import bslfast.functional as BF
from bslfast import _checks
from bslfast._precision import log_dtype, wide
from bslfast.functional._op import runs_eagerly
from bslfast.likelihoods.base import Likelihood, observed


class Categories(Likelihood):
    r"""Class labels of any shape; the decoder outputs one logit per class for each of them.

    .. math:: \log p(y) = l_y - \log \sum_c e^{l_c}

    The logits of a class are side by side on dimension 1, one for each label: outputs [..., batch,
    classes * channels, ...] for labels [batch, channels, ...]. One-hot rows have the shape of
    outputs.

    Args:
        classes: their number, at least 2.

    Raises:
        TypeError, ValueError: naming the argument, what was expected and what came.

    Source: Bishop, "Pattern Recognition and Machine Learning" (2006, ISBN 978-0-387-31073-2),
    section 4.3.4.

    Example:
        >>> import torch
        >>> head = Categories(2)
        >>> x = head.one_hot("x", torch.tensor([[0, 1, 1]]), None, torch.float32)
        >>> x  # of class 0, then of class 1
        tensor([[1., 0., 0., 0., 1., 1.]])
        >>> head.log_prob(torch.zeros(1, 6), x)  # -3 log 2
        tensor([-2.0794])
    """

    def __init__(self, classes: int) -> None:
        super().__init__(None)
        self.classes = _checks.integer("classes", classes, 2)
        self.parts = ("logits",) * self.classes

    def one_hot(
        self,
        name: str,
        x: Tensor,
        mask: Tensor | None,
        dtype: torch.dtype,
        mask_name: str = "mask",
    ) -> Tensor:
        """Return labels as one-hot rows, with zeros where the mask is False.

        Args:
            name: of x in errors.
            x: int64 indices [batch, channels, ...], or one-hot rows [batch, classes * channels,
                ...] of a floating dtype. An index outside [0, classes) raises on the CPU and gives
                NaN elsewhere, where looking would wait for the device.
            mask: bool, one for each label, [batch, channels, ...]; False where it is missing.
            dtype: of the result for indices.
            mask_name: of the mask in errors.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        n, what = self.classes, self._wanted()
        _checks.tensor(name, x, what)
        if x.dtype == torch.int64:
            if x.dim() < 2:
                raise ValueError(f"{name}: expected {what}, got {_checks.describe(x)}")
            if mask is not None:
                x = observed(name, x, mask, 0, mask_name)
            _checks.class_indices(name, x.flatten(), n)
            labels = x.unsqueeze(1)
            classes = torch.arange(n, device=x.device).view(n, *[1] * (x.dim() - 1))
            hot = (labels == classes).to(dtype)
            hot = hot.masked_fill((labels < 0) | (labels >= n), torch.nan)
        else:
            if not x.is_floating_point():
                raise TypeError(f"{name}: expected {what}, got {_checks.describe(x)}")
            self._check_rows(x, name)
            if mask is None:
                return x
            hot = x.unflatten(1, (n, -1))
        if mask is not None:
            _check_mask(name, mask, hot, mask_name)
            hot = torch.where(mask.unsqueeze(1), hot, 0.0)
        return hot.flatten(1, 2)

    def check(self, y: Tensor, name: str = "y") -> None:
        """Raise ValueError unless rows are one-hot, or all 0 (in eager mode on the CPU)."""
        self._check_rows(y, name)
        if not y.numel() or y.device.type != "cpu" or not runs_eagerly([y]):
            return
        hot = y.detach().unflatten(1, (self.classes, -1))
        if not (bool(((hot == 0) | (hot == 1)).all()) and bool((hot.sum(1) <= 1).all())):
            raise ValueError(
                f"{name}: expected {self._wanted()}, got {_checks.describe(y)} with other values"
            )

    def mean(self, output: Tensor, *, dim: int = -1) -> Tensor:
        """Return the class probabilities, of the shape of outputs."""
        each, dim = self._by_class(output, dim)
        return each.softmax(dim).flatten(dim, dim + 1)

    def sample(self, output: Tensor, *, dim: int = -1, seed: int | Tensor | None = None) -> Tensor:
        """Return class indices, int64, with the size of the labels along ``dim``."""
        each, dim = self._by_class(output.detach(), dim)
        zero = each.new_zeros(())
        # The largest of logits with Gumbel's noise is that of a class with its probability.
        noisy = BF.gumbel_rsample(each, zero, parametrization="log_scale", seed=seed)
        return noisy.argmax(dim)

    def distribution(self, output: Tensor, *, dim: int = -1) -> Distribution:
        """Return the distribution of each label, of :mod:`bslfast.distributions`."""
        each, dim = self._by_class(output, dim)
        return bd.Categorical(each.movedim(dim, -1), validate_args=False)

    def extra_repr(self) -> str:
        """Show the number of classes."""
        return f"classes={self.classes}"

    def _wanted(self) -> str:
        return (
            f"int64 indices [batch, ...], or one-hot rows of {self.classes} classes on dimension 1"
        )

    def _check_rows(self, x: Tensor, name: str) -> None:
        if x.dim() < 2 or x.shape[1] % self.classes:
            raise ValueError(f"{name}: expected {self._wanted()}, got {_checks.describe(x)}")

    def _by_class(self, output: Tensor, dim: int) -> tuple[Tensor, int]:
        """Outputs with a dimension of the classes, which is ``dim`` counted from the front."""
        dim %= output.dim()
        return output.unflatten(dim, (self.classes, -1)), dim

    def log_prob(self, output: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log p(y | output), summed over the labels, [..., batch], in nats.

        Args:
            output: logits, [..., batch, classes * channels, ...].
            y, mask: labels and which there are, as :meth:`one_hot` takes them.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        output = _checks.operand("output", output)
        y = self.one_hot("y", y, mask, output.dtype)
        self._check_shapes(output, y)
        self.check(y)
        return self._log_prob(output, y, mask)

    def _check_shapes(self, output: Tensor, y: Tensor) -> None:
        if output.shape[-y.dim() :] != y.shape:
            raise ValueError(
                f"output: expected shape {('...', *y.shape)} as one-hot rows have, got "
                f"{_checks.describe(output)}"
            )

    def _log_prob(self, output: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        # Labels, like outputs, have dimensions of their own after the batch.
        event = y.dim() - 1
        hot = y.unflatten(1, (self.classes, -1))
        whole = hot.detach().sum(1) == 1
        if mask is not None:
            whole = whole | ~mask
        looked_at = y.device.type == "cpu" and runs_eagerly([y])
        if looked_at and not bool(whole.all()):
            raise ValueError(
                "x: expected one-hot rows, or a mask that is False where a value is missing, "
                "got rows of zeros"
            )
        each, dim = self._by_class(output, -event)
        logits = wide(each).movedim(dim, -1)
        if mask is not None:
            logits = torch.where(mask.unsqueeze(-1), logits, 0.0)
        log_prob = BF.categorical_log_prob(hot.argmax(1), logits)
        if not looked_at:
            # A row of zeros, or an index that is no class, which one_hot has made NaN.
            log_prob = torch.where(whole, log_prob, torch.nan)
        if mask is not None:
            log_prob = torch.where(mask, log_prob, 0.0)
        return log_prob.flatten(-event).sum(-1, dtype=log_dtype(log_prob.dtype))


def _check_mask(name: str, mask: Tensor, hot: Tensor, mask_name: str) -> None:
    wanted = (hot.shape[0], *hot.shape[2:])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            f"{mask_name}: expected a bool tensor of shape {wanted}, got {_checks.describe(mask)}"
        )
    if mask.shape != wanted:
        raise ValueError(
            f"{mask_name}: expected one for each value of {name}, shape {wanted}, got "
            f"{tuple(mask.shape)}"
        )
