"""blitz: linear layers, convolutions, embeddings and LSTMs."""

from __future__ import annotations

import functools
import math
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from bslfast.nn import BayesEmbedding, BayesLSTM, kl
from bslfast.nn.posteriors import Deterministic
from bslfast.nn.priors import Normal, Prior, ScaleMixture
from bslfast.patch import layers
from bslfast.patch.registry import Conversion, Refusal, converts, finishes, put, refuses


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


class WithFinalState(nn.Module):
    """A layer that is called as blitz' ``BayesianLSTM`` is: its states are those of one layer.

    Args:
        layer: a :class:`bslfast.nn.BayesLSTM` of one layer and direction, with ``batch_first`` and
            ``return_state``.

    Shape: x [batch, length, input_size], and perhaps the state at the start, (h, c), each
    [batch, hidden_size] -> ([batch, length, hidden_size], (h, c)).

    Raises:
        TypeError, ValueError: what the layer raises.

    >>> import torch, bslfast
    >>> layer = bslfast.nn.BayesLSTM(3, 4, batch_first=True, return_state=True)
    >>> outputs, (h, c) = bslfast.patch.WithFinalState(layer)(torch.ones(2, 7, 3))
    >>> outputs.shape, h.shape
    (torch.Size([2, 7, 4]), torch.Size([2, 4]))
    """

    def __init__(self, layer: BayesLSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, x: Tensor, hidden_states: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs of all steps and the final state, for one draw."""
        state = None if hidden_states is None else tuple(s.unsqueeze(0) for s in hidden_states)
        outputs, (h, c) = self.layer(x, state)
        return outputs, (h.squeeze(0), c.squeeze(0))


#: Of normals whose density at 0 is 1: a constant 0 then adds nothing to the divergence.
_NO_DIVERGENCE = Normal(0.0, (2 * math.pi) ** -0.5)


@converts(
    "blitz.modules.lstm_bayesian_layer.BayesianLSTM",
    becomes="`BayesLSTM` in a `patch.WithFinalState`; its second bias is a frozen 0",
)
def _lstm(module: Any, conversion: Conversion) -> nn.Module:
    if module.freeze:
        raise Refusal("a frozen layer; its attribute freeze is True")
    if module.peephole:
        raise Refusal("peepholes, where the gates see the cell and not the outputs")
    if module.sharpen:
        raise Refusal("a posterior that is sharpened by gradients")
    if not module.use_bias:
        raise Refusal("an LSTM without a bias, which cannot be called there")
    prior, weight = _prior(module), module.weight_ih_sampler.mu
    names = ("weight_ih", "weight_hh", "bias_ih")
    made: Any = BayesLSTM(
        module.in_features,
        module.out_features,
        batch_first=True,
        return_state=True,
        posterior={"bias_hh_l0": Deterministic()},
        prior={f"{name}_l0": prior for name in names} | {"bias_hh_l0": _NO_DIVERGENCE},
        device=weight.device,
        dtype=weight.dtype,
    )
    samplers = (module.weight_ih_sampler, module.weight_hh_sampler, module.bias_sampler)
    for name, sampler in zip(names, samplers, strict=True):
        # There a row of weights belongs to an input, here to an output.
        make = torch.t if sampler.mu.dim() == 2 else None
        put(getattr(made, f"{name}_l0_loc"), sampler.mu, make=make)
        put(getattr(made, f"{name}_l0_raw_scale"), sampler.rho, make=make)
    made.bias_hh_l0_loc.data.zero_()
    made.bias_hh_l0_loc.requires_grad_(False)
    return WithFinalState(made)


@converts("blitz.modules.embedding_bayesian_layer.BayesianEmbedding", becomes="`BayesEmbedding`")
def _embedding(module: Any, conversion: Conversion) -> nn.Module:
    if module.freeze:
        raise Refusal("a frozen layer; its attribute freeze is True")
    if module.padding_idx is not None:
        raise Refusal("a padding_idx, whose row is drawn there and has no noise here")
    mean, raw_scale = module.weight_sampler.mu, module.weight_sampler.rho
    made: Any = BayesEmbedding(
        *mean.shape,
        max_norm=module.max_norm,
        sparse=module.sparse,
        scale_grad_by_freq=module.scale_grad_by_freq,
        prior=_prior(module),
        device=mean.device,
        dtype=mean.dtype,
    )
    put(made.weight_loc, mean)
    put(made.weight_raw_scale, raw_scale)
    return made  # type: ignore[no-any-return]


refuses(
    "blitz.modules.gru_bayesian_layer.BayesianGRU",
    because="its divergence is also that of weights that nothing reads",
)


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
