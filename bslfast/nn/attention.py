"""Bayesian attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from bslfast import _checks
from bslfast._torch import own_parameters, reset_attention
from bslfast.nn.layer import BayesianLayer, Settings


class _Projection(NamedTuple):
    """What torch reads of a linear layer that it does not call."""

    weight: Tensor
    bias: Tensor | None


class BayesMultiheadAttention(BayesianLayer, nn.MultiheadAttention):
    r"""``torch.nn.MultiheadAttention`` with a distribution for every weight and bias.

    .. math::

        \mathrm{head}_i = \mathrm{softmax}(Q W^Q_i (K W^K_i)^T / \sqrt{d}) V W^V_i, \quad
        y = \mathrm{concat}(\mathrm{head}_1, \dots) W^O

    Each forward pass draws all weights once for the whole batch, those of the last projection with
    the others, unless :func:`bslfast.nn.one_draw` has.

    Args:
        embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first,
            device, dtype: as of ``torch.nn.MultiheadAttention``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`; weights have torch's names, as ``in_proj_weight``,
            but ``out_proj_weight`` and ``out_proj_bias``.

    Shape: query [length, batch, embed_dim], key [source, batch, kdim], value [source, batch, vdim],
    batch first if ``batch_first``, also without batch; masks as torch has them. Returns what torch
    does, as its Transformer layers expect that: ([length, batch, embed_dim], the weights of the
    attention [batch, length, source] or None). :meth:`sample_outputs` attends from a sequence to
    itself, and returns the first of the two.

    Parameters: for each of torch's, ``in_proj_weight_loc``, ``in_proj_weight_raw_scale`` and so on,
    of its shape; ``out_proj_weight_loc``, [embed_dim, embed_dim], in the place of
    ``out_proj.weight``, and so on.

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Vaswani et al., "Attention is all you need" (2017, arXiv:1706.03762), section 3.2; drawn
    weights by Tran et al., "Bayesian layers" (2019, arXiv:1812.03973).

    >>> import torch, bslfast
    >>> layer, x = bslfast.nn.BayesMultiheadAttention(8, 2, batch_first=True), torch.ones(3, 5, 8)
    >>> outputs, weights = layer(x, x, x)
    >>> outputs.shape, weights.shape, layer.sample_outputs(x, 4).shape
    (torch.Size([3, 5, 8]), torch.Size([3, 5, 5]), torch.Size([4, 3, 5, 8]))
    """

    _without_inputs = frozenset({"bias_k", "bias_v"})
    out_proj_weight_loc: Tensor

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        super().check_arguments(given)
        for name in ("kdim", "vdim"):
            if given.get(name) is not None:
                _checks.integer(name, given[name])
        _checks.fraction("dropout", given.get("dropout", 0.0))
        if given["embed_dim"] % given["num_heads"]:
            raise ValueError(
                f"embed_dim: expected a multiple of num_heads, {given['num_heads']}, got "
                f"{given['embed_dim']}"
            )

    def make_bayesian(self, settings: Settings) -> None:
        """Put the parameters of the posteriors in the place of those of the torch class."""
        # All are parameters of one layer, so that they are drawn together. torch reads them, and
        # calls no out_proj.
        projection: Any = self.out_proj
        del self.out_proj
        self.register_parameter("out_proj_weight", projection.weight)
        self.register_parameter("out_proj_bias", projection.bias)
        super().make_bayesian(settings)
        # torch's Transformer layers ask, and then do not read the others behind our back.
        self.register_parameter("in_proj_bias", None)

    def _stand_in(self, tensors: Sequence[Tensor]) -> Any:
        stand_in = super()._stand_in(tensors)
        stand_in.__dict__["out_proj"] = _Projection(
            stand_in.out_proj_weight, stand_in.out_proj_bias
        )
        return stand_in

    def _reset_means(self) -> None:
        """Draw the means as the torch class draws its parameters."""
        stand_in = self._stand_in(self._means())
        nn.Linear.reset_parameters(stand_in.out_proj)
        reset_attention(stand_in)

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError or ValueError if query, key or value are none of the layer."""
        given = dict(zip(("query", "key", "value"), inputs, strict=False))
        sizes = {"query": self.embed_dim, "key": self.kdim, "value": self.vdim}
        shapes: dict[str, list[int]] = {}
        for name, size in sizes.items():
            x = _checks.operand(name, given.get(name, options.get(name)))
            _checks.alike(name, x, "out_proj_weight_loc", self.out_proj_weight_loc)
            if x.dim() not in (2, 3) or x.shape[-1] != size:
                first = "batch, length" if self.batch_first else "length, batch"
                raise ValueError(
                    f"{name}: expected shape [{first}, {size}] or [length, {size}], got "
                    f"{list(x.shape)}"
                )
            shapes[name] = list(x.shape[:-1])
        if shapes["value"] != shapes["key"]:
            raise ValueError(
                f"value: expected the length and the batch of key, {shapes['key']}, got "
                f"{shapes['value']}"
            )

    def output(self, drawn: tuple[Tensor, ...], x: Tensor) -> Tensor:
        """The output of attention from a sequence to itself."""
        outputs: Tensor = self.function(drawn, x, x, x, need_weights=False)[0]
        return outputs

    def deterministic_twin(self) -> nn.Module:
        """The torch class's own layer, with copies of the means as its parameters."""
        twin: Any = super().deterministic_twin()
        weight, bias = (own_parameters(twin).pop(f"out_proj_{name}") for name in ("weight", "bias"))
        size = self.embed_dim
        twin.out_proj = NonDynamicallyQuantizableLinear(size, size, bias is not None, "meta")
        twin.out_proj.weight, twin.out_proj.bias = weight, bias
        return twin.train(self.training)  # type: ignore[no-any-return]
