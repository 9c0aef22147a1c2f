"""The Bayesian layer normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bslfast import _checks
from bslfast.nn.layer import BayesianLayer, Settings


class BayesLayerNorm(BayesianLayer, nn.LayerNorm):
    r"""``torch.nn.LayerNorm`` with a distribution for every gain and bias.

    .. math:: y = \frac{x - \mathrm{mean}(x)}{\sqrt{\mathrm{var}(x) + \epsilon}} w + b

    Each forward pass draws one w and one b for the whole batch, unless
    :func:`bslfast.nn.one_draw` has. Gains start at 1: ``prior={"weight": Normal(1.0, 0.1)}`` is a
    prior around that.

    Args:
        normalized_shape, eps, elementwise_affine, bias, device, dtype: as of
            ``torch.nn.LayerNorm``; without ``elementwise_affine`` there would be nothing to draw.
        posterior, prior, prior_loc, prior_scale, init_scale, parametrization: as in
            :class:`bslfast.nn.BayesianLayer`.

    Shape: x [..., *normalized_shape] -> the same.

    Parameters: ``weight_loc``, ``weight_raw_scale``, ``bias_loc``, ``bias_raw_scale``,
    [*normalized_shape].

    Raises:
        TypeError, ValueError: a wrong number, parametrization or dtype; a wrong input.

    Source: Ba, Kiros and Hinton, "Layer normalization" (2016, arXiv:1607.06450).

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLayerNorm(4)
    >>> layer(torch.randn(2, 4)).shape, layer.weight_loc
    (torch.Size([2, 4]), Parameter containing:
    tensor([1., 1., 1., 1.], requires_grad=True))
    """

    _without_inputs = frozenset({"weight", "bias"})
    weight_loc: Tensor
    weight_raw_scale: Tensor
    # None without a bias, as torch's own bias.
    bias_loc: Tensor
    bias_raw_scale: Tensor

    @classmethod
    def check_arguments(cls, given: Mapping[str, Any]) -> None:
        """Raise TypeError or ValueError for arguments of the constructor that are wrong."""
        super().check_arguments(given)
        shape = given["normalized_shape"]
        several = isinstance(shape, tuple | list)
        _checks.widths("normalized_shape", shape if several else (shape,), at_least=1)
        _checks.number("eps", given.get("eps", 1e-5), minimum=0.0)

    def make_bayesian(self, settings: Settings) -> None:
        """Put the parameters of the posterior in the place of gain and bias."""
        if not self.elementwise_affine:
            raise ValueError("elementwise_affine: expected True, got False")
        super().make_bayesian(settings)

    def check_inputs(self, *inputs: Any, **options: Any) -> None:
        """Raise TypeError or ValueError if the input does not end with the layer's shape."""
        x = _checks.operand("x", inputs[0] if inputs else options.get("input"))
        _checks.alike("x", x, "weight_loc", self.weight_loc)
        shape = list(self.normalized_shape)
        if list(x.shape[-len(shape) :]) != shape:
            shown = ", ".join(map(str, shape))
            raise ValueError(f"x: expected shape [..., {shown}], got {list(x.shape)}")
