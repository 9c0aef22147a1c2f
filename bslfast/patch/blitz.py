"""blitz: linear layers and convolutions."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import torch
from torch import nn

from bslfast.nn import kl
from bslfast.nn.priors import Normal, Prior, ScaleMixture
from bslfast.patch import layers
from bslfast.patch.registry import Conversion, Refusal, converts, finishes


def _prior(module: Any) -> Prior:
    given = module.prior_dist
    if given is None:
        if module.prior_pi == 1:
            return Normal(0.0, module.prior_sigma_1)
        return ScaleMixture(module.prior_pi, module.prior_sigma_1, module.prior_sigma_2)
    if type(given) is not torch.distributions.Normal or given.loc.numel() != 1:
        raise Refusal(f"a {type(given).__name__} as prior_dist")
    return Normal(given.loc.item(), given.scale.item())


def _parts(module: Any) -> tuple[layers.Posterior, layers.Posterior | None]:
    """The posteriors of the weight and of the bias: those that are drawn from."""
    if module.freeze:
        raise Refusal("a frozen layer; its attribute freeze is True")
    prior, weight = _prior(module), module.weight_sampler
    found = layers.Posterior(weight.mu, weight.rho, prior)
    if not getattr(module, "bias", False):
        return found, None
    return found, layers.Posterior(module.bias_sampler.mu, module.bias_sampler.rho, prior)


@converts("blitz.modules.linear_bayesian_layer.BayesianLinear", becomes="`BayesLinear`")
def _linear(module: Any, conversion: Conversion) -> nn.Module:
    return layers.linear(*_parts(module))


@converts(
    *(f"blitz.modules.conv_bayesian_layer.BayesianConv{sides}d" for sides in (1, 2, 3)),
    becomes="`BayesConv1d`, `2d`, `3d`",
)
def _convolution(module: Any, conversion: Conversion) -> nn.Module:
    return layers.convolution(module, *_parts(module))


def _no_longer(what: str, *args: Any) -> NoReturn:
    raise RuntimeError(
        f"{what}: expected a model with layers of blitz, got one that has been converted; "
        "bslfast.nn.at_means(model) puts the means in the place of draws"
    )


@finishes("blitz")
def _methods(model: nn.Module) -> None:
    """Let the methods of ``variational_estimator``, which look for blitz's layers, find ours."""
    for module in model.modules():
        methods: Any = module
        if hasattr(type(module), "nn_kl_divergence"):
            methods.nn_kl_divergence = functools.partial(kl, module)
            for name in ("freeze_", "unfreeze_", "MOPED_"):
                if hasattr(type(module), name):
                    setattr(methods, name, functools.partial(_no_longer, name))
