"""torchbnn: its linear layer and its convolution."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from bslfast.nn.priors import Normal
from bslfast.patch import layers
from bslfast.patch.registry import Conversion, Refusal, converts, finishes, refuses


def _parts(module: Any) -> tuple[layers.Posterior, layers.Posterior | None]:
    """The posteriors of the weight and of the bias."""
    if module.weight_eps is not None or module.bias_eps is not None:
        raise Refusal("a layer whose draw has been frozen; torchbnn's unfreeze(model) undoes it")
    prior = Normal(module.prior_mu, module.prior_sigma)
    weight = layers.Posterior(module.weight_mu, module.weight_log_sigma, prior)
    if not module.bias:
        return weight, None
    return weight, layers.Posterior(module.bias_mu, module.bias_log_sigma, prior)


@converts("torchbnn.modules.linear.BayesLinear", becomes="`BayesLinear`")
def _linear(module: Any, conversion: Conversion) -> nn.Module:
    return layers.linear(*_parts(module), parametrization="log_scale")


@converts("torchbnn.modules.conv.BayesConv2d", becomes="`BayesConv2d`; padding with zeros")
def _convolution(module: Any, conversion: Conversion) -> nn.Module:
    # Others than "zeros" and "circular" pad with zeros there.
    if module.padding_mode == "circular" and any(module.padding):
        raise Refusal("circular padding, which pads half as much there")
    return layers.convolution(module, *_parts(module), parametrization="log_scale")


refuses(
    "torchbnn.modules.batchnorm.BayesBatchNorm2d",
    because="there is no batch normalisation with drawn weights",
)


@finishes("torchbnn")
def _warn(model: nn.Module) -> None:
    warnings.warn(
        "torchbnn.BKLLoss finds no layers in the converted model and returns 0: "
        "bslfast.nn.kl(model) is the divergence, as the sum over all weights",
        stacklevel=4,
    )
