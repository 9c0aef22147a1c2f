"""The Bayesian embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast.nn.layer import BayesianLayer, Settings


class BayesEmbedding(BayesianLayer, nn.Embedding):
    r"""``torch.nn.Embedding`` with a distribution for every element of the table.

    Each forward pass draws one table for the whole batch, unless :func:`bslfast.nn.one_draw` has.
    The row at ``padding_idx`` comes out as its mean, which is zero at the start, without noise or
    gradient; its divergence counts as that of the others does.

    Args:
        num_embeddings, embedding_dim, padding_idx, scale_grad_by_freq, device, dtype: as of
            ``torch.nn.Embedding``. There is no ``max_norm`` and no ``sparse``: the table is a
            sample, which has the gradients of all its elements. ``from_pretrained`` makes the means
            of a given table.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization, estimator: as in
            :class:`bslfast.nn.BayesianLayer`; the estimator can only be the weight sample.

    Shape: x [...] of int64 or int32 -> [..., embedding_dim].

    Parameters: ``weight_loc``, ``weight_raw_scale``, [num_embeddings, embedding_dim].

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.
        IndexError: an index outside the table.

    Source: Blundell et al., "Weight uncertainty in neural networks" (2015, arXiv:1505.05424).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesEmbedding(10, 3, padding_idx=0)
    >>> layer(torch.tensor([[0, 4, 4]])).shape, layer(torch.tensor(0))
    (torch.Size([1, 3, 3]), tensor([0., 0., 0.], grad_fn=<WhereBackward0>))
    """

    input_dim = 0  # a word
    weight_loc: Tensor
    weight_raw_scale: Tensor

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        super().check_arguments(given)
        row, rows = given.get("padding_idx"), given["num_embeddings"]
        if row is not None and _checks.integer("padding_idx", row, -rows) >= rows:
            raise ValueError(
                f"padding_idx: expected None or an integer from {-rows} to {rows - 1}, got {row}"
            )

    def make_bayesian(self, settings: Settings) -> None:
        """Put the parameters of the posterior in the place of the table."""
        for name, wanted in (("max_norm", None), ("sparse", False)):
            if getattr(self, name) != wanted:
                raise ValueError(f"{name}: expected {wanted}, got {getattr(self, name)!r}")
        super().make_bayesian(settings)

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError if the input holds no indices."""
        x = _checks.tensor("x", inputs[0] if inputs else options.get("input"))
        if x.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"x: expected a tensor of int64 or int32, got {_checks.describe(x)}")

    def function(self, drawn: tuple[Tensor, ...], *inputs: Any, **options: Any) -> Tensor:
        """The rows of this table."""
        rows = super().function(drawn, *inputs, **options)
        if self.padding_idx is None:
            return rows
        x: Tensor = inputs[0] if inputs else options["input"]
        mean = self.weight_loc[self.padding_idx].detach()
        return torch.where((x == self.padding_idx).unsqueeze(-1), mean, rows)
