"""The deterministic autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bslfast.likelihoods import Likelihood
from bslfast.vae.decoding import Decoding


class Autoencoder(Decoding):
    """The deterministic autoencoder: a point for each code, and nothing to keep codes together.

    Called on x it returns the log likelihood log p(x | z) of each example at its code, [batch]:
    train it on ``-autoencoder(x).mean()``, as a :class:`VAE`, with which it shares likelihoods,
    decoders and the other methods.

    Args:
        encoder: any module, x [batch, ...] -> [batch, latent].
        decoder, likelihood, scale, latent, classes: as in :class:`VAE`.

    Raises:
        TypeError, ValueError: as :class:`VAE`.

    >>> import torch
    >>> from bslfast.vae import Autoencoder, mlp_encoder, mlp_decoder
    >>> model = Autoencoder(mlp_encoder((8, 8), 2, deterministic=True), mlp_decoder(2, (8, 8)))
    >>> x = torch.rand(16, 8, 8)
    >>> model(x).shape, model.encode(x).shape, model.reconstruct(x).shape
    (torch.Size([16]), torch.Size([16, 2]), torch.Size([16, 8, 8]))
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        likelihood: str | Likelihood = "bernoulli",
        scale: float | str = "learned",
        latent: int | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, scale, latent, classes)

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the codes of x, [batch, latent]; for ``mask`` see :meth:`log_likelihood`."""
        return self._encoded(self._check_x(self._observed(x, mask), context), context)

    def log_likelihood(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return log p(x | z) at the code of each example, [batch], in nats.

        Args:
            x: [batch, ...].
            context: what encoder and decoder take beside x and z, [batch, ...].
            mask: where values of x are missing, as in :meth:`VAE.terms`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came.
        """
        found = self._at_once(x, "_by_ops") if context is None and mask is None else None
        return self._by_ops(x, context, mask=mask)[1] if found is None else found

    def _by_ops(
        self,
        x: Tensor,
        context: Tensor | None,
        *,
        mask: Tensor | None = None,
        shape: torch.Size | None = None,
    ) -> tuple[None, Tensor]:
        x = self._observed(x if shape is None else x.view(shape), mask)
        return None, self._log_likelihood(x, self.encode(x, context), context, mask)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return ``log_likelihood(x, context)``."""
        return self.log_likelihood(x, context)

    def reconstruct(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean of p(x | z) at each example's code, shaped like x.

        Args:
            x, context, mask: as in :meth:`log_likelihood`.

        Raises:
            TypeError, ValueError: naming the argument, what was expected and what came; also for
                NaN where the mask does not say that a value is missing (in eager mode on the CPU).
        """
        return self.decode(self.codes(x, context, mask=mask), context)

    def codes(
        self, x: Tensor, context: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Return :meth:`encode`, which raises for NaN as :meth:`reconstruct`."""
        return self.encode(self._complete(x, mask), context)

    def _latent_of(self, outputs: Tensor) -> int:
        return outputs.shape[1]
