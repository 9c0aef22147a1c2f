"""bayesian-torch: linear layers and convolutions, by reparametrisation and by flipout."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bslfast.nn import BayesianLayer
from bslfast.patch import layers
from bslfast.patch.registry import Conversion, Refusal, converts, refuses

_KINDS = {
    "variational_layers.{}_variational.{}Reparameterization": "weight_sample",
    "flipout_layers.{}_flipout.{}Flipout": "flipout",
}


def _names(module: str, *kinds: str) -> list[str]:
    """The names of the classes of these kinds, in both ways to draw."""
    return [
        "bayesian_torch.layers." + name.format(module, kind) for name in _KINDS for kind in kinds
    ]


class WithKL(nn.Module):
    """A layer that is called as bayesian-torch's are: it returns its divergence, too.

    That is not the sum, which :func:`bslfast.nn.kl` returns, but the mean over the weights plus
    the mean over the biases. bayesian-torch's ``get_kl_loss`` finds it.

    Args:
        layer: a layer of bslfast.
        alone: whether outputs are returned alone all the same, as by layers of ``dnn_to_bnn``.

    >>> import torch, bslfast
    >>> layer = bslfast.patch.WithKL(bslfast.nn.BayesLinear(3, 2, bias=False))
    >>> y, kl = layer(torch.randn(5, 3))
    >>> torch.allclose(kl, bslfast.nn.kl(layer) / 6)
    True
    """

    def __init__(self, layer: BayesianLayer, alone: bool = False) -> None:
        super().__init__()
        self.layer, self.alone = layer, alone

    def forward(self, x: Tensor, return_kl: bool = True) -> Any:
        """Return outputs for one draw and :meth:`kl_loss`, or outputs alone."""
        y = self.layer(x)
        return (y, self.kl_loss()) if return_kl and not self.alone else y

    def kl_loss(self) -> Tensor:
        """The divergence, averaged as bayesian-torch does it."""
        means = [weight.kl() / weight.loc.numel() for weight in self.layer.weights()]
        total = means[0]
        for mean in means[1:]:
            total = total + mean
        return total


def _parts(module: Any, name: str) -> tuple[layers.Posterior, layers.Posterior | None]:
    """The posteriors of the weight and of the bias."""
    if module.quant_prepare:
        raise Refusal("a layer prepared for quantisation")
    weight = layers.Posterior(
        getattr(module, f"mu_{name}"),
        getattr(module, f"rho_{name}"),
        layers.normal_prior(module.prior_weight_mu, module.prior_weight_sigma),
    )
    if module.mu_bias is None:
        return weight, None
    prior = layers.normal_prior(module.prior_bias_mu, module.prior_bias_sigma)
    return weight, layers.Posterior(module.mu_bias, module.rho_bias, prior)


def _called(module: Any, layer: BayesianLayer) -> nn.Module:
    return WithKL(layer, alone=module.dnn_to_bnn_flag)


def _estimator(module: Any) -> str:
    return "flipout" if type(module).__name__.endswith("Flipout") else "weight_sample"


@converts(*_names("linear", "Linear"), becomes="`BayesLinear`, in a `patch.WithKL`")
def _linear(module: Any, conversion: Conversion) -> nn.Module:
    parts = _parts(module, "weight")
    return _called(module, layers.linear(*parts, estimator=_estimator(module)))


@converts(
    *_names("conv", "Conv1d", "Conv2d", "Conv3d"),
    becomes="`BayesConv1d`, `2d`, `3d`, likewise",
)
@converts(
    *_names("conv", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    becomes="`BayesConvTranspose1d`, `2d`, `3d`, likewise",
)
def _convolution(module: Any, conversion: Conversion) -> nn.Module:
    made = layers.convolution(
        module,
        *_parts(module, "kernel"),
        transposed="Transpose" in type(module).__name__,
        estimator=_estimator(module),
    )
    return _called(module, made)


refuses(
    "bayesian_torch.layers.variational_layers.rnn_variational.LSTMReparameterization",
    "bayesian_torch.layers.flipout_layers.rnn_flipout.LSTMFlipout",
    because="it draws other weights in each time step, `BayesLSTM` one draw for all of them",
)
