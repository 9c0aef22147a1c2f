"""The Bayesian Transformer layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bslfast import _checks
from bslfast.nn.convert import choose_fast_paths, make_bayesian
from bslfast.nn.layer import Settings
from bslfast.nn.means import replace_parts
from bslfast.nn.posteriors import Posterior
from bslfast.nn.priors import Prior


class BayesTransformerEncoderLayer(nn.TransformerEncoderLayer):
    r"""``torch.nn.TransformerEncoderLayer`` with a distribution for every weight and bias.

    What :func:`bslfast.nn.to_bayesian` makes of torch's: attention, two linear layers and two
    normalisations, each of which draws its weights once for the whole batch, unless
    :func:`bslfast.nn.one_draw` has. It never uses torch's kernel for a whole layer.

    .. math::

        h = \mathrm{norm}_1(x + \mathrm{attention}(x)), \quad
        y = \mathrm{norm}_2(h + W_2 f(W_1 h + b_1) + b_2)

    or, if ``norm_first``, with the normalisations inside the sums.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
            norm_first, bias, device, dtype: as of ``torch.nn.TransformerEncoderLayer``.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`; one for all weights, as names differ.

    Shape: x [length, batch, d_model], or [batch, length, d_model] if ``batch_first``, also without
    batch; masks as torch has them. Returns the same shape.

    Raises:
        TypeError, ValueError: a wrong size, number, parametrization or dtype; a wrong input.

    Source: Vaswani et al., "Attention is all you need" (2017, arXiv:1706.03762), section 3.1; drawn
    weights by Tran et al., "Bayesian layers" (2019, arXiv:1812.03973).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesTransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    >>> model(torch.ones(3, 5, 8)).shape, bool(bslfast.nn.kl(model) > 0)
    (torch.Size([3, 5, 8]), True)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        posterior: Posterior | None = None,
        prior: Prior | None = None,
        prior_loc: float = 0.0,
        prior_scale: float = 1.0,
        init_scale: float = 0.02,
        parametrization: str = "softplus",
    ) -> None:
        d_model = _checks.integer("d_model", d_model)
        nhead = _checks.integer("nhead", nhead)
        if d_model % nhead:
            raise ValueError(f"d_model: expected a multiple of nhead, {nhead}, got {d_model}")
        _checks.integer("dim_feedforward", dim_feedforward)
        _checks.fraction("dropout", dropout)
        if not callable(activation):
            _checks.choice("activation", activation, ("relu", "gelu"))
        _checks.number("layer_norm_eps", layer_norm_eps, minimum=0.0)
        _checks.flag("batch_first", batch_first)
        _checks.flag("norm_first", norm_first)
        _checks.flag("bias", bias)
        _checks.factory(device, dtype)
        settings = Settings(posterior, prior, prior_loc, prior_scale, init_scale, parametrization)
        super().__init__(
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            activation,
            layer_norm_eps,
            batch_first,
            norm_first,
            bias,
            device,
            dtype,
        )
        make_bayesian(self, settings)

    def deterministic_twin(self) -> nn.Module:
        """torch's own layer, with copies of the means as its parameters."""
        twin = copy.deepcopy(self)
        replace_parts(twin)
        choose_fast_paths(twin)
        twin.__class__ = nn.TransformerEncoderLayer  # type: ignore[assignment]
        return twin
