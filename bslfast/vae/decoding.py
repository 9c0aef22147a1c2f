"""What the variational and the deterministic autoencoder share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bslfast import _checks
from bslfast import functional as BF
from bslfast.functional._op import runs_eagerly

LIKELIHOODS = ("bernoulli", "normal")


class Decoding(nn.Module):
    """An encoder, a decoder, and what the decoder's outputs mean."""

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: str,
        scale: float | str,
        latent: int | None,
    ) -> None:
        super().__init__()
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"{name}: expected a torch.nn.Module, got {_checks.describe(module)}"
                )
        _checks.choice("likelihood", likelihood, LIKELIHOODS)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent = None if latent is None else _checks.integer("latent", latent)
        self.scale: float | str | None = None
        if likelihood == "normal":
            if isinstance(scale, str):
                self.scale = _checks.choice("scale", scale, ("learned", "decoder"))
            else:
                self.scale = _checks.number("scale", scale, above=0.0)
        elif scale != "learned":
            raise ValueError(f"scale: expected none for likelihood 'bernoulli', got {scale!r}")
        if self.scale == "learned":
            parameter = next(self.parameters(), None)
            like = torch.empty(()) if parameter is None else parameter
            self.log_scale = nn.Parameter(like.new_zeros(()))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the learned scale, if there is one, to 1; encoder and decoder are left alone."""
        if self.scale == "learned":
            self.log_scale.zero_()

    def decode(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z) for codes z [batch, latent]: probabilities, or locs."""
        outputs = self.decoder(_checks.floating("z", z, 2, "[batch, latent]"))
        if self.likelihood == "bernoulli":
            return torch.sigmoid(outputs)
        return self._loc_raw_scale(outputs)[0]

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

    def _loc_raw_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """What the normal likelihood makes of the decoder's outputs [batch, ...]."""
        if self.scale == "decoder":
            if outputs.dim() < 2 or outputs.shape[1] % 2:
                raise ValueError(
                    "decoder: expected outputs with locs and log variances side by side on "
                    f"dimension 1, an even number in all, got shape {tuple(outputs.shape)}"
                )
            loc, log_var = outputs.chunk(2, dim=1)
            return loc, log_var
        if self.scale == "learned":
            return outputs, self.log_scale
        return outputs, outputs.new_full((), math.log(float(self.scale or 1.0)))

    def _log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) of x [batch, ...] for codes [..., batch, latent], of shape [..., batch]."""
        outputs = self.decoder(z.flatten(0, -2) if z.dim() > 2 else z)
        if not isinstance(outputs, Tensor):
            raise TypeError(f"decoder: expected a tensor, got {_checks.describe(outputs)}")
        outputs = _checks.operand("decoder", outputs)
        loc, raw_scale = outputs, None
        if self.likelihood == "normal":
            loc, raw_scale = self._loc_raw_scale(outputs)
        if loc.shape != (math.prod(z.shape[:-1]), *x.shape[1:]):
            wanted = [math.prod(z.shape[:-1]), *x.shape[1:]]
            if self.scale == "decoder":
                wanted[1] *= 2
            raise ValueError(
                f"decoder: expected outputs of shape {tuple(wanted)} for x of shape "
                f"{tuple(x.shape)}, got {tuple(outputs.shape)}"
            )
        shape = (*z.shape[:-1], x[:1].numel() if len(x) else math.prod(x.shape[1:]))
        loc, x = loc.reshape(shape), x.reshape(shape[-2:])
        if raw_scale is None:
            return BF.bernoulli_log_prob(loc, x)
        if self.scale == "decoder":
            return BF.normal_log_prob(x, loc, raw_scale.reshape(shape), parametrization="log_var")
        return BF.normal_log_prob(x, loc, raw_scale, parametrization="log_scale")

    def _check_x(self, x: Tensor) -> Tensor:
        _checks.floating("x", x)
        if x.dim() < 2:
            raise ValueError(f"x: expected shape [batch, ...], got {_checks.describe(x)}")
        # Cheap where x is in this machine's memory; elsewhere it would wait for the device.
        if self.likelihood == "bernoulli" and x.numel() and runs_eagerly([x]):
            low, high = (v.item() for v in torch.aminmax(x.detach()))
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    "x: expected values in [0, 1] for likelihood 'bernoulli', "
                    f"got {_checks.shown(low, 0, 1)} to {_checks.shown(high, 0, 1)}"
                )
        return x

    def _encoded(self, x: Tensor, width: int) -> Tensor:
        """The encoder's output for a checked x, ``width`` numbers for each latent dimension."""
        outputs = self.encoder(self._check_x(x))
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

    def extra_repr(self) -> str:
        """Show the likelihood."""
        scale = "" if self.scale is None else f", scale={self.scale!r}"
        return f"likelihood={self.likelihood!r}{scale}, latent={self.latent}"
