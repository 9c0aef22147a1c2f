"""What the variational and the deterministic autoencoder share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Laplace,
    Likelihood,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

_PLAIN = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
    "negative_binomial": NegativeBinomial,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
}
# The scale that the decoder gives is a variance's logarithm for a law that has variances.
_WITH_SCALE = {
    "normal": (Normal, "log_var"),
    "laplace": (Laplace, "log_scale"),
    "student_t": (StudentT, "log_scale"),
}
LIKELIHOODS = tuple(dict.fromkeys(("bernoulli", *_WITH_SCALE, *_PLAIN)))


class Decoding(nn.Module):
    """An encoder, a decoder, and what the decoder's outputs mean."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str | Likelihood,
        scale: float | str,
        latent: int | None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"{name}: expected a torch.nn.Module, got {_checks.describe(module)}"
                )
        # First, as its parameter comes first in the order of parameters.
        self.likelihood = _likelihood(likelihood, scale)
        if likelihood is not self.likelihood:
            like = next(encoder.parameters(), next(decoder.parameters(), torch.empty(())))
            self.likelihood.to(device=like.device, dtype=like.dtype)
        self.encoder = encoder
        self.decoder = decoder
        self.latent = None if latent is None else _checks.integer("latent", latent)

    def reset_parameters(self) -> None:
        """Set the learned scale, if there is one, to 1; encoder and decoder are left alone."""
        reset = getattr(self.likelihood, "reset_parameters", None)
        if reset is not None:
            reset()

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z) for codes z [batch, latent]: probabilities, locs or rates."""
        outputs = self._decoded(_checks.floating("z", z, 2, "[batch, latent]"))
        return self.likelihood.mean(outputs, dim=1)

    def _sample(self, n: int, seed: int | Tensor | None) -> Tensor:
        n = _checks.integer("n", n)
        if self.latent is None:
            raise ValueError(
                "latent: expected a number given to the constructor, or a call of encode before, "
                "got None"
            )
        like = next(self.decoder.parameters(), torch.empty(()))
        zeros = like.new_zeros(n, self.latent)
        return self.decode(BF.normal_rsample(zeros, zeros, parametrization="log_scale", seed=seed))

    def _decoded(self, z: Tensor) -> Tensor:
        """The decoder's outputs for codes [n, latent]: as many as the likelihood divides."""
        outputs = self.decoder(z)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"decoder: expected a tensor, got {_checks.describe(outputs)}")
        n = len(self.likelihood.parts)
        if n > 1 and (outputs.dim() < 2 or outputs.shape[1] % n):
            parts = " and ".join(dict.fromkeys(self.likelihood.parts))
            number = "an even number" if n == 2 else f"a multiple of {n}"
            raise ValueError(
                f"decoder: expected outputs with {parts} side by side on dimension 1, {number} in "
                f"all, got shape {tuple(outputs.shape)}"
            )
        return outputs

    def _log_likelihood(self, x: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """log p(x | z) of x [batch, ...] for codes [..., batch, latent], of shape [..., batch]."""
        outputs = _checks.operand("decoder", self._decoded(z.flatten(0, -2) if z.dim() > 2 else z))
        n = len(self.likelihood.parts)
        wanted = (math.prod(z.shape[:-1]), n * x.shape[1], *x.shape[2:])
        if outputs.shape != wanted:
            raise ValueError(
                f"decoder: expected outputs of shape {wanted} for x of shape "
                f"{tuple(x.shape)}, got {tuple(outputs.shape)}"
            )
        if z.dim() > 2:
            outputs = outputs.reshape(*z.shape[:-1], *outputs.shape[1:])
        return self.likelihood._log_prob(outputs, x, mask)

    def _check_x(self, x: Tensor) -> Tensor:
        _checks.floating("x", x)
        if x.dim() < 2:
            raise ValueError(f"x: expected shape [batch, ...], got {_checks.describe(x)}")
        targets = self.likelihood.targets
        if targets is not None and x.shape[1:] != (targets,):
            raise ValueError(
                f"x: expected shape [batch, {targets}] for {self.likelihood}, got "
                f"{_checks.describe(x)}; a likelihood with targets=None takes any"
            )
        self.likelihood.check(x, "x")
        return x

    def _encoded(self, x: Tensor, width: int) -> Tensor:
        """The encoder's output for a checked x, ``width`` numbers for each latent dimension."""
        outputs = self.encoder(x)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"encoder: expected a tensor, got {_checks.describe(outputs)}")
        if outputs.dim() != 2 or outputs.shape[0] != x.shape[0]:
            raise ValueError(
                f"encoder: expected an output of shape [{x.shape[0]}, ...], "
                f"got {tuple(outputs.shape)}"
            )
        if outputs.shape[1] % width:
            raise ValueError(
                "encoder: expected mu and log_var side by side on the last dimension, an even "
                f"number in all, got shape {tuple(outputs.shape)}"
            )
        latent = outputs.shape[1] // width
        if self.latent is None and not torch.compiler.is_compiling():
            self.latent = latent
        if self.latent is not None and latent != self.latent:
            raise ValueError(
                f"encoder: expected an output of shape {(x.shape[0], width * self.latent)} for "
                f"{self.latent} latent dimensions, got {tuple(outputs.shape)}"
            )
        return outputs

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # Where states had the learned scale before it was the likelihood's.
        if prefix + "log_scale" in state_dict:
            state_dict[prefix + "likelihood.raw_scale"] = state_dict.pop(prefix + "log_scale")
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        """Show the number of latent dimensions."""
        return f"latent={self.latent}"


def _likelihood(likelihood: str | Likelihood, scale: float | str) -> Likelihood:
    """The likelihood of that name, or the one given, with what ``scale`` says."""
    if isinstance(likelihood, Likelihood):
        if isinstance(likelihood, Categorical):
            raise ValueError(f"likelihood: expected one of numbers, got {likelihood}")
        if scale != "learned":
            raise ValueError(f"scale: expected none beside a Likelihood, got {scale!r}")
        return likelihood
    _checks.choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood in _PLAIN:
        if scale != "learned":
            raise ValueError(f"scale: expected none for likelihood {likelihood!r}, got {scale!r}")
        return _PLAIN[likelihood](None)
    family, of_decoder = _WITH_SCALE[likelihood]
    if isinstance(scale, str):
        _checks.choice("scale", scale, ("learned", "decoder"))
    if scale == "decoder":
        return family(None, scale="outputs", parametrization=of_decoder)
    return family(None, scale=scale, parametrization="log_scale")
