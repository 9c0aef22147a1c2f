"""A linear map with normal weights in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from bslfast.reference.normal import normal_rsample_kl


def bayes_linear(
    x: Tensor,
    weight_loc: Tensor,
    weight_raw_scale: Tensor,
    bias_loc: Tensor | None = None,
    bias_raw_scale: Tensor | None = None,
    *,
    prior_loc: float = 0.0,
    prior_scale: float = 1.0,
    parametrization: str = "softplus",
    seed: int | Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """See :func:`bslfast.functional.bayes_linear`."""

    def drawn(loc: Tensor, raw_scale: Tensor, stream: int) -> tuple[Tensor, Tensor]:
        return normal_rsample_kl(
            loc,
            raw_scale,
            prior_loc=prior_loc,
            prior_scale=prior_scale,
            parametrization=parametrization,
            seed=seed,
            stream=stream,
        )

    weight, kl = drawn(weight_loc, weight_raw_scale, 0)
    if bias_loc is None or bias_raw_scale is None:
        return F.linear(x, weight), kl
    bias, bias_kl = drawn(bias_loc, bias_raw_scale, 1)
    return F.linear(x, weight, bias), kl + bias_kl
